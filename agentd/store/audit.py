"""The audit log: append-only, and chained by hashes so that a changed, removed or moved record is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import apsw

from agentd.store.db import Database
from agentd.types import Clock, JsonObject

FIRST = "0" * 64
"""What the first record has in place of the hash of the one before."""

Fault = Literal["changed", "removed", "reordered", "truncated", "added"]

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
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def record(self, kind: str, task: str, data: JsonObject) -> int:
        """Append a record in the current transaction (or one of its own); its number. `data` must be JSON."""
        text = _canonical(data)
        with self._db.transaction() as connection:
            last, prev = connection.execute("SELECT seq, hash FROM audit_head").get
            row = (last + 1, self._clock.now(), kind, task, text, prev)
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
                if fault := _fault(connection, seq + 1, prev, row):
                    return _verdict(seq, prev, *fault)
                seq, prev = row[0], row[6]
            fault = _head_fault(connection, seq, prev)
            return _verdict(seq, prev, *fault) if fault else AuditVerdict(ok=True, count=seq, head=prev)


def _hash(seq: int, at: float, kind: str, task: str, data: str, prev: str) -> str:
    """SHA-256 of the record as canonical JSON: sorted keys, no spaces, ASCII; `data` is canonical JSON already."""
    text = (
        f'{{"at":{at!r},"data":{data},"kind":{_quote(kind)},"prev":{_quote(prev)},"seq":{seq},"task":{_quote(task)}}}'
    )
    return hashlib.sha256(text.encode()).hexdigest()


_Found = tuple[Fault, int, str]


def _fault(connection: apsw.Connection, seq: int, prev: str, row: tuple[Any, ...]) -> _Found | None:
    """What is wrong with `row`, which should be record `seq` and follow the hash `prev`."""
    if row[0] != seq:
        return "removed", seq, f"record {seq} is gone; {row[0]} comes next"
    if _hash(*row[:6]) != row[6]:
        return _misplaced(connection, seq, prev, row)
    if row[5] != prev:
        # Its own hash holds, so it is the record before that is not the one it was written after.
        return "changed", max(seq - 1, 1), f"record {seq} was written after another record {seq - 1} than the one there"
    return None


def _misplaced(connection: apsw.Connection, seq: int, prev: str, row: tuple[Any, ...]) -> _Found:
    """`row` does not have the hash that belongs to its place: was it moved there, or changed?"""
    for found in connection.execute(f"SELECT {_COLUMNS} FROM audit WHERE prev = ? AND seq <> ?", (prev, seq)):
        if _hash(seq, *found[1:6]) == found[6]:
            return "reordered", seq, f"record {seq} stands in place {found[0]}"
    last = connection.execute("SELECT max(seq) FROM audit").get
    for place in range(1, last + 1000):
        if _hash(place, *row[1:6]) == row[6]:
            return "removed", seq, f"record {seq} is gone; in its place stands record {place}"
    return "changed", seq, f"record {seq} does not match its hash"


def _head_fault(connection: apsw.Connection, seq: int, last: str) -> _Found | None:
    head = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
    if head is None:
        return "removed", seq, f"the head of the log is gone; its last record is {seq}"
    if head[0] > seq:
        return "truncated", seq + 1, f"records {seq + 1} to {head[0]} are gone"
    if head[0] < seq:
        return "added", head[0] + 1, f"record {head[0] + 1} was not written by agentd: the log ended at {head[0]}"
    if head[1] != last:
        return "changed", seq, f"record {seq} is not the one that was written last"
    return None


def _verdict(count: int, head: str, fault: Fault, seq: int, message: str) -> AuditVerdict:
    return AuditVerdict(ok=False, count=count, head=head, fault=fault, seq=seq, message=message)
