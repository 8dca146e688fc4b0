"""Follows a task to its end and shows its plan: live on a terminal, line by line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from agentd.cli import output
from agentd.cli.client import Client
from agentd.cli.options import Invocation

ENDED = frozenset(
    {"verified", "claimed", "failed", "looped", "budget", "denied", "impossible", "cancelled", "rolled_back"}
)
_PLAN_EVENTS = frozenset({"TaskStarted", "PlanMade", "StepStarted", "StepJudged"})
_TOOL_EVENTS = frozenset({"ToolDecided", "ToolFinished"})
_STOP_EVENTS = frozenset({"TaskFinished", "TaskWaiting"})
FORGE_EVENTS = frozenset({"PluginForged", "PluginInstalled", "VerdictGiven"})
"""How the task gives itself a tool, and what the council says: takes minutes, so it is always told."""
_MARKS = {"pending": "·", "running": ">", "done": "✓", "failed": "✗"}


class View(AbstractContextManager["View"], Protocol):
    """Shows how a task goes on."""

    def task(self, task: Mapping[str, Any]) -> None:
        """The task as it stands now."""
        ...

    def tool(self, event: Mapping[str, Any]) -> None:
        """A tool was asked for, or has run."""
        ...


def follow(client: Client, task_id: str, view: View, deadline: float | None = None, last: int = 0) -> dict[str, Any]:
    """The task once it has ended or waits for a person. `TimedOut` after `deadline` (on `time.monotonic()`); `last`
    is the event that was seen last."""
    for event in client.events(task=task_id, deadline=deadline, last=last):
        kind = event["kind"]
        if kind in _STOP_EVENTS:
            task = client.task(task_id)
            if task["state"] in ENDED or task["state"] == "waiting":
                view.task(task)
                return task
        elif kind in _PLAN_EVENTS:
            view.task(client.task(task_id))
        elif kind in _TOOL_EVENTS | FORGE_EVENTS:
            view.tool(event)
    return client.task(task_id)


def view_for(invocation: Invocation) -> View:
    """Nothing with -q or --json, a live plan where stderr is a terminal, else lines."""
    if invocation.quiet or invocation.json:
        return Silence()
    if sys.stderr.isatty() and not invocation.verbose:
        from agentd.cli.live import LivePlan  # rich takes 80 ms to import and is of use on a terminal alone

        return LivePlan()
    return Lines(verbose=invocation.verbose)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def task(self, task: Mapping[str, Any]) -> None:
        return None

    def tool(self, event: Mapping[str, Any]) -> None:
        return None


class Lines(Silence):
    """Says each change once, on a line of stderr."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._said: dict[int, str] = {}
        self._steps: list[str] = []

    def task(self, task: Mapping[str, Any]) -> None:
        steps = [step["intent"] for step in (task["plan"] or {"steps": []})["steps"]]
        if steps and steps != self._steps:
            self._steps, self._said = steps, {}
            output.note(f"plan: {len(steps)} step{'s' if len(steps) > 1 else ''}")
        for number, outcome in enumerate(task["outcomes"], start=1):
            self._step(number, outcome)

    def _step(self, number: int, outcome: Mapping[str, Any]) -> None:
        state = outcome["state"]
        if state == "pending" or self._said.get(number) == state:
            return
        self._said[number] = state
        intent = self._steps[number - 1] if number <= len(self._steps) else ""
        why = f": {output.one_line(outcome['text'], 200)}" if state == "failed" and outcome["text"] else ""
        output.note(f"step {number} {state}: {output.one_line(intent, 200)}{why}")

    def tool(self, event: Mapping[str, Any]) -> None:
        if self._verbose or event["kind"] in FORGE_EVENTS:
            output.note(f"  {tool_line(event)}")


def tool_line(event: Mapping[str, Any]) -> str:
    """One line about a call of a tool: what it would touch, or how it ended."""
    data = event["data"]
    if event["kind"] == "PluginForged":
        words = f"new tool {data['plugin']}: {data['stage']}{'' if data['ok'] else ' refused'}: {data['what']}"
    elif event["kind"] == "PluginInstalled":
        words = f"new tool {data['plugin']} {data['version']}: proven, signed and in use"
    elif event["kind"] == "VerdictGiven":
        words = f"council on the {data['about']}: {data['decision']}: {data['because']}"
    elif event["kind"] == "ToolDecided":
        refused = "" if data["decision"] == "allow" else f" ({data['decision']}: {data['because']})"
        words = f"{data['tool']}: {', '.join(data['actions'])}{refused}"
    else:
        words = f"{data['tool']}: {'done' if data['ok'] else data.get('problem', 'failed')}"
    return output.one_line(words, 160)


def plan_lines(task: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """For each step of the plan: its state, a mark for it, and its words."""
    outcomes = task["outcomes"]
    lines = []
    for index, step in enumerate((task["plan"] or {"steps": []})["steps"]):
        state = outcomes[index]["state"] if index < len(outcomes) else "pending"
        words = output.one_line(f"{index + 1}. {step['intent']}", 200)
        lines.append((state, _MARKS.get(state, "?"), words))
    return lines
