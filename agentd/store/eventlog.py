"""Events as rows, so that a listener who was away can catch up on what it missed."""

from __future__ import annotations

import json
from collections.abc import Callable

from agentd.events import Bus, Event
from agentd.store.db import Database
from agentd.types import Clock, JsonObject

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class EventLog:
    def __init__(
        self, db: Database, bus: Bus, clock: Clock, clean: Callable[[JsonObject], JsonObject] = lambda data: data
    ) -> None:
        """`clean` takes secrets out of what listeners are told."""
        self._db = db
        self._bus = bus
        self._clock = clock
        self._clean = clean

    def emit(self, kind: str, task: str, data: JsonObject) -> None:
        """Write an event in the current transaction (or one of its own) and publish it once that has committed.

        `data` must be JSON; listeners get it as it was stored. Ids grow in the order of publication.
        """
        text, at = _encode(self._clean(data)), self._clock.now()
        with self._db.transaction() as connection:
            self._db.execute("INSERT INTO events (at, kind, task, data) VALUES (?, ?, ?, ?)", (at, kind, task, text))
            event = Event(id=connection.last_insert_rowid(), at=at, kind=kind, task=task, data=json.loads(text))
            self._db.after_commit(lambda: self._bus.publish(event))

    def since(self, last_id: int, task: str | None = None, limit: int = 1000) -> list[Event]:
        """At most `limit` events after `last_id` (of one task), oldest first."""
        where, params = ("AND task = ?", (task,)) if task is not None else ("", ())
        sql = f"SELECT id, at, kind, task, data FROM events WHERE id > ? {where} ORDER BY id LIMIT ?"
        rows = self._db.rows(sql, (last_id, *params, limit))
        return [Event(**row | {"data": json.loads(row["data"])}) for row in rows]
