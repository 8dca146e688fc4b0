"""How a running task is shown."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from agentd.cli.follow import Lines, tool_line
from agentd.cli.live import LivePlan
from agentd.cli.run import verdict


def task(*states: str, state: str = "running", text: str = "") -> dict[str, Any]:
    steps = [{"intent": f"do part {number}"} for number in range(1, len(states) + 1)]
    outcomes = [{"state": each, "text": text} for each in states]
    return {"state": state, "plan": {"steps": steps} if states else None, "outcomes": outcomes}


def test_lines_say_each_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    view = Lines()
    for shown in (
        task(),
        task("pending", "pending"),
        task("running", "pending"),
        task("running", "pending"),
        task("done", "running"),
        task("done", "failed", text="no\nluck \x1b[2J"),
    ):
        view.task(shown)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "plan: 2 steps",
        "step 1 running: do part 1",
        "step 1 done: do part 1",
        "step 2 running: do part 2",
        "step 2 failed: do part 2: no luck �[2J",
    ]


DECIDED = {"kind": "ToolDecided", "data": {"tool": "read_file", "decision": "allow", "actions": ["fs.read a.txt"]}}
DENIED = {
    "kind": "ToolDecided",
    "data": {"tool": "read_file", "decision": "deny", "because": "It is outside.", "actions": ["fs.read ../a"]},
}
FAILED = {"kind": "ToolFinished", "data": {"tool": "read_file", "ok": False, "problem": "no such file"}}


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (DECIDED, "read_file: fs.read a.txt"),
        (DENIED, "read_file: fs.read ../a (deny: It is outside.)"),
        (FAILED, "read_file: no such file"),
    ],
)
def test_calls_of_tools_are_one_line(event: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool_line(event) == line
    Lines().tool(event)
    assert capsys.readouterr().err == ""
    Lines(verbose=True).tool(event)
    assert capsys.readouterr().err == f"  {line}\n"


def test_the_live_plan_ends_with_the_state_of_every_step() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, color_system=None)
    with LivePlan(console) as view:
        view.task(task("running", "pending"))
        view.tool(DECIDED)
        view.task(task("done", "failed", state="failed"))
    last = screen.getvalue()
    assert "do part 1" in last
    assert "read_file: fs.read a.txt" in last
    final = last[last.rindex("✓") :]
    assert final.splitlines()[0].strip() == "✓ 1. do part 1"
    assert final.splitlines()[1].strip().endswith("✗ 2. do part 2")
    assert "read_file" not in final


def ended(state: str, **report: Any) -> dict[str, Any]:
    return {"state": state, "question": "which\none?", "report": {"checks": [], "verified": [], "reason": ""} | report}


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (ended("verified", verified=["pytest -q: passed"]), "verified: pytest -q"),
        (ended("verified", verified=["a.txt exists"]), "verified: a.txt exists"),
        (
            ended("verified", verified=["pytest: passed"], bent=["test_a.py"]),
            "verified: pytest (but it changed test_a.py itself)",
        ),
        (ended("claimed"), "claimed (no check ran)"),
        (ended("failed", reason="no\nluck"), "failed: no luck"),
        (ended("waiting"), "waiting: which one?"),
        (ended("cancelled"), "cancelled"),
    ],
)
def test_the_verdict_is_one_line(shown: dict[str, Any], line: str) -> None:
    assert verdict(shown) == line
