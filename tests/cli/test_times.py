"""Points in time as people write them."""

from __future__ import annotations

from datetime import datetime

import pytest

from agentd.cli.times import clock, future, past
from agentd.errors import BadInput

NOON = datetime(2026, 5, 2, 12, 0).timestamp()
HOUR = 3600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOON - 2 * HOUR),
        ("90m", NOON - 1.5 * HOUR),
        ("1.5 d", NOON - 36 * HOUR),
        ("10:00", NOON - 2 * HOUR),
        ("12:00", NOON),
        ("22:00", NOON - 14 * HOUR),
        ("2026-05-01", NOON - 36 * HOUR),
        ("2026-05-01T22:00", NOON - 14 * HOUR),
    ],
)
def test_past(text: str, expected: float) -> None:
    assert past(text, NOON) == expected


@pytest.mark.parametrize(("text", "expected"), [("2h", 2), ("22:00", 10), ("11:00", 23), ("12:00", 0)])
def test_future(text: str, expected: float) -> None:
    assert future(text, NOON) == NOON + expected * HOUR


@pytest.mark.parametrize("text", ["", "soon", "25:00", "12:60", "2x", "-2h", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no point in time"):
        past(text, NOON)


def test_the_date_is_shown_for_other_days() -> None:
    assert clock(NOON).startswith("2026-05-02 12:00:00")
