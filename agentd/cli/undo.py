"""`diff` and `undo`: what a task did to files, and taking it back."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint, task_path
from agentd.cli.inbox import visible
from agentd.cli.options import Invocation, command

_UNDO_SECONDS = 3600.0
_MARKS = {"added": "A", "changed": "M", "deleted": "D", "mode": "m"}


@command("diff")
@click.argument("task_id", metavar="ID")
@click.option("--stat", is_flag=True, help="Only which files changed, and by how many lines.")
def diff(invocation: Invocation, task_id: str, stat: bool) -> None:
    """What a task changed, as one unified diff: from before its first change to after its last."""
    found = Client(endpoint(invocation)).get(task_path(task_id, "diff"))
    if invocation.json:
        output.data_json(found)
        return
    if stat:
        output.data("\n".join(_stat(found["changes"])))
    elif found["diff"]:
        output.data(visible(found["diff"]) if sys.stdout.isatty() else found["diff"])
    if not invocation.quiet:
        for line in _remarks(found):
            output.note(line)


@command("undo")
@click.argument("task_id", metavar="ID")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--back", is_flag=True, help="Take the last undo back instead.")
def undo(invocation: Invocation, task_id: str, paths: tuple[str, ...], dry_run: bool, back: bool) -> int:
    """Take back what an ended task did to files: all of it, or what lies at these paths of its workspace.

    What anyone else has changed since stays: it is kept in the file, or the older text is put beside it. Exit code 9
    when something had to stay as it is.
    """
    body = {"paths": list(paths), "dry_run": dry_run, "back": back}
    found = Client(endpoint(invocation)).post(task_path(task_id, "undo"), body, timeout=_UNDO_SECONDS)
    conflicts = found["restored"]["conflicts"]
    if invocation.json:
        output.data_json(found)
    else:
        output.data("\n".join(_told(found)))
    return output.CONFLICT if conflicts else 0


def _stat(changes: Iterable[Mapping[str, Any]]) -> list[str]:
    """`M src/a.py +3 -1`."""
    return [
        output.one_line(f"{_MARKS[change['kind']]} {change['path']} +{change['added']} -{change['removed']}")
        for change in changes
    ]


def _remarks(found: Mapping[str, Any]) -> list[str]:
    if not found["changes"]:
        return [f"task {found['task']} {'would change' if found['shown'] else 'changed'} no file"]
    silent = [change["path"] for change in found["changes"] if not change["diff"]]
    lines = [output.one_line(f"too large to compare: {path}") for path in silent]
    if found["shown"]:
        lines.append(f"nothing of this was done; to have it done: agentd apply {found['task']}")
    if found["undone"]:
        lines.append("it was taken back since, all or in part: agentd undo --dry-run says what is left")
    return lines


def _told(found: Mapping[str, Any]) -> list[str]:
    restored = found["restored"]
    done = "would restore" if found["dry_run"] else "restored"
    lines = []
    for path in restored["paths"]:
        lines.append(f"{done} {path}" + (" (what others changed since stays)" if path in restored["merged"] else ""))
    lines += [f"kept {path} (holds what stood there: it changed while tests ran)" for path in restored["kept"]]
    lines += map(_conflict, restored["conflicts"])
    if not lines:
        lines.append("everything stands as before already" if restored["already"] else "it changed no file")
    for commit in found["commits"]:
        lines += [f"commit {commit['commit'][:12]} stays: {commit['subject']}", f"take it back: {commit['command']}"]
    return [output.one_line(line) for line in lines]


def _conflict(conflict: Mapping[str, Any]) -> str:
    beside = f"; what stood there before is in {', '.join(conflict['beside'])}" if conflict["beside"] else ""
    return f"left {conflict['path']} ({conflict['reason']}{beside})"
