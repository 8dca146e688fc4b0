"""Numbered SQL files, each applied once and as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.errors import StoreError
from agentd.store.db import Database
from agentd.store.migrate import APPLICATION_ID, migrations
from tests.store.conftest import OpenDatabase, StillClock


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """A folder with the ground, to which a test adds."""
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_ground.sql").write_text(migrations()[0].sql)
    (folder / "README.md").write_text("no migration")
    return folder


def applied(db: Database) -> list[str]:
    return [row["name"] for row in db.rows("SELECT name FROM migrations ORDER BY number")]


def test_the_shipped_ones(db: Database, clock: StillClock) -> None:
    assert applied(db) == [migration.name for migration in migrations()]
    assert applied(db)[0] == "0001_ground.sql"
    assert db.connection().pragma("user_version") == migrations()[-1].number
    assert db.connection().pragma("application_id") == APPLICATION_ID
    assert db.row("SELECT applied_at FROM migrations") == {"applied_at": clock.now()}


def test_each_runs_once(open_db: OpenDatabase, schema: Path) -> None:
    db = open_db(schema=schema)
    db.execute("INSERT INTO outputs (task, at, text) VALUES ('t', 1.0, 'kept')")
    db.close()
    (schema / "0002_more.sql").write_text("CREATE TABLE more (n); INSERT INTO more VALUES (7); -- done\n")
    (schema / "0010_later.sql").write_text("UPDATE more SET n = n + 1;")
    for _ in range(2):
        db = open_db(schema=schema)
        assert applied(db) == ["0001_ground.sql", "0002_more.sql", "0010_later.sql"]
        assert db.rows("SELECT n FROM more") == [{"n": 8}]
        assert db.rows("SELECT text FROM outputs") == [{"text": "kept"}]
        assert db.connection().pragma("user_version") == 10
        db.close()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("CREATE TABLE half (n); CREATE TABLE half (n);", "already exists"),
        ("CREATE TABLE half (n); COMMIT;", "begins or ends a transaction"),
        ("CREATE TABLE half (n); COMMIT; BEGIN;", "begins or ends a transaction"),
        ("CREATE TABLE half (n REFERENCES outputs (id)); INSERT INTO half VALUES (99);", "FOREIGN KEY"),
        ("CREATE TABLE half (n); nonsense", "syntax error"),
    ],
)
def test_one_that_fails_changes_nothing(open_db: OpenDatabase, schema: Path, sql: str, said: str) -> None:
    open_db(schema=schema).close()
    (schema / "0002_half.sql").write_text(sql)
    with pytest.raises(StoreError, match=said):
        open_db(schema=schema)
    (schema / "0002_half.sql").unlink()
    db = open_db(schema=schema)
    assert applied(db) == ["0001_ground.sql"]
    assert db.row("SELECT 1 FROM sqlite_schema WHERE name = 'half'") is None


def test_a_first_one_that_fails_can_be_mended(open_db: OpenDatabase, schema: Path) -> None:
    sound = (schema / "0001_ground.sql").read_text()
    (schema / "0001_ground.sql").write_text(sound + "nonsense;")
    with pytest.raises(StoreError, match="0001_ground"):
        open_db(schema=schema)
    (schema / "0001_ground.sql").write_text(sound)
    assert applied(open_db(schema=schema)) == ["0001_ground.sql"]


def test_two_with_one_number(schema: Path) -> None:
    (schema / "0001_other.sql").touch()
    with pytest.raises(StoreError, match="number 1: 0001_"):
        migrations(schema)


def test_one_that_comes_too_late(open_db: OpenDatabase, schema: Path) -> None:
    (schema / "0005_five.sql").write_text("CREATE TABLE five (n);")
    open_db(schema=schema).close()
    (schema / "0003_three.sql").write_text("CREATE TABLE three (n);")
    with pytest.raises(StoreError, match=r"0003_three\.sql comes before 0005_five\.sql"):
        open_db(schema=schema)


def test_an_older_agentd_refuses(open_db: OpenDatabase, schema: Path) -> None:
    (schema / "0002_new.sql").write_text("CREATE TABLE new (n);")
    open_db(schema=schema).close()
    (schema / "0002_new.sql").unlink()
    with pytest.raises(StoreError, match=r"it has 0002_new\.sql, this one knows up to 0001_ground\.sql"):
        open_db(schema=schema)
