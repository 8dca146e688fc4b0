"""Whatever changes files through the gate stands in the ledger, also where a crash came in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentd.clock import SystemClock
from agentd.events import Bus
from agentd.policy.engine import PolicyEngine
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.store.outputs import Outputs
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tools.catalog import builtin
from agentd.tools.gate import Gate
from agentd.types import AccessLevel, Scope, TaskRequest, ToolCall, ToolResult
from agentd.workspace.paths import Workspace
from agentd.workspace.restore import Restored
from agentd.workspace.snapshots import Ledger

POLICIES = Path(__file__).parents[2] / "policies"


class Crash(BaseException):
    """The process dies here."""


@dataclass(kw_only=True)
class Bench:
    """A task, and the gate that it acts through."""

    db: Database
    gate: Gate
    ledger: Ledger
    queue: Queue
    workspace: Path
    task: str = ""
    calls: int = 0

    def claim(self) -> Scope:
        """The task as the next life of the daemon has it."""
        if not self.task:
            self.task = self.queue.submit(TaskRequest(goal="do it", workspace=str(self.workspace))).id
        self.queue.recover()
        task = self.queue.claim("worker")
        assert task is not None
        assert task.id == self.task
        journal = TaskJournal(self.db, task, SystemClock())
        return Scope(task=self.task, workspace=str(self.workspace), level=AccessLevel.RUN_TESTS, journal=journal)

    def call(self, scope: Scope, tool: str, key: str = "", **args: object) -> ToolResult:
        self.calls += 1
        return self.gate.call(ToolCall(tool=tool, args=args), scope, key or f"{self.calls:05d}")

    def undo(self) -> Restored:
        return self.ledger.restore(self.task, Workspace(self.workspace))


@pytest.fixture(scope="module")
def policy() -> PolicyEngine:
    return PolicyEngine.load(POLICIES)


@pytest.fixture
def bench(tmp_path: Path, policy: PolicyEngine) -> Iterator[Bench]:
    workspace = tmp_path / "work"
    workspace.mkdir()
    clock = SystemClock()
    db = Database(tmp_path / "agentd.db", clock=clock)
    audit, events = Audit(db, clock), EventLog(db, Bus(), clock)
    ledger = Ledger(db, clock, record=audit.record)
    gate = Gate(builtin(), policy, audit, events.emit, Outputs(db, clock), clock, ledger=ledger)
    queue = Queue(db, audit, events.emit, clock, lease_seconds=60)
    yield Bench(db=db, gate=gate, ledger=ledger, queue=queue, workspace=workspace)
    db.close()


def names(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_file_tools_are_taken_back(bench: Bench) -> None:
    (bench.workspace / "a.txt").write_text("one\ntwo\n")
    (bench.workspace / "src").mkdir()
    (bench.workspace / "src/b.py").write_text("b = 1\n")
    before = names(bench.workspace)
    scope = bench.claim()
    bench.call(scope, "edit_file", path="a.txt", search="two", replace="TWO")
    bench.call(scope, "write_file", path="new/c.txt", content="c\n")
    bench.call(scope, "move_path", source="src", target="lib")
    bench.call(scope, "copy_path", source="lib/b.py", target="copy.py")
    bench.call(scope, "delete_path", path="a.txt")
    assert names(bench.workspace) == {"new/c.txt": "c\n", "lib/b.py": "b = 1\n", "copy.py": "b = 1\n"}
    restored = bench.undo()
    assert names(bench.workspace) == before
    assert not restored.conflicts


@pytest.mark.parametrize("moment", ["before the change", "after the change"])
def test_a_crash_around_a_change_leaves_one_whole_record(
    bench: Bench, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.workspace / "a.txt").write_text("one\n")
    args = {"path": "a.txt", "search": "one", "replace": "two"}
    with monkeypatch.context() as patch:
        target = "agentd.workspace.paths.Entry.rename" if moment == "before the change" else "agentd.tools.gate._stored"

        def die(*_: object) -> None:
            raise Crash

        patch.setattr(target, die)
        with pytest.raises(Crash):
            bench.call(bench.claim(), "edit_file", "1", **args)
    changed = moment == "after the change"
    assert (bench.workspace / "a.txt").read_text() == ("two\n" if changed else "one\n")
    scope = bench.claim()
    for _ in range(2):  # the second time it is a replay
        bench.call(scope, "edit_file", "1", **args)
    assert (bench.workspace / "a.txt").read_text() == "two\n"
    rows = bench.db.rows("SELECT done FROM changes")
    assert [row["done"] for row in rows] == [1]
    assert bench.ledger.pre_image(bench.task, "a.txt") == b"one\n"
    bench.undo()
    assert names(bench.workspace) == {"a.txt": "one\n"}


def test_a_call_that_belongs_to_no_task_can_be_taken_back_by_its_key(bench: Bench) -> None:
    scope = bench.claim()
    bench.gate.call(ToolCall(tool="write_file", args={"path": "a", "content": "x"}), _without_task(scope), "direct-1")
    assert [change.path for change in bench.ledger.changes("direct-1")] == ["a"]


def _without_task(scope: Scope) -> Scope:
    return Scope(task="", workspace=scope.workspace, level=scope.level, journal=scope.journal)
