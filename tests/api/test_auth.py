"""Who is let in over TCP."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from agentd.api.auth import Message, Receive, Send, TokenGuard, ensure_token
from agentd.api.problems import answer
from agentd.errors import Unauthorised
from tests.api.asgi import call
from tests.api.conftest import Served

TOKEN = "right-token"
GOOD = {"Host": "127.0.0.1:8765", "Authorization": f"Bearer {TOKEN}"}


async def inside(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


guard = TokenGuard(inside, TOKEN, ["127.0.0.1", "localhost", "::1"], 8765, answer)


@pytest.mark.parametrize(
    "headers",
    [
        GOOD,
        GOOD | {"Host": "localhost:8765"},
        GOOD | {"Host": "[::1]:8765"},
        GOOD | {"Host": "LOCALHOST:8765"},
        GOOD | {"Origin": "http://127.0.0.1:8765"},
        GOOD | {"Authorization": f"bearer  {TOKEN}"},
    ],
)
def test_let_in(headers: dict[str, str]) -> None:
    assert call(guard, headers=headers).body == b"in"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": GOOD["Host"]}, 401, "auth.required"),
        (GOOD | {"Authorization": "Bearer wrong"}, 401, "auth.required"),
        (GOOD | {"Authorization": f"Basic {TOKEN}"}, 401, "auth.required"),
        (GOOD | {"Authorization": TOKEN}, 401, "auth.required"),
        (GOOD | {"Authorization": "Bearer "}, 401, "auth.required"),
        (GOOD | {"Host": "evil.example:8765"}, 403, "policy.denied"),
        (GOOD | {"Host": "127.0.0.1"}, 403, "policy.denied"),
        (GOOD | {"Host": "127.0.0.1:1"}, 403, "policy.denied"),
        (GOOD | {"Host": "127.0.0.1:8765.evil.example"}, 403, "policy.denied"),
        ({"Authorization": GOOD["Authorization"]}, 403, "policy.denied"),
        (GOOD | {"Origin": "http://evil.example"}, 403, "policy.denied"),
        (GOOD | {"Origin": "https://127.0.0.1:8765"}, 403, "policy.denied"),
        (GOOD | {"Origin": "http://127.0.0.1:1"}, 403, "policy.denied"),
        (GOOD | {"Origin": "null"}, 403, "policy.denied"),
        (GOOD | {"Origin": "http://127.0.0.1:8765@evil.example"}, 403, "policy.denied"),
    ],
)
def test_kept_out(headers: dict[str, str], status: int, code: str) -> None:
    said = call(guard, headers=headers)
    assert (said.status, said.json["error"]["code"]) == (status, code)


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token"
    first = ensure_token(path)
    assert len(first) >= 40
    assert ensure_token(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_token_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("\n")
    with pytest.raises(Unauthorised, match="empty"):
        ensure_token(path)


def let_in_by(knows: str, path: str, headers: dict[str, str]) -> int:
    keyed = TokenGuard(inside, TOKEN, ["127.0.0.1"], 8765, answer, knows=lambda key: key == knows)
    return call(keyed, path, headers={"Host": "127.0.0.1:8765"} | headers).status


@pytest.mark.parametrize(
    "path",
    [
        *("/api", "/api/", "/api/tasks", "//api/tasks", "/API/tasks", "/api/../v1/models", "/./api", "/api;v1"),
        *("/v1/config", "/v1/config/", "/v1x", "/toolsmith", "/", "", "/what-comes-next", "/docs"),
    ],
)
def test_what_named_keys_open_is_listed_and_all_else_is_closed(path: str) -> None:
    assert let_in_by("sk-editor", path, {"Authorization": "Bearer sk-editor"}) == 403


def test_each_endpoint_is_open_to_named_keys_or_the_owners(served: Served) -> None:
    paths = [*served.api.openapi()["paths"], "/ws/completions"]
    shown = {"Authorization": "Bearer sk-editor"}
    closed = {path for path in paths if let_in_by("sk-editor", path, shown) == 403}
    assert closed == {path for path in paths if path.startswith("/api/") or path == "/v1/config"}


def test_named_keys_open_all_but_the_owners_endpoints() -> None:
    shown = {"Authorization": "Bearer sk-editor"}
    assert let_in_by("sk-editor", "/v1/models", shown) == 200
    assert let_in_by("sk-editor", "/v1/models", {"X-Api-Key": "sk-editor"}) == 200
    assert let_in_by("sk-editor", "/api/shutdown", shown) == 403
    assert let_in_by("sk-editor", "/api", shown) == 403
    assert let_in_by("sk-other", "/v1/models", shown) == 401


def test_that_somebody_is_there_is_no_secret() -> None:
    assert let_in_by("", "/health", {}) == 200
    assert let_in_by("", "/health", {"Host": "evil.example"}) == 403


def test_pages_that_are_listed_may_call() -> None:
    page = {"Origin": "http://localhost:3000"}
    open_to = TokenGuard(inside, TOKEN, ["127.0.0.1"], 8765, answer, origins=["http://localhost:3000"])
    assert call(open_to, headers=GOOD | page).status == 200
    assert call(open_to, headers=GOOD | {"Origin": "http://localhost:3001"}).status == 403


def test_a_websocket_without_a_token_is_closed_before_it_opens() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/ws/completions", "headers": [(b"host", b"127.0.0.1:8765")]}
    asyncio.run(guard(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
