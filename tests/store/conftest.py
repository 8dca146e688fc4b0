"""What the tests of the store share: a clock that stands still, a database, and ways to get at its file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from agentd.store.db import Database
from agentd.store.sqlite import connect

ROOT = Path(__file__).resolve().parents[2]


class StillClock:
    def __init__(self) -> None:
        self.time = 1_750_000_000.25

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


OpenDatabase = Callable[..., Database]


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agentd.db"


@pytest.fixture
def open_db(path: Path, clock: StillClock) -> Iterator[OpenDatabase]:
    opened: list[Database] = []

    def open_database(**options: object) -> Database:
        opened.append(Database(path, clock=clock, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_database
    for db in opened:
        db.close()


@pytest.fixture
def db(open_db: OpenDatabase) -> Database:
    return open_db()


@pytest.fixture
def outside(path: Path) -> Iterator[Callable[[], apsw.Connection]]:
    """Another program that opens the file, with all the powers of its owner."""
    opened: list[apsw.Connection] = []

    def open_file() -> apsw.Connection:
        opened.append(connect(path))
        return opened[-1]

    yield open_file
    for connection in opened:
        connection.close()


def python(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which knows the package."""
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=check)
