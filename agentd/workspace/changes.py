"""A change of one file in words that people and programs read: git's form of a unified diff."""

from __future__ import annotations

from typing import Literal

from agentd.types import FileChange
from agentd.workspace.blobs import Blobs
from agentd.workspace.standing import Standing
from agentd.workspace.text import is_binary
from agentd.workspace.unified import counted, hunks_of, lines_of, written

MAX_DIFFED = 1_000_000
"""Bytes of a text that is compared line by line."""

_KINDS = {"file": 0o100000, "link": 0o120000}
_QUOTED = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\t"): "\\t"}


def file_change(path: str, before: Standing, after: Standing, blobs: Blobs) -> FileChange | None:
    """What became of a file or link; None when it is as it was, or is a folder."""
    old, new = before.kind in _KINDS, after.kind in _KINDS
    if not (old or new) or before == after:
        return None
    if before.same(after):
        return FileChange(path=path, kind="mode", diff=_head(path, before, after))
    kind: Literal["added", "changed", "deleted"] = "changed" if old and new else "added" if new else "deleted"
    lines = _lines(before, after, blobs)
    if lines is None:
        said = f"{_head(path, before, after)}Binary files {_side('a', path, old)} and {_side('b', path, new)} differ\n"
        return FileChange(path=path, kind=kind, diff=said if _small(before, after) else "")
    hunks = hunks_of(*lines, quick=True)
    added, removed = counted(hunks)
    names = f"--- {_side('a', path, old)}\n+++ {_side('b', path, new)}\n" if hunks else ""
    return FileChange(
        path=path,
        kind=kind,
        diff=_head(path, before, after) + names + "".join(written(hunk, *lines) for hunk in hunks),
        added=added,
        removed=removed,
    )


def _head(path: str, before: Standing, after: Standing) -> str:
    lines = [f"diff --git {_name('a/' + path)} {_name('b/' + path)}"]
    if before.kind not in _KINDS:
        lines.append(f"new file mode {_mode(after)}")
    elif after.kind not in _KINDS:
        lines.append(f"deleted file mode {_mode(before)}")
    elif _mode(before) != _mode(after):
        lines += [f"old mode {_mode(before)}", f"new mode {_mode(after)}"]
    return "\n".join(lines) + "\n"


def _mode(standing: Standing) -> str:
    """As git has it: a link, a program, or any other file."""
    if standing.kind == "link":
        return "120000"
    return "100755" if standing.mode & 0o100 else "100644"


def _side(side: str, path: str, there: bool) -> str:
    return _name(f"{side}/{path}") if there else "/dev/null"


def _name(path: str) -> str:
    """A path as git writes it: in quotes where it holds what could be taken for something else."""
    data = path.encode("utf-8", "surrogateescape")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return '"' + "".join(_octal(byte) for byte in data) + '"'
    quoted = text.translate(_QUOTED)
    return path if quoted == text and text.isprintable() else f'"{quoted}"'


def _octal(byte: int) -> str:
    if byte in _QUOTED:
        return _QUOTED[byte]
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"


def _small(before: Standing, after: Standing) -> bool:
    return max(before.size, after.size) <= MAX_DIFFED


def _lines(before: Standing, after: Standing, blobs: Blobs) -> tuple[list[str], list[str]] | None:
    """Of both sides; None for what is no text, or too large, or not kept."""
    if not _small(before, after):
        return None
    sides = []
    for side in (before, after):
        data = blobs.whole(side.digest) if side.kind in _KINDS else b""
        if is_binary(data):
            return None
        sides.append(data.decode("utf-8", "surrogateescape"))
    return lines_of(sides[0]), lines_of(sides[1])
