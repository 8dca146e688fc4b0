"""The council, with the real daemon and a scripted model in every chair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.agent.context import prompt
from agentd.agent.council import ROLES
from tests.e2e.harness import Agentd

pytestmark = pytest.mark.e2e
YES = {"decision": "accept", "because": "It is small.", "risks": ["a typo"]}
NO = {"decision": "reject", "because": "It publishes the keys."}


def entries() -> list[dict[str, Any]]:
    """What each role says; it depends on what it is asked about."""
    said: list[dict[str, Any]] = [
        {"when": [prompt("roles/security").strip(), "publish"], "replies": [NO] * 9},
        {"when": [prompt("roles/qa").strip(), "murmur"], "replies": ["It depends."] * 9},
    ]
    said += [{"when": prompt(f"roles/{role}").strip(), "replies": [YES] * 9} for role in ROLES]
    for goal in ("Make new.txt", "Make and publish new.txt"):
        work = [{"steps": [{"intent": "Make it"}]}, "write_file", {"path": "new.txt"}, "```\nx\n```", "answer", "Made."]
        said.append({"when": goal, "replies": [*work, {"done": True}]})
    return said


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    folder: Path = tmp_path_factory.mktemp("council")
    (folder / "script.yaml").write_text(json.dumps(entries()), encoding="utf-8")
    made = Agentd(folder)
    made.speak(folder / "script.yaml")
    made.files({"notes.txt": "milk\n"})
    made.ok("up")
    yield made
    made.stop()


def test_ask(agentd: Agentd) -> None:
    done = agentd.run("council", "ask", "Shall", "we", "rename", "it?")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:7]] == [[role, "accept"] for role in ROLES]
    assert lines[8].startswith("verdict    accept: accepted by Director, Architect, Security")
    assert lines[9] == "           - a typo"
    assert (agentd.workspace / "notes.txt").read_text() == "milk\n"
    assert agentd.json("ps", "-a") == [], "a question is no task"


def test_a_veto_is_an_exit_code(agentd: Agentd) -> None:
    done = agentd.run("council", "ask", "Shall we publish it?", "--json")
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["decision"], verdict["vetoed"]) == (5, "reject", True)
    assert "veto by Security" in verdict["because"]


def test_who_says_nothing_usable_is_named(agentd: Agentd) -> None:
    done = agentd.run("council", "ask", "-", stdin="Shall we murmur?\n")
    assert done.returncode == 0
    assert "qa         -         -     no usable opinion" in done.stdout
    assert "no usable opinion from QA" in done.stdout


def test_a_question_needs_words_and_a_folder(agentd: Agentd) -> None:
    assert agentd.error("council", "ask", " ", code=2)["message"] == "the question is empty"
    assert agentd.error("council", "ask", "What?", "-w", "nowhere", code=2)["code"] == "input.invalid"


def test_a_task_that_is_accepted(agentd: Agentd) -> None:
    done = agentd.run("run", "--council", "Make new.txt")
    assert done.returncode == 0, done.stderr
    assert "council on the plan: accept: accepted by Director" in done.stderr
    assert "council on the change: accept" in done.stderr
    task = agentd.json("ps", "-a")[0]
    assert [(each["about"], each["decision"]) for each in task["verdicts"]] == [
        ("plan", "accept"),
        ("change", "accept"),
    ]
    shown = agentd.ok("show", task["id"])
    assert "council on the plan" in shown
    assert "security   accept" in shown
    assert (agentd.workspace / "new.txt").read_text() == "x"
    assert "council: plan accept: accepted by" in agentd.ok("report")


def test_a_task_that_is_vetoed(agentd: Agentd) -> None:
    agentd.files({"notes.txt": "milk\n"})
    done = agentd.run("run", "--council", "Make and publish new.txt")
    assert done.returncode == 5, done.stderr
    assert "veto by Security: It publishes the keys." in done.stderr
    assert [path.name for path in agentd.workspace.iterdir()] == ["notes.txt"]
    assert agentd.json("audit", "verify")["ok"] is True
