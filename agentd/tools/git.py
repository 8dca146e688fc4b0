"""What the agent does with git: status, diff, log and commit, in words; nothing of the repository is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from agentd.errors import ToolFailed
from agentd.security.scan import scan, secrets_of
from agentd.tools.own_commit import plan, settle
from agentd.tools.repository import Change, Repository, open_repository, readable
from agentd.tools.tool import ExistingPath, Text, ToolContext, tool
from agentd.types import Action, Effect, JsonObject, ToolResult
from agentd.workspace.names import normal

MAX_MESSAGE = 10_000
"""Characters."""

_READ = (Action(kind="git.read"),)
_NAMED = 5
_IN_LINE = 3
"""So many names stand in the sentence, more in a list below it."""


@tool(
    actions=lambda a: _READ,
    effect=Effect.PURE,
    read_only=True,
    examples=(
        "Which files have changed since the last commit?",
        "Is there anything that is not committed yet?",
        "Which branch are we on?",
        "Is the working tree clean?",
        "Show the git status",
        "Which files are modified?",
        "Which files are new or modified in this repository?",
    ),
)
def git_status(ctx: ToolContext) -> ToolResult:
    """Say the branch and which files changed since the last commit.

    New files that git does not know yet are included, ignored ones are not. Each has its added and removed lines.
    """
    with open_repository(ctx) as repository:
        changes = repository.changes()
        branch, head = repository.branch, repository.head
    where = f"On branch {branch}." if branch else f"HEAD is detached at {head[:7]}."
    data = {"branch": branch, "head": head, "clean": not changes, "changes": [_row(change) for change in changes]}
    return ToolResult(ok=True, text=f"{where} {_sentence(changes, head)}", data=data)


@tool(
    actions=lambda a: _READ,
    effect=Effect.PURE,
    read_only=True,
    examples=(
        "What changed since the last commit?",
        "Show me the diff",
        "What have I changed?",
        "git diff",
        "Show the uncommitted changes in {path}",
        "What did I change in {path}?",
        "How does {path} differ from the last commit?",
        "Which lines were added or removed?",
    ),
)
def git_diff(ctx: ToolContext, path: ExistingPath = ".") -> ToolResult:
    """Show what changed since the last commit, line by line.

    Staged and unstaged changes and new files together. Give a path to see the changes of one file or folder.
    """
    where = _repository_path(ctx, path)
    with open_repository(ctx) as repository:
        changes = repository.changes(where)
        head = repository.head
        diff = readable(repository.diff(where), ctx.may_read) if changes else ""
    data = {"path": where, "changes": [_row(change) for change in changes]}
    sentence = _sentence(changes, head, "" if where == "." else where)
    return ToolResult(ok=True, text=f"{sentence}\n\n{diff}".rstrip(), data=data)


@tool(
    actions=lambda a: _READ,
    effect=Effect.PURE,
    read_only=True,
    examples=(
        "What was the last commit?",
        "Show me the last commits",
        "git log",
        "Who made the last commit, and when?",
        "Show the history of {path}",
        "Show the last {limit} commits",
        "How many commits does this repository have?",
        "Which commits touched {path}?",
    ),
)
def git_log(
    ctx: ToolContext,
    path: ExistingPath = ".",
    limit: Annotated[int, Field(ge=1, le=200, description="how many commits at most")] = 10,
) -> ToolResult:
    """List the newest commits: id, date, author, subject; and how many there are.

    Give a path to see only the commits that touched one file or folder.
    """
    where = _repository_path(ctx, path)
    with open_repository(ctx) as repository:
        commits, total = repository.log(limit, where)
    of = "" if where == "." else f" of {where}"
    if not commits:
        return ToolResult(ok=True, text=f"There is no commit{of} yet.", data={"commits": [], "total": 0})
    head = f"{_count(total, 'commit')}{of}"
    if total == 1:
        text = f"{head}: {commits[0]}"
    else:
        shown = "newest first" if len(commits) == total else f"the newest {len(commits)}"
        text = "\n".join([f"{head}, {shown}:", *map(str, commits)])
    rows = [{"id": c.sha, "author": c.author, "date": c.date, "subject": c.subject} for c in commits]
    return ToolResult(ok=True, text=text, data={"commits": rows, "total": total})


def head_before(ctx: ToolContext, args: object) -> JsonObject:
    """The last commit, stored before a new one is made."""
    try:
        with open_repository(ctx) as repository:
            return {"head": repository.head}
    except ToolFailed:
        return {"head": ""}  # no repository: the tool itself says so


def find_commit(ctx: ToolContext, args: object, before: JsonObject) -> ToolResult | None:
    """The result of the commit that this call made before a crash; None when it made none."""
    try:
        with open_repository(ctx) as repository:
            made = repository.find(_key_line(ctx), str(before.get("head", "")))
            if made:
                _settle(repository, made)
            return _committed(repository, made) if made else None
    except ToolFailed:
        return None  # no repository: nothing was committed


@tool(
    actions=lambda a: [Action(kind="git.commit")],
    effect=Effect.PROBEABLE,
    before=head_before,
    probe=find_commit,
    examples=(
        "Commit it",
        "Commit the changes",
        "Commit everything with the message {message}",
        "Make a commit: {message}",
        "Save my work in git as {message}",
        "Commit {paths} with the message {message}",
        "Record all changes in git",
    ),
)
def git_commit(
    ctx: ToolContext,
    message: Annotated[Text, Field(max_length=MAX_MESSAGE, description="commit message; empty: names the files")] = "",
    paths: Annotated[tuple[ExistingPath, ...], Field(description="files or folders; empty: every change")] = (),
) -> ToolResult:
    """Commit changes to git on the current branch.

    Only what this task has changed is committed; changes of the user stay as they are. Without paths all of it. Hooks
    do not run and nothing is signed unless the owner's policy allows it.
    """
    with open_repository(ctx) as repository:
        if ctx.own is not None:
            return _committed(repository, commit_own(ctx, repository, message, paths))
        changes, blocked = _to_commit(ctx, repository, paths)
        sha = commit(ctx, repository, message or _message(changes), changes)
        result = _committed(repository, sha)
    if not blocked:
        return result
    left = f"\nNot committed, because policy keeps it from being read: {', '.join(blocked)}"
    return ToolResult(ok=True, text=result.text + left, data=result.data)


def commit(ctx: ToolContext, repository: Repository, message: str, changes: Sequence[Change] | None) -> str:
    """Commit with the trailers that tell whose commit it is; returns its id."""
    _refuse_secrets(ctx, repository.to_commit(changes), message)
    return repository.commit(_signed(ctx, message), changes)


def commit_own(ctx: ToolContext, repository: Repository, message: str, paths: Sequence[str]) -> str:
    """Commit what this task changed, and nothing that others did; returns the commit's id."""
    assert ctx.own is not None
    own = ctx.own()
    if not own.turns:
        raise ToolFailed(
            "nothing to commit: this task has changed no file",
            hint="changes of the user are for the user to commit",
        )
    planned = plan(ctx, repository, own, [_repository_path(ctx, path) for path in paths])
    blocked = [each.path for each in planned if not ctx.may_read(each.path)]
    if blocked:
        raise ToolFailed(f"nothing was committed: policy keeps {', '.join(blocked)} from being read")
    if not planned:
        raise ToolFailed("nothing to commit: what this task changed is committed already, or is as it was")
    committed = {each.path: each.committed for each in planned}
    head = repository.in_head(list(committed))
    _refuse_secrets(ctx, repository.to_commit_blobs(committed), message)
    states = {
        path: "deleted" if blob is None else "changed" if path in head else "new" for path, blob in committed.items()
    }
    message = message or _message([Change(path=path, state=state) for path, state in states.items()])
    return repository.commit_blobs(_signed(ctx, message), committed, {each.path: each.staged for each in planned})


def _settle(repository: Repository, sha: str) -> None:
    try:
        settle(repository, sha)
    except ToolFailed:  # the commit stands; what is staged is for the user to look at
        return


def _signed(ctx: ToolContext, message: str) -> str:
    """With the trailers that tell whose commit it is."""
    if not message.strip() or "\0" in message:
        raise ToolFailed("the commit message is empty or contains a NUL", hint="say in a few words what changed")
    trailers = [f"Agentd-Task: {' '.join(ctx.task.split())}"] if ctx.task else []
    return "\n\n".join([message.strip(), "\n".join([*trailers, _key_line(ctx)])])


def _refuse_secrets(ctx: ToolContext, diff: str, message: str) -> None:
    """No commit takes a key or password along: what is committed is soon somewhere else."""
    known = ctx.known()
    # A text in UTF-16 is the same text in between zeros, as far as keys go.
    found = [f"{path}:{line} ({kind})" for path, line, kind in secrets_of(diff.replace("\0", ""), known)]
    found += [f"the message ({finding.kind})" for finding in scan(message, known)]
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ToolFailed(
            f"nothing was committed: what looks like a secret stands in {', '.join(found[:_NAMED])}{more}",
            hint="take it out; whoever is sure that it is none commits by hand",
        )


def committed(ctx: ToolContext, repository: Repository, sha: str) -> str:
    """What a commit did, in words."""
    return _committed(repository, sha).text


def _to_commit(ctx: ToolContext, repository: Repository, paths: Sequence[str]) -> tuple[list[Change], list[str]]:
    """The changes to commit, and the paths of those that are left out because they may not be read."""
    wanted = [_repository_path(ctx, path) for path in paths] or ["."]
    found: dict[str, Change] = {}
    for path in wanted:
        changes = repository.changes(path, renames=False)
        if not changes and path == ".":
            raise ToolFailed("nothing to commit: nothing changed since the last commit", hint="change a file first")
        if not changes:
            raise ToolFailed(
                f"nothing to commit: {path} has not changed since the last commit",
                hint="git_status says which files changed",
            )
        found |= {change.path: change for change in changes}
    blocked = [path for path in found if not ctx.may_read(path)]
    kept = [change for path, change in found.items() if path not in blocked]
    if not kept:
        raise ToolFailed(f"nothing to commit: policy keeps {', '.join(blocked)} from being read")
    return kept, blocked


def _committed(repository: Repository, sha: str) -> ToolResult:
    made, changes = repository.made(sha)
    on = f" on {repository.branch}" if repository.branch else ""
    text = f"Committed {_count(len(changes), 'file')} as {sha[:7]}{on}: {made.subject}\n{_list(changes)}"
    data = {"commit": sha, "subject": made.subject, "files": [change.path for change in changes]}
    return ToolResult(ok=True, text=text.rstrip(), data=data)


def _message(changes: Sequence[Change]) -> str:
    """What to call a commit that nobody named: `Add a.py`, `Change a.py and b.py`, `Change 7 files`."""
    states = {change.state for change in changes}
    verb = {"new": "Add", "deleted": "Delete"}.get(states.pop(), "Change") if len(states) == 1 else "Change"
    names = [change.path for change in changes]
    if len(names) > _IN_LINE:
        return f"{verb} {len(names)} files"
    return f"{verb} {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"


def _key_line(ctx: ToolContext) -> str:
    return f"Agentd-Key: {' '.join(ctx.key.split())}"


def _repository_path(ctx: ToolContext, path: str) -> str:
    """The path as git knows it: relative to the root, links not followed. `Denied` when it leads out."""
    ctx.workspace.resolve(path)
    clean = normal(path)
    root = ctx.workspace.root.as_posix()
    return normal(clean.removeprefix(root).lstrip("/")) if clean == root or clean.startswith(root + "/") else clean


def _sentence(changes: Sequence[Change], head: str, path: str = "") -> str:
    """`1 file changed since the last commit: app.py (+1 -0)`."""
    if not changes:
        since = "since the last commit" if head else "and there is no commit yet"
        return f"{path} has not changed {since}." if path else f"Nothing has changed {since}."
    since = "changed since the last commit" if head else "changed, and there is no commit yet"
    count = f"{_count(len(changes), 'file')} {since}"
    if len(changes) <= _IN_LINE:
        return f"{count}: {', '.join(map(str, changes))}"
    return f"{count}:\n{_list(changes)}"


def _list(changes: Sequence[Change], most: int = 200) -> str:
    lines = [str(change) for change in changes[:most]]
    if len(changes) > most:
        lines.append(f"… and {len(changes) - most} more")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _row(change: Change) -> JsonObject:
    row = {"path": change.path, "state": change.state, "added": change.added, "removed": change.removed}
    return row | ({"old": change.old} if change.old else {})
