"""What a plugin's record says of it: states, and the rules by which calls move it from one to the next."""

from __future__ import annotations

import math
from enum import StrEnum

TRUSTED_FROM = 0.8
"""Trusted when at least this share of calls succeeds, with 95 % certainty: 16 successes without a failure."""
DEMOTED_BELOW = 0.5
FAILURES_THAT_COUNT = 5
FAILURES_IN_A_ROW = 3
_Z = 1.96


class State(StrEnum):
    PROVISIONAL = "provisional"
    TRUSTED = "trusted"
    DEMOTED = "demoted"
    """It failed too often."""
    QUARANTINED = "quarantined"
    """It is not what was signed, or does not pass the gate any more."""
    ARCHIVED = "archived"
    """Nobody used it for long."""

    @property
    def loadable(self) -> bool:
        return self in (State.PROVISIONAL, State.TRUSTED)


def lower_bound(successes: int, failures: int) -> float:
    """The least share of successes that 95 % certainty leaves (Wilson's interval); 0 without a call."""
    calls = successes + failures
    if calls == 0:
        return 0.0
    share, z2 = successes / calls, _Z * _Z
    margin = _Z * math.sqrt(share * (1 - share) / calls + z2 / (4 * calls * calls))
    return max(0.0, (share + z2 / (2 * calls) - margin) / (1 + z2 / calls))


def judged(state: State, successes: int, failures: int, failed_now: int) -> tuple[State, str]:
    """The state that follows from a record, and why; the same state when nothing follows."""
    if not state.loadable:
        return state, ""
    bound = lower_bound(successes, failures)
    if failed_now >= FAILURES_IN_A_ROW:
        return State.DEMOTED, f"it failed {failed_now} times in a row"
    if failures >= FAILURES_THAT_COUNT and bound < DEMOTED_BELOW:
        return State.DEMOTED, f"{failures} of {successes + failures} calls failed"
    if state is State.PROVISIONAL and bound > TRUSTED_FROM:
        return State.TRUSTED, f"{successes} of {successes + failures} calls succeeded"
    return state, ""
