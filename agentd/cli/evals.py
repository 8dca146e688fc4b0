"""`eval`: run a suite of tasks through the daemon and print how each kind fared."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from agentd.cli import output
from agentd.cli.client import Client, TimedOut, home_of
from agentd.cli.follow import Silence, follow
from agentd.cli.inbox import post
from agentd.cli.models import model_named
from agentd.cli.options import Invocation, Seconds, command
from agentd.cli.reach import ensure_daemon
from agentd.cli.start import refuse_host, start_daemon, stop_daemon
from agentd.cli.suite import SuiteTask, fresh_workspace, judge, load_suite, snapshot
from agentd.errors import AgentdError, BadInput, Conflict, Unreachable

_CANCEL_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one run of one task went; `why` says what was not as expected."""

    id: str
    kind: str
    passed: bool
    state: str
    seconds: float
    why: str
    run: int


@command("eval")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", "kinds", metavar="K", multiple=True, help="Only tasks of this kind; may be repeated.")
@click.option("--repeat", metavar="N", type=click.IntRange(1, 1000), default=1, help="Run each task N times (1).")
@click.option("--timeout", metavar="S", type=Seconds(), default=600.0, help="Seconds for one task (600).")
@click.option(
    "--role-model", metavar="M", help="Let this model, or GGUF file, take every role, in a daemon of its own."
)
def evaluate(
    invocation: Invocation,
    file: Path,
    kinds: tuple[str, ...],
    repeat: int,
    timeout: float,
    role_model: str | None,
) -> int:
    """Run the tasks of a suite, each in a fresh workspace, judge them by what they expect, and print the table.

    Exit code 3 when a task did not pass.
    """
    tasks = _chosen(load_suite(file), kinds)
    verdicts = []
    with _daemon(invocation, role_model) as client:
        for verdict in _verdicts(client, tasks, repeat, timeout):
            verdicts.append(verdict)
            if not invocation.json:
                output.data(_line(verdict))
    if invocation.json:
        output.data_json(_result(verdicts, repeat))
    else:
        output.data("\n" + _table(verdicts))
    return 0 if all(verdict.passed for verdict in verdicts) else output.FAILED


@contextmanager
def _daemon(invocation: Invocation, role_model: str | None) -> Iterator[Client]:
    """The daemon of the home; with `role_model` one beside it, with the same settings, rules and models but no past."""
    if role_model is None:
        yield ensure_daemon(invocation)
        return
    refuse_host(invocation)
    home = home_of(invocation)
    with TemporaryDirectory(prefix="agentd-eval-") as folder:
        for part in (home.config_path, home.home / "policies", home.models_dir):
            if part.exists():
                Path(folder, part.name).symlink_to(part)
        beside = Invocation(home=folder)
        try:
            yield start_daemon(beside, "--role-model", model_named(role_model))
        finally:
            stop_daemon(beside)


def _chosen(tasks: Sequence[SuiteTask], kinds: Sequence[str]) -> list[SuiteTask]:
    known = list(dict.fromkeys(task.kind for task in tasks))
    for kind in kinds:
        if kind not in known:
            raise BadInput(f"the suite has no tasks of the kind {kind!r}", hint=f"there are {', '.join(known)}")
    return [task for task in tasks if not kinds or task.kind in kinds]


def _verdicts(client: Client, tasks: Sequence[SuiteTask], repeat: int, timeout: float) -> Iterator[Verdict]:
    for run in range(1, repeat + 1):
        for task in tasks:
            started = time.monotonic()
            state, faults = _tried(client, task, timeout)
            yield Verdict(
                id=task.id,
                kind=task.kind,
                passed=not faults,
                state=state,
                seconds=round(time.monotonic() - started, 3),
                why="; ".join(faults),
                run=run,
            )


def _tried(client: Client, task: SuiteTask, timeout: float) -> tuple[str, list[str]]:
    """How it ended and what was wrong with that. What keeps one task from running does not stop the others."""
    try:
        with fresh_workspace(task) as root:
            return _done(client, task, root, timeout)
    except Unreachable:
        raise
    except AgentdError as error:
        return "error", [str(error).replace("\n", "; ")]


def _done(client: Client, task: SuiteTask, root: Path, timeout: float) -> tuple[str, list[str]]:
    before = snapshot(root)
    request = {"goal": task.goal, "workspace": str(root), "level": task.level, "origin": "eval"}
    submitted = client.post("/api/tasks", request, headers={"Idempotency-Key": os.urandom(16).hex()})
    try:
        ended = _followed(client, submitted["id"], time.monotonic() + timeout)
    except TimedOut:
        return _cancelled(client, submitted["id"]), [f"it had not ended after {timeout:g} s"]
    except KeyboardInterrupt:
        _cancelled(client, submitted["id"])
        raise
    if ended["state"] == "waiting":
        _cancelled(client, ended["id"])  # nobody will come, and its workspace goes
    return ended["state"], judge(task.expect, ended, root, before)


def _followed(client: Client, task_id: str, deadline: float) -> dict[str, Any]:
    """To its end, with a yes to all that policy asks: nothing but the suite's own workspace is at stake. What policy
    denies stays denied, and a question of the model stays without an answer, as nobody knows one."""
    while True:
        ended = follow(client, task_id, Silence(), deadline)
        asked = next((each["request"] for each in client.get("/api/inbox") if each["task"] == task_id), None)
        if ended["state"] != "waiting" or asked is None or asked["kind"] == "question":
            return ended
        post(client, task_id, "approve", {"request": asked["id"]})


def _cancelled(client: Client, task_id: str) -> str:
    """Cancel a task and wait until it lets go of its workspace; the state it ends in."""
    try:
        client.post(f"/api/tasks/{task_id}/cancel")
        return str(follow(client, task_id, Silence(), time.monotonic() + _CANCEL_SECONDS)["state"])
    except (TimedOut, Conflict):
        return str(client.task(task_id)["state"])


def _line(verdict: Verdict) -> str:
    mark = output.paint("pass", "green") if verdict.passed else output.paint("FAIL", "red")
    why = f"  {output.one_line(verdict.why, 300)}" if verdict.why else ""
    return f"{mark}  {verdict.kind:8} {verdict.id:24} {verdict.state:10} {verdict.seconds:7.1f} s{why}"


def _table(verdicts: Sequence[Verdict]) -> str:
    by_kind = _by_kind(verdicts)
    rows = [
        (kind, counts["passed"], counts["total"], f"{counts['passed'] / counts['total']:.0%}")
        for kind, counts in by_kind.items()
    ]
    passed = sum(verdict.passed for verdict in verdicts)
    rows.append(("all", passed, len(verdicts), f"{passed / len(verdicts):.0%}"))
    return output.table(rows, ("KIND", "PASSED", "OF", "RATE"))


def _by_kind(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for verdict in verdicts:
        counts = found.setdefault(verdict.kind, {"passed": 0, "total": 0})
        counts["passed"] += verdict.passed
        counts["total"] += 1
    return found


def _result(verdicts: Sequence[Verdict], repeat: int) -> Mapping[str, Any]:
    tasks = [asdict(verdict) for verdict in verdicts]
    if repeat == 1:
        for task in tasks:
            del task["run"]
    return {
        "tasks": tasks,
        "summary": {
            "passed": sum(verdict.passed for verdict in verdicts),
            "total": len(verdicts),
            "seconds": round(sum(verdict.seconds for verdict in verdicts), 3),
            "kinds": _by_kind(verdicts),
        },
    }
