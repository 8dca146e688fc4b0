"""Lives of a small daemon that are killed: a process which forks one child per line of orders on its stdin.

An order is JSON: `home` (folder of the database and the workspace), `key` (idempotency key of the task), `appends` (how
many probeable effects), `unsafe` (whether there is one), and one of `die_at` (kill -9 itself at this boundary, from 1)
and `kill_after` (killed from outside after so many seconds); with neither it lives to the end. The reply is JSON too:
`killed`, and `points`, how many boundaries there were (None when killed).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from agentd.clock import SystemClock
from agentd.events import Bus
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tasks.worker import Worker
from agentd.types import (
    Effect,
    Journal,
    JsonObject,
    Outcome,
    Plan,
    Report,
    Step,
    StepState,
    Task,
    TaskRequest,
    TaskState,
)

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0", "-C"]


class Fate:
    """Counts the boundaries that a life passes, and ends it at the chosen one."""

    def __init__(self, die_at: int | None) -> None:
        self._die_at = die_at
        self.points = 0

    def point(self) -> None:
        self.points += 1
        if self.points == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingDatabase(Database):
    """A database whose process may die before, at the end of (uncommitted) and after every transaction."""

    fate: Fate

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        if self.connection().in_transaction:
            with super().transaction() as connection:
                yield connection
            return
        self.fate.point()
        with super().transaction() as connection:
            yield connection
            self.fate.point()
        self.fate.point()


class Script:
    """What the task does: effects of all four kinds on real files, with boundaries before and after each."""

    def __init__(self, order: dict[str, Any], fate: Fate, audit: Audit, emit: Callable[..., None]) -> None:
        self._folder = Path(order["home"]) / "workspace"
        self._order = order
        self._fate = fate
        self._audit = audit
        self._emit = emit

    def run(self, task: Task, journal: Journal, cancel: threading.Event) -> Report:
        self._once(task, journal, "plan", Effect.PURE, self._count)
        journal.plan_made(Plan(steps=(Step(intent="write"), Step(intent="post"))))
        journal.step_started(1)
        for number in range(self._order["appends"]):
            self._append(task, journal, f"line {number}")
        self._once(task, journal, "write", Effect.IDEMPOTENT, self._write)
        self._end_step(journal, task, 1)
        journal.step_started(2)
        self._commit(task, journal)
        if self._order["unsafe"]:
            self._once(task, journal, "post", Effect.UNSAFE, lambda: self._add("posts.txt", "posted"))
        self._append(task, journal, "last line")
        self._end_step(journal, task, 2)
        return Report(state=TaskState.VERIFIED, answer="done")

    def _once(self, task: Task, journal: Journal, key: str, effect: Effect, do: Any, **more: Any) -> None:
        def around() -> JsonObject:
            self._fate.point()
            result: JsonObject = do()
            self._fate.point()
            return result

        def record(result: JsonObject) -> None:
            self._audit.record("effect.done", task.id, {"key": key})
            self._emit("EffectDone", task.id, {"key": key})

        journal.once(key, effect, around, record=record, **more)

    def _end_step(self, journal: Journal, task: Task, number: int) -> None:
        with journal.atomic():
            journal.step_ended(number, Outcome(state=StepState.DONE, text="done"))
            self._audit.record("step.done", task.id, {"number": number})

    def _count(self) -> JsonObject:
        return {"files": len(list(self._folder.iterdir()))}

    def _add(self, name: str, line: str) -> JsonObject:
        with open(self._folder / name, "a") as file:
            file.write(f"{self._order['key']}: {line}\n")
        return {"line": line}

    def _append(self, task: Task, journal: Journal, line: str) -> None:
        ledger = self._folder / "ledger.txt"

        def size() -> int:
            return ledger.stat().st_size if ledger.exists() else 0

        self._once(
            task,
            journal,
            f"append {line}",
            Effect.PROBEABLE,
            lambda: self._add("ledger.txt", line),
            before=lambda: {"size": size()},
            probe=lambda before: {"line": line} if size() > before["size"] else None,
        )

    def _write(self) -> JsonObject:
        draft, final = self._folder / "out.tmp", self._folder / "out.txt"
        draft.write_text(self._order["key"])
        draft.replace(final)
        return {"written": "out.txt"}

    def _commit(self, task: Task, journal: Journal) -> None:
        trailer = f"Agentd-Key: {task.id}/commit"

        def found(before: JsonObject) -> JsonObject | None:
            log = _git(self._folder, "log", "--all", "--format=%B")
            return {"commit": "found"} if trailer in log else None

        def commit() -> JsonObject:
            (self._folder / ".git" / "index.lock").unlink(missing_ok=True)
            _git(self._folder, "commit", "-q", "--allow-empty", "-m", f"work\n\n{trailer}")
            return {"commit": "made"}

        self._once(task, journal, "commit", Effect.PROBEABLE, commit, before=dict, probe=found)


def _git(folder: Path, *args: str) -> str:
    done = subprocess.run([*GIT, str(folder), *args], capture_output=True, text=True, check=False)
    return done.stdout


def live(order: dict[str, Any]) -> int:
    """One life from start to end; how many boundaries it passed."""
    home, clock, fate = Path(order["home"]), SystemClock(), Fate(order.get("die_at"))
    db = DyingDatabase.__new__(DyingDatabase)
    db.fate = fate  # opening the database may already use a transaction
    DyingDatabase.__init__(db, home / "agentd.db", clock=clock)
    audit, events = Audit(db, clock), EventLog(db, Bus(), clock)
    queue = Queue(db, audit, events.emit, clock)
    queue.recover()
    request = TaskRequest(goal="work", workspace=str(home / "workspace"), idempotency_key=order["key"])
    task = queue.submit(request)
    script = Script(order, fate, audit, events.emit)
    worker = Worker(queue, lambda claimed: TaskJournal(db, claimed, clock), script.run, clock)
    worker.start()
    seen = -1
    while queue.get(task.id).state in (TaskState.QUEUED, TaskState.RUNNING):
        seen = queue.wait(seen, 0.2)
    worker.stop()
    db.close()
    return fate.points


def fork(order: dict[str, Any]) -> dict[str, Any]:
    """Live in a child; kill it after a while if so ordered."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writing, str(live(order)).encode())
            code = 0
        except BaseException as error:
            os.write(writing, f"error {error!r}".encode())
        finally:
            os._exit(code)
    os.close(writing)
    if order.get("kill_after") is not None:
        time.sleep(order["kill_after"])
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"killed": True, "points": None}
    return {"killed": False, "points": int(said)} if said.isdigit() else {"error": said}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(fork(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
