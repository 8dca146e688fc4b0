"""The power goes at every arrow of a task: at each commit of the database, and on either side of each effect.

What is on the disk at that moment is copied while the task goes on to its end; then work goes on from each copy.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agentd.app import App, build
from agentd.config import init_home, load_settings
from agentd.policy.engine import PolicyEngine
from agentd.store.db import Database
from agentd.tasks.journal import TaskJournal
from agentd.types import Budget, Check, Report, TaskRequest, TaskState
from tests.agent.conftest import DONE, Words, one_step

GREEN = "python -c \"assert 'bad' not in open('a.txt').read()\""
GIT = ("git", "-c", "user.name=T", "-c", "user.email=t@example.com")


class Said(Words):
    """The same words after a crash: as many are taken as said, as the journal has kept replies."""

    def __init__(self, app: App, *words: object) -> None:
        super().__init__(*words)
        self._app = app

    def chat(self, request: object, on_delta: object = None, cancel: object = None):
        row = self._app.db.row("SELECT count(*) AS n FROM journal WHERE result LIKE '%\"completion_tokens\"%'")
        self.asked = self.asked[:0] + [None] * row["n"]
        return super().chat(request)


class Flow:
    """One task in a repository, gone on with in new processes of the mind until it ends."""

    def __init__(self, folder: Path, policy: PolicyEngine, words: list[object], checks: list[str]) -> None:
        self.home, self.folder, self.words = folder / "home", folder / "work", words
        self.policy, self.kept = policy, folder.with_name("kept")
        init_home(self.home)
        self.folder.mkdir(parents=True)
        (self.folder / "a.txt").write_text("one\n")
        (self.folder / "mine.txt").write_text("clean\n")
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-qm", "Begin")
        (self.folder / "mine.txt").write_text("mine, not committed\n")
        app = build(load_settings(self.home), policy=policy)
        request = TaskRequest(
            goal="overwrite the file a.txt and git commit it",
            workspace=str(self.folder),
            level=3,
            checks=tuple(Check(target=check) for check in checks),
            budget=Budget(retries=0),
        )
        self.task = app.queue.submit(request).id
        app.stop()

    def keep(self, name: str) -> None:
        """What is on the disk now."""
        shutil.copytree(self.home.parent, self.kept / name, symlinks=True)

    def go_back(self, name: str) -> None:
        """To what was kept."""
        shutil.rmtree(self.home.parent)
        (self.kept / name).rename(self.home.parent)

    def git(self, *args: str) -> str:
        return subprocess.run([*GIT, *args], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def run(self) -> Report:
        """Bring the task to its end."""
        app = build(load_settings(self.home), policy=self.policy)
        app.db.connection().pragma("synchronous", "OFF")  # only the process dies, not the machine
        try:
            app.queue.recover()
            if task := app.queue.claim("test"):
                runner = replace(app.runner, models=Said(app, *self.words))
                report = runner.run(task, TaskJournal(app.db, task, app.clock), threading.Event())
                app.queue.finish(task, report)
            ended = app.queue.get(self.task).report
            assert ended is not None
            return ended
        finally:
            app.stop()


@contextmanager
def cutting_power(monkeypatch: pytest.MonkeyPatch, flow: Flow, *, committed: bool) -> Iterator[list[str]]:
    """Keeps what there is just before each commit, or when it has taken place; the list is of the names."""
    kept: list[str] = []
    commit = Database._commit

    def cut(db: Database, own: object) -> None:
        opens = db.row("SELECT 1 FROM journal WHERE state = 'intent'") is not None
        if committed:
            commit(db, own)
        # Just after a commit nothing is new but where an effect begins; just before one, it has ended.
        if opens or not committed:
            kept.append(str(len(kept)))
            flow.keep(kept[-1])
        if not committed:
            commit(db, own)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_commit", cut)
        yield kept


FLOWS = {
    "green": [
        one_step("overwrite the file a.txt, then git commit it"),
        *("write_file", {"path": "a.txt", "mode": "overwrite"}, "```content\ntwo\nlines\n```"),
        *("git_commit", {"paths": ["a.txt"]}, "```message\nSay two\n```"),
        *("answer", "a.txt was changed and committed.", DONE),
    ],
    "rolled back": [
        one_step("overwrite the file a.txt"),
        *("write_file", {"path": "a.txt", "mode": "overwrite"}, "```content\nbad\nlines\n```"),
        *("answer", "a.txt was changed."),
    ],
}


def check_green(flow: Flow, report: Report) -> None:
    assert report.state is TaskState.VERIFIED
    assert (flow.folder / "a.txt").read_text() == "two\nlines\n"
    assert flow.git("log", "--format=%s").split("\n")[:-1] == ["Say two", "Begin"]
    assert flow.git("status", "--short") == " M mine.txt\n"


def check_rolled_back(flow: Flow, report: Report) -> None:
    assert report.state is TaskState.ROLLED_BACK
    assert (flow.folder / "a.txt").read_text() == "one\n"
    assert flow.git("log", "--format=%s") == "Begin\n"
    assert flow.git("status", "--short") == " M mine.txt\n"
    assert sorted(path.name for path in flow.folder.iterdir()) == [".git", "a.txt", "mine.txt"]


CHECKS = {"green": check_green, "rolled back": check_rolled_back}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", FLOWS)
def test_after_a_power_cut_at_any_commit_the_task_ends_as_it_would_have(
    name: str, committed: bool, policy: PolicyEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(tmp_path / "flow", policy, FLOWS[name], [GREEN])
    with cutting_power(monkeypatch, flow, committed=committed) as kept:
        CHECKS[name](flow, flow.run())
    assert kept
    for each in kept:
        flow.go_back(each)
        CHECKS[name](flow, flow.run())
