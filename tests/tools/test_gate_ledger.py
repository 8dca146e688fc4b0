"""Whatever changes files through the gate stands in the ledger, also where a crash came in between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentd.clock import SystemClock
from agentd.errors import ToolFailed
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
from agentd.tools.tool import Tool, ToolContext, tool
from agentd.types import AccessLevel, Action, Effect, Scope, TaskRequest, ToolCall, ToolResult
from agentd.workspace import survey
from agentd.workspace.paths import Workspace
from agentd.workspace.restore import Restored
from agentd.workspace.snapshots import Ledger, Watched


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
        early = moment == "before the change"
        target = "agentd.workspace.paths.Entry.rename" if early else "agentd.tools.results.Results.stored"

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


# programs of the project ----------------------------------------------------------------------------------------------


def python_tool(code: str, kind: str = "shell.exec") -> Tool:
    """A tool `program` that runs a Python program in the workspace, as a command or as tests."""

    argv = ("black", ".") if kind == "shell.exec" else ("python", "-m", "pytest")

    @tool(actions=lambda a: [Action(kind=kind, argv=argv)], effect=Effect.IDEMPOTENT)
    def program(ctx: ToolContext) -> ToolResult:
        """Run it."""
        done = subprocess.run([sys.executable, "-c", code], cwd=ctx.workspace.root, check=False)
        if done.returncode:
            raise ToolFailed("it failed")
        return ToolResult(ok=True, text="ran")

    return program


def with_program(bench: Bench, code: str, kind: str = "shell.exec") -> None:
    bench.gate.tools = {**bench.gate.tools, "program": python_tool(code, kind)}


CHANGES = """
import os, pathlib
pathlib.Path("a.txt").write_text("formatted\\n")
pathlib.Path("b.txt").unlink()
pathlib.Path("made").mkdir()
pathlib.Path("made/c.txt").write_text("new\\n")
os.chmod("d.sh", 0o755)
"""


@pytest.fixture
def project(bench: Bench) -> Path:
    for name in ("a.txt", "b.txt", "d.sh", "e.txt"):
        (bench.workspace / name).write_text(f"{name}\n")
    return bench.workspace


def test_what_a_command_changes_is_found_and_taken_back(bench: Bench, project: Path) -> None:
    before = names(project)
    with_program(bench, CHANGES)
    scope = bench.claim()
    result = bench.call(scope, "program")
    assert set(result.changed) == {"a.txt", "b.txt", "made/c.txt", "d.sh"}
    assert {change.path: change.kind for change in bench.ledger.changes(bench.task)} == {
        "a.txt": "changed",
        "b.txt": "deleted",
        "made/c.txt": "added",
        "d.sh": "mode",
    }
    restored = bench.undo()
    assert names(project) == before
    assert not (project / "d.sh").stat().st_mode & 0o100
    assert (restored.kept, restored.conflicts) == ((), ())


def test_what_stood_there_after_tests_is_kept_beside(bench: Bench, project: Path) -> None:
    with_program(bench, "open('a.txt', 'w').write('by the tests, or by a person meanwhile')", "test.run")
    bench.call(bench.claim(), "program")
    restored = bench.undo()
    assert (project / "a.txt").read_text() == "a.txt\n"
    assert restored.kept == ("a.txt.agentd-after",)
    assert (project / "a.txt.agentd-after").read_text().startswith("by the tests")


def test_a_second_look_reads_only_what_changed(bench: Bench, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_program(bench, "pass")
    scope = bench.claim()
    bench.call(scope, "program")
    read: list[str] = []
    real = survey.standing
    monkeypatch.setattr(survey, "standing", lambda place, take: read.append(place.path) or real(place, take))
    (project / "e.txt").write_text("a person's\n")
    bench.call(scope, "program")
    assert read == ["e.txt"]


def test_a_program_that_fails_is_looked_at_as_well(bench: Bench, project: Path) -> None:
    with_program(bench, "open('a.txt', 'w').write('half'); raise SystemExit(1)")
    assert not bench.call(bench.claim(), "program").ok
    bench.undo()
    assert (project / "a.txt").read_text() == "a.txt\n"


def test_what_was_too_large_is_said_and_left(bench: Bench, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MOST_BYTES", 1000)
    (project / "large").write_text("x" * 2000)
    with_program(bench, "open('large', 'a').write('more'); open('a.txt', 'w').write('new')")
    result = bench.call(bench.claim(), "program")
    assert result.data["unkept"] == ["large"]
    (record,) = [each for each in bench.gate.audit.tail(50, bench.task) if each.kind == "tool.finished"]
    assert (record.data["unkept"], record.data["found_changed"]) == (["large"], ["a.txt", "large"])
    bench.undo()
    assert (project / "large").read_text() == "x" * 2000 + "more"
    assert (project / "a.txt").read_text() == "a.txt\n"


def test_ignored_files_are_not_looked_at(bench: Bench, project: Path) -> None:
    (project / ".gitignore").write_text("*.log\n")
    with_program(bench, "open('x.log', 'w').write('x')")
    assert bench.call(bench.claim(), "program").changed == ()


def test_a_crash_in_a_program_is_seen_by_the_next_life(bench: Bench, project: Path) -> None:
    def die(*_: object) -> None:
        raise Crash

    code = "open('a.txt', 'a').write('once more\\n')"
    with_program(bench, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_found", die)
        with pytest.raises(Crash):
            bench.call(bench.claim(), "program", "1")
    bench.call(bench.claim(), "program", "1")
    assert (project / "a.txt").read_text() == "a.txt\nonce more\nonce more\n"
    assert bench.ledger.pre_image(bench.task, "a.txt") == b"a.txt\n"
    bench.undo()
    assert (project / "a.txt").read_text() == "a.txt\n"


def test_a_crash_in_a_program_that_is_not_run_again_is_seen_by_the_undo(bench: Bench, project: Path) -> None:
    def die(*_: object) -> None:
        raise Crash

    with_program(bench, "open('a.txt', 'a').write('more\\n')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "_found", die)
        with pytest.raises(Crash):
            bench.call(bench.claim(), "program", "1")
    assert bench.undo().kept == ("a.txt.agentd-after",)
    assert (project / "a.txt").read_text() == "a.txt\n"


def test_what_another_task_writes_meanwhile_is_not_the_programs(bench: Bench, project: Path) -> None:
    with_program(bench, "pass")
    other = Workspace(project, bench.ledger.keeper("t-other", "1", project))
    watched = Watched()
    with bench.ledger.watching("t-1", "1", Workspace(project), "command", watched):
        other.write_atomic("a.txt", b"the other's\n")
        (project / "b.txt").write_text("the program's\n")
    assert watched.changed == ["b.txt"]
