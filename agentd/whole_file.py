"""Writes a text file as a whole: after a crash or on a full disk the old text stands there, never half of the new."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from agentd.errors import ConfigError, DiskFull

_NEW_FILE_MODE = 0o644


def replace_text(path: Path, text: str) -> None:
    """Write a file with the rights that it had; a link stays one. Raises `ConfigError`, and `DiskFull`."""
    target = path.resolve()
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else _NEW_FILE_MODE
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text, mode)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk is full: {target} cannot be written", hint="free some space") from None
        raise ConfigError(f"{target} cannot be written: {error.strerror}", hint="see to its rights") from None


def write_whole(path: Path, text: str, mode: int) -> None:
    """All of `text` with these rights, on the disk when this returns; or nothing of it, and `OSError`."""
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(made, mode)
        os.replace(made, path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
