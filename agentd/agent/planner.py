"""Makes the plan of a task: strict JSON, its steps in an order that can be followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from agentd.agent.context import fill, prompt, shorten
from agentd.agent.contract import misplaced
from agentd.agent.work import Work
from agentd.backends.structured import ask
from agentd.types import Check, CheckKind, Message, Plan, Step

MOST_STEPS = 12
FILES_SHOWN = 60
KINDS = (CheckKind.FILE_EXISTS, CheckKind.FILE_ABSENT, CheckKind.FILE_CONTAINS, CheckKind.COMMAND)
"""Of checks that a plan may have."""


def make_plan(work: Work, advice: str = "") -> Plan:
    """A plan whose steps come after the steps they need, their checks marked as the plan's own. `BadReply`.

    `advice`: why an earlier plan was not accepted.
    """
    files = work.remember(lambda: {"files": list(islice(work.workspace.files(), FILES_SHOWN))})["files"]
    work.tainted = work.tainted or bool(files)  # a name can be an instruction
    question = fill(
        "plan",
        workspace=work.workspace.root.name,
        files=shorten(", ".join(files), 2000) or "none",
        tools=", ".join(work.tools),
        most=MOST_STEPS,
        goal=shorten(work.task.goal, 6000),
    )
    if advice:
        question += f"\n\nAn earlier plan was not accepted. Make one that mends this: {shorten(advice, 2000)}"
    messages = [Message(role="system", content=prompt("system").strip()), Message(role="user", content=question)]
    return in_order(ask(work.model("planner"), messages, Plan, check=_sound))


def _sound(plan: Plan) -> str:
    """What is wrong with a plan, as a model should be told; empty when nothing is."""
    if not 1 <= len(plan.steps) <= MOST_STEPS:
        return f"steps: expected 1 to {MOST_STEPS}, got {len(plan.steps)}"
    for number, step in enumerate(plan.steps, 1):
        if not step.intent.strip():
            return f"steps.{number}.intent: expected what to do, got an empty text"
        wrong = [n for n in step.after if not 1 <= n <= len(plan.steps) or n == number]
        if wrong:
            return f"steps.{number}.after: expected numbers of other steps from 1 to {len(plan.steps)}, got {wrong}"
    odd = [
        check.kind for check in (*plan.checks, *(c for s in plan.steps for c in s.checks)) if check.kind not in KINDS
    ]
    if odd:
        return f"checks: expected kinds {', '.join(KINDS)}, got {odd[0]}"
    if odd_globs := misplaced(plan.boundaries):
        return f"boundaries: expected globs such as src/**, got {odd_globs}"
    return "" if _order(plan) else "after: expected an order, got steps that wait for each other"


def in_order(plan: Plan) -> Plan:
    """The plan with each step after the steps it needs; `after` follows the new numbers."""
    order = _order(plan)
    place = {old: new for new, old in enumerate(order, 1)}
    steps = tuple(_renumbered(plan.steps[old - 1], place) for old in order)
    return replace(plan, steps=steps, checks=_own(plan.checks))


def _renumbered(step: Step, place: dict[int, int]) -> Step:
    after = tuple(sorted(place[number] for number in step.after))
    return Step(intent=step.intent.strip(), expect=step.expect.strip(), after=after, checks=_own(step.checks))


def _own(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The plan's, whatever a model wrote about who asked for them."""
    return tuple(replace(check, by="plan") for check in checks)


def _order(plan: Plan) -> list[int]:
    """Step numbers, each after those it needs and otherwise as written; empty when there is no such order."""
    order: list[int] = []
    left = list(range(1, len(plan.steps) + 1))
    while left:
        ready = next((n for n in left if set(plan.steps[n - 1].after) <= set(order)), None)
        if ready is None:
            return []
        order.append(ready)
        left.remove(ready)
    return order
