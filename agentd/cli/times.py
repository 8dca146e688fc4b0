"""Points in time as people write them: `22:00`, `2h`, an ISO date."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from agentd.errors import BadInput

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_HINT = "for example 22:00, 90m, 2h, 1d or 2026-05-01T22:00"


def past(text: str, now: float) -> float:
    """Unix seconds of `22:00` (the last time it was so), `2h` (ago), or an ISO date."""
    return _point(text, now, direction=-1)


def future(text: str, now: float) -> float:
    """Unix seconds of `22:00` (the next time it is so), `2h` (from now), or an ISO date."""
    return _point(text, now, direction=1)


def _point(text: str, now: float, *, direction: int) -> float:
    given = text.strip()
    if span := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", given):
        return now + direction * float(span[1]) * _UNITS[span[2]]
    if clock := re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", given):
        return _clock_time(int(clock[1]), int(clock[2]), now, direction)
    try:
        return datetime.fromisoformat(given).timestamp()
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"{text!r} is no point in time", hint=_HINT) from None


def _clock_time(hour: int, minute: int, now: float, direction: int) -> float:
    """The nearest moment before or after `now` at which a clock on the wall shows this."""
    today = datetime.fromtimestamp(now)
    for days in (0, direction):
        moment = (today + timedelta(days=days)).replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()
        if (moment - now) * direction >= 0:
            return moment
    return moment


def clock(at: float) -> str:
    """`22:04:09`, with the date before it when that is not today."""
    moment = datetime.fromtimestamp(at)
    return f"{moment:%H:%M:%S}" if moment.date() == datetime.now().date() else f"{moment:%Y-%m-%d %H:%M:%S}"
