"""Calls of tools that belong to no task: the same gate, and a journal that keeps nothing for after a crash."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from agentd.app import App
from agentd.errors import Denied
from agentd.tasks.records import storable
from agentd.tasks.request import accepted_workspace
from agentd.tools.project import held
from agentd.types import AccessLevel, Effect, JsonObject, Outcome, Person, Plan, Scope, ToolCall, ToolResult, Verdict


def run_tool(
    core: App,
    call: ToolCall,
    workspace: str,
    level: AccessLevel,
    cancel: threading.Event,
    person: Person | None = None,
) -> ToolResult:
    """Run a tool through the gate. Raises what the gate raises, and `BadInput` for what is no workspace, or has a
    policy of its own that cannot be taken. `person`: who can be asked."""
    scope = Scope(
        task="",
        workspace=str(accepted_workspace(workspace).root),
        level=level,
        journal=DirectJournal(),
        cancel=cancel,
        person=person,
    )
    result = core.gate.call(call, held(scope), f"direct-{secrets.token_hex(8)}")
    # Names of files may hold bytes that are no text, and an answer cannot carry them.
    sent = json.loads(storable(json.dumps({"data": result.data, "changed": result.changed}, ensure_ascii=False)))
    return replace(result, data=sent["data"], changed=tuple(sent["changed"]))


def level_of(core: App, asked: AccessLevel | None) -> AccessLevel:
    """The level asked for, or the configured one; `Denied` above the highest that is allowed."""
    highest = core.settings.policy.max_level
    if asked is None:
        return AccessLevel(min(core.settings.policy.default_level, highest))
    if asked > highest:
        raise Denied(
            f"level {int(asked)} is above the highest that is allowed here, {highest}",
            hint="ask for a lower one, or raise policy.max_level",
        )
    return asked


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

    def verdict_given(self, key: str, verdict: Verdict) -> None:
        return None

    def atomic(self) -> AbstractContextManager[None]:
        return nullcontext()
