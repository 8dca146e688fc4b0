"""What a diff of several files makes of a workspace: every file worked out before one is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentd.errors import Denied, InDoubt, ToolFailed
from agentd.workspace import text
from agentd.workspace.diff import Act, FileDiff
from agentd.workspace.patch import apply_hunks
from agentd.workspace.paths import FileData, Workspace

MAX_FILE = 20_000_000
"""Bytes of a file that a diff may change, rename or delete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What becomes of one file of the diff; `lines` are where it changes, in the old file."""

    file: FileDiff
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Each path before and after, None where there is no file."""

    edits: tuple[Edit, ...]
    before: Mapping[str, FileData | None]
    after: Mapping[str, FileData | None]


def apply_files(workspace: Workspace, files: Sequence[FileDiff]) -> Edits:
    """`ToolFailed`, naming the file and the reason, unless all of the diff can be applied exactly."""
    if not files:
        raise ToolFailed("there is no diff", hint="each file begins with lines --- a/NAME and +++ b/NAME")
    named = [_named(workspace, file) for file in files]
    _refuse_twice(named)
    gone = {file.source or file.path for file in named if file.act in (Act.RENAME, Act.DELETE)}
    before: dict[str, FileData | None] = {}
    after: dict[str, FileData | None] = {}
    edits = []
    for file in named:
        for path in filter(None, (file.source if file.act is not Act.COPY else "", file.path)):
            before[path] = _content(workspace, path)
            after.setdefault(path, None)
        lines, made = _applied(workspace, file, gone)
        edits.append(Edit(file=file, lines=lines))
        if made is not None:
            after[file.path] = made
    return Edits(edits=tuple(edits), before=before, after=after)


def _named(workspace: Workspace, file: FileDiff) -> FileDiff:
    """With the paths as they are after links and spelling."""
    if not file.path:
        raise ToolFailed(
            "the diff does not say which file it changes", hint="name it in lines --- a/NAME and +++ b/NAME"
        )
    if file.act is Act.CHANGE and file.source:
        raise ToolFailed(
            f"the diff names two files, {file.source} and {file.path}",
            hint="to rename write the lines rename from NAME and rename to NAME",
        )
    for path in filter(None, (file.source, file.path)):
        if workspace.is_link(path):
            raise ToolFailed(f"{path} is a link", hint="name the file that it leads to")
    real = workspace.real_name
    return replace(file, path=real(file.path), source=real(file.source) if file.source else "")


def _refuse_twice(files: Sequence[FileDiff]) -> None:
    """A path may be left by one file and taken by another; all else contradicts itself."""
    left: set[str] = set()
    taken: set[str] = set()
    for file in files:
        leaves = {Act.RENAME: file.source, Act.DELETE: file.path, Act.CHANGE: file.path}.get(file.act, "")
        takes = "" if file.act is Act.DELETE else file.path
        twice = leaves if leaves in left else takes if takes in taken else ""
        if twice:
            raise ToolFailed(f"the diff names {twice} twice", hint="give all its changes in one place")
        left |= {leaves} - {""}
        taken |= {takes} - {""}


def _content(workspace: Workspace, path: str) -> FileData | None:
    return None if workspace.stat(path) is None else workspace.content(path, MAX_FILE)


def _applied(workspace: Workspace, file: FileDiff, gone: set[str]) -> tuple[tuple[int, ...], FileData | None]:
    """The lines that change, and what the path of the file has afterwards."""
    source = file.source or file.path
    there = _content(workspace, source)
    creates = file.act is Act.ADD or (file.act is Act.CHANGE and there is None and _from_nothing(file))
    if creates:
        there = FileData(data=b"", executable=False)
    if there is None:
        raise workspace.missing(source)
    if file.act in (Act.ADD, Act.RENAME, Act.COPY) and file.path not in gone and workspace.stat(file.path) is not None:
        raise ToolFailed(
            f"{file.path} exists already", hint="the diff is to make it: change it, or choose another name"
        )
    if file.act is Act.CHANGE and not file.hunks and file.executable is None:
        raise ToolFailed(f"the diff does not say what to change in {file.path}", hint="write hunks, each below @@")
    if file.act is Act.DELETE and not file.hunks and not file.whole and there.data:
        raise ToolFailed(
            f"the diff deletes {file.path} without its lines", hint="use delete_path, or *** Delete File: NAME"
        )
    lines, data = _changed(file, there.data) if file.hunks else ((), there.data)
    if file.act is Act.DELETE:
        if file.hunks and data:
            raise ToolFailed(f"the diff deletes {file.path}, but not all its lines", hint="use delete_path")
        return lines, None
    executable = there.executable if file.executable is None else file.executable
    return lines, FileData(data=data, mode=there.mode, executable=executable)


def _from_nothing(file: FileDiff) -> bool:
    return all(hunk.header is not None and hunk.header[:2] == (0, 0) and not hunk.old for hunk in file.hunks)


def _changed(file: FileDiff, data: bytes) -> tuple[tuple[int, ...], bytes]:
    try:
        old, encoding = text.decode_file(file.path, data)
        if any(line.text.startswith(text.MARK) for hunk in file.hunks for line in hunk.lines):
            old, encoding = text.with_mark(old, encoding)
        new = apply_hunks(old, file.hunks)
        return new.lines, encoding.encode(new.text)
    except ToolFailed as refusal:
        raise ToolFailed(f"{file.path}: {refusal.message}", hint=refusal.hint) from None


def put_all(workspace: Workspace, edits: Edits, key: str) -> None:
    """Make every path what it is to be; on any failure, all are what they were.

    The new contents are laid beside their paths before the first is put in place: what a crash leaves in between,
    `finish` brings to its end.
    """
    try:
        for path, content in edits.after.items():
            if content is not None:
                workspace.lay(path, content, key)
        _move_in(workspace, edits, key)
    except BaseException:
        for path in edits.after:
            workspace.sweep(path, key)
        raise


def _move_in(workspace: Workspace, edits: Edits, key: str) -> None:
    done: list[str] = []
    try:
        for path, content in edits.after.items():
            _settle(workspace, path, content is not None, key)
            done.append(path)
    except BaseException:
        stuck = [path for path in reversed(done) if not _restored(workspace, path, edits.before[path], key)]
        if stuck:
            raise InDoubt(
                f"the patch failed in its middle, and {', '.join(stuck)} could not be put back",
                hint="undo the task, or put them right by hand",
            ) from None
        raise


def _settle(workspace: Workspace, path: str, stays: bool, key: str) -> None:
    if stays:
        workspace.put(path, key)
    elif workspace.stat(path) is not None:
        workspace.delete(path, key)


def _restored(workspace: Workspace, path: str, content: FileData | None, key: str) -> bool:
    try:
        if content is not None:
            workspace.lay(path, content, key)
        _settle(workspace, path, content is not None, key)
    except (ToolFailed, Denied):
        return False
    return True


def finish(workspace: Workspace, after: Mapping[str, str | None], key: str) -> None:
    """Do what a crash left undone; `after`: the paths that are not yet what they are to be, with their state then."""
    for path, state in after.items():
        if state is not None and workspace.laid(path, key) != state:
            raise ToolFailed(f"what was to be put at {path} is gone")
    for path, state in after.items():
        _settle(workspace, path, state is not None, key)


def state_of(content: FileData | None) -> str | None:
    """What tells one content of a path from another; None for no file."""
    return None if content is None else content.state
