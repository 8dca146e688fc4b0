"""Calls an ASGI application the way a server would, without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentd.api.auth import AsgiApp

Message = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    app: AsgiApp, path: str = "/", *, headers: Mapping[str, str] | None = None, chunks: Sequence[bytes] = ()
) -> Answer:
    """POST `chunks` as they are; a Content-Length is sent only if it stands in `headers`."""
    return asyncio.run(_call(app, path, headers or {}, list(chunks) or [b""]))


async def _call(app: AsgiApp, path: str, headers: Mapping[str, str], chunks: list[bytes]) -> Answer:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Message] = []

    async def receive() -> Message:
        body = chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))
