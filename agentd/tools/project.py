"""What a project's own policy takes away from those who work in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
    workspace = Workspace(root)
    if workspace.stat(FILE) is None and not workspace.is_link(FILE):
        return ""
    try:
        text = workspace.read_bytes(FILE, MAX_BYTES).decode("utf-8-sig")
        load_project(text)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{FILE}:{line}: it is no text: {error.reason}", hint="write it in UTF-8") from None
    except ToolFailed as error:
        raise BadInput(f"{FILE} cannot be read: {error.message}", hint=error.hint) from None
    except PolicyError as error:
        raise BadInput(error.message, hint=error.hint) from None
    return text
