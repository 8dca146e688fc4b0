"""The body of a unified diff: where two texts differ line by line, and how that is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

CONTEXT = 3

Hunk: TypeAlias = list[tuple[str, int, int, int, int]]
"""Steps from old lines to new ones, as `difflib` names them."""


def lines_of(text: str) -> list[str]:
    """With their ends; only a newline ends a line, whatever else Python takes for one."""
    *whole, last = text.split("\n")
    return [line + "\n" for line in whole] + ([last] if last else [])


def hunks_of(old: Sequence[str], new: Sequence[str], *, quick: bool) -> list[Hunk]:
    """`quick`: lines that are met everywhere do not join what is alike, which costs a shorter diff."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=quick)
    return [list(group) for group in matcher.get_grouped_opcodes(CONTEXT)]


def written(hunk: Hunk, old: Sequence[str], new: Sequence[str]) -> str:
    first, last = hunk[0], hunk[-1]
    lines = [f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n"]
    for tag, i1, i2, j1, j2 in hunk:
        if tag == "equal":
            lines += _marked(" ", old[i1:i2])
            continue
        lines += _marked("-", old[i1:i2])
        lines += _marked("+", new[j1:j2])
    return "".join(lines)


def counted(hunks: Sequence[Hunk]) -> tuple[int, int]:
    """Lines that are added and removed."""
    steps = [step for hunk in hunks for step in hunk if step[0] != "equal"]
    return sum(j2 - j1 for _, _, _, j1, j2 in steps), sum(i2 - i1 for _, i1, i2, _, _ in steps)


def _range(start: int, stop: int) -> str:
    length = stop - start
    return f"{start + 1}" if length == 1 else f"{start + 1 if length else start},{length}"


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n\\ No newline at end of file\n"
