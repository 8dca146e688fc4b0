"""`policy test`: the cases of a file against the rules as they stand together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentd.errors import BadInput
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel, Action, Ruling


class Case(NamedTuple):
    """A line of a file: `LEVEL DECISION COMMAND|ACTION`."""

    where: str
    level: AccessLevel
    expected: Ruling
    text: str
    action: Action


def read_cases(path: Path) -> list[Case]:
    """The cases of a file; empty lines and those with `#` at their beginning are none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    return [_case(f"{path}:{n}", line) for n, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"]


def failures(engine: PolicyEngine, cases: list[Case]) -> Iterator[str]:
    """In words, each case that is decided otherwise."""
    for case in cases:
        found = engine.decide(case.action, level=case.level)
        if found.ruling is not case.expected:
            told = f"{case.text!r} at level {int(case.level)} is {found.ruling} ({found.rule}), not {case.expected}"
            yield f"{case.where}: {told}"


def _case(where: str, line: str) -> Case:
    level, _, rest = line.strip().partition(" ")
    expected, _, text = rest.strip().partition(" ")
    if level not in map(str, map(int, AccessLevel)) or expected not in list(Ruling) or not text.strip():
        hint = f"LEVEL (0 to {max(AccessLevel)}), {', '.join(Ruling)}, and a command: 2 allow pytest -q"
        raise BadInput(f"{where}: {line[:200]!r} is no case", hint=hint)
    try:
        action = action_of(text)
    except BadInput as error:
        raise BadInput(f"{where}: {error.message}", hint=error.hint) from None
    return Case(where, AccessLevel(int(level)), Ruling(expected), text.strip(), action)
