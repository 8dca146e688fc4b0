"""Risk: sums that a reader can follow, higher for what can do more harm."""

from __future__ import annotations

import re
import string
import time
from typing import Literal

import pytest

from agentd.policy.risk import WEIGHTS, risk_of_actions, risk_of_changes, risk_of_plan
from agentd.types import Action, Check, Decision, FileChange, Plan, Risk, Ruling, Step

QUIET = Decision(ruling=Ruling.ALLOW, rule="write-files", because="It may.", risk=20)
DELETING = Decision(ruling=Ruling.ALLOW, rule="delete-files", because="It may.", risk=40)
TOKEN = "ghp_" + (string.ascii_letters + string.digits)[10:46]


def plan(*intents: str, check: bool = False) -> Plan:
    checks = (Check(target="pytest"),) if check else ()
    return Plan(steps=tuple(Step(intent=intent, checks=checks) for intent in intents))


def change(path: str, *added: str, kind: Literal["changed", "deleted"] = "changed", removed: int = 0) -> FileChange:
    lines = "".join(f"+{line}\n" for line in added) + "-old\n" * removed
    diff = f"--- a\n+++ b\n@@ -1 +1 @@\n{lines}"
    return FileChange(path=path, kind=kind, diff=diff, added=len(added), removed=removed)


def summed(risk: Risk) -> int:
    """What the reasons say that they weigh."""
    return sum(int(re.search(r": (\d+)$", reason)[1]) for reason in risk.reasons)  # type: ignore[index]


def test_nothing_has_no_risk() -> None:
    assert risk_of_plan("Say hello", plan("Say hello")) == Risk()
    assert risk_of_actions([]) == Risk()
    assert risk_of_changes([]) == Risk()


@pytest.mark.parametrize(
    ("goal", "intents", "least", "most"),
    [
        ("What does README.md say?", ["Read README.md"], 0, 0),
        ("Delete old.log", ["Delete old.log"], 20, 20),
        ("Fix the failing test in tests/test_a.py", ["Read it", "Mend the code", "Run the tests"], 10, 30),
        ("Add a page about pricing to docs/pricing.md", ["Write docs/pricing.md"], 0, 10),
        (
            "Migrate the schema of the database and delete all",
            ["Migrate", "Delete", "Test", "Release it"],
            60,
            100,
        ),
        ("Rewrite the login in src/auth.py for all services", ["Rewrite", "Update .github/workflows/ci.yml"], 60, 100),
    ],
)
def test_a_plan_is_judged_by_what_it_speaks_of(goal: str, intents: list[str], least: int, most: int) -> None:
    risk = risk_of_plan(goal, plan(*intents))
    assert least <= risk.score <= most, risk
    assert risk.score == min(100, summed(risk))


def test_more_steps_weigh_more_and_checks_less() -> None:
    few, many = plan("Read a", "Write b"), plan(*(f"Write part {n}" for n in range(10)))
    assert risk_of_plan("Do it", few).score < risk_of_plan("Do it", many).score
    checked = plan("Read a", "Write b", check=True)
    assert risk_of_plan("Do it", checked).score == risk_of_plan("Do it", few).score - WEIGHTS["has steps and no check"]


def test_a_call_weighs_what_its_rules_say_and_what_it_touches() -> None:
    plain = risk_of_actions([(Action(kind="fs.write", target="src/a.py"), QUIET)])
    assert plain == Risk(score=20, reasons=("fs.write src/a.py (write-files): 20",))
    server = risk_of_actions([(Action(kind="fs.delete", target=".gitlab-ci.yml"), DELETING)])
    assert server.score == 40 + WEIGHTS["builds on servers"]
    reached = [(Action(kind="net.connect", target="api.example.com:443"), QUIET)]
    assert risk_of_actions(reached).score == 20 + WEIGHTS["network"]


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ([change("src/a.py", f"TOKEN = '{TOKEN}'")], "secrets"),
        ([change("src/a.py", "import requests")], "network"),
        ([change("src/a.py", "os.chmod(path, 0o777)")], "new permissions"),
        ([FileChange(path="run.sh", kind="mode")], "new permissions"),
        ([FileChange(path="logo.png", kind="added")], "files that are no text"),
        ([change("tests/test_a.py", "x = 1", removed=3)], "deletes tests, or more of them than it adds"),
        ([change("Makefile", "all:")], "build files"),
        ([change(".github/workflows/ci.yml", "on: push")], "builds on servers"),
        ([change("conftest.py", "x = 1")], "files that start programs"),
        ([change("tests/test_a.py", "assert True")], "tests"),
    ],
)
def test_each_weight_of_a_change_is_met(changes: list[FileChange], weight: str) -> None:
    risk = risk_of_changes(changes)
    assert any(reason.startswith(weight) for reason in risk.reasons), risk
    assert risk.score == min(100, summed(risk)) >= WEIGHTS[weight]


def test_a_small_change_is_quiet_and_a_large_one_is_not() -> None:
    assert risk_of_changes([change("src/a.py", "x = 1", removed=1)]) == Risk()
    large = [change(f"src/m{n}.py", *["x = 1"] * 100) for n in range(12)]
    assert risk_of_changes(large).score == 20 + 20
    gone = [change(f"src/m{n}.py", kind="deleted", removed=50) for n in range(12)]
    assert risk_of_changes(gone).score > risk_of_changes(large).score


def test_a_reason_never_holds_the_secret() -> None:
    assert TOKEN not in str(risk_of_changes([change("a.py", TOKEN)]))


def test_removed_secrets_and_file_headers_do_not_count() -> None:
    diff = f"--- a/{TOKEN}\n+++ b/{TOKEN}\n@@ -1 +0,0 @@\n-{TOKEN}\n"
    assert risk_of_changes([FileChange(path="a.py", kind="changed", diff=diff, removed=1)]).score == 0


@pytest.mark.parametrize("unit", ["a/", "delete ", "x.y.", "../", "all ", "-" * 50])
def test_a_hostile_goal_costs_no_time(unit: str) -> None:
    began = time.process_time()
    risk_of_plan(unit * (200_000 // len(unit)), plan(unit * 5000))
    assert time.process_time() - began < 10
