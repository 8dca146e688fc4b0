"""What was shown is applied to the byte, all of it or nothing, also across a crash."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentd.agent.rehearsal import Rehearsal
from agentd.app import App, build
from agentd.config import init_home, load_settings
from agentd.errors import BadInput, Conflict, InDoubt, NeedsApproval
from agentd.policy.engine import PolicyEngine
from agentd.tasks.apply import apply
from agentd.tasks.journal import TaskJournal
from agentd.types import Report, Task, TaskRequest, TaskState
from agentd.workspace.hunks import NOTHING, Content
from agentd.workspace.paths import Workspace
from agentd.workspace.shadow import Changed


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Bench:
    app: App
    folder: Path

    def shown(self, *changed: Changed) -> str:
        """A task that has shown these changes."""
        request = TaskRequest(goal="x", workspace=str(self.folder), mode="shadow")
        task = self.app.queue.submit(request)
        claimed = self.app.queue.claim("test")
        assert claimed is not None
        self.app.previews.keep(task.id, changed)
        self.app.queue.finish(claimed, Report(state=TaskState.CLAIMED, answer=""))
        return task.id

    def claim(self) -> Task:
        task = self.app.queue.claim("test")
        assert task is not None
        return task

    def run(self, task: Task) -> Report:
        app = self.app
        rehearsal = Rehearsal(
            work=app.runner.run, gate=app.gate, shadows=app.shadows, previews=app.previews, clock=app.clock
        )
        return rehearsal.run(task, TaskJournal(app.db, task, app.clock), threading.Event())

    def apply(self, shown: str) -> Report:
        apply(self.app.queue, self.app.previews, shown)
        return self.run(self.claim())


@pytest.fixture
def bench(tmp_path: Path, policy: PolicyEngine) -> Iterator[Bench]:
    init_home(tmp_path / "home")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"a\r\nb")
    (folder / "b.txt").write_text("b\n")
    (folder / "a.txt").chmod(0o644)
    (folder / "b.txt").chmod(0o644)
    app = build(load_settings(tmp_path / "home"), policy=policy)
    yield Bench(app, folder)
    app.stop()


EDIT = Changed(path="a.txt", before=Content(data=b"a\r\nb", mode=0o644), after=Content(data=b"\xff\0\r\n", mode=0o644))
GONE = Changed(path="b.txt", before=Content(data=b"b\n", mode=0o644), after=NOTHING)
NEW = Changed(path="bin/c", before=NOTHING, after=Content(data=b"#!/bin/sh\n", mode=0o755))


def test_it_is_applied_to_the_byte_and_can_be_taken_back(bench: Bench) -> None:
    report = bench.apply(bench.shown(EDIT, GONE, NEW))
    assert (report.state, report.changed) == (TaskState.CLAIMED, ("a.txt", "b.txt", "bin/c"))
    assert (bench.folder / "a.txt").read_bytes() == b"\xff\0\r\n"
    assert not (bench.folder / "b.txt").exists()
    assert (bench.folder / "bin" / "c").stat().st_mode & 0o777 == 0o755
    (task,) = [task for task in bench.app.queue.list() if task.applies]
    bench.app.ledger.restore(task.id, Workspace(bench.folder))
    assert (bench.folder / "a.txt").read_bytes() == b"a\r\nb"
    assert sorted(path.name for path in bench.folder.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("edit", ["content", "mode", "gone", "there"])
def test_a_file_that_is_not_as_it_was_refuses_all(bench: Bench, edit: str) -> None:
    shown = bench.shown(EDIT, GONE, NEW)
    match edit:
        case "content":
            (bench.folder / "b.txt").write_text("mine\n")
        case "mode":
            (bench.folder / "b.txt").chmod(0o600)
        case "gone":
            (bench.folder / "b.txt").unlink()
        case _:
            (bench.folder / "bin").mkdir()
            (bench.folder / "bin" / "c").write_text("mine\n")
    report = bench.apply(shown)
    assert (report.state, "nothing is applied" in report.reason) == (TaskState.FAILED, True)
    assert (bench.folder / "a.txt").read_bytes() == b"a\r\nb"


def test_a_file_takes_the_place_of_a_folder(bench: Bench) -> None:
    folder = bench.folder / "d" / "e"
    folder.mkdir(parents=True)
    (folder / "f").write_text("f\n")
    (folder / "f").chmod(0o644)
    inner = Changed(path="d/e/f", before=Content(data=b"f\n", mode=0o644), after=NOTHING)
    outer = Changed(path="d/e", before=NOTHING, after=Content(data=b"file\n", mode=0o644))
    assert bench.apply(bench.shown(EDIT, outer, inner)).state is TaskState.CLAIMED
    assert folder.read_bytes() == b"file\n"


def test_a_failure_in_its_middle_leaves_all_as_it_was(bench: Bench) -> None:
    folder = bench.folder / "d"
    folder.mkdir()
    (folder / "mine").write_text("u\n")
    report = bench.apply(
        bench.shown(EDIT, GONE, Changed(path="d", before=NOTHING, after=Content(data=b"x", mode=0o644)))
    )
    assert (report.state, "d is a folder" in report.reason) == (TaskState.FAILED, True)
    assert (bench.folder / "a.txt").read_bytes() == b"a\r\nb"
    assert (bench.folder / "b.txt").read_text() == "b\n"


@pytest.mark.parametrize("when", [1, 2])
def test_a_crash_in_its_middle_is_gone_on_from(bench: Bench, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    apply(bench.app.queue, bench.app.previews, bench.shown(EDIT, NEW))
    real, written = Workspace.write_atomic, []

    def dying(self: Workspace, path: str, data: bytes, key: str = "", *, mode: int | None = None) -> None:
        written.append(path)
        real(self, path, data, key, mode=mode)
        if len(written) == when:
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "write_atomic", dying)
        with pytest.raises(Crash):
            bench.run(bench.claim())
    bench.app.queue.recover()
    assert bench.run(bench.claim()).state is TaskState.CLAIMED
    assert (bench.folder / "a.txt").read_bytes() == b"\xff\0\r\n"
    assert (bench.folder / "bin" / "c").read_bytes() == b"#!/bin/sh\n"


def test_somebody_elses_edit_after_a_crash_is_in_doubt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(bench.app.queue, bench.app.previews, bench.shown(EDIT, GONE))

    def dying(self: Workspace, path: str, key: str = "", **more: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "delete", dying)
        with pytest.raises(Crash):
            bench.run(bench.claim())
    (bench.folder / "b.txt").write_text("mine\n")
    bench.app.queue.recover()
    with pytest.raises(InDoubt, match=r"b\.txt"):
        bench.run(bench.claim())
    assert (bench.folder / "b.txt").read_text() == "mine\n"


def test_policy_judges_it_like_any_write(bench: Bench) -> None:
    new = Content(data=b"[x]\n", mode=0o644)
    with pytest.raises(NeedsApproval):
        bench.apply(bench.shown(Changed(path="setup.cfg", before=NOTHING, after=new)))
    report = bench.apply(bench.shown(EDIT, Changed(path=".env", before=NOTHING, after=new)))
    assert report.state is TaskState.DENIED
    assert (bench.folder / "a.txt").read_bytes() == b"a\r\nb"


def test_links_are_not_applied(bench: Bench) -> None:
    link = Changed(path="l", before=NOTHING, after=Content(data=b"/etc/passwd", link=True))
    report = bench.apply(bench.shown(EDIT, link))
    assert (report.state, "a link" in report.reason) == (TaskState.FAILED, True)
    assert (bench.folder / "a.txt").read_bytes() == b"a\r\nb"


def test_what_cannot_be_applied(bench: Bench) -> None:
    with pytest.raises(BadInput, match="no file"):
        bench.apply(bench.shown())
    real = bench.app.queue.submit(TaskRequest(goal="x", workspace=str(bench.folder)))
    with pytest.raises(BadInput, match="the workspace itself"):
        bench.apply(real.id)
    dry = bench.app.queue.submit(TaskRequest(goal="x", workspace=str(bench.folder), mode="dry_run"))
    with pytest.raises(Conflict, match="is queued"):
        bench.apply(dry.id)
    with pytest.raises(BadInput, match="not in a copy"):
        bench.app.queue.submit(TaskRequest(goal="x", workspace=str(bench.folder), mode="dry_run", tool=True))
    with pytest.raises(BadInput, match="no task"):
        bench.app.queue.submit(TaskRequest(goal="x", workspace=str(bench.folder), applies="nope"))


def test_what_is_shown_holds_no_secret_and_what_is_applied_does(bench: Bench) -> None:
    bench.app.vault.set("box", "open sesame")
    new = Changed(path="c.txt", before=NOTHING, after=Content(data=b"say open sesame\n", mode=0o644))
    task = bench.shown(new)
    assert "+say [left out: secret of the vault]\n" in bench.app.undo.changes(task).diff
    assert "open sesame" not in str(bench.app.db.rows("SELECT diff FROM preview_files"))
    bench.apply(task)
    assert (bench.folder / "c.txt").read_text() == "say open sesame\n"
