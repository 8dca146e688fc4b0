"""The one SQLite file: opened with care, a connection per thread, one writer at a time."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

import apsw

from agentd.errors import StoreError
from agentd.store.backup import backup
from agentd.store.ballast import Ballast
from agentd.store.migrate import Migration, apply, migrations, pending
from agentd.store.sqlite import CHECKSUM_BYTES, connect, damage, explain, is_full, reason, unwritable
from agentd.types import Clock

Params = tuple[Any, ...]

_log = logging.getLogger(__name__)

_MIB = 1024 * 1024
_CLOSE_SECONDS = 2.0
_MOST_IN_LOG = 1000
"""Pages in the log from which on a commit moves them into the file; what SQLite takes by itself."""
_UNSYNCED = 0


class _Log:
    """The statements of a running transaction, so that it can be done again once there is room."""

    __slots__ = ("entries", "on")

    def __init__(self) -> None:
        self.on = False
        self.entries: list[tuple[str, Any]] = []

    def note(self, _: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if self.on:
            self.entries.append((sql, bindings))
        return True


class _Own:
    """What belongs to one thread."""

    __slots__ = ("after", "connection", "depth", "leaving", "log")

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.depth = 0
        self.leaving = 0
        """How many blocks of `leaving_log` it is in."""
        self.after: list[Callable[[], None]] = []
        self.log = _Log()
        connection.exec_trace = self.log.note


class Database:
    """The file at `path`, made when there is none. Safe to use from many threads."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        ballast_mb: int = 0,
        warn: Callable[[str], object] = _log.warning,
        schema: Traversable | None = None,
    ) -> None:
        """Open, check every page, and migrate. `ballast_mb` MiB beside the file are given back when the disk is full.

        Raises `StoreError` (corrupt, newer, foreign, read-only) and `DiskFull`; then nothing has been changed.
        """
        self.path = path
        self._warn = warn
        self._ballast = Ballast(path.with_name(f"{path.stem}.ballast"), ballast_mb * _MIB)
        self._local = threading.local()
        self._writing = threading.RLock()
        self._listing = threading.Lock()
        self._connections: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._closed = False
        self._open(migrations(schema), clock)
        if not self._ballast.make() and ballast_mb:
            self._warn(
                f"no room for {ballast_mb} MiB of ballast beside {path}: a full disk would stop all work at once"
            )

    @property
    def ballast_held(self) -> bool:
        """False when the disk has been full, or was too full at start to set room aside."""
        return self._ballast.held

    def connection(self) -> apsw.Connection:
        """The connection of this thread."""
        return self._own().connection

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """All that is written inside commits together, or not at all when the block raises.

        One thread writes at a time. Inside another transaction of this thread the block is a part of it. A full disk
        releases the ballast, and the transaction is done again once; `DiskFull` when that does not help.
        """
        own = self._own()
        if own.depth:
            own.depth += 1
            try:
                yield own.connection
            finally:
                own.depth -= 1
            return
        with self._writing:
            self._refuse_closed()  # it may have happened while this thread waited
            try:
                self._begin(own)
                yield own.connection
                self._commit(own)
            except apsw.Error as error:  # from the block's own use of the connection
                if is_full(error, own.connection):
                    self._make_room()
                self._fail(own, error)
            finally:
                after = self._end(own)
            for fn in after:
                self._run_after(fn)

    def after_commit(self, fn: Callable[[], None]) -> None:
        """Call `fn` when the transaction of this thread has committed, at once when there is none, and never when it is
        rolled back. Calls come in the order of the commits of all threads, so `fn` must be quick."""
        own = self._own()
        if own.depth:
            own.after.append(fn)
        else:
            fn()

    @contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """All reads inside see the same state of the database; nothing can be written inside."""
        own = self._own()
        if own.connection.in_transaction:
            yield own.connection
            return
        self._run(own, "BEGIN", ())
        try:
            yield own.connection
        except apsw.Error as error:
            self._fail(own, error)
        finally:
            if not own.connection.get_autocommit():  # some errors have ended it already
                own.connection.execute("ROLLBACK")

    def rows(self, sql: str, params: Params = ()) -> list[dict[str, Any]]:
        """All rows, each by column name. A statement that writes (`RETURNING`) belongs inside a transaction."""
        own = self._own()
        cursor = self._run(own, sql, params)
        try:
            names = [column[0] for column in cursor.get_description()]
            return [dict(zip(names, values, strict=True)) for values in cursor]
        except apsw.ExecutionCompleteError:  # how a cursor without rows answers
            return []
        except apsw.Error as error:
            self._fail(own, error)

    def row(self, sql: str, params: Params = ()) -> dict[str, Any] | None:
        """The first row, or None."""
        found = self.rows(sql, params)
        return found[0] if found else None

    def execute(self, sql: str, params: Params = ()) -> None:
        """Write, as a part of this thread's transaction or in one of its own."""
        own = self._own()
        if own.depth:
            self._run(own, sql, params).fetchall()
            return
        with self.transaction():
            self._run(own, sql, params).fetchall()

    def empty_log(self) -> None:
        """Move what is committed into the file itself, as far as readers let it; nothing older lies beside it then."""
        own = self._own()
        try:
            own.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return  # the next checkpoint does it
        except apsw.Error as error:
            self._fail(own, error)

    def move_log(self) -> None:
        """Move what is committed into the file itself, as far as others let it, while they go on."""
        own = self._own()
        try:
            own.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return  # another thread does it
        except apsw.Error as error:
            self._fail(own, error)

    @contextmanager
    def leaving_log(self) -> Iterator[None]:
        """Commits of this thread inside leave the log as it is: for much data, moving it takes longer than they do."""
        own = self._own()
        own.leaving += 1
        own.connection.wal_autocheckpoint(0)
        try:
            yield
        finally:
            own.leaving -= 1
            if not own.leaving and not self._closed:
                own.connection.wal_autocheckpoint(_MOST_IN_LOG)

    @contextmanager
    def relaxed(self) -> Iterator[None]:
        """Commits of this thread inside are safe on the disk only when the next one after them is."""
        own = self._own()
        usual = own.connection.pragma("synchronous")
        if own.depth or usual == _UNSYNCED:
            yield
            return
        own.connection.pragma("synchronous", "NORMAL")
        try:
            yield
        finally:
            if not self._closed and not own.connection.in_transaction:
                own.connection.pragma("synchronous", "FULL")

    def backup(self, target: Path) -> None:
        """Write a whole, compact copy to `target`, which must not exist (`Conflict`); others go on meanwhile."""
        backup(self.connection(), self.path, target)

    def close(self) -> None:
        """Wait for the running transaction, then let go of the file; later uses raise `StoreError`."""
        with self._writing, self._listing:
            self._closed = True
            for connection in list(self._connections):
                _close(connection)

    # one thread's connection ------------------------------------------------------------------------------------------

    def _own(self) -> _Own:
        own: _Own | None = getattr(self._local, "own", None)
        if own is None or self._closed:
            own = self._join()
        return own

    def _join(self) -> _Own:
        with self._listing:
            self._refuse_closed()
            try:
                connection = connect(self.path)
            except apsw.Error as error:
                raise reason(error, self.path, full=is_full(error)) from error
            return self._adopt(connection)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError(f"the database {self.path} is closed")

    def _adopt(self, connection: apsw.Connection) -> _Own:
        own = _Own(connection)
        self._local.own = own
        self._connections.add(connection)
        return own

    def _run(self, own: _Own, sql: str, params: Params) -> apsw.Cursor:
        connection = own.connection
        if own.depth and not connection.in_transaction:
            raise StoreError(f"the transaction was rolled back by an earlier error: {sql}")
        done = len(own.log.entries)
        try:
            return connection.execute(sql, params)
        except apsw.Error as error:
            if not is_full(error, connection) or not self._make_room():
                self._fail(own, error)
        try:
            if own.depth:
                del own.log.entries[done:]
                self._again(own)
            return connection.execute(sql, params)
        except apsw.Error as error:
            self._fail(own, error)

    def _fail(self, own: _Own, error: apsw.Error) -> NoReturn:
        """Raise what a person understands; a statement that is itself wrong stays an apsw error."""
        better = explain(error, self.path, full=is_full(error, own.connection))
        if better is None:
            raise error
        raise better from error

    # transactions -----------------------------------------------------------------------------------------------------

    def _begin(self, own: _Own) -> None:
        self._run(own, "BEGIN IMMEDIATE", ())
        own.depth = 1
        own.log.on = True

    def _commit(self, own: _Own) -> None:
        if not own.connection.in_transaction:
            raise StoreError("the transaction was rolled back by an earlier error")
        own.log.on = False
        try:
            own.connection.execute("COMMIT")
        except apsw.Error as error:
            if not is_full(error, own.connection) or not self._make_room():
                raise
            self._again(own)
            own.connection.execute("COMMIT")

    def _end(self, own: _Own) -> list[Callable[[], None]]:
        """Leave no transaction open, and return what was to be called after it."""
        own.log.on = False
        own.log.entries = []
        own.depth = 0
        after, own.after = own.after, []
        if not self._closed and own.connection.in_transaction:
            own.connection.execute("ROLLBACK")
            return []
        return after

    def _make_room(self) -> bool:
        if not self._ballast.release():
            return False
        self._warn(f"the disk is full: released the ballast of {self.path}; free some space soon")
        return True

    def _again(self, own: _Own) -> None:
        """Do the statements of this transaction again. No other thread has written meanwhile, so they find the same
        state and do the same."""
        connection, logging_on = own.connection, own.log.on
        own.log.on = False
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        for sql, bindings in own.log.entries:
            try:
                connection.execute(sql, bindings).fetchall()
            except (apsw.ConstraintError, apsw.SQLError):
                pass  # it failed the first time too, and whoever ran it went on
        own.log.on = logging_on

    def _run_after(self, fn: Callable[[], None]) -> None:
        try:
            fn()
        except Exception as error:  # the commit stands, and the others must still be told
            self._warn(f"after a commit, {fn!r} failed: {error!r}")

    # opening ----------------------------------------------------------------------------------------------------------

    def _open(self, known: list[Migration], clock: Clock) -> None:
        try:
            self._try_open(known, clock)
        except apsw.Error as error:
            if not is_full(error) or not self._make_room():
                raise reason(error, self.path, full=is_full(error)) from error
            try:
                self._try_open(known, clock)
            except apsw.Error as again:
                raise reason(again, self.path, full=is_full(again)) from again

    def _try_open(self, known: list[Migration], clock: Clock) -> None:
        fresh = _is_fresh(self.path)
        connection = connect(self.path, create=fresh)
        # Until it is known to be sound, closing must not fold the write-ahead log into the file and remove it.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            lacking = known if fresh else _checked(connection, known, self.path)
            if fresh:
                os.chmod(self.path, 0o600)
                connection.reserve_bytes("main", CHECKSUM_BYTES)
                connection.pragma("journal_mode", "WAL")
            for migration in lacking:
                apply(connection, migration, clock)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        except BaseException:
            connection.close()
            raise
        self._adopt(connection)


def _is_fresh(path: Path) -> bool:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size:
            return False
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size:  # SQLite would delete it
            raise damage(path, f"it is missing or empty, while {wal.name} holds changes to it")
    except OSError as error:
        raise StoreError(f"the database {path} cannot be reached: {error}") from error
    return True


def _checked(connection: apsw.Connection, known: list[Migration], path: Path) -> list[Migration]:
    """The migrations that a file lacks which is sound, ours, and writable."""
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # reads the header
    if connection.reserve_bytes("main") != CHECKSUM_BYTES or int(connection.pragma("checksum_verification")) != 1:
        raise damage(path, "by its header its pages have no checksums, so agentd did not write it like this")
    lacking = pending(connection, known, path)
    found = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
    if found != ["ok"]:
        raise damage(path, "; ".join(found))
    if connection.readonly("main"):
        raise unwritable(path, "it is read-only")
    if connection.pragma("journal_mode") != "wal":
        connection.pragma("journal_mode", "WAL")  # a restored backup
    return lacking


def _close(connection: apsw.Connection) -> None:
    """Close, waiting a little for a thread that reads."""
    end = time.monotonic() + _CLOSE_SECONDS
    while True:
        try:
            connection.close()
            return
        except apsw.ThreadingViolationError:
            if time.monotonic() > end:
                return
            connection.interrupt()
            time.sleep(0.01)
