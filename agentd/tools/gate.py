"""The only way to run a tool: policy decides, the audit log is told before and after, the journal keeps the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agentd.errors import (
    AgentdError,
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
from agentd.events import EventKind
from agentd.policy.approvals import Approval, Approvals, Asked, State
from agentd.policy.engine import OUTSIDE, RISKY, PolicyEngine
from agentd.policy.risk import risk_of_actions
from agentd.policy.taint import Call
from agentd.policy.taint import asked as asked_of
from agentd.sandbox.confine import Walls
from agentd.security.scan import MARK, Redactor
from agentd.store.audit import Audit
from agentd.store.outputs import Outputs
from agentd.tools.own_places import OwnPlaces
from agentd.tools.preview import Part, Preview, asked, preview, took_place
from agentd.tools.tool import Tool, ToolContext
from agentd.types import (
    AccessLevel,
    Action,
    Clock,
    Decision,
    Effect,
    Emit,
    Grounding,
    JsonObject,
    Risk,
    Ruling,
    Scope,
    ToolCall,
    ToolResult,
)
from agentd.workspace.own import Own
from agentd.workspace.paths import Workspace
from agentd.workspace.snapshots import Ledger, OriginOfChange, Watched

MAX_TEXT = 8_000
"""Characters of a result that a model sees."""
MAX_TAIL = 2_000
"""Of these, the end of a longer one."""
MAX_DATA = 200_000
"""Characters of a result's data, and of the paths it changed, as JSON."""
MAX_SHOWN = 200
"""Characters of an argument or action in the audit log."""
MAX_NAMED = 200
"""Files that a result or the audit log names."""

_STRICTNESS = {Ruling.ALLOW: 0, Ruling.ASK: 1, Ruling.DENY: 2}
_NAMES = {Grounding.FILE, Grounding.FOLDER, Grounding.PATH, Grounding.NEW_PATH, Grounding.COMMAND}
"""What arguments may be shown: names of things, never content."""
_PROGRAMS = ("shell.exec", "test.run", "check.exec")

# These end a task or ask a person; everything else that a tool raises is its result.
_PASSING = (Interrupted, InDoubt, Stopping, LeaseLost, StoreError)


_NOT_SEEN: JsonObject = {"not_seen": True}
"""Stands for the state of the world when looking at it failed: the tool was then not run."""


class _Refused(Exception):
    """Carries a ruling that is no `allow` out of the journal, which then keeps nothing."""

    def __init__(self, verdict: _Verdict, asked: Asked | None = None) -> None:
        super().__init__(verdict.decision.because)
        self.verdict = verdict
        self.asked = asked
        """What a person can answer, so that the call may run after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """The strictest decision on the actions of a call, and the action that it is about."""

    actions: tuple[Action, ...]
    action: Action | None
    decision: Decision


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
        self.policy = policy
        self.audit = audit
        self.emit = emit
        self.outputs = outputs
        self.clock = clock
        self.own = own or OwnPlaces()
        self.walls = walls or Walls()
        self.ledger = ledger
        self.approvals = approvals
        self.ask_above = ask_above
        self.redactor = redactor or Redactor()

    def call(self, call: ToolCall, scope: Scope, key: str) -> ToolResult:
        """Run a tool once under `key`; a result that the journal has already comes back without a run or a decision."""
        self._refuse_late(scope)
        try:
            return _result(self._journalled(call, scope, key))
        except ToolMisused:
            self.audit.record("tool.misused", scope.task, {"tool": call.tool[:MAX_SHOWN], "key": key})
            raise

    def _journalled(self, call: ToolCall, scope: Scope, key: str) -> JsonObject:
        tool = self._tool(call.tool)
        run = _Run(gate=self, tool=tool, args=tool.validate(call.args), call=call, scope=scope, key=key)
        try:
            return scope.journal.once(
                key,
                tool.effect,
                run.do,
                before=run.before,
                probe=run.probe if tool.probe else None,
                intent=run.intent,
                record=run.record,
            )
        except _Refused as refusal:
            error = _refusal(refusal.verdict)
            with scope.journal.atomic():
                run.tell_decided(refusal.verdict)
                if isinstance(error, NeedsApproval) and self.approvals is not None and refusal.asked is not None:
                    error.request = self.approvals.open(refusal.asked).id
            raise error from None

    def _tool(self, name: str) -> Tool:
        found = self.tools.get(name)
        if found is None:
            raise ToolMisused(f"there is no tool {name[:MAX_SHOWN]!r}", hint=f"there are {', '.join(self.tools)}")
        return found

    def _refuse_late(self, scope: Scope) -> None:
        if scope.cancel.is_set():
            raise Cancelled("cancelled before the next tool ran")
        if scope.deadline is not None and self.clock.now() >= scope.deadline:
            raise BudgetExceeded("the time is up", hint="give the task more seconds")


@dataclass(slots=True, kw_only=True)
class _Run:
    """One call on its way through the journal, which says when to decide, to run and to record."""

    gate: Gate
    tool: Tool
    args: BaseModel
    call: ToolCall
    scope: Scope
    key: str
    verdict: _Verdict | None = None
    failure: BaseException | None = None
    """Why the tool cannot be run, met while looking at the world before it."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the audit log gets to know of the run itself."""
    found: list[Action] = field(default_factory=list)
    """What the tool found while it looked that it has to touch, and that a person has to allow."""
    looking: bool = False
    cleared: bool = False
    """A person has answered, so nothing more is to be decided: it runs, or `failure` says why it does not."""
    approval: Approval | None = None
    view: Preview | None = None
    """What the person was shown."""
    part: Part | None = None
    """What is done in place of the tool's run, where a person has left something out."""
    partly: bool = False
    """A part was begun before a crash, so the whole is not to be done."""
    _context: ToolContext | None = None

    # what the journal calls ------------------------------------------------------------------------------------------

    def before(self) -> JsonObject:
        """Decide; then the state of the world that a probe will need."""
        self._decide()
        if self._is_left_out:
            return {}
        seen = self._look() if self.tool.before and self.failure is None else {}
        if self.found and self.verdict is not None:
            more = tuple(action for action in self.found if action not in self.verdict.actions)
            self.verdict, self.cleared = self._judge((*self.verdict.actions, *more)), not more and self.cleared
            self._decide()
        if self.failure is not None:
            return _NOT_SEEN
        return self.part.intent if self.part else seen

    def _look(self) -> JsonObject:
        assert self.tool.before is not None
        self.looking = True
        try:
            return self.tool.before(self.context, self.args)
        except _PASSING:
            raise
        except (Exception, SystemExit) as error:
            self.failure = error
            return _NOT_SEEN
        finally:
            self.looking = False

    def intent(self) -> None:
        self._decide()
        assert self.verdict is not None
        self.tell_decided(self.verdict)
        if self.approval is not None and self.approval.state is State.APPROVED and self.gate.approvals is not None:
            self.gate.approvals.use(self.approval)

    def do(self) -> JsonObject:
        self._decide()  # a pure effect has no `before`
        return self._guarded(self._run)

    def probe(self, before: JsonObject) -> JsonObject | None:
        """After a crash: the result, if the effect took place. It was decided on before it began."""
        assert self.tool.probe is not None
        if self._is_left_out:
            return None
        if "left_out" in before:
            self.partly, done = True, took_place(self.context.workspace, before)
            return None if done is None else self._guarded(lambda: done)
        if before == _NOT_SEEN:
            # It was not run, and run now it could not be told from done after another crash.
            self.failure = ToolFailed(f"{self.tool.name} was cut off before it ran", hint="call it again")
            return None
        try:
            found = self.tool.probe(self.context, self.args, before)
        except _PASSING:
            raise
        except (Exception, SystemExit) as error:
            raise InDoubt(
                f"whether {self.tool.name} took effect before a crash cannot be told: {_told(error)}",
                hint="look whether it did, then retry the task or cancel it",
            ) from error
        self.notes["probed"] = True
        return None if found is None else self._guarded(lambda: found)

    def record(self, stored: JsonObject) -> None:
        """The outcome, in the transaction of the result."""
        text = str(stored["text"])
        told = {
            "tool": self.tool.name,
            "key": self.key,
            "ok": stored["ok"],
            "changed": stored["changed"],
            "seconds": self.notes.get("seconds", 0.0),
        }
        digest = {"sha256": _sha256(text), "characters": len(text)}
        if self.gate.ledger is not None:
            self.gate.ledger.finish(self.owner, self.key)
        self.gate.audit.record("tool.finished", self.scope.task, told | digest | self.notes)
        shown = {} if stored["ok"] else {"problem": text.split("\n", 1)[0][:MAX_SHOWN]}
        self.gate.emit(EventKind.TOOL_FINISHED, self.scope.task, told | shown)

    # decision --------------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Judge every action once; `_Refused` unless all are allowed, by policy or by a person."""
        if self.verdict is None:
            self._refuse_marks()
            self.verdict = self._judge(self._actions())
        if self.verdict.decision.ruling is Ruling.ASK and not self.cleared:
            self._ask(self.verdict)
        elif self.verdict.decision.ruling is Ruling.DENY:
            raise _Refused(self.verdict)

    def _ask(self, verdict: _Verdict) -> None:
        """Take a person's answer to exactly this call: `_Refused` until there is one. A no is the call's result."""
        approvals, scope = self.gate.approvals, self.scope
        if scope.mode == "dry_run":
            self.cleared = True  # files in a copy, and nothing else is done
            return
        if approvals is None or not scope.task:
            raise _Refused(verdict)  # nobody could take it up again
        self.cleared = True
        if self.failure is not None:
            return
        # What a model may not read without a yes does not reach it by the words of a failure either.
        may_look = not any(
            action.kind == "fs.read" and decision.ruling is not Ruling.ALLOW
            for action in verdict.actions
            for decision in self._decisions(action)
        )
        view = preview(self.tool, self.args, self.context, verdict.actions, self._try_out if may_look else None)
        if view.failure is not None:
            self.failure = view.failure
            return
        request = asked(view, self.tool, self.args, verdict.actions, verdict.decision, task=scope.task, key=self.key)
        answer = approvals.standing(request)
        if answer is None:
            raise _Refused(verdict, request)
        self.approval, self.view = answer, view
        if answer.state is State.REJECTED:
            why = f": {answer.words}" if answer.words else ""
            self.failure = ToolFailed(f"a person refused this{why}", hint="find another way, or end the step")
        elif answer.chosen is not None:
            self.part = view.part(answer.chosen)

    def _refuse_marks(self) -> None:
        """A model that writes back what it was shown would put the mark where the secret stands."""
        if any(MARK.search(text) for text in _texts(dict(self.call.args))):
            raise ToolMisused(
                f"{self.tool.name}: the arguments hold the mark of a secret that was left out",
                hint="change the lines around it with edit_file, and leave that line as it is",
            )

    def _judge(self, actions: tuple[Action, ...]) -> _Verdict:
        decided = [(action, decision) for action in actions for decision in self._decisions(action)]
        if not decided:
            nothing = Decision(ruling=Ruling.DENY, rule="default", because="It names no action to judge.", risk=90)
            return _Verdict(actions=(), action=None, decision=nothing)
        action, decision = max(decided, key=lambda pair: _STRICTNESS[pair[1].ruling])
        risk = risk_of_actions(decided)
        if decision.ruling is Ruling.ALLOW and self.scope.tainted:
            action, decision = self._untrusted(actions) or (action, decision)
        if decision.ruling is Ruling.ALLOW and risk.score > (limit := self.gate.ask_above()):
            decision = Decision(ruling=Ruling.ASK, rule=RISKY, because=_too_risky(risk, limit))
        return _Verdict(actions=actions, action=action, decision=replace(decision, risk=risk.score))

    def _untrusted(self, actions: tuple[Action, ...]) -> tuple[Action, Decision] | None:
        """What a person has to allow because a stranger may have asked for it."""
        root = f"{Path(self.scope.workspace).as_posix()}/"
        own = tuple(replace(action, target=action.target.removeprefix(root)) for action in actions)
        call = Call(
            tool=self.tool.name,
            actions=own,
            texts=tuple(_texts(dict(self.call.args))),
            quiet=all(self._quiet(action) for action in actions if action.kind in _PROGRAMS),
            reaches=self.tool.annotations.open_world,
            beside=self.verdict.actions if self.verdict is not None else (),
        )
        return asked_of(call, self.scope.owner)

    def _quiet(self, action: Action) -> bool:
        """Whether it only runs tests or linters, or looks at the repository."""
        level = min(self.scope.level, AccessLevel.RUN_TESTS)
        return self.gate.policy.decide(action, level=level, origin=self.scope.origin).ruling is Ruling.ALLOW

    def _actions(self) -> tuple[Action, ...]:
        try:
            return tuple(self.tool.actions(self.args))
        except ToolMisused:
            raise
        except Exception as error:
            raise ToolMisused(f"{self.tool.name} cannot say what it would touch: {_told(error)}") from error

    def _decisions(self, action: Action) -> Iterator[Decision]:
        """Of the action as given, and, for a path, as it is after links and spelling."""
        if not action.kind.startswith("fs."):
            yield self._rule_on(action)
            return
        try:
            real = self.context.workspace.real_name(action.target)
        except Denied as error:
            given = self._rule_on(action)
            yield given if given.ruling is Ruling.DENY else replace(OUTSIDE, because=error.message)
            return
        # An absolute path is taken when it lies inside; what is judged is where.
        if real != action.target and not Path(action.target).is_absolute():
            yield self._rule_on(action)
        yield self._rule_on(replace(action, target=real))

    def _rule_on(self, action: Action) -> Decision:
        own = self.gate.own.refusal(action, Path(self.scope.workspace))
        return own or self.gate.policy.decide(action, level=self.scope.level, origin=self.scope.origin)

    def tell_decided(self, verdict: _Verdict) -> None:
        """The decision, for the audit log and for listeners."""
        decision = verdict.decision
        told = {
            "tool": self.tool.name,
            "key": self.key,
            "args": _shown(self.args),
            "actions": [str(action)[:MAX_SHOWN] for action in verdict.actions],
            "decision": decision.ruling.value,
            "rule": decision.rule,
            "because": decision.because,
            "risk": decision.risk,
            "level": int(self.scope.level),
        }
        digest = _sha256(json.dumps(dict(self.call.args), sort_keys=True, default=str))
        extra = {"args_sha256": digest, "origin": self.scope.origin.value, "effect": self.tool.effect.value}
        if self.approval is not None:
            extra |= {"request": str(self.approval.id), "answer": self.approval.state, "by": self.approval.answerer}
        runs = decision.ruling is Ruling.ALLOW or self.cleared
        if runs and any(map(_starts_a_program, verdict.actions)):
            extra["confined"] = self.gate.walls.told
        told = self.gate.redactor.clean(told)
        self.gate.audit.record("tool.decided", self.scope.task, told | extra)
        self.gate.emit(EventKind.TOOL_DECIDED, self.scope.task, told)

    # the run ---------------------------------------------------------------------------------------------------------

    @property
    def context(self) -> ToolContext:
        if self._context is None:
            self._context = ToolContext(
                workspace=self._workspace(),
                key=self.key,
                task=self.scope.task,
                cancel=self.scope.cancel,
                deadline=self.scope.deadline,
                may_read=self._may_read,
                require=self._require,
                model=self.scope.model,
                walls=self.gate.walls,
                own=self._own if self.gate.ledger is not None and self.scope.task else None,
                notes=self.notes,
            )
        return self._context

    def _own(self) -> Own:
        assert self.gate.ledger is not None
        return self.gate.ledger.own(self.owner, self._plain())

    @property
    def owner(self) -> str:
        """Whose changes they are in the ledger: the task's, or those of a call that belongs to none."""
        return self.scope.task or self.key

    def _plain(self) -> Workspace:
        return Workspace(Path(self.scope.workspace))

    def _workspace(self) -> Workspace:
        plain = self._plain()
        if self.gate.ledger is None:
            return plain
        return Workspace(plain.root, self.gate.ledger.keeper(self.owner, self.key, plain.root))

    def _run(self) -> ToolResult | str:
        if self.failure is not None:
            raise self.failure
        if self.view is not None and not self.view.stands(self.context.workspace):
            raise ToolFailed("what was approved has changed in this moment", hint="look at it again")
        if self._is_left_out:
            return self._rehearsed()
        if self.part is not None:
            return self.part.write(self.context)
        if self.partly:
            raise ToolFailed("a part of this was begun, and what was left out is not known any more")
        result = self._watched()
        if self.view is not None and not self.view.came_true(self.context.workspace):
            raise ToolFailed(
                "it did something else than a person was shown and approved", hint="look at what it changed"
            )
        return result

    def _watched(self) -> ToolResult | str:
        programs = [action for action in self._allowed() if _starts_a_program(action)]
        if self.gate.ledger is None or not programs:
            return self._called()
        # Only a look before and after can tell what a program of the project changes in files.
        origin: OriginOfChange = "test" if any(map(_tests, programs)) else "command"
        watched = Watched()
        try:
            with self.gate.ledger.watching(self.owner, self.key, self._plain(), origin, watched):
                result = self._called()
        finally:
            self.notes |= watched.told
        return _with_changes(result, watched)

    def _called(self) -> ToolResult | str:
        return self.tool.run(self.context, **_values(self.args))

    @property
    def _is_left_out(self) -> bool:
        """In a dry run only what reads and what changes files is done, in a copy."""
        if self.scope.mode != "dry_run" or self.tool.effect is Effect.PURE:
            return False
        return self.tool.probe is None or not all(action.kind.startswith("fs.") for action in self._actions())

    def _rehearsed(self) -> ToolResult:
        what = [str(action)[:MAX_SHOWN] for action in self._actions()]
        left_out = f"{self.tool.name} was not run. It would do: {', '.join(what)}."
        said = f"This is a dry run: {left_out} Go on as if it had worked."
        return ToolResult(ok=True, text=said, data={"would_run": what})

    def _try_out(self, ctx: ToolContext) -> ToolResult | str:
        """On copies, to see what it would do."""
        return self.tool.run(ctx, **_values(self.args))

    def _allowed(self) -> tuple[Action, ...]:
        return self.verdict.actions if self.verdict is not None else ()

    def _require(self, action: Action) -> None:
        verdict = self._judge((action,))
        if verdict.decision.ruling is Ruling.ASK and (self.looking or action in self.found):
            self.found.append(action)  # asked for together, once the tool has looked at everything
        elif verdict.decision.ruling is not Ruling.ALLOW:
            raise _refusal(verdict)

    def _may_read(self, path: str) -> bool:
        return self._rule_on(Action(kind="fs.read", target=path)).ruling is Ruling.ALLOW

    def _guarded(self, run: Callable[[], ToolResult | str]) -> dict[str, Any]:
        """The result as it is stored; whatever the tool raises is a result too, or leaves a trace and goes on up."""
        started = self.gate.clock.now()
        denied: Denied | None = None
        try:
            result = self._checked(run())
        except _PASSING as error:
            # Who has lost the task writes nothing about it, and a broken store takes nothing.
            if not isinstance(error, (LeaseLost, StoreError)):
                self._tell_interrupted(error)
            raise
        except Denied as error:
            denied = error
            result = _failure(error)
        except (Exception, SystemExit) as error:
            result = _failure(error)
            self.notes["error"] = type(error).__name__
        self.notes["seconds"] = round(self.gate.clock.now() - started, 3)
        stored = _stored(self._cut(result))
        return stored | {"denied": {"message": denied.message, "hint": denied.hint}} if denied else stored

    def _tell_interrupted(self, error: Exception) -> None:
        """The journal will keep nothing of this run, so its records are written here."""
        told = {"tool": self.tool.name, "key": self.key, "ok": False, "error": type(error).__name__}
        with self.scope.journal.atomic():
            if self.tool.effect is Effect.PURE and self.verdict is not None:
                self.tell_decided(self.verdict)
            self.gate.audit.record("tool.finished", self.scope.task, told)

    def _checked(self, result: object) -> ToolResult:
        """What came back, if it has the right form; `ToolFailed` otherwise."""
        if isinstance(result, str):
            result = ToolResult(ok=True, text=result)
        if not isinstance(result, ToolResult) or not isinstance(result.text, str):
            raise ToolFailed(f"{self.tool.name} gave a {type(result).__name__} and no result")
        try:
            size = len(json.dumps([dict(result.data), list(result.changed)], allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ToolFailed(f"{self.tool.name} gave data that is not JSON: {error}") from None
        if size > MAX_DATA:
            result = replace(result, data={"left_out": f"{size} characters"}, changed=result.changed[:1000])
        return result

    def _cut(self, result: ToolResult) -> ToolResult:
        """What is kept and shown: no secrets, and no more than a model can read."""
        redactor = self.gate.redactor
        text = redactor(result.text)
        result = replace(result, data=redactor.clean(result.data))
        if not text.isascii():
            # A lone surrogate (a byte of a file name that is no UTF-8) cannot be stored as it is.
            text = text.encode("utf-8", "backslashreplace").decode()
        if len(text) <= MAX_TEXT:
            return replace(result, text=text)
        handle = self.gate.outputs.put(self.scope.task, text)
        return replace(result, text=_head_and_tail(text, handle), handle=handle)


def _too_risky(risk: Risk, limit: int) -> str:
    return f"Its risk is {risk.score}, and a person is asked above {limit} ({'; '.join(risk.reasons)})."


def _starts_a_program(action: Action) -> bool:
    """One of the project's; git is ours, and works in a folder of ours."""
    return action.kind in _PROGRAMS and action.argv[:1] != ("git",)


def _tests(action: Action) -> bool:
    """It runs tests or a check, which may take long and is not meant to change files: others may have done that."""
    words = (
        action.argv[2:]
        if action.argv[:1] in (("python",), ("python3",)) and action.argv[1:2] == ("-m",)
        else action.argv
    )
    return action.kind != "shell.exec" or words[:1] == ("pytest",) or words[:2] == ("npm", "test")


def _with_changes(result: ToolResult | str, watched: Watched) -> ToolResult | str:
    """The result with the files that were seen to change."""
    if not isinstance(result, ToolResult) or not watched.changed:
        return result
    data = {**result.data, "unkept": watched.unkept[:MAX_NAMED]} if watched.unkept else result.data
    paths = dict.fromkeys([*result.changed, *watched.changed[:MAX_NAMED]])
    return replace(result, changed=tuple(paths), data=data)


def _head_and_tail(text: str, handle: str) -> str:
    """Whole lines from both ends where lines are short enough, and how to read what is between them."""
    head, tail = text[: MAX_TEXT - MAX_TAIL - 200], text[-MAX_TAIL:]
    if "\n" in head[len(head) // 2 :]:
        head = head[: head.rindex("\n")]
    if "\n" in tail[: len(tail) // 2]:
        tail = tail[tail.index("\n") + 1 :]
    first = head.count("\n") + 2
    left = text.count("\n", len(head), len(text) - len(tail))
    what = f"{left - 1} lines" if left > 1 else f"{len(text) - len(head) - len(tail)} characters"
    return f'{head}\n… {what} left out; read_output(handle="{handle}", start={first}) …\n{tail}'


def _refusal(verdict: _Verdict) -> AgentdError:
    decision = verdict.decision
    what = str(verdict.action)[:MAX_SHOWN] if verdict.action is not None else "the call"
    if decision.ruling is Ruling.ASK:
        return NeedsApproval(f"{what} needs a person's yes: {decision.because}", hint=f"rule {decision.rule}")
    return Denied(f"{what} is denied: {decision.because}", hint=f"rule {decision.rule}")


def _failure(error: BaseException) -> ToolResult:
    return ToolResult(ok=False, text=_told(error))


def _told(error: BaseException) -> str:
    """An error as a model should read it; of one that nobody foresaw only its kind and its words."""
    if isinstance(error, AgentdError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return f"{type(error).__name__}: {str(error)[:1000]}"


def _stored(result: ToolResult) -> dict[str, Any]:
    return {
        "ok": bool(result.ok),
        "text": result.text,
        "data": dict(result.data),
        "changed": [str(path) for path in result.changed],
        "handle": result.handle,
    }


def _result(stored: JsonObject) -> ToolResult:
    """A stored result, or the denial that a tool met while it ran."""
    denied = stored.get("denied")
    if denied:
        raise Denied(denied["message"], hint=denied["hint"])
    return ToolResult(
        ok=stored["ok"],
        text=stored["text"],
        data=stored["data"],
        changed=tuple(stored["changed"]),
        handle=stored["handle"],
    )


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _values(args: BaseModel) -> dict[str, Any]:
    return {name: getattr(args, name) for name in type(args).model_fields}


def _shown(args: BaseModel) -> dict[str, Any]:
    """Arguments for the audit log: paths, commands and numbers as they are, of everything else the length."""
    return {name: _shown_value(value, _grounding(args, name)) for name, value in _values(args).items()}


def _grounding(args: BaseModel, name: str) -> str | None:
    extra = type(args).model_fields[name].json_schema_extra
    found = extra.get("x-grounding") if isinstance(extra, dict) else None
    return found if isinstance(found, str) else None


def _shown_value(value: object, grounding: str | None) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str) and grounding in _NAMES:
        return value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 1] + "…"
    size = len(value) if isinstance(value, (str, bytes, list, tuple, dict)) else len(str(value))
    return f"<{size} characters>" if isinstance(value, str) else f"<{type(value).__name__} of {size}>"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
