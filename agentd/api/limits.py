"""How large a request may be."""

from __future__ import annotations

from agentd.api.auth import AsgiApp, Message, Receive, Send
from agentd.api.problems import TooLarge, answer

MAX_BODY = 2 * 1024 * 1024
"""Bytes."""


class BodyLimit:
    """Answers 413 to a request whose body has, or turns out to have, more than `MAX_BODY` bytes."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > MAX_BODY:
            await answer(_too_large())(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise _too_large()
            return message

        await self._app(scope, counted, send)


def _too_large() -> TooLarge:
    return TooLarge(f"the request has more than {MAX_BODY:,} bytes", hint="put long texts into files of the workspace")
