"""`inbox`, `approve`, `reject`, `answer`: what waits for a person, and what they say to it."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint, task_path
from agentd.cli.options import Invocation, command

_id = click.argument("task_id", metavar="ID")
_step = click.argument("step", metavar="[STEP]", type=click.IntRange(1), required=False)


@command("inbox")
def inbox(invocation: Invocation) -> None:
    """What waits for a person: requests with exactly what would be done, and questions."""
    waiting = Client(endpoint(invocation)).get("/api/inbox")
    if invocation.json:
        output.data_json(waiting)
    elif waiting:
        output.data("\n\n".join("\n".join(described(entry)) for entry in waiting))
    elif not invocation.quiet:
        output.note("nothing waits")


@command("approve")
@_id
@_step
@click.option(
    "--hunk",
    "hunks",
    metavar="N",
    type=click.IntRange(1),
    multiple=True,
    help="Only this hunk of the diff; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Every hunk, as without --hunk.")
@click.option("--request", metavar="N", type=click.IntRange(1), help="Only if it waits for this request still.")
def approve(
    invocation: Invocation,
    task_id: str,
    step: int | None,
    hunks: tuple[int, ...],
    everything: bool,
    request: int | None,
) -> None:
    """Say yes to what a task waits for, and let it go on.

    The yes covers exactly what `agentd inbox` shows: when a file has changed since, the task asks again.
    """
    if hunks and everything:
        raise click.UsageError("--hunk and --all exclude each other")
    chosen = {"hunks": list(hunks)} if hunks else {}
    _answer(invocation, task_id, "approve", {"step": step, "request": request} | chosen)


@command("reject")
@_id
@_step
@click.option("--because", metavar="TEXT", required=True, help="Why; the model reads it.")
@click.option("--request", metavar="N", type=click.IntRange(1), help="Only if it waits for this request still.")
def reject(invocation: Invocation, task_id: str, step: int | None, because: str, request: int | None) -> None:
    """Say no to what a task waits for; it goes on and may find another way."""
    _answer(invocation, task_id, "reject", {"step": step, "request": request, "because": because})


@command("answer")
@_id
@click.argument("text", metavar="TEXT", nargs=-1, required=True)
def answer(invocation: Invocation, task_id: str, text: tuple[str, ...]) -> None:
    """Answer what a task asks, and let it go on."""
    _answer(invocation, task_id, "answer", {"text": " ".join(text)})


def _answer(invocation: Invocation, task_id: str, word: str, body: Mapping[str, Any]) -> None:
    task = post(Client(endpoint(invocation)), task_id, word, body)
    output.done(invocation, task, f"task {task_id} goes on; to follow it: agentd wait {task_id}")


def post(client: Client, task_id: str, word: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the daemon an answer, in the name of the person who runs this."""
    task: dict[str, Any] = client.post(task_path(task_id, word), {**body, "by": who()})
    return task


def who() -> str:
    """The name of the person who runs this."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "somebody"


def described(entry: Mapping[str, Any]) -> Iterator[str]:
    """What waits, for a person to judge: whole, and harmless to the terminal."""
    request = entry["request"]
    where = f"step {request['step']}: {output.one_line(entry['intent'], 200)}" if request and request["step"] else ""
    yield f"{output.paint(entry['task'], 'bold')}  {where}".rstrip()
    yield f"  goal     {output.one_line(entry['goal'], 400)}"
    if request is None:
        yield f"  waits    {output.one_line(entry['question'])}"
        yield f"  then     agentd retry {entry['task']}, or agentd cancel {entry['task']}"
        return
    if request["kind"] == "question":
        yield f"  asks     {visible(request['shown'])}"
        yield f"  answer   agentd answer {entry['task']} TEXT"
        return
    yield from wanted(request)
    yield f"  expires  {_expiry(entry)}"
    yield from (f"  | {line}" for line in shown_lines(request))
    yield f"  answer   agentd approve {entry['task']}, or agentd reject {entry['task']} --because TEXT"


def wanted(request: Mapping[str, Any]) -> Iterator[str]:
    """What is to be done, and why it is asked for."""
    if request["actions"]:
        yield f"  wants    {visible(', '.join(request['actions']))}"
    yield f"  because  {output.one_line(request['because'])} (rule {request['rule']}, risk {request['risk']})"


def shown_lines(request: Mapping[str, Any]) -> Iterator[str]:
    """The diff or command of a request, line by line, its hunks numbered where they can be chosen from."""
    hunk = 0
    for line in visible(request["shown"]).removesuffix("\n").split("\n"):
        if request.get("hunks", 0) > 1 and line.startswith("@@ "):
            hunk += 1
            line = f"{line} hunk {hunk}"
        yield line


def visible(text: str) -> str:
    """Every character as itself or as its code: nothing steers the terminal, and nothing is hidden either."""
    plain = text.replace("\r\n", "^M\n")
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\u{ord(char):04x}" for char in plain)


def _expiry(entry: Mapping[str, Any]) -> str:
    left = entry["request"]["expires"] - time.time()
    if entry["expired"] or left <= 0:
        return "has expired; an answer has it asked anew"
    return f"in {output.duration(left)}"
