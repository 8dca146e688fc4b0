"""Tools for the files of a workspace: read, list, describe, write, edit, copy, move, delete."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from io import BufferedReader, FileIO
from typing import Annotated, Any, Literal

from pydantic import Field

from agentd.errors import InDoubt, ToolFailed, ToolMisused
from agentd.tools.tool import ExistingPath, File, Folder, NewPath, Text, ToolContext, tool
from agentd.types import Action, Effect, JsonObject, ToolResult
from agentd.workspace import patch, text
from agentd.workspace.names import normal
from agentd.workspace.paths import CHUNK, FileData, Workspace

MAX_SHOWN = 200_000
"""Bytes of a file that one read_file gives."""
MAX_EDITED = 20_000_000
"""Bytes of a file that is read whole: to edit it, to append to it, to count its words."""
MAX_SCANNED = 64_000_000
"""Bytes of a larger file that are looked through to count its lines or to find one."""
MAX_LISTED = 1000
MAX_ENTRIES = 100_000
"""Entries of a folder that are counted."""


def _touches(**kinds: str) -> Callable[[Any], Sequence[Action]]:
    """The actions of a call: for each argument that is a path, the kinds of action on it, parted by spaces."""
    return lambda args: [
        Action(kind=kind, target=normal(getattr(args, name)))
        for name, listed in kinds.items()
        for kind in listed.split()
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# read -----------------------------------------------------------------------------------------------------------------


@tool(
    effect=Effect.PURE,
    read_only=True,
    actions=_touches(path="fs.read"),
    examples=(
        "Show me what is in {path}",
        "Read {path}",
        "What does {path} say?",
        "Print the contents of the file {path}",
        "Open {path} and tell me what it says",
        "What is inside {path}?",
        "Tell me what is in {path}",
        "Print the file {path}",
        "cat {path}",
        "Which name is given in {path}?",
        "What value is set in {path}?",
        "Show {path} from line {start} on",
    ),
)
def read_file(
    ctx: ToolContext,
    path: File,
    start: Annotated[int, Field(ge=1, description="first line, from 1")] = 1,
    lines: Annotated[int, Field(ge=1, le=5000, description="how many lines")] = 400,
) -> ToolResult:
    """Show the text that is in a file.

    Use it before you change a file you have not seen, and to answer questions about what a file says.
    """
    with ctx.workspace.open(path) as stream:
        head = stream.peek(text.SAMPLE)[: text.SAMPLE]
        if text.is_binary(head):
            return _binary(path, head, _size(stream))
        part = _wide_lines if text.detect(head[: len(head) // 2 * 2]).codec.startswith("utf-16") else _lines
        shown, more = part(stream, path, start, lines)
    if not shown:
        return ToolResult(ok=True, text=f"{path} is empty.", data={"path": path, "lines": 0})
    count = text.count_lines(shown)
    note = f"… more follows: read_file(path={path!r}, start={start + count})" if more else ""
    gap = "\n" if note and not shown.endswith("\n") else ""
    data = {"path": path, "start": start, "lines": count, "more": more}
    return ToolResult(ok=True, text=shown + gap + note, data=data)


@tool(
    effect=Effect.PURE,
    read_only=True,
    actions=_touches(path="fs.read"),
    examples=(
        "Which files are in the {path} folder?",
        "List the files in {path}",
        "What is in the folder {path}?",
        "Show me the contents of the {path} directory",
        "ls {path}",
        "Which files are here? :: path=.",
        "List this folder :: path=.",
    ),
)
def list_dir(ctx: ToolContext, path: Folder = ".") -> ToolResult:
    """List the files and folders in a folder.

    Shows one level: each name with its path, folders with a slash at the end. To find files by name in all folders use
    find_files.
    """
    names = ctx.workspace.entries(path, MAX_LISTED + 1)
    base = "" if normal(path) == "." else normal(path) + "/"
    paths = [base + name for name in names[:MAX_LISTED]]
    more = len(names) > MAX_LISTED
    note = [f"… and more than these {MAX_LISTED}"] if more else []
    shown = "\n".join([*paths, *note]) or (f"{path} is empty." if base else "The folder is empty.")
    return ToolResult(ok=True, text=shown, data={"path": path, "entries": paths, "more": more})


@tool(
    effect=Effect.PURE,
    read_only=True,
    actions=_touches(path="fs.read"),
    examples=(
        "How many lines are in {path}?",
        "How many lines does {path} have?",
        "Count the words in {path}",
        "How big is {path}?",
        "What size is the file {path}?",
        "What type of file is {path}?",
        "How many files are in {path}?",
        "Tell me the number of words in {path}",
        "What is the line count of {path}?",
    ),
)
def file_info(ctx: ToolContext, path: ExistingPath) -> ToolResult:
    """Count the lines, words and bytes of a file, and tell its type.

    For a folder: how many files and folders are in it.
    """
    found = ctx.workspace.stat(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        return _folder_info(ctx.workspace, path)
    with ctx.workspace.open(path) as stream:
        head = stream.peek(text.SAMPLE)[: text.SAMPLE]
        size = _size(stream)
        if text.is_binary(head):
            return _binary(path, head, size)
        if size > MAX_EDITED:
            return _large_info(stream, path, size)
        content, encoding = text.decode(stream.read(MAX_EDITED))
    lines, words = text.count_lines(content), len(content.split())
    data = {"path": path, "type": "text", "encoding": encoding.name, "lines": lines, "words": words, "bytes": size}
    counts = f"{_count(lines, 'line')}, {_count(words, 'word')} and {_count(size, 'byte')}"
    return ToolResult(ok=True, text=f"{path} has {counts} (text, {encoding.name}).", data=data)


def _size(stream: BufferedReader[FileIO]) -> int:
    return os.fstat(stream.fileno()).st_size


def _binary(path: str, head: bytes, size: int) -> ToolResult:
    kind = text.kind_of(path, head)
    said = f"{path} is a binary file ({kind}) of {_count(size, 'byte')}; it has no lines of text."
    return ToolResult(ok=True, text=said, data={"path": path, "type": kind, "binary": True, "bytes": size})


def _lines(stream: BufferedReader[FileIO], path: str, start: int, lines: int) -> tuple[str, bool]:
    """At most `lines` lines from line `start`, and whether more follows; nothing after them is read."""
    passed = scanned = 0
    last = b"\n"
    while passed < start - 1:
        piece = stream.readline(CHUNK)
        scanned += len(piece)
        if not piece or scanned > MAX_SCANNED:
            raise _no_line(path, start, passed + (not last.endswith(b"\n")), beyond=bool(piece))
        passed += piece.endswith(b"\n")
        last = piece
    taken: list[bytes] = []
    left = MAX_SHOWN
    while left > 0 and len(taken) < lines and (piece := stream.readline(left)):
        taken.append(piece)
        left -= len(piece)
    if not taken and start > 1:
        raise _no_line(path, start, passed, beyond=False)
    return text.decode_part(b"".join(taken)).replace("\r\n", "\n"), bool(stream.peek(1))


def _wide_lines(stream: BufferedReader[FileIO], path: str, start: int, lines: int) -> tuple[str, bool]:
    """As `_lines`, for UTF-16, in which a line ending is not one byte."""
    data = stream.read(MAX_EDITED)
    content = text.decode(data[: len(data) // 2 * 2])[0].replace("\r\n", "\n").splitlines(keepends=True)
    shown = "".join(content[start - 1 : start - 1 + lines])
    if not shown and start > 1:
        raise _no_line(path, start, len(content), beyond=False)
    return shown[:MAX_SHOWN], len(shown) > MAX_SHOWN or len(content) > start - 1 + lines or bool(stream.peek(1))


def _no_line(path: str, start: int, reached: int, *, beyond: bool) -> ToolFailed:
    if beyond:
        return ToolFailed(f"line {start} of {path} lies beyond its first {MAX_SCANNED} bytes", hint="use search_text")
    return ToolFailed(f"{path} has {_count(reached, 'line')}, none at {start}", hint="start at an earlier line")


def _large_info(stream: BufferedReader[FileIO], path: str, size: int) -> ToolResult:
    """The line count of a file too large to be read whole; of its first part when it is larger still."""
    lines = seen = 0
    while seen < MAX_SCANNED and (chunk := stream.read(CHUNK)):
        lines += chunk.count(b"\n")
        seen += len(chunk)
    whole = seen >= size
    counted = _count(lines, "line") if whole else f"more than {_count(lines, 'line')}"
    data = {"path": path, "type": "text", "lines": lines, "bytes": size, "whole": whole}
    return ToolResult(ok=True, text=f"{path} has {counted} and {_count(size, 'byte')} (text).", data=data)


def _folder_info(workspace: Workspace, path: str) -> ToolResult:
    names = workspace.entries(path, MAX_ENTRIES)
    folders = sum(name.endswith("/") for name in names)
    files = len(names) - folders
    data = {"path": path, "type": "folder", "files": files, "folders": folders}
    name = "The workspace" if normal(path) == "." else path
    said = f"{name} is a folder with {_count(files, 'file')} and {_count(folders, 'folder')} directly in it."
    return ToolResult(ok=True, text=said, data=data)


# write and edit -------------------------------------------------------------------------------------------------------


def _intent(workspace: Workspace, path: str, compute: Callable[[], bytes]) -> JsonObject:
    """What a change is about to do, by the hashes of the file before and after; the latter None if it will fail."""
    try:
        after = hashlib.sha256(compute()).hexdigest()
    except ToolFailed:
        after = None
    found = workspace.stat(path)
    small = found is not None and found.st_size <= MAX_EDITED
    return {"path": path, "before": workspace.sha256(path) if small else None, "after": after}


def _took_place(workspace: Workspace, path: str, intent: JsonObject) -> bool:
    """Whether the change behind `intent` is in the file; `InDoubt` when the file is neither as before nor as after."""
    now = workspace.sha256(path)
    if intent["after"] is not None and now == intent["after"]:
        return True
    if now == intent["before"]:
        return False
    raise InDoubt(
        f"{path} is neither as it was before the change nor as it would be after it",
        hint="someone else changed it meanwhile: look at it, then say whether to go on",
    )


def _write_before(ctx: ToolContext, args: Any) -> JsonObject:
    return _intent(ctx.workspace, args.path, lambda: _to_write(ctx.workspace, args.path, args.content, args.mode))


def _write_probe(ctx: ToolContext, args: Any, intent: JsonObject) -> ToolResult | None:
    if not _took_place(ctx.workspace, args.path, intent):
        return None
    return _written(ctx.workspace, args.path, args.content, args.mode, existed=intent["before"] is not None)


@tool(
    effect=Effect.PROBEABLE,
    destructive=True,
    actions=_touches(path="fs.write"),
    before=_write_before,
    probe=_write_probe,
    examples=(
        "Create a file {path} with the text {content}",
        "Make a new file {path} that says {content}",
        "Put the text {content} into {path}",
        "Write {content} to {path}",
        "Add the line {content} to the end of {path} :: mode=append",
        "Append {content} to {path} :: mode=append",
        "Write {content} at the end of {path} :: mode=append",
        "Add a line that says {content} to {path} :: mode=append",
        "Replace everything in {path} with {content} :: mode=overwrite",
        "Overwrite {path} with {content} :: mode=overwrite",
        "Create an empty file {path} :: content=",
    ),
)
def write_file(
    ctx: ToolContext, path: NewPath, content: Text, mode: Literal["create", "overwrite", "append"] = "create"
) -> ToolResult:
    """Create a file with a text, or add a line at the end of a file.

    mode "create" makes a new file and its folders, "append" adds lines at the end, "overwrite" replaces everything.
    To change a part of a file use edit_file.
    """
    existed = ctx.workspace.stat(path) is not None
    ctx.workspace.write_atomic(path, _to_write(ctx.workspace, path, content, mode), ctx.key)
    return _written(ctx.workspace, path, content, mode, existed)


def _to_write(workspace: Workspace, path: str, content: str, mode: str) -> bytes:
    """The bytes that the file will have; an existing text file keeps its encoding and line endings."""
    found = workspace.stat(path)
    if mode == "append" and not content.endswith("\n"):
        content += "\n"
    if found is None or (mode == "overwrite" and found.st_size > MAX_EDITED):
        return text.UTF8.encode(content)
    if mode == "create" and not stat.S_ISDIR(found.st_mode):
        raise ToolFailed(f"{path} exists already", hint="set mode to overwrite or append, or choose another name")
    data = workspace.read_bytes(path, MAX_EDITED)
    if mode == "overwrite" and text.is_binary(data):
        return text.UTF8.encode(content)
    old, encoding = text.decode_file(path, data)
    newline = text.newline_of(old)
    new = text.with_newlines(content, newline)
    if mode == "overwrite":
        return encoding.encode(new) if encoding.can(new) else text.UTF8.encode(content)
    return encoding.encode(old + (newline if old and not old.endswith(newline) else "") + new)


def _written(workspace: Workspace, path: str, content: str, mode: str, existed: bool) -> ToolResult:
    data = workspace.read_bytes(path, 2 * MAX_EDITED)
    lines = text.count_lines(text.decode(data)[0])
    counts = f"{_count(lines, 'line')}, {_count(len(data), 'byte')}"
    if mode == "append" and existed:
        said = f"Added {_count(text.count_lines(content) or 1, 'line')} to {path} (now {counts})."
    else:
        said = f"{'Overwrote' if existed else 'Created'} {path} ({counts})."
    return ToolResult(ok=True, text=said, data={"path": path, "lines": lines, "bytes": len(data)}, changed=(path,))


def _edit_before(ctx: ToolContext, args: Any) -> JsonObject:
    return _intent(ctx.workspace, args.path, lambda: _edited(ctx.workspace, **args.model_dump())[0].data)


def _edit_probe(ctx: ToolContext, args: Any, intent: JsonObject) -> ToolResult | None:
    return _edit_result(args.path, ()) if _took_place(ctx.workspace, args.path, intent) else None


@tool(
    effect=Effect.PROBEABLE,
    destructive=True,
    actions=_touches(path="fs.read fs.write"),
    before=_edit_before,
    probe=_edit_probe,
    examples=(
        "Replace {search} with {replace} in {path} :: all=true",
        "Change {search} to {replace} in {path} :: all=true",
        "Rename {search} to {replace} in {path} :: all=true",
        "In {path}, turn every {search} into {replace} :: all=true",
        "Substitute {replace} for {search} in the file {path} :: all=true",
        "In {path}, change the line {search} to {replace}",
        "{path} should say {replace} instead of {search}",
        "Apply this diff to {path}: {diff}",
    ),
)
def edit_file(
    ctx: ToolContext,
    path: File,
    search: Annotated[Text, Field(description="text that stands in the file, exactly")] = "",
    replace: Annotated[Text, Field(description="text to put in its place")] = "",
    all: Annotated[bool, Field(description="replace it everywhere, not only where it stands once")] = False,
    diff: Annotated[Text, Field(description="a unified diff, in place of search and replace")] = "",
) -> ToolResult:
    """Replace a text in a file with another text.

    Give search and replace: search must stand in the file exactly, and once; set all to replace it everywhere. Or give
    a unified diff of the file. Everything else in the file stays as it is. For a diff of several files use apply_patch.
    """
    content, lines = _edited(ctx.workspace, path, search, replace, all, diff)
    ctx.workspace.lay(path, content, ctx.key)
    ctx.workspace.put(path, ctx.key)
    return _edit_result(path, lines)


def _edited(
    workspace: Workspace, path: str, search: str, replace: str, all: bool, diff: str
) -> tuple[FileData, tuple[int, ...]]:
    """What the file will hold, and the line numbers of the places that change."""
    if bool(search) == bool(diff) or (diff and replace):
        raise ToolMisused("edit_file takes either search and replace, or diff", hint="give one of the two")
    there = workspace.content(path, MAX_EDITED)
    old, encoding = text.decode_file(path, there.data)
    if any(f"\n{kind}{text.MARK}" in diff for kind in " -+"):
        old, encoding = text.with_mark(old, encoding)
    new = patch.apply_diff(old, diff, path) if diff else patch.replace(old, search, replace, all=all)
    executable = there.executable if new.executable is None else new.executable
    return FileData(data=encoding.encode(new.text), mode=there.mode, executable=executable), new.lines


def _edit_result(path: str, lines: Sequence[int]) -> ToolResult:
    """`lines` are empty when it is only known that the change took place."""
    if not lines:
        return ToolResult(ok=True, text=f"Changed {path}.", data={"path": path}, changed=(path,))
    different = sorted(set(lines))
    shown = ", ".join(map(str, different[:10])) + (", …" if len(different) > 10 else "")
    where = f"{_count(len(lines), 'place')} (line{'s' * (len(different) > 1)} {shown})"
    data = {"path": path, "places": len(lines), "lines": list(lines[:100])}
    return ToolResult(ok=True, text=f"Changed {path} at {where}.", data=data, changed=(path,))


# copy, move, delete ---------------------------------------------------------------------------------------------------


def _require(ctx: ToolContext, kind: str, path: str, place: str) -> None:
    """What the arguments do not name has to be allowed as well: all that is at `path`, as if it stood at `place`."""
    for held in ctx.workspace.held(path):
        ctx.require(Action(kind=kind, target=normal(f"{place}/{held}")))


def _copy_before(ctx: ToolContext, args: Any) -> JsonObject:
    _require(ctx, "fs.write", args.source, _landing(ctx.workspace, args.source, args.target))
    return _pair_before(ctx, args)


def _move_before(ctx: ToolContext, args: Any) -> JsonObject:
    _require(ctx, "fs.delete", args.source, args.source)
    return _copy_before(ctx, args)


def _pair_before(ctx: ToolContext, args: Any) -> JsonObject:
    """Which source is meant, by its identity, and where it goes."""
    source = ctx.workspace.identity(args.source)
    target = _landing(ctx.workspace, args.source, args.target)
    return {"source": source, "target": target, "free": ctx.workspace.stat(target) is None}


def _landing(workspace: Workspace, source: str, target: str) -> str:
    """Into an existing folder, or one named with a slash, a thing goes under its own name."""
    found = workspace.stat(target)
    if target.endswith("/") or (found is not None and stat.S_ISDIR(found.st_mode)):
        return normal(f"{target}/{normal(source).rsplit('/', 1)[-1]}")
    return normal(target)


def _copy_probe(ctx: ToolContext, args: Any, intent: JsonObject) -> ToolResult | None:
    target = intent["target"]
    if not intent["free"] or ctx.workspace.stat(target) is None:
        return None
    if not ctx.workspace.same(args.source, target):
        raise InDoubt(f"{target} was made meanwhile and is no copy of {args.source}", hint="look at both, then say")
    return _copied(ctx.workspace, args.source, target)


@tool(
    effect=Effect.PROBEABLE,
    actions=_touches(source="fs.read", target="fs.write"),
    before=_copy_before,
    probe=_copy_probe,
    examples=(
        "Copy {source} to {target}",
        "Make a copy of {source} named {target}",
        "Duplicate {source} as {target}",
        "Back up {source} to {target}",
        "Copy the file {source} into the folder {target}",
    ),
)
def copy_path(ctx: ToolContext, source: ExistingPath, target: NewPath) -> ToolResult:
    """Copy a file or folder to a new place; the original stays.

    The target must not exist; when it is an existing folder, the copy goes into it.
    """
    landing = _landing(ctx.workspace, source, target)
    ctx.workspace.copy(source, landing, ctx.key, spare=lambda held: not ctx.may_read(held))
    return _copied(ctx.workspace, source, landing)


def _copied(workspace: Workspace, source: str, target: str) -> ToolResult:
    found = workspace.stat(target)
    size = _count(found.st_size, "byte") if found is not None and stat.S_ISREG(found.st_mode) else "a folder"
    data = {"source": source, "target": target}
    return ToolResult(ok=True, text=f"Copied {source} to {target} ({size}).", data=data, changed=(target,))


def _move_probe(ctx: ToolContext, args: Any, intent: JsonObject) -> ToolResult | None:
    source, target = ctx.workspace.identity(args.source), ctx.workspace.identity(intent["target"])
    if source is None and target is not None and target == intent["source"]:
        return _moved(args.source, intent["target"])
    if source == intent["source"] and (target is None or not intent["free"]):
        return None
    raise InDoubt(
        f"{args.source} or {intent['target']} was changed by someone else while it was moved",
        hint="look at both, then say whether to go on",
    )


@tool(
    effect=Effect.PROBEABLE,
    destructive=True,
    actions=_touches(source="fs.read fs.delete", target="fs.write"),
    before=_move_before,
    probe=_move_probe,
    examples=(
        "Rename {source} to {target}",
        "Move {source} to {target}",
        "Move the file {source} into the folder {target}",
        "Give {source} the new name {target}",
        "mv {source} {target}",
        "Change the name of {source} to {target}",
    ),
)
def move_path(ctx: ToolContext, source: ExistingPath, target: NewPath) -> ToolResult:
    """Rename a file or folder, or move it to another folder.

    The target must not exist; when it is an existing folder, the source goes into it.
    """
    landing = _landing(ctx.workspace, source, target)
    ctx.workspace.move(source, landing)
    return _moved(source, landing)


def _moved(source: str, target: str) -> ToolResult:
    data = {"source": source, "target": target}
    return ToolResult(ok=True, text=f"Moved {source} to {target}.", data=data, changed=(source, target))


def _delete_before(ctx: ToolContext, args: Any) -> JsonObject:
    _require(ctx, "fs.delete", args.path, args.path)
    return {"path": args.path, "source": ctx.workspace.identity(args.path)}


def _delete_probe(ctx: ToolContext, args: Any, intent: JsonObject) -> ToolResult | None:
    now = ctx.workspace.identity(args.path)
    if now is None and intent["source"] is not None:
        ctx.workspace.sweep(args.path, ctx.key)
        return _deleted(args.path)
    if now == intent["source"]:
        return None
    raise InDoubt(f"{args.path} is not what was to be deleted", hint="look at it, then say whether to delete it")


@tool(
    effect=Effect.PROBEABLE,
    destructive=True,
    actions=_touches(path="fs.delete"),
    before=_delete_before,
    probe=_delete_probe,
    examples=(
        "Delete {path}",
        "Remove the file {path}",
        "Get rid of {path}",
        "Delete the folder {path} and everything in it",
        "Throw {path} away",
        "rm {path}",
    ),
)
def delete_path(ctx: ToolContext, path: ExistingPath) -> ToolResult:
    """Delete a file, or a folder with everything in it."""
    ctx.workspace.delete(path, ctx.key, spare=lambda held: not ctx.may_read(held))
    return _deleted(path)


def _deleted(path: str) -> ToolResult:
    return ToolResult(ok=True, text=f"Deleted {path}.", data={"path": path}, changed=(path,))
