"""One connection to an agentd database: page checksums, settings, extensions, and what SQLite's errors mean."""

from __future__ import annotations

import errno
import importlib.util
import threading
from pathlib import Path

import apsw
import apsw.sqlite_extra

from agentd.errors import DiskFull, StoreError

CHECKSUM_BYTES = 8
"""Reserved at the end of each page; cksumvfs checks only files with exactly this many."""

_VFS = "cksmvfs"
_BUSY_MS = 5_000  # only another program that looks at the file can be in the way
_WAL_LIMIT = 64 * 1024 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_registering = threading.Lock()


def connect(path: Path, *, create: bool = False) -> apsw.Connection:
    """Open `path` for reading and writing; `create` makes a new, empty file. Raises apsw errors."""
    _register_checksums()
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = apsw.Connection(str(path), flags=flags, vfs=_VFS, statementcachesize=200)
    try:
        _load_vectors(connection)
        _set_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _register_checksums() -> None:
    """Make SQLite know the file layer that writes and checks a checksum on each page; once per process."""
    with _registering:
        if _VFS in apsw.vfs_names():
            return
        usual = apsw.vfs_names()[0]
        try:
            apsw.sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")
        except (apsw.sqlite_extra.NotAvailable, LookupError, apsw.ExtensionLoadingError) as error:
            # A database opened without it would get pages with wrong checksums, so there is no going on without.
            raise StoreError(
                f"this build of apsw has no page checksums: {error}",
                hint="install apsw-sqlite3mc as a wheel from the package index, without plain apsw beside it",
            ) from error
        apsw.set_default_vfs(usual)


def _load_vectors(connection: apsw.Connection) -> None:
    # Importing sqlite_vec costs 120 ms; its folder is all that is needed.
    spec = importlib.util.find_spec("sqlite_vec")
    if spec is None or not spec.submodule_search_locations:
        raise StoreError("the package sqlite-vec is missing", hint="install it: pip install sqlite-vec")
    connection.enable_load_extension(True)
    try:
        connection.load_extension(str(Path(spec.submodule_search_locations[0]) / "vec0"))
    finally:
        connection.enable_load_extension(False)


def _set_up(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(_BUSY_MS)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    connection.pragma("synchronous", "FULL")
    connection.pragma("secure_delete", True)  # texts of users that are deleted are gone, not only out of sight
    connection.pragma("journal_size_limit", _WAL_LIMIT)


def is_full(error: apsw.Error, connection: apsw.Connection | None = None) -> bool:
    """Whether a file could not grow. A WAL database needs room for its index even to be read."""
    if isinstance(error, apsw.FullError):
        return True
    if not isinstance(error, apsw.IOError):
        return False
    if _extended(error) == apsw.SQLITE_IOERR_SHMSIZE:
        return True
    return connection is not None and connection.system_errno in _NO_ROOM


def explain(error: apsw.Error, path: Path, *, full: bool = False) -> StoreError | None:
    """What to raise instead where the file is at fault and not the statement: `DiskFull` or another `StoreError`."""
    if full:
        return DiskFull(
            f"the disk is full: {path} cannot grow ({error})",
            hint=f"free some space in the file system of {path.parent}, then try again",
        )
    damaged = _extended(error) == apsw.SQLITE_IOERR_DATA
    if damaged or isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return damage(path, "a page does not match its checksum" if damaged else str(error))
    if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError | apsw.PermissionsError):
        return unwritable(path, str(error))
    if isinstance(error, apsw.ConnectionClosedError | apsw.InterruptError):
        return StoreError(f"the database {path} is closed")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreError(f"another program holds the database {path}: {error}", hint="end it, then try again")
    if isinstance(error, apsw.IOError):
        return StoreError(f"reading or writing the database {path} failed: {error}", hint="look after its disk")
    return None


def reason(error: apsw.Error, path: Path, *, full: bool) -> StoreError:
    """As `explain`, where no statement can be wrong."""
    return explain(error, path, full=full) or StoreError(f"the database {path} cannot be used: {error}")


def unwritable(path: Path, why: str) -> StoreError:
    return StoreError(
        f"the database {path} cannot be written: {why}",
        hint=f"the user who runs agentd must be able to write {path} and the folder {path.parent}",
    )


def _extended(error: apsw.Error) -> int:
    return int(getattr(error, "extendedresult", 0))  # set by apsw on what SQLite reports


def damage(path: Path, what: str) -> StoreError:
    """The error for a file whose content cannot be trusted."""
    return StoreError(
        f"the database {path} is damaged: {what}",
        hint=f"nothing was changed; keep {path.name}* aside, and put a backup in its place",
    )
