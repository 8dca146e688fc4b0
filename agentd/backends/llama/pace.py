"""Watches how fast tokens come, and takes fewer threads where more of them only stand in each other's way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

_SLOW = 0.5
"""Of the speed measured at load."""
_PATIENCE = 3.0
"""Seconds that it must have been slow."""
_TRIAL = 1.0
"""Seconds that another number of threads is measured."""
_REST = 30.0
"""Seconds between two trials."""
_GAIN = 1.1


@dataclass(slots=True)
class Pace:
    """Fed with the tokens and seconds of passes that only decode; `given` threads are never exceeded.

    `normal`: tokens a second at load. `set_threads` and `say` do what their names say.
    """

    given: int
    normal: float
    set_threads: Callable[[int], None]
    say: Callable[[str], None]
    threads: int = field(init=False)
    _tokens: int = 0
    _seconds: float = 0.0
    _slow: float = 0.0
    _rested: float = _REST
    _before: tuple[int, float] | None = None
    """During a trial: the threads and the speed it is compared with."""

    def __post_init__(self) -> None:
        self.threads = self.given

    def passed(self, tokens: int, seconds: float) -> None:
        self._tokens += tokens
        self._seconds += seconds
        self._rested += seconds
        if self._seconds < _TRIAL:
            return
        speed, length = self._tokens / self._seconds, self._seconds
        self._tokens, self._seconds = 0, 0.0
        if self._before is not None:
            self._judge(speed)
        else:
            self._look(speed, length)

    def _look(self, speed: float, length: float) -> None:
        self._slow = self._slow + length if speed < _SLOW * self.normal else 0.0
        if self._rested < _REST:
            return
        if self._slow >= _PATIENCE and self.threads > 1:
            self._try(max(1, self.threads // 2), speed)
        elif self.threads < self.given:
            self._try(min(self.given, self.threads * 2), speed)

    def _try(self, threads: int, speed: float) -> None:
        self._before = (self.threads, speed)
        self._slow = self._rested = 0.0
        self._take(threads)

    def _judge(self, speed: float) -> None:
        assert self._before is not None
        threads, before = self._before
        self._before = None
        words = f"{self.threads} threads decode {speed:.1f} tokens a second, {threads} {before:.1f}"
        if speed < _GAIN * before:
            self._take(threads)
        self.say(f"{words}: going on with {self.threads}; {self.normal:.1f} at load")

    def _take(self, threads: int) -> None:
        self.threads = threads
        self.set_threads(threads)
