"""`policy test`: the cases of a file against the rules as they stand together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentd.api.shapes import policy_of
from agentd.errors import BadInput
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel, Action, Ruling


class Case(NamedTuple):
    """A line of a file: `LEVEL DECISION [--taint] [--workspace=DIR] COMMAND|ACTION`."""

    where: str
    level: AccessLevel
    expected: Ruling
    text: str
    action: Action
    taint: bool
    workspace: Path | None


def read_cases(path: Path) -> list[Case]:
    """The cases of a file; empty lines and those with `#` at their beginning are none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    return [
        _case(f"{path}:{n}", line, path.parent)
        for n, line in enumerate(lines, 1)
        if line.strip() and line.strip()[0] != "#"
    ]


def failures(engine: PolicyEngine, cases: list[Case], root: Path | None) -> Iterator[str]:
    """In words, each case that is decided otherwise. `root`: the workspace of cases that name none."""
    for case in cases:
        workspace = case.workspace or root
        policy = policy_of(engine, workspace if workspace is not None and workspace.is_dir() else None)
        where = str(workspace or "")
        found = policy.decide(case.action, level=case.level, workspace=where, tainted=case.taint)
        if found.ruling is not case.expected:
            told = f"{case.text!r} at level {int(case.level)} is {found.ruling} ({found.rule}), not {case.expected}"
            yield f"{case.where}: {told}"


def _case(where: str, line: str, folder: Path) -> Case:
    level, _, rest = line.strip().partition(" ")
    expected, _, text = rest.strip().partition(" ")
    taint, workspace = False, None
    while (word := text.strip().partition(" "))[0].startswith("--"):
        option, _, value = word[0].partition("=")
        text = word[2]
        if option == "--workspace" and value:
            workspace = (folder / Path(value).expanduser()).resolve()
        elif word[0] == "--taint":
            taint = True
        else:
            raise BadInput(f"{where}: {word[0][:200]!r} is no option", hint="there are --taint and --workspace=DIR")
    if level not in map(str, map(int, AccessLevel)) or expected not in list(Ruling) or not text.strip():
        hint = f"LEVEL (0 to {max(AccessLevel)}), {', '.join(Ruling)}, and a command: 2 allow pytest -q"
        raise BadInput(f"{where}: {line[:200]!r} is no case", hint=hint)
    try:
        action = action_of(text)
    except BadInput as error:
        raise BadInput(f"{where}: {error.message}", hint=error.hint) from None
    return Case(where, AccessLevel(int(level)), Ruling(expected), text.strip(), action, taint, workspace)
