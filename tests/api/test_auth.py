"""Who is let in over TCP."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from agentd.api.auth import Message, Receive, Send, TokenGuard, ensure_token
from agentd.api.problems import answer
from agentd.errors import Unauthorised
from tests.api.asgi import call

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
