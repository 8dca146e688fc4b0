"""The outer loop: one task from its goal to its report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from agentd.agent import report
from agentd.agent.calls import Record
from agentd.agent.commission import commission
from agentd.agent.compact import Compact
from agentd.agent.constrained import Constrained
from agentd.agent.contract import agreed
from agentd.agent.critic import judge, run_checks
from agentd.agent.executor import run_step
from agentd.agent.facts import describe
from agentd.agent.limits import Limits, Repeats
from agentd.agent.moves import Chooser
from agentd.agent.planner import make_plan
from agentd.agent.sittings import Sittings, denied
from agentd.agent.verification import Verification
from agentd.agent.work import Work
from agentd.errors import (
    AgentdError,
    BadInput,
    BudgetExceeded,
    Cancelled,
    CapabilityMissing,
    Denied,
    Impossible,
    Looping,
    ModelError,
    NeedsApproval,
    QuestionAsked,
    RolledBack,
)
from agentd.events import EventKind
from agentd.plugins.forge import Forge, Made
from agentd.policy.approvals import Approvals, State, question_asked
from agentd.security.scan import Redactor
from agentd.tools.project import held
from agentd.tools.tool import Tool
from agentd.types import (
    CheckResult,
    Clock,
    Effect,
    Journal,
    Models,
    Outcome,
    Plan,
    Report,
    Scope,
    Stance,
    Step,
    StepState,
    Task,
    TaskState,
    ToolGate,
)
from agentd.workspace.paths import Workspace
from agentd.workspace.snapshots import Ledger

_ENDS: Mapping[type[AgentdError], TaskState] = {
    BudgetExceeded: TaskState.BUDGET,
    Looping: TaskState.LOOPED,
    Denied: TaskState.DENIED,
    CapabilityMissing: TaskState.IMPOSSIBLE,
    Impossible: TaskState.IMPOSSIBLE,
    Cancelled: TaskState.CANCELLED,
    ModelError: TaskState.FAILED,
    RolledBack: TaskState.ROLLED_BACK,
    BadInput: TaskState.FAILED,
}

_CUT_SHORT = (BudgetExceeded, Looping, Denied, CapabilityMissing, Impossible, ModelError)
"""Ends of a step on which there is still a look at what it has left behind."""


@dataclass(kw_only=True)
class Runner:
    """Runs tasks, each from its journal; shared by all workers."""

    models: Models
    gate: ToolGate
    tools: Mapping[str, Tool]
    """What a model may choose from; may change at any time."""
    record: Record
    emit: Record
    clock: Clock
    repeats: Callable[[], int] = lambda: 3
    redactor: Redactor = field(default_factory=Redactor)
    forge: Forge | None = None
    """Makes the tool that a step lacks."""
    sittings: Sittings | None = None
    """Has the council hear what is risky."""
    ledger: Ledger | None = None
    """What tasks changed, and what stood there before."""
    approvals: Approvals | None = None
    """Where a task asks its owner; without them a question ends the run."""
    _compact: Compact = field(init=False)
    _constrained: Constrained = field(init=False)

    def __post_init__(self) -> None:
        self._compact = Compact()
        self._constrained = Constrained()

    def run(self, task: Task, journal: Journal, cancel: threading.Event) -> Report:
        """Plan, do each step, check, report. A wait for a person, a lost lease and a stop leave as exceptions."""
        work = self._work(task, journal, cancel)
        outcomes: list[Outcome] = []
        try:
            work.scope = held(work.scope)
            work.task = replace(task, level=work.scope.level)
            chooser: Chooser = self._compact if work.is_compact("planner") else self._constrained
            plan = self._plan(work)
            if task.budget.steps == 0:
                self._take_up(work, plan)
                return report.planned(work, plan)
            if self.sittings is not None:
                plan = self.sittings.on_plan(work, plan, lambda advice: self._plan(work, advice))
            self._take_up(work, plan)
            for number, step in enumerate(plan.steps, 1):
                outcome = self._step(work, chooser, number, step)
                outcomes.append(outcome)
                if outcome.state is StepState.FAILED or self._green_enough(work):
                    break
            red = self._heard(work, chooser, plan, outcomes)
            failed = outcomes[-1].state is StepState.FAILED
            checks = work.verification.known if failed else work.verification.final()
            return report.done(work, outcomes, (*checks, *red))
        except tuple(_ENDS) as error:
            state = next(state for kind, state in _ENDS.items() if isinstance(error, kind))
            answer = "\n".join(outcome.text for outcome in outcomes)
            return report.ended(work, state, str(error), answer=answer, checks=work.verification.known)

    def _work(self, task: Task, journal: Journal, cancel: threading.Event) -> Work:
        limits = Limits(task.budget, clock=self.clock, cancel=cancel, deadline=task.deadline)
        scope = Scope(
            task=task.id,
            workspace=task.workspace,
            level=task.level,
            journal=journal,
            origin=task.origin,
            cancel=cancel,
            deadline=limits.deadline,
            mode=task.mode,
        )
        work = Work(
            task=task,
            scope=scope,
            workspace=Workspace(Path(task.workspace)),
            tools=self.tools,
            models=self.models,
            gate=self.gate,
            limits=limits,
            repeats=Repeats(self.repeats()),
            record=self.record,
            emit=self.emit,
            redactor=self.redactor,
            owner=lambda key, question: self._answer(task.id, key, question),
            changes=lambda: self.ledger.changes(task.id) if self.ledger else (),
        )
        if self.sittings is not None:
            work.hearing = partial(self.sittings.on_change, work)
        return work

    def _answer(self, task: str, key: str, question: str) -> str:
        """What the owner of the task says to a question."""
        asked = QuestionAsked(question)
        if self.approvals is None:
            raise asked
        try:
            answer = self.approvals.demand(question_asked(task, key, question))
        except NeedsApproval as waiting:
            asked.request = waiting.request
            raise asked from None
        return f"no answer: {answer.words}" if answer.state is State.REJECTED else answer.words

    def _plan(self, work: Work, advice: str = "") -> Plan:
        """`advice`: why an earlier plan was not accepted."""
        work.limits.check()
        if work.task.tool:
            plan = Plan(steps=(Step(intent=work.task.goal),))
        else:
            plan = self._compact.plan(work) if work.is_compact("planner") else make_plan(work, advice)
        return plan

    def _take_up(self, work: Work, plan: Plan) -> None:
        """From here on this is the plan, and the contract."""
        plan = plan if work.task.tool else agreed(work, plan)
        work.plan = plan
        work.verification = Verification(
            checks=plan.checks,
            run=lambda checks: run_checks(work, checks),
            steps=tuple(dict.fromkeys(check for step in plan.steps for check in step.checks)),
        )
        if not work.tainted:
            work.owner_said += [step.intent for step in plan.steps]
        work.scope.journal.plan_made(plan)
        self.emit(EventKind.PLAN_MADE, work.task.id, {"steps": [step.intent for step in plan.steps]})

    def _step(self, work: Work, chooser: Chooser, number: int, step: Step, advice: str = "") -> Outcome:
        """`advice`: what the council wants mended of all that was done, which else is put back."""
        work.scope.journal.step_started(number)
        work.scope = replace(work.scope, step=number)
        mark = work.remember(lambda: {"mark": self.ledger.mark(work.task.id) if self.ledger and not advice else 0})[
            "mark"
        ]
        self.emit(EventKind.STEP_STARTED, work.task.id, {"step": number, "intent": step.intent})
        try:
            outcome = self._tool(work) if work.task.tool else self._judged(work, chooser, step, advice)
        except _CUT_SHORT as error:
            self._not_left_broken(work, step, mark, error)
            raise
        work.scope.journal.step_ended(number, outcome)
        facts = {"step": number, "state": outcome.state, "checks": len(outcome.checks), "text": outcome.text[:500]}
        self.emit(EventKind.STEP_JUDGED, work.task.id, facts)
        if outcome.state is StepState.FAILED and (broken := work.verification.broken()):
            raise RolledBack(f"{describe(broken)}\n{self._put_back(work, work.key(), mark)}", hint=_shows(work))
        work.verification.step_done()
        work.scope = replace(work.scope, step=0)
        return outcome

    def _not_left_broken(self, work: Work, step: Step, mark: int, why: AgentdError) -> None:
        """A step that was cut short leaves nothing red that was green before it: `RolledBack` where it would."""
        work.limits.close()
        try:
            work.verification.own = run_checks(work, step.checks)
            broken = work.verification.broken()
        except (
            BudgetExceeded,
            Cancelled,
        ):  # no time is left to look: it stays as it is, and the report says what it is
            return
        if broken:
            told = f"{why}\n{describe(broken)}\n{self._put_back(work, work.key(), mark)}"
            raise RolledBack(told, hint=_shows(work)) from why

    def _heard(self, work: Work, chooser: Chooser, plan: Plan, outcomes: list[Outcome]) -> list[CheckResult]:
        """Have the council hear what was changed; what it finds is mended once, what it does not accept is put back.

        Gives those of its checks that are red: what is asked for after the work can make it worse, never verify it.
        """
        verdict = work.hearing() if outcomes[-1].state is StepState.DONE else None
        if verdict is not None and verdict.decision is Stance.REVISE:
            outcomes[-1] = self._step(work, chooser, len(outcomes), plan.steps[len(outcomes) - 1], verdict.because)
            verdict = work.hearing() if outcomes[-1].state is StepState.DONE else None
        if verdict is None:
            return []
        if verdict.decision is not Stance.ACCEPT:
            refusal = denied("change", verdict)
            raise Denied(f"{refusal.message}\n{self._put_back(work, 'council-put-back')}", hint=_shows(work))
        return [result for result in run_checks(work, verdict.checks) if not result.passed]

    def _put_back(self, work: Work, key: str, since: int = 0) -> str:
        """Put back what the task changed after a mark, as far as nobody else has changed it since; in words."""
        if self.ledger is None:
            return "Nothing was put back."
        ledger, task = self.ledger, work.task.id
        told = work.scope.journal.once(
            key,
            Effect.IDEMPOTENT,
            lambda: ledger.restore(task, work.workspace, since=since).told,
            record=lambda restored: self.record("task.put_back", task, restored),
        )
        changed = {change.path for change in work.changes()}  # before this step, too
        work.restored.update(dict.fromkeys(path for path in told["paths"] if path not in changed))
        clashes = "; ".join(f"{path}: {reason}, see {beside}" for path, reason, beside in told["conflicts"])
        words = f"What was changed is put back: {', '.join(told['paths']) or 'nothing'}."
        return f"{words} Not put back, because others changed it too: {clashes}" if clashes else words

    def _green_enough(self, work: Work) -> bool:
        """Whether the contract says to stop here, and what was to turn green has."""
        assert work.plan is not None
        return work.plan.stop_when == "checks_pass" and work.verification.turned_green

    def _judged(self, work: Work, chooser: Chooser, step: Step, advice: str) -> Outcome:
        """Do a step and judge it; try again with what was found wrong, as often as the budget says: what the council
        wants mended once."""
        outcome = judge(work, step, self._tried(work, chooser, step, advice=advice))
        for _ in range(work.task.budget.retries if chooser.patience and not advice else 0):
            if outcome.state is StepState.DONE:
                break
            outcome = judge(work, step, self._tried(work, chooser, step, advice=outcome.text))
        return outcome

    def _tool(self, work: Work) -> Outcome:
        """The tool that the goal speaks of; it is not used."""
        made = self._made(work, CapabilityMissing(work.task.goal))
        told = "was there already and does it" if made.reused else "is made, proven, signed and in use"
        return Outcome(state=StepState.DONE, text=f"{made.name} {made.version} {told}.")

    def _made(self, work: Work, missing: CapabilityMissing) -> Made:
        if self.forge is None or work.task.mode != "real":  # a tool would be there afterwards
            raise missing
        made = self.forge.make(commission(work, missing.message))
        work.made[made.name] = None
        return made

    def _tried(self, work: Work, chooser: Chooser, step: Step, advice: str = "") -> Outcome:
        """Do a step; where a tool is missing, make it, and begin the step again."""
        try:
            return run_step(work, chooser, step, advice)
        except CapabilityMissing as missing:
            made = self._made(work, missing)
            known = f"a tool seemed to be missing, but {made.name} is there and does it" if made.reused else advice
            return run_step(work, chooser, step, known)


def _shows(work: Work) -> str:
    return f"`agentd diff {work.task.id}` shows what it had changed"
