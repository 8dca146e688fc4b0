"""A task that makes the changes which another one has shown, through queue, worker and gate like any other."""

from __future__ import annotations

from agentd.errors import BadInput, Conflict
from agentd.tasks.queue import Queue
from agentd.types import Origin, Task, TaskRequest
from agentd.workspace.previews import Previews


def apply(queue: Queue, previews: Previews, task_id: str, origin: Origin = Origin.API) -> Task:
    """Queue it. `BadInput` for a task that worked on the workspace itself or would change nothing, `Conflict` for one
    that has not ended, and when what it has shown was forgotten."""
    shown = queue.get(task_id)
    if shown.mode == "real":
        raise BadInput(
            f"task {task_id} worked on the workspace itself", hint="run --dry-run and run --shadow only show"
        )
    if not shown.state.ended:
        raise Conflict(f"task {task_id} is {shown.state}", hint=f"wait for its end: agentd wait {task_id}")
    if not previews.has(task_id):
        raise Conflict(
            f"what task {task_id} has shown is not known any more", hint="snapshots.keep_days says for how long"
        )
    if not previews.changes(task_id):
        raise BadInput(f"task {task_id} would change no file, so nothing is to be applied")
    return queue.submit(
        TaskRequest(
            goal=f"Apply the changes that task {task_id} has shown",
            workspace=shown.workspace,
            level=shown.level,
            origin=origin,
            applies=task_id,
        )
    )
