"""Places at a model: given to waiting clients in turn, to people before night work, and refused when too many wait."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from agentd.errors import Busy
from agentd.types import Priority

POLL = 0.05
"""Seconds between looks at `cancel`."""
LONGEST_LINE = 256
NIGHT_SHARE = 5
"""While both wait, every so many-th place goes to night work, so that it never stands still."""


class _Line:
    """Who waits with one priority: the next is the oldest request of the client that was served longest ago."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[threading.Event]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._clients.values())

    def join(self, client: str, ticket: threading.Event) -> None:
        self._clients.setdefault(client, deque()).append(ticket)

    def leave(self, client: str, ticket: threading.Event) -> None:
        tickets = self._clients[client]
        tickets.remove(ticket)
        if not tickets:
            del self._clients[client]

    def call(self) -> None:
        """Set the ticket that is next."""
        client, tickets = self._clients.popitem(last=False)
        tickets.popleft().set()
        if tickets:
            self._clients[client] = tickets  # to the end: the others come first


class Turns:
    """At most `capacity` holders at a time. Of two and more places one is kept free of night work.

    Interactive requests come before those of the night, and clients with the same priority in turn, however many
    requests each of them has.
    """

    def __init__(self, capacity: int = 1, *, longest_line: int = LONGEST_LINE) -> None:
        self._guard = threading.Lock()
        self._capacity = max(1, capacity)
        self._longest_line = longest_line
        self._held = dict.fromkeys(Priority, 0)
        self._lines = {priority: _Line() for priority in Priority}
        self._passed_over = 0
        """Places given to people in a row while night work waited."""
        self._seconds = 1.0
        """How long a place is held, about."""

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def held(self) -> int:
        with self._guard:
            return sum(self._held.values())

    @property
    def waiting(self) -> int:
        with self._guard:
            return self._waiting()

    def resize(self, capacity: int) -> None:
        """Places that are held now stay so."""
        with self._guard:
            self._capacity = max(1, capacity)
            self._call()

    @contextmanager
    def take(
        self,
        client: str,
        *,
        deadline: float,
        cancel: threading.Event | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Iterator[bool]:
        """Wait for a place; gives False when `deadline` (of `time.monotonic`) or `cancel` came first.

        Raises `Busy` at once when the line is at its longest.
        """
        mine = self._enter(client, priority)
        got = self._wait(mine, deadline, cancel) or not self._leave(client, priority, mine)
        started = time.monotonic()
        try:
            yield got
        finally:
            if got:
                self._pass_on(priority, time.monotonic() - started)

    def _waiting(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def _enter(self, client: str, priority: Priority) -> threading.Event:
        mine = threading.Event()
        with self._guard:
            self._lines[priority].join(client, mine)
            self._call()
            waiting = self._waiting()
            if not mine.is_set() and waiting > self._longest_line:
                self._lines[priority].leave(client, mine)
                raise Busy(
                    f"{self._longest_line} requests wait for this model already",
                    hint="try again later, or with fewer requests at once",
                    retry_after=min(60.0, max(1.0, self._seconds * waiting / self._capacity)),
                )
        return mine

    def _wait(self, mine: threading.Event, deadline: float, cancel: threading.Event | None) -> bool:
        while not mine.wait(max(0.0, min(POLL, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or (cancel is not None and cancel.is_set()):
                return False
        return True

    def _leave(self, client: str, priority: Priority, mine: threading.Event) -> bool:
        """Whether it could leave; False when it was given a place in the meantime."""
        with self._guard:
            if mine.is_set():
                return False
            self._lines[priority].leave(client, mine)
            return True

    def _pass_on(self, priority: Priority, seconds: float) -> None:
        with self._guard:
            self._seconds += 0.2 * (seconds - self._seconds)
            self._held[priority] -= 1
            self._call()

    def _call(self) -> None:
        """Give away every place that is free."""
        while (priority := self._next()) is not None:
            other = self._lines[Priority.NIGHT]
            self._passed_over = self._passed_over + 1 if priority is Priority.INTERACTIVE and other else 0
            self._held[priority] += 1
            self._lines[priority].call()

    def _next(self) -> Priority | None:
        """Whose turn it is, if there is a place."""
        if sum(self._held.values()) >= self._capacity:
            return None
        people = bool(self._lines[Priority.INTERACTIVE])
        most = max(1, self._capacity - 1)
        night = bool(self._lines[Priority.NIGHT]) and self._held[Priority.NIGHT] < most
        if night and (not people or self._passed_over >= NIGHT_SHARE - 1):
            return Priority.NIGHT
        return Priority.INTERACTIVE if people else None
