"""kill -9 at every boundary and at random moments: nothing is lost, nothing is done twice, what is in doubt waits."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.store.audit import Audit
from agentd.store.db import Database
from tests.tasks import crash_child

pytestmark = pytest.mark.slow

ROOT = Path(crash_child.__file__).parents[2]


class Lives:
    """Sends orders to the forking process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.tasks.crash_child"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def live(self, home: Path, **order: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"home": str(home), "unsafe": False, "appends": 0, **order}) + "\n")
        self.process.stdin.flush()
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert "error" not in reply, reply
        return reply


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    lives = Lives()
    yield lives
    assert lives.process.stdin
    assert lives.process.stdout
    lives.process.stdin.close()
    lives.process.wait(10)
    lives.process.stdout.close()


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[Path]:
    """Fresh homes, each with an empty database and a workspace that is a git repository."""
    return _homes(tmp_path)


def _homes(folder: Path) -> Iterator[Path]:
    first = folder / "home"
    (first / "workspace").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "--template=", str(first / "workspace")], check=True)
    Database(first / "agentd.db", clock=SystemClock()).close()
    for number in itertools.count(1):
        yield Path(shutil.copytree(first, folder / f"home-{number}"))


def look(home: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The tasks and the journal states; also that the audit chain holds and no effect was recorded twice."""
    clock = SystemClock()
    db = Database(home / "agentd.db", clock=clock)
    audit = Audit(db, clock)
    assert audit.verify().ok
    done = [(record.task, record.data["key"]) for record in audit.tail(10_000) if record.kind == "effect.done"]
    journal = db.rows("SELECT task, key, state FROM journal")
    assert sorted(done) == sorted((row["task"], row["key"]) for row in journal if row["state"] == "done")
    told = db.rows("SELECT count(*) AS n FROM events WHERE kind = 'EffectDone'")
    assert told == [{"n": len(done)}]
    tasks = db.rows("SELECT * FROM tasks")
    db.close()
    return tasks, {row["key"]: row["state"] for row in journal}


def lines(home: Path, name: str) -> list[str]:
    path = home / "workspace" / name
    return path.read_text().splitlines() if path.exists() else []


def commits(home: Path) -> int:
    return len(crash_child._git(home / "workspace", "log", "--format=%H").splitlines())


def check_end(home: Path, die_at: int) -> str:
    """One task, which ended with everything done once, or waits because the one unsafe effect is in doubt."""
    (task,), journal = look(home)
    where = f"killed at {die_at}"
    assert task["state"] in ("verified", "waiting"), where
    assert lines(home, "ledger.txt") == (["k: last line"] if task["state"] == "verified" else []), where
    assert lines(home, "out.txt") == ["k"], where
    assert commits(home) == 1, where
    if task["state"] == "verified":
        assert set(journal.values()) == {"done"}, where
        assert lines(home, "posts.txt") == ["k: posted"], where
    else:
        assert {key for key, state in journal.items() if state == "intent"} == {"post"}, where
        assert "'post' was begun" in task["question"], where
        assert len(lines(home, "posts.txt")) <= 1, where
    return str(task["state"])


def test_killed_at_every_boundary(lives: Lives, homes: Iterator[Path]) -> None:
    points = lives.live(next(homes), key="k", unsafe=True)["points"]
    assert points > 60
    ends = []
    for die_at in range(1, points + 1):
        home = next(homes)
        if lives.live(home, key="k", unsafe=True, die_at=die_at)["killed"]:
            assert not lives.live(home, key="k", unsafe=True)["killed"]
        ends.append(check_end(home, die_at))
    # In doubt is only what died between the intent (committed) and the result (committed) of the unsafe effect:
    # after the commit, before and after the effect, before and inside the second transaction.
    assert ends.count("waiting") == 5


def test_killed_twice(lives: Lives, homes: Iterator[Path]) -> None:
    rng = random.Random(3)
    points = lives.live(next(homes), key="k", unsafe=True)["points"]
    for _ in range(12):
        home = next(homes)
        die_at = rng.randrange(1, points)
        lives.live(home, key="k", unsafe=True, die_at=die_at)
        lives.live(home, key="k", unsafe=True, die_at=rng.randrange(1, points))
        assert not lives.live(home, key="k", unsafe=True)["killed"]
        check_end(home, die_at)


def test_killed_at_random_moments(lives: Lives, homes: Iterator[Path]) -> None:
    """One database, task after task, killed from outside until there were 25 kills and the last task has ended."""
    rng = random.Random(5)
    home, kills, tasks = next(homes), 0, 0
    while kills < 25:
        tasks += 1
        order = {"key": f"task {tasks}", "appends": 20}
        while kills < 25 and lives.live(home, **order, kill_after=rng.uniform(0.01, 0.15))["killed"]:
            kills += 1
    lives.live(home, **order)
    rows, journal = look(home)
    assert [row["state"] for row in rows] == ["verified"] * tasks
    assert set(journal.values()) == {"done"}
    words = [*(f"line {number}" for number in range(20)), "last line"]
    assert lines(home, "ledger.txt") == [f"task {task}: {line}" for task in range(1, tasks + 1) for line in words]
    assert commits(home) == tasks
    assert max(row["attempts"] for row in rows) > 1
