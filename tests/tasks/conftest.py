"""A queue over a real database, with a clock that stands still."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentd.events import Bus, Event
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tasks.request import Defaults
from agentd.types import AccessLevel, Budget, Clock, Report, Task, TaskRequest, TaskState

DEFAULTS = Defaults(level=AccessLevel.RUN_TESTS, max_level=AccessLevel.GIT_COMMIT, budget=Budget(steps=7))


class StillClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Bench:
    clock: Clock
    db: Database
    audit: Audit
    events: EventLog
    queue: Queue
    workspace: Path

    def request(self, goal: str = "count the lines", **fields: Any) -> TaskRequest:
        return TaskRequest(**{"goal": goal, "workspace": str(self.workspace), **fields})

    def submit(self, goal: str = "count the lines", **fields: Any) -> Task:
        return self.queue.submit(self.request(goal, **fields))

    def claim(self) -> Task:
        task = self.queue.claim("worker-1")
        assert task is not None
        return task

    def finish(self, task: Task, state: TaskState = TaskState.VERIFIED, **fields: Any) -> None:
        self.queue.finish(task, Report(**{"state": state, "answer": "42", **fields}))

    def journal(self, task: Task) -> TaskJournal:
        return TaskJournal(self.db, task, self.clock)

    def kinds(self, task_id: str) -> list[str]:
        """The kinds of the audit records of a task, the oldest first."""
        return [record.kind for record in sorted(self.audit.tail(1000, task=task_id), key=lambda record: record.seq)]

    def told(self, task_id: str) -> list[Event]:
        return self.events.since(0, task=task_id)


OpenBench = Callable[..., Bench]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[OpenBench]:
    opened: list[Database] = []

    def bench(clock: Clock | None = None, lease_seconds: float = 60.0) -> Bench:
        workspace = tmp_path / "workspace"
        workspace.mkdir(exist_ok=True)
        clock = clock or StillClock()
        db = Database(tmp_path / "agentd.db", clock=clock)
        opened.append(db)
        audit = Audit(db, clock)
        events = EventLog(db, Bus(), clock)
        queue = Queue(
            db,
            audit,
            events.emit,
            clock,
            defaults=lambda: DEFAULTS,
            lease_seconds=lease_seconds,
            noise=random.Random(1),
        )
        return Bench(clock=clock, db=db, audit=audit, events=events, queue=queue, workspace=workspace)

    yield bench
    for db in opened:
        db.close()


@pytest.fixture
def bench(open_bench: OpenBench) -> Bench:
    return open_bench()
