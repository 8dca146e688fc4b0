"""A lock that waiting clients get in turn, however many requests each of them has."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

POLL = 0.05
"""Seconds between looks at `cancel`."""


class Turns:
    """One holder at a time; the next is the oldest request of the client that was served longest ago."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: OrderedDict[str, deque[threading.Event]] = OrderedDict()

    @property
    def waiting(self) -> int:
        with self._guard:
            return sum(len(tickets) for tickets in self._waiting.values())

    @contextmanager
    def take(self, client: str, *, deadline: float, cancel: threading.Event | None = None) -> Iterator[bool]:
        """Wait for the turn; gives False when `deadline` (of `time.monotonic`) or `cancel` came first."""
        mine = self._enter(client)
        got = self._wait(mine, deadline, cancel) or not self._leave(client, mine)
        try:
            yield got
        finally:
            if got:
                self._pass_on()

    def _enter(self, client: str) -> threading.Event:
        mine = threading.Event()
        with self._guard:
            if not self._held:
                self._held = True
                mine.set()
            else:
                self._waiting.setdefault(client, deque()).append(mine)
        return mine

    def _wait(self, mine: threading.Event, deadline: float, cancel: threading.Event | None) -> bool:
        while not mine.wait(max(0.0, min(POLL, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or (cancel is not None and cancel.is_set()):
                return False
        return True

    def _leave(self, client: str, mine: threading.Event) -> bool:
        """Whether it could leave; False when it was given the turn in the meantime."""
        with self._guard:
            if mine.is_set():
                return False
            tickets = self._waiting[client]
            tickets.remove(mine)
            if not tickets:
                del self._waiting[client]
            return True

    def _pass_on(self) -> None:
        with self._guard:
            if not self._waiting:
                self._held = False
                return
            client, tickets = self._waiting.popitem(last=False)
            tickets.popleft().set()
            if tickets:
                self._waiting[client] = tickets  # to the end: the others come first
