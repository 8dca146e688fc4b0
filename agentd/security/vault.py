"""Keys and passwords for servers, sealed in the database with a key that lies in a private file of its own."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentd.errors import BadInput, DiskFull, NotFound, StoreError
from agentd.home import write_private
from agentd.store.db import Database
from agentd.types import Clock

MAX_BYTES = 16 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}")
_KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What may be said of a secret; `changed` in Unix seconds."""

    name: str
    changed: float


class Vault:
    """Secrets by name. The key in `key_path` is made with the first of them; safe to use from several threads."""

    def __init__(self, db: Database, clock: Clock, key_path: Path) -> None:
        self._db = db
        self._clock = clock
        self._path = key_path

    def set(self, name: str, value: str) -> None:
        """Keep a secret, in place of an older one. Raises `BadInput`, and `StoreError` when the key cannot be used."""
        _check_name(name)
        data = value.encode("utf-8", "surrogatepass")
        if not data or len(data) > MAX_BYTES:
            raise BadInput(f"the secret {name} has {len(data)} bytes; from 1 to {MAX_BYTES} can be kept")
        with self._db.transaction():
            nonce = secrets.token_bytes(_NONCE_BYTES)
            sealed = AESGCM(self._key(make=True)).encrypt(nonce, data, name.encode())
            self._db.execute(
                "INSERT INTO secrets (name, nonce, sealed, changed) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET nonce = excluded.nonce, sealed = excluded.sealed, changed = excluded.changed",
                (name, nonce, sealed, self._clock.now()),
            )

    def get(self, name: str) -> str | None:
        """The secret, or None when there is none of this name. Raises `StoreError` for one that cannot be opened."""
        row = self._db.row("SELECT nonce, sealed FROM secrets WHERE name = ?", (name,))
        if row is None:
            return None
        try:
            # The name is part of what is sealed, so that rows cannot be swapped.
            data = AESGCM(self._key()).decrypt(row["nonce"], row["sealed"], name.encode())
        except (InvalidTag, ValueError):
            raise StoreError(
                f"the secret {name} cannot be opened: it was changed, or {self._path} is not its key",
                hint=f"bring back the right key file, or set the secret again: agentd secret set {name}",
            ) from None
        return data.decode("utf-8", "surrogatepass")

    def names(self) -> list[Secret]:
        """What there is, by name; never the secrets themselves."""
        rows = self._db.rows("SELECT name, changed FROM secrets ORDER BY name")
        return [Secret(name=row["name"], changed=row["changed"]) for row in rows]

    def remove(self, name: str) -> None:
        """Raises `NotFound`."""
        with self._db.transaction():
            if not self._db.rows("DELETE FROM secrets WHERE name = ? RETURNING name", (name,)):
                known = ", ".join(secret.name for secret in self.names())
                raise NotFound(f"there is no secret {name[:100]!r}", hint=f"there are {known}" if known else "")

    def _key(self, *, make: bool = False) -> bytes:
        try:
            key = bytes.fromhex(self._path.read_text(encoding="ascii").strip())
            mode = stat.S_IMODE(self._path.stat().st_mode)
        except FileNotFoundError:
            if not make or self.names():
                raise StoreError(
                    f"the key of the vault is gone: {self._path}",
                    hint="bring it back from a backup; else remove every secret (`agentd secret rm`) and set them anew",
                ) from None
            return self._make_key()
        except (OSError, ValueError) as error:
            raise StoreError(f"the key of the vault cannot be read: {self._path}: {error}") from None
        if len(key) != _KEY_BYTES:
            raise StoreError(f"{self._path} is no key of a vault", hint="bring it back from a backup")
        if os.name == "posix" and mode & 0o077:
            raise StoreError(
                f"others can read the key of the vault: {self._path}", hint="chmod 600 it, and change what was sealed"
            )
        return key

    def _make_key(self) -> bytes:
        key = secrets.token_bytes(_KEY_BYTES)
        try:
            write_private(self._path, key.hex() + "\n")  # what is sealed with it must not outlive it
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            kind = DiskFull if full else StoreError
            hint = "free some space" if full else "see to the folder's rights"
            raise kind(f"the key of the vault cannot be written: {self._path}: {error.strerror}", hint=hint) from None
        return key


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name[:100]!r} is no name of a secret",
            hint="letters, digits and . _ : + - (at most 100, a letter or digit first)",
        )
