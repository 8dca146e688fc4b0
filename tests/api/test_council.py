"""The council over HTTP: six roles are shown the same words, and what they say is folded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.agent.context import prompt
from agentd.agent.council import ROLES
from agentd.backends.catalog import ROLES as MODEL_ROLES
from tests.api.conftest import Served

YES = {"decision": "accept", "because": "It is small.", "risks": ["a typo"], "confidence": 8}
NO = {"decision": "reject", "because": "It publishes the keys.", "confidence": 3}


def catalog(more: str = "") -> str:
    roles = "\n".join(f'{role} = ["words"]' for role in MODEL_ROLES)
    return f'[roles]\n{roles}\n[models.words]\nbackend = "scripted"\nreplies = "words.yaml"\n{more}\n'


@pytest.fixture
def says(home: Path) -> Callable[..., None]:
    """Let roles say this, and all others YES."""

    def write(**said: list[Any]) -> None:
        entries = [{"when": prompt(f"roles/{role}").strip(), "replies": said.get(role, [YES])} for role in ROLES]
        (home / "models" / "words.yaml").write_text(json.dumps(entries))
        (home / "models" / "catalog.toml").write_text(catalog())

    return write


def ask(served: Served, **more: Any) -> Any:
    body = {"question": "Shall we rename the table?", "workspace": str(served.workspace)} | more
    return served.client.post("/api/council", json=body)


def test_six_opinions_and_a_verdict(served: Served, says: Callable[..., None]) -> None:
    says()
    verdict = ask(served).json()
    assert (verdict["decision"], verdict["about"], verdict["absent"]) == ("accept", "question", [])
    assert [each["role"] for each in verdict["opinions"]] == list(ROLES)
    assert verdict["checklist"] == ["a typo"]
    records = [each for each in served.app.audit.tail(100) if each.kind == "council.verdict"]
    (record,) = records
    assert [each["decision"] for each in record.data["opinions"]] == ["accept"] * 6
    assert "small" not in json.dumps(record.data), "the audit log has hashes of what was said"
    assert len([each for each in served.app.audit.tail(100) if each.kind == "model.called"]) == 6


def test_security_has_a_veto(served: Served, says: Callable[..., None]) -> None:
    says(security=[NO])
    verdict = ask(served).json()
    assert (verdict["decision"], verdict["vetoed"]) == ("reject", True)
    assert verdict["because"] == "veto by Security: It publishes the keys."


def test_a_role_that_says_nothing_usable_has_no_opinion(served: Served, says: Callable[..., None]) -> None:
    says(qa=["Well, it depends.", ""], dev=[NO | {"confidence": 11}, YES])
    verdict = ask(served).json()
    assert (verdict["decision"], verdict["absent"]) == ("accept", ["qa"])
    assert "no usable opinion from QA (words gave no usable reply" in verdict["because"]


@pytest.mark.parametrize(
    "body",
    [{"question": " "}, {"question": "x" * 20_000}, {"workspace": "relative"}, {"workspace": "/nowhere"}, {"more": 1}],
)
def test_wrong_questions(served: Served, says: Callable[..., None], body: dict[str, Any]) -> None:
    says()
    found = ask(served, **body)
    assert found.status_code == 400, found.text
    assert found.json()["error"]["message"]


def test_a_level_above_the_highest_is_refused(served: Served, says: Callable[..., None]) -> None:
    says()
    assert ask(served, level=4).status_code == 403


def test_small_models_do_not_sit(served: Served, home: Path) -> None:
    (home / "models" / "words.yaml").write_text("[]")
    (home / "models" / "catalog.toml").write_text(catalog("compact = true"))
    error = ask(served).json()["error"]
    assert error["code"] == "model.missing"
    assert "no council could be held" in error["message"]
