"""Decides what an action may do: the strictest rule that matches wins, and what no rule matches is denied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from agentd.errors import PolicyError
from agentd.policy.commands import KINDS, Shape, Subject, fold, subject_of
from agentd.policy.project import Project, load_project
from agentd.policy.rules import Level, Rule, load_levels, load_rules
from agentd.policy.taint import RULE as TAINT
from agentd.types import AccessLevel, Action, Decision, Origin, Ruling

_STRICTNESS = {Ruling.DENY: 0, Ruling.ASK: 1, Ruling.ALLOW: 2}

DEFAULT = "default"
"""Name of the rule that decides when no other does."""
RISKY = "risk"
"""Name of the rule that asks about what is allowed and yet has much risk."""
_PROJECTS = 32
"""With a policy of their own, that are kept ready."""
_SITUATIONS = 5_000

OUTSIDE = Decision(
    ruling=Ruling.DENY,
    rule="outside-workspace",
    because="Work stays inside the workspace: no absolute path, no '..' and no '~'.",
    risk=90,
)

OWN_HOME = Decision(
    ruling=Ruling.DENY,
    rule="own-home",
    because="The agent's own keys, records and rules are the owner's; no tool touches them.",
    risk=95,
)


_LEAVING = {
    "model.send": "lets data leave for",
    "model.pull": "lets files come from",
    "net.connect": "lets plugins reach",
}
_RULE = (
    '- {{match: {{action: {kind}, name: ["{name}"]}}, decision: allow, because: "WHY", '
    'examples: {{match: ["{name}"], not_match: [git.commit]}}}}'
)


class _Situation(NamedTuple):
    kind: str
    level: AccessLevel
    origin: Origin
    program: str
    """One that some rule names, else empty."""
    tainted: bool
    workspace: str
    """Folded; empty where no rule names any."""


class _Candidates:
    """Rules that may match in one situation, in the order in which they are asked."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        paths = [rule.match.path.pattern for rule in rules if rule.match.path and not rule.match.argv]
        # One expression rules out most paths at once.
        self._paths = (
            re.compile("|".join(f"(?:{path})" for path in paths), re.DOTALL) if len(paths) == len(rules) else None
        )

    def first(self, subject: Subject) -> Decision | None:
        """The decision of the first rule that matches."""
        if self._paths is not None and not any(map(self._paths.fullmatch, subject.paths)):
            return None
        for rule in self._rules:
            if rule.match.covers(subject):
                return rule.decision
        return None


class PolicyEngine:
    """Rules and levels, ready to decide; safe to use from several threads."""

    def __init__(self, rules: tuple[Rule, ...], levels: tuple[Level, ...]) -> None:
        self.rules = rules + tuple(rule for level in levels for rule in level.rules)
        self.levels = levels
        self.max_level = max(AccessLevel)
        self._own = self.rules
        self._by_workspace = any(rule.match.workspace is not None for rule in self.rules)
        self._narrow = lru_cache(maxsize=_PROJECTS)(self._narrowed)
        self._programs = frozenset[str]().union(*(rule.match.programs or () for rule in self.rules))
        self._candidates: dict[_Situation, tuple[_Candidates, _Candidates]] = {}
        _refuse_same_ids(self.rules)

    @classmethod
    def load(cls, folder: Path) -> PolicyEngine:
        """Read `default.yaml` and `levels.yaml` of a folder. `PolicyError` names file, line and what is wrong."""
        return cls(load_rules(folder / "default.yaml"), load_levels(folder / "levels.yaml"))

    def narrowed(self, project: str) -> PolicyEngine:
        """The engine for a project with this policy of its own; `PolicyError` for one that cannot be taken."""
        return self._narrow(project) if project else self

    def _narrowed(self, text: str) -> PolicyEngine:
        return _Narrowed(self, load_project(text))

    def decide(
        self,
        action: Action,
        *,
        level: AccessLevel,
        origin: Origin = Origin.API,
        workspace: str = "",
        tainted: bool = False,
    ) -> Decision:
        """The ruling of the strictest rule that matches (deny before ask before allow).

        `tainted`: the task has read what others wrote.
        """
        situation = self._situation(action, level, origin, workspace, tainted)
        subject = subject_of(action)
        return self._decide(situation, subject) or self._default(action, situation, subject)

    def _situation(
        self, action: Action, level: AccessLevel, origin: Origin, workspace: str, tainted: bool
    ) -> _Situation:
        return _Situation(action.kind, level, origin, "", tainted, fold(workspace) if self._by_workspace else "")

    def _decide(self, situation: _Situation, subject: Subject) -> Decision | None:
        if subject.malformed:
            return Decision(ruling=Ruling.DENY, rule="malformed", because=subject.malformed, risk=90)
        program = subject.program if subject.program in self._programs else ""
        refusing, others = self._rules_for(situation._replace(program=program))
        denied = refusing.first(subject)
        if denied is not None:
            return denied
        # What the owner typed as a check may name anything; all else stays inside whatever the rules say.
        if subject.outside and situation.kind != "check.exec":
            return OUTSIDE
        return others.first(subject)

    def _rules_for(self, situation: _Situation) -> tuple[_Candidates, _Candidates]:
        """The rules that may match: those that deny, and the others with the stricter first."""
        found = self._candidates.get(situation)
        if found is None:
            if len(self._candidates) >= _SITUATIONS:
                self._candidates.clear()
            fitting = [_in_place(rule, situation.origin) for rule in self._own if _holds(rule, situation)]
            fitting.sort(key=lambda rule: _STRICTNESS[rule.decision.ruling])
            denying = sum(rule.decision.ruling is Ruling.DENY for rule in fitting)
            found = _Candidates(fitting[:denying]), _Candidates(fitting[denying:])
            self._candidates[situation] = found
        return found

    def _default(self, action: Action, situation: _Situation, subject: Subject) -> Decision:
        return Decision(ruling=Ruling.DENY, rule=DEFAULT, because=self._why(action, situation, subject), risk=90)

    def _why(self, action: Action, situation: _Situation, subject: Subject) -> str:
        """What the owner could change, since no rule speaks of the action."""
        if action.kind not in KINDS:
            return f"No rule knows the action {action.kind!r}, and what no rule allows is denied."
        if KINDS[action.kind] is Shape.HOST:
            return (
                f"No rule {_LEAVING[action.kind]} {subject.host}, and what no rule allows is denied; "
                f"a rule for {action.kind} in policies/default.yaml can allow it."
            )
        if KINDS[action.kind] is Shape.NAME and not any(action.kind in rule.match.kinds for rule in self.rules):
            rule = _RULE.format(kind=action.kind, name=action.target)
            return (
                f"No rule of this home speaks of {action.kind}, and what no rule allows is denied; "
                f"this line below a level of policies/levels.yaml allows it: {rule}"
            )
        level = situation.level
        here = self.levels[level].name
        for higher in self.levels[level + 1 :]:
            decision = self._decide(situation._replace(level=higher.level), subject)
            if decision is not None and decision.ruling is not Ruling.DENY:
                return (
                    f"Level {int(level)} ({here}) does not include it; level {int(higher.level)} ({higher.name}) does."
                )
        return f"No rule allows it at level {int(level)} ({here}) or above, and what no rule allows is denied."


class _Narrowed(PolicyEngine):
    """The rules of the home, and what a project takes away from them."""

    def __init__(self, home: PolicyEngine, project: Project) -> None:
        super().__init__(project.rules, ())
        self._home = home
        self.rules, self.levels, self.max_level = home.rules + project.rules, home.levels, project.max_level

    def decide(
        self,
        action: Action,
        *,
        level: AccessLevel,
        origin: Origin = Origin.API,
        workspace: str = "",
        tainted: bool = False,
    ) -> Decision:
        """The stricter of both: what the home denies or asks about is not its project's to allow."""
        asked, level = level, min(level, self.max_level)
        home = self._home.decide(action, level=level, origin=origin, workspace=workspace, tainted=tainted)
        if level < asked and home.rule == DEFAULT:
            home = replace(home, because=f"{home.because} This project takes no task above level {int(level)}.")
        situation = self._situation(action, level, origin, workspace, tainted)
        own = self._decide(situation, subject_of(action))
        return own if own is not None and _STRICTNESS[own.ruling] < _STRICTNESS[home.ruling] else home


def _in_place(rule: Rule, origin: Origin) -> Rule:
    """The rule as it is for a task of this origin: nobody waits for those that begin by themselves."""
    alone = origin in (Origin.WATCH, Origin.SCHEDULE)
    return replace(rule, decision=rule.unattended) if alone and rule.unattended is not None else rule


def _holds(rule: Rule, situation: _Situation) -> bool:
    lowest, highest = rule.match.span
    return (
        situation.kind in rule.match.kinds
        and (rule.match.programs is None or situation.program in rule.match.programs)
        and lowest <= situation.level <= highest
        and situation.origin in rule.match.origins
        and (rule.match.taint is None or rule.match.taint is situation.tainted)
        and (rule.match.workspace is None or rule.match.workspace.fullmatch(situation.workspace) is not None)
    )


def _refuse_same_ids(rules: tuple[Rule, ...]) -> None:
    seen: dict[str, Rule] = {}
    for rule in rules:
        other = seen.setdefault(rule.id, rule)
        if other is not rule:
            raise PolicyError(f"{rule.source}: the id {rule.id!r} is taken by the rule at {other.source}")
    for reserved in (DEFAULT, RISKY, TAINT, OUTSIDE.rule, OWN_HOME.rule, "malformed"):
        if reserved in seen:
            raise PolicyError(f"{seen[reserved].source}: the id {reserved!r} is used by the engine itself")
