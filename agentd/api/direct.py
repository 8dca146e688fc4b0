"""The journal of a call that belongs to no task: nothing is kept, so nothing goes on after a crash."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from agentd.types import Effect, JsonObject, Outcome, Plan


class DirectJournal:
    """Runs what it is given, with the records that belong to it; see `types.Journal`."""

    def once(
        self,
        key: str,
        effect: Effect,
        do: Callable[[], JsonObject],
        *,
        before: Callable[[], JsonObject] | None = None,
        probe: Callable[[JsonObject], JsonObject | None] | None = None,
        intent: Callable[[], None] | None = None,
        record: Callable[[JsonObject], None] | None = None,
    ) -> JsonObject:
        if intent is not None:
            intent()
        result = do()
        if record is not None:
            record(result)
        return result

    def plan_made(self, plan: Plan) -> None:
        return None

    def step_started(self, number: int) -> None:
        return None

    def step_ended(self, number: int, outcome: Outcome) -> None:
        return None

    def atomic(self) -> AbstractContextManager[None]:
        return nullcontext()
