"""Named keys for programs that use the TCP port: each can be taken back alone; only their digests are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass

from agentd.errors import BadInput, Conflict, NotFound
from agentd.store.db import Database
from agentd.types import Clock

PREFIX = "sk-agentd-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USE_NOTED_EVERY = 60.0
"""Seconds: a key that is used all the time does not write all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """Times are Unix seconds; `used` is None for one that never was, and right to a minute."""

    name: str
    created: float
    used: float | None


class ApiKeys:
    """The keys of one home; safe to use from several threads."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._lock = threading.Lock()
        self._names: dict[str, str] | None = None
        """Digest -> name, read once."""
        self._noted: dict[str, float] = {}

    def make(self, name: str) -> str:
        """A new key, which is shown this once. Raises `BadInput` for the name, `Conflict` when it is taken."""
        if not _NAME.fullmatch(name):
            raise BadInput(f"{name[:80]!r} is no name for a key", hint="letters, digits, dots, dashes; at most 64")
        if name in [key.name for key in self.all()]:
            raise Conflict(f"there is a key {name!r} already", hint=f"`agentd key rm {name}` takes it back")
        key = PREFIX + secrets.token_urlsafe(32)
        row = (name, _digest(key), self._clock.now())
        self._db.execute("INSERT INTO api_keys (name, sha256, created) VALUES (?, ?, ?)", row)
        self._forget()
        return key

    def all(self) -> list[ApiKey]:
        """In the order of their names."""
        rows = self._db.rows("SELECT name, created, used FROM api_keys ORDER BY name")
        return [ApiKey(name=row["name"], created=row["created"], used=row["used"]) for row in rows]

    def remove(self, name: str) -> None:
        """Raises `NotFound`."""
        known = [key.name for key in self.all()]
        if name not in known:
            raise NotFound(f"there is no key {name[:80]!r}", hint=f"there are {', '.join(known) or 'none'}")
        self._db.execute("DELETE FROM api_keys WHERE name = ?", (name,))
        self._forget()

    def knows(self, key: str) -> bool:
        """Whether it is one of them; notes that it was used."""
        if not key.startswith(PREFIX):
            return False
        name = self._by_digest().get(_digest(key))
        if name is not None:
            self._note(name)
        return name is not None

    def _by_digest(self) -> dict[str, str]:
        with self._lock:
            if self._names is None:
                rows = self._db.rows("SELECT name, sha256 FROM api_keys")
                self._names = {row["sha256"]: row["name"] for row in rows}
            return self._names

    def _note(self, name: str) -> None:
        now = self._clock.now()
        if now - self._noted.get(name, 0.0) < _USE_NOTED_EVERY:
            return
        self._noted[name] = now
        self._db.execute("UPDATE api_keys SET used = ? WHERE name = ?", (now, name))

    def _forget(self) -> None:
        with self._lock:
            self._names = None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
