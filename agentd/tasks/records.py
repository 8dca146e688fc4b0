"""Tasks as rows: ids, and the way back from the tables to `Task`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from agentd.store.db import Database
from agentd.types import AccessLevel, Budget, Check, Origin, Outcome, Plan, Report, StepState, Task, TaskState, Verdict

CHECKS = TypeAdapter(tuple[Check, ...])
GLOBS = TypeAdapter(tuple[str, ...])
BUDGET = TypeAdapter(Budget)
PLAN = TypeAdapter(Plan)
OUTCOME = TypeAdapter(Outcome)
REPORT = TypeAdapter(Report)
VERDICT = TypeAdapter(Verdict)

NOISE_BITS = 9
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_FIRST_DAY = 1_735_689_600  # 2025-01-01: 41 bits of milliseconds from here last until 2094


def next_id(now: float, noise: int, last: str | None) -> str:
    """Ten letters and digits that sort by time of making and after `last`; `noise` is below 2**9."""
    made = max(0, int((now - _FIRST_DAY) * 1000)) << NOISE_BITS | noise
    number = max(made, _decoded(last) + 1) if last else made
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(45, -1, -5))


def _decoded(task_id: str) -> int:
    number = 0
    for char in task_id:
        number = number << 5 | _ALPHABET.index(char)
    return number


def as_json(adapter: TypeAdapter[Any], value: object, clean: Callable[[Any], Any] = lambda fields: fields) -> str:
    """Compact JSON of `storable` text, as `clean` leaves it."""
    fields = clean(adapter.dump_python(value))
    return storable(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def storable(text: str) -> str:
    """Bytes of a file name that are no UTF-8 (surrogates in Python) become question marks."""
    return text.encode("utf-8", "replace").decode()


def load_tasks(db: Database, rows: Sequence[Mapping[str, Any]]) -> list[Task]:
    """The tasks of these rows of `tasks`, with their plans and outcomes, in the same order."""
    ids = json.dumps([row["id"] for row in rows])
    after: dict[str, list[str]] = {}
    for found in db.rows(f"SELECT task, needs FROM task_after WHERE {_AMONG} ORDER BY task, position", (ids,)):
        after.setdefault(found["task"], []).append(found["needs"])
    plans = {row["task"]: row["plan"] for row in db.rows(f"SELECT task, plan FROM plans WHERE {_AMONG}", (ids,))}
    outcomes: dict[str, list[Outcome]] = {}
    for found in db.rows(f"SELECT task, state, outcome FROM steps WHERE {_AMONG} ORDER BY task, number", (ids,)):
        outcomes.setdefault(found["task"], []).append(_outcome(found["state"], found["outcome"]))
    verdicts: dict[str, list[Verdict]] = {}
    for found in db.rows(f"SELECT task, verdict FROM verdicts WHERE {_AMONG} ORDER BY id", (ids,)):
        verdicts.setdefault(found["task"], []).append(VERDICT.validate_json(found["verdict"]))
    return [
        replace(
            _task(row, tuple(after.get(row["id"], ())), plans.get(row["id"]), tuple(outcomes.get(row["id"], ()))),
            verdicts=tuple(verdicts.get(row["id"], ())),
        )
        for row in rows
    ]


_AMONG = "task IN (SELECT value FROM json_each(?))"


def _outcome(state: str, stored: str | None) -> Outcome:
    return OUTCOME.validate_json(stored) if stored else Outcome(state=StepState(state), text="")


def _task(row: Mapping[str, Any], after: tuple[str, ...], plan: str | None, outcomes: tuple[Outcome, ...]) -> Task:
    return Task(
        id=row["id"],
        goal=row["goal"],
        workspace=row["workspace"],
        level=AccessLevel(row["level"]),
        checks=CHECKS.validate_json(row["checks"]),
        boundaries=GLOBS.validate_json(row["boundaries"]),
        budget=BUDGET.validate_json(row["budget"]),
        origin=Origin(row["origin"]),
        priority=row["priority"],
        after=after,
        not_before=row["not_before"],
        deadline=row["deadline"],
        cache=bool(row["cache"]),
        tool=bool(row["tool"]),
        mode=row["mode"],
        applies=row["applies"],
        council=bool(row["council"]),
        state=TaskState(row["state"]),
        created=row["created"],
        started=row["started"],
        ended=row["ended"],
        attempts=row["attempts"],
        fence=row["fence"],
        question=row["question"],
        retry_of=row["retry_of"],
        plan=PLAN.validate_json(plan) if plan else None,
        outcomes=outcomes,
        report=REPORT.validate_json(row["report"]) if row["report"] else None,
    )
