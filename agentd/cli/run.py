"""`run` and `submit`: put a task into the queue, and follow it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from agentd.cli import output, times
from agentd.cli.asking import may_ask, settle
from agentd.cli.client import Client, TimedOut, task_path
from agentd.cli.follow import ENDED, Silence, follow, view_for
from agentd.cli.inbox import visible
from agentd.cli.options import Invocation, Seconds, command
from agentd.cli.reach import ensure_daemon
from agentd.errors import AgentdError, BadInput, Conflict

_MAX_INPUT = 4 * 1024 * 1024
_CANCEL_SECONDS = 15.0
"""How long to wait for a cancelled task to come to its end."""

goal_argument = click.argument("goal", nargs=-1, required=True)
workspace_option = click.option(
    "--workspace",
    "-w",
    metavar="DIR",
    default=".",
    type=click.Path(file_okay=True),
    help="Folder to work in (the current one).",
)
level_option = click.option(
    "--level",
    type=click.IntRange(0, 4),
    help="Access level: 0 read, 1 write files, 2 run tests, 3 commit, 4 more shell (else the configured one).",
)
_check = click.option(
    "--check", "checks", metavar="CMD", multiple=True, help="Command that must exit 0 at the end; may be repeated."
)

_only = click.option(
    "--only",
    "boundaries",
    metavar="GLOB",
    multiple=True,
    help="The only paths that may change, such as 'src/**'; may be repeated.",
)
_council = click.option(
    "--council", is_flag=True, help="Have the council hear plan and change, however little the risk."
)
_no_cache = click.option("--no-cache", is_flag=True, help="Let models reply anew, also to what they were asked before.")


_dry_run = click.option(
    "--dry-run", is_flag=True, help="Show the plan and the diff of what it would change; nothing is changed or run."
)
_shadow = click.option(
    "--shadow", is_flag=True, help="Do it in a copy of the folder, tests and all, and show the diff; see apply."
)


@command("run")
@goal_argument
@workspace_option
@level_option
@_check
@_only
@_no_cache
@_dry_run
@_shadow
@_council
@click.option("--timeout", metavar="S", type=Seconds(), help="Cancel it after S seconds, exit 124.")
def run(
    invocation: Invocation,
    goal: tuple[str, ...],
    workspace: str,
    level: int | None,
    checks: tuple[str, ...],
    boundaries: tuple[str, ...],
    no_cache: bool,
    dry_run: bool,
    shadow: bool,
    council: bool,
    timeout: float | None,
) -> int:
    """Do a task and follow it to its end.

    GOAL is what is to be done, in words; - reads it from stdin. The answer (or the diff of a dry run or a shadow) goes
    to stdout, everything else to stderr. The daemon is started when none runs.
    """
    request = request_of(goal, workspace, level, checks, boundaries, no_cache=no_cache)
    return see_through(invocation, request | _mode_of(dry_run, shadow) | council_of(council), timeout)


@command("apply")
@click.argument("task_id", metavar="ID")
def apply(invocation: Invocation, task_id: str) -> int:
    """Make the changes that a dry run or a shadow has shown, and follow that to its end.

    Exactly these: when a file is not as it was then, nothing is changed.
    """
    client = ensure_daemon(invocation)
    return _seen_through(invocation, client, client.post(task_path(task_id, "apply"), {"origin": "cli"}))


def _mode_of(dry_run: bool, shadow: bool) -> dict[str, str]:
    if dry_run and shadow:
        raise click.UsageError("--dry-run and --shadow exclude each other")
    return {"mode": "dry_run"} if dry_run else {"mode": "shadow"} if shadow else {}


def see_through(invocation: Invocation, request: Mapping[str, Any], timeout: float | None = None) -> int:
    """Submit a request, follow its task, and show how it ended; the exit code."""
    client = ensure_daemon(invocation)
    return _seen_through(invocation, client, _submit(client, request), timeout)


def _seen_through(invocation: Invocation, client: Client, task: Mapping[str, Any], timeout: float | None = None) -> int:
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        task = _followed(invocation, client, task["id"], deadline)
    except TimedOut:
        task = _cancel(client, task["id"])
        if task["state"] == "cancelled":
            show_result(invocation, task)
            _say(invocation, f"task {task['id']} had not ended after {timeout:g} s and was cancelled")
            return output.TIMED_OUT
    except KeyboardInterrupt:
        return _interrupted(invocation, client, task["id"])
    if task["mode"] == "real" or task["state"] == "waiting":
        show_result(invocation, task)
    else:
        _show_preview(invocation, client, task)
    if task["state"] == "waiting":
        _say(invocation, f"hint: agentd inbox shows it; {_way_on(client, task['id'])}")
    return output.exit_code_for(task["state"])


def _followed(invocation: Invocation, client: Client, task_id: str, deadline: float | None) -> dict[str, Any]:
    """The task at its end, or when it waits for a person who is not here."""
    view, last = view_for(invocation), 0
    while True:
        with view:
            task = follow(client, task_id, view, deadline, last)
        if task["state"] != "waiting":
            return task
        last = max((event["id"] for event in client.events(task=task_id, follow=False)), default=last)
        if not settle(invocation, client, task_id):
            return task


def _show_preview(invocation: Invocation, client: Client, task: Mapping[str, Any]) -> None:
    """The diff on stdout; on stderr what was said and left out, and how to have it."""
    found = client.get(f"/api/tasks/{task['id']}/diff")
    if invocation.json:
        output.data_json({**task, "changes": found["changes"], "diff": found["diff"]})
        return
    report = task["report"] or {}
    if report.get("answer"):
        _say(invocation, output.harmless(report["answer"]))
    for line in report.get("would_run", ()):
        _say(invocation, f"would run: {output.one_line(line)}")
    if found["diff"]:
        output.data(visible(found["diff"]) if sys.stdout.isatty() else found["diff"])
    _say(invocation, verdict(task))
    applied = f"; to have it done: agentd apply {task['id']}" if found["changes"] else ""
    count = len(found["changes"])
    _say(invocation, f"nothing was changed; {count} file{'s' * (count != 1)} would be{applied}")


def _way_on(client: Client, task_id: str) -> str:
    """Which command lets a waiting task go on."""
    request = next((each["request"] for each in client.get("/api/inbox") if each["task"] == task_id), None)
    if request is None:
        return f"agentd retry {task_id} begins anew, agentd cancel {task_id} ends it"
    if request["kind"] == "question":
        return f"agentd answer {task_id} TEXT lets it go on"
    return f"agentd approve {task_id} lets it go on, agentd reject {task_id} --because TEXT says no"


@command("submit")
@goal_argument
@workspace_option
@level_option
@_check
@_only
@_no_cache
@_dry_run
@_shadow
@_council
@click.option("--at", metavar="T", help="Not before T: 22:00, 2h, or an ISO date.")
@click.option("--deadline", metavar="T", help="Not after T: 22:00, 2h, or an ISO date.")
@click.option("--priority", metavar="N", type=int, default=0, help="Higher ones come first (0).")
@click.option("--after", metavar="ID", multiple=True, help="Only when this task has succeeded; may be repeated.")
@click.option("--key", metavar="KEY", help="Idempotency key: the same key and request again give the same task.")
def submit(
    invocation: Invocation,
    goal: tuple[str, ...],
    workspace: str,
    level: int | None,
    checks: tuple[str, ...],
    boundaries: tuple[str, ...],
    no_cache: bool,
    dry_run: bool,
    shadow: bool,
    council: bool,
    at: str | None,
    deadline: str | None,
    priority: int,
    after: tuple[str, ...],
    key: str | None,
) -> None:
    """Queue a task and print its id.

    GOAL is what is to be done, in words; - reads it from stdin. The daemon is started when none runs.
    """
    now = time.time()
    request = request_of(goal, workspace, level, checks, boundaries, no_cache=no_cache)
    request |= _mode_of(dry_run, shadow) | council_of(council)
    request |= {
        "not_before": times.future(at, now) if at else None,
        "deadline": times.future(deadline, now) if deadline else None,
        "priority": priority,
        "after": list(after),
    }
    task = _submit(ensure_daemon(invocation), request, key)
    if invocation.json:
        output.data_json(task)
    else:
        output.data(task["id"])


def show_result(invocation: Invocation, task: Mapping[str, Any]) -> None:
    """The answer on stdout, and on stderr how far it can be relied on."""
    if invocation.json:
        output.data_json(task)
        return
    report = task["report"] or {}
    if report.get("answer"):
        output.data(output.harmless(report["answer"]) if sys.stdout.isatty() else report["answer"])
    if report.get("struck"):
        _say(
            invocation,
            "struck out, for nothing on record shows it: " + output.one_line(" ".join(report["struck"]), 400),
        )
    _say(invocation, verdict(task))


def verdict(task: Mapping[str, Any]) -> str:
    """One line: what was verified, that nothing was, or why it ended otherwise."""
    state, report = task["state"], task["report"] or {}
    word = output.paint_state(state, stream=sys.stderr)
    if state == "verified":
        return f"{word}: {output.one_line(_passed(report) or 'its checks passed')}{_bent(report)}"
    if state == "claimed":
        return f"{word} ({_nothing_shown(report)})"
    if state == "waiting":
        return f"{word}: {output.one_line(task['question'])}"
    return f"{word}: {output.one_line(report.get('reason', ''))}".rstrip(": ")


def _passed(report: Mapping[str, Any]) -> str:
    return "; ".join(entry.removesuffix(": passed") for entry in report["verified"])


def _bent(report: Mapping[str, Any]) -> str:
    """That what passed may have passed because of what the task did to it."""
    paths = report.get("bent") or ()
    return f" (but it changed {output.one_line(', '.join(paths), 200)} itself)" if paths else ""


def _nothing_shown(report: Mapping[str, Any]) -> str:
    """Why what a task says of itself is not verified."""
    passed = output.one_line(_passed(report)) if report.get("verified") else ""
    return f"nothing checked that the goal is reached; passed: {passed}" if passed else "no check ran"


def request_of(
    goal: tuple[str, ...],
    workspace: str,
    level: int | None,
    checks: tuple[str, ...] = (),
    boundaries: tuple[str, ...] = (),
    *,
    no_cache: bool = False,
    what: str = "goal",
) -> dict[str, Any]:
    """The body of a request for a task, from what stands on the command line."""
    words = _from_stdin(what) if goal == ("-",) else " ".join(goal)
    if not words.strip():
        raise BadInput(
            f"the {what} is empty", hint=f"say in words what is to be {'judged' if what == 'question' else 'done'}"
        )
    return {
        "goal": words,
        "workspace": os.path.abspath(os.path.expanduser(workspace)),
        "level": level,
        "checks": [{"kind": "command", "target": line} for line in checks],
        "boundaries": list(boundaries),
        "origin": "cli",
    } | ({"cache": False} if no_cache else {})


def council_of(wanted: bool) -> dict[str, bool]:
    return {"council": True} if wanted else {}


def _from_stdin(what: str) -> str:
    content = sys.stdin.buffer.read(_MAX_INPUT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"the {what} on stdin is no UTF-8 text: byte {error.start + 1} is 0x{content[error.start]:02x}",
            hint="give text; name a binary file by its path instead",
        ) from None


def _submit(client: Client, request: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
    task: dict[str, Any] = client.post(
        "/api/tasks", request, headers={"Idempotency-Key": key if key is not None else os.urandom(16).hex()}
    )
    return task


def _interrupted(invocation: Invocation, client: Client, task_id: str) -> int:
    """Ctrl-C: ask once whether to leave the task running; without a terminal it is cancelled."""
    if may_ask(invocation) and _wants_to_leave(task_id):
        _say(invocation, f"it goes on; to follow it: agentd wait {task_id}")
        return output.INTERRUPTED
    task = _cancel(client, task_id)
    show_result(invocation, task)
    return output.INTERRUPTED


def _wants_to_leave(task_id: str) -> bool:
    try:
        answer = click.prompt(
            f"\nTask {task_id} is under way. Cancel it, or leave it running? [c/l]",
            default="c",
            show_default=False,
            prompt_suffix=" ",
            err=True,
        )
    except (click.Abort, KeyboardInterrupt):
        output.note("")
        return False
    return str(answer).strip().lower().startswith("l")


def _cancel(client: Client, task_id: str) -> dict[str, Any]:
    """Cancel a task and wait a while for its end; the task as it then stands."""
    try:
        task: dict[str, Any] = client.post(f"/api/tasks/{task_id}/cancel")
    except Conflict:
        return client.task(task_id)  # it has ended by itself in this moment
    if task["state"] in ENDED:
        return task
    try:
        return follow(client, task_id, Silence(), time.monotonic() + _CANCEL_SECONDS)
    except (TimedOut, AgentdError):
        return client.task(task_id)


def _say(invocation: Invocation, text: str) -> None:
    if not invocation.quiet:
        output.note(text)
