"""How the checks of a contract stand: before anything was changed, and since the last change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from agentd.types import Check, CheckKind, CheckResult

Run: TypeAlias = Callable[[Sequence[Check]], tuple[CheckResult, ...]]

LOOKS = frozenset({CheckKind.BOUNDARIES, CheckKind.SECRETS, CheckKind.DOCS})
"""Say what is not wrong, and so verify nothing by themselves."""
_AT_THE_END = frozenset({CheckKind.SECRETS, CheckKind.DOCS})
"""Facts about a finished change: half of one says nothing, and no change needs none."""


@dataclass(slots=True, kw_only=True)
class Verification:
    """Runs checks no more often than something has changed. Those that agentd adds count only while they were green
    before: what was red already is not the task's fault, and not its job."""

    checks: tuple[Check, ...]
    run: Run
    steps: tuple[Check, ...] = ()
    """Of single steps."""
    first: dict[Check, bool] = field(default_factory=dict)
    """Before any change; whether it passed."""
    before: dict[Check, bool] = field(default_factory=dict)
    """Before the current step."""
    own: tuple[CheckResult, ...] = ()
    """Of the current step's own checks."""
    latest: dict[Check, CheckResult] = field(default_factory=dict)
    _stale: bool = True
    _begun: bool = False
    """The current step has changed something."""
    _facts: tuple[CheckResult, ...] | None = ()
    """None when something has changed since they were looked at."""

    def will_change(self, step: Sequence[Check] = (), *, code: bool) -> None:
        """Something is about to be changed by a step with these checks; `code`: a program's source. Look how things
        stand while they still do."""
        every = dict.fromkeys((*self._running(), *self.steps))
        new = [c for c in every if c not in self.first and (code or c.by != "agentd")]
        for result in self.run(new):
            self.first[result.check] = self.before[result.check] = result.passed
        if not self._begun:
            self.before |= {r.check: r.passed for r in self.run([c for c in step if c not in new])}
        self._begun, self._stale, self._facts, self.own = True, True, None, ()

    def look(self) -> tuple[CheckResult, ...]:
        """The results of all checks that count, run if anything changed since they last ran."""
        counted = [check for check in self._running() if check.by != "agentd" or self.first.get(check)]
        if self._stale:
            self.latest = {result.check: result for result in self.run(counted)}
            self._stale = False
        return tuple(self.latest.values())

    def broken(self) -> list[CheckResult]:
        """What was green before the step and is red now."""
        if not any(self.before.values()):
            return []
        results = dict.fromkeys((*self.look(), *self.own))
        return [result for result in results if not result.passed and self.before.get(result.check)]

    def step_done(self) -> None:
        """The next step begins with what stands now."""
        self.own, self._begun = (), False
        if self.first:
            self.before |= {result.check: result.passed for result in self.look()}

    def shows(self, result: CheckResult) -> bool:
        """Whether it shows that what was asked for is reached: one of owner or project does, one that a model has asked
        for only when it was red before the work. What was green then may be green whatever is done."""
        if not result.passed or result.check.kind in LOOKS or result.check.by == "agentd":
            return False
        return result.check.by in ("user", "project") or self.first.get(result.check) is False

    @property
    def turned_green(self) -> bool:
        """Whether checks of others than agentd were red before the work, and all pass now."""
        asked = [check for check in self._running() if check.by != "agentd" and check in self.first]
        return not all(self.first[check] for check in asked) and all(result.passed for result in self.look())

    def final(self) -> tuple[CheckResult, ...]:
        """The results that decide how the task ends."""
        results = self.look()
        if self._facts is None:
            self._facts = self.run([check for check in self.checks if check.kind in _AT_THE_END])
        return (*results, *self._facts)

    @property
    def known(self) -> tuple[CheckResult, ...]:
        """The latest results, without a run."""
        return (*self.latest.values(), *(self._facts or ()))

    def _running(self) -> list[Check]:
        return [check for check in self.checks if check.kind not in _AT_THE_END]
