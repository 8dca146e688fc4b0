"""Kept replies as a person meets them: the second time costs the server nothing, unless one says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.openai_server import Good, OpenAiServer
from tests.e2e.harness import Agentd

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REPLIES = [
    {"steps": [{"intent": "Read notes.txt"}]},
    "read_file",
    {"path": "notes.txt"},
    "answer",
    "It says milk.",
    {"done": True},
]
ROLES = ("planner", "coder", "draft", "critic")


class Words:
    """Says its replies round and round, in the form that is asked for."""

    def __init__(self) -> None:
        self.said = 0

    def __call__(self, body: dict[str, Any]) -> str:
        reply = REPLIES[self.said % len(REPLIES)]
        self.said += 1
        form = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        if set(form.get("properties", {})) == {"choice"}:
            return json.dumps({"choice": reply})
        return reply if isinstance(reply, str) else json.dumps(reply)


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def agentd(tmp_path: Path, words: Words) -> Iterator[Agentd]:
    made = Agentd(tmp_path)
    made.files({"notes.txt": "milk\n"})
    with OpenAiServer(Good(say=words)) as server:
        roles = [word for role in ROLES for word in ("--role", role)]
        made.ok("backend", "add", "box", server.url, *roles, "--model", "small")
        yield made
        made.stop()


def test_a_task_that_was_done_before_costs_nothing_again(agentd: Agentd, words: Words) -> None:
    ask = ("run", "What does notes.txt say")
    assert agentd.json(*ask)["report"]["answer"] == "It says milk."
    assert words.said == len(REPLIES)
    again = agentd.json(*ask)
    assert again["report"]["answer"] == "It says milk."
    assert again["report"]["usage"]["model_calls"] == len(REPLIES)
    assert words.said == len(REPLIES), "nothing was asked"
    assert agentd.json(*ask, "--no-cache")["cache"] is False
    assert words.said == 2 * len(REPLIES)
    agentd.json("wait", agentd.json("retry", again["id"])[0]["id"])
    assert words.said == 3 * len(REPLIES), "a new attempt is one"

    found = agentd.json("cache", "ls")
    assert found["stats"]["hits"] == len(REPLIES)
    assert {row["model"] for row in found["replies"]} == {"box/small"}
    shown = [agentd.ok("cache", "show", row["key"][:12]) for row in found["replies"]]
    assert any("It says milk." in text for text in shown)
    assert "box/small" in agentd.ok("cache", "ls")
    assert "well" in agentd.ok("status")
    assert "found" in agentd.ok("status")
    assert agentd.run("cache", "show", "ffffffffffff").returncode != 0
    assert agentd.json("cache", "clear")["forgotten"] == len(found["replies"])
    agentd.ok(*ask)
    assert words.said == 4 * len(REPLIES)
