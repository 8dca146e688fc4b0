"""Takes back what an ended task did to files; its commits stay, and who asks is told how to take those back."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from agentd.errors import AgentdError, Conflict, NotFound
from agentd.tasks.queue import Queue
from agentd.tools.repository import open_repository
from agentd.tools.tool import ToolContext
from agentd.types import FileChange
from agentd.workspace.names import parts_of
from agentd.workspace.paths import Workspace
from agentd.workspace.previews import Previews
from agentd.workspace.restore import Restored
from agentd.workspace.snapshots import Ledger

_MOST_COMMITS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A commit of the task that holds what was taken back; `command` commits that it was."""

    commit: str
    subject: str
    paths: tuple[str, ...]
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    task: str
    dry_run: bool
    restored: Restored
    commits: tuple[Committed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a task did to files; `undone` says that some of it was taken back since, by `agentd undo`; `shown` that it
    was done in a copy, and is no more than shown."""

    task: str
    changes: tuple[FileChange, ...]
    diff: str
    undone: bool = False
    shown: bool = False


class Undo:
    """`task_id` may also be the key of a call that belonged to no task."""

    def __init__(self, queue: Queue, ledger: Ledger, previews: Previews) -> None:
        self._queue = queue
        self._ledger = ledger
        self._previews = previews

    def changes(self, task_id: str) -> Changed:
        """What the task changed so far. `Conflict` when that is not known any more."""
        shown = self._is_shown(task_id)
        if not shown:
            self._workspace(task_id)
        changes = self._previews.changes(task_id) if shown else self._ledger.changes(task_id)
        diff = "".join(change.diff for change in changes)
        undone = not shown and self._ledger.undos(task_id) > 0
        return Changed(task=task_id, changes=changes, diff=diff, undone=undone, shown=shown)

    def undo(self, task_id: str, paths: Collection[str] = (), *, dry_run: bool = False, back: bool = False) -> Undone:
        """Take back what it did to files, all or below `paths`; `back` takes the last undo back instead.

        `Conflict` while the task has not ended, and when what it changed is not known any more.
        """
        if self._is_shown(task_id):
            raise Conflict(f"task {task_id} worked in a copy, so there is nothing to take back")
        workspace = Workspace(Path(self._workspace(task_id)))
        self._refuse_unended(task_id)
        since = self._ledger.before_last_undo(task_id) if back else 0
        places = [_relative(workspace, path) for path in paths]
        restored = self._ledger.restore(
            task_id,
            workspace,
            since,
            paths=() if "" in places else places,
            dry_run=dry_run,
            undo=self._ledger.next_undo(task_id),
        )
        commits = () if back else self._commits(task_id, workspace, restored)
        return Undone(task=task_id, dry_run=dry_run, restored=restored, commits=commits)

    def _workspace(self, task_id: str) -> str:
        """Where it worked; `NotFound` for what is no task."""
        why = self._ledger.pruned(task_id)
        if why is not None:
            raise Conflict(
                f"what {task_id} changed is not known any more: {why}",
                hint="snapshots.keep_days and snapshots.max_mb say how much is kept, and for how long",
            )
        try:
            return self._queue.get(task_id).workspace
        except NotFound:
            found = self._ledger.workspace(task_id)
            if found is None:
                raise
            return found

    def _is_shown(self, task_id: str) -> bool:
        """Whether it worked in a copy."""
        try:
            return self._queue.get(task_id).mode != "real"
        except NotFound:
            return False

    def _refuse_unended(self, task_id: str) -> None:
        try:
            task = self._queue.get(task_id)
        except NotFound:
            return  # a call of its own, which has ended when it is known
        if not task.state.ended:
            raise Conflict(
                f"task {task_id} is {task.state}; what it does can be taken back when it has ended",
                hint=f"wait for its end, or cancel it first: agentd cancel {task_id}",
            )

    def _commits(self, task_id: str, workspace: Workspace, restored: Restored) -> tuple[Committed, ...]:
        """Those of its commits that hold something of what was taken back."""
        back = {*restored.paths, *restored.already}
        found = []
        try:
            with open_repository(ToolContext(workspace=workspace, key=f"undo-{task_id}", task=task_id)) as repository:
                for sha in repository.of_task(task_id, _MOST_COMMITS):
                    made, changes = repository.made(sha)
                    paths = sorted({name for change in changes for name in (change.path, change.old) if name in back})
                    if paths:
                        found.append(_committed(made.sha, made.subject, tuple(paths)))
        except AgentdError:
            return ()  # no repository, or none that can be read: then it committed nothing
        return tuple(found)


def _committed(sha: str, subject: str, paths: tuple[str, ...]) -> Committed:
    words = f'Revert "{subject}"'
    names = shlex.join(["--", *paths])
    return Committed(
        commit=sha,
        subject=subject,
        paths=paths,
        command=f"git add -A {names} && git commit -m {shlex.quote(words)} {names}",
    )


def _relative(workspace: Workspace, path: str) -> str:
    """A path as the ledger has it, empty for the workspace: nothing need be there now, and no link is followed."""
    roots = (workspace.root.as_posix(),)
    return "/".join(parts_of(path, roots))
