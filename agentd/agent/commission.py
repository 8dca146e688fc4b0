"""What a task orders from the forge: the tool that it lacks, with what it works on."""

from __future__ import annotations

from collections.abc import Iterator

from agentd.agent.work import Work
from agentd.errors import Denied, ToolFailed
from agentd.plugins.forge import Commission
from agentd.types import ToolCall

MOST_FILES = 3
LINES = 40
"""Of each file."""


def commission(work: Work, missing: str) -> Commission:
    files = dict(_named(work))
    return Commission(
        task=work.task.id,
        goal=work.task.goal,
        missing=missing,
        files=files,
        level=work.scope.level,
        origin=work.scope.origin,
        workspace=work.scope.workspace,
        project=work.scope.project,
        journal=work.scope.journal,
        key=work.key,
        model=work.model,
        pulse=work.limits.check,
        owner=(work.task.goal, *work.owner_said),
        tainted=work.tainted or bool(files),
    )


def _named(work: Work) -> Iterator[tuple[str, str]]:
    """The beginning of the files that the goal names, read as the agent reads: through the gate."""
    there = work.remember(lambda: {"names": [each for each in work.workspace.entries(".", 1_000) if each[-1:] != "/"]})
    for name in [name for name in there["names"] if name in work.task.goal][:MOST_FILES]:
        try:
            result = work.run(ToolCall(tool="read_file", args={"path": name, "lines": LINES}))
        except (Denied, ToolFailed):
            continue
        if result.ok:
            yield name, result.text
