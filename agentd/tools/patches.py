"""The tool for changes of several files at once: a diff as git or another agent writes it, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from agentd.errors import InDoubt, ToolFailed, ToolMisused
from agentd.tools.tool import Text, ToolContext, tool
from agentd.types import Action, Effect, JsonObject, ToolResult
from agentd.workspace.diff import Act, FileDiff, parse
from agentd.workspace.names import normal
from agentd.workspace.patch_files import Edit, apply_files, finish, put_all, state_of

_LISTED = 10
_SHOWN_LINES = 10


def _actions(args: Any) -> Sequence[Action]:
    """What becomes of each file that the diff names."""
    return list(dict.fromkeys(action for file in _parsed(args.patch) for action in _touches(file)))


def _parsed(patch: str) -> tuple[FileDiff, ...]:
    try:
        files = parse(patch)
    except ToolFailed as refusal:
        raise ToolMisused(f"apply_patch: {refusal.message}", hint=refusal.hint) from None
    if not files or not all(file.path for file in files):
        raise ToolMisused(
            "apply_patch: the diff names no file", hint="each file begins with lines --- a/NAME and +++ b/NAME"
        )
    return files


def _touches(file: FileDiff) -> Iterator[Action]:
    source, path = normal(file.source or file.path), normal(file.path)
    if file.act is not Act.ADD:
        yield Action(kind="fs.read", target=source)
    if file.act in (Act.DELETE, Act.RENAME):
        yield Action(kind="fs.delete", target=source)
    if file.act is not Act.DELETE:
        yield Action(kind="fs.write", target=path)


def _before(ctx: ToolContext, args: Any) -> JsonObject:
    """Every path's state before and after, and what there will be to say."""
    edits = apply_files(ctx.workspace, _parsed(args.patch))
    paths = {path: [state_of(edits.before[path]), state_of(content)] for path, content in edits.after.items()}
    return {"paths": paths, "files": [_row(edit) for edit in edits.edits]}


def _probe(ctx: ToolContext, args: Any, intent: JsonObject) -> ToolResult | None:
    """Nothing was begun, or all is done: what a crash left between is done here."""
    paths: dict[str, list[str | None]] = intent["paths"]
    now = {path: ctx.workspace.state(path) for path in paths}
    if any(now[path] not in states for path, states in paths.items()):
        changed = ", ".join(path for path, states in paths.items() if now[path] not in states)
        raise InDoubt(
            f"{changed}: neither as before the patch nor as after it",
            hint="someone else changed it meanwhile: look at it, then say whether to go on",
        )
    left = {path: after for path, (_, after) in paths.items() if now[path] != after}
    if left and all(now[path] == before for path, (before, _) in paths.items()):
        for path in paths:
            ctx.workspace.sweep(path, ctx.key)
        return None
    finish(ctx.workspace, left, ctx.key)
    return _result(intent["files"])


@tool(
    effect=Effect.PROBEABLE,
    destructive=True,
    actions=_actions,
    before=_before,
    probe=_probe,
    examples=(
        "Apply this patch: {patch}",
        "Apply this diff to the files it names: {patch}",
        "git apply {patch}",
        "Change several files at once with a diff: {patch}",
    ),
)
def apply_patch(
    ctx: ToolContext,
    patch: Annotated[Text, Field(description="a unified diff, or *** Begin Patch, that names its files")],
) -> ToolResult:
    """Change, create, rename and delete several files with one diff.

    All of the diff is applied exactly, or nothing with the reason. Each file begins with lines --- a/NAME and
    +++ b/NAME (/dev/null for a new or deleted file); rename from and rename to move one. *** Begin Patch is taken too.
    """
    edits = apply_files(ctx.workspace, _parsed(patch))
    put_all(ctx.workspace, edits, ctx.key)
    return _result([_row(edit) for edit in edits.edits])


def _row(edit: Edit) -> JsonObject:
    file = edit.file
    return {"act": file.act.value, "path": file.path, "source": file.source, "lines": sorted(set(edit.lines))}


def _result(rows: Sequence[JsonObject]) -> ToolResult:
    said = [_said(row) for row in rows[:_LISTED]]
    if len(rows) > _LISTED:
        said.append(f"… and {len(rows) - _LISTED} files more.")
    changed = dict.fromkeys(path for row in rows for path in _changed(row))
    return ToolResult(ok=True, text="\n".join(said), data={"files": list(rows)}, changed=tuple(changed))


def _changed(row: JsonObject) -> tuple[str, ...]:
    return (row["source"], row["path"]) if row["act"] == Act.RENAME else (row["path"],)


def _said(row: JsonObject) -> str:
    match row["act"]:
        case Act.ADD:
            return f"Created {row['path']}."
        case Act.DELETE:
            return f"Deleted {row['path']}."
        case Act.RENAME | Act.COPY:
            verb = "Renamed" if row["act"] == Act.RENAME else "Copied"
            return f"{verb} {row['source']} to {row['path']}{_where(row['lines'], ' and changed it')}."
    return f"Changed {row['path']}{_where(row['lines'])}."


def _where(lines: Sequence[int], lead: str = "") -> str:
    if not lines:
        return ""
    shown = ", ".join(map(str, lines[:_SHOWN_LINES])) + (", …" if len(lines) > _SHOWN_LINES else "")
    return f"{lead} at line{'s' * (len(lines) > 1)} {shown}"
