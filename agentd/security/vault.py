"""Keys and passwords for servers, sealed in the database with a key that lies in a private file of its own."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentd.errors import BadInput, NotFound, StoreError
from agentd.security.key_file import KeyFile
from agentd.store.db import Database
from agentd.types import Clock

MAX_BYTES = 16 * 1024
SHORTEST = 6
"""Characters of a secret that is looked for in texts."""
SHORTEST_LINE = 16
"""The same of one line of a longer secret: where its lines are numbered or stand in a diff, only each is found."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}")
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
        self._values: tuple[str, ...] | None = None
        self._changes = 0
        self._file = KeyFile(
            key_path,
            "the vault",
            hint="bring it back from a backup; else remove every secret (`agentd secret rm`) and set them anew",
        )

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
            self._db.after_commit(self._forget)

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
                f"the secret {name} cannot be opened: it was changed, or {self._file.path} is not its key",
                hint=f"bring back the right key file, or set the secret again: agentd secret set {name}",
            ) from None
        return data.decode("utf-8", "surrogatepass")

    def values(self) -> tuple[str, ...]:
        """All that can be opened and is long enough to be told from ordinary words, in every form that texts have it
        in. They are opened once: whatever is logged is held against them."""
        if self._values is not None:
            return self._values
        changes = self._changes
        try:
            opened = [self._opened(secret.name) for secret in self.names()]
        except StoreError:
            return ()  # what is said about that goes without them
        values = tuple(dict.fromkeys(form for value in opened if value for form in _forms(value.strip())))
        if None not in opened and changes == self._changes:
            self._values = values
        return values

    def _forget(self) -> None:
        self._changes += 1
        self._values = None

    def _opened(self, name: str) -> str | None:
        try:
            return self.get(name) or ""
        except StoreError:
            return None

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
            self._db.after_commit(self._forget)

    def _key(self, *, make: bool = False) -> bytes:
        key = self._file.read()
        if key is not None:
            return key
        if not make or self.names():
            raise self._file.gone()
        return self._file.make()


def _forms(value: str) -> Iterator[str]:
    """As it is, as it stands in JSON, and line by line."""
    if len(value) >= SHORTEST:
        yield value
        yield json.dumps(value)[1:-1]
        yield json.dumps(value, ensure_ascii=False)[1:-1]
    lines = [line.strip() for line in value.splitlines()]
    yield from (line for line in lines if len(line) >= SHORTEST_LINE)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name[:100]!r} is no name of a secret",
            hint="letters, digits and . _ : + - (at most 100, a letter or digit first)",
        )
