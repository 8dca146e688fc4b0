"""HTTP to one server: connections that are kept, limits that hold whatever it does, and failures as our own errors."""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2

from agentd.errors import AgentdError, BrokenReply, Cancelled, ModelError, ServerDown, TooSlow
from agentd.policy.hosts import is_loopback

_POLL = 0.05
"""Seconds between two looks at the clock and at the cancel event."""
_AHEAD = 64
"""Pieces of a reply that may wait for whoever reads it."""
_GRACE = 0.25
_IDLE_SECONDS = 60.0
_MOST_IDLE = 8
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Limits:
    """Until when (`time.monotonic()`) the whole reply must be there, how many bytes it may have, and what stops it."""

    deadline: float
    most_bytes: int
    cancel: threading.Event | None = None


def address_of(url: str) -> tuple[str, int]:
    """Host and port of an http or https URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)


def is_public(address: str) -> bool:
    """Whether an address belongs to the open network, by itself and by the address that it may stand for."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in _NAT64:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside:
            return is_public(str(inside))
    return found.is_global and not found.is_multicast


class Lines:
    """Every connection to one server; safe to use from several threads. Redirects are never followed, and proxies of
    the environment are not taken: requests go where policy was asked about."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 5.0,
        proxy: str | None = None,
        verify: Path | None = None,
        at: str = "",
        public: bool = False,
    ) -> None:
        """`public`: a name beyond this machine may not lead into the network that the machine stands in."""
        self.url = url
        self.at = at or url
        """What errors call the server."""
        self.connect_timeout = connect_timeout
        self._proxy = proxy
        self._verify = verify
        self._must_be_here = proxy is None and is_loopback(address_of(url)[0])
        self._must_be_public = public and not self._must_be_here
        self._context: ssl.SSLContext | None = None
        self._idle: list[_Line] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def exchange(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None, limits: Limits
    ) -> Iterator[Answer]:
        """Send a request; the answer's head is there when the block begins, its body comes through `Answer.pieces`.

        Raises `ServerDown`, `BrokenReply`, `TooSlow`, `Cancelled`. When the block is left before the body has ended, or
        by an error, the connection is cut at once.
        """
        request = httpx2.Request(
            method, self.url + path, headers={"Accept-Encoding": "identity", **headers}, content=body
        )
        with self._begin(request, limits) as answer:
            yield answer

    def close(self) -> None:
        """Let go of the connections that are kept; one that is in use ends with its exchange."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for line in idle:
            line.client.close()

    def check_peer(self, found: socket.socket) -> None:
        """`localhost` was allowed because it is this machine; a hosts file may say otherwise."""
        peer = str(found.getpeername()[0])
        if self._must_be_here and not ipaddress.ip_address(peer.partition("%")[0]).is_loopback:
            raise ServerDown(f"{self.at} leads to {peer}, which is not this machine", hint="correct the hosts file")
        if self._must_be_public and not is_public(peer):
            raise ServerDown(f"{self.at} leads to {peer}, an address inside of this network")

    def give_back(self, line: _Line) -> None:
        """Keep a connection whose exchange has ended well."""
        line.used = True
        with self._lock:
            if not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(line)
                return
        line.client.close()

    @contextmanager
    def _begin(self, request: httpx2.Request, limits: Limits) -> Iterator[Answer]:
        line = self._take()
        answer = Answer(self, line, request, limits)
        try:
            try:
                answer.wait_for_head()
            except BrokenReply:
                if not line.used:
                    raise
                # A server may close a kept connection just when it is used again: it has not seen the request.
                answer = Answer(self, self._new(), request, limits)
                answer.wait_for_head()
            yield answer
        finally:
            answer.leave()

    def _take(self) -> _Line:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _new(self) -> _Line:
        return _Line(self._client())

    def _client(self) -> httpx2.Client:
        """A client of a single connection: to cancel a request is then to cut that connection and no other."""
        context = self._tls()
        try:
            transport = httpx2.HTTPTransport(
                verify=context,
                trust_env=False,
                proxy=httpx2.Proxy(self._proxy, ssl_context=_proxy_tls(self._proxy, context)) if self._proxy else None,
                limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE_SECONDS),
                socket_options=_still_there(),
            )
        except ImportError:
            raise ModelError(
                f"{self.at}: a SOCKS proxy needs a package that is not installed", hint="use an HTTP proxy"
            ) from None
        except (ValueError, httpx2.InvalidURL) as error:
            raise ModelError(f"{self.at}: its proxy cannot be used: {error}") from None
        # Reading has no limit of its own: whoever waits for the answer looks at the clock.
        timeout = httpx2.Timeout(None, connect=self.connect_timeout)
        return httpx2.Client(transport=transport, trust_env=False, timeout=timeout, follow_redirects=False)

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = self._make_tls()
            return self._context

    def _make_tls(self) -> ssl.SSLContext:
        if not any(url.startswith("https:") for url in (self.url, self._proxy or "")):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; to read whom to trust takes a while
        if self._verify is None:
            return httpx2.create_ssl_context(trust_env=False)
        try:
            return ssl.create_default_context(cafile=str(self._verify))
        except (OSError, ssl.SSLError) as error:
            raise ModelError(
                f"{self.at}: the certificate {self._verify} cannot be used: {error}", hint="it must be a PEM file"
            ) from None


class Answer:
    """What a server replies: its head, then its body piece by piece as it comes."""

    def __init__(self, lines: Lines, line: _Line, request: httpx2.Request, limits: Limits) -> None:
        self._lines = lines
        self._line = line
        self._limits = limits
        self._deadline = limits.deadline
        self._inbox: queue.Queue[_Note] = queue.Queue(_AHEAD)
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._state: Literal["open", "cut", "ended"] = "open"
        self._bytes = 0
        self.status = 0
        self.headers: Mapping[str, str] = {}
        threading.Thread(target=self._carry, args=(request,), name="http", daemon=True).start()

    def wait_for_head(self) -> None:
        note = self._next()
        if note.error is not None:
            raise note.error
        self.status, self.headers = note.status, note.headers

    def pieces(self) -> Iterator[bytes]:
        """The body. Raises `BrokenReply` when it breaks off or grows too long, `TooSlow`, `Cancelled`."""
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise BrokenReply(f"{self._lines.at} packs its reply, though it was asked not to")
        while True:
            note = self._next()
            if note.error is not None:
                raise note.error
            if note.end:
                return
            self._bytes += len(note.data)
            if self._bytes > self._limits.most_bytes:
                raise BrokenReply(f"{self._lines.at} sends more than {self._limits.most_bytes} bytes and does not end")
            yield note.data

    def hurry(self, seconds: float) -> None:
        """The rest must be there within so many seconds."""
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def settle(self) -> None:
        """All that is wanted has come: wait a moment for the end, so that the connection can be kept."""
        until = time.monotonic() + _GRACE
        while (left := until - time.monotonic()) > 0:
            try:
                note = self._inbox.get(timeout=left)
            except queue.Empty:
                return
            if note.end or note.error is not None:
                return

    def leave(self) -> None:
        """Nobody reads on: cut the connection, unless the body has ended."""
        with self._lock:
            if self._state == "open":
                self._state = "cut"
                _shut(self._line.socket)

    def _next(self) -> _Note:
        while True:
            self._check_time()
            try:
                return self._inbox.get(timeout=_POLL)
            except queue.Empty:
                continue

    def _check_time(self) -> None:
        if self._limits.cancel is not None and self._limits.cancel.is_set():
            raise Cancelled(f"the request to {self._lines.at} was cancelled")
        passed = time.monotonic() - self._started
        if not self._line.connected and passed > self._lines.connect_timeout + _GRACE:
            raise ServerDown(
                f"{self._lines.at} cannot be reached: no connection within {self._lines.connect_timeout:g} s",
                hint=_LOOK,
            )
        if time.monotonic() >= self._deadline:
            raise TooSlow(
                f"{self._lines.at} was not done with its reply after {passed:.1f} s",
                hint="allow more time, or take a smaller model or a shorter request",
            )

    def _carry(self, request: httpx2.Request) -> None:
        """In a thread of its own: hand on what comes. A read cannot be waited for and stopped in any other way."""
        line = self._line
        try:
            request.extensions = {**request.extensions, "trace": self._trace}
            response = line.client.send(request, stream=True)
            try:
                self._put(_Note(status=response.status_code, headers=response.headers))
                for piece in response.iter_raw():
                    self._put(_Note(data=piece))
            finally:
                response.close()
            self._release()
        except _Cut:
            line.client.close()
        except Exception as error:
            line.client.close()
            self._put_last(_Note(error=_ours(error, self._lines.at, connected=line.connected)))

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by the client at every turn of the exchange; learns the socket of a new connection."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            stream = info["return_value"]
            try:
                self._connected(stream.get_extra_info("socket"), new=event.endswith("connect_tcp.complete"))
            except (_Cut, ServerDown):
                stream.close()
                raise
        elif event.endswith("send_request_headers.started"):
            self._line.connected = True

    def _connected(self, found: socket.socket, *, new: bool) -> None:
        with self._lock:
            self._line.socket = found
            if self._state == "cut":
                raise _Cut
        if new:
            self._lines.check_peer(found)

    def _release(self) -> None:
        """The body has ended: the connection may serve another exchange."""
        with self._lock:
            if self._state == "cut":
                raise _Cut
            self._state = "ended"
        self._lines.give_back(self._line)
        self._put_last(_Note(end=True))

    def _put(self, note: _Note) -> None:
        while self._state != "cut":
            try:
                self._inbox.put(note, timeout=_POLL)
                return
            except queue.Full:
                continue
        raise _Cut

    def _put_last(self, note: _Note) -> None:
        try:
            self._put(note)
        except _Cut:
            pass  # nobody waits for it any more


@dataclass(frozen=True, slots=True)
class _Note:
    """What the thread that reads tells the one that waits."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
    end: bool = False
    error: AgentdError | None = None


class _Cut(Exception):
    """The connection was cut from our side."""


@dataclass(slots=True)
class _Line:
    """One connection, and the client that holds it."""

    client: httpx2.Client
    socket: socket.socket | None = None
    connected: bool = False
    used: bool = False
    """It has served an exchange already."""


def _shut(found: socket.socket | None) -> None:
    """End both directions without letting go of the descriptor, which another thread may be reading from."""
    if found is None:
        return
    try:
        socket.socket.shutdown(found, socket.SHUT_RDWR)
    except OSError:
        pass  # it is gone already


def _still_there() -> list[tuple[int, int, int]]:
    """A machine that went silent is noticed after half a minute."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _proxy_tls(proxy: str | None, context: ssl.SSLContext) -> ssl.SSLContext | None:
    return context if proxy is not None and proxy.startswith("https:") else None


def _ours(error: Exception, at: str, *, connected: bool) -> AgentdError:
    """The error of the library as one of ours."""
    if isinstance(error, AgentdError):
        return error
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, httpx2.ConnectTimeout):
        return ServerDown(f"{at} cannot be reached: it did not take the connection in time", hint=_LOOK)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return ServerDown(
            f"{at} has a certificate that nobody vouches for: {said}",
            hint="name the file with its certificate: `verify` in the catalog, --ca of `backend add`",
        )
    if isinstance(error, httpx2.ProxyError):
        return ServerDown(f"{at} cannot be reached through its proxy: {said}", hint="see that the proxy is right")
    if isinstance(error, httpx2.ConnectError) or not connected:
        return ServerDown(f"{at} cannot be reached: {said}", hint=_LOOK)
    if isinstance(error, httpx2.TimeoutException):
        return TooSlow(f"{at} did not go on with its reply")
    return BrokenReply(f"the connection to {at} broke: {said}", hint="look into the log of that server")


_LOOK = "see that the server runs, and that its address is right"
