"""A real workspace, and a real ledger over a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.workspace.paths import Workspace
from agentd.workspace.restore import Restored
from agentd.workspace.snapshots import Ledger, OriginOfChange

TASK = "t-1"


class Agent:
    """Changes files of `root` as a task does, call after call."""

    def __init__(self, db: Database, root: Path) -> None:
        self.db = db
        self.root = root
        self.audit = Audit(db, SystemClock())
        self.ledger = Ledger(db, SystemClock(), record=self.audit.record)
        self.calls = 0

    def files(self, origin: OriginOfChange = "tool", task: str = TASK) -> Workspace:
        """The workspace of the next call."""
        self.calls += 1
        return Workspace(self.root, self.ledger.keeper(task, f"{self.calls:05d}", self.root, origin))

    def write(self, path: str, data: bytes | str) -> None:
        self.files().write_atomic(path, data.encode() if isinstance(data, str) else data, f"{self.calls:05d}")
        self.ledger.finish(TASK, f"{self.calls:05d}")

    def delete(self, path: str) -> None:
        self.files().delete(path, f"{self.calls:05d}")
        self.ledger.finish(TASK, f"{self.calls:05d}")

    def move(self, source: str, target: str) -> None:
        self.files().move(source, target)
        self.ledger.finish(TASK, f"{self.calls:05d}")

    def undo(self, since: int = 0, **more: Any) -> Restored:
        return self.ledger.restore(TASK, Workspace(self.root), since, **more)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def agent(tmp_path: Path, place: Path) -> Iterator[Agent]:
    db = Database(tmp_path / "agentd.db", clock=SystemClock())
    yield Agent(db, place)
    db.close()
