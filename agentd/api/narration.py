"""What a task has to say to somebody who reads along: its events in short lines, and its end in words."""

from __future__ import annotations

from agentd.api.conversation import mark
from agentd.events import Event, EventKind
from agentd.policy.approvals import Approval, Kind
from agentd.types import JsonObject, Report, Task, TaskState

MAX_LINE = 200
"""Characters."""


def lines(event: Event) -> list[str]:
    """What an event says; nothing for one that is of no interest to a person."""
    data = event.data
    match event.kind:
        case EventKind.TASK_QUEUED:
            return [f"put back into the queue: {_one(data['reason'])}"] if "reason" in data else []
        case EventKind.TASK_STARTED:
            return ["started" if data["attempt"] == 1 else f"goes on, attempt {data['attempt']}"]
        case EventKind.PLAN_MADE:
            steps = data["steps"]
            count = f"{len(steps)} step{'' if len(steps) == 1 else 's'}"
            return [f"plan: {count}", *(f"  {number}. {_one(step)}" for number, step in enumerate(steps, 1))]
        case EventKind.STEP_STARTED:
            return [f"step {data['step']}: {_one(data['intent'])}"]
        case EventKind.TOOL_DECIDED | EventKind.TOOL_FINISHED:
            return [f"  {_tool(event.kind, data)}"]
        case EventKind.STEP_JUDGED:
            return [_judged(data)]
        case EventKind.TASK_FINISHED:
            return [f"ended: {data['state']}"]
        case EventKind.TASK_WAITING:
            return ["waits for an answer"]
    return []


def _tool(kind: str, data: JsonObject) -> str:
    """What a call would touch, with the rule and the reason of a refusal; or how it ended."""
    if kind == EventKind.TOOL_FINISHED:
        ended = "done" if data["ok"] else f"failed: {data.get('problem', 'no reason given')}"
        changed = f"; changed {', '.join(data['changed'])}" if data["changed"] else ""
        return _one(f"{data['tool']} {ended}{changed}")
    refused = f" ({data['decision']}, rule {data['rule']}: {data['because']})" if data["decision"] != "allow" else ""
    return _one(f"{data['tool']}: {', '.join(data['actions'])}{refused}")


def _judged(data: JsonObject) -> str:
    checks = f", {data['checks']} check{'' if data['checks'] == 1 else 's'} ran" if data["checks"] else ""
    why = f": {_one(data['text'])}" if data["state"] == "failed" and data["text"] else ""
    return f"step {data['step']} {data['state']}{checks}{why}"


def reply(task: Task, request: Approval | None = None) -> str:
    """How a task stands that has ended or waits (for an answer to `request`): the answer, what was verified and what is
    only claimed apart."""
    if task.state is TaskState.WAITING and request is not None and request.kind is not Kind.QUESTION:
        # A yes has to come from the owner of the home, and a client is only who has a key.
        way = f"`agentd inbox` shows it, `agentd approve {task.id}` lets it go on."
        said = [task.question, f"The task waits for a yes or no of its owner: {way} The next message begins anew."]
    elif task.state is TaskState.WAITING:
        said = [task.question, "The task waits. The next message is taken as the answer."]
    else:
        said = _ended(task, task.report or Report(state=task.state, answer=""))
    return "\n\n".join([*filter(None, said), mark(task)])


def _ended(task: Task, report: Report) -> list[str]:
    changed = f"Changed: {', '.join(report.changed)}" if report.changed else ""
    if task.state is TaskState.CLAIMED and task.budget.steps == 0:
        return [report.answer, "This is a plan: nothing was done, and nothing is verified."]
    if task.state.good:
        return [report.answer, _worth(task.state, report), changed]
    checks = [f"{result.check}: {_one(result.detail)}" for result in report.checks if not result.passed]
    verified = f"Verified all the same: {'; '.join(report.verified)}" if report.verified else "Nothing is verified."
    failed = f"Did not pass: {'; '.join(checks)}" if checks else ""
    # An answer in a task that went wrong is no answer to the user.
    until = f"Until then it had said: {report.answer}" if report.answer and report.answer != report.reason else ""
    return [f"{task.state}: {report.reason or 'no reason is known'}", verified, failed, until, changed]


def _worth(state: TaskState, report: Report) -> str:
    passed = "; ".join(report.verified)
    if state is TaskState.VERIFIED:
        but = f" (but it changed {', '.join(report.bent)} itself)" if report.bent else ""
        return f"Verified by checks that ran: {passed}{but}"
    if passed:
        return f"Claimed, not verified: nothing checked that the goal is reached; {passed}."
    return "Claimed, not verified: no check ran."


def _one(text: str) -> str:
    """The text in one line of characters that a terminal only shows."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"
