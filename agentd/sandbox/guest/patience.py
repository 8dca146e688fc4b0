"""How long one match of a pattern may compute: an alarm of the operating system ends it, where there is one."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from .outside import CURRENT

MATCHING: Final = frozenset({"search", "match", "fullmatch", "split", "findall", "finditer", "sub", "subn", "scanner"})
"""Methods of a pattern that look through a text."""
SCANNER: Final = type(re.compile("").scanner(""))  # type: ignore[attr-defined]
_ALARM: Final = hasattr(signal, "setitimer")
"""Not in WebAssembly: there the clock of the call is the only one."""
_running = 0
"""Matches that are under way: one may call a function of the plugin, and that begin another."""


class TooSlow(Exception):
    """A pattern takes too long."""


def prepare() -> None:
    """Once in a process, before it gives up the right to."""
    if _ALARM:
        signal.signal(signal.SIGVTALRM, _ring)


def _ring(number: int, frame: object) -> None:
    if _running:
        raise TooSlow


def limited(pattern: re.Pattern[Any], act: Callable[..., Any]) -> Callable[..., Any]:
    """What looks through a text with `pattern`, under the clock. Raises TooSlow."""
    name = getattr(act, "__name__", "match")

    def look(*args: Any, **options: Any) -> Any:
        found = _within(pattern, act, *args, **options)
        return _each(pattern, found) if name == "finditer" else found

    look.__name__ = name
    return look


def _each(pattern: re.Pattern[Any], found: Iterator[Any]) -> Iterator[Any]:
    nothing = object()
    while (match := _within(pattern, next, found, nothing)) is not nothing:
        yield match


def _within(pattern: re.Pattern[Any], act: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if not _ALARM:
        return act(*args, **options)
    global _running
    seconds = CURRENT.get().patience
    _running += 1
    before, _ = signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return act(*args, **options)
    except TooSlow:
        text = f"the pattern {pattern.pattern!r:.200} takes more than {seconds:g} s on this text"
        raise TooSlow(f"{text}: it tries too many ways to repeat") from None
    finally:
        # An alarm that rings from here on is heard by nobody, unless a match around this one goes on.
        _running -= 1
        signal.setitimer(signal.ITIMER_VIRTUAL, before)
