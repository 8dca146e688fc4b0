"""Who may talk to the daemon over TCP: those who know the token of its home, and no page of a browser elsewhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from agentd.errors import Denied, Unauthorised
from agentd.home import make_private

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ensure_token(path: Path) -> str:
    """The token in the file `path`, which is made, for its owner alone, when it is not there."""
    make_private(path.parent)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = path.read_text(encoding="utf-8").strip()
        if not token:
            raise Unauthorised(f"the token file {path} is empty", hint="remove it; a new one is made") from None
        return token
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        token = secrets.token_urlsafe(32)
        file.write(token + "\n")
    return token


class TokenGuard:
    """Lets a request through to `app` that carries the token and was meant for this very host and port.

    Host and Origin are checked because a web page anywhere can make a browser send requests to this machine.
    """

    def __init__(
        self, app: AsgiApp, token: str, hosts: Iterable[str], port: int, refuse: Callable[..., AsgiApp]
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._names = {f"[{host}]" if ":" in host else host for host in hosts}
        self._port = port
        self._refuse = refuse

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        app = self._app
        if not self._is_ours(headers.get(b"host", b"").decode("latin-1")):
            app = self._refuse(Denied("the Host header names another machine", hint=f"use one of {self._listed()}"))
        elif not self._same_origin(headers.get(b"origin")):
            app = self._refuse(Denied("the request comes from a page of another site"))
        elif not self._knows_token(headers.get(b"authorization", b"")):
            app = self._refuse(
                Unauthorised(
                    "the token is missing or wrong", hint="send the header Authorization: Bearer TOKEN; `agentd token`"
                )
            )
        await app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        return host.lower() in {f"{name}:{self._port}" for name in self._names} | (
            self._names if self._port == 80 else set()
        )

    def _same_origin(self, origin: bytes | None) -> bool:
        if origin is None:
            return True
        parts = urlsplit(origin.decode("latin-1"))
        return parts.scheme == "http" and self._is_ours(parts.netloc)

    def _knows_token(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        return scheme.lower() == b"bearer" and secrets.compare_digest(given.strip(), self._token)

    def _listed(self) -> str:
        return ", ".join(sorted(f"{name}:{self._port}" for name in self._names))
