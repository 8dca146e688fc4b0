"""The arithmetic of the council: a stricter opinion never helps, order is nothing, a veto is the end."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agent.fold import WEIGHTS, fold
from agentd.types import Check, CheckKind, Opinion, Stance

ROLES = list(WEIGHTS)
SEVERITY = {Stance.ACCEPT: 0, Stance.REVISE: 1, Stance.REJECT: 2}
ACCEPT, REVISE, REJECT = Stance

checks = st.builds(
    Check,
    kind=st.sampled_from(CheckKind),
    target=st.sampled_from(["a.txt", "pytest -q", "pytest  -q", "B"]),
    text=st.sampled_from(["", "x"]),
)
opinions = st.builds(
    Opinion,
    role=st.sampled_from(ROLES),
    decision=st.sampled_from(Stance),
    because=st.sampled_from(["why", "because"]),
    risks=st.lists(st.sampled_from(["a risk", "A  Risk", "another"]), max_size=3).map(tuple),
    checks=st.lists(checks, max_size=3).map(tuple),
    confidence=st.integers(0, 10),
)
councils = st.lists(opinions, max_size=8)


def council(**said: Stance) -> list[Opinion]:
    """Opinions by role; `others` for those that are not named."""
    others = said.pop("others", None)
    decisions = {role: said.get(role, others) for role in ROLES}
    return [Opinion(role=role, decision=d, because=f"{role} says so") for role, d in decisions.items() if d is not None]


@given(councils, opinions)
def test_an_opinion_as_strict_as_the_verdict_never_makes_it_milder(heard: list[Opinion], more: Opinion) -> None:
    before, after = fold(heard).decision, fold([*heard, more]).decision
    if SEVERITY[more.decision] >= SEVERITY[before]:
        assert SEVERITY[after] >= SEVERITY[before]


@given(councils, st.sampled_from([REVISE, REJECT]), st.sampled_from(ROLES))
def test_whoever_does_not_accept_never_makes_it_milder(heard: list[Opinion], decision: Stance, role: str) -> None:
    after = fold([*heard, Opinion(role=role, decision=decision, because="no")])
    assert SEVERITY[after.decision] >= SEVERITY[fold(heard).decision]


@given(st.lists(opinions, min_size=1, max_size=6, unique_by=lambda o: o.role), st.data())
def test_an_opinion_made_stricter_never_makes_it_milder(heard: list[Opinion], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(heard) - 1))
    stricter = data.draw(st.sampled_from([s for s in Stance if SEVERITY[s] >= SEVERITY[heard[place].decision]]))
    changed = [*heard[:place], replace(heard[place], decision=stricter), *heard[place + 1 :]]
    assert SEVERITY[fold(changed).decision] >= SEVERITY[fold(heard).decision]


@given(councils, st.randoms(use_true_random=False))
def test_the_order_of_the_opinions_is_nothing(heard: list[Opinion], chance: random.Random) -> None:
    shuffled = list(heard)
    chance.shuffle(shuffled)
    assert fold(shuffled) == fold(heard)


@given(councils)
def test_a_veto_always_rejects(heard: list[Opinion]) -> None:
    verdict = fold([*heard, Opinion(role="security", decision=REJECT, because="it leaks keys")])
    assert (verdict.decision, verdict.vetoed) == (REJECT, True)
    assert "veto by Security" in verdict.because


@given(st.sets(st.sampled_from([role for role in ROLES if role != "security"]), min_size=2))
def test_unanimity_accepts_where_security_and_half_of_the_roles_are_there(roles: set[str]) -> None:
    heard = [Opinion(role=role, decision=ACCEPT, because="fine") for role in (*roles, "security")]
    verdict = fold(heard)
    assert verdict.decision is ACCEPT
    assert set(verdict.absent) == set(ROLES) - roles - {"security"}


@given(st.lists(opinions, max_size=6).filter(lambda heard: all(o.role != "security" for o in heard)))
def test_without_security_nothing_is_accepted(heard: list[Opinion]) -> None:
    assert fold(heard).decision is not ACCEPT


@given(councils)
def test_what_was_said_stands_in_it_once(heard: list[Opinion]) -> None:
    verdict = fold(heard)
    lines = [" ".join(line.casefold().split()) for line in verdict.checklist]
    assert len(lines) == len(set(lines))
    assert [o.role for o in verdict.opinions] == [role for role in ROLES if role in {o.role for o in heard}]
    kept = {(check.kind, " ".join(check.target.split()), check.text) for check in verdict.checks}
    said = {(c.kind, " ".join(c.target.split()), c.text) for o in verdict.opinions for c in o.checks}
    assert kept == said
    assert len(kept) == len(verdict.checks)


@pytest.mark.parametrize(
    ("said", "decision"),
    [
        ({"others": ACCEPT}, ACCEPT),
        ({"others": REVISE}, REVISE),
        ({"others": REJECT, "security": ACCEPT}, REJECT),
        ({"others": ACCEPT, "security": REVISE}, REVISE),
        ({"others": ACCEPT, "dev": REJECT}, REVISE),
        ({"others": ACCEPT, "dev": REVISE, "qa": REVISE}, ACCEPT),
        # 5 for, 7 for a revision
        ({"others": REVISE, "security": ACCEPT, "director": ACCEPT}, REVISE),
        # as much for it as for a revision
        ({"others": ACCEPT, "director": REVISE, "architect": REVISE, "qa": REVISE}, REVISE),
        # half of all weight rejects: the Director decides, and only towards the stricter
        ({"director": REJECT, "architect": REJECT, "qa": REJECT, "security": ACCEPT}, REJECT),
        ({"reviewer": REJECT, "architect": REJECT, "qa": REJECT, "security": ACCEPT, "director": ACCEPT}, REVISE),
        ({"security": ACCEPT, "director": ACCEPT}, REVISE),
        ({"architect": REJECT}, REVISE),
        ({}, REVISE),
    ],
)
def test_what_opinions_come_to(said: dict[str, Stance], decision: Stance) -> None:
    assert fold(council(**said)).decision is decision


def test_how_sure_somebody_is_decides_nothing_but_who_is_named_first() -> None:
    sure = [Opinion(role=role, decision=REVISE, because=role, confidence=10) for role in ("qa", "reviewer")]
    unsure = [replace(sure[0], confidence=0), sure[1]]
    assert fold(sure).decision is fold(unsure).decision is REVISE
    assert fold(sure).because.startswith("QA: qa; Reviewer")
    assert fold(unsure).because.startswith("Reviewer: reviewer; QA")


def test_the_reasons_name_who_and_why_and_who_was_silent() -> None:
    verdict = fold(council(security=ACCEPT, dev=ACCEPT, qa=REVISE))
    assert verdict.because == "QA: qa says so; no usable opinion from Director, Architect, Reviewer"
    assert fold(council(security=ACCEPT)).because.startswith(
        "Security and at least 3 of 6 roles have to accept; no usab"
    )
    accepted = fold(council(others=ACCEPT, dev=REVISE))
    assert accepted.because == "accepted by Director, Architect, Security, QA, Reviewer; Dev: dev says so"


def test_risks_and_checks_keep_the_order_of_the_roles() -> None:
    check = Check(target="pytest -q", by="council")
    first = Opinion(role="qa", decision=ACCEPT, because="x", risks=("late",), checks=(check,))
    second = Opinion(role="director", decision=ACCEPT, because="x", risks=("early", "Late"), checks=(check,))
    assert fold([first, second]).checklist == ("early", "Late", "check pytest -q")
    assert fold([first, second]).checks == (check,)


def test_nobody_else_has_a_seat() -> None:
    with pytest.raises(ValueError, match="'root' has no seat"):
        fold([Opinion(role="root", decision=ACCEPT, because="trust me")])
