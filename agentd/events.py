"""What happened, told to whoever listens: events, and a bus that never waits for a slow listener."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from agentd.types import JsonObject


class EventKind(StrEnum):
    TASK_QUEUED = "TaskQueued"
    TASK_STARTED = "TaskStarted"
    TASK_WAITING = "TaskWaiting"
    TASK_FINISHED = "TaskFinished"
    PLAN_MADE = "PlanMade"
    VERDICT_GIVEN = "VerdictGiven"
    STEP_STARTED = "StepStarted"
    STEP_JUDGED = "StepJudged"
    TOOL_DECIDED = "ToolDecided"
    TOOL_FINISHED = "ToolFinished"
    APPROVAL_ASKED = "ApprovalAsked"
    APPROVAL_ANSWERED = "ApprovalAnswered"
    MODEL_CALLED = "ModelCalled"
    MODEL_LOADED = "ModelLoaded"
    MODEL_SHRUNK = "ModelShrunk"
    MODEL_SWITCHED = "ModelSwitched"
    ANSWER_GIVEN = "AnswerGiven"
    PLUGIN_FORGED = "PluginForged"
    PLUGIN_INSTALLED = "PluginInstalled"
    PLUGIN_JUDGED = "PluginJudged"
    PLUGIN_ROLLED_BACK = "PluginRolledBack"
    PLUGIN_REMOVED = "PluginRemoved"
    SNAPSHOTS_FORGOTTEN = "SnapshotsForgotten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`id` grows over the life of the database; `at` is Unix seconds; `task` is empty for the daemon's own."""

    id: int
    at: float
    kind: str
    task: str
    data: JsonObject = field(default_factory=dict)


class Bus:
    """Hands each event to every listener; one that lags more than `capacity` behind loses the oldest."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._listeners: list[queue.Queue[Event]] = []
        self._lock = threading.Lock()

    def publish(self, event: Event) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            while True:
                try:
                    listener.put_nowait(event)
                    break
                except queue.Full:
                    _drop_oldest(listener)

    @contextmanager
    def listen(self) -> Iterator[queue.Queue[Event]]:
        """A queue that receives every event published while the block runs."""
        listener: queue.Queue[Event] = queue.Queue(self._capacity)
        with self._lock:
            self._listeners.append(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.remove(listener)


def _drop_oldest(listener: queue.Queue[Event]) -> None:
    try:
        listener.get_nowait()
    except queue.Empty:
        return
