"""The process dies at every single operation on files and database; what comes after a new start is the same."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.store.db import Database
from agentd.workspace.paths import Workspace
from agentd.workspace.snapshots import Watched
from tests.workspace.conftest import TASK, Agent
from tests.workspace.test_snapshots import Tree, tree

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the dying process is a fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

FILES = ("replace", "rename", "unlink", "rmdir", "mkdir", "symlink", "fchmod", "chmod", "fsync")
DEAD = 9


@contextmanager
def opened(folder: Path) -> Iterator[Agent]:
    db = Database(folder / "agentd.db", clock=SystemClock())
    db.connection().pragma("synchronous", "OFF")  # the machine goes on
    try:
        yield Agent(db, folder / "work")
    finally:
        db.close()


def dies(do: Callable[[], object], at: int) -> bool:
    """Do it in a process that dies right before operation `at`; False when it came to its end."""
    child = os.fork()
    if child == 0:
        status = 0
        try:
            left = count(1)

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **more: Any) -> Any:
                    if next(left) == at:
                        os._exit(DEAD)
                    return real(*args, **more)

                return call

            for name in FILES:
                setattr(os, name, counted(getattr(os, name)))
            for name in ("execute", "_commit"):
                setattr(Database, name, counted(getattr(Database, name)))
            do()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            status = 1
        finally:
            os._exit(status)
    _, found = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(found) in (0, DEAD)
    return os.waitstatus_to_exitcode(found) == DEAD


def ground(folder: Path) -> None:
    (folder / "work/d/e").mkdir(parents=True)
    for name in ("a", "b", "d/c", "d/e/f"):
        (folder / "work" / name).write_text("".join(f"line {number} of {name}\n" for number in range(9)))
    (folder / "work/link").symlink_to("a")


def work(agent: Agent) -> None:
    """Every kind of change."""
    agent.write("new/deep", "made\n")
    agent.write("a", (agent.root / "a").read_text().replace("line 2", "agent 2"))
    agent.delete("link")
    agent.move("d", "moved")
    agent.delete("b")
    agent.write("b/now", "a folder\n")
    with agent.ledger.watching(TASK, "p", Workspace(agent.root), "command", Watched()):
        (agent.root / "a").write_text("formatted\n")
    agent.delete("moved/e")


def seen(folder: Path) -> Tree:
    """What a person sees; a file that a dead process was writing has a name of ours."""
    return {path: entry for path, entry in tree(folder / "work").items() if ".agentd-" not in path}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    ground(folder)
    with opened(folder):
        pass
    return folder


@pytest.mark.timeout(240)
def test_wherever_the_agent_dies_all_it_did_can_be_taken_back(template: Path, tmp_path: Path) -> None:
    before, deaths = seen(template), 0
    for at in count(1):
        folder = tmp_path / str(at)
        shutil.copytree(template, folder, symlinks=True)

        def do(folder: Path = folder) -> None:
            with opened(folder) as agent:
                work(agent)

        if not dies(do, at):
            break
        deaths += 1
        with opened(folder) as agent:
            restored = agent.undo()
            assert not restored.conflicts, (at, restored)
            found = seen(folder)
            assert found == before, at
            assert not agent.undo().paths, at
        shutil.rmtree(folder)
    assert deaths > 60


@pytest.mark.timeout(240)
def test_wherever_an_undo_dies_it_goes_on_to_the_same_end(template: Path, tmp_path: Path) -> None:
    done = tmp_path / "done"
    shutil.copytree(template, done, symlinks=True)
    with opened(done) as agent:
        work(agent)
    (done / "work/a").write_text((done / "work/a").read_text() + "user's\n")
    (done / "work/b/now").write_text("user's too\n")
    (done / "work/link").write_text("user's file\n")
    whole = tmp_path / "whole"
    shutil.copytree(done, whole, symlinks=True)
    with opened(whole) as agent:
        wanted = agent.undo(undo=1)
    deaths = 0
    for at in count(1):
        folder = tmp_path / str(at)
        shutil.copytree(done, folder, symlinks=True)

        def do(folder: Path = folder) -> None:
            with opened(folder) as agent:
                agent.undo(undo=agent.ledger.next_undo(TASK))

        if not dies(do, at):
            break
        deaths += 1
        with opened(folder) as agent:
            again = agent.undo(undo=agent.ledger.next_undo(TASK))
            assert {each.path: each.beside for each in again.conflicts} == {
                each.path: each.beside for each in wanted.conflicts
            }, at
            assert tree(folder / "work") == tree(whole / "work"), at
        shutil.rmtree(folder)
    assert deaths > 30
