"""Who may talk to the daemon over TCP: those who know the token of its home, and no page of a browser elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from agentd.errors import AgentdError, Denied, Unauthorised
from agentd.home import write_private

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PUBLIC = ("/health", "/v1/health")
"""Paths that need no token: they say that somebody is there, and nothing else."""
OPEN = (
    *("/v1", "/tools", "/ws", "/openapi.json", "/models", "/props", "/slots"),
    *("/chat", "/completion", "/completions", "/embedding", "/embeddings", "/infill"),
    *("/tokenize", "/detokenize", "/apply-template"),
)
"""What lies there and below is opened by named keys too; all else by the home's own token only."""
OWNERS = ("/v1/config",)
"""What of it is not."""


def ensure_token(path: Path) -> str:
    """The token in the file `path`, which is made, for its owner alone, when it is not there."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        write_private(path, token + "\n")
        return token
    if not token:
        raise Unauthorised(f"the token file {path} is empty", hint="remove it; a new one is made")
    return token


class TokenGuard:
    """Lets a request through to `app` that carries the token and was meant for this very host and port.

    Host and Origin are checked because a web page anywhere can make a browser send requests to this machine; `origins`
    are pages elsewhere that may. `knows` says whether a text is one of the named keys, which open what is
    listed in `OPEN`.
    """

    def __init__(
        self,
        app: AsgiApp,
        token: str,
        hosts: Iterable[str],
        port: int,
        refuse: Callable[..., AsgiApp],
        *,
        knows: Callable[[str], bool] = lambda key: False,
        origins: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._token = token.encode()
        self._names = {f"[{host}]" if ":" in host else host for host in hosts}
        self._port = port
        self._refuse = refuse
        self._knows = knows
        self._origins = frozenset(origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        problem = self._problem(scope) if scope["type"] in ("http", "websocket") else None
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Closed before it was accepted: the server answers the handshake with 403.
            await send({"type": "websocket.close", "code": 1008, "reason": problem.message})
        else:
            await self._refuse(problem)(scope, receive, send)

    def _problem(self, scope: Message) -> AgentdError | None:
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        if not self._is_ours(headers.get(b"host", b"").decode("latin-1")):
            return Denied("the Host header names another machine", hint=f"use one of {self._listed()}")
        if not self._same_origin(headers.get(b"origin")):
            return Denied("the request comes from a page of another site", hint="list it in api.cors_origins")
        if scope["path"] in PUBLIC:
            return None
        key = shown_key(scope)
        if secrets.compare_digest(key, self._token):
            return None
        if not self._knows(key.decode("latin-1")):
            hint = "send the header Authorization: Bearer TOKEN; `agentd token`"
            return Unauthorised("the token is missing or wrong", hint=hint)
        if not _lies_in(scope["path"], OPEN) or _lies_in(scope["path"], OWNERS):
            return Denied(f"this key does not open {scope['path']}", hint="the token of the home does; `agentd token`")
        return None

    def _is_ours(self, host: str) -> bool:
        return host.lower() in {f"{name}:{self._port}" for name in self._names} | (
            self._names if self._port == 80 else set()
        )

    def _same_origin(self, origin: bytes | None) -> bool:
        if origin is None:
            return True
        if origin.decode("latin-1") in self._origins:
            return True
        parts = urlsplit(origin.decode("latin-1"))
        return parts.scheme == "http" and self._is_ours(parts.netloc)

    def _listed(self) -> str:
        return ", ".join(sorted(f"{name}:{self._port}" for name in self._names))


def _lies_in(path: str, places: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{place}/") for place in places)


def shown_key(scope: Message) -> bytes:
    """What the client shows: a bearer token, or the header X-Api-Key."""
    headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"").strip()
