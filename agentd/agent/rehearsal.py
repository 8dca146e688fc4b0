"""Tasks that show what they would do work in a copy; tasks that apply what was shown do that and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agentd.errors import BadInput, Cancelled, Denied, ToolFailed
from agentd.tools.project import frozen, held
from agentd.types import Clock, Journal, Report, Scope, Task, TaskState, ToolCall, ToolGate
from agentd.workspace.previews import Previews
from agentd.workspace.shadow import Shadows


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """`work` runs a task in the workspace that it names; see `Runner.run`."""

    work: Callable[[Task, Journal, threading.Event], Report]
    gate: ToolGate
    shadows: Shadows
    previews: Previews
    clock: Clock

    def run(self, task: Task, journal: Journal, cancel: threading.Event) -> Report:
        if task.applies is not None:
            return self._apply(task, task.applies, journal, cancel)
        return self.work(task, journal, cancel) if task.mode == "real" else self._in_copy(task, journal, cancel)

    def _in_copy(self, task: Task, journal: Journal, cancel: threading.Event) -> Report:
        """What waits for a person keeps its copy; what comes to an end is shown, and the copy goes."""
        root = Path(task.workspace)
        try:
            frozen(journal, root)  # where it cannot be taken, no copy is made
            copy = self.shadows.open(task.id, root, cancel)
            report = self.work(replace(task, workspace=str(copy)), journal, cancel)
            changed = self.shadows.changes(task.id, root, report.changed)
            self.previews.keep(task.id, changed)
        except (BadInput, ToolFailed, Cancelled) as error:
            state = TaskState.CANCELLED if isinstance(error, Cancelled) else TaskState.FAILED
            report = Report(state=state, answer="", reason=str(error))
        self.shadows.close(task.id)
        kept = self.previews.changes(task.id)
        return replace(report, changed=tuple(change.path for change in kept))

    def _apply(self, task: Task, shown: str, journal: Journal, cancel: threading.Event) -> Report:
        begun = self.clock.now()
        scope = Scope(
            task=task.id,
            workspace=task.workspace,
            level=task.level,
            journal=journal,
            origin=task.origin,
            cancel=cancel,
        )
        state, answer, reason = TaskState.FAILED, "", ""
        changed: tuple[str, ...] = ()
        try:
            result = self.gate.call(ToolCall(tool="apply_changes", args={"task": shown}), held(scope), "00001")
            if result.ok:
                state, answer, changed = TaskState.CLAIMED, result.text, result.changed
            else:
                reason = result.text
        except BadInput as error:
            reason = str(error)
        except (Denied, Cancelled) as error:
            state = TaskState.DENIED if isinstance(error, Denied) else TaskState.CANCELLED
            reason = str(error)
        claimed = (answer,) if answer else ()
        seconds = round(self.clock.now() - begun, 3)
        return Report(state=state, answer=answer, reason=reason, claimed=claimed, changed=changed, seconds=seconds)
