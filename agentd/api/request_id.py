"""A name for each request, in its answer and in every line that is logged for it."""

from __future__ import annotations

import re
import secrets

import structlog

from agentd.api.auth import AsgiApp, Message, Receive, Send

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,100}")


class RequestId:
    """Takes the client's `X-Request-Id` when it is a plain word, else makes one."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = bytes(dict(scope["headers"]).get(HEADER, b""))
        name = given if _SANE.fullmatch(given) else f"req-{secrets.token_hex(8)}".encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, name)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request=name.decode()):
            await self._app(scope, receive, named)
