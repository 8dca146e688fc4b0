"""Events: written with what they tell of, published after it stands, and there for who comes late."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Queue

import pytest

from agentd.events import Bus, Event
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from tests.store.conftest import StillClock


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def log(db: Database, bus: Bus, clock: StillClock) -> EventLog:
    return EventLog(db, bus, clock)


@pytest.fixture
def heard(bus: Bus) -> Iterator[Queue[Event]]:
    with bus.listen() as listener:
        yield listener


def test_a_listener_hears_what_is_stored(log: EventLog, heard: Queue[Event], clock: StillClock) -> None:
    data = {"goal": "ä", "checks": ("one", "two"), "path": "caf\udce9"}
    log.emit("TaskQueued", "t1", data)
    data["goal"] = "changed later"
    event = heard.get_nowait()
    assert event == log.since(0)[0]
    assert event == Event(
        id=1,
        at=clock.now(),
        kind="TaskQueued",
        task="t1",
        data={"goal": "ä", "checks": ["one", "two"], "path": "caf\udce9"},
    )


def test_an_event_is_told_after_the_commit(log: EventLog, heard: Queue[Event], db: Database) -> None:
    with db.transaction():
        log.emit("StepStarted", "t1", {"number": 1})
        log.emit("StepJudged", "t1", {"number": 1})
        with pytest.raises(Empty):
            heard.get_nowait()
        assert len(log.since(0)) == 2
    assert [heard.get_nowait().id, heard.get_nowait().id] == [1, 2]


def test_an_event_is_dropped_with_its_transaction(log: EventLog, heard: Queue[Event], db: Database) -> None:
    def fail() -> None:
        with db.transaction():
            log.emit("StepStarted", "t1", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert log.since(0) == []
    with pytest.raises(Empty):
        heard.get_nowait()


def test_since(log: EventLog) -> None:
    for number in range(1, 11):
        log.emit("StepStarted", f"t{number % 2}", {"number": number})
    assert [event.id for event in log.since(7)] == [8, 9, 10]
    assert [event.id for event in log.since(3, task="t1")] == [5, 7, 9]
    assert [event.id for event in log.since(3, task="t1", limit=2)] == [5, 7]
    assert log.since(10) == []
    assert log.since(0, task="nobody") == []


def test_what_is_told_and_kept_is_cleaned(db: Database, bus: Bus, clock: StillClock, heard: Queue[Event]) -> None:
    log = EventLog(db, bus, clock, lambda data: dict.fromkeys(data, "…"))
    log.emit("TaskQueued", "t1", {"goal": "open sesame"})
    assert heard.get_nowait().data == log.since(0)[0].data == {"goal": "…"}
