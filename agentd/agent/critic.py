"""Judges a step: runs its checks through the gate, then asks a model, which may find fault but never vouch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from agentd.agent.context import fill, shorten
from agentd.agent.facts import FACTS, describe
from agentd.agent.work import Work
from agentd.backends.structured import ask
from agentd.errors import BadReply, Denied, ToolMisused
from agentd.types import Check, CheckKind, CheckResult, Message, Outcome, Step, StepState, ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    done: bool
    advice: str = ""


def judge(work: Work, step: Step, outcome: Outcome) -> Outcome:
    """The outcome with its checks run; failed when one is red, or when the critic finds the result not reached.

    Of the contract's checks those count that the step has broken; after the last step, all.
    """
    checks = work.verification.own = run_checks(work, step.checks)
    last = work.plan is not None and step is work.plan.steps[-1] and outcome.state is StepState.DONE
    held = work.verification.final() if last else work.verification.broken()
    red = [result for result in (*checks, *held) if not result.passed]
    outcome = replace(outcome, checks=checks)
    if red:
        return replace(outcome, state=StepState.FAILED, text=f"{outcome.text}\n{describe(red)}".strip())
    if outcome.state is not StepState.DONE or work.is_compact("critic"):
        return outcome
    critique = _ask(work, step, outcome)
    return outcome if critique.done else replace(outcome, state=StepState.FAILED, text=critique.advice)


def _ask(work: Work, step: Step, outcome: Outcome) -> Critique:
    question = fill(
        "critic",
        intent=step.intent,
        expect=step.expect or "as the step says",
        done="\n".join(outcome.evidence) or "nothing",
        answer=shorten(outcome.text, 1500),
        goal=shorten(work.task.goal, 2000),
    )
    try:
        return ask(work.model("critic"), [Message(role="user", content=question)], Critique)
    except BadReply as error:
        return Critique(done=False, advice=f"the critic gave no usable judgement: {error.message}")


def run_checks(work: Work, checks: Sequence[Check]) -> tuple[CheckResult, ...]:
    """None in a dry run, where what they would look at has not been done."""
    if work.task.mode == "dry_run":
        return ()
    return tuple(_run(work, check) for check in checks)


def _run(work: Work, check: Check) -> CheckResult:
    """A check that policy does not let run has not passed; one that a person must allow waits for them."""
    if check.kind in FACTS:
        return FACTS[check.kind](work, check)
    try:
        result = work.run(_call(check))
    except (Denied, ToolMisused) as error:
        return CheckResult(check=check, passed=False, detail=f"could not be run: {error.message}")
    return CheckResult(
        check=check,
        passed=result.ok and result.data.get("passed") is True,
        detail=shorten(result.text, 600),
        code=result.data.get("code"),
        sha256=sha256(result.text.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def _call(check: Check) -> ToolCall:
    if check.kind is CheckKind.COMMAND:
        tool = "check_command" if check.by == "user" else "check_planned_command"
        return ToolCall(tool=tool, args={"command": check.target})
    fact = check.kind.value.removeprefix("file_")
    return ToolCall(tool="check_file", args={"path": check.target, "fact": fact, "text": check.text})
