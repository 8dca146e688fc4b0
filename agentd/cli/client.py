"""The way to the daemon: HTTP over its unix socket or its TCP port, with the errors it raised coming back as such."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from agentd.cli.options import Invocation
from agentd.errors import AgentdError, BadInput, NeedsApproval, NotFound, Unauthorised, Unreachable
from agentd.home import Home, find_home

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 60.0
STREAM_SECONDS = 60.0
"""The daemon sends something on every open stream four times in this span, if only a sign of life."""
RECONNECT_SECONDS = 15.0
"""How long a daemon that is followed may be away, for example to be started again."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HAS_UNIX = hasattr(socket, "AF_UNIX")


class TimedOut(Exception):
    """The deadline given by the caller has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a daemon listens: a unix socket, or host and port with a token."""

    path: Path | None = None
    host: str = ""
    port: int = 0
    token: str = ""

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"http://{_bracketed(self.host)}:{self.port}"


def endpoint(invocation: Invocation) -> Endpoint:
    """What --host or AGENTD_HOST names, else the daemon of the home."""
    home = home_of(invocation)
    if named := named_host(invocation):
        return _named_endpoint(named, home)
    if _HAS_UNIX:
        return Endpoint(path=home.socket_path)
    try:
        return _named_endpoint(home.url_path.read_text(encoding="utf-8").strip(), home)
    except FileNotFoundError:
        raise _unreachable(f"the home {home.home} has no running daemon") from None


def task_path(task_id: str, word: str = "") -> str:
    """The address of a task, or of what can be done with it; `NotFound` for an id that could be no part of one."""
    if not task_id.strip(". ") or "/" in task_id:
        raise NotFound(f"there is no task {task_id!r}", hint="`agentd ps -a` lists the tasks")
    name = quote(task_id.encode("utf-8", "surrogateescape"), safe="")
    return f"/api/tasks/{name}/{word}".rstrip("/")


def named_host(invocation: Invocation) -> str | None:
    """The address that --host or AGENTD_HOST gives, if any: the daemon is then not ours to start."""
    return invocation.host or os.environ.get("AGENTD_HOST") or None


def home_of(invocation: Invocation) -> Home:
    return Home(find_home(Path(invocation.home) if invocation.home else None))


class Client:
    """Talks to one daemon. Every method raises the `AgentdError` that the daemon answered with, or `Unreachable`."""

    def __init__(self, where: Endpoint) -> None:
        self.where = where

    def get(self, path: str, **query: object) -> Any:
        return self._call("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """`options`: `headers`, and `timeout` in seconds for the reply."""
        return self._call("POST", path, body=body or {}, **options)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("PATCH", path, body=body)

    def delete(self, path: str, **query: object) -> Any:
        return self._call("DELETE", path, query=query)

    def lines(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the daemon tells of long work, one thing after the other; the last is its end, `{"event": "done"}`."""
        connection = self._connection(CONNECT_SECONDS)
        try:
            content = json.dumps(body).encode("utf-8", "surrogatepass")
            reply = self._send(connection, "POST", path, content, {})
            pipe = connection.sock
            if reply.status != 200:
                raise _error(reply.status, reply.read())
            for line in _lines(reply, pipe, None):
                told = _json(line, self.where)
                if "error" in told:
                    raise error_of(told)
                yield told
                if told["event"] == "done":
                    return
            raise _unreachable(f"the daemon at {self.where} has gone")
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(f"the daemon at {self.where} has gone: {error}") from None
        finally:
            connection.close()

    def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(task_path(task_id))
        return found

    def answers(self) -> bool:
        """Whether a daemon is there at all."""
        try:
            self.get("/api/status")
        except Unreachable:
            return False
        except AgentdError:
            return True
        return True

    def events(
        self, *, task: str | None = None, last: int = 0, follow: bool = True, deadline: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Events after the id `last`: of one task until it has ended, or all; without `follow` those that are there.

        `deadline` is on `time.monotonic()`; `TimedOut` after it. A connection that breaks is taken up again.
        """
        lost_at: float | None = None
        while True:
            try:
                for event in self._stream(task, last, follow, deadline):
                    last, lost_at = event["id"], None
                    yield event
                return
            except Unreachable:
                now = time.monotonic()
                lost_at = lost_at or now
                if not follow or now - lost_at > RECONNECT_SECONDS:
                    raise
                _check(deadline)
                time.sleep(0.2)

    def _stream(self, task: str | None, last: int, follow: bool, deadline: float | None) -> Iterator[dict[str, Any]]:
        """One connection's worth of events; returns when the daemon says that nothing more will come."""
        _check(deadline)
        query = {"follow": str(follow).lower(), "task": task}
        connection = self._connection(CONNECT_SECONDS)
        try:
            reply = self._send(connection, "GET", _target("/api/events", query), None, {"Last-Event-ID": str(last)})
            pipe = connection.sock
            if reply.status != 200:
                raise _error(reply.status, reply.read())
            for line in _lines(reply, pipe, deadline):
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
                elif line.startswith(b"event: end"):
                    return
            raise _unreachable(f"the daemon at {self.where} has gone")
        except (OSError, http.client.HTTPException) as error:
            _check(deadline)
            raise _unreachable(f"the daemon at {self.where} has gone: {error}") from None
        finally:
            connection.close()

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REPLY_SECONDS,
    ) -> Any:
        content = None if body is None else json.dumps(body).encode("utf-8", "surrogatepass")
        connection = self._connection(timeout)
        try:
            reply = self._send(connection, method, _target(path, query or {}), content, headers or {})
            text = reply.read()
        except TimeoutError:
            raise _unreachable(f"the daemon at {self.where} gave no answer within {timeout:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(f"no daemon answers at {self.where}: {error}") from None
        finally:
            connection.close()
        if reply.status >= 400:
            raise _error(reply.status, text)
        return _json(text, self.where)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.where.path:
            return _UnixConnection(self.where.path, timeout)
        return http.client.HTTPConnection(self.where.host, self.where.port, timeout=timeout)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        sent = {"Accept": "application/json", **headers}
        if content is not None:
            sent["Content-Type"] = "application/json"
        if self.where.token:
            sent["Authorization"] = f"Bearer {self.where.token}"
        connection.request(method, target, body=content, headers=sent)
        return connection.getresponse()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def _lines(reply: http.client.HTTPResponse, pipe: socket.socket | None, deadline: float | None) -> Iterator[bytes]:
    """Lines as they come. Once the deadline has passed, or nothing came for too long, `TimeoutError`."""
    while True:
        if pipe is not None:
            left = STREAM_SECONDS if deadline is None else deadline - time.monotonic()
            pipe.settimeout(min(STREAM_SECONDS, max(0.01, left)))
        line = reply.readline()
        _check(deadline)
        if not line:
            return
        yield line


def _check(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimedOut


def _target(path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, [])}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _named_endpoint(url: str, home: Home) -> Endpoint:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme == "unix" and parts.path and _HAS_UNIX:
        return Endpoint(path=Path(parts.path))
    try:
        host, port = parts.hostname or "", parts.port or 80
    except ValueError as error:
        raise BadInput(f"the address {url!r} is wrong: {error}", hint="for example http://127.0.0.1:8765") from None
    if parts.scheme != "http" or not host:
        raise BadInput(f"{url!r} is no address of a daemon", hint="use http://HOST:PORT or unix:///PATH")
    return Endpoint(host=host, port=port, token=_token(host, home))


def _token(host: str, home: Home) -> str:
    """AGENTD_TOKEN, else the home's own, which is told to this machine alone."""
    if named := os.environ.get("AGENTD_TOKEN"):
        return named
    if host not in _LOOPBACK:
        raise Unauthorised(f"no token for {host}", hint="put what `agentd token` says there into AGENTD_TOKEN")
    try:
        return home.token_path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def error_of(told: Mapping[str, Any]) -> AgentdError:
    """The error of `{"error": {"code", "message", "hint"}}`, as the class that has this code."""
    body = told["error"]
    error = _classes().get(body["code"], AgentdError)(str(body["message"]), hint=str(body["hint"]))
    error.code = str(body["code"])
    if isinstance(error, NeedsApproval):
        error.asked = body.get("asked")
    return error


def _error(status: int, text: bytes) -> AgentdError:
    """The error that the daemon raised, with its class and code."""
    try:
        return error_of(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return AgentdError(f"the daemon answered {status}: {text[:200].decode('utf-8', 'replace')}")


def _classes() -> dict[str, type[AgentdError]]:
    found: dict[str, type[AgentdError]] = {}
    waiting = [AgentdError]
    while waiting:
        cls = waiting.pop()
        found.setdefault(cls.code, cls)
        waiting += cls.__subclasses__()
    return found


def _json(text: bytes, where: Endpoint) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise AgentdError(f"what answers at {where} is no agentd: {text[:100].decode('utf-8', 'replace')!r}") from None


def _unreachable(message: str) -> Unreachable:
    return Unreachable(message, hint="start it with `agentd up`")
