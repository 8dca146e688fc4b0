"""Workers: what a task's end, a cancellation and a stop do, with real threads and the real clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.errors import Cancelled, InDoubt, NeedsApproval, QuestionAsked, Stopping
from agentd.tasks.worker import Run, Worker
from agentd.types import Effect, Journal, JsonObject, Report, Task, TaskState
from tests.tasks.conftest import Bench, OpenBench

DONE = Report(state=TaskState.VERIFIED, answer="done")


@pytest.fixture
def bench(open_bench: OpenBench) -> Bench:
    return open_bench(SystemClock(), lease_seconds=0.6)


Start = Callable[..., Worker]


@pytest.fixture
def start(bench: Bench) -> Iterator[Start]:
    workers: list[Worker] = []

    def start(run: Run, **options: Any) -> Worker:
        worker = Worker(bench.queue, bench.journal, run, bench.clock, **options)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop(2)


def until(ready: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def ended(bench: Bench, task: Task, state: TaskState) -> Task:
    until(lambda: bench.queue.get(task.id).state is state)
    return bench.queue.get(task.id)


class Endless:
    """A run that goes on until it is asked to stop, then does what `stopped` says."""

    def __init__(self, stopped: Callable[[], Report]) -> None:
        self.begun = threading.Event()
        self.stopped = stopped
        self.reason = ""

    def __call__(self, task: Task, journal: Journal, cancel: threading.Event) -> Report:
        self.begun.set()
        assert cancel.wait(5)
        self.reason = getattr(cancel, "reason", "")
        return self.stopped()


def cancelled_report() -> Report:
    return Report(state=TaskState.CANCELLED, answer="", reason="asked to")


def raising(error: BaseException) -> Callable[..., Report]:
    def run(*_: object) -> Report:
        raise error

    return run


def test_a_submitted_task_is_done_at_once(bench: Bench, start: Start) -> None:
    start(lambda task, journal, cancel: DONE)
    time.sleep(0.05)  # by now it waits for work
    begun = time.monotonic()
    task = ended(bench, bench.submit(), TaskState.VERIFIED)
    assert time.monotonic() - begun < 0.5
    assert task.report == DONE


def test_what_was_queued_before_the_start_is_done(bench: Bench, start: Start) -> None:
    tasks = [bench.submit(f"goal {n}") for n in range(5)]
    start(lambda task, journal, cancel: DONE, count=2)
    for task in tasks:
        ended(bench, task, TaskState.VERIFIED)


def test_several_threads_work_at_once(bench: Bench, start: Start) -> None:
    together = threading.Barrier(3, timeout=5)

    def run(task: Task, journal: Journal, cancel: threading.Event) -> Report:
        together.wait()
        return DONE

    worker = start(run, count=3)
    tasks = [bench.submit(f"goal {n}") for n in range(3)]
    for task in tasks:
        ended(bench, task, TaskState.VERIFIED)
    until(lambda: worker.running() == [])


@pytest.mark.parametrize("error", [QuestionAsked("which one?"), NeedsApproval("may I?"), InDoubt("was it done?")])
def test_a_question_waits_and_the_next_task_goes_on(bench: Bench, start: Start, error: Exception) -> None:
    first, second = bench.submit("ask"), bench.submit("do")
    start(lambda task, *_: DONE if task.goal == "do" else raising(error)())
    assert ended(bench, first, TaskState.WAITING).question == str(error)
    ended(bench, second, TaskState.VERIFIED)


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), MemoryError()])
def test_an_internal_error_fails_the_task_and_nothing_else(bench: Bench, start: Start, error: BaseException) -> None:
    first, second = bench.submit("break"), bench.submit("do")
    start(lambda task, *_: DONE if task.goal == "do" else raising(error)())
    report = ended(bench, first, TaskState.FAILED).report
    assert report is not None
    assert report.reason == f"internal error: {type(error).__name__}: {error}"
    ended(bench, second, TaskState.VERIFIED)


def test_a_cancelled_task_stops_within_a_second(bench: Bench, start: Start) -> None:
    for stopped in (cancelled_report, raising(Cancelled("asked to"))):
        endless = Endless(stopped)
        worker = start(endless)
        task = bench.submit()
        assert endless.begun.wait(5)
        begun = time.monotonic()
        bench.queue.cancel(task.id)
        report = ended(bench, task, TaskState.CANCELLED).report
        assert time.monotonic() - begun < 1.0
        assert report is not None
        assert (report.reason, endless.reason) == ("asked to", "cancelled")
        worker.stop()


@pytest.mark.parametrize(
    "stopped",
    [cancelled_report, raising(Stopping("going down")), raising(Cancelled("asked to")), raising(OSError("gone"))],
)
def test_a_stop_puts_running_tasks_back(bench: Bench, start: Start, stopped: Callable[[], Report]) -> None:
    endless = Endless(stopped)
    worker = start(endless)
    task, other = bench.submit("first"), bench.submit("second")
    assert endless.begun.wait(5)
    assert worker.stop()
    assert endless.reason == "stopping"
    assert [bench.queue.get(found.id).state for found in (task, other)] == ["queued", "queued"]
    start(lambda task, journal, cancel: DONE)
    assert ended(bench, task, TaskState.VERIFIED).attempts == 2


def test_what_succeeds_during_a_stop_is_kept(bench: Bench, start: Start) -> None:
    endless = Endless(lambda: DONE)
    worker = start(endless)
    task = bench.submit()
    assert endless.begun.wait(5)
    assert worker.stop()
    assert bench.queue.get(task.id).state is TaskState.VERIFIED


def test_a_stop_does_not_wait_for_ever(bench: Bench, start: Start) -> None:
    go, over = threading.Event(), threading.Event()

    def deaf(task: Task, journal: Journal, cancel: threading.Event) -> Report:
        go.wait(5)
        try:
            journal.once("late", Effect.PURE, dict)
        finally:
            over.set()
        return DONE

    worker = start(deaf)
    task = bench.submit()
    until(worker.running)
    begun = time.monotonic()
    assert not worker.stop(0.1)
    assert time.monotonic() - begun < 2
    assert bench.queue.get(task.id).state is TaskState.QUEUED
    go.set()
    assert over.wait(5)
    until(lambda: "task.lease_lost" in bench.kinds(task.id))
    assert bench.queue.get(task.id).state is TaskState.QUEUED
    assert bench.db.rows("SELECT * FROM journal") == []


def test_a_lease_is_renewed_as_long_as_the_task_runs(bench: Bench, start: Start) -> None:
    endless = Endless(lambda: DONE)
    worker = start(endless)
    task = bench.submit()
    assert endless.begun.wait(5)
    for _ in range(8):
        time.sleep(0.2)  # 1.6 s in all; a lease and its second period last 1.2 s
        assert bench.queue.claim("thief") is None
    assert bench.queue.get(task.id).fence == 1
    worker.stop()


def test_a_lost_lease_stops_the_run_and_is_on_record(bench: Bench, start: Start) -> None:
    endless = Endless(lambda: DONE)
    worker = start(endless)
    task = bench.submit(not_before=None)
    assert endless.begun.wait(5)
    bench.db.execute("UPDATE tasks SET fence = fence + 1 WHERE id = ?", (task.id,))
    until(lambda: "task.lease_lost" in bench.kinds(task.id))
    assert endless.reason == "lease lost"
    assert bench.queue.get(task.id).report is None
    until(lambda: worker.running() == [])


def test_an_error_of_the_queue_does_not_end_the_worker(bench: Bench, start: Start) -> None:
    """The disk is full for one claim; the worker tries again."""
    failures = [OSError("disk full")]
    claim = bench.queue.claim

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench.queue, name)

        def claim(self, worker: str) -> Task | None:
            if failures:
                raise failures.pop()
            return claim(worker)

    worker = Worker(Failing(), bench.journal, lambda *_: DONE, bench.clock)  # type: ignore[arg-type]
    worker.start()
    ended(bench, bench.submit(), TaskState.VERIFIED)
    worker.stop()


def test_an_end_that_cannot_be_recorded_is_come_to_again(bench: Bench, start: Start) -> None:
    """The disk is full when the task ends; once its lease has run out it is done again, from its journal."""
    failures = [OSError("disk full")]
    done: list[str] = []

    def run(task: Task, journal: Journal, cancel: threading.Event) -> Report:
        journal.once("work", Effect.IDEMPOTENT, work)
        return DONE

    def work() -> JsonObject:
        done.append("work")
        return {}

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(bench.queue, name)

        def finish(self, task: Task, report: Report) -> None:
            if failures:
                raise failures.pop()
            bench.queue.finish(task, report)

    worker = Worker(Failing(), bench.journal, run, bench.clock)  # type: ignore[arg-type]
    worker.start()
    task = ended(bench, bench.submit(), TaskState.VERIFIED)
    assert (task.attempts, done) == (2, ["work"])
    worker.stop()


def test_a_stop_before_any_work_is_quick(bench: Bench, start: Start) -> None:
    worker = start(lambda *_: DONE, count=3)
    begun = time.monotonic()
    assert worker.stop()
    assert worker.stop()
    assert time.monotonic() - begun < 1
    assert Worker(bench.queue, bench.journal, lambda *_: DONE, bench.clock).stop()
