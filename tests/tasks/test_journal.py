"""The journal: each effect happens once, whatever was interrupted."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentd.errors import BadInput, InDoubt, LeaseLost
from agentd.tasks.journal import MAX_RESULT, TaskJournal
from agentd.types import Effect, JsonObject, Outcome, Plan, Step, StepState
from tests.tasks.conftest import Bench


class Crash(BaseException):
    """Stands for the death of the process."""


class Counter:
    """An effect on the world that may die before or after it takes place."""

    def __init__(self) -> None:
        self.count = 0
        self.die: str | None = None

    def __call__(self) -> JsonObject:
        if self.die == "before":
            raise Crash
        self.count += 1
        if self.die == "after":
            raise Crash
        return {"count": self.count}

    def before(self) -> JsonObject:
        return {"was": self.count}

    def probe(self, before: JsonObject) -> JsonObject | None:
        return {"found": self.count} if self.count > before["was"] else None


@pytest.fixture
def journal(bench: Bench) -> TaskJournal:
    bench.submit()
    return bench.journal(bench.claim())


def never(*_: Any) -> Any:
    raise AssertionError("must not run")


def entries(bench: Bench) -> list[tuple[str, str, int]]:
    return [(row["key"], row["state"], row["begun"]) for row in bench.db.rows("SELECT * FROM journal ORDER BY key")]


@pytest.mark.parametrize("effect", list(Effect))
def test_a_result_is_given_again_and_nothing_runs_twice(bench: Bench, journal: TaskJournal, effect: Effect) -> None:
    first = journal.once("k", effect, lambda: {"n": 1, "list": (1, 2), "odd": "caf\udce9"}, before=dict)
    assert first == {"n": 1, "list": [1, 2], "odd": "caf\udce9"}
    assert journal.once("k", effect, never, before=never, probe=never, intent=never, record=never) == first
    assert entries(bench) == [("k", "done", 1)]


def test_keys_are_apart_also_between_tasks(bench: Bench, journal: TaskJournal) -> None:
    bench.submit()
    other = bench.journal(bench.claim())
    assert journal.once("a", Effect.PURE, lambda: {"n": 1}) == {"n": 1}
    assert journal.once("b", Effect.PURE, lambda: {"n": 2}) == {"n": 2}
    assert other.once("a", Effect.PURE, lambda: {"n": 3}) == {"n": 3}


def test_a_pure_effect_leaves_no_intent(bench: Bench, journal: TaskJournal) -> None:
    counter = Counter()
    counter.die = "after"
    with pytest.raises(Crash):
        journal.once("k", Effect.PURE, counter)
    assert entries(bench) == []
    counter.die = None
    assert journal.once("k", Effect.PURE, counter) == {"count": 2}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_idempotent_effect_runs_again(bench: Bench, journal: TaskJournal, moment: str) -> None:
    counter = Counter()
    counter.die = moment
    for _ in range(2):
        with pytest.raises(Crash):
            journal.once("k", Effect.IDEMPOTENT, counter)
    assert entries(bench) == [("k", "intent", 2)]
    counter.die = None
    journal.once("k", Effect.IDEMPOTENT, counter)
    assert entries(bench) == [("k", "done", 3)]


@pytest.mark.parametrize(("moment", "result"), [("before", {"count": 1}), ("after", {"found": 1})])
def test_a_probeable_effect_is_looked_for(journal: TaskJournal, moment: str, result: dict[str, int]) -> None:
    counter = Counter()
    counter.die = moment

    def once() -> JsonObject:
        return journal.once("k", Effect.PROBEABLE, counter, before=counter.before, probe=counter.probe)

    with pytest.raises(Crash):
        once()
    counter.die = None
    assert once() == result
    assert counter.count == 1
    assert once() == result


def test_a_second_try_looks_at_the_world_before_the_first(journal: TaskJournal) -> None:
    """The first try dies before its effect, the second after: the state from before the first still tells."""
    counter = Counter()
    for moment in ("before", "after", None):
        counter.die = moment
        try:
            journal.once("k", Effect.PROBEABLE, counter, before=counter.before, probe=counter.probe)
        except Crash:
            continue
    assert counter.count == 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("effect", [Effect.UNSAFE, Effect.PROBEABLE])
def test_what_nobody_can_look_for_is_in_doubt(journal: TaskJournal, moment: str, effect: Effect) -> None:
    counter = Counter()
    counter.die = moment
    with pytest.raises(Crash):
        journal.once("step 1, call 2", effect, counter)
    for _ in range(2):
        with pytest.raises(InDoubt, match="step 1, call 2") as caught:
            journal.once("step 1, call 2", effect, never)
        assert caught.value.hint


def test_an_effect_stays_what_it_was_when_it_began(journal: TaskJournal) -> None:
    """A newer version that calls the tool harmless does not make a begun effect harmless."""
    counter = Counter()
    counter.die = "after"
    with pytest.raises(Crash):
        journal.once("k", Effect.UNSAFE, counter)
    with pytest.raises(InDoubt):
        journal.once("k", Effect.PURE, never)


# the caller's own rows ------------------------------------------------------------------------------------------------


def noting(bench: Bench, notes: list[str], word: str) -> Callable[..., None]:
    def note(*args: Any) -> None:
        assert bench.db.connection().in_transaction
        notes.append(f"{word} {args[0]}" if args else word)

    return note


def test_intent_and_record_run_with_the_rows_of_the_journal(bench: Bench, journal: TaskJournal) -> None:
    notes: list[str] = []

    def do() -> JsonObject:
        assert not bench.db.connection().in_transaction
        notes.append("do")
        return {"n": (1,)}

    hooks: dict[str, Any] = {"intent": noting(bench, notes, "intent"), "record": noting(bench, notes, "record")}
    journal.once("unsafe", Effect.UNSAFE, do, **hooks)
    assert notes == ["intent", "do", "record {'n': [1]}"]
    notes.clear()
    journal.once("pure", Effect.PURE, do, **hooks)
    assert notes == ["do", "intent", "record {'n': [1]}"]


def test_a_failing_record_takes_the_result_back(bench: Bench, journal: TaskJournal) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        journal.once("k", Effect.IDEMPOTENT, dict, intent=full)
    assert entries(bench) == []
    with pytest.raises(OSError, match="disk full"):
        journal.once("k", Effect.IDEMPOTENT, dict, record=full)
    assert entries(bench) == [("k", "intent", 1)]


def test_a_found_effect_is_recorded_without_another_intent(bench: Bench, journal: TaskJournal) -> None:
    counter, notes = Counter(), list[str]()
    counter.die = "after"
    with pytest.raises(Crash):
        journal.once("k", Effect.PROBEABLE, counter, before=counter.before)
    hooks: dict[str, Any] = {"intent": noting(bench, notes, "intent"), "record": noting(bench, notes, "record")}
    journal.once("k", Effect.PROBEABLE, never, probe=counter.probe, **hooks)
    assert notes == ["record {'found': 1}"]


def test_atomic_writes_stand_together_or_not_at_all(bench: Bench, journal: TaskJournal) -> None:
    journal.plan_made(Plan(steps=(Step(intent="look"),)))

    def write_and_die() -> None:
        with journal.atomic():
            journal.once("k", Effect.PURE, dict)
            journal.step_ended(1, Outcome(state=StepState.DONE, text="seen"))
            raise OSError("power")

    with pytest.raises(OSError, match="power"):
        write_and_die()
    assert entries(bench) == []
    assert bench.db.rows("SELECT state FROM steps") == [{"state": "pending"}]


@pytest.mark.parametrize("effect", [Effect.IDEMPOTENT, Effect.PROBEABLE, Effect.UNSAFE])
def test_an_effect_inside_atomic_is_refused(journal: TaskJournal, effect: Effect) -> None:
    """Its intent would be committed only after it."""
    with pytest.raises(RuntimeError, match="atomic"), journal.atomic():
        journal.once("k", effect, never)


# bounds ---------------------------------------------------------------------------------------------------------------


def test_results_up_to_a_mebibyte(journal: TaskJournal) -> None:
    big = "x" * (MAX_RESULT - len('{"t":""}'))
    assert journal.once("fits", Effect.PURE, lambda: {"t": big}) == {"t": big}
    with pytest.raises(BadInput, match="1,048,577"):
        journal.once("big", Effect.PURE, lambda: {"t": big + "x"})


# fences ---------------------------------------------------------------------------------------------------------------


def test_a_stale_claim_writes_and_runs_nothing(bench: Bench) -> None:
    bench.submit()
    old = bench.claim()
    stale = bench.journal(old)
    stale.plan_made(Plan(steps=(Step(intent="look"),)))
    bench.queue.release(old, "test")
    task = bench.claim()
    outcome = Outcome(state=StepState.DONE, text="")
    acts: list[Callable[[], object]] = [
        lambda: stale.once("k", Effect.PURE, never),
        lambda: stale.once("k", Effect.UNSAFE, never, before=never),
        lambda: stale.plan_made(Plan(steps=(Step(intent="look"),))),
        lambda: stale.plan_made(Plan(steps=())),
        lambda: stale.step_started(1),
        lambda: stale.step_ended(1, outcome),
    ]
    for act in acts:
        with pytest.raises(LeaseLost, match="fence 1"):
            act()
    assert bench.queue.get(task.id).outcomes == (Outcome(state=StepState.PENDING, text=""),)
    bench.journal(task).once("k", Effect.PURE, lambda: {"n": 1})
    with pytest.raises(LeaseLost):
        stale.once("k", Effect.PURE, never)


@pytest.mark.parametrize("effect", [Effect.PURE, Effect.IDEMPOTENT])
def test_a_claim_lost_meanwhile_stores_no_result(bench: Bench, effect: Effect) -> None:
    bench.submit()
    old = bench.claim()
    recorded: list[JsonObject] = []

    def do() -> JsonObject:
        bench.queue.release(old, "test")
        bench.claim()
        return {"stale": True}

    with pytest.raises(LeaseLost):
        bench.journal(old).once("k", effect, do, record=recorded.append)
    assert recorded == []
    assert [state for _, state, _ in entries(bench)] == ([] if effect is Effect.PURE else ["intent"])


def test_a_task_that_does_not_run_has_no_journal_to_write(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    bench.queue.wait_for_person(task, "?")
    with pytest.raises(LeaseLost):
        bench.journal(task).once("k", Effect.PURE, never)


# plan and steps -------------------------------------------------------------------------------------------------------


def test_the_same_plan_again_keeps_the_steps(bench: Bench, journal: TaskJournal) -> None:
    plan = Plan(steps=(Step(intent="look"), Step(intent="say")))
    journal.plan_made(plan)
    journal.step_started(1)
    journal.step_ended(1, Outcome(state=StepState.DONE, text="seen"))
    journal.plan_made(plan)
    journal.step_started(1)
    assert [row["state"] for row in bench.db.rows("SELECT state FROM steps ORDER BY number")] == ["done", "pending"]
    journal.plan_made(Plan(steps=(Step(intent="other"),)))
    assert [row["state"] for row in bench.db.rows("SELECT state FROM steps ORDER BY number")] == ["pending"]


def test_a_failed_step_can_run_again(bench: Bench, journal: TaskJournal) -> None:
    journal.plan_made(Plan(steps=(Step(intent="look"),)))
    journal.step_ended(1, Outcome(state=StepState.FAILED, text="no"))
    journal.step_started(1)
    assert bench.db.rows("SELECT state FROM steps") == [{"state": "running"}]


def test_steps_that_are_not_in_the_plan(journal: TaskJournal) -> None:
    journal.plan_made(Plan(steps=(Step(intent="look"),)))
    done = Outcome(state=StepState.DONE, text="")
    acts: list[Callable[[], object]] = [lambda: journal.step_started(2), lambda: journal.step_ended(0, done)]
    for act in acts:
        with pytest.raises(BadInput, match="no step"):
            act()
    with pytest.raises(BadInput, match="cannot end as running"):
        journal.step_ended(1, Outcome(state=StepState.RUNNING, text=""))


# against a model of the world -----------------------------------------------------------------------------------------


def test_any_order_of_crashes_neither_loses_nor_doubles(bench: Bench) -> None:
    """A hundred random lives of a probeable effect, each with its own crashes."""
    rng = random.Random(7)
    bench.submit()
    journal = bench.journal(bench.claim())
    for life in range(100):
        counter = Counter()
        for _ in range(rng.randrange(6)):
            counter.die = rng.choice(["before", "after"])
            try:
                journal.once(f"life {life}", Effect.PROBEABLE, counter, before=counter.before, probe=counter.probe)
            except Crash:
                continue
        counter.die = None
        journal.once(f"life {life}", Effect.PROBEABLE, counter, before=counter.before, probe=counter.probe)
        assert counter.count == 1


def test_a_pure_effect_costs_little(bench: Bench, journal: TaskJournal) -> None:
    """CPU for the journal row, one audit record and one event; also when the journal is long already."""

    def record(result: JsonObject) -> None:
        bench.audit.record("tool.finished", "t", {"tool": "read_file", "sha256": "0" * 64, "seconds": 0.1})
        bench.events.emit("ToolFinished", "t", {"tool": "read_file", "ok": True, "text": "x" * 200})

    def cost(name: str) -> float:
        times = []
        for number in range(60):
            begun = time.thread_time()
            journal.once(f"{name} {number}", Effect.PURE, lambda: {"ok": True, "text": "x" * 500}, record=record)
            times.append(time.thread_time() - begun)
        return min(times)

    early = cost("early")
    for number in range(300):
        journal.once(f"between {number}", Effect.PURE, lambda: {"n": 1})
    late = cost("late")
    assert late < 0.0016  # with its fsync it takes about half
    assert late < early * 2
