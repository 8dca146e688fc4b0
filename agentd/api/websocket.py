"""`/ws/completions`: requests and pieces of replies over one WebSocket, for clients that ask again and again.

The client sends the body of `/v1/chat/completions` (with `messages`) or `/v1/completions` (with `prompt`) as a text
message; the answer is the events of a stream, one message of JSON each, then `{"done": true}`. `{"cancel": true}` ends
what runs. An error is a message `{"error": {...}}`, and the next request may follow it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from agentd.api.auth import Message
from agentd.api.limits import MAX_BODY
from agentd.api.openai import bridge as bridges
from agentd.api.openai import chat, completions
from agentd.api.openai.body import read_json
from agentd.api.openai.bridge import Bridge, Generation, Job, Said
from agentd.api.openai.errors import Refused, error_object
from agentd.api.openai.events import Writer, told
from agentd.api.problems import status_of
from agentd.app import App
from agentd.errors import AgentdError
from agentd.types import Delta

router = APIRouter()

_DATA = "data: "


@router.websocket("/ws/completions")
async def talk(socket: WebSocket) -> None:
    """One request at a time until the client leaves."""
    await socket.accept()
    # It may leave while something is sent to it, or read nothing for too long.
    with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        while True:
            text = await _heard(socket)
            if text is None:
                return
            try:
                if not _cancels(text):
                    await _answer(socket, text)
            except AgentdError as error:
                await _say(socket, {"error": error_object(error, status_of(error, "/v1"))})


async def _answer(socket: WebSocket, text: str) -> None:
    core: App = socket.app.state.app
    bridge: Bridge = socket.app.state.bridge
    if len(text) > MAX_BODY:
        raise Refused(f"the request has more than {MAX_BODY:,} characters")
    if "one_more" in socket.scope:  # over TCP, where requests are counted
        socket.scope["one_more"]()
    fields = read_json(text.encode("utf-8", "surrogatepass"))
    with bridge.seat():
        jobs, writer = await bridge.call(_jobs, core, socket, fields)
        async with bridge.generate(jobs, _until_cancelled(socket), stream=True) as generation:
            await _stream(socket, generation, writer, len(jobs))


def _jobs(core: App, socket: WebSocket, fields: dict[str, Any]) -> tuple[list[Job], Writer]:
    order = (chat if "messages" in fields else completions).order_of(core, socket, fields)
    return order.jobs, order.writer()


async def _stream(socket: WebSocket, generation: Generation, writer: Writer, left: int) -> None:
    cancelled = generation.cancel.is_set
    await _send(socket, writer.begin())
    while left and not cancelled():
        for index, said in await generation.next():
            if cancelled():
                break
            lines, ended = _written(writer, index, said)
            await _send(socket, lines)
            left -= ended
    if not cancelled():
        await _send(socket, writer.end())
    await _say(socket, {"done": True, "cancelled": cancelled()})


def _written(writer: Writer, index: int, said: Said) -> tuple[list[str], bool]:
    if isinstance(said, Delta):
        return writer.heard(index, said), False
    if isinstance(said, Exception):
        raise told(said)
    return writer.done(index, said), True


def _until_cancelled(socket: WebSocket) -> Any:
    """Gives what an HTTP request gives when its client leaves, once this one leaves or says that it will not wait."""

    async def receive() -> Message:
        text = await _heard(socket)
        return {"type": "http.disconnect" if text is None or _cancels(text) else "http.request"}

    return receive


def _cancels(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("cancel") is True


async def _heard(socket: WebSocket) -> str | None:
    """The next message as text; None when the client has left."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text, data = message.get("text"), message.get("bytes")
    return text if text is not None else (data or b"").decode("utf-8", "replace")


async def _send(socket: WebSocket, lines: Sequence[str]) -> None:
    """Events of a stream, each as a message."""
    for line in lines:
        if line.startswith(_DATA + "{"):
            await _send_text(socket, line.removeprefix(_DATA).strip())


async def _say(socket: WebSocket, fields: dict[str, Any]) -> None:
    await _send_text(socket, json.dumps(fields))


async def _send_text(socket: WebSocket, text: str) -> None:
    async with asyncio.timeout(bridges.PATIENCE):
        await socket.send_text(text)
