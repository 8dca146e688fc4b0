"""What the opinions of a council come to: weights and rules, and no model's word about the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from agentd.types import Check, CheckKind, Opinion, Stance, Verdict

T = TypeVar("T")

WEIGHTS = {"director": 2, "architect": 2, "security": 3, "qa": 2, "dev": 1, "reviewer": 2}
"""The roles in the order in which they are heard, and how much each counts, also when it is silent."""
DIRECTOR = "director"
SECURITY = "security"
QUORUM = 3
"""Roles that must accept, Security among them."""

_SEVERITY = {Stance.ACCEPT: 0, Stance.REVISE: 1, Stance.REJECT: 2}
_TITLES = {"qa": "QA"}


def fold(opinions: Iterable[Opinion]) -> Verdict:
    """The verdict, whatever the order of the opinions; of two by one role the stricter counts.

    - Security's reject is a veto. So is, as a reject, more than half of all weight; at exactly half the Director's.
    - It is accepted when Security and at least half of the roles accept, no role rejects, and more weight accepts than
      wants a revision.
    - Everything else is to be revised: opinions that contradict each other, too few of them, a tie.

    A stricter opinion, put in place of another or added, never makes the verdict milder than it was.
    """
    heard = _one_each(opinions)
    decision, vetoed = _decision(heard)
    return Verdict(
        decision=decision,
        because=_because(heard, decision, vetoed),
        checklist=_checklist(heard),
        checks=_checks(heard),
        opinions=tuple(heard),
        vetoed=vetoed,
        absent=_absent(heard),
    )


def title(role: str) -> str:
    return _TITLES.get(role, role.capitalize())


def check_words(check: Check) -> str:
    kind = "" if check.kind is CheckKind.COMMAND else f"{check.kind.value.replace('_', ' ')}: "
    return f"{kind}{check.target}" + (f" {check.text!r}" if check.text else "")


def _one_each(opinions: Iterable[Opinion]) -> list[Opinion]:
    """The strictest of each role, in the order of the roles. Raises `ValueError` for a role that does not sit."""
    found: dict[str, Opinion] = {}
    for opinion in sorted(opinions, key=_rank):
        if opinion.role not in WEIGHTS:
            raise ValueError(f"{opinion.role!r} has no seat in the council")
        found.setdefault(opinion.role, opinion)
    return [found[role] for role in WEIGHTS if role in found]


def _rank(opinion: Opinion) -> tuple[int, int, int, str, str]:
    """The stricter first, then who counts more, then who is surer."""
    weight = WEIGHTS.get(opinion.role, 0)
    return -_SEVERITY[opinion.decision], -weight, -opinion.confidence, opinion.role, repr(opinion)


def _decision(heard: Sequence[Opinion]) -> tuple[Stance, bool]:
    said = {opinion.role: opinion.decision for opinion in heard}
    weight = {stance: sum(WEIGHTS[role] for role in said if said[role] is stance) for stance in Stance}
    if said.get(SECURITY) is Stance.REJECT:
        return Stance.REJECT, True
    half = sum(WEIGHTS.values()) / 2
    rejects = weight[Stance.REJECT]
    if rejects > half or (rejects == half and said.get(DIRECTOR) is Stance.REJECT):
        return Stance.REJECT, False
    for_it = [role for role in said if said[role] is Stance.ACCEPT]
    carried = SECURITY in for_it and len(for_it) >= QUORUM and weight[Stance.ACCEPT] > weight[Stance.REVISE]
    return (Stance.ACCEPT if carried and not rejects else Stance.REVISE), False


def _because(heard: Sequence[Opinion], decision: Stance, vetoed: bool) -> str:
    ranked = sorted(heard, key=_rank)
    if vetoed:
        return _reasons([opinion for opinion in ranked if opinion.role == SECURITY], "veto by ")
    if decision is Stance.REJECT:
        return _reasons([opinion for opinion in ranked if opinion.decision is decision], "rejected by ")
    against = [opinion for opinion in ranked if opinion.decision is not Stance.ACCEPT]
    parts = [_reasons(against)] if against else []
    if decision is Stance.ACCEPT:
        parts.insert(0, f"accepted by {', '.join(title(o.role) for o in heard if o.decision is Stance.ACCEPT)}")
    elif not against:
        parts.append(f"Security and at least {QUORUM} of {len(WEIGHTS)} roles have to accept")
    absent = _absent(heard)
    if absent:
        parts.append(f"no usable opinion from {', '.join(map(title, absent))}")
    return "; ".join(parts)


def _reasons(opinions: Sequence[Opinion], before: str = "") -> str:
    return "; ".join(f"{before}{title(opinion.role)}: {opinion.because}" for opinion in opinions)


def _absent(heard: Sequence[Opinion]) -> tuple[str, ...]:
    there = {opinion.role for opinion in heard}
    return tuple(role for role in WEIGHTS if role not in there)


def _checklist(heard: Sequence[Opinion]) -> tuple[str, ...]:
    """Risks first, then checks."""
    lines = [risk for opinion in heard for risk in opinion.risks]
    lines += [f"check {check_words(check)}" for check in _checks(heard)]
    return _each_once(lines, lambda line: line.casefold().split())


def _checks(heard: Sequence[Opinion]) -> tuple[Check, ...]:
    every = [check for opinion in heard for check in opinion.checks]
    return _each_once(every, lambda check: (check.kind, check.target.split(), check.text))


def _each_once(values: Iterable[T], key: Callable[[T], object]) -> tuple[T, ...]:
    """In the order in which each was first said."""
    found: dict[str, T] = {}
    for value in values:
        found.setdefault(repr(key(value)), value)
    return tuple(found.values())
