"""The inner loop: choose, act, observe, until the step ends."""

from __future__ import annotations

from agentd.agent.context import brief
from agentd.agent.contract import is_code, outside
from agentd.agent.critic import run_checks
from agentd.agent.facts import describe
from agentd.agent.moves import Chooser, End, Stop
from agentd.agent.work import Evidence, Work
from agentd.errors import CapabilityMissing, Denied, Impossible, ToolMisused
from agentd.types import Action, Outcome, Stance, Step, StepState, ToolCall, ToolResult

MISUSES = 3
"""Calls in a row that a tool refuses before the step fails."""
EVIDENCE_KEPT = 20


def run_step(work: Work, chooser: Chooser, step: Step, advice: str = "") -> Outcome:
    """Turn after turn until the model ends the step; ends other than an answer leave as exceptions."""
    seen: list[Evidence] = []
    misused = 0
    while True:
        work.limits.turn()
        move = chooser.next(work, step, seen, advice)
        if isinstance(move, Stop) and move.end is End.ASK:
            seen.append(work.ask(move.text))
            continue
        if isinstance(move, Stop):
            return _end(move, seen)
        try:
            result = _held(work, step, move.call) or work.act(move.call)
            misused = 0
        except ToolMisused as error:
            misused += 1
            if misused >= MISUSES:
                return Outcome(state=StepState.FAILED, text=f"{misused} wrong calls in a row: {error.message}")
            result = _refused(error.message, error.hint)
        except Denied as error:
            result = _denied(work, chooser, error)
        seen.append(Evidence(call=move.call, result=result))


def _held(work: Work, step: Step, call: ToolCall) -> ToolResult | None:
    """Why a call has to wait or may not be: it leaves the boundaries, or commits what is not green or what the council
    does not accept. None for all else.

    Before the first change the checks of the contract are run, so that it can be told what the change has broken.
    """
    tool = work.tools.get(call.tool)
    if tool is None or tool.annotations.read_only:
        return None
    actions = tool.actions(tool.validate(call.args))
    changed = [_place(work, action) for action in actions if action.kind in ("fs.write", "fs.delete")]
    for path in changed:
        if fence := outside(work.verification.checks, path):
            return _refused(f"{path} lies outside the boundaries of this task", f"only {fence} may be changed")
    if any(action.kind == "git.commit" or action.argv[:2] == ("git", "commit") for action in actions):
        return _not_yet(work, step)
    work.verification.will_change(step.checks, code=any(map(is_code, changed)))
    return None


def _place(work: Work, action: Action) -> str:
    """Where it changes something: behind links, but what is deleted is a link itself."""
    folder, _, name = action.target.rpartition("/")
    if action.kind == "fs.write" or not folder or not name:
        return work.real(action.target)
    return f"{work.real(folder)}/{name}".removeprefix("./")


def _not_yet(work: Work, step: Step) -> ToolResult | None:
    """Why what was changed may not be committed as it is. What a step asks git itself may be about the commit."""
    own = run_checks(work, [check for check in step.checks if check.target.split()[:1] != ["git"]])
    red = [result for result in (*own, *work.verification.final()) if not result.passed]
    if red:
        return _refused(f"not committed, because it is not green: {describe(red)}", "mend that first")
    verdict = work.hearing()
    if verdict is None or verdict.decision is Stance.ACCEPT:
        return None
    return _refused(f"not committed, because the council does not accept it: {verdict.because}", "mend that first")


def _end(move: Stop, seen: list[Evidence]) -> Outcome:
    match move.end:
        case End.ANSWER:
            evidence = tuple(brief(turn) for turn in seen[-EVIDENCE_KEPT:])
            return Outcome(state=StepState.DONE, text=move.text, evidence=evidence)
        case End.NEED_NEW_TOOL:
            raise CapabilityMissing(move.text)
        case _:
            raise Impossible(move.text)


def _denied(work: Work, chooser: Chooser, error: Denied) -> ToolResult:
    """A refusal by policy is a result that a model may learn from, but not for ever."""
    work.refusals.append(error.message)
    if len(work.refusals) > chooser.patience:
        raise error
    return _refused(f"refused by policy: {error.message}", error.hint)


def _refused(message: str, hint: str) -> ToolResult:
    return ToolResult(ok=False, text=f"{message} ({hint})" if hint else message)
