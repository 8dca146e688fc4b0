"""Files by which a project steers the agent, and what its own policy takes away from those who work in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from agentd.errors import BadInput, PolicyError, ToolFailed
from agentd.policy.project import FILE, MAX_BYTES, load_project
from agentd.types import Effect, Journal, Scope
from agentd.workspace.paths import Workspace


def held(scope: Scope) -> Scope:
    """The scope with what the project takes away, the same again after a crash.

    Raises `BadInput` for a policy that cannot be taken: work by half of its rules would be worse.
    """
    text = frozen(scope.journal, Path(scope.workspace))
    return replace(scope, project=text, level=min(scope.level, load_project(text).max_level)) if text else scope


def frozen(journal: Journal, root: Path) -> str:
    """The policy of the project at `root`, as it was when the task first looked."""
    return str(journal.once("project-policy", Effect.PURE, lambda: {"text": project_policy(root)})["text"])


def project_policy(root: Path) -> str:
    """What stands in the policy of the project at `root`; empty where it has none."""
    try:
        text = steering(Workspace(root), FILE, MAX_BYTES)
        if text is None:
            return ""
        load_project(text)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{FILE}:{line}: it is no text: {error.reason}", hint="write it in UTF-8") from None
    except ToolFailed as error:
        raise BadInput(f"{FILE} cannot be read: {error.message}", hint=error.hint) from None
    except PolicyError as error:
        raise BadInput(error.message, hint=error.hint) from None
    return text


def steering(workspace: Workspace, path: str, most: int) -> str | None:
    """The text of such a file, of `most` bytes; None where there is none.

    `BadInput` for a link: the agent writes nothing below `.agentd`, but it may write to where a link leads.
    """
    for each in (str(PurePosixPath(path).parent), path):
        if workspace.is_link(each):
            raise BadInput(f"{each} is a link", hint="what steers the agent has to stand there itself")
    return None if workspace.stat(path) is None else workspace.read_bytes(path, most).decode("utf-8-sig")
