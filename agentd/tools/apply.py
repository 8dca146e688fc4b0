"""The tool that makes the changes which another task has shown, to the byte; never offered to a model."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from agentd.errors import AgentdError, Denied, InDoubt, ToolFailed
from agentd.tools.tool import Tool, ToolContext, tool
from agentd.types import Action, Effect, JsonObject, ToolResult
from agentd.workspace.hunks import Content
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
        _make_all(ctx, planned)
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


def _now(ctx: ToolContext, each: Planned) -> Content:
    ctx.workspace.resolve(each.change.path)  # nothing outside is looked at
    return content(ctx.workspace.root / each.change.path)


def _make_all(ctx: ToolContext, planned: Sequence[Planned]) -> None:
    """What goes first, the deepest first, so that a file can stand where a folder was; on any failure, all files are
    what they were."""
    done: list[tuple[str, Content]] = []
    try:
        for each in sorted(planned, key=lambda each: (each.after.data is not None, -each.change.path.count("/"))):
            now = _now(ctx, each)
            if not each.stands_after(now):
                _make(ctx, each.change.path, each.after)
                done.append((each.change.path, now))
    except Exception as error:
        stuck = [path for path, before in reversed(done) if not _put_back(ctx, path, before)]
        if stuck and isinstance(error, AgentdError):
            raise InDoubt(
                f"it failed in its middle ({error.message}), and {_some(stuck)} could not be put back",
                hint="undo the task, or put them right by hand",
            ) from None
        raise


def _make(ctx: ToolContext, path: str, wanted: Content) -> None:
    if wanted.data is None:
        ctx.workspace.delete(path, ctx.key)
        return
    there = ctx.workspace.stat(path)
    if there is not None and stat.S_ISDIR(there.st_mode) and not ctx.workspace.entries(path, 1):
        ctx.workspace.delete(path, ctx.key)  # what is left of the folder whose files went
    ctx.workspace.write_atomic(path, wanted.data, ctx.key, mode=wanted.mode)


def _put_back(ctx: ToolContext, path: str, before: Content) -> bool:
    try:
        _make(ctx, path, before)
    except (ToolFailed, Denied):
        return False
    return True


def _done(task: str, planned: Sequence[Planned]) -> ToolResult:
    paths = [each.change.path for each in planned]
    count = f"{len(paths)} file{'s' * (len(paths) != 1)}"
    return ToolResult(
        ok=True, text=f"Applied what task {task} showed to {count}: {_some(paths)}.", changed=tuple(paths)
    )


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more
