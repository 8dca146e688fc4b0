"""How often one client may ask."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from agentd.api.auth import Message, Receive, Send
from agentd.api.problems import answer
from agentd.api.rate import RateLimit, RateLimited
from tests.api.asgi import call


class Watch:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def inside(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def test_a_minutes_worth_at_once_and_then_as_time_goes_by() -> None:
    watch = Watch()
    app = RateLimit(inside, lambda: 3, watch, answer)
    assert [call(app).status for _ in range(4)] == [200, 200, 200, 429]
    watch.seconds = 19.0
    assert call(app).status == 429
    watch.seconds = 20.5
    assert [call(app).status for _ in range(2)] == [200, 429]


def test_the_answer_says_when_to_come_back() -> None:
    app = RateLimit(inside, lambda: 2, Watch(), answer)
    refused = [call(app) for _ in range(3)][-1]
    assert refused.json["error"]["code"] == "api.rate_limited"
    assert "30 s" in refused.json["error"]["hint"]


def test_clients_do_not_use_up_each_others_share() -> None:
    app = RateLimit(inside, lambda: 1, Watch(), answer)
    one, other = {"Authorization": "Bearer one"}, {"X-Api-Key": "other"}
    assert [call(app, headers=who).status for who in (one, one, other)] == [200, 429, 200]


def test_many_clients_take_no_more_memory() -> None:
    app = RateLimit(inside, lambda: 1, Watch(), answer)
    for number in range(1200):
        call(app, headers={"Authorization": f"Bearer {number}"})
    assert len(app._buckets) == 1000


def test_no_limit() -> None:
    app = RateLimit(inside, lambda: 0, Watch(), answer)
    assert {call(app).status for _ in range(50)} == {200}


def test_a_key_is_one_client_however_it_is_shown() -> None:
    app = RateLimit(inside, lambda: 1, Watch(), answer)
    forms = (
        {"Authorization": "Bearer one"},
        {"Authorization": "bearer   one"},
        {"X-Api-Key": "one"},
        {"Authorization": "Basic x", "X-Api-Key": "one"},
    )
    assert [call(app, headers=form).status for form in forms] == [200, 429, 429, 429]


def talk_over(app: RateLimit, requests: int) -> tuple[list[Message], int]:
    """What was sent to a client that opens a WebSocket, and how many of its requests were let through."""
    sent: list[Message] = []
    asked = 0

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def socket(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal asked
        await send({"type": "websocket.accept"})
        for _ in range(requests):
            scope["one_more"]()
            asked += 1

    app._app = socket
    with suppress(RateLimited):
        asyncio.run(app({"type": "websocket", "path": "/ws/completions", "headers": []}, receive, send))
    return sent, asked


def test_what_is_asked_over_a_websocket_counts() -> None:
    watch = Watch()
    app = RateLimit(inside, lambda: 3, watch, answer)
    assert talk_over(app, 5) == ([{"type": "websocket.accept"}], 2)
    assert [message["type"] for message in talk_over(app, 5)[0]] == ["websocket.close"]
    watch.seconds = 60.0
    assert talk_over(app, 1)[1] == 1
