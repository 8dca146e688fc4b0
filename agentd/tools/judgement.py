"""What may become of a call: the strictest of all decisions on what it would touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agentd.errors import AgentdError, Denied, NeedsApproval
from agentd.policy.approvals import Asked
from agentd.policy.engine import OUTSIDE, RISKY, PolicyEngine
from agentd.policy.risk import risk_of_actions
from agentd.policy.taint import Call
from agentd.policy.taint import asked as asked_of
from agentd.tools.books import PROGRAMS, Books
from agentd.tools.order import Order
from agentd.tools.own_places import OwnPlaces
from agentd.types import AccessLevel, Action, Decision, Risk, Ruling

_STRICTNESS = {Ruling.ALLOW: 0, Ruling.ASK: 1, Ruling.DENY: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The strictest decision on the actions of a call, and the action that it is about, as it may be shown."""

    actions: tuple[Action, ...]
    action: str
    decision: Decision

    @property
    def ruling(self) -> Ruling:
        return self.decision.ruling

    @property
    def refusal(self) -> AgentdError:
        """For who called, when it is no `allow`."""
        because, hint = self.decision.because, f"rule {self.decision.rule}"
        if self.ruling is Ruling.ASK:
            return NeedsApproval(f"{self.action} needs a person's yes: {because}", hint=hint)
        return Denied(f"{self.action} is denied: {because}", hint=hint)


class Refused(Exception):
    """Carries a ruling that is no `allow` out of the journal, which then keeps nothing."""

    def __init__(self, judged: Judged, asked: Asked | None = None) -> None:
        super().__init__(judged.decision.because)
        self.judged = judged
        self.asked = asked
        """What a person can answer, so that the call may run after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Of one call, by the rules, the places that are the agent's own, whose words it follows, and its risk."""

    policy: PolicyEngine
    own: OwnPlaces
    ask_above: Callable[[], int]
    order: Order
    books: Books

    def of(self, actions: tuple[Action, ...], beside: tuple[Action, ...] = ()) -> Judged:
        """`beside`: what the same call was found to do already."""
        decided = [(action, decision) for action in actions for decision in self._decisions(action)]
        if not decided:
            nothing = Decision(ruling=Ruling.DENY, rule="default", because="It names no action to judge.", risk=90)
            return Judged(actions=(), action="the call", decision=nothing)
        action, decision = max(decided, key=lambda pair: _STRICTNESS[pair[1].ruling])
        risk = risk_of_actions(decided, self.order.shown_action)
        if decision.ruling is Ruling.ALLOW and self.order.scope.tainted:
            action, decision = self._untrusted(actions, beside) or (action, decision)
        if decision.ruling is Ruling.ALLOW and risk.score > (limit := self.ask_above()):
            decision = Decision(ruling=Ruling.ASK, rule=RISKY, because=_too_risky(risk, limit))
        decision = replace(decision, risk=risk.score)
        return Judged(actions=actions, action=self.order.shown_action(action), decision=decision)

    def may(self, action: Action) -> bool:
        return self._rule_on(action).ruling is Ruling.ALLOW

    def may_read(self, path: str) -> bool:
        return self.may(Action(kind="fs.read", target=path))

    def may_read_all(self, actions: tuple[Action, ...]) -> bool:
        """Whether nothing that they read has to be asked for."""
        return all(
            decision.ruling is Ruling.ALLOW
            for action in actions
            if action.kind == "fs.read"
            for decision in self._decisions(action)
        )

    def _decisions(self, action: Action) -> Iterator[Decision]:
        """Of the action as given, and, for a path, as it is after links and spelling."""
        if not action.kind.startswith("fs."):
            yield self._rule_on(action)
            return
        try:
            real = self.books.workspace.real_name(action.target)
        except Denied as error:
            given = self._rule_on(action)
            yield given if given.ruling is Ruling.DENY else replace(OUTSIDE, because=error.message)
            return
        # An absolute path is taken when it lies inside; what is judged is where.
        if real != action.target and not Path(action.target).is_absolute():
            yield self._rule_on(action)
        yield self._rule_on(replace(action, target=real))

    def _rule_on(self, action: Action) -> Decision:
        scope = self.order.scope
        own = self.own.refusal(action, Path(scope.workspace))
        return own or self._ruled(action, scope.level)

    def _untrusted(self, actions: tuple[Action, ...], beside: tuple[Action, ...]) -> tuple[Action, Decision] | None:
        """What a person has to allow because a stranger may have asked for it."""
        scope, tool = self.order.scope, self.order.tool
        root = f"{Path(scope.workspace).as_posix()}/"
        call = Call(
            tool=tool.name,
            actions=tuple(replace(action, target=action.target.removeprefix(root)) for action in actions),
            texts=self.order.texts,
            quiet=all(self._quiet(action) for action in actions if action.kind in PROGRAMS),
            reaches=tool.annotations.open_world,
            beside=beside,
        )
        return asked_of(call, scope.owner)

    def _quiet(self, action: Action) -> bool:
        """Whether it only runs tests or linters, or looks at the repository."""
        level = min(self.order.scope.level, AccessLevel.RUN_TESTS)
        return self._ruled(action, level).ruling is Ruling.ALLOW

    def _ruled(self, action: Action, level: AccessLevel) -> Decision:
        """What the rules of the home and of the project say."""
        scope = self.order.scope
        return self.policy.narrowed(scope.project).decide(
            action, level=level, origin=scope.origin, workspace=scope.workspace, tainted=scope.tainted
        )


def _too_risky(risk: Risk, limit: int) -> str:
    return f"Its risk is {risk.score}, and a person is asked above {limit} ({'; '.join(risk.reasons)})."
