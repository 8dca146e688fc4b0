"""A commit of nothing but what the agent itself changed: what others changed stays in the files, staged or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentd.errors import ToolFailed
from agentd.tools.repository import Blob, Repository
from agentd.tools.tool import ToolContext
from agentd.workspace.merge import merge
from agentd.workspace.own import Own, Turn
from agentd.workspace.standing import Standing

_LINK = "120000"
_PLAIN = ("100644", "100755")


class _Clash(Exception):
    """Two changes of the same place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A path as the commit has it, and as the index will."""

    path: str
    committed: Blob | None
    staged: Blob | None


def plan(ctx: ToolContext, repository: Repository, own: Own, below: Sequence[str]) -> list[Planned]:
    """What to commit of the task's changes, of those at or below these paths (empty: of all).

    `ToolFailed`, naming each file and the reason, when one of them cannot be told apart from what others changed.
    """
    paths = [path for path in own.turns if not below or any(_is_below(path, folder) for folder in below)]
    paths = repository.not_ignored(paths)
    repository.refuse_filtered(paths)
    head, index = repository.in_head(paths), repository.in_index(paths)
    found: list[Planned] = []
    refused: dict[str, str] = {}
    for path in sorted(paths):
        try:
            made = _planned(repository, own, path, head.get(path), index.get(path))
        except ToolFailed as reason:
            refused[path] = reason.message
            continue
        if made.committed != head.get(path):
            found.append(made)
    if refused:
        raise ToolFailed(
            "nothing was committed: " + "; ".join(f"{path}: {why}" for path, why in refused.items()),
            hint="the user has to commit these first; the others can be committed by naming them in paths",
        )
    return found


def settle(repository: Repository, sha: str) -> None:
    """After a crash: bring what a commit changed into the index, where that was not done."""
    changes = repository.made(sha)[1]
    paths = [path for change in changes for path in (change.path, change.old) if path]
    before, after, index = repository.in_parent(sha, paths), repository.in_head(paths, sha), repository.in_index(paths)
    staged = {}
    for path in paths:
        try:
            staged[path] = _combined(repository, before.get(path), index.get(path), after.get(path))
        except _Clash:
            continue  # staged since, by someone else
    repository.stage({path: blob for path, blob in staged.items() if blob != index.get(path)})


def _planned(repository: Repository, own: Own, path: str, head: Blob | None, index: Blob | None) -> Planned:
    if inside := repository.inner(path):
        raise ToolFailed(f"it lies in {inside}, a repository of its own")
    committed = _committed(repository, own, path, head)
    try:
        return Planned(path=path, committed=committed, staged=_combined(repository, head, index, committed))
    except _Clash:
        raise ToolFailed("what is staged of it touches what this task changed") from None


def _committed(repository: Repository, own: Own, path: str, head: Blob | None) -> Blob | None:
    """The path as the commit is to have it."""
    turns = [_step(repository, own, path, turn, head) for turn in own.turns[path]]
    try:
        return _with_turns(repository, head, turns)
    except _Clash:
        if head is None or head.mode not in _PLAIN or not repository.has_crlf(head):
            return _since_commit(repository, path, head, turns)
    # Line endings that git has by now, it keeps, whatever core.autocrlf says of files that it does not know.
    turns = [_step(repository, own, path, turn, head, raw=True) for turn in own.turns[path]]
    try:
        return _with_turns(repository, head, turns)
    except _Clash:
        return _since_commit(repository, path, head, turns)


@dataclass(frozen=True, slots=True)
class _Step:
    turn: Turn
    before: Blob | None
    after: Blob | None


def _step(repository: Repository, own: Own, path: str, turn: Turn, head: Blob | None, *, raw: bool = False) -> _Step:
    before, after = (_blob(repository, own, path, side, head, raw=raw) for side in (turn.before, turn.after))
    return _Step(turn, before, after)


def _with_turns(repository: Repository, head: Blob | None, steps: Sequence[_Step]) -> Blob | None:
    """The last commit's version with what the task changed, and nothing else."""
    done = max((number for number, step in enumerate(steps, 1) if step.after == head), default=0)
    result = head
    for before, after in _joined(steps[done:]):
        result = _combined(repository, before, result, after)
    return result


def _since_commit(repository: Repository, path: str, head: Blob | None, steps: Sequence[_Step]) -> Blob | None:
    """As `_with_turns`, of what came after the task's own last commit of this file."""
    last = repository.last_key(path)
    rest = [step for step in steps if last and step.turn.key > last]
    try:
        if last:
            return _with_turns(repository, head, rest)
    except _Clash:
        pass
    if head is None:
        raise ToolFailed("it is not in the last commit, and was there before this task changed it")
    raise ToolFailed("it had changes that are not committed, where this task changed it too")


def _joined(steps: Iterable[_Step]) -> list[tuple[Blob | None, Blob | None]]:
    """Changes that follow each other with nobody's in between are one."""
    joined: list[tuple[Blob | None, Blob | None]] = []
    for step in steps:
        if joined and joined[-1][1] == step.before:
            joined[-1] = (joined[-1][0], step.after)
        else:
            joined.append((step.before, step.after))
    return joined


def _combined(repository: Repository, base: Blob | None, mine: Blob | None, theirs: Blob | None) -> Blob | None:
    """`mine` with what `theirs` changes in `base`."""
    if base == theirs or mine == theirs:
        return mine
    if base == mine:
        return theirs
    if base is None or mine is None or theirs is None or not {base.mode, mine.mode, theirs.mode} <= {*_PLAIN}:
        raise _Clash
    mode = theirs.mode if theirs.mode != base.mode else mine.mode
    if base.sha in (theirs.sha, mine.sha) or mine.sha == theirs.sha:
        return Blob(mode=mode, sha=mine.sha if base.sha == theirs.sha else theirs.sha)
    old, our, their = (repository.content(blob) for blob in (base, mine, theirs))
    merged = None if old is None or our is None or their is None else merge(old, our, their)
    if merged is None:
        raise _Clash
    return Blob(mode=mode, sha=repository.take(merged))


def _blob(repository: Repository, own: Own, path: str, side: Standing, head: Blob | None, *, raw: bool) -> Blob | None:
    """What stood there, as git keeps it; `raw`: with the line endings that it has."""
    if side.kind not in ("file", "link"):
        return None
    data = own.read(side)
    if data is None:
        raise ToolFailed("it is too large, or too old, to be told apart from what others changed")
    if side.kind == "link":
        return Blob(mode=_LINK, sha=repository.take(data))
    executable = bool(side.mode & 0o100)
    if not repository.trusts_modes:
        executable = head is not None and head.mode == "100755"
    return Blob(mode=_PLAIN[executable], sha=repository.take(data, "" if raw else path))


def _is_below(path: str, folder: str) -> bool:
    return folder == "." or path == folder or path.startswith(f"{folder}/")
