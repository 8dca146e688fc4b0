"""How long the ledger remembers: by age and by size, only of what has ended, and never without a word."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from agentd.config import SnapshotSettings
from agentd.errors import AgentdError, ToolFailed
from agentd.events import EventKind
from agentd.store.db import Database
from agentd.telemetry import get_logger
from agentd.types import Clock, Emit, JsonObject
from agentd.workspace.blobs import Blobs

log = get_logger(__name__)

MIB = 1024 * 1024
EVERY = 3600.0
"""Seconds between two looks."""
_AFTER_AN_ERROR = 60.0
_PAUSE = 0.05
"""Seconds between two batches of pieces that are compressed, in which others may write."""

Record: TypeAlias = Callable[[str, str, JsonObject], Any]

# What belongs to no task has ended as soon as it is there.
_ENDED = """
    SELECT task, max(at) AS last FROM changes
    WHERE task NOT IN (SELECT id FROM tasks WHERE state IN ('queued', 'running', 'waiting'))
    GROUP BY task"""
_OLD = f"SELECT task FROM ({_ENDED}) WHERE last < ? ORDER BY last"
_LONGEST_BACK = f"SELECT task FROM ({_ENDED}) ORDER BY last"
_SURVEYED = "SELECT workspace FROM looks WHERE task = '' AND at < ?"
_ANY_SURVEYED = """
    SELECT workspace FROM looks AS old
    WHERE task = '' AND NOT EXISTS (SELECT 1 FROM looks WHERE workspace = old.workspace AND task <> '') ORDER BY at"""


class Retention:
    """Forgets what is too old or too much."""

    def __init__(
        self,
        db: Database,
        blobs: Blobs,
        clock: Clock,
        *,
        settings: Callable[[], SnapshotSettings],
        record: Record,
        emit: Emit,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._settings = settings
        self._record = record
        self._emit = emit
        self._sparing = threading.Lock()
        self._spared: Counter[str] = Counter()

    @contextmanager
    def sparing(self, task: str) -> Iterator[None]:
        """Meanwhile this one is not forgotten: what it takes back is needed to the end, and may itself need room."""
        with self._sparing:
            self._spared[task] += 1
        try:
            yield
        finally:
            with self._sparing:
                self._spared[task] -= 1

    def prune(self) -> list[str]:
        """Forget what is older than `keep_days`, then what is more than `max_mb`; the tasks that this concerns."""
        days = self._settings().keep_days
        before = self._clock.now() - days * 86_400
        self._forget_surveys(row["workspace"] for row in self._db.rows(_SURVEYED, (before,)))
        old = self._free(self._db.rows(_OLD, (before,)))
        self._forget(old, f"it lies back more than {days:g} days")
        with self._db.transaction():
            self._db.execute(
                "DELETE FROM preview_files WHERE task IN (SELECT task FROM previews WHERE at < ?)", (before,)
            )
            self._db.execute("DELETE FROM previews WHERE at < ?", (before,))
        self._blobs.drop_loose()
        return old + self._fit(0)

    def make_room(self, size: int) -> None:
        """Forget what it takes to keep so many bytes more; `ToolFailed` when that is not enough."""
        self._fit(size)
        stored, most = self._blobs.stored(), self._settings().max_mb
        if stored + size > most * MIB:
            raise ToolFailed(
                f"what is changed cannot be kept for an undo: {size} bytes more than the {stored} that are needed for "
                f"tasks which have not ended, and snapshots.max_mb = {most} allows no more",
                hint="nothing was changed; raise snapshots.max_mb: agentd config set snapshots.max_mb=…",
            )

    def _fit(self, size: int) -> list[str]:
        most = self._settings().max_mb * MIB
        if self._blobs.stored() + size <= most:
            return []
        self._forget_surveys(row["workspace"] for row in self._db.rows(_ANY_SURVEYED))
        self._blobs.drop_loose()
        forgotten: list[str] = []
        for task in self._free(self._db.rows(_LONGEST_BACK)):
            if self._blobs.stored() + size <= most:
                break
            self._forget([task], f"all together was more than {most // MIB} MiB")
            self._blobs.drop_loose()
            forgotten.append(task)
        return forgotten

    def _free(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        return [str(row["task"]) for row in rows if not self._is_spared(str(row["task"]))]

    def _is_spared(self, task: str) -> bool:
        with self._sparing:
            return self._spared[task] > 0

    def _forget(self, tasks: Iterable[str], why: str) -> None:
        for task in tasks:
            with self._db.transaction():
                if self._is_spared(task):
                    continue
                self._db.execute("DELETE FROM changes WHERE task = ?", (task,))
                self._db.execute("DELETE FROM looks WHERE task = ?", (task,))
                self._db.execute(
                    "INSERT INTO changes_pruned VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET why = excluded.why",
                    (task, self._clock.now(), why),
                )
                told = {"why": why}
                self._record("snapshot.forgotten", task, told)
                self._emit(EventKind.SNAPSHOTS_FORGOTTEN, task, told)
            log.warning("a task can no longer be undone", task=task, why=why)

    def _forget_surveys(self, workspaces: Iterable[str]) -> None:
        for workspace in list(workspaces):
            with self._db.transaction():
                self._db.execute("DELETE FROM surveyed WHERE workspace = ?", (workspace,))
                self._db.execute("DELETE FROM looks WHERE workspace = ? AND task = ''", (workspace,))


class Housekeeper:
    """A thread that prunes at the start and then every hour, and compresses what was kept in a hurry."""

    def __init__(self, retention: Retention, blobs: Blobs) -> None:
        self._retention = retention
        self._blobs = blobs
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_house, name="snapshots", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._blobs.grown.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _keep_house(self) -> None:
        while not self._stopping.is_set():
            try:
                self._retention.prune()
                while not self._stopping.wait(_PAUSE) and self._blobs.pack():
                    pass
                self._wait()
            except AgentdError:
                log.exception("old snapshots could not be forgotten")
                self._stopping.wait(_AFTER_AN_ERROR)

    def _wait(self) -> None:
        """An hour, in which the database's log is moved whenever much was written."""
        until = time.monotonic() + EVERY
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            if self._blobs.grown.wait(left) and not self._stopping.is_set():
                self._blobs.move_log()
