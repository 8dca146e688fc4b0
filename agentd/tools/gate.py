"""The only way to run a tool: policy decides, the audit log is told before and after, the journal keeps the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentd.errors import (
    BudgetExceeded,
    Cancelled,
    Denied,
    InDoubt,
    Interrupted,
    LeaseLost,
    NeedsApproval,
    Stopping,
    StoreError,
    ToolFailed,
    ToolMisused,
)
from agentd.policy.approvals import MAX_SHOWN as MAX_ASKED
from agentd.policy.approvals import Approvals, Asked
from agentd.policy.engine import PolicyEngine
from agentd.sandbox.confine import Walls
from agentd.security.scan import Redactor
from agentd.store.audit import Audit
from agentd.store.outputs import Outputs
from agentd.tools.books import Books
from agentd.tools.consent import Consent
from agentd.tools.judgement import Judged, Judgement, Refused
from agentd.tools.order import MAX_SHOWN, Order
from agentd.tools.own_places import OwnPlaces
from agentd.tools.preview import took_place
from agentd.tools.results import Results, checked, failed, restored, told
from agentd.tools.tool import Tool, ToolContext
from agentd.tools.trail import Trail
from agentd.types import Action, Clock, Effect, Emit, JsonObject, Ruling, Scope, ToolCall, ToolResult
from agentd.workspace.snapshots import Ledger

# These end a task or ask a person; everything else that a tool raises is its result.
_PASSING = (Interrupted, InDoubt, Stopping, LeaseLost, StoreError)

_NOT_SEEN: JsonObject = {"not_seen": True}
"""Stands for the state of the world when looking at it failed: the tool was then not run."""


class Gate:
    """Runs tools on behalf of a scope; see `types.ToolGate`.

    `call` gives the tool's result, also when the tool failed. It raises `ToolMisused` (unknown tool, wrong arguments:
    nothing was run), `Denied`, `NeedsApproval`, `Cancelled`, `BudgetExceeded` (past the deadline), and what the
    journal raises.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        policy: PolicyEngine,
        audit: Audit,
        emit: Emit,
        outputs: Outputs,
        clock: Clock,
        *,
        own: OwnPlaces | None = None,
        walls: Walls | None = None,
        ledger: Ledger | None = None,
        approvals: Approvals | None = None,
        ask_above: Callable[[], int] = lambda: 100,
        redactor: Redactor | None = None,
    ) -> None:
        """`own`: the places of the home that stay closed to tools; `walls`: what programs of a project run behind;
        `ledger`: where what they change is kept as it was before; `approvals`: where a task may ask a person, without
        which what must be asked is only refused; `ask_above`: the risk above which one is asked though rules allow."""
        self.tools = tools
        self._policy = policy
        self.audit = audit
        self._emit = emit
        self._clock = clock
        self._own = own or OwnPlaces()
        self.walls = walls or Walls()
        self._ledger = ledger
        self._approvals = approvals
        self._ask_above = ask_above
        self._redactor = redactor or Redactor()
        self._results = Results(outputs, self._redactor)

    def call(self, call: ToolCall, scope: Scope, key: str) -> ToolResult:
        """Run a tool once under `key`; a result that the journal has already comes back without a run or a decision."""
        self._refuse_late(scope)
        try:
            tool = self._tool(call.tool)
            order = Order(
                tool=tool, args=tool.validate(call.args), call=call, scope=scope, key=key, redact=self._redactor
            )
            return restored(self._journalled(order))
        except ToolMisused:
            self.audit.record("tool.misused", scope.task, {"tool": call.tool[:MAX_SHOWN], "key": key})
            raise

    def _journalled(self, order: Order) -> JsonObject:
        run = self._begun(order)
        try:
            return order.scope.journal.once(
                order.key,
                order.tool.effect,
                run.do,
                before=run.before,
                probe=run.probe if order.tool.probe else None,
                intent=run.intent,
                record=run.record,
            )
        except Refused as refused:
            error = refused.judged.refusal
            with order.scope.journal.atomic():
                run.trail.decided(refused.judged, run.consent)
                if isinstance(error, NeedsApproval) and self._approvals is not None and refused.asked is not None:
                    if order.scope.person is None:
                        error.request = self._approvals.open(refused.asked).id
                    else:
                        error.asked = self._redactor.clean(_to_be_answered(refused.asked))
            raise error from None

    def _begun(self, order: Order) -> _Run:
        books = Books(ledger=self._ledger, order=order)
        return _Run(
            order=order,
            judgement=Judgement(
                policy=self._policy, own=self._own, ask_above=self._ask_above, order=order, books=books
            ),
            consent=Consent(approvals=self._approvals, order=order, books=books),
            books=books,
            trail=Trail(audit=self.audit, emit=self._emit, walls=self.walls, order=order),
            results=self._results,
            known=self._redactor.known,
            walls=self.walls,
            clock=self._clock,
        )

    def _tool(self, name: str) -> Tool:
        found = self.tools.get(name)
        if found is None:
            raise ToolMisused(f"there is no tool {name[:MAX_SHOWN]!r}", hint=f"there are {', '.join(self.tools)}")
        return found

    def _refuse_late(self, scope: Scope) -> None:
        if scope.cancel.is_set():
            raise Cancelled("cancelled before the next tool ran")
        if scope.deadline is not None and self._clock.now() >= scope.deadline:
            raise BudgetExceeded("the time is up", hint="give the task more seconds")


def _to_be_answered(asked: Asked) -> JsonObject:
    """What a person at hand is shown; what is too long for that they cannot say yes to."""
    if len(asked.shown) > MAX_ASKED:
        raise ToolFailed("what it would do is too long to be shown here", hint="have a task do it: agentd run")
    fields = ("digest", "tool", "actions", "shown", "rule", "because", "risk")
    told = json.dumps({name: getattr(asked, name) for name in fields}, ensure_ascii=False)
    answerable: JsonObject = json.loads(told.encode("utf-8", "backslashreplace"))
    return answerable


@dataclass(slots=True, kw_only=True)
class _Run:
    """One call on its way through the journal, which says when to decide, to run and to record."""

    order: Order
    judgement: Judgement
    consent: Consent
    books: Books
    trail: Trail
    results: Results
    known: Callable[[], Collection[str]]
    walls: Walls
    clock: Clock
    judged: Judged | None = None
    failure: BaseException | None = None
    """Why the tool cannot be run, met before it was."""
    found: list[Action] = field(default_factory=list)
    """What the tool found while it looked that it has to touch, and that a person has to allow."""
    looking: bool = False
    partly: bool = False
    """A part was begun before a crash, so the whole is not to be done."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the audit log gets to know of the run itself."""
    _context: ToolContext | None = None

    # what the journal calls ------------------------------------------------------------------------------------------

    def before(self) -> JsonObject:
        """Decide; then the state of the world that a probe will need."""
        self._decide()
        if self.order.rehearsed is not None:
            return {}
        seen = self._look() if self.order.tool.before and self.failure is None else {}
        if self.found and self.judged is not None:
            self._judge_found(self.judged)
        if self.failure is not None:
            return _NOT_SEEN
        return self.consent.part.intent if self.consent.part else seen

    def intent(self) -> None:
        self.trail.decided(self._decide(), self.consent)
        self.consent.use()

    def do(self) -> JsonObject:
        self._decide()  # a pure effect has no `before`
        return self._guarded(self._run)

    def probe(self, before: JsonObject) -> JsonObject | None:
        """After a crash: the result, if the effect took place. It was decided on before it began."""
        tool = self.order.tool
        assert tool.probe is not None
        if self.order.rehearsed is not None:
            return None
        if "left_out" in before:
            self.partly, done = True, took_place(self.books.workspace, before)
            return None if done is None else self._guarded(lambda: done)
        if before == _NOT_SEEN:
            # It was not run, and run now it could not be told from done after another crash.
            self.failure = ToolFailed(f"{tool.name} was cut off before it ran", hint="call it again")
            return None
        try:
            found = tool.probe(self.context, self.order.args, before)
        except _PASSING:
            raise
        except (Exception, SystemExit) as error:
            raise InDoubt(
                f"whether {tool.name} took effect before a crash cannot be told: {told(error)}",
                hint="look whether it did, then retry the task or cancel it",
            ) from error
        self.notes["probed"] = True
        return None if found is None else self._guarded(lambda: found)

    def record(self, stored: JsonObject) -> None:
        """The outcome, in the transaction of the result."""
        self.books.finish()
        self.trail.finished(stored, self.notes)

    # decision --------------------------------------------------------------------------------------------------------

    def _decide(self) -> Judged:
        """Judge every action once; `Refused` unless all are allowed, by policy or by a person."""
        if self.judged is None:
            self.order.refuse_marks()
            self.judged = self.judgement.of(self.order.actions)
        if self.judged.ruling is Ruling.ASK and not self.consent.settled:
            self._ask(self.judged)
        elif self.judged.ruling is Ruling.DENY:
            raise Refused(self.judged)
        return self.judged

    def _ask(self, judged: Judged) -> None:
        """A person's no is the call's result."""
        if self.order.scope.mode == "dry_run":
            self.consent.settled = True  # files in a copy, and nothing else is done
            return
        if not self.consent.is_possible:
            raise Refused(judged)
        self.consent.settled = True
        if self.failure is not None:
            return
        # What a model may not read without a yes does not reach it by the words of a failure either.
        may_look = self.judgement.may_read_all(judged.actions)
        self.failure = self.consent.take(judged, self.context, self._called if may_look else None)

    def _look(self) -> JsonObject:
        assert self.order.tool.before is not None
        self.looking = True
        try:
            return self.order.tool.before(self.context, self.order.args)
        except _PASSING:
            raise
        except (Exception, SystemExit) as error:
            self.failure = error
            return _NOT_SEEN
        finally:
            self.looking = False

    def _judge_found(self, judged: Judged) -> None:
        """Judge all of it together, once the tool has looked at everything."""
        more = tuple(action for action in self.found if action not in judged.actions)
        self.judged = self.judgement.of((*judged.actions, *more), judged.actions)
        self.consent.settled = self.consent.settled and not more
        self._decide()

    def _require(self, action: Action) -> None:
        judged = self.judgement.of((action,), self._actions)
        if judged.ruling is Ruling.ASK and (self.looking or action in self.found):
            self.found.append(action)
        elif judged.ruling is not Ruling.ALLOW:
            raise judged.refusal

    def _ask_within(self, action: Action) -> None:
        judged = self.judgement.of((action,), self._actions)
        if judged.ruling is not Ruling.ASK or not self.consent.is_possible or not self._may_begin_anew:
            self._require(action)
            return
        self.consent.take_within(judged, action, self.context)
        self.notes.setdefault("allowed", []).append(judged.action)

    @property
    def _may_begin_anew(self) -> bool:
        """Whether the journal lets a run that was ended begin once more, and a person may be asked for it."""
        return self.order.tool.effect is not Effect.UNSAFE and self.order.scope.mode != "dry_run"

    @property
    def _actions(self) -> tuple[Action, ...]:
        """What was judged; nothing where only a probe looks, after a crash."""
        return self.judged.actions if self.judged is not None else ()

    # the run ---------------------------------------------------------------------------------------------------------

    @property
    def context(self) -> ToolContext:
        if self._context is None:
            scope = self.order.scope
            self._context = ToolContext(
                workspace=self.books.workspace,
                key=self.order.key,
                task=scope.task,
                cancel=scope.cancel,
                deadline=scope.deadline,
                may_read=self.judgement.may_read,
                may=self.judgement.may,
                require=self._require,
                ask=self._ask_within,
                model=scope.model,
                walls=self.walls,
                own=self.books.own,
                known=self.known,
                notes=self.notes,
            )
        return self._context

    def _run(self) -> ToolResult | str:
        if self.failure is not None:
            raise self.failure
        self.consent.expect_unchanged()
        if (rehearsed := self.order.rehearsed) is not None:
            return rehearsed
        if self.consent.part is not None:
            return self.consent.part.write(self.context)
        if self.partly:
            raise ToolFailed("a part of this was begun, and what was left out is not known any more")
        result = self.books.watch(self._actions, lambda: self._called(self.context), self.notes)
        self.consent.expect_shown()
        return result

    def _called(self, ctx: ToolContext) -> ToolResult | str:
        """In the workspace, or on copies, to see what it would do."""
        return self.order.tool.run(ctx, **self.order.values)

    def _guarded(self, run: Callable[[], ToolResult | str]) -> dict[str, Any]:
        """The result as it is stored; whatever the tool raises is a result too, or leaves a trace and goes on up."""
        started = self.clock.now()
        denied: Denied | None = None
        try:
            result = checked(self.order.tool.name, run())
        except Refused:
            raise
        except _PASSING as error:
            # Who has lost the task writes nothing about it, and a broken store takes nothing.
            if not isinstance(error, (LeaseLost, StoreError)):
                self._tell_interrupted(error)
            raise
        except Denied as error:
            denied, result = error, failed(error)
        except (Exception, SystemExit) as error:
            result = failed(error)
            self.notes["error"] = type(error).__name__
        self.notes["seconds"] = round(self.clock.now() - started, 3)
        return self.results.stored(result, self.order.scope.task, denied)

    def _tell_interrupted(self, error: Exception) -> None:
        """The journal will keep nothing of this run, so its records are written here."""
        with self.order.scope.journal.atomic():
            if self.order.tool.effect is Effect.PURE and self.judged is not None:
                self.trail.decided(self.judged, self.consent)
            self.trail.interrupted(error)
