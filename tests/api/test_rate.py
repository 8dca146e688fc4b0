"""How often one client may ask."""

from __future__ import annotations

from agentd.api.auth import Message, Receive, Send
from agentd.api.problems import answer
from agentd.api.rate import RateLimit
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
