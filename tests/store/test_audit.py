"""The audit log: what it keeps, and that every kind of tampering is noticed and named."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest

from agentd.store.audit import FIRST, Audit
from agentd.store.db import Database
from tests.store.conftest import OpenDatabase, StillClock, python

COUNT = 12
TRIGGERS = [
    "audit_in_order",
    "audit_moves_head",
    "audit_keeps_records",
    "audit_keeps_content",
    "audit_head_is_one",
    "audit_head_stays",
    "audit_head_grows",
]


@pytest.fixture
def audit(db: Database, clock: StillClock) -> Audit:
    """With twelve records."""
    audit = Audit(db, clock)
    for number in range(1, COUNT + 1):
        clock.sleep(1)
        assert audit.record("tool.decided", f"task{number % 2}", {"number": number, "why": "ä\n"}) == number
    return audit


@pytest.fixture
def tamper(audit: Audit, outside: Callable[[], apsw.Connection]) -> Callable[..., None]:
    """Run SQL as somebody who owns the file and knows the triggers."""

    def run(*statements: str) -> None:
        connection = outside()
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            connection.execute(statement)

    return run


def test_records_are_kept_in_order(audit: Audit, clock: StillClock) -> None:
    tail = audit.tail(3)
    assert [record.seq for record in tail] == [10, 11, 12]
    assert tail[-1].at == clock.now()
    assert (tail[-1].kind, tail[-1].task, tail[-1].data) == ("tool.decided", "task0", {"number": 12, "why": "ä\n"})
    assert tail[-1].prev == tail[-2].hash
    assert [record.seq for record in audit.tail(3, task="task1")] == [7, 9, 11]
    assert len(audit.tail()) == COUNT


def test_the_whole_log_is_sound(audit: Audit) -> None:
    verdict = audit.verify()
    assert verdict.ok
    assert (verdict.count, verdict.head, verdict.fault) == (COUNT, audit.tail(1)[0].hash, None)


def test_an_empty_log_is_sound(db: Database, clock: StillClock) -> None:
    assert Audit(db, clock).verify().head == FIRST


def test_anyone_can_check_a_hash(audit: Audit) -> None:
    record = audit.tail(1)[0]
    fields = {name: getattr(record, name) for name in ("seq", "at", "kind", "task", "data", "prev")}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == record.hash


def test_a_clock_of_whole_seconds(db: Database) -> None:
    class WholeSeconds(StillClock):
        def now(self) -> float:
            return 1_750_000_000

    audit = Audit(db, WholeSeconds())
    audit.record("test", "", {})
    assert audit.verify().ok


def test_data_that_is_no_json_is_refused(audit: Audit) -> None:
    for data in ({"a": object()}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            audit.record("test", "", data)
    assert audit.verify().count == COUNT


def test_odd_text_survives(audit: Audit) -> None:
    data = {"path": "caf\udce9", "nul": "\0", "quote": '"', "number": 1e300}
    audit.record("test", "", data)
    assert audit.tail(1)[0].data == data
    assert audit.verify().ok


def test_a_record_stands_or_falls_with_its_transaction(audit: Audit, db: Database) -> None:
    def fail() -> None:
        with db.transaction():
            audit.record("test", "", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert audit.verify().count == COUNT
    assert audit.record("test", "", {}) == COUNT + 1


def test_many_threads_write_one_chain(audit: Audit) -> None:
    def work() -> None:
        for number in range(20):
            audit.record("test", "", {"number": number})

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert audit.verify().count == COUNT + 80
    assert audit.verify().ok


def test_verify_reads_one_state_while_others_write(audit: Audit) -> None:
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [audit.record("test", "", {}) for _ in range(200)])
        while not writing.done():
            assert audit.verify().ok
        writing.result()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET kind = 'x' WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit",
        "REPLACE INTO audit SELECT seq, at, 'x', task, data, prev, hash FROM audit WHERE seq = 3",
        f"REPLACE INTO audit SELECT seq, at, 'x', task, data, prev, hash FROM audit WHERE seq = {COUNT}",
        "INSERT INTO audit SELECT seq + 50, at, kind, task, data, prev, hash FROM audit",
        f"INSERT INTO audit SELECT {COUNT + 1}, at, kind, task, data, prev, hash FROM audit WHERE seq = 3",
        "UPDATE audit_head SET seq = seq - 1",
        "UPDATE audit_head SET seq = seq + 1",
        "UPDATE audit_head SET hash = 'x'",
        "DELETE FROM audit_head",
        "REPLACE INTO audit_head VALUES (1, 0, 'x')",
    ],
)
def test_sql_cannot_change_the_log(audit: Audit, db: Database, statement: str) -> None:
    with pytest.raises(apsw.ConstraintError):
        db.execute(statement)
    assert audit.verify().ok


def rewritten(audit: Audit, seq: int) -> str:
    """An UPDATE that changes a record and gives it a hash that fits again."""
    record = next(record for record in audit.tail() if record.seq == seq)
    fields = {name: getattr(record, name) for name in ("seq", "at", "kind", "task", "prev")} | {"data": {}}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return f"UPDATE audit SET data = '{{}}', hash = '{hashlib.sha256(text.encode()).hexdigest()}' WHERE seq = {seq}"


@pytest.mark.parametrize("seq", [1, 5, COUNT])
@pytest.mark.parametrize(
    "change",
    [
        "data = replace(data, 'number', 'numbre')",
        "data = data || ' '",
        "at = at + 0.001",
        "kind = 'tool.finished'",
        "task = 'other'",
        "hash = upper(hash)",
        "prev = replace(prev, substr(prev, 1, 1), 'z')",
    ],
)
def test_a_changed_record_is_named(audit: Audit, tamper: Callable[..., None], seq: int, change: str) -> None:
    tamper(f"UPDATE audit SET {change} WHERE seq = {seq}")
    verdict = audit.verify()
    assert not verdict.ok
    assert (verdict.fault, verdict.seq, verdict.count) == ("changed", seq, seq - 1)
    assert f"record {seq}" in verdict.message


@pytest.mark.parametrize("seq", [1, 5, COUNT])
def test_a_record_changed_together_with_its_hash_is_named(audit: Audit, tamper: Callable[..., None], seq: int) -> None:
    tamper(rewritten(audit, seq))
    verdict = audit.verify()
    assert (verdict.ok, verdict.fault, verdict.seq) == (False, "changed", seq)


@pytest.mark.parametrize(("which", "first"), [("seq = 1", 1), ("seq <= 4", 1), ("seq = 5", 5), ("seq IN (5, 6, 9)", 5)])
@pytest.mark.parametrize("close_the_gap", [False, True])
def test_a_removed_record_is_named(
    audit: Audit, tamper: Callable[..., None], which: str, first: int, close_the_gap: bool
) -> None:
    renumber = "UPDATE audit SET seq = (SELECT count(*) FROM audit AS a WHERE a.seq <= audit.seq)"
    tamper(f"DELETE FROM audit WHERE {which}", *([renumber] if close_the_gap else []))
    verdict = audit.verify()
    assert (verdict.ok, verdict.fault, verdict.seq) == (False, "removed", first)
    assert f"record {first} is gone" in verdict.message


@pytest.mark.parametrize("kept", [0, 5, COUNT - 1])
def test_a_cut_tail_is_named(audit: Audit, tamper: Callable[..., None], kept: int) -> None:
    tamper(f"DELETE FROM audit WHERE seq > {kept}")
    verdict = audit.verify()
    assert (verdict.ok, verdict.fault, verdict.seq, verdict.count) == (False, "truncated", kept + 1, kept)
    assert f"records {kept + 1} to {COUNT} are gone" in verdict.message


def test_a_head_that_is_gone_is_noticed(audit: Audit, tamper: Callable[..., None]) -> None:
    tamper("DELETE FROM audit WHERE seq > 8", "DELETE FROM audit_head")
    assert (audit.verify().ok, audit.verify().fault, audit.verify().seq) == (False, "removed", 9)


def test_a_cut_tail_with_a_head_that_does_not_fit_is_noticed(audit: Audit, tamper: Callable[..., None]) -> None:
    tamper("DELETE FROM audit WHERE seq > 8", "UPDATE audit_head SET seq = 8")
    assert (audit.verify().ok, audit.verify().seq) == (False, 8)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (5, 6), (4, 9), (COUNT - 1, COUNT)])
def test_reordered_records_are_named(audit: Audit, tamper: Callable[..., None], one: int, other: int) -> None:
    tamper(
        f"UPDATE audit SET seq = -1 WHERE seq = {one}",
        f"UPDATE audit SET seq = {one} WHERE seq = {other}",
        f"UPDATE audit SET seq = {other} WHERE seq = -1",
    )
    verdict = audit.verify()
    assert (verdict.ok, verdict.fault, verdict.seq) == (False, "reordered", one)
    assert f"record {one} stands in the place of record {other}" in verdict.message


def test_a_forged_record_at_the_end_is_named(audit: Audit, tamper: Callable[..., None]) -> None:
    last = audit.tail(1)[0]
    fields = {"seq": COUNT + 1, "at": 1.5, "kind": "k", "task": "", "data": {}, "prev": last.hash}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    tamper(f"INSERT INTO audit VALUES ({COUNT + 1}, 1.5, 'k', '', '{{}}', '{last.hash}', '{digest}')")
    verdict = audit.verify()
    assert (verdict.ok, verdict.fault, verdict.seq) == (False, "added", COUNT + 1)


def test_recording_is_cheap_at_any_length(open_db: OpenDatabase, clock: StillClock) -> None:
    db = open_db()
    audit = Audit(db, clock)
    data = {"tool": "read_file", "action": "fs.read a/b.py", "rule": "read-inside", "ruling": "allow"}

    def cost() -> float:
        """CPU seconds of a record, the best of several rounds: the machine may be busy."""
        rounds = []
        for _ in range(5):
            start = time.thread_time()
            for _ in range(200):
                audit.record("tool.decided", "t1", data)
            rounds.append((time.thread_time() - start) / 200)
        return min(rounds)

    with db.transaction():
        early = cost()
        for _ in range(3000):
            audit.record("tool.decided", "t1", data)
        late = cost()
    assert early < 0.000_15
    assert late < 0.000_15


def test_the_chain_goes_on_after_a_kill(path: object, open_db: OpenDatabase, clock: StillClock) -> None:
    code = """
import os, pathlib, signal, sys
from agentd.clock import SystemClock
from agentd.store.audit import Audit
from agentd.store.db import Database
db = Database(pathlib.Path(sys.argv[1]), clock=SystemClock())
audit = Audit(db, SystemClock())
audit.record("test", "", {"n": 1})
with db.transaction():
    audit.record("test", "", {"n": 2})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, path, check=False).returncode == -9
    audit = Audit(open_db(), clock)
    assert audit.record("test", "", {"n": 3}) == 2
    assert audit.verify().ok


def test_what_is_recorded_is_cleaned(db: Database, clock: StillClock) -> None:
    audit = Audit(db, clock, lambda data: dict.fromkeys(data, "…"))
    audit.record("tool.decided", "t1", {"args": "open sesame"})
    assert audit.tail()[0].data == {"args": "…"}
    assert audit.verify().ok
