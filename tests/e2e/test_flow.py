"""Task, council, patch, tests, report, commit: the whole way on a small repository, and its three bad ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.agent.context import prompt
from agentd.agent.council import ROLES
from tests.e2e.harness import Agentd

pytestmark = pytest.mark.e2e

GOOD, BAD, VETO, ASK = "Mend add in calc.py", "Speed up add in calc.py", "Publish add in calc.py", "Set up pytest"
CALC = "def add(a, b):\n    return a + b + 0\n"
TESTS = "from calc import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n"
PYTEST = "python -m pytest -q -p no:cacheprovider"
OFTEN = 9


def turn(goal: str, saw: str, tool: str, args: dict[str, Any], content: str = "") -> list[dict[str, Any]]:
    """What is said once `saw` has been seen; by what stands in a prompt, so that a daemon may die between any two."""
    says: list[tuple[str, Any]] = [(f"Arguments for {tool}", args), ("What next?", tool)]
    if content:
        says.insert(0, ("Now the value of", content))
    return [{"when": [goal, *filter(None, [saw]), when], "replies": [reply] * OFTEN} for when, reply in says]


def answer(goal: str, saw: str, words: str) -> list[dict[str, Any]]:
    says = [("You chose `answer`", words), ("What next?", "answer")]
    return [{"when": [goal, saw, when], "replies": [reply] * OFTEN} for when, reply in says]


def entries() -> list[dict[str, Any]]:
    yes = {"decision": "accept", "because": "It is small."}
    roles = [(prompt(f"roles/{role}").strip(), role) for role in ROLES]
    edit, plan = {"path": "calc.py", "all": False}, "Replace text in the file calc.py, then git commit it"
    return [
        {"when": [prompt("roles/security").strip(), VETO], "replies": [yes | {"decision": "reject"}] * OFTEN},
        *({"when": words, "replies": [yes] * OFTEN} for words, _ in roles),
        {
            "when": ["Make the shortest plan", GOOD],
            "replies": [{"steps": [{"intent": plan}]}] * OFTEN,
        },
        {"when": "Make the shortest plan", "replies": [{"steps": [{"intent": "write the file"}]}] * OFTEN},
        {"when": "Does what was done give", "replies": [{"done": True}] * OFTEN},
        *answer(GOOD, "Result of git_commit", "I changed calc.py and committed it."),
        *turn(GOOD, "Result of edit_file", "git_commit", {"paths": ["calc.py"]}, "```message\nMend add\n```"),
        *turn(GOOD, "", "edit_file", edit, "```search\n    return a + b + 0\n```\n```replace\n    return a + b\n```"),
        *answer(BAD, "Result of write_file", "I changed calc.py."),
        *turn(
            BAD,
            "",
            "write_file",
            {"path": "calc.py", "mode": "overwrite"},
            "```content\ndef add(a, b):\n    return 4\n```",
        ),
        *answer(ASK, "Result of write_file", "I was not allowed to."),
        *turn(ASK, "", "write_file", {"path": "conftest.py"}, "```content\nimport os\nos\n```"),
    ]


@pytest.fixture
def agentd(tmp_path: Path) -> Iterator[Agentd]:
    (tmp_path / "script.yaml").write_text(json.dumps(entries()), encoding="utf-8")
    made = Agentd(tmp_path)
    made.speak(tmp_path / "script.yaml")
    made.files({"calc.py": CALC, "test_calc.py": TESTS, "mine.txt": "old\n", ".gitignore": "__pycache__/\n"})
    git(made, "init", "-q", "-b", "main")
    git(made, "add", "-A")
    git(made, "commit", "-qm", "Begin")
    (made.workspace / "mine.txt").write_text("mine\n")
    made.ok("up")
    yield made
    made.stop()


def git(agentd: Agentd, *args: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.com")
    done = subprocess.run(["git", *who, *args], cwd=agentd.workspace, check=True, capture_output=True, text=True)
    return done.stdout


def as_it_was(agentd: Agentd) -> None:
    assert (agentd.workspace / "calc.py").read_text() == CALC
    assert git(agentd, "status", "--short") == " M mine.txt\n"
    assert git(agentd, "log", "--format=%s") == "Begin\n"


def committed(agentd: Agentd, task: str) -> None:
    assert (agentd.workspace / "calc.py").read_text() == CALC.replace(" + 0", "")
    assert git(agentd, "log", "--format=%s") == "Mend add\nBegin\n"
    assert f"Agentd-Task: {task}" in git(agentd, "log", "-1", "--format=%B")
    assert git(agentd, "show", "--stat", "--format=", "HEAD").splitlines()[0].split()[0] == "calc.py"
    assert git(agentd, "status", "--short") == " M mine.txt\n"
    assert agentd.json("audit", "verify")["ok"] is True


def test_the_good_end(agentd: Agentd) -> None:
    done = agentd.run("run", "--council", "--level", "3", "--check", PYTEST, GOOD + " and commit it")
    assert done.returncode == 0, done.stderr
    assert f"verified: {PYTEST}" in done.stderr
    task = agentd.json("ps", "-a")[0]
    committed(agentd, task["id"])
    assert [(each["about"], each["decision"]) for each in task["verdicts"]] == [
        ("plan", "accept"),
        ("change", "accept"),
    ]
    (ran,) = [each for each in task["report"]["checks"] if each["check"]["by"] == "user"]
    assert (ran["code"], len(ran["sha256"]), task["report"]["struck"]) == (0, 64, [])
    assert "\n+    return a + b" in agentd.ok("diff", task["id"])
    assert PYTEST in agentd.ok("report")


def test_hooks_run_where_the_owner_allows_them(agentd: Agentd) -> None:
    for name, script in (("pre-commit", "git diff --cached"), ("commit-msg", 'echo "Seen-by: a hook" >>"$1"')):
        hook = agentd.workspace / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)
    rule = (
        f"- {{match: {{action: git.hook, name: ['*'], workspace: ['{agentd.workspace}']}}, decision: allow, "
        "because: My own., examples: {match: [pre-commit], not_match: [git.sign]}}\n"
    )
    with (agentd.home.home / "policies" / "default.yaml").open("a") as policy:
        policy.write(rule)
    agentd.ok("down")
    agentd.ok("run", "--level", "3", "--check", PYTEST, GOOD + " and commit it")
    assert git(agentd, "log", "-1", "--format=%(trailers:key=Seen-by,valueonly)").strip() == "a hook"
    ran = [each["data"]["hooks"] for each in agentd.json("audit", "tail", "-n", "1000") if "hooks" in each["data"]]
    assert ran == [["pre-commit 0", "commit-msg 0"]]


def test_red_tests_that_repair_does_not_mend_are_rolled_back(agentd: Agentd) -> None:
    done = agentd.run("run", "--level", "2", "--check", PYTEST, BAD)
    assert done.returncode == 3, done.stderr
    assert "rolled_back" in done.stderr
    as_it_was(agentd)
    task = agentd.json("ps", "-a")[0]
    assert (task["state"], task["report"]["restored"], task["report"]["changed"]) == ("rolled_back", ["calc.py"], [])
    assert "test_add" in task["report"]["reason"]


def test_a_veto(agentd: Agentd) -> None:
    done = agentd.run("run", "--council", "--level", "3", VETO)
    assert done.returncode == 5, done.stderr
    assert "veto by Security" in done.stderr
    as_it_was(agentd)


def test_an_approval_that_is_refused(agentd: Agentd) -> None:
    done = agentd.run("run", "--level", "1", ASK)
    assert done.returncode == 6, done.stderr
    task = agentd.json("ps", "-a")[0]["id"]
    agentd.ok("reject", task, "--because", "not in this project")
    agentd.ok("wait", task)
    as_it_was(agentd)
    assert "not in this project" in json.dumps(agentd.json("show", task))


ARROWS = ("PlanMade", "VerdictGiven", "StepStarted", "ToolDecided", "ToolFinished", "StepJudged")


@pytest.mark.slow
def test_killed_at_every_arrow(agentd: Agentd) -> None:
    """The daemon dies as soon as something new has happened, again and again, until the task ends all the same."""
    task = agentd.ok("submit", "--council", "--level", "3", "--check", PYTEST, GOOD + " and commit it")
    seen: set[str] = set()
    for _ in range(len(ARROWS) * 4):
        fresh = killed_at_something_new(agentd, task, seen)
        if not fresh:
            break
        seen.add(fresh)
        agentd.ok("up")
    assert agentd.ok("wait", task)
    assert agentd.json("show", task)["state"] == "verified"
    committed(agentd, task)
    assert seen >= set(ARROWS)


def killed_at_something_new(agentd: Agentd, task: str, seen: set[str]) -> str:
    """Kill the daemon when an event comes whose like has killed none yet; its kind, or nothing when the task ended."""
    with agentd.start("logs", "-f", task, "--json") as log:
        assert log.stdout is not None
        for line in log.stdout:
            event = json.loads(line)
            if event["kind"] == "TaskFinished":
                break
            if event["kind"] in ARROWS and event["kind"] not in seen:
                agentd.kill()
                log.kill()
                return str(event["kind"])
        log.kill()
    return ""
