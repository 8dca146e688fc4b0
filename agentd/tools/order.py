"""What the gate is asked for: a tool with valid arguments, for whom, and under which key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from agentd.errors import ToolMisused
from agentd.security.scan import MARK, redact
from agentd.tools.results import told
from agentd.tools.tool import Tool
from agentd.types import Action, Effect, Grounding, Scope, ToolCall, ToolResult

MAX_SHOWN = 200
"""Characters of an argument or action in the audit log."""

_NAMES = {Grounding.FILE, Grounding.FOLDER, Grounding.PATH, Grounding.NEW_PATH, Grounding.COMMAND}
"""What arguments may be shown: names of things, never content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One call as it goes through the gate; `args` are the arguments of `call`, validated."""

    tool: Tool
    args: BaseModel
    call: ToolCall
    scope: Scope
    key: str
    redact: Callable[[str], str] = redact

    @property
    def values(self) -> dict[str, Any]:
        """The arguments that the tool is run with."""
        return {name: getattr(self.args, name) for name in type(self.args).model_fields}

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text in the arguments as they were given."""
        return tuple(_texts(dict(self.call.args)))

    @property
    def actions(self) -> tuple[Action, ...]:
        """What the tool says it would touch."""
        try:
            return tuple(self.tool.actions(self.args))
        except ToolMisused:
            raise
        except Exception as error:
            raise ToolMisused(f"{self.tool.name} cannot say what it would touch: {told(error)}") from error

    @property
    def rehearsed(self) -> ToolResult | None:
        """For what a dry run leaves out: only what reads and what changes files is done there, in a copy."""
        if self.scope.mode != "dry_run" or self.tool.effect is Effect.PURE:
            return None
        actions = self.actions
        if self.tool.probe is not None and all(action.kind.startswith("fs.") for action in actions):
            return None
        what = [self.shown_action(action) for action in actions]
        left_out = f"{self.tool.name} was not run. It would do: {', '.join(what)}."
        said = f"This is a dry run: {left_out} Go on as if it had worked."
        return ToolResult(ok=True, text=said, data={"would_run": what})

    @property
    def shown(self) -> dict[str, Any]:
        """Arguments for the audit log: paths, commands and numbers as they are, of everything else the length."""
        return {name: self._shown(value, _grounding(self.args, name)) for name, value in self.values.items()}

    def shown_action(self, action: Action) -> str:
        return self.redact(str(action))[:MAX_SHOWN]

    def _shown(self, value: object, grounding: str | None) -> object:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str) and grounding in _NAMES:
            value = self.redact(value)  # before it is cut: half a secret is not found
            return value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 1] + "…"
        size = len(value) if isinstance(value, (str, bytes, list, tuple, dict)) else len(str(value))
        return f"<{size} characters>" if isinstance(value, str) else f"<{type(value).__name__} of {size}>"

    @property
    def digest(self) -> str:
        return sha256(json.dumps(dict(self.call.args), sort_keys=True, default=str))

    def refuse_marks(self) -> None:
        """A model that writes back what it was shown would put the mark where the secret stands."""
        if any(MARK.search(text) for text in self.texts):
            raise ToolMisused(
                f"{self.tool.name}: the arguments hold the mark of a secret that was left out",
                hint="change the lines around it with edit_file, and leave that line as it is",
            )


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _grounding(args: BaseModel, name: str) -> str | None:
    extra = type(args).model_fields[name].json_schema_extra
    found = extra.get("x-grounding") if isinstance(extra, dict) else None
    return found if isinstance(found, str) else None
