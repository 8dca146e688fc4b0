"""When the council sits on a task, and what follows from what it says; where none can be held a person decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from agentd.agent.context import shorten
from agentd.agent.council import FILES_SHOWN, LONGEST_SUBJECT, SEAT, Matter, Minutes, convene, no_council, plan_words
from agentd.agent.work import Work
from agentd.errors import Denied, NeedsApproval
from agentd.policy.approvals import Approvals, State, plan_asked
from agentd.policy.risk import risk_of_changes, risk_of_plan
from agentd.security.scan import redact
from agentd.types import Check, Effect, FileChange, Plan, Risk, Stance, Verdict
from agentd.workspace.snapshots import Ledger

PATHS_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sittings:
    """Above this risk, or when the task asks for it, nothing is begun and nothing counts that was not accepted."""

    above: Callable[[], int]
    ledger: Ledger | None = None
    """What tasks changed; without it only plans are heard."""
    approvals: Approvals | None = None

    def on_plan(self, work: Work, plan: Plan, again: Callable[[str], Plan]) -> Plan:
        """The plan that may be followed, with the council's checks. One that is to be revised is made `again` once,
        with the reasons; `Denied` when that is not accepted either."""
        if work.task.tool or not self._due(work, "council-plan", risk_of_plan(work.task.goal, plan)):
            return plan
        if work.task.plan is None:
            work.scope.journal.plan_made(plan)  # to be seen while the council sits
        verdict = self._heard(work, "council-plan-1", plan)
        if verdict is not None and verdict.decision is Stance.REVISE:
            plan = again(verdict.because)
            verdict = self._heard(work, "council-plan-2", plan)
        if verdict is None:
            return plan
        if verdict.decision is not Stance.ACCEPT:
            raise denied("plan", verdict)
        work.verdict = verdict
        return replace(plan, checks=tuple(dict.fromkeys((*plan.checks, *verdict.checks))))

    def on_change(self, work: Work) -> Verdict | None:
        """What the council says to all that the task has changed; None where it need not be asked."""
        if self.ledger is None or work.task.tool or work.task.mode != "real":  # a person looks at what is only shown
            return None
        key = f"council-change-{next(work.sittings)}"
        changes = self.ledger.changes(work.task.id)
        found = work.scope.journal.once(f"{key}-risk", Effect.PURE, lambda: _risk(changes, work.redactor.known()))
        risk = Risk(score=found["score"], reasons=tuple(found["reasons"]))
        if not found["files"] or not self._due(work, key, risk):
            return None
        if found["digest"] not in work.heard:
            checks = work.plan.checks if work.plan else ()
            work.heard[found["digest"]] = self._sit(
                work, key, "change", change_words(changes, work.redactor), risk, checks
            )
        return work.heard[found["digest"]]

    def _due(self, work: Work, key: str, risk: Risk) -> bool:
        """Also after the setting was changed and the daemon has crashed: as it was decided first."""
        kept = work.scope.journal.once(
            f"{key}-due", Effect.PURE, lambda: {"due": work.task.council or risk.score > self.above()}
        )
        return bool(kept["due"])

    def _heard(self, work: Work, key: str, plan: Plan) -> Verdict | None:
        checks = [*plan.checks, *(check for step in plan.steps for check in step.checks)]
        return self._sit(work, key, "plan", plan_words(plan), risk_of_plan(work.task.goal, plan), checks)

    def _sit(
        self,
        work: Work,
        key: str,
        about: Literal["plan", "change"],
        subject: str,
        risk: Risk,
        checks: Sequence[Check],
    ) -> Verdict | None:
        """The verdict; None when no council can be held and a person has said yes."""
        if work.is_compact(SEAT):
            self._ask_person(work, key, subject, risk)
            return None
        matter = Matter(
            about=about,
            goal=work.task.goal,
            subject=subject,
            workspace=work.workspace.root.name,
            files=list(islice(work.workspace.files(), FILES_SHOWN)),
            tools=list(work.tools),
            level=work.task.level,
            checks=tuple(dict.fromkeys((*work.task.checks, *checks))),
            risk=risk,
        )
        minutes = Minutes(task=work.task.id, key=key, journal=work.scope.journal, record=work.record, emit=work.emit)
        return convene(matter, minutes, lambda keys: work.model(SEAT, keys), work.scope.cancel)

    def _ask_person(self, work: Work, key: str, subject: str, risk: Risk) -> None:
        none = no_council(f"the model of the role {SEAT} is too small to sit on one")
        if self.approvals is None:
            raise NeedsApproval(none.message, hint=none.hint)
        because = f"{none.message}; risk {risk.score} of 100: {'; '.join(risk.reasons) or 'nothing stands out'}"
        answer = self.approvals.demand(plan_asked(work.task.id, subject, because=because, risk=risk.score, key=key))
        if answer.state is State.REJECTED:
            raise Denied(f"rejected by {answer.answerer}: {answer.words}")


def denied(what: str, verdict: Verdict) -> Denied:
    return Denied(
        f"the council does not accept the {what}: {verdict.because}",
        hint="say more exactly what is wanted, or have it done in smaller parts",
    )


def change_words(changes: Sequence[FileChange], redact: Callable[[str], str] = redact) -> str:
    """Every file with how much of it was changed, then the differences as far as there is room."""
    lines = [f"{each.kind} {each.path}, {each.added} lines added, {each.removed} removed" for each in changes]
    more = [f"and {len(lines) - PATHS_SHOWN} more files"] if len(lines) > PATHS_SHOWN else []
    listed = "\n".join([*lines[:PATHS_SHOWN], *more])
    diffs = redact("".join(each.diff for each in changes))
    room = LONGEST_SUBJECT - min(len(listed), LONGEST_SUBJECT // 2) - 200
    if len(diffs) > room:
        listed += f"\nThe differences have {len(diffs):,} characters and are not shown whole: a part is left out at …"
    return shorten(f"{listed}\n\n{shorten(diffs, room)}".strip(), LONGEST_SUBJECT)


def _risk(changes: Sequence[FileChange], known: Collection[str]) -> dict[str, Any]:
    risk = risk_of_changes(changes, known)
    text = "\0".join(f"{each.kind} {each.path} {each.diff}" for each in changes)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return {"score": risk.score, "reasons": list(risk.reasons), "digest": digest, "files": len(changes)}
