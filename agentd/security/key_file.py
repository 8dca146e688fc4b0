"""A key of this home in a private file of its own: 32 random bytes, in hex, that only the owner may read."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from agentd.errors import DiskFull, StoreError
from agentd.home import write_private

BYTES = 32


class KeyFile:
    """The key at `path`; `owner` is what errors call whose it is, `hint` what to do when it is gone."""

    def __init__(self, path: Path, owner: str, *, hint: str = "bring it back from a backup") -> None:
        self.path = path
        self._owner = owner
        self._hint = hint

    def read(self) -> bytes | None:
        """The key, None when there is no file. Raises `StoreError` for one that cannot be used."""
        try:
            key = bytes.fromhex(self.path.read_text(encoding="ascii").strip())
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"the key of {self._owner} cannot be read: {self.path}: {error}") from None
        if len(key) != BYTES:
            raise StoreError(f"{self.path} is no key of {self._owner}", hint="bring it back from a backup")
        if os.name == "posix" and mode & 0o077:
            raise StoreError(
                f"others can read the key of {self._owner}: {self.path}",
                hint="chmod 600 it, and change what was sealed or signed with it",
            )
        return key

    def make(self) -> bytes:
        """A new key, on the disk when this returns: what hangs on it must not outlive it."""
        key = secrets.token_bytes(BYTES)
        try:
            write_private(self.path, key.hex() + "\n")
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = DiskFull if full else StoreError
            hint = "free some space" if full else "see to the folder's rights"
            words = f"the key of {self._owner} cannot be written: {self.path}: {error.strerror}"
            raise kind(words, hint=hint) from None
        return key

    def gone(self) -> StoreError:
        """The error for a key that has to be there and is not."""
        return StoreError(f"the key of {self._owner} is gone: {self.path}", hint=self._hint)
