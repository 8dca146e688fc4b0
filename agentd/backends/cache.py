"""Replies of models that are given again to exactly the same request at temperature 0."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agentd.backends.json_schema import problems
from agentd.config import CacheSettings
from agentd.errors import Conflict, NotFound, StoreError
from agentd.store.db import Database
from agentd.telemetry import get_logger
from agentd.types import Clock, JsonObject, ModelReply, ModelRequest

_MIB = 1024 * 1024
_DAY = 86_400.0
_SWEEP = 3600.0
"""Seconds between two looks for replies that are too old."""
_SPARE = 64 * _MIB
"""The last bytes of a disk are left to tasks."""
_LARGEST_SHARE = 8
"""A reply may take this part of all the room."""
_NO_MATTER = frozenset({"client", "timeout", "priority", "hedge", "cache"})
"""What of a request does not change its reply."""
_ASKED = tuple(field.name for field in fields(ModelRequest) if field.name not in _NO_MATTER)
_REPLY = TypeAdapter(ModelReply)
_KEY = 64

log = get_logger("agentd.backends")


class ReplyCache:
    """Replies in the database. What goes wrong with it is logged and never fails a request. Any thread may use it."""

    def __init__(self, db: Database, clock: Clock, settings: Callable[[], CacheSettings]) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._lock = threading.Lock()
        self._bytes: int | None = None
        """What the replies take; None until it was added up."""
        self._swept = 0.0
        self._hits = self._misses = 0

    def key(self, request: ModelRequest, identity: JsonObject | None) -> str | None:
        """Under which the reply of this very model would be kept; None for a request whose reply is not kept.

        `identity` tells the model from another one under the same name; None for one that never says the same again.
        """
        if not self._settings().enabled or not request.cache or request.temperature != 0 or identity is None:
            return None
        asked = {name: getattr(request, name) for name in _ASKED}
        try:
            # Keys of a schema are not sorted: their order is the order in which a model writes the fields.
            text = json.dumps([identity, asked], default=_plain, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            return None  # something that has no JSON form: whoever gets the request says what is wrong with it
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def get(self, key: str | None) -> ModelReply | None:
        """The reply under `key`, marked as `cached`, with the seconds that finding it took."""
        if key is None:
            return None
        started = time.monotonic()
        try:
            reply = self._find(key)
        except StoreError as error:
            log.warning("a kept reply could not be looked up", why=error.message)
            reply = None
        with self._lock:
            self._hits, self._misses = self._hits + (reply is not None), self._misses + (reply is None)
        if reply is None:
            return None
        return replace(reply, cached=True, reused_tokens=0, seconds=time.monotonic() - started)

    def put(self, key: str | None, request: ModelRequest, reply: ModelReply) -> None:
        """Keep a reply that is whole and of the form that was asked for; others are passed over."""
        if key is None or reply.cached or not is_whole(request, reply):
            return
        text = json.dumps(asdict(reply), ensure_ascii=False, separators=(",", ":"))
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return  # half a character, which the database does not take
        if size > self._room() // _LARGEST_SHARE:
            return
        try:
            if shutil.disk_usage(self._db.path.parent).free < _SPARE:
                return
            self._store(key, reply.model, text, size)
        except (StoreError, OSError) as error:
            with self._lock:
                self._bytes = None
            log.warning("a reply could not be kept", why=str(error))

    def stats(self) -> dict[str, Any]:
        """`enabled`, `replies`, `bytes`, `max_bytes`, `oldest` (Unix seconds), `given` (how often kept replies were
        given in all), and `hits` and `misses` since the daemon's start."""
        found = self._db.row(
            "SELECT count(*) AS replies, coalesce(sum(bytes), 0) AS bytes, min(created) AS oldest,"
            " coalesce(sum(hits), 0) AS given FROM replies"
        )
        limits = {"enabled": self._settings().enabled, "max_bytes": self._room()}
        return limits | (found or {}) | {"hits": self._hits, "misses": self._misses}

    def rows(self, limit: int = 50) -> list[dict[str, Any]]:
        """`key`, `model`, `bytes`, `created`, `used` (Unix seconds) and `hits` of the replies, the last used first."""
        return self._db.rows(
            "SELECT key, model, bytes, created, used, hits FROM replies ORDER BY used DESC, key LIMIT ?", (limit,)
        )

    def show(self, start: str) -> dict[str, Any]:
        """One reply by its key, or the start of it. Raises `NotFound`, and `Conflict` for the start of several."""
        if not start or len(start) > _KEY or not set(start) <= set("0123456789abcdef"):
            raise NotFound(f"there is no kept reply {start[:_KEY]!r}", hint="`agentd cache ls` lists them")
        found = self._db.rows("SELECT * FROM replies WHERE key >= ? AND key < ? LIMIT 2", (start, start + "g"))
        if not found:
            raise NotFound(f"there is no kept reply {start!r}", hint="`agentd cache ls` lists them")
        if len(found) > 1:
            raise Conflict(f"several kept replies begin with {start!r}", hint="give more of the key")
        return found[0] | {"reply": json.loads(found[0]["reply"])}

    def clear(self, model: str | None = None) -> int:
        """Forget all replies, or those of one model, also on the disk; returns how many."""
        with self._db.transaction() as connection, self._lock:
            self._bytes = None
            if model is None:
                self._db.execute("DELETE FROM replies")
            else:
                self._db.execute("DELETE FROM replies WHERE model = ?", (model,))
            forgotten = int(connection.changes())
        self._db.empty_log()
        return forgotten

    def _find(self, key: str) -> ModelReply | None:
        row = self._db.row("SELECT reply, created FROM replies WHERE key = ?", (key,))
        if row is None:
            return None
        now = self._clock.now()
        if row["created"] < self._oldest(now):
            return None  # the next sweep takes it away
        try:
            reply = _REPLY.validate_json(row["reply"])
        except ValidationError:
            log.warning("a kept reply is damaged and was passed over", key=key)
            return None
        try:
            self._db.execute("UPDATE replies SET used = ?, hits = hits + 1 WHERE key = ?", (now, key))
        except StoreError as error:
            log.warning("the use of a kept reply could not be noted", why=error.message)
        return reply

    def _store(self, key: str, model: str, text: str, size: int) -> None:
        now = self._clock.now()
        with self._db.transaction(), self._lock:
            if now - self._swept > _SWEEP or self._bytes is None or now < self._swept:
                self._db.execute("DELETE FROM replies WHERE created < ?", (self._oldest(now),))
                self._bytes, self._swept = self._added_up(), now
            earlier = self._db.row("SELECT bytes FROM replies WHERE key = ?", (key,))
            self._db.execute(
                "INSERT OR REPLACE INTO replies (key, model, reply, bytes, created, used) VALUES (?, ?, ?, ?, ?, ?)",
                (key, model, text, size, now, now),
            )
            self._bytes += size - (earlier["bytes"] if earlier else 0)
            if self._bytes > self._room():
                self._make_room(key)

    def _make_room(self, key: str) -> None:
        """Forget what was unused for the longest time, and some more, so that it is not done at each reply."""
        for row in self._db.rows("SELECT key, bytes FROM replies ORDER BY used, key"):
            if self._bytes is None or self._bytes <= self._room() * 9 // 10:
                return
            if row["key"] != key:
                self._db.execute("DELETE FROM replies WHERE key = ?", (row["key"],))
                self._bytes -= row["bytes"]

    def _room(self) -> int:
        """Bytes that replies may take."""
        return self._settings().max_mb * _MIB

    def _added_up(self) -> int:
        row = self._db.row("SELECT coalesce(sum(bytes), 0) AS bytes FROM replies")
        return int(row["bytes"]) if row else 0

    def _oldest(self, now: float) -> float:
        return now - self._settings().max_age_days * _DAY


def is_whole(request: ModelRequest, reply: ModelReply) -> bool:
    """Whether a reply ended by itself, says something, and has the form that the request wants."""
    if reply.finish_reason not in ("stop", "tool_calls") or not (reply.text or reply.tool_calls):
        return False
    return bool(reply.tool_calls) or fits(request, reply)


def fits(request: ModelRequest, reply: ModelReply) -> bool:
    """Whether the text is one of the choices, or JSON of the schema, of the request; True where it has neither."""
    if request.choices is not None:
        return reply.text in request.choices
    if request.schema is None:
        return True
    try:
        return not problems(json.loads(reply.text), request.schema, limit=1)
    except (ValueError, RecursionError):
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
