"""What programs of a project change in its files: found by looking at all of them before a run and after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from agentd.errors import AgentdError, StoreError
from agentd.store.db import Database
from agentd.types import Clock
from agentd.workspace.blobs import Blobs, Room, digest_of
from agentd.workspace.paths import Workspace
from agentd.workspace.standing import ABSENT, Standing, mark, standing

MOST_FILES = 20_000
MOST_BYTES = 4 * 1024 * 1024
"""Of one file."""
_BATCH = 8 * 1024 * 1024
"""Bytes that are written in one transaction."""

_KNOWN = "SELECT path, mark, kind, mode, size, digest FROM surveyed WHERE workspace = ?"
_SEEN = """
    INSERT INTO surveyed (workspace, path, mark, kind, mode, size, digest) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (workspace, path) DO UPDATE SET mark = excluded.mark, kind = excluded.kind, mode = excluded.mode,
        size = excluded.size, digest = excluded.digest"""
_GONE = "DELETE FROM surveyed WHERE workspace = ? AND path = ?"
_LOOK = """
    INSERT INTO looks (task, key, workspace, since, at)
    VALUES (?1, ?2, ?3, (SELECT coalesce(max(id), 0) FROM changes), ?4)
    ON CONFLICT DO UPDATE SET at = excluded.at"""
_OURS = """
    SELECT 1 FROM changes
    WHERE workspace = ? AND path = ? AND id > ? AND after_kind = ? AND after_digest = ? LIMIT 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file that is not as it was. `before` None: that was too much to be kept."""

    path: str
    before: Standing | None
    after: Standing


@dataclass(frozen=True, slots=True)
class _Known:
    mark: str
    standing: Standing

    @property
    def kept(self) -> bool:
        return bool(self.standing.digest)


class Survey:
    """Of files that count (outside .git, not ignored), at most `MOST_FILES`, of at most `MOST_BYTES` each and
    `most()` bytes in all; of the others it is only seen that they changed. A file is read again only when it did."""

    def __init__(self, db: Database, blobs: Blobs, clock: Clock, *, most: Callable[[], int]) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._most = most

    def begin(self, task: str, key: str, workspace: Workspace, room: Room) -> None:
        """Before a program runs. After a crash in its middle, what was seen before it began still counts."""
        root = str(workspace.root)
        if self._db.row("SELECT 1 FROM looks WHERE task = ? AND key = ? AND workspace = ?", (task, key, root)):
            return
        with self._blobs.keeping():
            self._refresh(workspace, room)
            with self._db.transaction():
                for who in ((task, key), ("", "")):
                    self._db.execute(_LOOK, (*who, root, self._clock.now()))

    def found(self, task: str, key: str, workspace: Workspace, room: Room) -> tuple[list[Found], bool]:
        """After it has run: what is different now and was not written by a tool meanwhile, and whether all files were
        looked at. `keeping` must be held."""
        root = str(workspace.root)
        look = self._db.row("SELECT since FROM looks WHERE task = ? AND key = ? AND workspace = ?", (task, key, root))
        if look is None:
            return [], True
        known, now = self._known(root), _marks(workspace)
        found = []
        for path in sorted({*known, *now}):
            before = known.get(path)
            if before is None or before.mark != now.get(path, ""):
                changed = self._changed(workspace, path, before, room)
                if changed and not self._by_a_tool(root, changed, look["since"]):
                    found.append(changed)
        return found, len(now) < MOST_FILES

    def end(self, task: str, key: str, workspace: Workspace) -> None:
        """What was found is written down; a part of the caller's transaction."""
        self._db.execute(
            "DELETE FROM looks WHERE task = ? AND key = ? AND workspace = ?", (task, key, str(workspace.root))
        )

    def open(self, task: str) -> list[str]:
        """Keys of runs that a crash has cut off."""
        return [str(row["key"]) for row in self._db.rows("SELECT key FROM looks WHERE task = ?", (task,))]

    def _refresh(self, workspace: Workspace, room: Room) -> None:
        """Bring what is known up to now."""
        root = str(workspace.root)
        known, now = self._known(root), _marks(workspace)
        left = self._most() - sum(each.standing.size for path, each in known.items() if each.kept and path in now)
        stale = [path for path, found in now.items() if path not in known or known[path].mark != found]
        for batch in _batches(stale, workspace):
            with self._db.transaction():
                for path in batch:
                    if path in known and known[path].kept:
                        left += known[path].standing.size
                    left -= self._note(workspace, path, left, room)
        with self._db.transaction():
            for path in known.keys() - now.keys():
                self._db.execute(_GONE, (root, os.fsencode(path)))

    def _note(self, workspace: Workspace, path: str, left: int, room: Room) -> int:
        """Keep a file as it stands now, if it is not more than `left` bytes; how many were kept."""
        kept = self._kept(workspace, path, left, room)
        if kept is None:
            return 0
        row = (str(workspace.root), os.fsencode(path), kept.mark)
        found = kept.standing
        self._db.execute(_SEEN, (*row, found.kind, found.mode, found.size, found.digest))
        return found.size if kept.kept else 0

    def _kept(self, workspace: Workspace, path: str, left: int, room: Room) -> _Known | None:
        most = min(MOST_BYTES, left)

        def take(stream: BinaryIO, size: int) -> bytes:
            return self._blobs.put(stream, room) if size <= most else b""

        try:
            with workspace.at(path) as entry:
                seen = _text(mark(entry.stat()))
                return _Known(seen, standing(entry, take))
        except StoreError:
            raise
        except (AgentdError, OSError):  # gone, or not to be read, or no room: it can only be seen to change
            return self._unkept(workspace, path)

    def _unkept(self, workspace: Workspace, path: str) -> _Known | None:
        with suppress(OSError):
            found = os.lstat(workspace.root / path)
            return _Known(_text(mark(found)), Standing(kind="file", size=found.st_size))
        return None

    def _changed(self, workspace: Workspace, path: str, before: _Known | None, room: Room) -> Found | None:
        after = ABSENT
        try:
            if os.path.lexists(workspace.root / path):
                with workspace.at(path) as entry:
                    after = standing(entry, lambda stream, size: _kept_if_small(self._blobs, stream, size, room))
        except StoreError:
            raise
        except (AgentdError, OSError):
            return Found(path=path, before=None, after=ABSENT)
        if before is None:
            return None if after == ABSENT else Found(path=path, before=ABSENT, after=after)
        if not before.kept and before.standing.kind == "file":
            return Found(path=path, before=None, after=after)
        return None if before.standing == after else Found(path=path, before=before.standing, after=after)

    def _by_a_tool(self, root: str, found: Found, since: int) -> bool:
        row = (root, os.fsencode(found.path), since, found.after.kind, found.after.digest)
        return self._db.row(_OURS, row) is not None

    def _known(self, root: str) -> dict[str, _Known]:
        return {os.fsdecode(row["path"]): _Known(row["mark"], _standing(row)) for row in self._db.rows(_KNOWN, (root,))}


def _kept_if_small(blobs: Blobs, stream: BinaryIO, size: int, room: Room) -> bytes:
    return blobs.put(stream, room) if size <= MOST_BYTES else digest_of(stream)


def _standing(row: dict[str, Any]) -> Standing:
    return Standing(kind=row["kind"], mode=row["mode"], size=row["size"], digest=row["digest"])


def _marks(workspace: Workspace) -> dict[str, str]:
    """The files that count, each with what changes when it does."""
    found = {}
    for path in workspace.files(MOST_FILES):
        with suppress(OSError):
            found[path] = _text(mark(os.lstat(workspace.root / path)))
    return found


def _text(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def _batches(paths: Iterable[str], workspace: Workspace) -> Iterator[list[str]]:
    """Some files at a time, so that no transaction holds much."""
    batch: list[str] = []
    size = 0
    for path in paths:
        with suppress(OSError):
            size += min(os.lstat(workspace.root / path).st_size, MOST_BYTES)
        batch.append(path)
        if size > _BATCH or len(batch) >= 500:
            yield batch
            batch, size = [], 0
    yield batch
