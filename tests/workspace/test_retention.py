"""The ledger forgets by age and by size, only what has ended, and says so; what it cannot keep is not changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agentd.config import SnapshotSettings
from agentd.errors import ToolFailed
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.tasks.queue import Queue
from agentd.types import JsonObject, Report, TaskRequest, TaskState
from agentd.workspace import retention
from agentd.workspace.blobs import PIECE
from agentd.workspace.paths import Workspace
from agentd.workspace.retention import Housekeeper
from agentd.workspace.snapshots import Ledger, Watched

DAY = 86_400.0


@dataclass
class Clock:
    time: float = 1_000_000_000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Bench:
    db: Database
    clock: Clock
    root: Path
    settings: SnapshotSettings = field(default_factory=SnapshotSettings)
    told: list[tuple[str, str, JsonObject]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.audit = Audit(self.db, self.clock)
        self.ledger = Ledger(
            self.db,
            self.clock,
            settings=lambda: self.settings,
            record=self.audit.record,
            emit=lambda kind, task, data: self.told.append((kind, task, data)),
        )
        self.queue = Queue(self.db, self.audit, lambda kind, task, data: None, self.clock)

    def write(self, task: str, path: str, data: bytes) -> None:
        Workspace(self.root, self.ledger.keeper(task, "1", self.root)).write_atomic(path, data)
        self.ledger.finish(task, "1")

    def task(self, *, ended: bool) -> str:
        self.queue.submit(TaskRequest(goal="work", workspace=str(self.root)))
        task = self.queue.claim("worker")
        assert task is not None
        if ended:
            self.queue.finish(task, Report(state=TaskState.CLAIMED, answer=""))
        return task.id


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root = tmp_path / "work"
    root.mkdir()
    clock = Clock()
    db = Database(tmp_path / "agentd.db", clock=clock)
    yield Bench(db, clock, root)
    db.close()


def test_what_is_old_and_has_ended_is_forgotten_with_its_contents(bench: Bench) -> None:
    old, running = bench.task(ended=True), bench.task(ended=False)
    for task in (old, running):
        (bench.root / task).write_bytes(os.urandom(1000))
        bench.write(task, task, b"new")
    bench.clock.time += 31 * DAY
    young = bench.task(ended=True)
    bench.write(young, "young", b"x")
    assert bench.ledger.retention.prune() == [old]
    assert not bench.ledger.changes(old)
    assert bench.ledger.changes(running)
    assert bench.ledger.changes(young)
    assert "30 days" in (bench.ledger.pruned(old) or "")
    assert bench.told == [("SnapshotsForgotten", old, {"why": "it lies back more than 30 days"})]
    assert [each.task for each in bench.audit.tail(50) if each.kind == "snapshot.forgotten"] == [old]
    assert bench.ledger.blobs.stored() < 2000
    assert not bench.ledger.retention.prune()


def test_when_it_is_too_much_what_lies_back_longest_goes_first(bench: Bench) -> None:
    bench.settings = SnapshotSettings(max_mb=16)
    tasks = []
    for number in range(5):
        tasks.append(bench.task(ended=True))
        (bench.root / str(number)).write_bytes(os.urandom(4 << 20))
        bench.write(tasks[-1], str(number), b"x")
        bench.clock.time += 1
    assert bench.ledger.blobs.stored() <= 16 << 20
    assert [task for task in tasks if bench.ledger.pruned(task)] == tasks[:2]
    assert "16 MiB" in (bench.ledger.pruned(tasks[0]) or "")
    for number in (2, 3, 4):
        bench.ledger.restore(tasks[number], Workspace(bench.root))
        assert (bench.root / str(number)).stat().st_size == 4 << 20


def test_what_cannot_be_kept_is_not_changed(bench: Bench) -> None:
    bench.settings = SnapshotSettings(max_mb=16)
    running = bench.task(ended=False)
    for number in range(3):
        (bench.root / str(number)).write_bytes(os.urandom(6 << 20))
    bench.write(running, "0", b"x")
    bench.write(running, "1", b"x")
    before = (bench.root / "2").read_bytes()
    with pytest.raises(ToolFailed, match=r"snapshots\.max_mb = 16") as caught:
        bench.write(running, "2", b"x")
    assert "nothing was changed" in caught.value.hint
    assert (bench.root / "2").read_bytes() == before
    with pytest.raises(ToolFailed):
        Workspace(bench.root, bench.ledger.keeper(running, "1", bench.root)).delete("2")
    assert (bench.root / "2").read_bytes() == before
    bench.ledger.restore(running, Workspace(bench.root))
    assert (bench.root / "0").stat().st_size == 6 << 20


def test_what_is_being_kept_is_not_dropped_to_make_room_for_the_rest_of_it(bench: Bench) -> None:
    bench.settings = SnapshotSettings(max_mb=16)
    old, new = bench.task(ended=True), bench.task(ended=True)
    (bench.root / "old").write_bytes(os.urandom(10 << 20))
    bench.write(old, "old", b"x")
    (bench.root / "folder").mkdir()
    for number in range(3):
        (bench.root / "folder" / str(number)).write_bytes(os.urandom(4 << 20))
    kept = {path.name: path.read_bytes() for path in (bench.root / "folder").iterdir()}
    Workspace(bench.root, bench.ledger.keeper(new, "1", bench.root)).delete("folder")
    assert bench.ledger.pruned(old)
    assert not bench.ledger.restore(new, Workspace(bench.root)).conflicts
    assert {path.name: path.read_bytes() for path in (bench.root / "folder").iterdir()} == kept


def test_what_is_being_taken_back_is_not_forgotten_to_make_room_for_it(bench: Bench) -> None:
    task = bench.task(ended=True)
    contents = {name: os.urandom(5_200_000) for name in ("a", "b", "c")}
    for name, data in contents.items():
        (bench.root / name).write_bytes(data)
        Workspace(bench.root, bench.ledger.keeper(task, "1", bench.root)).delete(name)
    bench.ledger.finish(task, "1")
    (bench.root / "0").write_text("line\n" * 4)
    bench.write(task, "0", b"agent\n" + b"line\n" * 4)
    (bench.root / "0").write_text(
        "agent\n" + "line\n" * 4 + "".join(f"{os.urandom(30).hex()}\n" for _ in range(30_000))
    )
    bench.settings = SnapshotSettings(max_mb=16)
    restored = bench.ledger.restore(task, Workspace(bench.root))
    assert {name: (bench.root / name).read_bytes() for name in contents} == contents
    assert [conflict.path for conflict in restored.conflicts] == ["0"]
    assert (bench.root / "0").read_text().count("line\n") == 4
    bench.ledger.restore(task, Workspace(bench.root))
    assert bench.ledger.pruned(task) is None


def test_a_survey_goes_before_any_task_does(bench: Bench) -> None:
    bench.settings = SnapshotSettings(max_mb=16)
    (bench.root / "seen").write_bytes(os.urandom(4 << 20))
    with bench.ledger.watching("t", "1", Workspace(bench.root), "test", Watched()):
        pass
    task = bench.task(ended=True)
    (bench.root / "changed").write_bytes(os.urandom(14 << 20))
    bench.write(task, "changed", b"x")
    assert bench.ledger.pruned(task) is None
    assert not bench.db.rows("SELECT * FROM surveyed")


def test_a_survey_grows_old(bench: Bench) -> None:
    (bench.root / "seen").write_bytes(os.urandom(1000))
    with bench.ledger.watching("t", "1", Workspace(bench.root), "test", Watched()):
        pass
    bench.clock.time += 31 * DAY
    bench.ledger.retention.prune()
    assert not bench.db.rows("SELECT * FROM surveyed")
    assert bench.ledger.blobs.stored() == 0


def test_the_housekeeper_compresses_what_was_kept_in_a_hurry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PAUSE", 0.0)
    task = bench.task(ended=True)
    data = b"".join(b"%d lines of text that say much the same\n" % number for number in range(100_000))
    (bench.root / "large").write_bytes(data)
    bench.write(task, "large", b"x")
    assert bench.ledger.blobs.stored() > len(data)
    keeper = Housekeeper(bench.ledger.retention, bench.ledger.blobs)
    keeper.start()
    for _ in range(1000):
        if not bench.db.rows("SELECT 1 FROM pieces WHERE packed = 0"):
            break
        keeper._stopping.wait(0.01)
    keeper.stop()
    assert bench.ledger.blobs.stored() < len(data) // 3
    assert len(bench.db.rows("SELECT 1 FROM pieces")) > len(data) // PIECE
    assert bench.ledger.pre_image(task, "large") == data
