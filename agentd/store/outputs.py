"""Whole outputs of tools of which a model saw only a part."""

from __future__ import annotations

import re

from agentd.errors import NotFound
from agentd.store.db import Database
from agentd.types import Clock

MAX_BYTES = 1024 * 1024
_NOTE = 100  # room for the words on what was left out
_HANDLE = re.compile(r"out-([1-9]\d{0,17})")


class Outputs:
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def put(self, task: str, text: str) -> str:
        """Keep `text` and return a handle such as `out-12`. Beyond 1 MiB of UTF-8 its middle is left out."""
        row = (task, self._clock.now(), _capped(text))
        with self._db.transaction() as connection:
            self._db.execute("INSERT INTO outputs (task, at, text) VALUES (?, ?, ?)", row)
            return f"out-{connection.last_insert_rowid()}"

    def get(self, handle: str, task: str | None = None) -> str:
        """The text behind a handle, or `NotFound`; with `task`, only what was put for that task."""
        match = _HANDLE.fullmatch(handle)
        row = self._db.row("SELECT task, text FROM outputs WHERE id = ?", (int(match[1]),)) if match else None
        if row is None or task not in (None, row["task"]):
            hint = "a handle looks like out-12; a result that was cut names its own"
            raise NotFound(f"there is no output {handle!r}", hint=hint)
        return str(row["text"])


def _capped(text: str) -> str:
    # A lone surrogate (an undecodable byte of a file name) has no UTF-8 form; it stays readable as \udc80.
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_BYTES:
        return data.decode()
    head, tail = data[: MAX_BYTES * 3 // 4], data[-(MAX_BYTES // 4 - _NOTE) :]
    note = f"\n… {len(data) - len(head) - len(tail)} bytes were left out here …\n"
    return head.decode("utf-8", "ignore") + note + tail.decode("utf-8", "ignore")
