"""How well a server does: whether it is left alone for now, how long it takes, what runs on it; and who is next."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agentd.config import RouterSettings
from agentd.types import Clock

_WINDOW = 100
_ENOUGH = 5
"""Answers from which it can be said how long most take."""


class Breaker(StrEnum):
    """Whether requests go through to a server: all, none, or one to try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Health:
    """What is known of one server. After some failures in a row nothing goes to it for a while; then one request tries,
    and when that fails too it rests for twice as long. Safe to use from several threads."""

    def __init__(self, clock: Clock, settings: Callable[[], RouterSettings]) -> None:
        self._clock = clock
        self._settings = settings
        self._lock = threading.Lock()
        self._breaker = Breaker.CLOSED
        self._trying = False
        self._in_a_row = 0
        self._began = 0.0
        self._rest = 0.0
        """The present rest: since when (Unix seconds), and for how many seconds."""
        self._last_rest = 0.0
        self._took: deque[float] = deque(maxlen=_WINDOW)
        self._seen: float | None = None
        self._running = self._answered = self._failed = 0
        self._problem = ""

    @property
    def ready(self) -> bool:
        """Whether `enter` would let a request through now."""
        with self._lock:
            return self._ready()

    @property
    def resting(self) -> float:
        """Seconds until it may be asked again; 0.0 when it may be now."""
        with self._lock:
            return self._resting()

    @property
    def broken(self) -> bool:
        """Whether it rests because it failed."""
        with self._lock:
            return self._breaker is not Breaker.CLOSED and not self._ready()

    @property
    def running(self) -> int:
        """Requests under way."""
        return self._running

    @property
    def problem(self) -> str:
        """What its last failure said; empty when it has answered since."""
        return self._problem

    @property
    def usual(self) -> float | None:
        """Seconds within which 95 of 100 answers came; None until a few have."""
        with self._lock:
            took = sorted(self._took)
        return took[math.ceil(0.95 * len(took)) - 1] if len(took) >= _ENOUGH else None

    def seen_within(self, seconds: float) -> bool:
        """Whether it has answered so lately, and not failed since."""
        with self._lock:
            return self._seen is not None and not self._problem and 0 <= self._clock.now() - self._seen < seconds

    def enter(self) -> bool:
        """Take a place for a request; `succeeded`, `failed`, `paused` or `left` gives it back. False while it rests."""
        with self._lock:
            if not self._ready():
                return False
            if self._breaker is not Breaker.CLOSED:
                self._breaker, self._trying = Breaker.HALF_OPEN, True
            self._running += 1
            return True

    @property
    def on_trial(self) -> bool:
        """Whether the one request that may try runs now."""
        return self._trying

    def lives(self) -> None:
        """The request that tries has begun to be answered, so the others need not wait for its end."""
        with self._lock:
            if self._trying:
                self._close("")
                self._trying = False

    def succeeded(self, seconds: float | None = None) -> None:
        """The request was answered; in so many seconds, where that says how long the server takes."""
        with self._lock:
            self._leave()
            self._close("")
            self._answered += 1
            self._seen = self._clock.now()
            if seconds is not None:
                self._took.append(seconds)

    def failed(self, problem: str) -> None:
        """The request failed, and the server is to blame."""
        with self._lock:
            self._leave()
            self._failed += 1
            self._in_a_row += 1
            self._problem = problem
            tried = self._breaker is Breaker.HALF_OPEN
            if tried or (self._breaker is Breaker.CLOSED and self._in_a_row >= self._settings().failures):
                longest = max(self._settings().rest, self._settings().longest_rest)
                self._last_rest = min(longest, self._last_rest * 2 or self._settings().rest)
                self._breaker, self._began, self._rest = Breaker.OPEN, self._clock.now(), self._last_rest

    def paused(self, seconds: float, problem: str) -> None:
        """The server is there but wants to be asked later."""
        with self._lock:
            self._leave()
            self._close(problem)
            self._began, self._rest = self._clock.now(), min(max(seconds, 0.0), self._settings().longest_rest)

    def left(self) -> None:
        """The request ended in a way that says nothing about the server: cancelled, or wrong in itself."""
        with self._lock:
            self._leave()

    def describe(self) -> dict[str, Any]:
        """`state`, `resting` (seconds), `running`, `answered`, `failed`, `usual` (seconds), `problem`."""
        usual = self.usual
        with self._lock:
            return {
                "state": self._breaker.value,
                "resting": round(self._resting(), 3),
                "running": self._running,
                "answered": self._answered,
                "failed": self._failed,
                "usual": None if usual is None else round(usual, 3),
                "problem": self._problem,
            }

    def _ready(self) -> bool:
        return not self._trying and self._resting() == 0.0

    def _resting(self) -> float:
        gone = self._clock.now() - self._began
        # A clock that was put back would otherwise keep a server out for as long.
        return self._rest - gone if 0 <= gone < self._rest else 0.0

    def _close(self, problem: str) -> None:
        self._breaker, self._in_a_row, self._rest, self._last_rest = Breaker.CLOSED, 0, 0.0, 0.0
        self._problem = problem

    def _leave(self) -> None:
        self._running -= 1
        self._trying = False


@dataclass(slots=True, eq=False)
class Site:
    """One place that can answer: a URL of a server, or (without one) this machine."""

    url: str
    health: Health
    weight: float = 1.0
    credit: float = 0.0
    """How far its turns are behind its share."""


class Balance:
    """Gives the sites of one server their turns by weight, evenly mixed; those that rest are passed over."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = tuple(sites)
        self._lock = threading.Lock()

    def take(self, avoid: Collection[Site] = ()) -> Site | None:
        """The site whose turn it is, entered; one of `avoid` only where no other is ready. None when all rest."""
        with self._lock:
            ready = [site for site in self.sites if site.health.ready]
            while ready:
                fresh = [site for site in ready if site not in avoid] or ready
                site = self._next(fresh)
                if site.health.enter():
                    return site
                ready.remove(site)  # another request was faster to try it
        return None

    def spare(self, avoid: Collection[Site]) -> bool:
        """Whether a site that is none of `avoid` is ready."""
        return any(site not in avoid and site.health.ready for site in self.sites)

    @property
    def resting(self) -> float:
        """Seconds until the first of the sites may be asked again."""
        return min(site.health.resting for site in self.sites)

    @property
    def running(self) -> int:
        """Requests under way on all of them."""
        return sum(site.health.running for site in self.sites)

    @property
    def broken(self) -> bool:
        """Whether all rest because they failed; a site that only asked for time is not broken."""
        return all(site.health.broken for site in self.sites)

    @staticmethod
    def _next(sites: Sequence[Site]) -> Site:
        for site in sites:
            site.credit += site.weight
        chosen = max(sites, key=lambda site: site.credit)
        chosen.credit -= sum(site.weight for site in sites)
        return chosen
