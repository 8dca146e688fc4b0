"""The snapshot ledger: what stood before each change of the agent, and what after it, so that none is final."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from agentd.config import SnapshotSettings
from agentd.errors import Conflict, ToolFailed
from agentd.store.db import Database
from agentd.types import Clock, Emit, FileChange, JsonObject
from agentd.workspace.blobs import Blobs, digest_of
from agentd.workspace.changes import file_change
from agentd.workspace.own import Own, Turn
from agentd.workspace.paths import Entry, Keep, Workspace
from agentd.workspace.restore import Restored, Restorer, Segment
from agentd.workspace.retention import MIB, Retention
from agentd.workspace.standing import ABSENT, Standing, mark, standing
from agentd.workspace.survey import MOST_FILES, Survey

KEPT_AFTER = 4 * 1024 * 1024
"""Bytes of a file after a change that are kept for comparisons; of a larger one only its digest is."""
_TRIES = 3
_NAMED = 200

OriginOfChange: TypeAlias = Literal["tool", "command", "test", "restore"]
Record: TypeAlias = Callable[[str, str, JsonObject], Any]

_STANDING = ("kind", "mode", "size", "digest")
_COLUMNS = ", ".join(
    ["task", "key", "origin", "undo", "done", "at", "workspace", "path"]
    + [f"{when}_{name}" for when in ("before", "after") for name in _STANDING]
)
_ADD = f"INSERT INTO changes ({_COLUMNS}) VALUES ({', '.join('?' * 16)})"
_OPEN = "SELECT * FROM changes WHERE task = ? AND path = ? AND done = 0 ORDER BY id DESC LIMIT 1"
_DONE = "UPDATE changes SET done = 1 WHERE id = ?"
_TOOK_PLACE = """
    UPDATE changes SET done = 1, after_kind = ?, after_mode = ?, after_size = ?, after_digest = ? WHERE id = ?"""
_FORGET = "DELETE FROM changes WHERE id = ?"
_FINISH = "UPDATE changes SET done = 1 WHERE task = ? AND key = ? AND done = 0"
_OF_TASK = "SELECT * FROM changes WHERE task = ? AND id > ? ORDER BY id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Whose call changes something."""

    task: str
    key: str
    workspace: str
    origin: OriginOfChange = "tool"
    undo: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One path of a change that is about to be made."""

    place: str
    before: Standing
    after: Standing


@dataclass(slots=True)
class Watched:
    """Paths that a program changed; of the `unkept` ones it is not known what they were before."""

    changed: list[str] = field(default_factory=list)
    unkept: list[str] = field(default_factory=list)

    @property
    def told(self) -> JsonObject:
        """For the audit log."""
        told = {"found_changed": self.changed, "unkept": self.unkept}
        return {name: paths[:_NAMED] for name, paths in told.items() if paths}


class Ledger:
    """Changes by task, in one database. `record` is told, for the audit log, what was taken back or forgotten."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        settings: Callable[[], SnapshotSettings] = SnapshotSettings,
        record: Record = lambda kind, task, data: None,
        emit: Emit = lambda kind, task, data: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._record = record
        self.blobs = Blobs(db)
        self.retention = Retention(db, self.blobs, clock, settings=settings, record=record, emit=emit)
        self._survey = Survey(db, self.blobs, clock, most=lambda: settings().survey_mb * MIB)

    # recording --------------------------------------------------------------------------------------------------------

    def keeper(self, task: str, key: str, root: Path, origin: OriginOfChange = "tool") -> Keep:
        """What a `Workspace` calls around each change that this call of the task makes."""
        return self._keeper(Author(task=task, key=key, workspace=str(root), origin=origin))

    def finish(self, task: str, key: str) -> None:
        """What the call under `key` has begun took place; a part of the caller's transaction."""
        self._db.execute(_FINISH, (task, key))

    @contextmanager
    def watching(
        self, task: str, key: str, workspace: Workspace, origin: OriginOfChange, watched: Watched
    ) -> Iterator[None]:
        """Around a program that may change any file: what it changed is then in the ledger, and in `watched`."""
        self._survey.begin(task, key, workspace, self.retention.make_room)
        author = Author(task=task, key=key, workspace=str(workspace.root), origin=origin)
        try:
            yield
        except Exception:
            self._found(author, workspace, watched)
            raise
        self._found(author, workspace, watched)

    def _found(self, author: Author, workspace: Workspace, watched: Watched) -> None:
        """Write down what a program has changed."""
        with self.blobs.keeping():
            found, whole = self._survey.found(author.task, author.key, workspace, self.retention.make_room)
            changes = [_Change(place=each.path, before=each.before, after=each.after) for each in found if each.before]
            with self._db.transaction():
                self._write(author, changes)
                self.finish(author.task, author.key)
                self._survey.end(author.task, author.key, workspace)
        watched.changed += [each.path for each in found]
        watched.unkept += [each.path for each in found if each.before is None]
        watched.unkept += [] if whole else [f"whatever lies beyond the first {MOST_FILES} files"]

    def _keeper(self, author: Author) -> Keep:
        return lambda changes: self._changing(author, changes)

    @contextmanager
    def _changing(self, author: Author, changes: Mapping[Entry, Entry | Standing]) -> Iterator[None]:
        rows = self._keep(author, changes)
        try:
            yield
        except Exception:
            self._settle(author, rows)
            raise

    def _keep(self, author: Author, changes: Mapping[Entry, Entry | Standing]) -> dict[int, _Change]:
        """Write down what stands there and what will."""
        for _ in range(_TRIES):
            seen = {entry: _marks(entry) for entry in changes}
            with self.blobs.keeping(), self._db.leaving_log():
                rows = self._write(
                    author, [each for entry, after in changes.items() for each in self._differences(entry, after)]
                )
            if all(_marks(entry) == seen[entry] for entry in changes):
                return rows
            self._forget(rows)
        names = ", ".join(entry.path for entry in changes)
        raise ToolFailed(f"{names} is being written by someone else", hint="try again when it is at rest")

    def _differences(self, entry: Entry, after: Entry | Standing) -> Iterator[_Change]:
        """Each path from `entry` on that changes: all that is there now, and all that will be."""
        if isinstance(after, Entry) and _is_large(after) and not _is_folder(entry):
            # Of this one no byte is kept, so that it can be looked at while the other is.
            with ThreadPoolExecutor(1) as aside:
                coming_one = aside.submit(standing, after, lambda stream, size: digest_of(stream))
                now = standing(entry, self._keep_whole)
            yield _Change(place=entry.place, before=now, after=coming_one.result())
            return
        if isinstance(after, Standing):
            coming = {"": after}
        else:
            coming = {below: standing(each, self._keep_small) for below, each in after.held()}
        for below, each in entry.held():
            now, then = standing(each, self._keep_whole), coming.pop(below, ABSENT)
            if now != then:
                yield _Change(place=_below(entry, below), before=now, after=then)
        for below, then in coming.items():
            yield _Change(place=_below(entry, below), before=ABSENT, after=then)

    def _keep_whole(self, stream: BinaryIO, size: int) -> bytes:
        return self.blobs.put(stream, self.retention.make_room)

    def _keep_small(self, stream: BinaryIO, size: int) -> bytes:
        return self._keep_whole(stream, size) if size <= KEPT_AFTER else digest_of(stream)

    def _write(self, author: Author, found: Iterable[_Change]) -> dict[int, _Change]:
        """Their rows."""
        changes = list(found)  # contents are kept before, outside the transaction
        rows: dict[int, _Change] = {}
        with self._db.transaction() as connection:
            for change in changes:
                self._heal(author.task, change)
                self._db.execute(_ADD, self._row(author, change))
                rows[connection.last_insert_rowid()] = change
        return rows

    def _row(self, author: Author, change: _Change) -> tuple[Any, ...]:
        who = (author.task, author.key, author.origin, author.undo, 0, self._clock.now(), author.workspace)
        return (*who, os.fsencode(change.place), *_values(change.before), *_values(change.after))

    def _heal(self, task: str, change: _Change) -> None:
        """An earlier change of the path was cut off by a crash: what stands there now tells whether it took place."""
        row = self._db.row(_OPEN, (task, os.fsencode(change.place)))
        if row is not None:
            before, after = _before(row), _after(row)
            undone = before.same(change.before) and not after.same(change.before)
            self._db.execute(_FORGET if undone else _DONE, (row["id"],))

    def _settle(self, author: Author, rows: Mapping[int, _Change]) -> None:
        """A change failed, perhaps in its middle: keep of it what did take place."""
        with self._db.transaction():
            for number, change in rows.items():
                now = standing(_entry(author.workspace, change.place), lambda stream, size: digest_of(stream))
                if now == change.before:
                    self._db.execute(_FORGET, (number,))
                else:
                    self._db.execute(_TOOK_PLACE, (*_values(now), number))

    def _forget(self, rows: Iterable[int]) -> None:
        with self._db.transaction():
            for number in rows:
                self._db.execute(_FORGET, (number,))

    # what a task did --------------------------------------------------------------------------------------------------

    def mark(self, task: str) -> int:
        """The position in the ledger now: what comes after it is what `restore` takes back."""
        row = self._db.row("SELECT coalesce(max(id), 0) AS id FROM changes WHERE task = ?", (task,))
        return int(row["id"]) if row else 0

    def has(self, task: str) -> bool:
        """Whether anything is known of it, or was before it was forgotten."""
        return bool(self.mark(task)) or self.pruned(task) is not None

    def workspace(self, task: str) -> str | None:
        """Where it changed something."""
        row = self._db.row("SELECT workspace FROM changes WHERE task = ? LIMIT 1", (task,))
        return str(row["workspace"]) if row else None

    def undos(self, task: str) -> int:
        """How often it was undone."""
        row = self._db.row("SELECT coalesce(max(undo), 0) AS undo FROM changes WHERE task = ?", (task,))
        return int(row["undo"]) if row else 0

    def next_undo(self, task: str) -> int:
        """The number of an undo that begins now, or goes on after a crash."""
        last = self.undos(task)
        cut_off = self._db.row("SELECT 1 FROM changes WHERE task = ? AND undo = ? AND done = 0", (task, last))
        return last if last and cut_off else last + 1

    def before_last_undo(self, task: str) -> int:
        """The position before the last undo; `Conflict` when there was none."""
        row = self._db.row(
            "SELECT min(id) AS id FROM changes WHERE task = ? AND undo = ?", (task, self.undos(task) or -1)
        )
        if row is None or row["id"] is None:
            raise Conflict(f"{task} was not undone, or there was nothing to take back", hint=f"agentd diff {task}")
        return int(row["id"]) - 1

    def pruned(self, task: str) -> str | None:
        """Why the changes of a task are not known any more; None when they are."""
        row = self._db.row("SELECT why FROM changes_pruned WHERE task = ?", (task,))
        return str(row["why"]) if row else None

    def changes(self, task: str) -> tuple[FileChange, ...]:
        """The net effect of a task on each file, by path; what an undo did to it later is left out."""
        net: dict[str, tuple[Standing, Standing]] = {}
        for row in self._rows(task):
            if row["undo"] == 0:
                place = os.fsdecode(row["path"])
                first = net[place][0] if place in net else _before(row)
                net[place] = (first, _after(row))
        found = (file_change(place, before, after, self.blobs) for place, (before, after) in sorted(net.items()))
        return tuple(change for change in found if change is not None)

    def own(self, task: str, workspace: Workspace) -> Own:
        """What the task itself did, tests apart; contents too large to be kept are read where they still stand."""
        turns: dict[str, list[Turn]] = {}
        places: dict[bytes, str] = {}
        for row in self._rows(task):
            if row["origin"] != "test" and row["done"]:
                place, turn = os.fsdecode(row["path"]), Turn(key=row["key"], before=_before(row), after=_after(row))
                turns.setdefault(place, []).append(turn)
                places[turn.after.digest] = place
        return Own(turns=turns, read=lambda side: self._read(side, workspace, places.get(side.digest)))

    def _read(self, side: Standing, workspace: Workspace, place: str | None) -> bytes | None:
        if self.blobs.has(side.digest):
            return self.blobs.whole(side.digest)
        if place is None:
            return None
        with workspace.at(place) as entry:
            if standing(entry, lambda stream, size: digest_of(stream)) != side:
                return None
        return workspace.read_bytes(place, side.size)

    def diff(self, task: str) -> str:
        """The net effect as one unified diff."""
        return "".join(change.diff for change in self.changes(task))

    def pre_image(self, task: str, path: str) -> bytes | None:
        """The bytes of a file before the task changed it first; None when there was no file, or it changed nothing."""
        row = self._db.row(
            "SELECT * FROM changes WHERE task = ? AND path = ? AND undo = 0 ORDER BY id LIMIT 1",
            (task, os.fsencode(path)),
        )
        if row is None or row["before_kind"] not in ("file", "link"):
            return None
        return self.blobs.whole(row["before_digest"])

    def restore(
        self,
        task: str,
        workspace: Workspace,
        since: int = 0,
        *,
        paths: Collection[str] = (),
        dry_run: bool = False,
        undo: int = 0,
    ) -> Restored:
        """Take back what the task changed after `since`, and nothing that anyone else did; see `restore.Restorer`.

        `paths` limits it to files and folders; `undo`: its number where a person takes back what has ended.
        """
        with self.retention.sparing(task):
            return self._restored(task, workspace, since, paths, dry_run=dry_run, undo=undo)

    def _restored(
        self, task: str, workspace: Workspace, since: int, paths: Collection[str], *, dry_run: bool, undo: int
    ) -> Restored:
        self._look_after_crash(task, workspace, dry_run=dry_run)
        author = Author(task=task, key=f"restore-{since}", workspace=str(workspace.root), origin="restore", undo=undo)
        histories = self._histories(self._rows(task, since), paths)
        restorer = Restorer(workspace, self.blobs, self._keeper(author), key=f"{task}-{since}")
        if dry_run:
            return restorer.preview(histories)
        restored = restorer.restore(histories)
        with self._db.transaction():
            self.finish(task, author.key)
            self._record("snapshot.restored", task, {"since": since, "undo": undo, **restored.told})
        return restored

    def _look_after_crash(self, task: str, workspace: Workspace, *, dry_run: bool) -> None:
        """A program was cut off, and its run is not taken up again: what differs now may be its doing, or someone's."""
        for key in () if dry_run else self._survey.open(task):
            self._found(Author(task=task, key=key, workspace=str(workspace.root), origin="test"), workspace, Watched())

    def _histories(self, rows: Iterable[Mapping[str, Any]], paths: Collection[str]) -> dict[str, list[Segment]]:
        """What happened to each path, in order."""
        found: dict[str, list[Segment]] = {}
        for row in rows:
            place = os.fsdecode(row["path"])
            if not paths or any(place == path or place.startswith(f"{path}/") for path in paths):
                segment = Segment(
                    before=_before(row), after=_after(row), shared=row["origin"] == "test", done=bool(row["done"])
                )
                found.setdefault(place, []).append(segment)
        return found

    def _rows(self, task: str, since: int = 0) -> list[dict[str, Any]]:
        return self._db.rows(_OF_TASK, (task, since))


def _is_large(entry: Entry) -> bool:
    found = entry.stat()
    return found is not None and stat.S_ISREG(found.st_mode) and found.st_size > KEPT_AFTER


def _is_folder(entry: Entry) -> bool:
    found = entry.stat()
    return found is not None and stat.S_ISDIR(found.st_mode)


def _marks(entry: Entry) -> dict[str, tuple[int, ...]]:
    return {below: mark(each.stat()) for below, each in entry.held()}


def _below(entry: Entry, below: str) -> str:
    return f"{entry.place}/{below}" if below else entry.place


def _entry(root: str, place: str) -> Entry:
    return Entry(path=place, name=os.path.join(root, place), folder=None, place=place)


def _before(row: Mapping[str, Any]) -> Standing:
    return Standing(**{name: row[f"before_{name}"] for name in _STANDING})


def _after(row: Mapping[str, Any]) -> Standing:
    return Standing(**{name: row[f"after_{name}"] for name in _STANDING})


def _values(found: Standing) -> tuple[Any, ...]:
    return (found.kind, found.mode, found.size, found.digest)
