"""The tool that makes the changes which another task has shown, to the byte; never offered to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from agentd.errors import InDoubt, ToolFailed
from agentd.tools.tool import Tool, ToolContext, tool
from agentd.types import Action, Effect, JsonObject, ToolResult
from agentd.workspace.previews import Planned, Previews
from agentd.workspace.shadow import content

_NAMED = 10


def apply_tool(previews: Previews) -> Tool:
    """`apply_changes` over what is kept."""

    def actions(args: Any) -> Sequence[Action]:
        found = previews.planned(args.task)
        return [
            Action(kind="fs.write" if each.after.data is not None else "fs.delete", target=each.change.path)
            for each in found
        ]

    def before(ctx: ToolContext, args: Any) -> JsonObject:
        _check(ctx, previews.planned(args.task), begun=False)
        return {"task": args.task}

    def probe(ctx: ToolContext, args: Any, seen: JsonObject) -> ToolResult | None:
        planned = previews.planned(args.task)
        try:
            _check(ctx, planned, begun=True)
        except ToolFailed as error:
            raise InDoubt(error.message, hint="look at these files, then retry the task or cancel it") from None
        return _done(args.task, planned) if all(each.stands_after(_now(ctx, each)) for each in planned) else None

    @tool(actions=actions, effect=Effect.PROBEABLE, destructive=True, before=before, probe=probe)
    def apply_changes(ctx: ToolContext, task: Annotated[str, Field(description="whose changes")]) -> ToolResult:
        """Make the changes that a task has shown, if the files are as they were then."""
        planned = previews.planned(task)
        _check(ctx, planned, begun=True)
        for each in planned:
            if not each.stands_after(_now(ctx, each)):
                _make(ctx, each)
        return _done(task, planned)

    return apply_changes


def _check(ctx: ToolContext, planned: Sequence[Planned], *, begun: bool) -> None:
    """`ToolFailed` unless every file is as it was shown, or, once `begun`, as it is to be."""
    links = [each.change.path for each in planned if each.after.link or each.before_link]
    if links:
        raise ToolFailed(f"{_some(links)}: a link is not changed like this", hint="make that change by hand")
    wrong = []
    for each in planned:
        now = _now(ctx, each)
        if not (each.stands_before(now) or (begun and each.stands_after(now))):
            wrong.append(each.change.path)
    if wrong:
        raise ToolFailed(
            f"changed since they were looked at: {_some(wrong)}; nothing is applied",
            hint="run it again with --dry-run or --shadow, and look at what it would do now",
        )


def _now(ctx: ToolContext, each: Planned) -> Any:
    ctx.workspace.resolve(each.change.path)  # nothing outside is looked at
    return content(ctx.workspace.root / each.change.path)


def _make(ctx: ToolContext, each: Planned) -> None:
    if each.after.data is None:
        ctx.workspace.delete(each.change.path, ctx.key)
    else:
        ctx.workspace.write_atomic(each.change.path, each.after.data, ctx.key, mode=each.after.mode)


def _done(task: str, planned: Sequence[Planned]) -> ToolResult:
    paths = [each.change.path for each in planned]
    count = f"{len(paths)} file{'s' * (len(paths) != 1)}"
    return ToolResult(
        ok=True, text=f"Applied what task {task} showed to {count}: {_some(paths)}.", changed=tuple(paths)
    )


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more
