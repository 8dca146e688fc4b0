"""Sandboxes that wait for the next call: each of one version of a plugin, within one task, as long as it behaves."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from agentd.sandbox.job import Limits, Sandbox
from agentd.sandbox.zygote import CPU_CALLS

MOST = 4
"""Of one task; the one that has waited longest gives way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A sandbox with the `limits` that it was opened with, and the `seconds` that calls of it took so far."""

    sandbox: Sandbox
    limits: Limits
    seconds: float = 0.0

    @property
    def tired(self) -> bool:
        """Whether its process may be ended in the middle of a call, for what all of them have computed."""
        return self.seconds + self.limits.seconds >= CPU_CALLS * self.limits.seconds


class WarmWorkers:
    """Who takes one has it alone until it is kept again. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, str], Worker] = {}
        """By task and digest of the plugin, in the order in which they began to wait."""

    def take(self, task: str, digest: str, limits: Limits) -> Worker | None:
        """The one for this version, if its limits are these."""
        with self._lock:
            found = self._waiting.pop((task, digest), None)
        if found is not None and found.limits != limits:
            found.sandbox.close()
            return None
        return found

    def keep(self, task: str, digest: str, worker: Worker) -> None:
        """For the next call of the same task; without a task there is none."""
        gone = [worker]
        if task and not worker.tired:
            with self._lock:
                gone = [each for each in [self._waiting.pop((task, digest), None)] if each is not None]
                self._waiting[task, digest] = worker
                own = [key for key in self._waiting if key[0] == task]
                gone += [self._waiting.pop(key) for key in own[:-MOST]]
        _close(gone)

    def end(self, task: str) -> None:
        """The task has ended, or waits."""
        with self._lock:
            gone = [self._waiting.pop(key) for key in list(self._waiting) if key[0] == task]
        _close(gone)

    def only(self, digests: frozenset[str]) -> None:
        """No other version is called any more."""
        with self._lock:
            gone = [self._waiting.pop(key) for key in list(self._waiting) if key[1] not in digests]
        _close(gone)


def _close(workers: list[Worker]) -> None:
    for worker in workers:
        worker.sandbox.close()
