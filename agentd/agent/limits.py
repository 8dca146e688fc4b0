"""The limits of one task, checked at one point before every turn, and the detector of repeats."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque

from agentd.errors import BudgetExceeded, Cancelled, Looping
from agentd.types import Budget, Clock, ToolCall, ToolResult, Usage

LONGEST_CYCLE = 6


class Limits:
    """Counts what a task spends; `check` raises `BudgetExceeded` or `Cancelled`."""

    def __init__(self, budget: Budget, *, clock: Clock, cancel: threading.Event, deadline: float | None = None) -> None:
        self.budget = budget
        self.usage = Usage()
        self.turns = 0
        self._clock = clock
        self._cancel = cancel
        self._counting = threading.Lock()
        self._closing = False
        self.started = clock.now()
        ends = self.started + budget.seconds
        self.deadline = min(ends, deadline) if deadline else ends
        """Unix seconds."""

    def spend(self, usage: Usage) -> None:
        with self._counting:
            self.usage = self.usage + usage

    def check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled("the task was cancelled")
        if self._closing:
            return
        if self.turns >= max(1, self.budget.steps):  # 0 turns: a plan, which is made before the first
            raise BudgetExceeded(f"all {self.budget.steps} turns are used", hint="raise agent.steps or split the task")
        if self.usage.tokens >= self.budget.tokens:
            raise BudgetExceeded(
                f"{self.usage.tokens} of {self.budget.tokens} tokens are used", hint="raise agent.tokens"
            )
        if self._clock.now() >= self.deadline:
            seconds = self.deadline - self.started
            raise BudgetExceeded(f"the time of {seconds:.0f} s is used up", hint="raise agent.seconds")

    def close(self) -> None:
        """Nothing is begun any more: what is still run is to see how things stand, and counts no longer."""
        self._closing = True

    def turn(self) -> None:
        """Begin one more turn."""
        self.check()
        self.turns += 1

    @property
    def seconds(self) -> float:
        return self._clock.now() - self.started


class Repeats:
    """Raises `Looping` when the latest tool calls are one cycle of 1 to 6 calls, `most` times over.

    A call counts as the same when tool, arguments and result are the same; with the same arguments but other results
    (a test run prints its duration) twice as many repeats are needed.
    """

    def __init__(self, most: int = 3) -> None:
        self._most = most
        room = LONGEST_CYCLE * most * 2
        self._calls: deque[str] = deque(maxlen=room)
        self._results: deque[str] = deque(maxlen=room)

    def saw(self, call: ToolCall, result: ToolResult) -> None:
        arguments = json.dumps(call.args, sort_keys=True, default=str).casefold()
        name = f"{call.tool} {' '.join(arguments.split())}"
        self._calls.append(_digest(name))
        self._results.append(_digest(name + result.text))
        for sequence, most in ((self._results, self._most), (self._calls, self._most * 2)):
            length = _cycle(sequence, most)
            if length:
                raise Looping(
                    f"the same {length} call(s) ran {most} times: {call.tool} {arguments[:200]}",
                    hint="say more exactly what is wanted, or give a check that shows when it is done",
                )


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _cycle(sequence: deque[str], most: int) -> int:
    """Length of the shortest cycle that ends the sequence `most` times over, 0 for none."""
    latest = list(sequence)
    for length in range(1, LONGEST_CYCLE + 1):
        tail = latest[-length * most :]
        if len(tail) == length * most and tail == tail[:length] * most:
            return length
    return 0
