from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from agentd.backends.turns import NIGHT_SHARE, Turns
from agentd.errors import Busy
from agentd.types import Priority


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def later(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


class Visitors:
    """Threads that take a place, note it, and hold it until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[str] = []
        self.refused: list[Busy] = []
        self._leaving: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def come(self, label: str, *, client: str = "", priority: Priority = Priority.INTERACTIVE) -> None:
        before = len(self.served) + self.turns.waiting + len(self.refused)
        leaving = self._leaving[label] = threading.Event()

        def stay() -> None:
            try:
                with self.turns.take(client or label, deadline=later(), priority=priority) as mine:
                    assert mine
                    self.served.append(label)
                    assert leaving.wait(10)
            except Busy as busy:
                self.refused.append(busy)

        thread = threading.Thread(target=stay)
        self._threads.append(thread)
        thread.start()
        soon(lambda: len(self.served) + self.turns.waiting + len(self.refused) == before + 1)

    def go(self, label: str) -> None:
        """Let one go, and wait until whoever comes next is there."""
        there = len(self.served)
        waiting = self.turns.waiting
        self._leaving[label].set()
        if waiting:
            soon(lambda: len(self.served) > there)

    def end(self) -> None:
        for event in self._leaving.values():
            event.set()
        for thread in self._threads:
            thread.join()


def test_clients_are_served_in_turn() -> None:
    visitors = Visitors(Turns())
    visitors.come("first")
    for label in ("a1", "a2", "a3", "b1", "c1", "b2"):
        visitors.come(label, client=label[0])
    visitors.end()
    assert visitors.served == ["first", "a1", "b1", "c1", "a2", "b2", "a3"]


def test_so_many_at_once_as_there_are_places() -> None:
    visitors = Visitors(turns := Turns(3))
    for number in range(5):
        visitors.come(str(number))
    assert (turns.held, turns.waiting) == (3, 2)
    turns.resize(4)
    soon(lambda: (turns.held, turns.waiting) == (4, 1))
    visitors.end()
    assert (turns.held, turns.waiting) == (0, 0)


def test_a_smaller_capacity_throws_nobody_out() -> None:
    visitors = Visitors(turns := Turns(2))
    for label in ("a", "b", "c"):
        visitors.come(label)
    turns.resize(1)
    assert turns.held == 2
    visitors._leaving["a"].set()
    soon(lambda: turns.held == 1)
    assert visitors.served == ["a", "b"], "the second place is gone"
    visitors.end()
    assert visitors.served == ["a", "b", "c"]


def test_people_come_before_the_night_and_the_night_gets_its_share() -> None:
    visitors = Visitors(Turns())
    visitors.come("first")
    for number in range(2):
        visitors.come(f"night{number}", priority=Priority.NIGHT)
    for number in range(12):
        visitors.come(f"p{number}")
    for _ in range(14):
        visitors.go(visitors.served[-1])
    visitors.end()
    night = [place for place, label in enumerate(visitors.served) if label.startswith("night")]
    assert night == [NIGHT_SHARE, 2 * NIGHT_SHARE]
    assert len(visitors.served) == 15


def test_one_of_several_places_is_kept_free_of_night_work() -> None:
    visitors = Visitors(turns := Turns(3))
    for number in range(4):
        visitors.come(f"night{number}", priority=Priority.NIGHT)
    assert (turns.held, turns.waiting) == (2, 2)
    visitors.come("somebody")
    assert turns.held == 3
    assert visitors.served[-1] == "somebody"
    visitors.end()


def test_alone_the_night_has_the_only_place() -> None:
    visitors = Visitors(turns := Turns(1))
    visitors.come("night", priority=Priority.NIGHT)
    assert turns.held == 1
    visitors.end()


def test_a_line_that_is_too_long_is_refused_with_when_to_come_again() -> None:
    visitors = Visitors(turns := Turns(1, longest_line=2))
    for label in ("a", "b", "c"):
        visitors.come(label)
    with pytest.raises(Busy, match="2 requests wait for this model already") as refused, turns.take("d", deadline=0.0):
        pass
    assert 1.0 <= refused.value.retry_after <= 60.0
    assert turns.waiting == 2
    visitors.end()
    assert visitors.served == ["a", "b", "c"]


def test_who_gives_up_waiting_does_not_block_the_others() -> None:
    turns = Turns()
    cancel = threading.Event()
    got: list[bool] = []

    def work(deadline: float, cancel: threading.Event | None) -> None:
        with turns.take("", deadline=later(deadline), cancel=cancel) as mine:
            got.append(mine)

    with turns.take("", deadline=later()):
        late = threading.Thread(target=work, args=(0.05, None))
        cancelled = threading.Thread(target=work, args=(10.0, cancel))
        late.start()
        cancelled.start()
        late.join()
        cancel.set()
        cancelled.join()
        assert got == [False, False]
    work(0.0, None)
    assert got[-1], "the turn is free again"


def test_an_error_of_the_holder_passes_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(RuntimeError), turns.take("", deadline=later(1)):
        raise RuntimeError
    with turns.take("", deadline=later(1)) as mine:
        assert mine
