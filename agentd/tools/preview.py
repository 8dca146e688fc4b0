"""What a call would do, found out without doing it: file tools run on copies of their files, all else is described."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from agentd.errors import AgentdError, InDoubt, ToolFailed
from agentd.policy.approvals import Asked, Kind, digest_of
from agentd.tools.tool import Tool, ToolContext
from agentd.types import Action, Decision, Effect, JsonObject, ToolResult
from agentd.workspace.hunks import NOTHING, Content, change_of, count, partly
from agentd.workspace.names import normal
from agentd.workspace.paths import Workspace

MAX_BYTES = 20_000_000
MAX_FILES = 2_000
"""Of what a call names; what is larger is not tried out."""
_TOUCHING = ("fs.read", "fs.write", "fs.delete")

_Files = Mapping[str, Content]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """`shown` is for a person; `failure` says that the call would fail, and why."""

    shown: str
    before: _Files
    after: _Files
    marks: Mapping[str, str] = field(default_factory=dict)
    """Of what is too much to be read whole: that it is this very one, unchanged, can still be told."""
    failure: AgentdError | None = None

    @property
    def changed(self) -> list[str]:
        both = sorted({*self.before, *self.after})
        return [path for path in both if self.before.get(path, NOTHING) != self.after.get(path, NOTHING)]

    @property
    def hunks(self) -> int:
        """How many can be chosen from: of one text file that changes."""
        if len(self.changed) != 1:
            return 0
        (path,) = self.changed
        return count(self.before.get(path, NOTHING), self.after.get(path, NOTHING))

    @property
    def digests(self) -> list[list[Any]]:
        """Every file involved, as it is and as it would be."""
        both = sorted({*self.before, *self.after})
        files = [[path, *_mark(self.before.get(path)), *_mark(self.after.get(path))] for path in both]
        return files + [[path, mark] for path, mark in sorted(self.marks.items())]

    def stands(self, workspace: Workspace) -> bool:
        """Whether the files are as they were looked at."""
        files = {path: self.before.get(path, NOTHING) for path in {*self.before, *self.after}}
        return all(_file(workspace, path) == content for path, content in files.items()) and all(
            _identity(workspace, path) == mark for path, mark in self.marks.items()
        )

    def came_true(self, workspace: Workspace) -> bool:
        """Whether the files are now what was shown."""
        if self.before is self.after:
            return True
        now = {path: _file(workspace, path) for path in {*self.before, *self.after}}
        return all(content.data == self.after.get(path, NOTHING).data for path, content in now.items())

    def part(self, chosen: Collection[int]) -> Part:
        """The change with these hunks only."""
        (path,) = self.changed
        before, after = self.before[path], self.after[path]
        data = partly(before, after, chosen)
        left = tuple(number for number in range(1, self.hunks + 1) if number not in chosen)
        return Part(path=path, before=_sha256(before.data), data=data, left_out=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A change of one file without the hunks that a person left out; done as a tool is, with a look after a crash."""

    path: str
    before: str | None
    data: bytes
    left_out: tuple[int, ...]

    @property
    def intent(self) -> JsonObject:
        return {"part": self.path, "before": self.before, "after": _sha256(self.data), "left_out": list(self.left_out)}

    def write(self, ctx: ToolContext) -> ToolResult:
        ctx.workspace.write_atomic(self.path, self.data, ctx.key)
        return _partly_done(self.path, self.left_out)


def took_place(workspace: Workspace, intent: JsonObject) -> ToolResult | None:
    """After a crash: the result of a `Part`, if it was written. `InDoubt` when the file is neither as before nor so."""
    path = str(intent["part"])
    now = workspace.sha256(path)
    if now == intent["after"]:
        return _partly_done(path, intent["left_out"])
    if now == intent["before"]:
        return None
    raise InDoubt(f"{path} is neither as it was before the change nor as it would be after it", hint="look at it")


def preview(
    tool: Tool,
    args: BaseModel,
    ctx: ToolContext,
    actions: Sequence[Action],
    try_out: Callable[[ToolContext], ToolResult | str] | None,
) -> Preview:
    """`try_out` runs the tool in another context; None when the files that the call names may not be read. Nothing is
    changed and no program run."""
    described = _described(tool, args, actions, ctx.workspace)
    names = _names(actions)
    if try_out is None:
        return Preview(shown=described, before={}, after={})
    before = _taken(ctx.workspace, names) if names is not None else None
    if before is None:
        targets = [normal(action.target) for action in actions if action.kind in _TOUCHING]
        marks = {path: _identity(ctx.workspace, path) for path in targets}
        return Preview(shown=described, before={}, after={}, marks=marks)
    if not _is_plain(tool, actions, ctx.workspace):
        return Preview(shown=described, before=before, after=before)
    try:
        after = _tried(try_out, ctx, before, names or ())
    except AgentdError as error:
        return Preview(shown=described, before=before, after=before, failure=error)
    except Exception:  # whatever the tool stumbles over in the copy, it is described
        return Preview(shown=described, before=before, after=before)
    changes = [change_of(path, before.get(path, NOTHING), after.get(path, NOTHING)) for path in {**before, **after}]
    shown = "".join(change.diff for change in sorted(filter(None, changes), key=lambda change: change.path))
    return Preview(shown=shown or described, before=before, after=after)


def _tried(
    try_out: Callable[[ToolContext], ToolResult | str], ctx: ToolContext, before: _Files, names: Sequence[str]
) -> _Files:
    """The files as the tool leaves them, in a folder that holds nothing else."""
    with TemporaryDirectory(prefix="agentd-preview-") as folder:
        _lay_out(Path(folder), before, ctx.workspace, names)
        result = try_out(replace(ctx, workspace=Workspace(Path(folder)), require=_anything, ask=_anything, notes={}))
        if isinstance(result, ToolResult) and not result.ok:
            raise ToolFailed(result.text)
        return _all(Path(folder))


def asked(
    view: Preview, tool: Tool, args: BaseModel, actions: Sequence[Action], decision: Decision, *, task: str, key: str
) -> Asked:
    """What a person is asked, bound to the bytes that are shown to them."""
    what = {
        "tool": tool.name,
        "args": args.model_dump(mode="json"),
        "actions": [[action.kind, action.target, list(action.argv)] for action in actions],
        "files": view.digests,
        "shown": _sha256(view.shown.encode("utf-8", "backslashreplace")),
    }
    return Asked(
        task=task,
        key=key,
        kind=Kind.CALL,
        digest=digest_of(what),
        shown=view.shown,
        tool=tool.name,
        actions=tuple(str(action) for action in actions),
        hunks=view.hunks,
        rule=decision.rule,
        because=decision.because,
        risk=decision.risk,
    )


def _anything(action: Action) -> None:
    """In the copy nothing has to be asked for."""


def _partly_done(path: str, left_out: Sequence[int]) -> ToolResult:
    which = f"hunk{'s' * (len(left_out) > 1)} {', '.join(map(str, left_out))}"
    said = f"Changed {path}, but not all of it: a person left out {which} of the change, which stay as they were."
    return ToolResult(ok=True, text=said, data={"path": path, "left_out": list(left_out)}, changed=(path,))


def _described(tool: Tool, args: BaseModel, actions: Sequence[Action], workspace: Workspace) -> str:
    lines = [f"$ {shlex.join(action.argv)}" for action in actions if action.argv]
    if lines:
        return "\n".join([*lines, f"in {workspace.root}"])
    given = json.dumps(args.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return "\n".join([tool.name, *(f"  {action}" for action in actions), given])


def _names(actions: Sequence[Action]) -> tuple[str, ...] | None:
    """The files and folders that a call names; None when it does not only name files."""
    names = tuple(dict.fromkeys(normal(action.target) for action in actions if action.kind in _TOUCHING))
    return None if "." in names or not names else names


def _is_plain(tool: Tool, actions: Sequence[Action], workspace: Workspace) -> bool:
    """Whether running it on copies shows what it does: it touches files alone, and by their own names."""
    if tool.effect is not Effect.PROBEABLE or not all(action.kind in _TOUCHING for action in actions):
        return False
    return all(workspace.real_name(action.target) == normal(action.target) for action in actions)


def _taken(workspace: Workspace, names: Sequence[str]) -> dict[str, Content] | None:
    """The content of all that the names stand for; None when that is too much."""
    found: dict[str, Content] = {}
    room = MAX_BYTES
    for name in names:
        for held in workspace.held(name) if workspace.stat(name) is not None else ():
            path = normal(f"{name}/{held}")
            content = _file(workspace, path)
            if content.data is None:
                continue
            room -= len(content.data)
            if room < 0 or len(found) >= MAX_FILES:
                return None
            found[path] = content
    return found


def _file(workspace: Workspace, path: str) -> Content:
    """A file or link as it stands; nothing for a folder and for what is not there."""
    real = workspace.root / path
    try:
        found = real.lstat()
        if stat.S_ISLNK(found.st_mode):
            return Content(data=os.fsencode(os.readlink(real)), link=True)
        if not stat.S_ISREG(found.st_mode):
            return NOTHING
        if found.st_size > MAX_BYTES:
            # Too large to be shown; that it is this very one can still be told.
            mark = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
            return Content(data=mark.encode(), mode=stat.S_IMODE(found.st_mode), link=True)
        return Content(data=workspace.read_bytes(path, MAX_BYTES), mode=stat.S_IMODE(found.st_mode))
    except (OSError, AgentdError):
        return NOTHING


def _identity(workspace: Workspace, path: str) -> str:
    there = workspace.stat(path)
    return "" if there is None else f"{there.st_ino} {there.st_size} {there.st_mtime_ns}"


def _lay_out(folder: Path, files: _Files, workspace: Workspace, names: Sequence[str]) -> None:
    for name in names:
        for place in (PurePosixPath(name), *PurePosixPath(name).parents):
            there = workspace.stat(str(place))
            if there is not None and stat.S_ISDIR(there.st_mode):  # what is not there is not there in the copy either
                (folder / place).mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        assert content.data is not None
        if content.link:
            target.symlink_to(os.fsdecode(content.data))
            continue
        target.write_bytes(content.data)
        target.chmod(content.mode)


def _all(folder: Path) -> dict[str, Content]:
    workspace = Workspace(folder)
    paths = [normal(held) for held in workspace.held(".") if held != "."]
    found = {path: _file(workspace, path) for path in paths}
    return {path: content for path, content in found.items() if content.data is not None}


def _mark(content: Content | None) -> list[Any]:
    if content is None or content.data is None:
        return [None, 0]
    return [("link " if content.link else "") + str(_sha256(content.data)), content.mode]


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
