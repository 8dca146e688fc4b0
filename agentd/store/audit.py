"""The audit log: append-only, and chained by hashes so that a changed, removed or moved record is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from agentd.store.db import Database
from agentd.types import Clock, JsonObject

FIRST = "0" * 64
"""What the first record has in place of the hash of the one before."""

Fault = Literal["changed", "removed", "reordered", "truncated", "added"]

_Row = tuple[Any, ...]
_Found = tuple[Fault, int, str]
_COLUMNS = "seq, at, kind, task, data, prev, hash"
_quote = json.encoder.encode_basestring_ascii
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """`at` is Unix seconds; `hash` covers everything else, `prev` is the hash of the record before."""

    seq: int
    at: float
    kind: str
    task: str
    data: JsonObject
    prev: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """Whether the log is whole. `count` records were read up to the first fault, `head` is the hash of the last sound
    one; a copy of it kept elsewhere also shows a log that was rewritten from end to end."""

    ok: bool
    count: int
    head: str
    fault: Fault | None = None
    seq: int | None = None
    """The first record at fault."""
    message: str = ""


class Audit:
    def __init__(
        self, db: Database, clock: Clock, clean: Callable[[JsonObject], JsonObject] = lambda data: data
    ) -> None:
        """`clean` takes secrets out of what is recorded."""
        self._db = db
        self._clock = clock
        self._clean = clean

    def record(self, kind: str, task: str, data: JsonObject) -> int:
        """Append a record in the current transaction (or one of its own); its number. `data` must be JSON."""
        text = _canonical(self._clean(data))
        with self._db.transaction() as connection:
            last, prev = connection.execute("SELECT seq, hash FROM audit_head").get
            row = (last + 1, float(self._clock.now()), kind, task, text, prev)
            self._db.execute(f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, _hash(*row)))
        return int(row[0])

    def tail(self, limit: int = 50, task: str | None = None) -> list[AuditRecord]:
        """The last `limit` records (of one task), oldest first."""
        where, params = ("WHERE task = ?", (task,)) if task is not None else ("", ())
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM audit {where} ORDER BY seq DESC LIMIT ?", (*params, limit))
        return [AuditRecord(**row | {"data": json.loads(row["data"])}) for row in reversed(rows)]

    def verify(self) -> AuditVerdict:
        """Read the whole log and name the first record that is not as it was written."""
        with self._db.snapshot() as connection:
            seq, prev = 0, FIRST
            for row in connection.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY seq"):
                if fault := self._fault(seq + 1, prev, row):
                    return _verdict(seq, prev, *fault)
                seq, prev = row[0], row[6]
            fault = self._head_fault(seq, prev)
        return _verdict(seq, prev, *fault) if fault else AuditVerdict(ok=True, count=seq, head=prev)

    def _fault(self, seq: int, prev: str, row: _Row) -> _Found | None:
        """What is wrong with `row`, which should be record `seq` and follow the hash `prev`."""
        if row[0] != seq:
            return "removed", seq, f"record {seq} is gone; {row[0]} comes next"
        if _hash(*row[:6]) != row[6]:
            return self._misplaced(seq, prev, row)
        if row[5] != prev:
            # Its own hash holds, so it is the one before that is not what it was when this one was written.
            before = max(seq - 1, 1)
            return "changed", before, f"record {before} is not the one that record {seq} was written after"
        return None

    def _misplaced(self, seq: int, prev: str, row: _Row) -> _Found:
        """`row` does not have the hash that belongs to its place: was it moved there, or changed?"""
        for found in self._db.rows(f"SELECT {_COLUMNS} FROM audit WHERE prev = ? AND seq <> ?", (prev, seq)):
            place, *content, own_hash = found.values()
            if _hash(seq, *content) == own_hash:
                return "reordered", seq, f"record {seq} stands in the place of record {place}"
        last = self._db.rows("SELECT max(seq) AS seq FROM audit UNION ALL SELECT seq FROM audit_head")
        for place in range(1, max(found["seq"] for found in last) + 1):
            if _hash(place, *row[1:6]) == row[6]:
                return "removed", seq, f"record {seq} is gone; in its place stands record {place}"
        return "changed", seq, f"record {seq} does not match its hash"

    def _head_fault(self, seq: int, last: str) -> _Found | None:
        """What is wrong with the end of the log, when all records to `seq` are sound."""
        head = self._db.row("SELECT seq, hash FROM audit_head")
        if head is None:
            return "removed", seq + 1, f"what was written last is not known any more; the last record there is {seq}"
        if head["seq"] > seq:
            return "truncated", seq + 1, f"records {seq + 1} to {head['seq']} are gone from the end"
        if head["seq"] < seq:
            first = head["seq"] + 1
            return "added", first, f"record {first} was not written by agentd, whose last one is {head['seq']}"
        if head["hash"] != last:
            return "changed", seq, f"record {seq} is not the one that was written last"
        return None


def _hash(seq: int, at: float, kind: str, task: str, data: str, prev: str) -> str:
    """SHA-256 of the record as canonical JSON: sorted keys, no spaces, ASCII; `data` is canonical JSON already."""
    text = (
        f'{{"at":{at!r},"data":{data},"kind":{_quote(kind)},"prev":{_quote(prev)},"seq":{seq},"task":{_quote(task)}}}'
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _verdict(count: int, head: str, fault: Fault, seq: int, message: str) -> AuditVerdict:
    return AuditVerdict(ok=False, count=count, head=head, fault=fault, seq=seq, message=message)
