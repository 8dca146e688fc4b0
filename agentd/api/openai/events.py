"""An answer in pieces: server-sent events, begun once there is something to say, kept alive, broken off honestly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.responses import Response

from agentd.api.auth import Message, Receive, Send
from agentd.api.openai.bridge import PATIENCE, Bridge, Generation, Job, Said
from agentd.errors import AgentdError
from agentd.telemetry import get_logger
from agentd.types import Delta, ModelReply

PING = 15.0
"""Seconds of silence after which a comment keeps the connection open."""
HOLD = 10.0
"""Seconds for which the answer is held back, so that a request that fails at once gets a status of its own."""
DONE = "data: [DONE]\n\n"
_PING = ": still here\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

log = get_logger(__name__)


class Writer(Protocol):
    """Writes what models say as the events of one endpoint."""

    def begin(self) -> list[str]: ...
    def heard(self, index: int, delta: Delta) -> list[str]: ...
    def done(self, index: int, reply: ModelReply) -> list[str]:
        """May raise `BadReply` for a reply that does not have the form that was asked for."""
        ...

    def end(self) -> list[str]: ...
    def failed(self, error: AgentdError) -> list[str]:
        """The last events of a stream that something went wrong with; no end that looks like a success."""
        ...


class Events(Response):
    """Runs jobs and streams what they say to the client."""

    def __init__(self, bridge: Bridge, jobs: Sequence[Job], writer: Writer) -> None:
        super().__init__()
        self._bridge = bridge
        self._jobs = jobs
        self._writer = writer

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        with self._bridge.seat():
            async with self._bridge.generate(self._jobs, receive, stream=True) as generation:
                said = await _first(generation)
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                try:
                    await self._stream(generation, said, send)
                except TimeoutError:
                    log.warning("a client reads nothing; its stream is ended", seconds=PATIENCE)

    async def _stream(self, generation: Generation, said: list[tuple[int, Said]], send: Send) -> None:
        await _send(send, self._writer.begin())
        left = len(self._jobs)
        while True:
            lines, ended, failed = self._written(said)
            left -= ended
            if generation.gone:
                return
            if failed or not left:
                await _send(send, lines if failed else [*lines, *self._writer.end()], last=True)
                return
            await _send(send, lines)
            said = await _next(generation, send)

    def _written(self, said: Sequence[tuple[int, Said]]) -> tuple[list[str], int, bool]:
        """The events for what was said, how many replies ended, and whether something went wrong."""
        lines: list[str] = []
        ended = 0
        for index, each in said:
            try:
                if isinstance(each, Delta):
                    lines += self._writer.heard(index, each)
                    continue
                if isinstance(each, Exception):
                    raise each
                lines += self._writer.done(index, each)
                ended += 1
            except Exception as error:
                return [*lines, *self._writer.failed(told(error))], ended, True
        return lines, ended, False


def event(data: Mapping[str, Any], name: str = "") -> str:
    """One event with JSON as its data."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"


def told(error: Exception) -> AgentdError:
    """The error in words for a client; what nobody expected is logged."""
    if isinstance(error, AgentdError):
        return error
    log.error("a reply failed", exc_info=error)
    return AgentdError(f"internal error: {type(error).__name__}: {error}", hint="the daemon's log says more")


async def _first(generation: Generation) -> list[tuple[int, Said]]:
    """What is said first; nothing if that takes long. Raises if it is that something went wrong."""
    try:
        async with asyncio.timeout(HOLD):
            said = await generation.next()
    except TimeoutError:
        return []
    if isinstance(said[0][1], Exception):
        raise said[0][1]
    return said


async def _next(generation: Generation, send: Send) -> list[tuple[int, Said]]:
    while True:
        try:
            async with asyncio.timeout(PING):
                return await generation.next()
        except TimeoutError:
            await _send(send, [_PING])


async def _send(send: Send, lines: Sequence[str], *, last: bool = False) -> None:
    """Raises `TimeoutError` for a client that does not read."""
    if lines or last:
        async with asyncio.timeout(PATIENCE):
            body = "".join(lines).encode("utf-8", "replace")
            await send({"type": "http.response.body", "body": body, "more_body": not last})
