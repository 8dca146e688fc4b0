"""Endpoints of the parts: tools, audit, policy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from agentd.api.deps import Body, Core
from agentd.api.direct import level_of, run_tool
from agentd.api.shapes import judged_json, policy_of, rules_json
from agentd.app import App
from agentd.errors import BadInput, NotFound
from agentd.policy.commands import action_of
from agentd.tasks.request import accepted_workspace
from agentd.tools.tool import Tool
from agentd.types import AccessLevel, Person, ToolCall, ToolResult

router = APIRouter(prefix="/api", tags=["parts"])

_EVERYTHING = 1_000_000


class ToolCallBody(Body):
    """A call of a tool by a person; `level` None takes the configured default. `by`: who can be asked, where anybody
    can; `approved`: the digests of what they were asked and have said yes to."""

    args: dict[str, Any] = Field(default_factory=dict)
    workspace: str
    level: AccessLevel | None = None
    by: str = Field(default="", max_length=200)
    approved: list[str] = Field(default_factory=list, max_length=100)


class PolicyQuestion(Body):
    """A command line, or an action such as `fs.write src/a.py`; exactly one of the two."""

    command: str | None = None
    action: str | None = None
    level: AccessLevel | None = None
    workspace: str | None = None
    """Whose own policy counts too."""
    tainted: bool = False


@router.get("/tools")
def list_tools(core: Core) -> list[dict[str, Any]]:
    """Every tool: name, what it does, and how it is called."""
    return [_tool_line(tool) for tool in core.tools.values()]


@router.get("/tools/{name}")
def get_tool(core: Core, name: str) -> dict[str, Any]:
    """One tool with its guide, the schema of its arguments, and examples."""
    tool = _tool(core, name)
    return _tool_line(tool) | {
        "guide": tool.guide,
        "schema": tool.schema,
        "examples": list(tool.examples),
        "effect": tool.effect.value,
    }


@router.post("/tools/{name}/call")
def call_tool(core: Core, request: Request, name: str, body: ToolCallBody) -> ToolResult:
    """Run a tool through the gate, outside any task."""
    _tool(core, name)
    call = ToolCall(tool=name, args=body.args)
    person = Person(name=body.by, approved=tuple(body.approved)) if body.by else None
    return run_tool(core, call, body.workspace, level_of(core, body.level), request.app.state.stopping, person)


@router.get("/audit")
def audit_tail(
    core: Core, limit: Annotated[int, Query(ge=1, le=10_000)] = 50, task: str | None = None
) -> list[dict[str, Any]]:
    """The last records of the audit log, the oldest of them first."""
    return [asdict(record) for record in core.audit.tail(limit, task)]


@router.get("/audit/verify")
def audit_verify(core: Core) -> dict[str, Any]:
    """Whether any record of the audit log was changed, removed or moved, and which is the first."""
    return asdict(core.audit.verify())


@router.get("/policy")
def policy_rules(core: Core) -> dict[str, Any]:
    """The levels and the rules."""
    return rules_json(core.policy)


@router.post("/policy/check")
def policy_check(core: Core, body: PolicyQuestion) -> dict[str, Any]:
    """What policy would say."""
    if (body.command is None) == (body.action is None):
        raise BadInput("give either command or action")
    level = level_of(core, body.level)
    action = action_of(body.command if body.command is not None else body.action or "")
    root = accepted_workspace(body.workspace).root if body.workspace is not None else None
    policy = policy_of(core.policy, root)
    return judged_json(policy, action, level, workspace=str(root or ""), tainted=body.tainted)


@router.get("/policy/explain")
def policy_explain(core: Core, task: str, step: Annotated[int | None, Query(ge=1)] = None) -> list[dict[str, Any]]:
    """Every decision of a task, or of one of its steps: rule, reason, risk and what a person answered."""
    core.queue.get(task)
    records = core.audit.tail(_EVERYTHING, task)
    decided = [record for record in records if record.kind == "tool.decided"]
    return [asdict(record) for record in decided if step is None or record.data.get("step") == step]


def _tool(core: App, name: str) -> Tool:
    found = core.tools.get(name)
    if found is None:
        raise NotFound(f"there is no tool {name[:60]!r}", hint=f"there are {', '.join(core.tools)}")
    return found


def _tool_line(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "signature": tool.signature(),
        "annotations": asdict(tool.annotations),
    }
