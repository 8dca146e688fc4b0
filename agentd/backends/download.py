"""Fetches files over the network, as far as connections break and disks have room; the door for models that come in."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event

from agentd.errors import AgentdError, Cancelled, Conflict, Denied, DiskFull, DownloadFailed, NotFound
from agentd.policy.hosts import host_port, is_loopback

PART, MARK = ".part", ".part.json"
"""What has come so far lies in NAME.part; NAME.part.json says of what it is a part."""

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]
MayFetch: TypeAlias = Callable[[str, int], None]
"""Raises `Denied` for a host and port that nothing may be fetched from."""

_CHUNK = 1024 * 1024
_TELL_SECONDS = 0.5
_CONNECT_SECONDS = 15.0
_LONGEST_PAUSE = 60.0
_LONGEST_ASKED_PAUSE = 300.0
_MOST_HOPS = 10
_MOST_JSON = 32 * 1024 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")
_NUMBER = re.compile(r"[0-9]{1,18}")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_DATE = re.compile(r"[A-Za-z0-9 ,:+-]{10,40}")
_TRIES_OF_A_QUESTION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file to fetch; size in bytes and SHA-256 in hexadecimal where they are known beforehand."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


class _Broken(Exception):
    """The connection ended too early, or the server has no time; `pause` seconds if it says so."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to go on: so many tries in a row may bring nothing, with `pause` seconds and then ever more between
    them; a connection may be silent for `silence` seconds."""

    tries: int = 6
    pause: float = 1.0
    silence: float = 60.0


class Web:
    """GET requests, https only beyond this machine; each host is asked for, each redirect looked at."""

    def __init__(
        self,
        may_fetch: MayFetch,
        *,
        cancel: threading.Event,
        tokens: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`tokens` by origin (`https://host`): bearer tokens that no other origin is shown."""
        self.cancel = cancel
        self.patience = patience or Patience()
        self._may_fetch = may_fetch
        self._tokens = tokens or {}
        silence = self.patience.silence
        self._timeout = httpx2.Timeout(silence, connect=min(silence, _CONNECT_SECONDS))

    def json(self, url: str) -> tuple[Any, str | None]:
        """A JSON text, and the address of the next page if there is one.

        Raises `DownloadFailed`, `NotFound`, `Denied`.
        """
        tried = 0

        def once() -> tuple[Any, str | None]:
            nonlocal tried
            tried += 1
            return self._json(url)

        try:
            return self.retrying(lambda: tried, tries=_TRIES_OF_A_QUESTION)(once)
        except _Broken as error:
            raise DownloadFailed(f"{url}: {error}", hint="is this machine online? try again later") from None

    def retrying(
        self,
        fruitless: Callable[[], int],
        told: Callable[[str, float], None] | None = None,
        *,
        tries: int | None = None,
    ) -> Retrying:
        """Repeats what broke off, until that was in vain too often, as `fruitless()` counts, or all is cancelled."""
        most = min(self.patience.tries, tries or self.patience.tries)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            if isinstance(error, _Broken) and error.pause is not None:
                return min(error.pause, _LONGEST_ASKED_PAUSE)
            return float(min(self.patience.pause * 2 ** max(0, fruitless() - 1), _LONGEST_PAUSE))

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            if told is not None and state.next_action is not None:
                told(str(error), state.next_action.sleep)

        return Retrying(
            retry=retry_if_exception_type(_Broken),
            stop=lambda _: fruitless() >= most or self.cancel.is_set(),
            wait=wait,
            sleep=sleep_using_event(self.cancel),
            before_sleep=tell,
            reraise=True,
        )

    def _json(self, url: str) -> tuple[Any, str | None]:
        with self.open(url, {"Accept": "application/json"}) as reply:
            content = b""
            for chunk in reply.iter_bytes():
                content += chunk
                if len(content) > _MOST_JSON:
                    raise DownloadFailed(f"{url} gives more than {_MOST_JSON:,} bytes", hint="name the file itself")
            following = reply.links.get("next", {}).get("url")
            following = None if following is None else str(reply.url.join(following))
        try:
            return json.loads(content), following
        except (ValueError, RecursionError):
            raise DownloadFailed(f"what {url} gives is no JSON", hint="is it the address of a hub?") from None

    @contextmanager
    def open(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """The reply with the status 200, 206 or 416, its body unread. Raises `_Broken` for what may go better later."""
        try:
            first = httpx2.URL(url)
            # A proxy of the environment has nothing to do between two programs on one machine.
            with httpx2.Client(timeout=self._timeout, trust_env=not is_loopback(_host(first))) as client:
                reply = self._follow(client, first, headers)
                try:
                    yield reply
                finally:
                    reply.close()
        except httpx2.InvalidURL as error:
            raise DownloadFailed(f"{url!r} is no address: {error}", hint="it begins with https://") from None
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _Broken(f"{httpx2.URL(url).host}: {str(error) or type(error).__name__}") from None

    def _follow(self, client: httpx2.Client, url: httpx2.URL, headers: Mapping[str, str]) -> httpx2.Response:
        for _ in range(_MOST_HOPS):
            self._check(url)
            token = self._tokens.get(_origin(url))
            sent = dict(headers) | ({"Authorization": f"Bearer {token}"} if token else {})
            reply = client.send(client.build_request("GET", url, headers=sent), stream=True)
            if reply.status_code not in _REDIRECTS:
                return _good(reply)
            there = str(reply.headers.get("Location", ""))
            reply.close()
            url = redirected(url, there)
        raise DownloadFailed(f"{url} leads on more than {_MOST_HOPS} times", hint="name the file itself")

    def _check(self, url: httpx2.URL) -> None:
        host = _host(url)
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
            raise Denied(
                f"nothing is fetched from {str(url)[:200]}: beyond this machine only https is spoken",
                hint="use an address with https://",
            )
        self._may_fetch(host, url.port or (443 if url.scheme == "https" else 80))


class Download:
    """One file on its way into a folder. What came is kept through everything, so that the next try goes on there."""

    def __init__(
        self,
        web: Web,
        wanted: RemoteFile,
        folder: Path,
        *,
        tell: Tell,
        reserve: int = 0,
    ) -> None:
        """`reserve`: bytes of the disk that stay free."""
        self._web = web
        self._wanted = wanted
        self._target = folder / wanted.name
        self._part = folder / (wanted.name + PART)
        self._mark = folder / (wanted.name + MARK)
        self._tell = tell
        self._reserve = reserve
        self._fruitless = 0
        self._size = wanted.size
        self._told = 0.0

    def run(self) -> Path:
        """The file, whole and checked.

        Raises `DownloadFailed`, `NotFound`, `Denied`, `DiskFull` and `Cancelled`; `Conflict` when its name is taken.
        """
        try:
            return self._run()
        except OSError as error:
            raise self._disk_error(error) from None

    def _run(self) -> Path:
        if self._target.exists():
            return self._there_already()
        went_on = self._kept() > 0
        self._fetch()
        found = self._checksum()
        if self._wanted.sha256 not in (None, found) and went_on:
            # The part may have been one of another file; from the start there is no doubt.
            self._discard()
            self._fetch()
            found = self._checksum()
        if self._wanted.sha256 not in (None, found):
            self._discard()
            raise DownloadFailed(
                f"{self._wanted.name} has the SHA-256 {found}, not {self._wanted.sha256}; it was thrown away",
                hint="fetch it again; if that does not help, what the server has is not what it should be",
            )
        os.replace(self._part, self._target)
        self._mark.unlink(missing_ok=True)
        return self._target

    def _there_already(self) -> Path:
        same = self._wanted.size in (None, self._target.stat().st_size)
        if same and self._wanted.sha256 is not None:
            same = self._checksum(self._target) == self._wanted.sha256
        if not same:
            raise Conflict(
                f"{self._target} is there already and is another file", hint="remove it first: `agentd model rm`"
            )
        return self._target

    def _fetch(self) -> None:
        self._fruitless = 0
        try:
            self._web.retrying(lambda: self._fruitless, self._tell_of_break)(self._attempt)
        except _Broken as error:
            self._stop_if_cancelled()
            raise DownloadFailed(
                f"{self._wanted.name}: {self._fruitless} tries brought nothing: {error}",
                hint="what has come is kept; the same command goes on from there",
            ) from None

    def _attempt(self) -> None:
        self._stop_if_cancelled()
        before = self._kept()
        try:
            self._receive(before)
        except _Broken:
            self._fruitless = 0 if self._kept() > before else self._fruitless + 1
            raise

    def _receive(self, start: int) -> None:
        """One connection's worth, from byte `start` on."""
        if start and start == self._size:
            return
        with self._web.open(self._wanted.url, self._headers(start)) as reply:
            if reply.status_code == 416:
                self._beyond_its_end(reply, start)
                return
            start = self._place(reply, start)
            _refuse_encoded(reply, self._wanted.name)
            self._need_room(start)
            with self._part.open("r+b" if self._part.exists() else "wb") as file:
                file.truncate(start)
                file.seek(start)
                self._copy(reply, file, start)
        came = self._part.stat().st_size
        if self._size is not None and came < self._size:
            raise _Broken(f"{came:,} of {self._size:,} bytes came")

    def _headers(self, start: int) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator := self._noted().get("validator"):
                headers["If-Range"] = validator
        return headers

    def _place(self, reply: httpx2.Response, start: int) -> int:
        """The byte of the file at which this reply begins; notes what file it is of."""
        validator = _validator(reply)
        if reply.status_code == 200:
            start, size = 0, _length(reply)
        else:
            first, size = _range_of(reply)
            other = validator is not None and self._noted().get("validator") not in (None, validator)
            if first != start or other:
                self._discard()
                raise _Broken("the file has changed on the server; it is fetched from its start")
        if None not in (self._wanted.size, size) and size != self._wanted.size:
            raise DownloadFailed(
                f"{self._wanted.name}: the server has {size:,} bytes, and {self._wanted.size:,} were announced",
                hint="it may have been replaced; try again later",
            )
        self._size = self._wanted.size if size is None else size
        note = {"url": self._wanted.url, "validator": validator, "sha256": self._wanted.sha256, "size": self._size}
        self._mark.write_text(json.dumps(note), encoding="utf-8")
        return start

    def _beyond_its_end(self, reply: httpx2.Response, start: int) -> None:
        """The server has nothing after `start`: either all is here, or what is here is of another file."""
        if not start or _range_of(reply)[1] != start:
            self._discard()
            raise _Broken("the file has changed on the server; it is fetched from its start")

    def _copy(self, reply: httpx2.Response, file: Any, at: int) -> None:
        since, started = at, time.monotonic()
        for chunk in reply.iter_raw():  # as it comes: what waits in a buffer is lost with the connection
            self._stop_if_cancelled()
            at += len(chunk)
            if self._size is not None and at > self._size:
                raise DownloadFailed(
                    f"{self._wanted.name}: more than the {self._size:,} bytes came that were announced",
                    hint="the server is at fault; try another",
                )
            if self._size is None:
                self._need_room(at)
            file.write(chunk)
            self._progress(at, (at - since) / max(time.monotonic() - started, 1e-3))
        file.flush()
        os.fsync(file.fileno())

    def _progress(self, done: int, rate: float) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_SECONDS or done == self._size:
            self._told = now
            self._tell({"event": "progress", "file": self._wanted.name, "done": done, "size": self._size, "rate": rate})

    def _kept(self) -> int:
        """Bytes of this very file that are here; a part of something else is none."""
        if not self._part.exists():
            return 0
        noted = self._noted()
        sure = noted.get("validator") or (self._wanted.sha256 and noted.get("sha256") == self._wanted.sha256)
        size = self._part.stat().st_size
        if not sure or noted.get("url") != self._wanted.url or size > (self._size or size):
            self._discard()
            return 0
        return size

    def _noted(self) -> dict[str, Any]:
        try:
            found = json.loads(self._mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def _need_room(self, start: int) -> None:
        missing = (self._size or start) - start + self._reserve - shutil.disk_usage(self._part.parent).free
        if missing > 0:
            raise DiskFull(
                f"there is no room for {self._wanted.name} in {self._part.parent}: {missing / 1e9:.2f} GB are missing",
                hint="free some space; a reserve stays free (models.disk_reserve_mb)",
            )

    def _disk_error(self, error: OSError) -> AgentdError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return DiskFull(
                f"the disk is full: {self._part} cannot grow ({error.strerror})",
                hint="free some space; what has come is kept, and the same command goes on from there",
            )
        return DownloadFailed(f"{self._part} cannot be written: {error.strerror}", hint="see to the folder's rights")

    def _checksum(self, path: Path | None = None) -> str | None:
        """SHA-256 of what came; None when there is nothing to compare it with."""
        if self._wanted.sha256 is None:
            return None
        self._tell({"event": "checking", "file": self._wanted.name})
        digest = hashlib.sha256()
        with (path or self._part).open("rb") as file:
            while chunk := file.read(_CHUNK):
                self._stop_if_cancelled()
                digest.update(chunk)
        return digest.hexdigest()

    def _stop_if_cancelled(self) -> None:
        if self._web.cancel.is_set():
            raise Cancelled(
                f"{self._wanted.name} was not fetched to its end: cancelled",
                hint="what has come is kept; the same command goes on from there",
            )

    def _tell_of_break(self, problem: str, seconds: float) -> None:
        self._tell({"event": "retry", "file": self._wanted.name, "problem": problem, "seconds": seconds})


def with_checksum(wanted: RemoteFile, sha256: str) -> RemoteFile:
    """The same file, held to this checksum. Raises `DownloadFailed` when the hub knows another."""
    if wanted.sha256 not in (None, sha256):
        raise DownloadFailed(
            f"{wanted.name} has the SHA-256 {wanted.sha256} there, not {sha256}", hint="look at the checksum again"
        )
    return replace(wanted, sha256=sha256)


def redirected(url: httpx2.URL, there: str) -> httpx2.URL:
    """Where a redirect leads; a host elsewhere may not lead to this machine."""
    following = url.join(there)
    if not there or (_is_here(_host(following)) and not _is_here(_host(url))):
        raise DownloadFailed(f"{url} leads to {there[:200]!r}, which is not followed", hint="name the file itself")
    return following


def _host(url: httpx2.URL) -> str:
    """As it is looked up, not as it is shown."""
    return url.raw_host.decode("ascii")


def _is_here(host: str) -> bool:
    """Whether it leads to this machine; the address of no machine does as well."""
    try:
        return is_loopback(host) or host_port(host, 1) in ("0.0.0.0:1", "[::]:1")
    except ValueError:
        return False  # policy refuses it


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _good(reply: httpx2.Response) -> httpx2.Response:
    """The reply if its body is of use. Raises what the status means."""
    status, url = reply.status_code, str(reply.url)[:300]
    if status in (200, 206, 416):
        return reply
    pause = _retry_after(reply)
    reply.close()
    if status in (408, 425, 429) or status >= 500:
        raise _Broken(f"{reply.url.host} answers {status} {reply.reason_phrase}", pause)
    if status in (404, 410):
        raise NotFound(f"{url} is not there ({status})", hint="look for a misspelt name")
    if status in (401, 403):
        raise DownloadFailed(
            f"{url} is not given to everybody ({status})",
            hint="accept its terms on the hub's page, and give your token in HF_TOKEN",
        )
    raise DownloadFailed(f"{url} answers {status} {reply.reason_phrase}", hint="try its address in a browser")


def _retry_after(reply: httpx2.Response) -> float | None:
    said = reply.headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _refuse_encoded(reply: httpx2.Response, name: str) -> None:
    encoding = reply.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise DownloadFailed(f"{name} is sent as {encoding[:40]!r}", hint="the server is at fault; try another")


def _validator(reply: httpx2.Response) -> str | None:
    """What tells this state of the file from every other: a strong ETag, or the time of its last change."""
    etag, changed = str(reply.headers.get("ETag", "")), str(reply.headers.get("Last-Modified", ""))
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    return changed if _DATE.fullmatch(changed) else None


def _length(reply: httpx2.Response) -> int | None:
    said = reply.headers.get("Content-Length", "")
    return int(said) if _NUMBER.fullmatch(said) else None


def _range_of(reply: httpx2.Response) -> tuple[int | None, int | None]:
    """(first byte, size of the whole) of a reply with the status 206 or 416, where it says them."""
    found = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
    if found is None:
        return None, None
    first = int(found[1]) if found[1] and reply.status_code == 206 else None
    return first, int(found[2]) if found[2] != "*" else None
