"""What a task has done, kept so that after a crash it goes on and nothing runs twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentd.errors import BadInput, InDoubt, LeaseLost
from agentd.security.scan import Redactor
from agentd.store.db import Database
from agentd.tasks.records import OUTCOME, PLAN, VERDICT, as_json
from agentd.types import Clock, Effect, JsonObject, Outcome, Plan, StepState, Task, Verdict

MAX_RESULT = 1024 * 1024
"""Characters of a result (or of the state before it) as JSON."""

_ENCODER = json.JSONEncoder(separators=(",", ":"))  # ASCII: a file name may hold bytes that are no UTF-8

_HELD = "EXISTS (SELECT 1 FROM tasks WHERE id = ?1 AND fence = ?2 AND state = 'running')"

_LOOK = f"""
    SELECT {_HELD} AS held, effect, state, before, result, at
    FROM (SELECT 1) LEFT JOIN journal ON journal.task = ?1 AND journal.key = ?3"""

_BEGIN = f"""
    INSERT INTO journal (task, key, effect, state, before, at) SELECT ?1, ?3, ?4, 'intent', ?5, ?6 WHERE {_HELD}
    ON CONFLICT (task, key) DO UPDATE SET begun = begun + 1, at = excluded.at"""

_DONE = f"""
    INSERT INTO journal (task, key, effect, state, result, at) SELECT ?1, ?3, ?4, 'done', ?5, ?6 WHERE {_HELD}
    ON CONFLICT (task, key) DO UPDATE SET state = 'done', result = excluded.result, at = excluded.at"""

_PLAN = f"""
    INSERT INTO plans (task, plan, at) SELECT ?1, ?3, ?4 WHERE {_HELD}
    ON CONFLICT (task) DO UPDATE SET plan = excluded.plan, at = excluded.at"""

_ADD_STEP = "INSERT INTO steps (task, number, state) VALUES (?, ?, 'pending')"

# A step that is done stays done when a task that goes on comes past it again.
_START = f"""
    UPDATE steps SET state = 'running', started = coalesce(started, ?4)
    WHERE task = ?1 AND number = ?3 AND state <> 'done' AND {_HELD}"""

_STOP = f"UPDATE steps SET state = ?4, outcome = ?5, ended = ?6 WHERE task = ?1 AND number = ?3 AND {_HELD}"


_VERDICT = f"""
    INSERT INTO verdicts (task, key, verdict, at) SELECT ?1, ?3, ?4, ?5 WHERE {_HELD}
    ON CONFLICT (task, key) DO UPDATE SET verdict = excluded.verdict, at = excluded.at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The arguments of one `once`."""

    key: str
    effect: Effect
    do: Callable[[], JsonObject]
    before: Callable[[], JsonObject] | None
    probe: Callable[[JsonObject], JsonObject | None] | None
    intent: Callable[[], None] | None
    record: Callable[[JsonObject], None] | None


class TaskJournal:
    """The journal of one claim of a task; every write is refused with `LeaseLost` once the claim is over."""

    def __init__(self, db: Database, task: Task, clock: Clock, redactor: Redactor | None = None) -> None:
        """`redactor` takes secrets out of what is told of plan, steps and verdicts; results are kept as they are
        given, or a task that goes on would see others."""
        self._clean = (redactor or Redactor()).clean
        self._db = db
        self._task = task.id
        self._fence = task.fence
        self._clock = clock

    def once(
        self,
        key: str,
        effect: Effect,
        do: Callable[[], JsonObject],
        *,
        before: Callable[[], JsonObject] | None = None,
        probe: Callable[[JsonObject], JsonObject | None] | None = None,
        intent: Callable[[], None] | None = None,
        record: Callable[[JsonObject], None] | None = None,
    ) -> JsonObject:
        """See `types.Journal.once`. The result comes back as it was stored, so that a first run and a replay see the
        same; it may have 1 MiB as JSON (`BadInput`). `do()` runs outside any transaction and may take minutes."""
        call = _Call(key=key, effect=effect, do=do, before=before, probe=probe, intent=intent, record=record)
        found = self._look(key)
        self._check(bool(found["held"]))
        if found["state"] == "done":
            return _object(found["result"])
        if found["state"] is None and effect is Effect.PURE:
            return self._done(call, do(), with_intent=True)
        self._refuse_transaction(call)
        if found["state"] is None:
            self._begin(call, _text(key, before()) if before else None)
            return self._done(call, do())
        return self._go_on(call, found)

    def plan_made(self, plan: Plan) -> None:
        """Keep the plan, its steps pending. The plan that stands already changes nothing; another one replaces it."""
        text = as_json(PLAN, plan, self._clean)
        with self._db.transaction():
            stored = self._db.row("SELECT plan FROM plans WHERE task = ?", (self._task,))
            if stored and stored["plan"] == text:
                self._check(bool(self._look("")["held"]))
                return
            self._write(_PLAN, text, self._clock.now())
            self._db.execute("DELETE FROM steps WHERE task = ?", (self._task,))
            for number in range(1, len(plan.steps) + 1):
                self._db.execute(_ADD_STEP, (self._task, number))

    def step_started(self, number: int) -> None:
        """Step `number` (from 1) of the plan runs now."""
        with self._db.transaction():
            self._check_step(number)
            self._db.execute(_START, (self._task, self._fence, number, self._clock.now()))

    def step_ended(self, number: int, outcome: Outcome) -> None:
        """Step `number` (from 1) of the plan has ended; `BadInput` when the plan has no such step."""
        text = as_json(OUTCOME, outcome, self._clean)
        if outcome.state not in (StepState.DONE, StepState.FAILED):
            raise BadInput(f"step {number} cannot end as {outcome.state}")
        with self._db.transaction():
            self._check_step(number)
            self._write(_STOP, number, outcome.state, text, self._clock.now())

    def verdict_given(self, key: str, verdict: Verdict) -> None:
        """What the council said when it sat under this key."""
        self._write(_VERDICT, key, as_json(VERDICT, verdict, self._clean), self._clock.now())

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Writes inside commit together; `once` of anything but a pure effect is refused inside."""
        with self._db.transaction():
            yield

    def _go_on(self, call: _Call, begun: dict[str, Any]) -> JsonObject:
        """An intent stands open: look whether its effect took place, or run it again, or say that it is in doubt."""
        effect = Effect(begun["effect"])  # as it was begun: a newer version may call it something milder
        if effect is Effect.PROBEABLE and call.probe is not None:
            result = call.probe(_object(begun["before"] or "{}"))
            if result is not None:
                return self._done(call, result)
        elif effect is not Effect.IDEMPOTENT:
            raise InDoubt(
                f"{call.key!r} was begun {self._clock.now() - begun['at']:.0f} s ago and may have taken place or not",
                hint="look whether it did, then retry the task or cancel it",
            )
        self._begin(call, begun["before"])
        return self._done(call, call.do())

    def _look(self, key: str) -> dict[str, Any]:
        return self._db.row(_LOOK, (self._task, self._fence, key)) or {}

    def _begin(self, call: _Call, before: str | None) -> None:
        with self._db.transaction():
            self._write(_BEGIN, call.key, call.effect, before, self._clock.now())
            if call.intent:
                call.intent()

    def _done(self, call: _Call, result: JsonObject, *, with_intent: bool = False) -> JsonObject:
        text = _text(call.key, result)
        stored = _object(text)
        with self._db.transaction():
            self._write(_DONE, call.key, call.effect, text, self._clock.now())
            if with_intent and call.intent:
                call.intent()
            if call.record:
                call.record(stored)
        return stored

    def _write(self, sql: str, *values: str | float | None) -> None:
        """Run a statement that changes exactly one row while the claim holds, and none after."""
        self._db.execute(sql, (self._task, self._fence, *values))
        self._check(self._db.connection().changes() == 1)

    def _check(self, held: bool) -> None:
        if not held:
            raise LeaseLost(f"task {self._task} is no longer leased under fence {self._fence}")

    def _check_step(self, number: int) -> None:
        """`LeaseLost` when the claim is over, `BadInput` when the plan has no such step."""
        row = self._db.row(
            f"SELECT {_HELD} AS held, EXISTS (SELECT 1 FROM steps WHERE task = ?1 AND number = ?3) AS known",
            (self._task, self._fence, number),
        )
        self._check(bool(row and row["held"]))
        if not (row and row["known"]):
            raise BadInput(f"the plan of task {self._task} has no step {number}")

    def _refuse_transaction(self, call: _Call) -> None:
        if self._db.connection().in_transaction:
            raise RuntimeError(f"{call.key!r} ({call.effect}) inside atomic(): its intent would not stand before it")


def _text(key: str, value: JsonObject) -> str:
    text = _ENCODER.encode(dict(value))
    if len(text) > MAX_RESULT:
        raise BadInput(
            f"what {key!r} gave has {len(text):,} characters as JSON; the most is {MAX_RESULT:,}",
            hint="keep the whole output elsewhere and journal its handle",
        )
    return text


def _object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value
