"""The queue: who gets which task when, and that every change leaves a row, a record and an event."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentd.errors import BadInput, Conflict, LeaseLost, NotFound
from agentd.events import EventKind
from agentd.tasks import queue as queue_module
from agentd.tasks.records import next_id
from agentd.types import (
    AccessLevel,
    Budget,
    Check,
    CheckResult,
    Origin,
    Outcome,
    Plan,
    Report,
    Step,
    StepState,
    Task,
    TaskState,
    Usage,
)
from tests.tasks.conftest import Bench, OpenBench, StillClock

# submit ---------------------------------------------------------------------------------------------------------------


def test_what_was_submitted_comes_back(bench: Bench) -> None:
    first = bench.submit("first")
    check = Check(target="true")
    task = bench.submit(
        "second",
        level=AccessLevel.READ_ONLY,
        checks=(check,),
        budget=Budget(steps=3, seconds=9.5),
        origin=Origin.CLI,
        priority=5,
        after=(first.id,),
        not_before=1_800_000_010.0,
        deadline=1_800_000_020.0,
    )
    assert task == bench.queue.get(task.id)
    assert task == Task(
        id=task.id,
        goal="second",
        workspace=str(bench.workspace.resolve()),
        level=AccessLevel.READ_ONLY,
        checks=(check,),
        budget=Budget(steps=3, seconds=9.5),
        origin=Origin.CLI,
        priority=5,
        after=(first.id,),
        not_before=1_800_000_010.0,
        deadline=1_800_000_020.0,
        created=bench.clock.now(),
    )
    assert first.budget == Budget(steps=7)
    assert first.level is AccessLevel.RUN_TESTS


def test_ids_are_short_and_sort_by_arrival(bench: Bench) -> None:
    ids = [bench.submit(f"goal {n}").id for n in range(50)]
    assert ids == sorted(set(ids))
    assert {len(task_id) for task_id in ids} == {10}
    assert all(task_id.isalnum() and task_id.islower() for task_id in ids)


def test_ids_go_on_growing_when_the_clock_is_set_back() -> None:
    late = next_id(1_900_000_000.0, 511, None)
    assert next_id(1_800_000_000.0, 0, late) > late
    assert next_id(1_900_000_001.0, 0, late) > next_id(1_900_000_000.0, 1, late)


def test_the_same_key_and_request_is_the_same_task(bench: Bench) -> None:
    first = bench.submit("once", idempotency_key="k1", deadline=bench.clock.now() + 5)
    bench.clock.sleep(60)  # also when the deadline is over by then
    again = bench.submit("once", idempotency_key="k1", deadline=first.deadline)
    assert again.id == first.id
    assert len(bench.queue.list()) == 1


@pytest.mark.parametrize(
    "other", [{"goal": "twice"}, {"goal": "once", "level": AccessLevel.READ_ONLY}, {"goal": "once", "priority": 1}]
)
def test_the_same_key_with_another_request_is_a_conflict(bench: Bench, other: dict[str, object]) -> None:
    first = bench.submit("once", idempotency_key="k1")
    with pytest.raises(Conflict, match=first.id):
        bench.queue.submit(bench.request(**{"idempotency_key": "k1", **other}))  # type: ignore[arg-type]


def test_a_key_must_be_printable(bench: Bench) -> None:
    for key in ("", "a\nb", "x" * 201):
        with pytest.raises(BadInput):
            bench.submit(idempotency_key=key)


def test_many_front_ends_with_one_key_make_one_task(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {task.id for task in pool.map(lambda _: bench.submit("once", idempotency_key="k"), range(24))}
    assert len(ids) == 1
    assert bench.queue.counts()["queued"] == 1


def test_a_refused_request_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(BadInput):
        bench.submit("")
    assert bench.queue.list() == []
    assert bench.audit.tail() == []


def test_an_unknown_task_is_named(bench: Bench) -> None:
    for act in (bench.queue.get, bench.queue.cancel, bench.queue.retry):
        with pytest.raises(NotFound, match="'nobody'"):
            act("nobody")


# claim ----------------------------------------------------------------------------------------------------------------


def test_the_most_urgent_comes_first_then_the_oldest(bench: Bench) -> None:
    low = bench.submit("low", priority=-1)
    old, new, urgent = bench.submit("old"), bench.submit("new"), bench.submit("urgent", priority=9)
    assert [bench.claim().id for _ in range(4)] == [urgent.id, old.id, new.id, low.id]
    assert bench.queue.claim("worker-1") is None


def test_how_many_come_before_a_task(bench: Bench) -> None:
    first, second, urgent = bench.submit("a"), bench.submit("b"), bench.submit("c", priority=5)
    assert [bench.queue.ahead(task.id) for task in (first, second, urgent)] == [1, 2, 0]
    running = bench.claim()
    assert running.id == urgent.id
    assert [bench.queue.ahead(task.id) for task in (first, second)] == [1, 2]
    bench.finish(running)
    assert [bench.queue.ahead(task.id) for task in (first, second)] == [0, 1]


def test_a_task_waits_for_its_time(bench: Bench) -> None:
    task = bench.submit(not_before=bench.clock.now() + 10)
    assert bench.queue.claim("worker-1") is None
    bench.clock.sleep(10)
    assert bench.claim().id == task.id


def test_a_task_waits_for_others_to_succeed(bench: Bench) -> None:
    one, two = bench.submit("one"), bench.submit("two")
    last = bench.submit("last", after=(one.id, two.id), priority=9)
    bench.finish(bench.claim(), TaskState.VERIFIED)
    second = bench.claim()
    assert second.id == two.id
    assert bench.queue.claim("worker-2") is None
    bench.finish(second, TaskState.CLAIMED)
    assert bench.claim().id == last.id


def test_a_task_whose_forerunner_fails_fails_at_once_and_so_on(bench: Bench) -> None:
    first = bench.submit("first")
    second = bench.submit("second", after=(first.id,))
    third = bench.submit("third", after=(second.id,))
    bench.finish(bench.claim(), TaskState.LOOPED)
    for task, needed, state in ((second, first, "looped"), (third, second, "failed")):
        ended = bench.queue.get(task.id)
        assert ended.state is TaskState.FAILED
        assert ended.report is not None
        assert "a task it waits for did not succeed" in ended.report.reason
        assert f"{needed.id} ended as {state}" in ended.report.reason
    late = bench.submit("late", after=(first.id,))
    assert late.state is TaskState.FAILED


def test_a_waiting_forerunner_may_still_succeed(bench: Bench) -> None:
    first = bench.submit("first")
    second = bench.submit("second", after=(first.id,))
    bench.queue.wait_for_person(bench.claim(), "which one?")
    assert bench.queue.claim("worker-1") is None
    assert bench.queue.get(second.id).state is TaskState.QUEUED


def test_a_deadline_that_passes_in_the_queue(bench: Bench) -> None:
    task = bench.submit(deadline=bench.clock.now() + 10)
    bench.clock.sleep(10)
    assert bench.queue.claim("worker-1") is None
    ended = bench.queue.get(task.id)
    assert ended.state is TaskState.BUDGET
    assert ended.report is not None
    assert "deadline" in ended.report.reason


def test_a_claim_leaves_its_traces(bench: Bench) -> None:
    task = bench.submit()
    running = bench.claim()
    assert (running.state, running.attempts, running.fence) == (TaskState.RUNNING, 1, 1)
    assert running.started == bench.clock.now()
    assert bench.kinds(task.id) == ["task.queued", "task.running"]
    assert [event.kind for event in bench.told(task.id)] == [EventKind.TASK_QUEUED, EventKind.TASK_STARTED]


def test_no_task_is_claimed_twice(bench: Bench) -> None:
    made = {bench.submit(f"goal {n}").id for n in range(40)}
    got: list[str] = []

    def take(worker: str) -> None:
        while task := bench.queue.claim(worker):
            got.append(task.id)

    threads = [threading.Thread(target=take, args=(f"worker-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 40
    assert set(got) == made


# leases ---------------------------------------------------------------------------------------------------------------


def test_an_overdue_lease_gets_one_more_period_and_is_then_taken(bench: Bench) -> None:
    bench.submit()
    stale = bench.claim()
    bench.clock.sleep(61)
    assert bench.queue.claim("worker-2") is None
    bench.clock.sleep(60)
    fresh = bench.queue.claim("worker-2")
    assert fresh is not None
    assert (fresh.id, fresh.fence, fresh.attempts) == (stale.id, 2, 2)
    acts: list[Callable[[], object]] = [
        lambda: bench.queue.renew(stale),
        lambda: bench.finish(stale),
        lambda: bench.queue.release(stale, "x"),
        lambda: bench.queue.wait_for_person(stale, "x"),
    ]
    for act in acts:
        with pytest.raises(LeaseLost):
            act()
    assert bench.queue.get(fresh.id).state is TaskState.RUNNING
    bench.finish(fresh)
    assert bench.kinds(fresh.id) == ["task.queued", "task.running", "task.queued", "task.running", "task.verified"]


def test_a_holder_who_slept_with_its_machine_keeps_its_task(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    bench.clock.sleep(8 * 3600)
    assert bench.queue.claim("worker-2") is None
    bench.queue.renew(task)
    bench.clock.sleep(59)
    assert bench.queue.claim("worker-2") is None
    bench.finish(task)


def test_a_released_task_is_claimed_again(bench: Bench) -> None:
    bench.submit()
    bench.queue.release(bench.claim(), "the daemon stopped")
    again = bench.claim()
    assert (again.fence, again.attempts) == (2, 2)


def test_recovery_queues_what_ran(open_bench: OpenBench) -> None:
    bench = open_bench()
    ran, cancelled, queued = bench.submit("ran"), bench.submit("cancelled"), bench.submit("queued")
    stale = bench.claim()
    bench.claim()
    bench.queue.cancel(cancelled.id)
    bench.db.close()

    bench = open_bench()
    assert bench.queue.recover() == [ran.id, cancelled.id]
    assert [bench.queue.get(task.id).state for task in (ran, cancelled, queued)] == ["queued", "cancelled", "queued"]
    assert bench.queue.recover() == []
    assert bench.claim().id == ran.id
    with pytest.raises(LeaseLost):
        bench.finish(stale)


# ends -----------------------------------------------------------------------------------------------------------------


def test_a_finished_task_keeps_its_report(bench: Bench) -> None:
    bench.submit()
    report = Report(
        state=TaskState.VERIFIED,
        answer="There are 42 lines.",
        verified=("42 lines",),
        changed=("a.txt",),
        checks=(CheckResult(check=Check(target="true"), passed=True, detail="exit 0"),),
        usage=Usage(model_calls=2, prompt_tokens=100, completion_tokens=20),
        seconds=1.5,
    )
    task = bench.claim()
    bench.clock.sleep(3)
    bench.queue.finish(task, report)
    ended = bench.queue.get(task.id)
    assert (ended.state, ended.report, ended.ended) == (TaskState.VERIFIED, report, bench.clock.now())
    event = bench.told(task.id)[-1]
    assert event.kind == EventKind.TASK_FINISHED
    assert event.data == {"state": "verified", "answer": "There are 42 lines.", "reason": ""}
    with pytest.raises(LeaseLost):
        bench.finish(task)


def test_a_report_must_be_an_end(bench: Bench) -> None:
    bench.submit()
    with pytest.raises(ValueError, match="not an end"):
        bench.finish(bench.claim(), TaskState.WAITING)


def test_words_with_half_characters_can_be_kept_and_told(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    bench.finish(task, answer="the file caf\udce9.txt")
    report = bench.queue.get(task.id).report
    assert report is not None
    assert report.answer == bench.told(task.id)[-1].data["answer"] == "the file caf?.txt"
    bench.submit()
    task = bench.claim()
    bench.queue.wait_for_person(task, "is it caf\udce9.txt?")
    assert bench.queue.get(task.id).question == bench.told(task.id)[-1].data["question"] == "is it caf?.txt?"


def test_a_row_without_its_record_cannot_be(bench: Bench) -> None:
    """The audit record fails: then the transition did not happen either."""

    class Full:
        def record(self, kind: str, task: str, data: object) -> int:
            raise OSError("disk full")

    task = bench.submit()
    queue = bench.queue
    queue._audit = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="disk full"):
        queue.claim("worker-1")
    with pytest.raises(OSError, match="disk full"):
        queue.cancel(task.id)
    assert queue.get(task.id).state is TaskState.QUEUED
    assert len(bench.told(task.id)) == 1


def test_waiting_for_a_person(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    bench.queue.wait_for_person(task, "which file?")
    waiting = bench.queue.get(task.id)
    assert (waiting.state, waiting.question) == (TaskState.WAITING, "which file?")
    assert bench.kinds(task.id)[-1] == "task.waiting"
    assert bench.told(task.id)[-1].data == {"question": "which file?"}
    assert bench.queue.claim("worker-1") is None


# cancel ---------------------------------------------------------------------------------------------------------------


def test_a_task_that_does_not_run_is_cancelled_at_once(bench: Bench) -> None:
    queued = bench.submit()
    assert bench.queue.cancel(queued.id).state is TaskState.CANCELLED
    assert bench.queue.claim("worker-1") is None
    waiting = bench.submit()
    bench.queue.wait_for_person(bench.claim(), "?")
    cancelled = bench.queue.cancel(waiting.id)
    assert (cancelled.state, cancelled.question) == (TaskState.CANCELLED, "")
    assert cancelled.report is not None
    assert cancelled.report.reason == "cancelled while waiting"
    assert bench.queue.cancel(waiting.id) == cancelled


def test_a_running_task_is_asked_to_stop(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    for _ in range(2):
        assert bench.queue.cancel(task.id).state is TaskState.RUNNING
    assert bench.queue.cancels() == {task.id}
    assert bench.kinds(task.id).count("task.cancel_requested") == 1
    bench.finish(task, TaskState.CANCELLED)
    assert bench.queue.cancels() == set()


@pytest.mark.parametrize("leave", ["release", "wait"])
def test_a_task_asked_to_stop_does_not_come_back(bench: Bench, leave: str) -> None:
    bench.submit()
    task = bench.claim()
    bench.queue.cancel(task.id)
    if leave == "release":
        bench.queue.release(task, "the daemon stopped")
    else:
        bench.queue.wait_for_person(task, "?")
    assert bench.queue.get(task.id).state is TaskState.CANCELLED


def test_an_ended_task_cannot_be_cancelled(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    bench.finish(task)
    with pytest.raises(Conflict, match="verified"):
        bench.queue.cancel(task.id)


# retry ----------------------------------------------------------------------------------------------------------------


def test_a_retry_is_a_new_task_with_the_same_request(bench: Bench) -> None:
    check = Check(target="true")
    old = bench.submit("try", level=AccessLevel.READ_ONLY, checks=(check,), priority=3, idempotency_key="k")
    bench.finish(bench.claim(), TaskState.FAILED)
    new = bench.queue.retry(old.id)
    assert new.id != old.id
    assert (new.retry_of, new.state, new.attempts) == (old.id, TaskState.QUEUED, 0)
    assert (new.goal, new.level, new.checks, new.priority) == ("try", AccessLevel.READ_ONLY, (check,), 3)
    assert bench.queue.get(old.id).state is TaskState.FAILED
    with pytest.raises(Conflict, match=new.id):
        bench.queue.retry(old.id)
    bench.queue.cancel(new.id)
    assert bench.queue.retry(old.id).retry_of == old.id


def test_a_retry_hears_no_kept_replies(bench: Bench) -> None:
    old = bench.submit("try")
    assert old.cache
    assert not bench.submit("try", cache=False).cache
    bench.finish(bench.claim(), TaskState.FAILED)
    assert not bench.queue.retry(old.id).cache


def test_a_task_that_makes_a_tool_does_so_when_it_is_retried(bench: Bench) -> None:
    assert not bench.submit("try").tool
    bench.finish(bench.claim(), TaskState.FAILED)
    old = bench.submit("try", tool=True)
    claimed = bench.claim()
    assert (claimed.id, claimed.tool) == (old.id, True)
    bench.finish(claimed, TaskState.FAILED)
    assert bench.queue.retry(old.id).tool


def test_a_retried_waiting_task_ends(bench: Bench) -> None:
    old = bench.submit()
    bench.queue.wait_for_person(bench.claim(), "?")
    new = bench.queue.retry(old.id)
    ended = bench.queue.get(old.id)
    assert ended.state is TaskState.CANCELLED
    assert ended.report is not None
    assert new.id in ended.report.reason


def test_what_is_under_way_is_not_retried(bench: Bench) -> None:
    task = bench.submit()
    with pytest.raises(Conflict, match="queued"):
        bench.queue.retry(task.id)
    bench.claim()
    with pytest.raises(Conflict, match="running"):
        bench.queue.retry(task.id)


def test_a_retry_waits_for_the_newest_attempt_of_its_forerunner(bench: Bench) -> None:
    first = bench.submit("first")
    second = bench.submit("second", after=(first.id,), deadline=bench.clock.now() + 5)
    bench.finish(bench.claim(), TaskState.FAILED)
    bench.clock.sleep(10)
    first_again = bench.queue.retry(first.id)
    second_again = bench.queue.retry(second.id)
    assert second_again.after == (first_again.id,)
    assert second_again.deadline is None
    assert second_again.state is TaskState.QUEUED


# looking --------------------------------------------------------------------------------------------------------------


def test_lists_and_counts(bench: Bench) -> None:
    tasks = [bench.submit(f"goal {n}") for n in range(4)]
    bench.finish(bench.claim())
    bench.claim()
    assert [task.id for task in bench.queue.list()] == [task.id for task in reversed(tasks)]
    assert [task.id for task in bench.queue.list([TaskState.QUEUED], limit=1)] == [tasks[3].id]
    assert bench.queue.list([]) == []
    counts = bench.queue.counts()
    assert (counts["verified"], counts["running"], counts["queued"], counts["failed"]) == (1, 1, 2, 0)
    assert set(counts) == set(TaskState)


def test_plan_and_outcomes_are_part_of_the_task(bench: Bench) -> None:
    bench.submit()
    task = bench.claim()
    plan = Plan(steps=(Step(intent="look"), Step(intent="say", after=(1,))))
    journal = bench.journal(task)
    journal.plan_made(plan)
    journal.step_started(1)
    done = Outcome(state=StepState.DONE, text="seen", evidence=("a.txt",))
    journal.step_ended(1, done)
    journal.step_started(2)
    found = bench.queue.get(task.id)
    assert found.plan == plan
    assert found.outcomes == (done, Outcome(state=StepState.RUNNING, text=""))
    assert bench.queue.list() == [found]


def test_the_morning_report_keeps_verified_and_claimed_apart(bench: Bench) -> None:
    bench.submit("before")
    bench.finish(bench.claim())
    bench.clock.sleep(10)
    evening = bench.clock.now()
    for state in (TaskState.CLAIMED, TaskState.VERIFIED, TaskState.FAILED):
        bench.clock.sleep(1)
        bench.submit(f"goal {state}")
        checks = (CheckResult(check=Check(target="true"), passed=True, detail="exit 0"),)
        usage = Usage(prompt_tokens=10, completion_tokens=5)
        bench.finish(bench.claim(), state, reason="why", checks=checks, changed=("a",), usage=usage, seconds=2.0)
    asked = bench.submit("ask")
    bench.queue.wait_for_person(bench.claim(), "which?")
    page = bench.queue.report(evening)
    assert (page["since"], page["until"]) == (evening, bench.clock.now())
    assert {kind: [entry["goal"] for entry in page[kind]] for kind in ("verified", "claimed", "other")} == {
        "verified": ["goal verified"],
        "claimed": ["goal claimed"],
        "other": ["goal failed"],
    }
    entry = page["other"][0]
    assert (entry["state"], entry["answer"], entry["reason"]) == ("failed", "42", "why")
    assert (entry["changed"], entry["seconds"], entry["tokens"]) == (["a"], 2.0, 15)
    ran = {
        "check": "true",
        "target": "true",
        "by": "user",
        "passed": True,
        "detail": "exit 0",
        "code": None,
        "sha256": "",
    }
    assert entry["checks"] == [ran]
    assert page["waiting"] == [
        {"id": asked.id, "goal": "ask", "workspace": str(bench.workspace.resolve()), "question": "which?"}
    ]


def test_listeners_are_woken_by_a_submit(bench: Bench) -> None:
    seen = bench.queue.wait(-1, 0)
    assert bench.queue.wait(seen, 0.01) == seen
    timer = threading.Timer(0.05, bench.submit)
    timer.start()
    assert bench.queue.wait(seen, 5) > seen
    timer.join()


def test_the_audit_chain_holds_over_a_whole_life(bench: Bench, tmp_path: Path) -> None:
    bench.submit()
    task = bench.claim()
    bench.queue.lost(task)
    bench.queue.cancel(task.id)
    bench.finish(task)
    assert bench.audit.verify().ok
    assert bench.kinds(task.id) == [
        "task.queued",
        "task.running",
        "task.lease_lost",
        "task.cancel_requested",
        "task.verified",
    ]


def test_the_next_task_is_found_without_sorting(bench: Bench) -> None:
    """The price of a claim does not grow with what has ended or lies behind it."""
    plan = str(bench.db.rows(f"EXPLAIN QUERY PLAN {queue_module._NEXT}", (0.0,)))
    assert "SEARCH tasks USING INDEX tasks_in_turn (state=?)" in plan
    assert "TEMP B-TREE" not in plan


def test_a_still_clock_makes_no_two_equal_ids(open_bench: OpenBench) -> None:
    bench = open_bench()
    first = bench.submit()
    bench.db.close()
    assert open_bench(StillClock()).submit().id > first.id


KEY = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"


def test_what_is_kept_of_a_task_holds_no_secret(bench: Bench) -> None:
    first = bench.submit(f"use {KEY}")
    assert first.goal == "use [left out: GitHub token]"
    task = bench.claim()
    journal = bench.journal(task)
    journal.plan_made(Plan(steps=(Step(intent=f"use {KEY}"),)))
    journal.step_ended(1, Outcome(state=StepState.DONE, text=f"used {KEY}"))
    bench.queue.wait_for_person(task, f"Really {KEY}?")
    assert bench.queue.get(task.id).question == "Really [left out: GitHub token]?"
    bench.queue.resume(task.id, "because")
    bench.finish(bench.claim(), TaskState.FAILED, reason=f"{KEY} is wrong", claimed=(KEY,))
    for table in ("tasks", "plans", "steps"):
        assert KEY not in json.dumps(bench.db.rows(f"SELECT * FROM {table}")), table
