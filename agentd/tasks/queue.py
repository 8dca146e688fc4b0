"""The queue: what is to be done, who does it, and how it ended; each change is one transaction with its record."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from typing import Any, TypeAlias

from agentd.errors import Conflict, LeaseLost, NotFound
from agentd.events import EventKind
from agentd.policy.approvals import Approvals
from agentd.security.scan import Redactor
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.tasks.records import BUDGET, CHECKS, GLOBS, NOISE_BITS, REPORT, as_json, load_tasks, next_id, storable
from agentd.tasks.request import Defaults, accepted, check_key
from agentd.types import Clock, Emit, JsonObject, Report, Task, TaskRequest, TaskState

Tasks: TypeAlias = list[Task]  # inside the class, `list` is its method
Ids: TypeAlias = list[str]

_INSERT = """
    INSERT INTO tasks (id, state, goal, workspace, level, checks, boundaries, budget, origin, priority, not_before,
                       deadline, cache, tool, mode, applies, council, idempotency_key, request_hash, retry_of, created)
    VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

_NEXT = """
    SELECT id FROM tasks
    WHERE state = 'queued' AND (not_before IS NULL OR not_before <= ?) AND NOT EXISTS (
        SELECT 1 FROM task_after JOIN tasks AS needed ON needed.id = task_after.needs
        WHERE task_after.task = tasks.id AND needed.state NOT IN ('verified', 'claimed'))
    ORDER BY priority DESC, number LIMIT 1"""

_CLAIM = """
    UPDATE tasks SET state = 'running', started = coalesce(started, ?), attempts = attempts + 1, fence = fence + 1,
                     worker = ?, lease_until = ?, lease_overdue = 0
    WHERE id = ?"""

# What a task that is waited for may not end as; a waiting one may still succeed.
_DOOMED = """
    SELECT tasks.id, needed.id AS needed, needed.state AS needed_state
    FROM tasks JOIN task_after ON task_after.task = tasks.id JOIN tasks AS needed ON needed.id = task_after.needs
    WHERE tasks.state = 'queued'
        AND needed.state NOT IN ('queued', 'running', 'waiting', 'verified', 'claimed')
    GROUP BY tasks.id"""

_LATE = "SELECT id FROM tasks WHERE state = 'queued' AND deadline <= ?"

# Whoever runs already, and those that a worker would rather claim.
_AHEAD = """
    SELECT count(*) AS n FROM tasks AS mine JOIN tasks AS other ON other.id <> mine.id
    WHERE mine.id = ? AND (other.state = 'running' OR (other.state = 'queued' AND
        (other.priority > mine.priority OR (other.priority = mine.priority AND other.number < mine.number))))"""

_LEAVE = "UPDATE tasks SET state = ?, question = ?, worker = '', lease_until = NULL WHERE id = ?"

_END = """
    UPDATE tasks SET state = ?, report = ?, ended = ?, question = '', worker = '', lease_until = NULL WHERE id = ?"""


class Queue:
    """Tasks in one database. Any thread may call any method; `LeaseLost` tells a worker that its claim is over."""

    def __init__(
        self,
        db: Database,
        audit: Audit,
        emit: Emit,
        clock: Clock,
        *,
        defaults: Callable[[], Defaults] = Defaults,
        lease_seconds: float = 60.0,
        noise: random.Random | None = None,
        approvals: Approvals | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """`redactor` takes secrets out of what is kept of a task's words; what is to be run stays as it is."""
        self._redactor = redactor or Redactor()
        self._db = db
        self._audit = audit
        self._emit = emit
        self._clock = clock
        self._defaults = defaults
        self._lease = lease_seconds
        self._noise = noise or random.SystemRandom()
        self._approvals = approvals or Approvals(db, audit, emit, clock)
        self._turn = threading.Condition()
        self._version = 0

    @property
    def lease_seconds(self) -> float:
        return self._lease

    # what front ends do ----------------------------------------------------------------------------------------------

    def submit(self, request: TaskRequest) -> Task:
        """Queue a task. The same idempotency key with the same request gives the task that stands already.

        `BadInput` or `Denied` for a request that cannot be taken, `Conflict` for a key that another request has used.
        """
        check_key(request.idempotency_key)
        earlier = self._earlier(request)
        if earlier:
            return earlier
        ready = accepted(request, self._defaults(), self._clock.now(), self._known)
        with self._db.transaction():
            earlier = self._earlier(request)  # another front end may have been faster
            if earlier:
                return earlier
            task_id = self._insert(ready, _digest(request))
            self._settle()
        return self.get(task_id)

    def get(self, task_id: str) -> Task:
        """The task with its plan, outcomes and report, or `NotFound`."""
        row = self._db.row("SELECT * FROM tasks WHERE id = ?", (task_id,))
        if row is None:
            raise NotFound(f"there is no task {task_id[:60]!r}", hint="`agentd ps -a` lists the tasks")
        return load_tasks(self._db, [row])[0]

    def list(self, states: Collection[TaskState] | None = None, limit: int = 100) -> Tasks:
        """At most `limit` tasks, the newest first; only those in `states` if given."""
        wanted = json.dumps(list(TaskState if states is None else states))
        rows = self._db.rows(
            "SELECT * FROM tasks WHERE state IN (SELECT value FROM json_each(?)) ORDER BY number DESC LIMIT ?",
            (wanted, max(0, limit)),
        )
        return load_tasks(self._db, rows)

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state, zeros too."""
        found = {row["state"]: row["n"] for row in self._db.rows("SELECT state, count(*) AS n FROM tasks GROUP BY 1")}
        return {state.value: found.get(state.value, 0) for state in TaskState}

    def ahead(self, task_id: str) -> int:
        """How many tasks come before this queued one: those that run, and those that are claimed earlier."""
        row = self._db.row(_AHEAD, (task_id,))
        return int(row["n"]) if row else 0

    def cancel(self, task_id: str) -> Task:
        """End a task that does not run; ask a running one's worker to stop. `Conflict` when it has ended otherwise."""
        with self._db.transaction():
            task = self.get(task_id)
            if task.state is TaskState.RUNNING:
                self._ask_to_stop(task)
            elif not task.state.ended:
                self._end(task.id, _cancelled(f"cancelled while {task.state}"))
                self._settle()
            elif task.state is not TaskState.CANCELLED:
                raise Conflict(f"task {task.id} has ended already: {task.state}", hint="nothing is left to cancel")
        return self.get(task_id)

    def retry(self, task_id: str) -> Task:
        """A fresh attempt at a task that has ended or waits: a new task with the same request, `retry_of` the old one.

        A waiting one ends as cancelled. Times that are over are dropped; a task it waited for stands for its own newest
        attempt. `Conflict` while the task or an attempt at it is under way.
        """
        old = self.get(task_id)
        request = self._again(old)
        ready = accepted(request, self._defaults(), self._clock.now(), self._known)
        with self._db.transaction():
            self._check_retry(old)
            new_id = self._insert(ready, _digest(request), retry_of=old.id)
            if self.get(old.id).state is TaskState.WAITING:
                self._end(old.id, _cancelled(f"tried again as task {new_id}"))
            self._settle()
        return self.get(new_id)

    def report(self, since: float) -> dict[str, Any]:
        """What ended since (Unix seconds), oldest first: `verified`, `claimed`, `other`; and what is `waiting` now.

        Each entry has id, goal, workspace, state, answer, reason, verified, claimed, checks, bent, struck,
        restored, changed, seconds, tokens and ended; a waiting one its question instead of what a report says.
        """
        rows = self._db.rows("SELECT * FROM tasks WHERE ended >= ? ORDER BY ended, number", (since,))
        ended = load_tasks(self._db, rows)
        waiting = self.list([TaskState.WAITING], limit=1000)
        kinds = {TaskState.VERIFIED: "verified", TaskState.CLAIMED: "claimed"}
        page: dict[str, Any] = {"since": since, "until": self._clock.now(), "verified": [], "claimed": [], "other": []}
        for task in ended:
            page[kinds.get(task.state, "other")].append(_ended_entry(task))
        page["waiting"] = [
            {"id": task.id, "goal": task.goal, "workspace": task.workspace, "question": task.question}
            for task in reversed(waiting)
        ]
        return page

    # what workers do -------------------------------------------------------------------------------------------------

    def claim(self, worker: str) -> Task | None:
        """The next task that may run, now leased to `worker`, or None."""
        with self._db.transaction():
            self._settle()
            now = self._clock.now()
            row = self._db.row(_NEXT, (now,))
            if row is None:
                return None
            self._db.execute(_CLAIM, (now, worker, now + self._lease, row["id"]))
            task = self.get(row["id"])
            data = {"worker": worker, "attempt": task.attempts, "fence": task.fence}
            self._tell(task.id, TaskState.RUNNING, data, EventKind.TASK_STARTED, data)
            return task

    def renew(self, task: Task) -> None:
        """Another `lease_seconds` for a claimed task."""
        with self._db.transaction():
            self._hold(task)
            self._db.execute(
                "UPDATE tasks SET lease_until = ?, lease_overdue = 0 WHERE id = ?",
                (self._clock.now() + self._lease, task.id),
            )

    def finish(self, task: Task, report: Report) -> None:
        """A claimed task has ended as `report.state` says."""
        if not report.state.ended:
            raise ValueError(f"a report of task {task.id} with state {report.state}, which is not an end")
        with self._db.transaction():
            self._hold(task)
            self._end(task.id, report)
            self._settle()

    def wait_for_person(self, task: Task, question: str, request: int | None = None) -> None:
        """A claimed task cannot go on until a person has acted; other tasks go on.

        `request`: what it waits for. Where that was answered in this very moment it is queued again.
        """
        with self._db.transaction():
            if self._hold(task):
                self._end(task.id, _cancelled("cancelled while it ran"))
                return
            if request is not None and not self._approvals.is_open(request):
                self._requeue(task.id, "a person answered", cancelled=False)
                return
            data = {"question": storable(self._redactor(question))}
            self._db.execute(_LEAVE, (TaskState.WAITING, data["question"], task.id))
            self._tell(task.id, TaskState.WAITING, data, EventKind.TASK_WAITING, data)

    def release(self, task: Task, reason: str) -> None:
        """Put a claimed task back; the next claim goes on from its journal."""
        with self._db.transaction():
            self._requeue(task.id, reason, cancelled=self._hold(task))

    def resume(self, task_id: str, reason: str) -> None:
        """Queue a waiting task again: the next claim comes to what it waits for from its journal. `Conflict` when it
        does not wait."""
        with self._db.transaction():
            task = self.get(task_id)
            if task.state is not TaskState.WAITING:
                raise Conflict(f"task {task.id} is {task.state} and waits for nobody")
            self._requeue(task.id, reason, cancelled=False)

    def lost(self, task: Task) -> None:
        """Record that the worker of this claim stopped because the task is no longer its own."""
        self._audit.record("task.lease_lost", task.id, {"fence": task.fence})

    def recover(self) -> Ids:
        """At the start of the daemon, before any worker: what ran when the last one died is queued again."""
        with self._db.transaction():
            rows = self._db.rows("SELECT id, cancel_requested FROM tasks WHERE state = 'running' ORDER BY number")
            for row in rows:
                self._requeue(row["id"], "the daemon died while it ran", cancelled=bool(row["cancel_requested"]))
        return [row["id"] for row in rows]

    def under_way(self) -> Ids:
        """The tasks that have not ended."""
        rows = self._db.rows("SELECT id FROM tasks WHERE state IN ('queued', 'running', 'waiting')")
        return [row["id"] for row in rows]

    def cancels(self) -> set[str]:
        """The running tasks that were asked to stop."""
        return {row["id"] for row in self._db.rows("SELECT id FROM tasks WHERE state = 'running' AND cancel_requested")}

    def wait(self, seen: int, timeout: float) -> int:
        """Wait until the queue has changed since version `seen`, at most `timeout` seconds; the version now."""
        with self._turn:
            self._turn.wait_for(lambda: self._version != seen, timeout)
            return self._version

    def wake(self) -> None:
        """Let everyone who waits look again."""
        with self._turn:
            self._version += 1
            self._turn.notify_all()

    # inside a transaction --------------------------------------------------------------------------------------------

    def _earlier(self, request: TaskRequest) -> Task | None:
        key = request.idempotency_key
        row = self._db.row("SELECT * FROM tasks WHERE idempotency_key = ?", (key,)) if key else None
        if row is None:
            return None
        if row["request_hash"] != _digest(request):
            raise Conflict(
                f"the idempotency key {key!r} belongs to task {row['id']}, which has another request",
                hint="use a new key for a new request",
            )
        return load_tasks(self._db, [row])[0]

    def _known(self, task_id: str) -> bool:
        return self._db.row("SELECT 1 FROM tasks WHERE id = ?", (task_id,)) is not None

    def _insert(self, request: TaskRequest, digest: str, retry_of: str | None = None) -> str:
        now = self._clock.now()
        last = self._db.row("SELECT max(id) AS id FROM tasks")
        task_id = next_id(now, self._noise.getrandbits(NOISE_BITS), last["id"] if last else None)
        goal = self._redactor(request.goal)
        times = (request.not_before, request.deadline)
        what = (goal, request.workspace, int(request.level or 0))
        done = (as_json(CHECKS, request.checks), as_json(GLOBS, request.boundaries))
        how = (as_json(BUDGET, request.budget), request.origin, request.priority)
        flags = (
            int(request.cache is not False),
            int(request.tool is True),
            request.mode,
            request.applies,
            int(request.council is True),
        )
        more = (request.idempotency_key, digest, retry_of, now)
        self._db.execute(_INSERT, (task_id, *what, *done, *how, *times, *flags, *more))
        for position, needs in enumerate(request.after):
            self._db.execute("INSERT INTO task_after VALUES (?, ?, ?)", (task_id, position, needs))
        record = {
            "goal_sha256": hashlib.sha256(goal.encode()).hexdigest(),
            "workspace": request.workspace,
            "level": int(request.level or 0),
            "origin": request.origin,
        } | ({"retry_of": retry_of} if retry_of else {})
        event = {"goal": goal[:200], "workspace": request.workspace, "origin": request.origin}
        self._tell(task_id, TaskState.QUEUED, record, EventKind.TASK_QUEUED, event)
        return task_id

    def _tell(self, task_id: str, state: TaskState, record: JsonObject, kind: EventKind, event: JsonObject) -> None:
        self._audit.record(f"task.{state}", task_id, record)
        self._emit(kind, task_id, event)
        self._db.after_commit(self.wake)

    def _hold(self, task: Task) -> bool:
        """`LeaseLost` unless the claim stands; else whether the task was asked to stop."""
        row = self._db.row(
            "SELECT cancel_requested FROM tasks WHERE id = ? AND fence = ? AND state = 'running'", (task.id, task.fence)
        )
        if row is None:
            raise LeaseLost(f"task {task.id} is no longer leased under fence {task.fence}")
        return bool(row["cancel_requested"])

    def _ask_to_stop(self, task: Task) -> None:
        if task.id in self.cancels():
            return
        self._db.execute("UPDATE tasks SET cancel_requested = 1 WHERE id = ?", (task.id,))
        self._audit.record("task.cancel_requested", task.id, {})
        self._db.after_commit(self.wake)

    def _requeue(self, task_id: str, reason: str, *, cancelled: bool) -> None:
        if cancelled:
            self._end(task_id, _cancelled("cancelled while it ran"))
            return
        self._db.execute(_LEAVE, (TaskState.QUEUED, "", task_id))
        data = {"reason": reason}
        self._tell(task_id, TaskState.QUEUED, data, EventKind.TASK_QUEUED, data)

    def _end(self, task_id: str, report: Report) -> None:
        stored = as_json(REPORT, report, self._redactor.clean)
        report = REPORT.validate_json(stored)
        self._approvals.close(task_id, f"the task ended: {report.state}")
        self._db.execute(_END, (report.state, stored, self._clock.now(), task_id))
        record = {
            "reason": report.reason,
            "checks_passed": sum(check.passed for check in report.checks),
            "checks": len(report.checks),
            "tokens": report.usage.tokens,
            "seconds": round(report.seconds, 3),
            "report_sha256": hashlib.sha256(stored.encode()).hexdigest(),
        }
        event = {"state": report.state, "answer": report.answer, "reason": report.reason}
        self._tell(task_id, report.state, record, EventKind.TASK_FINISHED, event)

    def _settle(self) -> None:
        """Queue again what nobody works on any more; end what can no longer run."""
        now = self._clock.now()
        self._reclaim(now)
        for row in self._db.rows(_LATE, (now,)):
            self._end(row["id"], _ended(TaskState.BUDGET, "its deadline passed before it could run"))
        while doomed := self._db.rows(_DOOMED):
            for row in doomed:
                reason = f"a task it waits for did not succeed: {row['needed']} ended as {row['needed_state']}"
                self._end(row["id"], _ended(TaskState.FAILED, reason))

    def _reclaim(self, now: float) -> None:
        """A lease found overdue gets one more period before it is taken: after the machine has slept or its clock
        was set, a living holder has had no chance to renew."""
        rows = self._db.rows(
            """SELECT id, worker, cancel_requested FROM tasks
               WHERE state = 'running' AND lease_until <= ? AND lease_overdue""",
            (now,),
        )
        for row in rows:
            self._requeue(row["id"], f"the lease of {row['worker']} ran out", cancelled=bool(row["cancel_requested"]))
        self._db.execute(
            "UPDATE tasks SET lease_overdue = 1, lease_until = ? WHERE state = 'running' AND lease_until <= ?",
            (now + self._lease, now),
        )

    def _again(self, old: Task) -> TaskRequest:
        now = self._clock.now()
        return TaskRequest(
            goal=old.goal,
            workspace=old.workspace,
            level=old.level,
            checks=old.checks,
            boundaries=old.boundaries,
            budget=old.budget,
            origin=old.origin,
            priority=old.priority,
            after=tuple(self._newest(needed) for needed in old.after),
            not_before=old.not_before if old.not_before and old.not_before > now else None,
            deadline=old.deadline if old.deadline and old.deadline > now else None,
            cache=False,  # the kept replies are those that it ended with
            tool=old.tool or None,
            mode=old.mode,
            applies=old.applies,
            council=old.council or None,
        )

    def _newest(self, task_id: str) -> str:
        """The last attempt at a task, following `retry_of` forward."""
        row = self._db.row(
            """WITH RECURSIVE attempts (id) AS (
                   VALUES (?) UNION ALL SELECT tasks.id FROM tasks JOIN attempts ON tasks.retry_of = attempts.id)
               SELECT max(id) AS id FROM attempts""",
            (task_id,),
        )
        return str(row["id"]) if row else task_id

    def _check_retry(self, old: Task) -> None:
        newest = self.get(self._newest(old.id))
        for task in (self.get(old.id), newest):
            under_way = (TaskState.QUEUED, TaskState.RUNNING)
            if task.state in under_way or (task.state is TaskState.WAITING and task.id != old.id):
                raise Conflict(f"task {task.id} is {task.state}", hint=f"follow it, or cancel it first: {task.id}")


_REAL = ("mode", "real")


def _digest(request: TaskRequest) -> str:
    """What makes two requests the same; a field that says nothing does not count, so a new field changes nothing."""
    fields = asdict(replace(request, idempotency_key=None))
    fields = {name: value for name, value in fields.items() if value not in (None, ()) and (name, value) != _REAL}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _ended(state: TaskState, reason: str) -> Report:
    return Report(state=state, answer="", reason=reason)


def _cancelled(reason: str) -> Report:
    return _ended(TaskState.CANCELLED, reason)


def _ended_entry(task: Task) -> dict[str, Any]:
    report = task.report or _ended(task.state, "")
    return {
        "id": task.id,
        "goal": task.goal,
        "workspace": task.workspace,
        "state": task.state.value,
        "answer": report.answer,
        "reason": report.reason,
        "verified": list(report.verified),
        "claimed": list(report.claimed),
        "checks": [
            {
                "check": str(result.check),
                "target": result.check.target,
                "by": result.check.by,
                "passed": result.passed,
                "detail": result.detail,
                "code": result.code,
                "sha256": result.sha256,
            }
            for result in report.checks
        ],
        "bent": list(report.bent),
        "struck": list(report.struck),
        "restored": list(report.restored),
        "changed": list(report.changed),
        "council": [f"{verdict.about} {verdict.decision}: {verdict.because}" for verdict in task.verdicts],
        "seconds": report.seconds,
        "tokens": report.usage.tokens,
        "ended": task.ended,
    }
