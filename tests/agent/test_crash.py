"""The power goes at every arrow of a task: at each commit of the database, and on either side of each effect."""

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
from agentd.store.db import Database
from agentd.tasks.journal import TaskJournal
from agentd.types import Budget, Check, Report, TaskRequest, TaskState
from tests.agent.conftest import DONE, Words, one_step

GREEN = "python -c \"assert 'bad' not in open('a.txt').read()\""
GIT = ("git", "-c", "user.name=T", "-c", "user.email=t@example.com")


class PowerCut(BaseException):
    pass


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

    def __init__(self, folder: Path, words: list[object], checks: list[str]) -> None:
        self.home, self.folder, self.words = folder / "home", folder / "work", words
        self.kept = folder.with_name("kept")
        init_home(self.home)
        self.folder.mkdir(parents=True)
        (self.folder / "a.txt").write_text("one\n")
        (self.folder / "mine.txt").write_text("clean\n")
        self.git("init", "-q", "-b", "main")
        self.git("add", "-A")
        self.git("commit", "-qm", "Begin")
        (self.folder / "mine.txt").write_text("mine, not committed\n")
        app = build(load_settings(self.home))
        request = TaskRequest(
            goal="overwrite the file a.txt and git commit it",
            workspace=str(self.folder),
            level=3,
            checks=tuple(Check(target=check) for check in checks),
            budget=Budget(retries=0),
        )
        self.task = app.queue.submit(request).id
        app.stop()
        shutil.copytree(folder, self.kept, symlinks=True)

    def again(self) -> None:
        """As it was before the task began."""
        shutil.rmtree(self.home.parent)
        shutil.copytree(self.kept, self.home.parent, symlinks=True)

    def git(self, *args: str) -> str:
        return subprocess.run([*GIT, *args], cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def run(self) -> Report:
        """Bring the task to its end, or die on the way."""
        app = build(load_settings(self.home))
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
def power_cut(monkeypatch: pytest.MonkeyPatch, at: int, *, committed: bool) -> Iterator[list[bool]]:
    """Dies at commit number `at`, when it has taken place or just before. The list says of each commit whether an
    effect was to come after it."""
    commits: list[bool] = []
    commit = Database._commit

    def cut(db: Database, own: object) -> None:
        commits.append(db.row("SELECT 1 FROM journal WHERE state = 'intent'") is not None)
        if len(commits) == at and not committed:
            raise PowerCut
        commit(db, own)
        if len(commits) == at:
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_commit", cut)
        yield commits


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
def test_after_a_power_cut_at_any_commit_the_task_ends_as_it_would_have(name, committed, tmp_path, monkeypatch):
    flow = Flow(tmp_path / "flow", FLOWS[name], [GREEN])
    with power_cut(monkeypatch, 0, committed=committed) as commits:
        CHECKS[name](flow, flow.run())
    # Just after a commit nothing is new but where an effect begins; just before one, it has ended.
    for at in (at for at, opens in enumerate(commits, 1) if opens or not committed):
        flow.again()
        with power_cut(monkeypatch, at, committed=committed), pytest.raises(PowerCut):
            flow.run()
        CHECKS[name](flow, flow.run())
