"""What a change of a file looks like as a unified diff, and the file with only some of its hunks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from agentd.types import FileChange
from agentd.workspace import text
from agentd.workspace.unified import Hunk, counted, hunks_of, lines_of, written

MAX_COMPARED = 4_000_000
"""Bytes of a file whose lines are compared."""
QUICK = 4_000
"""Lines of both sides together beyond which the shortest diff is not looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file as it is or would be; `data` is None where there is none."""

    data: bytes | None
    mode: int = 0
    """Permission bits; 0 where they do not count."""
    link: bool = False
    """`data` is what a link names."""


NOTHING = Content(data=None)


def change_of(path: str, before: Content, after: Content) -> FileChange | None:
    """What became of one file; None when nothing did."""
    if before.data is None and after.data is None:
        return None
    if (before.data, before.link) == (after.data, after.link):
        told = _mode_told(path, before, after)
        return FileChange(path=path, kind="mode", diff=told) if told else None
    kind: Literal["added", "changed", "deleted"]
    kind = "added" if before.data is None else "deleted" if after.data is None else "changed"
    texts = _texts(before, after)
    if texts is None:
        return FileChange(path=path, kind=kind, diff=_mode_told(path, before, after) + _untold(path, before, after))
    old, new = texts
    hunks = _hunks(old, new)
    head = f"--- {f'a/{path}' if before.data is not None else '/dev/null'}\n"
    head += f"+++ {f'b/{path}' if after.data is not None else '/dev/null'}\n"
    added, removed = counted(hunks)
    diff = _mode_told(path, before, after) + head + "".join(written(hunk, old, new) for hunk in hunks)
    return FileChange(path=path, kind=kind, diff=diff, added=added, removed=removed)


def _mode_told(path: str, before: Content, after: Content) -> str:
    """A line about permissions that change, or with which a new file is a program; else nothing."""
    if before.data is None and not before.link:
        return f"{path}: mode {after.mode:o}\n" if after.mode & 0o111 else ""
    if before.mode == after.mode or not (before.mode and after.mode):
        return ""
    return f"{path}: mode {before.mode:o} -> {after.mode:o}\n"


def count(before: Content, after: Content) -> int:
    """How many hunks of a changed text can be taken or left; 0 where that cannot be chosen."""
    texts = _texts(before, after)
    return len(_hunks(*texts)) if texts is not None and before.data is not None and after.data is not None else 0


def partly(before: Content, after: Content, chosen: Collection[int]) -> bytes:
    """The file with these hunks (from 1) and no others, to the byte."""
    texts = _texts(before, after)
    assert texts is not None
    assert before.data is not None
    old, new = texts
    result, done = [], 0
    for number, hunk in enumerate(_hunks(old, new), 1):
        for tag, i1, i2, j1, j2 in hunk:
            result += old[done:i1]
            result += new[j1:j2] if tag != "equal" and number in chosen else old[i1:i2]
            done = i2
    result += old[done:]
    return text.decode(before.data)[1].encode("".join(result))


def _texts(before: Content, after: Content) -> tuple[list[str], list[str]] | None:
    """Both as lines; None unless both are text of one encoding that comes back to the byte."""
    sides = [side for side in (before.data, after.data) if side is not None]
    if before.link or after.link or any(len(side) > MAX_COMPARED or text.is_binary(side) for side in sides):
        return None
    read = [text.decode(side) for side in sides]
    encodings = {encoding for (_, encoding), side in zip(read, sides, strict=True) if side}
    if len(encodings) > 1 or any(
        encoding.encode(said) != side for (said, encoding), side in zip(read, sides, strict=True)
    ):
        return None
    lines = [lines_of(said) for said, _ in read]
    return ([], lines[0]) if before.data is None else (lines[0], []) if after.data is None else (lines[0], lines[1])


def _hunks(old: Sequence[str], new: Sequence[str]) -> list[Hunk]:
    return hunks_of(old, new, quick=len(old) + len(new) > QUICK)


def _untold(path: str, before: Content, after: Content) -> str:
    return f"{path}: {_what(before)} -> {_what(after)}\n"


def _what(side: Content) -> str:
    if side.data is None:
        return "nothing"
    if side.link:
        return f"a link to {side.data.decode('utf-8', 'backslashreplace')}"
    return f"{text.kind_of('', side.data[: text.SAMPLE])}, {len(side.data)} bytes"
