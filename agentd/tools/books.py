"""What a call changes is kept as it was before: by its tool at every write, of a program by a look before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentd.tools.order import Order
from agentd.types import Action, ToolResult
from agentd.workspace.own import Own
from agentd.workspace.paths import Workspace
from agentd.workspace.snapshots import Ledger, OriginOfChange, Watched

PROGRAMS = ("shell.exec", "test.run", "check.exec")
"""Kinds of actions that start a program."""
MAX_NAMED = 200
"""Files that a result names."""


@dataclass(slots=True, kw_only=True)
class Books:
    """The part of one call in the ledger; where there is no ledger, nothing is kept."""

    ledger: Ledger | None
    order: Order
    _workspace: Workspace | None = None

    @property
    def owner(self) -> str:
        """Whose changes they are: the task's, or those of a call that belongs to none."""
        return self.order.scope.task or self.order.key

    @property
    def workspace(self) -> Workspace:
        """Where the tool works, and where each of its changes is kept."""
        if self._workspace is None:
            self._workspace = self._plain()
            if self.ledger is not None:
                root = self._workspace.root
                self._workspace = Workspace(root, self.ledger.keeper(self.owner, self.order.key, root))
        return self._workspace

    @property
    def own(self) -> Callable[[], Own] | None:
        """What the task itself has changed; None where nobody keeps count."""
        return self._own if self.ledger is not None and self.order.scope.task else None

    def watch(
        self, actions: Sequence[Action], run: Callable[[], ToolResult | str], notes: dict[str, Any]
    ) -> ToolResult | str:
        """Run what does these actions. Only a look before and after can tell what a program changes in files."""
        programs = [action for action in actions if starts_a_program(action)]
        if self.ledger is None or not programs:
            return run()
        origin: OriginOfChange = "test" if any(map(_tests, programs)) else "command"
        watched = Watched()
        try:
            with self.ledger.watching(self.owner, self.order.key, self._plain(), origin, watched):
                result = run()
        finally:
            notes |= watched.told
        return _with_changes(result, watched)

    def finish(self) -> None:
        """What was begun took place; a part of the caller's transaction."""
        if self.ledger is not None:
            self.ledger.finish(self.owner, self.order.key)

    def _own(self) -> Own:
        assert self.ledger is not None
        return self.ledger.own(self.owner, self._plain())

    def _plain(self) -> Workspace:
        return Workspace(Path(self.order.scope.workspace))


def starts_a_program(action: Action) -> bool:
    """One of the project's; git is ours, and works in a folder of ours."""
    return action.kind in PROGRAMS and action.argv[:1] != ("git",)


def _tests(action: Action) -> bool:
    """It runs tests or a check, which may take long and is not meant to change files: others may have done that."""
    words = (
        action.argv[2:]
        if action.argv[:1] in (("python",), ("python3",)) and action.argv[1:2] == ("-m",)
        else action.argv
    )
    return action.kind != "shell.exec" or words[:1] == ("pytest",) or words[:2] == ("npm", "test")


def _with_changes(result: ToolResult | str, watched: Watched) -> ToolResult | str:
    """The result with the files that were seen to change."""
    if not isinstance(result, ToolResult) or not watched.changed:
        return result
    data = {**result.data, "unkept": watched.unkept[:MAX_NAMED]} if watched.unkept else result.data
    paths = dict.fromkeys([*result.changed, *watched.changed[:MAX_NAMED]])
    return replace(result, changed=tuple(paths), data=data)
