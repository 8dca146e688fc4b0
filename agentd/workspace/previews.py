"""What tasks that worked in a copy would change: kept, shown, and compared with what stands there later."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentd.errors import NotFound, ToolFailed
from agentd.security.scan import redact
from agentd.store.db import Database
from agentd.types import Clock, FileChange
from agentd.workspace.hunks import Content, change_of
from agentd.workspace.shadow import Changed

MAX_BYTES = 200 * 1024 * 1024
"""Of all files of a task as they would be."""

_COLUMNS = "task, path, before, before_mode, before_link, after, after_mode, after_link, kind, diff, added, removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A file as it must stand, and as it would be. `before` is a digest; None where there must be none."""

    change: FileChange
    before: bytes | None
    before_link: bool
    before_mode: int
    after: Content

    def stands_before(self, now: Content) -> bool:
        return (digest(now), now.link) == (self.before, self.before_link) and self.before_mode in (0, now.mode)

    def stands_after(self, now: Content) -> bool:
        return (now.data, now.link) == (self.after.data, self.after.link) and (
            now.data is None or now.link or now.mode == self.after.mode
        )


class Previews:
    """By task, in one database. The contents are kept as they are, the diffs without secrets."""

    def __init__(self, db: Database, clock: Clock, redact: Callable[[str], str] = redact) -> None:
        self._redact = redact
        self._db = db
        self._clock = clock

    def keep(self, task: str, changed: Sequence[Changed]) -> None:
        """Keep what a task would change. What is kept of it already stays. `ToolFailed` for more than 200 MiB."""
        size = sum(len(each.after.data or b"") for each in changed)
        if size > MAX_BYTES:
            raise ToolFailed(f"the changes have {size:,} bytes; the most that is kept is {MAX_BYTES:,}")
        with self._db.transaction():
            if self.has(task):
                return
            self._db.execute("INSERT INTO previews (task, at) VALUES (?, ?)", (task, self._clock.now()))
            for each in changed:
                change = change_of(each.path, each.before, each.after)
                if change is not None:
                    change = replace(change, diff=self._redact(change.diff))
                    self._db.execute(
                        f"INSERT INTO preview_files ({_COLUMNS}) VALUES ({', '.join('?' * 12)})",
                        _values(task, each, change),
                    )

    def has(self, task: str) -> bool:
        return self._db.row("SELECT 1 FROM previews WHERE task = ?", (task,)) is not None

    def planned(self, task: str) -> tuple[Planned, ...]:
        """`NotFound` for a task of which nothing is kept."""
        if not self.has(task):
            raise NotFound(f"task {task} has not shown what it would change", hint="use run --dry-run or run --shadow")
        rows = self._db.rows("SELECT * FROM preview_files WHERE task = ? ORDER BY path", (task,))
        return tuple(map(_planned, rows))

    def changes(self, task: str) -> tuple[FileChange, ...]:
        """What it would change, by path."""
        return tuple(each.change for each in self.planned(task)) if self.has(task) else ()


def digest(content: Content) -> bytes | None:
    return None if content.data is None else hashlib.sha256(content.data).digest()


def _values(task: str, each: Changed, change: FileChange) -> tuple[Any, ...]:
    before, after = each.before, each.after
    packed = None if after.data is None else zlib.compress(after.data)
    diff = change.diff.encode("utf-8", "backslashreplace").decode()
    sides = (digest(before), before.mode, int(before.link), packed, after.mode, int(after.link))
    return (task, os.fsencode(each.path), *sides, change.kind, diff, change.added, change.removed)


def _planned(row: Mapping[str, Any]) -> Planned:
    change = FileChange(
        path=os.fsdecode(row["path"]), kind=row["kind"], diff=row["diff"], added=row["added"], removed=row["removed"]
    )
    data = None if row["after"] is None else zlib.decompress(row["after"])
    return Planned(
        change=change,
        before=row["before"],
        before_link=bool(row["before_link"]),
        before_mode=row["before_mode"],
        after=Content(data=data, mode=row["after_mode"], link=bool(row["after_link"])),
    )
