"""Whatever a person does to files while the agent works and before it is undone: no line of theirs is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentd.clock import SystemClock
from agentd.errors import AgentdError
from agentd.store.db import Database
from agentd.workspace.paths import Workspace
from agentd.workspace.snapshots import OriginOfChange, Watched
from tests.workspace.conftest import TASK, Agent
from tests.workspace.test_snapshots import tree

PATHS = ("a", "b", "d/a", "d/b", "d/e/a", "a/x")
"""Some of them can only be there when others are not."""

# An operation: who, what, where, and where else or which line.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("agent", "agent", "agent", "user", "user")),
        st.sampled_from(("write", "edit", "append", "insert", "delete", "delete", "move", "copy", "program", "undo")),
        st.integers(0, len(PATHS) - 1),
        st.integers(0, len(PATHS) - 1),
    ),
    min_size=2,
    max_size=14,
)


class World:
    """A workspace in which both work. `theirs` holds every line of the user that they have not taken away again."""

    def __init__(self, db: Database, root: Path) -> None:
        self.agent = Agent(db, root)
        self.root = root
        self.lines = count(1)
        self.mark = 0
        for path in ("a", "d/a", "d/b"):
            file = root / path
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(f"line {number} of {path}\n" for number in range(6)))
        self.first = tree(root)

    def new(self, who: str) -> str:
        return f"{who} {next(self.lines)}\n"

    def do(self, who: str, what: str, one: int, two: int) -> None:
        path = self.root / PATHS[one]
        if what == "undo":
            self.undo(partly=two % 2 == 0) if who == "agent" else None
        elif what == "program":
            self.program(path, two)
        elif what in ("delete", "move", "copy"):
            self.away(who, what, PATHS[one] if two % 3 else PATHS[one].split("/")[0], PATHS[two])
        else:
            self.write(who, path, self.text(who, what, path, two))

    def text(self, who: str, what: str, path: Path, place: int) -> str:
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        if what == "write" and who == "agent":
            return "".join(self.new(who) for _ in range(place + 1))
        if what in ("write", "append") or not lines:
            return "".join(lines) + self.new(who)
        place %= len(lines)
        mine = who == "agent" or not lines[place].startswith("user")
        return "".join([*lines[:place], self.new(who), *lines[place + (what == "edit" and mine) :]])

    def write(self, who: str, path: Path, text: str) -> None:
        if who == "agent":
            self.agent.write(path.relative_to(self.root).as_posix(), text)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def away(self, who: str, what: str, path: str, target: str) -> None:
        if who == "agent":
            done: Any = {"delete": self.agent.delete, "move": self.agent.move, "copy": self.copy}[what]
            done(path) if what == "delete" else done(path, target)
        elif what == "move" and not (self.root / target).exists():
            (self.root / target).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).rename(self.root / target)

    def copy(self, path: str, target: str) -> None:
        self.agent.files().copy(path, target)
        self.agent.ledger.finish(TASK, f"{self.agent.calls:05d}")

    def program(self, path: Path, two: int) -> None:
        """A command, or tests in the middle of which the user writes."""
        origin: OriginOfChange = "command" if two % 2 else "test"
        self.agent.calls += 1
        key = f"{self.agent.calls:05d}"
        with self.agent.ledger.watching(TASK, key, Workspace(self.root), origin, Watched()):
            if path.is_file():
                path.write_text(path.read_text() + self.new("agent"))
            if origin == "test" and path.is_file():
                path.write_text(path.read_text() + self.new("user"))

    def undo(self, *, partly: bool) -> None:
        """A step is rolled back while the task goes on."""
        self.agent.undo(self.mark if partly else 0)
        self.mark = self.agent.ledger.mark(TASK)

    def user_lines(self) -> set[str]:
        return {line for line in self.all_lines() if line.startswith("user")}

    def all_lines(self) -> Iterator[str]:
        for kind, _, data in tree(self.root).values():
            if kind == "file":
                yield from data.decode().splitlines()


def run(db: Database, root: Path, steps: list[tuple[str, str, int, int]]) -> tuple[World, set[str]]:
    """The world after the steps, and the lines that the user has written."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    db.execute("DELETE FROM changes")
    db.execute("DELETE FROM looks")
    world = World(db, root)
    for step in steps:
        try:
            world.do(*step)
        except (AgentdError, OSError):
            continue  # it could not be done as things stood
    written = {f"user {number}" for number in range(1, next(world.lines))}
    return world, {line for line in written if line in set(_ever(world, written))}


def _ever(world: World, written: set[str]) -> set[str]:
    """Of the numbers that were given out those that the user wrote: whatever the ledger or a file has of them."""
    rows = world.agent.db.rows("SELECT before_digest AS digest FROM changes UNION SELECT after_digest FROM changes")
    found = set(world.user_lines())
    for row in rows:
        if row["digest"] and world.agent.ledger.blobs.has(row["digest"]):
            found |= set(world.agent.ledger.blobs.whole(row["digest"]).decode().splitlines())
    return found & written


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = Database(tmp_path_factory.mktemp("ledger") / "agentd.db", clock=SystemClock())
    opened.connection().pragma("synchronous", "OFF")  # what is tested here does not die
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield tmp_path_factory.mktemp("ground")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
@example(steps=[("agent", "move", 0, 4), ("agent", "program", 4, 0), ("agent", "delete", 2, 0)])
def test_no_line_of_a_person_is_lost(db: Database, ground: Path, steps: list[tuple[str, str, int, int]]) -> None:
    world, theirs = run(db, ground / "work", steps)
    world.agent.undo(undo=1)
    assert theirs <= world.user_lines()
    once = tree(world.root)
    world.agent.undo(undo=2)
    assert tree(world.root) == once, "done again, it did more"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS.map(lambda steps: [step for step in steps if step[0] == "agent" and step[1] != "program"]))
def test_where_nobody_else_was_everything_is_as_before(
    db: Database, ground: Path, steps: list[tuple[str, str, int, int]]
) -> None:
    world, _ = run(db, ground / "work", steps)
    after = tree(world.root)
    mark = world.agent.ledger.mark(TASK)
    restored = world.agent.undo(undo=1)
    assert tree(world.root) == world.first
    assert not restored.conflicts
    world.agent.undo(mark, undo=2)
    assert tree(world.root) == after, "the undo, taken back, is not what was there"
