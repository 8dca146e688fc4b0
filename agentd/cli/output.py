"""What commands print: data on stdout, everything else on stderr, and the exit code that goes with it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from agentd.cli.options import Invocation
from agentd.errors import AgentdError
from agentd.plain import STEERING, escaped

FAILED = 3
CONFLICT = 9
INTERRUPTED = 130
TIMED_OUT = 124

_BY_ERROR = {
    "usage": 2,
    "input.invalid": 2,
    "input.too_large": 2,
    "auth.required": 4,
    "policy.denied": 5,
    "plugin.refused": 5,
    "policy.needs_approval": 6,
    "daemon.unreachable": 7,
    "task.budget": 8,
    "conflict": 9,
    "daemon.already_running": 9,
    "task.cancelled": INTERRUPTED,
}
_BY_STATE = {
    "verified": 0,
    "claimed": 0,
    "denied": 5,
    "waiting": 6,
    "budget": 8,
    "cancelled": INTERRUPTED,
}
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2, "bold": 1}
_STATE_COLOURS = {"verified": "green", "claimed": "blue", "running": "bold", "waiting": "yellow", "queued": "dim"}

# The escapes that `paint` writes. Whatever else steers a terminal comes from a file, a program or a model.
_OURS = re.compile(rf"(\x1b\[(?:0|{'|'.join(map(str, _COLOURS.values()))})m)")


def exit_code_of(error: AgentdError) -> int:
    return _BY_ERROR.get(error.code, 1)


def exit_code_for(state: str) -> int:
    """The exit code for a task that ended, or stands, in `state`."""
    return _BY_STATE.get(state, FAILED)


def data(text: str) -> None:
    """Text for stdout, ended with a newline."""
    _write(sys.stdout, text)


def data_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    _write(sys.stdout, escaped(json.dumps(value, ensure_ascii=False)))


def note(text: str) -> None:
    """Something for a person, on stderr."""
    _write(sys.stderr, text)


def done(invocation: Invocation, value: Any, words: str) -> None:
    """What a command did that has no result: in words for a person, or as JSON."""
    if invocation.json:
        data_json(value)
    elif not invocation.quiet:
        note(words)


def fail(error: AgentdError, *, as_json: bool) -> int:
    """Say what failed; returns the exit code."""
    if as_json:
        _write(sys.stderr, escaped(json.dumps({"error": error.as_json()}, ensure_ascii=False)))
    else:
        note(f"{paint('error:', 'red', sys.stderr)} {error.message}")
        if error.hint:
            note(f"hint: {error.hint}")
    return exit_code_of(error)


def table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> str:
    """Columns as wide as their widest cell, the last one as it is; each cell on one line."""
    cells = [list(header), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([paint(lines[0], "dim"), *lines[1:]])


def one_line(text: str, limit: int = 0) -> str:
    """White space folded, harmless; cut to `limit` characters when that is not 0."""
    folded = " ".join(harmless(text).split())
    return folded if not limit or len(folded) <= limit else folded[: limit - 1] + "…"


def paint(text: str, colour: str, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """`text` in a colour where `stream` (stdout) is a terminal that wants colours."""
    wanted = stream or sys.stdout
    if not wanted.isatty() or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def paint_state(state: str, text: str | None = None, stream: TextIO | None = None) -> str:
    return paint(text or state, _STATE_COLOURS.get(state, "red"), stream)


def harmless(text: str) -> str:
    """Text of unknown origin without the characters that steer a terminal."""
    return STEERING.sub("�", text)


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _write(stream: TextIO, text: str) -> None:
    whole = text if text.endswith("\n") else text + "\n"
    if stream.isatty():
        whole = "".join(part if _OURS.fullmatch(part) else harmless(part) for part in _OURS.split(whole))
    try:
        stream.write(whole)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(whole.encode(encoding, "replace").decode(encoding))
    stream.flush()
