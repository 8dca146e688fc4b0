"""A whole, compact copy of a database that is in use."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from agentd.errors import Conflict, StoreError
from agentd.store.sqlite import is_full, reason


def backup(connection: apsw.Connection, source: Path, target: Path) -> None:
    """Copy the database `source`, open as `connection`, to `target`; `Conflict` when there is such a file already.

    What is at `target` afterwards is whole and on the disk; a copy that fails leaves nothing.
    """
    _claim(target)
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        _copy(connection, source, part)
        os.chmod(part, 0o600)
        _sync(part)
        os.replace(part, target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(target, error) from error
        raise


def _claim(target: Path) -> None:
    """Make `target` as an empty file, so that nobody else's is replaced."""
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise Conflict(f"{target} exists already", hint="name a file that does not exist yet") from None
    except OSError as error:
        raise _unwritable(target, error) from error


def _copy(connection: apsw.Connection, source: Path, part: Path) -> None:
    try:
        connection.execute("VACUUM INTO ?", (str(part),))
    except apsw.Error as error:
        full = is_full(error, connection)
        writing = full or isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError)
        raise reason(error, part if writing else source, full=full) from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unwritable(target: Path, error: OSError) -> StoreError:
    return StoreError(f"the backup {target} cannot be written: {error}", hint="name a file in a folder that exists")
