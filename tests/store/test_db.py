"""Transactions, threads, reading, closing and backup."""

from __future__ import annotations

import gc
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from agentd.errors import Conflict, StoreError
from agentd.store.db import Database
from tests.store.conftest import OpenDatabase, StillClock, python


@pytest.fixture
def table(db: Database) -> Database:
    db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
    return db


def names(db: Database) -> list[str]:
    return [row["name"] for row in db.rows("SELECT name FROM things ORDER BY id")]


def add(db: Database, name: str) -> None:
    db.execute("INSERT INTO things (name) VALUES (?)", (name,))


def test_settings_of_every_connection(db: Database) -> None:
    with ThreadPoolExecutor(1) as pool:
        for connection in (db.connection(), pool.submit(db.connection).result()):
            assert connection.pragma("journal_mode") == "wal"
            assert connection.pragma("synchronous") == 2  # FULL
            assert connection.pragma("foreign_keys") == 1
            assert connection.pragma("checksum_verification") == "1"
            assert connection.reserve_bytes("main") == 8


def test_vectors_and_text_search_work(db: Database) -> None:
    db.execute("CREATE VIRTUAL TABLE vectors USING vec0(place float[2])")
    db.execute("INSERT INTO vectors (rowid, place) VALUES (1, '[0, 0]'), (2, '[5, 5]')")
    nearest = db.rows("SELECT rowid FROM vectors WHERE place MATCH '[4, 4]' ORDER BY distance LIMIT 1")
    assert nearest == [{"rowid": 2}]
    db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    db.execute("INSERT INTO words VALUES ('the one file'), ('nothing')")
    assert db.row("SELECT text FROM words WHERE words MATCH 'file'") == {"text": "the one file"}


def test_no_more_extensions_can_be_loaded(db: Database) -> None:
    with pytest.raises(apsw.SQLError, match="not authorized"):
        db.rows("SELECT load_extension('anything')")
    with pytest.raises(apsw.ExtensionLoadingError):
        db.connection().load_extension("anything")


def test_files_are_for_their_owner_alone(table: Database, path: Path) -> None:
    add(table, "one")
    assert {file.name for file in path.parent.iterdir()} == {"agentd.db", "agentd.db-wal", "agentd.db-shm"}
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_rows_by_name(table: Database) -> None:
    assert table.rows("SELECT * FROM things") == []
    assert table.row("SELECT * FROM things") is None
    add(table, "one")
    add(table, "two")
    assert table.rows("SELECT * FROM things ORDER BY id") == [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]
    assert table.row("SELECT count(*) AS n FROM things WHERE name > ?", ("one",)) == {"n": 1}


def test_a_transaction_commits_as_a_whole(table: Database) -> None:
    with table.transaction() as connection:
        add(table, "one")
        connection.execute("INSERT INTO things (name) VALUES ('two')")
        assert names(table) == ["one", "two"]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(names, table).result() == []
    assert names(table) == ["one", "two"]


def test_a_transaction_that_raises_changes_nothing(table: Database) -> None:
    def fail() -> None:
        with table.transaction():
            add(table, "one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(table) == []
    add(table, "two")  # and the next one works
    assert names(table) == ["two"]


def test_a_wrong_statement_stays_an_apsw_error(table: Database) -> None:
    add(table, "one")
    with pytest.raises(apsw.ConstraintError):
        add(table, "one")
    with pytest.raises(apsw.SQLError, match="no such table"):
        table.rows("SELECT * FROM nowhere")
    with pytest.raises(apsw.ConstraintError), table.transaction() as connection:
        connection.execute("INSERT INTO things (name) VALUES ('one')")


def test_nested_is_a_part_of_the_outer_one(table: Database) -> None:
    def fail() -> None:
        with table.transaction():
            with table.transaction():
                add(table, "inner")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(table) == []
    with table.transaction():
        with table.transaction(), table.transaction():
            add(table, "inner")
        add(table, "outer")
    assert names(table) == ["inner", "outer"]


def test_after_commit_runs_after_the_outermost_commit(table: Database) -> None:
    seen: list[object] = []
    table.after_commit(lambda: seen.append("at once"))
    with table.transaction():
        with table.transaction():
            add(table, "one")
            table.after_commit(lambda: seen.append(names(table)))
        assert seen == ["at once"]
    assert seen == ["at once", ["one"]]
    with table.transaction():
        add(table, "two")
    assert len(seen) == 2  # it was called once


def test_after_commit_is_dropped_with_its_transaction(table: Database) -> None:
    seen: list[str] = []

    def fail() -> None:
        with table.transaction():
            table.after_commit(lambda: seen.append("never"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    add(table, "one")
    assert seen == []


def test_after_commit_may_write_and_may_fail(open_db: OpenDatabase) -> None:
    warnings: list[str] = []
    db = open_db(warn=warnings.append)
    db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    with db.transaction():
        db.after_commit(lambda: add(db, "first"))
        db.after_commit(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        db.after_commit(lambda: add(db, "last"))
        add(db, "inside")
    assert names(db) == ["inside", "first", "last"]
    assert len(warnings) == 1
    assert "ZeroDivisionError" in warnings[0]


def test_callbacks_come_in_the_order_of_the_commits(table: Database) -> None:
    told: list[int] = []

    def work() -> None:
        for _ in range(25):
            with table.transaction() as connection:
                connection.execute("INSERT INTO things (name) SELECT 'n' || count(*) FROM things")
                number = connection.last_insert_rowid()
                table.after_commit(lambda number=number: told.append(number))  # type: ignore[misc]

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert told == list(range(1, 101))


def test_threads_that_read_and_then_write_lose_nothing(table: Database) -> None:
    add(table, "0")

    def count_up() -> None:
        for _ in range(20):
            with table.transaction():
                row = table.row("SELECT name FROM things")
                assert row
                table.execute("UPDATE things SET name = ?", (str(int(row["name"]) + 1),))

    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(count_up) for _ in range(5)]:
            done.result()
    assert names(table) == ["100"]


def test_much_is_left_in_the_log_until_the_outermost_block_that_wants_it(table: Database, path: Path) -> None:
    table.empty_log()
    size = path.stat().st_size
    with table.leaving_log():
        with table.leaving_log():
            add(table, "x" * 8_000_000)
        add(table, "y")
        assert path.stat().st_size == size
    add(table, "z")
    assert path.stat().st_size > size + 8_000_000


def test_a_snapshot_sees_one_state(table: Database) -> None:
    add(table, "one")
    with table.snapshot(), ThreadPoolExecutor(1) as pool:
        assert names(table) == ["one"]
        pool.submit(add, table, "two").result()
        assert names(table) == ["one"]
    assert names(table) == ["one", "two"]


def test_a_thread_that_ends_gives_its_connection_back(db: Database) -> None:
    def use() -> None:
        assert db.row("SELECT 1 AS one") == {"one": 1}

    for _ in range(5):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    gc.collect()
    assert len(db._connections) == 1


def test_closed_is_closed(table: Database, path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(names, table).result()
        table.close()
        for use in (lambda: names(table), lambda: add(table, "x"), table.connection):
            with pytest.raises(StoreError, match="closed"):
                pool.submit(use).result()
            with pytest.raises(StoreError, match="closed"):
                use()
    assert [file.name for file in path.parent.iterdir()] == ["agentd.db"]  # the write-ahead log was folded in
    table.close()


def test_close_waits_for_the_running_transaction(table: Database, open_db: OpenDatabase) -> None:
    inside = threading.Event()

    def slow() -> None:
        with table.transaction():
            inside.set()
            time.sleep(0.1)
            add(table, "slow")

    thread = threading.Thread(target=slow)
    thread.start()
    inside.wait(5)
    table.close()
    thread.join()
    assert names(open_db()) == ["slow"]


def test_who_waits_to_write_is_told_of_the_close(table: Database) -> None:
    waiting: list[Future[None]] = []

    def write() -> None:
        with pytest.raises(StoreError, match="closed"):
            add(table, "too late")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(names, table).result()  # so that it has a connection

        def close() -> None:
            with table.transaction():
                waiting.append(pool.submit(write))
                time.sleep(0.1)
                table.close()

        with pytest.raises(StoreError, match="closed"):
            close()
        waiting[0].result()


def test_who_reads_is_told_of_the_close(table: Database) -> None:
    def read() -> None:
        forever = "WITH RECURSIVE n (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        with pytest.raises(StoreError, match="closed"):
            table.rows(forever)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        time.sleep(0.1)
        table.close()
        reader.result(5)


def test_killed_after_a_commit_has_the_commit(path: Path, open_db: OpenDatabase) -> None:
    code = """
import os, pathlib, signal, sys
from agentd.clock import SystemClock
from agentd.store.db import Database
db = Database(pathlib.Path(sys.argv[1]), clock=SystemClock())
db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
db.execute("INSERT INTO things (name) VALUES ('committed')")
with db.transaction():
    db.execute("INSERT INTO things (name) VALUES ('not committed')")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, path, check=False).returncode == -9
    assert path.with_name("agentd.db-wal").stat().st_size > 0
    assert names(open_db()) == ["committed"]


# backup ---------------------------------------------------------------------------------------------------------------


def test_backup_is_a_whole_database(table: Database, tmp_path: Path, clock: StillClock) -> None:
    add(table, "one")
    target = tmp_path / "copy.db"
    table.backup(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not list(tmp_path.glob(".copy*"))
    add(table, "after the backup")
    copy = Database(target, clock=clock)
    try:
        assert names(copy) == ["one"]
        assert copy.connection().pragma("journal_mode") == "wal"
        assert copy.connection().pragma("checksum_verification") == "1"
    finally:
        copy.close()


def test_backup_while_others_write(table: Database, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            add(table, str(number := number + 1))

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            for number in range(3):
                table.backup(tmp_path / f"{number}.db")
        finally:
            stop.set()
        writer.result()


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda target: target.write_text("mine"), Conflict),
        (lambda target: target.mkdir(), Conflict),
        (lambda target: target.parent.rmdir(), StoreError),
    ],
)
def test_backup_replaces_nothing(
    db: Database, tmp_path: Path, prepare: Callable[[Path], object], expected: type[Exception]
) -> None:
    target = tmp_path / "backups" / "copy.db"
    target.parent.mkdir()
    prepare(target)
    with pytest.raises(expected, match=r"copy\.db"):
        db.backup(target)
    if target.is_file():
        assert target.read_text() == "mine"
    assert not list(tmp_path.glob("backups/.*"))
