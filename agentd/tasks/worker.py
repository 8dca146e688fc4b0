"""Threads that take tasks from the queue, have them run, keep their leases, and record how they ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from agentd.errors import Cancelled, InDoubt, LeaseLost, NeedsApproval, QuestionAsked, Stopping
from agentd.tasks.queue import Queue
from agentd.telemetry import get_logger, task_context
from agentd.types import Clock, Journal, Report, Task, TaskState

log = get_logger(__name__)

Run: TypeAlias = Callable[[Task, Journal, threading.Event], Report]
"""`run(task, journal, cancel)`: do the task; stop soon after `cancel` is set. It goes on from the journal."""

IDLE_SECONDS = 1.0
"""How often an idle thread looks for tasks whose time has come; a submitted one wakes it at once."""
WATCH_SECONDS = 0.5
PAUSE_SECONDS = 1.0
"""After an error of the queue itself, such as a full disk."""


class Cancel(threading.Event):
    """Set when a task must stop; `reason` is then `cancelled`, `stopping` or `lease lost`."""

    reason = ""

    def set_because(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.set()


class Worker:
    """`count` threads that work, and one that renews leases and passes on cancellations. Starts and stops once."""

    def __init__(
        self,
        queue: Queue,
        journal: Callable[[Task], Journal],
        run: Run,
        clock: Clock,
        *,
        count: int = 1,
        name: str = "worker",
    ) -> None:
        self._queue = queue
        self._journal = journal
        self._run = run
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Task, Cancel]] = {}
        self._stopping = threading.Event()
        self._idle = threading.Event()
        names = [f"{name}-{number}" for number in range(1, count + 1)]
        self._threads = [threading.Thread(target=self._work, args=(n,), name=n, daemon=True) for n in names]
        self._watcher = threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True)

    def start(self) -> None:
        for thread in (*self._threads, self._watcher):
            thread.start()

    def running(self) -> list[str]:
        """The ids of the tasks that run now."""
        with self._lock:
            return list(self._running)

    def stop(self, timeout: float = 10.0) -> bool:
        """Claim nothing more, ask what runs to stop, and put it back into the queue.

        True when every thread came to an end within `timeout` seconds. A task whose thread did not is queued again all
        the same, and that thread can record nothing more.
        """
        self._stopping.set()
        with self._lock:
            for _, cancel in self._running.values():
                cancel.set_because("stopping")
        self._queue.wake()
        until = self._clock.now() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - self._clock.now()))
        self._idle.set()
        self._queue.wake()
        if self._watcher.is_alive():
            self._watcher.join(WATCH_SECONDS * 2)
        return not self._abandon()

    def _abandon(self) -> int:
        with self._lock:
            left = [task for task, _ in self._running.values()]
        for task in left:
            log.warning("a task did not stop in time", task=task.id)
            try:
                self._queue.release(task, "the daemon stopped without waiting for it")
            except LeaseLost:
                pass  # it ended in this very moment
        return len(left)

    # a working thread ------------------------------------------------------------------------------------------------

    def _work(self, name: str) -> None:
        while not self._stopping.is_set():
            seen = self._queue.wait(-1, 0)
            try:
                task = self._queue.claim(name)
            except Exception:
                log.exception("no task could be claimed")
                self._stopping.wait(PAUSE_SECONDS)
                continue
            if task is None:
                self._queue.wait(seen, IDLE_SECONDS)
            else:
                self._take(task)

    def _take(self, task: Task) -> None:
        cancel = Cancel()
        with self._lock:
            self._running[task.id] = (task, cancel)
            if self._stopping.is_set():
                cancel.set_because("stopping")
        with task_context(task.id):
            try:
                self._do(task, cancel)
            except Exception:
                # Its lease runs out, and the next claim comes to the same end from the journal.
                log.exception("the end of a task could not be recorded")
        with self._lock:
            del self._running[task.id]

    def _do(self, task: Task, cancel: Cancel) -> None:
        try:
            self._bring_to_an_end(task, cancel)
        except LeaseLost:
            log.info("the task belongs to another worker now")
            self._queue.lost(task)

    def _bring_to_an_end(self, task: Task, cancel: Cancel) -> None:
        begun = self._clock.now()
        try:
            report = self._run(task, self._journal(task), cancel)
        except LeaseLost:
            raise
        except Stopping as error:
            self._queue.release(task, error.message)
            return
        except (NeedsApproval, QuestionAsked) as error:
            self._queue.wait_for_person(task, str(error), error.request)
            return
        except InDoubt as error:
            self._queue.wait_for_person(task, str(error))
            return
        except Cancelled as error:
            report = Report(state=TaskState.CANCELLED, answer="", reason=error.message)
        except (Exception, SystemExit) as error:
            log.exception("a task ended with an internal error")
            reason = f"internal error: {type(error).__name__}: {error}"
            report = Report(state=TaskState.FAILED, answer="", reason=reason, seconds=self._clock.now() - begun)
        self._record(task, cancel, report)

    def _record(self, task: Task, cancel: Cancel, report: Report) -> None:
        """Finish, unless it ended badly while the daemon stops: the next start finds out whether that is so."""
        if cancel.reason == "stopping" and not report.state.good:
            self._queue.release(task, "the daemon stopped")
        else:
            self._queue.finish(task, report)

    # the watching thread ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        pace = self._queue.lease_seconds / 3
        seen, renewed = -1, self._clock.now()
        while not self._idle.is_set():
            seen = self._queue.wait(seen, min(WATCH_SECONDS, pace))
            try:
                self._pass_on_cancels()
                if not 0 <= self._clock.now() - renewed < pace:  # below 0: the clock was set back
                    self._renew()
                    renewed = self._clock.now()
            except Exception:
                log.exception("leases could not be renewed")
                self._idle.wait(PAUSE_SECONDS)

    def _pass_on_cancels(self) -> None:
        with self._lock:
            running = dict(self._running)
        if not running:
            return
        for task_id in self._queue.cancels() & running.keys():
            running[task_id][1].set_because("cancelled")

    def _renew(self) -> None:
        with self._lock:
            running = list(self._running.values())
        for task, cancel in running:
            try:
                self._queue.renew(task)
            except LeaseLost:
                cancel.set_because("lease lost")
