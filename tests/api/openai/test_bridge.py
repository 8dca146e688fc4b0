"""Many clients at once, slow ones, and those that go away."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from agentd.api.openai import bridge as bridges
from agentd.api.openai import events
from agentd.api.openai.bridge import AHEAD, Bridge
from agentd.errors import Cancelled
from agentd.types import Delta, ModelProfile, ModelReply, ModelRequest, OnDelta
from tests.api.openai.conftest import ASKED, Talk

Make = Callable[..., Talk]
Message = dict[str, Any]


class Talker:
    """Says `pieces` pieces; without a listener it waits until it may end. Keeps count, and how it ended."""

    name = "talker"
    profile = ModelProfile()

    def __init__(self, pieces: int = 0) -> None:
        self.pieces = pieces
        self.said = 0
        self.running = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.cancelled = threading.Event()

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        assert cancel is not None
        self.running.release()
        try:
            while on_delta is not None and self.said < self.pieces:
                on_delta(Delta(text="word "))
                self.said += 1
            while not self.may_end.wait(0.01):
                if cancel.is_set():
                    raise Cancelled("cancelled")
        except Cancelled:
            self.cancelled.set()
            raise
        return ModelReply(text="word " * self.said, model="t", prompt_tokens=1, completion_tokens=1, seconds=0.0)


class Client:
    """One request to an application, as a server would pass it on; `leave()` is the end of the connection."""

    def __init__(self, api: FastAPI, **body: Any) -> None:
        self._api = api
        self._body = json.dumps({"messages": ASKED} | body).encode()
        self._left = asyncio.Event()
        self._sent = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.got: list[Message] = []

    async def ask(self) -> None:
        path = "/v1/chat/completions"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
        }
        await self._api(scope, self._receive, self._send)

    def leave(self) -> None:
        self._left.set()
        self.reads.set()

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.got).decode()

    async def _receive(self) -> Message:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.got.append(message)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        await asyncio.sleep(0.005)


def run(talk: Make, api: FastAPI, model: Talker, act: Callable[[FastAPI], Awaitable[None]]) -> None:
    talk(model=model)
    try:
        asyncio.run(act(api))  # type: ignore[arg-type]
    finally:
        model.may_end.set()


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_stops_the_generation(talk: Make, api: FastAPI, stream: bool) -> None:
    model = Talker(pieces=3)

    async def act(api: FastAPI) -> None:
        client = Client(api, stream=stream)
        asking = asyncio.create_task(client.ask())
        await until(lambda: model.running.acquire(blocking=False))
        began = time.monotonic()
        client.leave()
        await until(model.cancelled.is_set)
        assert time.monotonic() - began < 1.0
        await asking
        assert "[DONE]" not in client.text

    run(talk, api, model, act)
    assert api.state.bridge.taken == 0


def test_who_reads_slowly_slows_the_model_down(talk: Make, api: FastAPI) -> None:
    model = Talker(pieces=5 * AHEAD)
    model.may_end.set()

    async def act(api: FastAPI) -> None:
        client = Client(api, stream=True)
        client.reads.clear()
        asking = asyncio.create_task(client.ask())
        await until(lambda: model.said >= AHEAD)
        await asyncio.sleep(0.2)
        assert AHEAD <= model.said <= 3 * AHEAD
        client.reads.set()
        await asking
        assert model.said == model.pieces
        assert client.text.count("word ") == model.pieces
        assert client.text.endswith("data: [DONE]\n\n")

    run(talk, api, model, act)


def test_who_never_reads_is_given_up(talk: Make, api: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridges, "PATIENCE", 0.2)
    monkeypatch.setattr(events, "PATIENCE", 0.2)
    model = Talker(pieces=10 * AHEAD)

    async def act(api: FastAPI) -> None:
        client = Client(api, stream=True)
        asking = asyncio.create_task(client.ask())
        await until(lambda: client.got)
        client.reads.clear()
        await until(model.cancelled.is_set)
        await asyncio.wait_for(asking, 5)

    run(talk, api, model, act)
    assert api.state.bridge.taken == 0


def test_silence_is_bridged_with_comments(talk: Make, api: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING", 0.05)
    monkeypatch.setattr(events, "HOLD", 0.05)
    model = Talker()

    async def act(api: FastAPI) -> None:
        client = Client(api, stream=True)
        asking = asyncio.create_task(client.ask())
        await until(lambda: client.text.count(": still here\n\n") >= 2)
        model.may_end.set()
        await asking
        assert client.status == 200
        assert client.text.endswith("[DONE]\n\n")

    run(talk, api, model, act)


@pytest.fixture
def two_seats(api: FastAPI) -> Iterator[FastAPI]:
    before, api.state.bridge = api.state.bridge, Bridge(2)
    yield api
    api.state.bridge = before


def test_more_at_once_than_there_are_seats(talk: Make, two_seats: FastAPI) -> None:
    model = Talker()

    async def act(api: FastAPI) -> None:
        first = [Client(api) for _ in range(2)]
        asking = [asyncio.create_task(client.ask()) for client in first]
        await until(lambda: api.state.bridge.taken == 2)
        for stream in (False, True):
            late = Client(api, stream=stream)
            await late.ask()
            assert late.status == 429
            assert (b"retry-after", b"2") in late.got[0]["headers"]
            assert json.loads(late.text)["error"]["code"] == "rate_limit_exceeded"
        model.may_end.set()
        await asyncio.gather(*asking)
        assert [client.status for client in first] == [200, 200]
        again = Client(api)
        await again.ask()
        assert again.status == 200

    run(talk, two_seats, model, act)


def test_a_reply_takes_a_seat_and_not_a_request(talk: Make, two_seats: FastAPI) -> None:
    model = Talker()

    async def act(api: FastAPI) -> None:
        alone = Client(api, n=9)  # more than there are threads
        asking = asyncio.create_task(alone.ask())
        await until(lambda: api.state.bridge.taken == 9)
        late = Client(api)
        await asyncio.wait_for(late.ask(), 5)
        model.may_end.set()
        await asking
        assert (late.status, alone.status, api.state.bridge.taken) == (429, 200, 0)
        model.may_end.clear()
        one = Client(api)
        asking = asyncio.create_task(one.ask())
        await until(lambda: api.state.bridge.taken == 1)
        many = Client(api, n=2)
        await asyncio.wait_for(many.ask(), 5)
        model.may_end.set()
        await asking
        assert (many.status, one.status, api.state.bridge.taken) == (429, 200, 0)

    run(talk, two_seats, model, act)


@pytest.mark.parametrize("stream", [False, True])
def test_a_daemon_that_stops_says_so(talk: Make, two_seats: FastAPI, stream: bool) -> None:
    model = Talker(pieces=1)

    async def act(api: FastAPI) -> None:
        client, late = Client(api, stream=stream), Client(api)
        asking = asyncio.create_task(client.ask())
        await until(lambda: client.text.count("word") if stream else model.running.acquire(blocking=False))
        api.state.bridge.close()
        await asyncio.gather(asking, late.ask())
        assert (client.status, late.status) == (200 if stream else 503, 503)
        assert json.loads(client.text.rpartition("data: ")[2])["error"]["code"] == "daemon.stopping"
        await until(model.cancelled.is_set)

    run(talk, two_seats, model, act)


def test_a_hundred_at_once(talk: Make, api: FastAPI) -> None:
    model = Talker(pieces=1)

    async def act(api: FastAPI) -> None:
        clients = [Client(api, stream=number % 2 == 0) for number in range(100)]
        asking = asyncio.gather(*(client.ask() for client in clients))
        await until(lambda: api.state.bridge.taken == 100)
        model.may_end.set()
        await asking
        assert {client.status for client in clients} == {200}

    run(talk, api, model, act)
    assert api.state.bridge.taken == 0
