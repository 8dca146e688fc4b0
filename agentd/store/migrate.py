"""Numbered SQL files bring a database to the shape that this version of agentd works with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import apsw

from agentd.errors import StoreError
from agentd.types import Clock

APPLICATION_ID = 0x61676E74  # "agnt", in the file's header
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    number: int
    name: str
    sql: str


def migrations(folder: Traversable | None = None) -> list[Migration]:
    """Those in `folder` (the package's own by default) by number; `StoreError` when two have the same."""
    found: dict[int, Migration] = {}
    for entry in (folder or files("agentd.store").joinpath("schema")).iterdir():
        if not (match := _NAME.fullmatch(entry.name)):
            continue
        migration = Migration(number=int(match[1]), name=entry.name, sql=entry.read_text(encoding="utf-8"))
        if earlier := found.get(migration.number):
            raise StoreError(f"two migrations have the number {migration.number}: {earlier.name}, {migration.name}")
        found[migration.number] = migration
    return [found[number] for number in sorted(found)]


def pending(connection: apsw.Connection, known: list[Migration], path: Path) -> list[Migration]:
    """Those of `known` that the database lacks; `StoreError` when it is foreign, or newer than all of them."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if connection.pragma("application_id") != APPLICATION_ID:
        if tables:
            raise StoreError(f"{path} is not a database of agentd", hint="move it away, or name another home")
        return known
    applied = {int(str(row[0])): row[1] for row in connection.execute("SELECT number, name FROM migrations")}
    newest = max(migration.number for migration in known)
    ours = {migration.number: migration.name for migration in known}
    unknown = [name for number, name in sorted(applied.items()) if ours.get(number) != name]
    if unknown or connection.pragma("user_version") > newest:
        what = ", ".join(unknown) or f"schema version {connection.pragma('user_version')}"
        raise StoreError(
            f"the database {path} was written by another version of agentd: it has {what}, this one knows up to "
            f"{ours[newest]}",
            hint="run the newest agentd that has used this home, or put a backup in its place",
        )
    lacking = [migration for migration in known if migration.number not in applied]
    if lacking and applied and lacking[0].number < max(applied):
        raise StoreError(f"migration {lacking[0].name} comes before {ours[max(applied)]}, which {path} has already")
    return lacking


def apply(connection: apsw.Connection, migration: Migration, clock: Clock) -> None:
    """Run one migration and record it, or change nothing and raise `StoreError`; disk errors stay as they are."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _run(connection, migration)
        row = (migration.number, migration.name, clock.now())
        connection.execute("INSERT INTO migrations (number, name, applied_at) VALUES (?, ?, ?)", row)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", migration.number)
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, apsw.SQLError | apsw.ConstraintError):
            raise StoreError(
                f"migration {migration.name} failed: {error}", hint="the database is as it was before this migration"
            ) from error
        raise


def _run(connection: apsw.Connection, migration: Migration) -> None:
    connection.authorizer = _within_a_transaction
    try:
        connection.execute(migration.sql)
    except apsw.AuthError as error:
        raise StoreError(f"migration {migration.name} begins or ends a transaction, but it runs in one") from error
    finally:
        connection.authorizer = None


def _within_a_transaction(operation: int, *_: str | None) -> int:
    return apsw.SQLITE_DENY if operation == apsw.SQLITE_TRANSACTION else apsw.SQLITE_OK
