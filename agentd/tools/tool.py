"""`@tool`: a typed function with a docstring becomes a `Tool` with schema, guide, annotations and actions."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, TypeAlias, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from agentd.errors import Denied, ToolMisused
from agentd.sandbox.confine import Walls
from agentd.types import Action, Annotations, Effect, Grounding, JsonObject, ToolResult
from agentd.workspace.own import Own
from agentd.workspace.paths import Workspace


def grounded(kind: Grounding, description: str) -> Any:
    """Field information for a parameter: what it means and where its value comes from."""
    return Field(description=description, json_schema_extra={"x-grounding": kind.value})


File: TypeAlias = Annotated[str, grounded(Grounding.FILE, "existing file, relative to the workspace")]
Folder: TypeAlias = Annotated[
    str, grounded(Grounding.FOLDER, 'existing folder, relative to the workspace; "." is its root')
]
ExistingPath: TypeAlias = Annotated[str, grounded(Grounding.PATH, "existing file or folder, relative to the workspace")]
NewPath: TypeAlias = Annotated[str, grounded(Grounding.NEW_PATH, "path relative to the workspace")]
Text: TypeAlias = Annotated[str, grounded(Grounding.TEXT, "text")]
Pattern: TypeAlias = Annotated[str, grounded(Grounding.PATTERN, "what to look for")]
CommandLine: TypeAlias = Annotated[str, grounded(Grounding.COMMAND, "a command line")]


def _any_path(path: str) -> bool:
    return True


def _nothing_else(action: Action) -> bool:
    return False


def _nothing_more(action: Action) -> None:
    raise Denied(f"{action} was not judged before the tool ran")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a running tool may touch: the workspace, and when to stop."""

    workspace: Workspace
    key: str
    """Unique per call of a task; the same after a crash. For idempotent and probeable effects."""
    task: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)
    deadline: float | None = None
    """Unix seconds."""
    may_read: Callable[[str], bool] = _any_path
    """Whether policy lets the content of this file be shown; for tools that meet files their arguments do not name."""
    may: Callable[[Action], bool] = _nothing_else
    """Whether policy allows this as well, unasked; for what a tool does only where the owner has allowed it."""
    require: Callable[[Action], None] = _nothing_more
    """For what a tool finds only while it runs that it has to touch. Raises `Denied` or `NeedsApproval`."""
    ask: Callable[[Action], None] = _nothing_more
    """As `require`, for a tool that has changed nothing yet: where a person can be asked the run ends here, and begins
    anew when they have answered."""
    model: str = ""
    """The model that asked for the call; empty for a person."""
    walls: Walls = field(default_factory=Walls)
    """What programs of the project run behind."""
    own: Callable[[], Own] | None = None
    """What the task itself has changed; None where nobody keeps count."""
    known: Callable[[], Collection[str]] = tuple
    """Values that are secret in any form."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the audit log gets to know of the run itself."""


Run: TypeAlias = Callable[..., ToolResult | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Something the agent can do. `arguments` validates a call's arguments; `actions` says what it would touch."""

    name: str
    description: str
    guide: str
    examples: tuple[str, ...]
    """Requests that this tool serves, with `{parameter}` where a value stands."""
    arguments: type[BaseModel]
    annotations: Annotations
    effect: Effect
    run: Run
    actions: Callable[[Any], Sequence[Action]]
    before: Callable[[ToolContext, Any], JsonObject] | None = None
    probe: Callable[[ToolContext, Any, JsonObject], ToolResult | None] | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments; each property may carry `x-grounding`. Not to be changed: it is kept."""
        return _schema(self.arguments)

    def validate(self, args: JsonObject) -> BaseModel:
        """The arguments as a model, or `ToolMisused` naming field, what was expected and what came."""
        try:
            return self.arguments.model_validate(dict(args))
        except ValidationError as error:
            fields = list(self.arguments.model_fields)
            wrong = "; ".join(_describe(e) for e in error.errors())
            raise ToolMisused(f"{self.name}: {wrong}", hint=f"{self.name} takes {', '.join(fields)}") from None

    def signature(self) -> str:
        """`name(param, optional=default)`, as prompts show it."""
        parts = []
        for name, info in self.arguments.model_fields.items():
            parts.append(name if info.is_required() else f"{name}={info.default!r}")
        return f"{self.name}({', '.join(parts)})"


@cache
def _schema(arguments: type[BaseModel]) -> dict[str, Any]:
    return arguments.model_json_schema()


def _describe(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "arguments"
    if error["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {error['msg']}, got {error['input']!r:.120}"


def tool(
    *,
    actions: Callable[[Any], Sequence[Action]],
    effect: Effect,
    read_only: bool = False,
    destructive: bool = False,
    open_world: bool = False,
    examples: Sequence[str] = (),
    before: Callable[[ToolContext, Any], JsonObject] | None = None,
    probe: Callable[[ToolContext, Any, JsonObject], ToolResult | None] | None = None,
) -> Callable[[Run], Tool]:
    """Make a `Tool` of `fn(ctx, **arguments)`: the docstring's first line describes it, the rest is its guide."""

    def decorate(fn: Run) -> Tool:
        description, _, guide = inspect.cleandoc(fn.__doc__ or "").partition("\n")
        return Tool(
            name=fn.__name__,
            description=description,
            guide=guide.strip(),
            examples=tuple(examples),
            arguments=_arguments(fn),
            annotations=Annotations(
                read_only=read_only,
                destructive=destructive,
                idempotent=effect in (Effect.PURE, Effect.IDEMPOTENT),
                open_world=open_world,
            ),
            effect=effect,
            run=fn,
            actions=actions,
            before=before,
            probe=probe,
        )

    return decorate


def _arguments(fn: Run) -> type[BaseModel]:
    """A pydantic model of the function's parameters after `ctx`; unknown names are refused."""
    hints = get_type_hints(fn, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(fn).parameters.items())[1:]:
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    return create_model(f"{fn.__name__}_arguments", __config__=ConfigDict(extra="forbid", strict=False), **fields)
