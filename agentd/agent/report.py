"""Says how a task ended: only executed checks make it verified, and what is merely said stands apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from agentd.agent.claims import strike
from agentd.agent.context import brief, fill, shorten
from agentd.agent.facts import describe
from agentd.agent.grounding import unsupported
from agentd.agent.verification import LOOKS
from agentd.agent.work import Work
from agentd.policy.places import builds, is_test, makes_programs_run
from agentd.types import CheckKind, CheckResult, Message, ModelRequest, Outcome, Plan, Report, StepState, TaskState


def done(work: Work, outcomes: Sequence[Outcome], checks: Sequence[CheckResult]) -> Report:
    """The report of a task whose steps all ended; `checks` are those of its contract."""
    every = [*(check for outcome in outcomes for check in outcome.checks), *checks]
    failed = [outcome for outcome in outcomes if outcome.state is StepState.FAILED]
    red = [check for check in every if not check.passed]
    if failed or red:
        reason, _ = strike(failed[0].text, work, every) if failed else (describe(red), ())
        return ended(work, TaskState.FAILED, reason, answer=_answer(work, outcomes), checks=every)
    if any(map(work.verification.shows, every)):
        return ended(work, TaskState.VERIFIED, "", answer=_answer(work, outcomes), checks=every)
    if work.refusals and not work.evidence:
        return ended(work, TaskState.DENIED, work.refusals[-1], answer=_answer(work, outcomes), checks=every)
    return ended(work, TaskState.CLAIMED, "", answer=_answer(work, outcomes), checks=every)


def planned(work: Work, plan: Plan) -> Report:
    """The plan of a task that takes no turns, as its answer; nothing was done."""
    lines = [plan.note] if plan.note else []
    for number, step in enumerate(plan.steps, 1):
        checks = "".join(f"; check: {check.target}" for check in step.checks)
        lines.append(f"{number}. {step.intent}" + (f" (expected: {step.expect})" if step.expect else "") + checks)
    return ended(work, TaskState.CLAIMED, "", answer="\n".join(lines))


def ended(work: Work, state: TaskState, reason: str, *, answer: str = "", checks: Sequence[CheckResult] = ()) -> Report:
    passed = dict.fromkeys(f"{each.check}: passed" for each in checks if each.passed and each.check.kind not in LOOKS)
    answer, struck = strike(answer, work, checks)
    said = (answer,) if answer and state is TaskState.CLAIMED else ()
    return Report(
        state=state,
        answer=answer,
        reason=reason,
        verified=tuple(passed),
        claimed=said,
        changed=tuple(path for path in work.changed if path not in work.restored),
        unkept=tuple(work.unkept),
        made=tuple(name for name in work.made if any(e.call.tool == name and e.result.ok for e in work.evidence)),
        checks=tuple(checks),
        bent=_bent(work, checks),
        would_run=_would_run(work),
        struck=struck,
        restored=tuple(work.restored),
        usage=work.limits.usage,
        seconds=round(work.limits.seconds, 3),
    )


def _bent(work: Work, checks: Sequence[CheckResult]) -> tuple[str, ...]:
    """What steers the commands that passed, and is no longer what it was before the task."""
    lines = [each.check.target for each in checks if each.passed and each.check.kind is CheckKind.COMMAND]
    scripts = {PurePosixPath(words[0]).as_posix() for line in lines if (words := line.split())}
    return tuple(
        change.path
        for change in (work.changes() if lines else ())
        if (change.kind != "added" and (is_test(change.path) or builds(change.path) or change.path in scripts))
        or makes_programs_run(change.path)
    )


def _would_run(work: Work) -> tuple[str, ...]:
    """What a dry run left out: what the model asked for, then the checks."""
    if work.task.mode != "dry_run":
        return ()
    asked = [line for turn in work.evidence for line in turn.result.data.get("would_run", ())]
    planned = [check for step in (work.plan.steps if work.plan else ()) for check in step.checks]
    checks = [f"check: {check.target}" for check in (*planned, *work.task.checks)]
    return tuple(dict.fromkeys([*asked, *checks]))


def _answer(work: Work, outcomes: Sequence[Outcome]) -> str:
    """The words of the only step; of several, a model's summary if all it names stands in the results."""
    texts = [outcome.text for outcome in outcomes if outcome.text]
    if len(texts) <= 1 or work.is_compact("planner"):
        return "\n".join(texts)
    facts = "\n".join(brief(turn) for turn in work.evidence[-30:])
    question = fill(
        "final", done=f"{facts}\n\n{shorten(chr(10).join(texts), 4000)}", goal=shorten(work.task.goal, 2000)
    )
    request = ModelRequest(messages=(Message(role="user", content=question),), max_tokens=500)
    said = work.model("planner").chat(request).text.strip()
    return said if said and not unsupported(said, work) else "\n".join(texts)
