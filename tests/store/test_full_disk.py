"""The ballast: room that is given back when the disk is full, and the transaction that is done again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from agentd.errors import DiskFull, StoreError
from agentd.store.audit import Audit
from agentd.store.ballast import Ballast
from agentd.store.db import Database
from tests.store.conftest import OpenDatabase, StillClock

KIB, MIB = 1024, 1024 * 1024


def names(db: Database) -> list[str]:
    return [row["name"] for row in db.rows("SELECT name FROM things ORDER BY id")]


def add(db: Database, name: str) -> None:
    db.execute("INSERT INTO things (name) VALUES (?)", (name,))


# the ballast ----------------------------------------------------------------------------------------------------------


def test_ballast_takes_up_room(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", MIB)
    assert not ballast.held
    assert ballast.make()
    if sys.platform != "win32":
        assert (tmp_path / "ballast").stat().st_blocks * 512 >= MIB
    assert ballast.release()
    assert not (tmp_path / "ballast").exists()
    assert not ballast.release()


def test_ballast_of_another_size_is_made_again(tmp_path: Path) -> None:
    Ballast(tmp_path / "ballast", MIB).make()
    assert Ballast(tmp_path / "ballast", 2 * MIB).make()
    assert (tmp_path / "ballast").stat().st_size == 2 * MIB
    assert not Ballast(tmp_path / "ballast", 0).make()
    assert not (tmp_path / "ballast").exists()


def test_a_database_has_ballast_beside_it(open_db: OpenDatabase, path: Path) -> None:
    db = open_db(ballast_mb=1)
    assert db.ballast_held
    assert path.with_name("agentd.ballast").stat().st_size == MIB
    db.close()
    assert not open_db().ballast_held


# wherever the tests run: SQLite's own limit on the number of pages gives the same error -------------------------------


class Limited:
    """A database that cannot grow, until its ballast is released (if `gives_way`)."""

    def __init__(self, open_db: OpenDatabase, *, gives_way: bool = True) -> None:
        self.warnings: list[str] = []
        self._gives_way = gives_way
        self.db = open_db(ballast_mb=1, warn=self._warn)
        self.db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
        self.db.execute("CREATE TABLE unique_things (name TEXT UNIQUE)")

    def fill_up(self) -> None:
        """What fits on the pages there are can still be written. Not for use inside a transaction."""
        connection = self.db.connection()
        connection.pragma("max_page_count", connection.pragma("page_count"))

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        if self._gives_way:
            self.db.connection().pragma("max_page_count", 1_000_000)


def test_a_transaction_that_finds_the_disk_full_is_done_again(open_db: OpenDatabase, clock: StillClock) -> None:
    limited = Limited(open_db)
    limited.fill_up()
    db, audit, seen = limited.db, Audit(limited.db, clock), list[str]()
    with db.transaction() as connection:
        add(db, "small")
        connection.execute("INSERT INTO things (name) VALUES (?)", ("through the connection",))
        audit.record("test", "t", {"n": 1})
        db.execute("INSERT INTO unique_things VALUES ('x')")
        with pytest.raises(apsw.ConstraintError):
            db.execute("INSERT INTO unique_things VALUES ('x')")
        db.after_commit(lambda: seen.append("told"))
        assert db.ballast_held
        add(db, "x" * 100_000)
        assert not db.ballast_held
        add(db, "last")
        audit.record("test", "t", {"n": 2})
    assert [name[:30] for name in names(db)] == ["small", "through the connection", "x" * 30, "last"]
    assert db.rows("SELECT name FROM unique_things") == [{"name": "x"}]
    assert audit.verify().count == 2
    assert audit.verify().ok
    assert seen == ["told"]
    assert len(limited.warnings) == 1
    assert "released the ballast" in limited.warnings[0]


def test_returned_rows_are_of_the_second_try(open_db: OpenDatabase) -> None:
    limited = Limited(open_db)
    add(limited.db, "one")
    limited.fill_up()
    with limited.db.transaction():
        add(limited.db, "two")
        inserted = limited.db.rows("INSERT INTO things (name) VALUES (?) RETURNING id", ("x" * 100_000,))
    assert inserted == [{"id": 3}]
    assert len(names(limited.db)) == 3


def test_when_room_does_not_help_nothing_is_written(open_db: OpenDatabase) -> None:
    limited = Limited(open_db, gives_way=False)
    db = limited.db
    add(db, "before")
    limited.fill_up()

    def write() -> None:
        with db.transaction():
            add(db, "small")
            db.after_commit(lambda: limited.warnings.append("never"))
            add(db, "x" * 100_000)

    with pytest.raises(DiskFull, match="the disk is full") as caught:
        write()
    assert "free some space" in caught.value.hint
    assert names(db) == ["before"]
    assert len(limited.warnings) == 1
    with pytest.raises(DiskFull):  # there is no second ballast
        add(db, "x" * 100_000)
    db.connection().pragma("max_page_count", 1_000_000)
    add(db, "after")
    assert names(db) == ["before", "after"]


def test_who_swallows_the_error_writes_nothing_either(open_db: OpenDatabase) -> None:
    limited = Limited(open_db, gives_way=False)
    db = limited.db
    limited.fill_up()

    def write() -> None:
        with db.transaction():
            add(db, "small")
            with pytest.raises(DiskFull):
                add(db, "x" * 3_000_000)  # SQLite ends the transaction with this error
            add(db, "as if nothing had been")

    with pytest.raises(StoreError, match="rolled back"):
        write()
    assert names(db) == []


def test_a_full_disk_below_the_connection_releases_the_ballast(open_db: OpenDatabase) -> None:
    limited = Limited(open_db)
    db = limited.db
    limited.fill_up()

    def write() -> None:
        with db.transaction() as connection:
            connection.execute("INSERT INTO things (name) VALUES (?)", ("x" * 100_000,))

    with pytest.raises(DiskFull):
        write()
    assert not db.ballast_held
    add(db, "x" * 100_000)
    assert len(names(db)) == 1


# a disk that is full --------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Take all room but `leave` bytes."""
    hog = disk / "hog"
    fd = os.open(hog, os.O_WRONLY | os.O_CREAT)
    size = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    os.posix_fallocate(fd, 0, size)
    os.ftruncate(fd, size - leave)
    os.close(fd)
    return hog


def test_ballast_does_not_take_the_last_room(disk: Path) -> None:
    ballast = Ballast(disk / "ballast", MIB)
    hog = fill(disk, leave=MIB + MIB // 2)
    assert not ballast.make()
    hog.unlink()
    fill(disk, leave=2 * MIB)
    assert ballast.make()


def test_on_a_full_disk_work_goes_on_in_the_ballast(disk: Path, clock: StillClock) -> None:
    warnings: list[str] = []
    db = Database(disk / "agentd.db", clock=clock, ballast_mb=1, warn=warnings.append)
    audit = Audit(db, clock)
    db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    fill(disk)
    written = 0

    def write() -> int:
        with db.transaction():
            audit.record("test", "t", {"n": written})
            add(db, "x" * 10_000)
        return 1

    try:
        while written < 1000:
            written += write()
    except DiskFull as error:
        said = error.message
    assert "agentd.db cannot grow" in said
    assert written > 20  # 1 MiB at some 24 KB a transaction
    assert len(warnings) == 1
    assert not db.ballast_held
    assert len(names(db)) == audit.verify().count == written
    (disk / "hog").unlink()
    add(db, "after")
    db.close()

    db = Database(disk / "agentd.db", clock=clock, ballast_mb=1, warn=warnings.append)
    assert db.ballast_held
    assert len(names(db)) == written + 1
    assert Audit(db, clock).verify().ok
    db.close()


def test_a_transaction_bigger_than_the_room_is_done_again(disk: Path, clock: StillClock) -> None:
    db = Database(disk / "agentd.db", clock=clock, ballast_mb=1)
    db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    fill(disk, leave=64 * KIB)
    with db.transaction():
        for _ in range(20):
            add(db, "x" * 20_000)
    assert len(names(db)) == 20
    db.close()


def test_a_database_on_a_full_disk_can_be_opened(disk: Path, clock: StillClock) -> None:
    db = Database(disk / "agentd.db", clock=clock, ballast_mb=1)
    Audit(db, clock).record("test", "t", {})
    db.close()
    fill(disk)
    warnings: list[str] = []
    db = Database(disk / "agentd.db", clock=clock, ballast_mb=1, warn=warnings.append)
    assert Audit(db, clock).verify().count == 1
    assert ["released the ballast" in warnings[0], "no room for 1 MiB of ballast" in warnings[1]] == [True, True]
    assert not db.ballast_held
    db.close()


def test_without_ballast_a_full_disk_is_an_error_that_says_so(disk: Path, clock: StillClock) -> None:
    Database(disk / "agentd.db", clock=clock).close()
    fill(disk)
    before = (disk / "agentd.db").read_bytes()
    with pytest.raises(DiskFull, match="the disk is full") as caught:
        Database(disk / "agentd.db", clock=clock)
    assert str(disk) in caught.value.hint
    assert (disk / "agentd.db").read_bytes() == before
    (disk / "hog").unlink()
    Database(disk / "agentd.db", clock=clock).close()


def test_a_database_that_found_no_room_to_begin_begins_later(disk: Path, clock: StillClock) -> None:
    for leave in (0, 4 * KIB, 8 * KIB, 16 * KIB, 40 * KIB):
        hog = fill(disk, leave=leave)
        with pytest.raises(DiskFull):
            Database(disk / "agentd.db", clock=clock)
        hog.unlink()
    db = Database(disk / "agentd.db", clock=clock)
    assert Audit(db, clock).verify().ok
    db.close()


def test_a_backup_that_does_not_fit_leaves_nothing(disk: Path, path: Path, clock: StillClock) -> None:
    db = Database(path, clock=clock)
    db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    add(db, "x" * 4_000_000)
    with pytest.raises(DiskFull, match=r"copy\.db"):
        db.backup(disk / "copy.db")
    assert list(disk.iterdir()) == []
    db.close()
