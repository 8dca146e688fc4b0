"""Replies over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from agentd.api.openai import bridge as bridges
from agentd.api.problems import answer
from agentd.api.rate import RateLimit
from tests.api.openai.conftest import ASKED, Talk


def until_done(socket: Any) -> list[dict[str, Any]]:
    found = []
    while True:
        found.append(socket.receive_json())
        if "done" in found[-1] or "error" in found[-1]:
            return found


def test_one_conversation_after_the_other(talk: Callable[..., Talk]) -> None:
    client = talk({"say": {"text": ["Hel", "lo"]}}, "again")
    with client.client.websocket_connect("/ws/completions") as socket:
        socket.send_json({"messages": ASKED})
        first = until_done(socket)
        assert "".join(each["choices"][0]["delta"].get("content") or "" for each in first[:-1]) == "Hello"
        assert first[0]["choices"][0]["delta"]["role"] == "assistant"
        assert first[-1] == {"done": True, "cancelled": False}
        socket.send_json({"prompt": "say it"})
        second = until_done(socket)
        assert "".join(each["choices"][0]["text"] for each in second[:-1]) == "again"


def test_what_is_wrong_is_said_and_the_next_may_follow(talk: Callable[..., Talk]) -> None:
    with talk("fine").client.websocket_connect("/ws/completions") as socket:
        for wrong in ("{", "[]", '{"messages": []}', '{"messages": 3}', '{"prompt": "a", "model": "nobody"}', "\ud800"):
            socket.send_text(wrong.encode("utf-8", "replace").decode())
            assert "error" in until_done(socket)[-1], wrong
        socket.send_bytes(b"\xff\xfe")
        assert "error" in until_done(socket)[-1]
        socket.send_json({"prompt": "a"})
        assert until_done(socket)[-1]["done"]


def test_a_model_that_fails_is_an_error(talk: Callable[..., Talk]) -> None:
    client = talk({"say": {"text": ["Hel", "lo"], "fail": "the power is gone"}})
    with client.client.websocket_connect("/ws/completions") as socket:
        socket.send_json({"prompt": "a"})
        last = until_done(socket)[-1]
        assert "the power is gone" in last["error"]["message"]


def test_a_reply_can_be_cancelled(talk: Callable[..., Talk]) -> None:
    client = talk({"say": {"text": ["x "] * 500, "wait": 0.05}}, "next")
    with client.client.websocket_connect("/ws/completions") as socket:
        socket.send_json({"prompt": "a"})
        socket.receive_json()
        socket.send_json({"cancel": True})
        assert until_done(socket)[-1] == {"done": True, "cancelled": True}
        socket.send_json({"prompt": "b"})
        assert "".join(each["choices"][0]["text"] for each in until_done(socket)[:-1]) == "next"


def test_requests_over_it_are_counted(talk: Callable[..., Talk]) -> None:
    served: Any = talk("one", "two").client
    limited = RateLimit(served.app, lambda: 2, lambda: 0.0, answer)
    with TestClient(limited).websocket_connect("/ws/completions") as socket:
        socket.send_json({"prompt": "a"})
        assert until_done(socket)[-1]["done"]
        socket.send_json({"prompt": "b"})
        assert until_done(socket)[-1]["error"]["code"] == "rate_limit_exceeded"


def test_a_client_that_reads_nothing_gives_its_seat_back(
    talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "PATIENCE", 0.2)
    served: Any = talk("one two three").client
    heard = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": '{"prompt": "a"}'}]

    async def receive() -> Any:
        return heard.pop(0) if heard else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()

    scope = {"type": "websocket", "path": "/ws/completions", "headers": [], "query_string": b"", "subprotocols": []}
    asyncio.run(asyncio.wait_for(served.app(scope, receive, send), 10))
    assert served.app.state.bridge.taken == 0
