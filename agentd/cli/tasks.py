"""`ps`, `show`, `logs`, `wait`, `cancel`, `retry`: look at tasks and steer them."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import click

from agentd.cli import output, times
from agentd.cli.client import Client, TimedOut, endpoint, task_path
from agentd.cli.council import verdict_lines
from agentd.cli.follow import Silence, follow, plan_lines
from agentd.cli.options import Invocation, Seconds, command

_UNDER_WAY = ("queued", "running", "waiting")

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Tasks that have ended too.")
@click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(1, 1000), default=50, help="At most N, the newest (50)."
)
def ps(invocation: Invocation, everything: bool, limit: int) -> None:
    """List tasks, the newest first."""
    client = Client(endpoint(invocation))
    states = [] if everything else list(_UNDER_WAY)
    tasks = client.get("/api/tasks", state=states, limit=limit)
    if invocation.json:
        output.data_json(tasks)
        return
    now = time.time()
    rows = [(task["id"], task["state"], _age(task, now), output.one_line(task["goal"], 80)) for task in tasks]
    output.data(output.table(rows, ("ID", "STATE", "AGE", "GOAL")))


@command("show")
@click.argument("task_id", metavar="ID")
def show(invocation: Invocation, task_id: str) -> None:
    """One task: state, plan, steps with their evidence, checks, report."""
    task = Client(endpoint(invocation)).task(task_id)
    if invocation.json:
        output.data_json(task)
    else:
        output.data("\n".join(_description(task)))


@command("logs")
@click.argument("task_id", metavar="[ID]", required=False)
@click.option("-f", "--follow", "go_on", is_flag=True, help="Go on as things happen; with ID until the task has ended.")
@click.option("-n", "--tail", metavar="N", type=click.IntRange(0), help="Begin with the last N events.")
def logs(invocation: Invocation, task_id: str | None, go_on: bool, tail: int | None) -> None:
    """What happened, event by event: in one task, or in all."""
    client = Client(endpoint(invocation))
    last = 0
    backlog = client.events(task=task_id, follow=False)
    for event in backlog if tail is None else deque(backlog, maxlen=tail):
        last = event["id"]
        _print_event(invocation, event)
    if go_on:
        for event in client.events(task=task_id, last=last):
            _print_event(invocation, event)


@command("wait")
@_ids
@click.option("--timeout", metavar="S", type=Seconds(0), help="Give up after S seconds, exit 124; they go on.")
def wait(invocation: Invocation, ids: tuple[str, ...], timeout: float | None) -> int:
    """Wait until tasks have ended (or wait for a person).

    The exit code is that of the first task that did not succeed.
    """
    client = Client(endpoint(invocation))
    deadline = None if timeout is None else time.monotonic() + timeout
    tasks = []
    try:
        for task_id in ids:
            tasks.append(follow(client, task_id, Silence(), deadline))
            if not invocation.json:
                output.data(f"{task_id} {tasks[-1]['state']}")
    except TimedOut:
        output.note(f"task {ids[len(tasks)]} had not ended after {timeout:g} s; it goes on")
        return output.TIMED_OUT
    if invocation.json:
        output.data_json(tasks)
    return next(filter(None, (output.exit_code_for(task["state"]) for task in tasks)), 0)


@command("cancel")
@_ids
def cancel(invocation: Invocation, ids: tuple[str, ...]) -> None:
    """Stop tasks.

    A running one comes to its end within moments; `agentd wait ID` waits for that.
    """
    client = Client(endpoint(invocation))
    _print_tasks(invocation, [client.post(task_path(task_id, "cancel")) for task_id in ids])


@command("retry")
@_ids
def retry(invocation: Invocation, ids: tuple[str, ...]) -> None:
    """Try tasks again that have ended or wait; prints the ids of the new ones."""
    client = Client(endpoint(invocation))
    tasks = [client.post(task_path(task_id, "retry")) for task_id in ids]
    if invocation.json:
        output.data_json(tasks)
    else:
        output.data("\n".join(task["id"] for task in tasks))


def _print_tasks(invocation: Invocation, tasks: list[dict[str, Any]]) -> None:
    if invocation.json:
        output.data_json(tasks)
    else:
        output.data("\n".join(f"{task['id']} {task['state']}" for task in tasks))


def _print_event(invocation: Invocation, event: Mapping[str, Any]) -> None:
    if invocation.json:
        output.data_json(event)
        return
    facts = " ".join(f"{name}={_fact(value)}" for name, value in event["data"].items())
    output.data(
        output.harmless(f"{times.clock(event['at'])} {event['task'] or '-':10} {event['kind']} {facts}".rstrip())
    )


def _fact(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    folded = output.one_line(text, 200)
    return json.dumps(folded, ensure_ascii=False) if " " in folded or not folded else folded


def _age(task: Mapping[str, Any], now: float) -> str:
    return output.duration(max(0.0, (task["ended"] or now) - (task["started"] or task["created"])))


def _description(task: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{output.paint(task['id'], 'bold')}  {output.paint_state(task['state'])}",
        f"goal       {output.one_line(task['goal'], 400)}",
        f"workspace  {output.one_line(task['workspace'])}",
        f"level      {task['level']}",
        f"created    {times.clock(task['created'])}, attempt {task['attempts']}",
    ]
    if task["mode"] != "real":
        lines.append(f"mode       {task['mode'].replace('_', ' ')}, in a copy; see: agentd diff {task['id']}")
    if task["retry_of"]:
        lines.append(f"retry of   {task['retry_of']}")
    if task["after"]:
        lines.append(f"after      {', '.join(task['after'])}")
    if task["question"]:
        lines.append(f"question   {output.one_line(task['question'])}")
    if task["report"] and task["report"]["changed"]:
        lines.append(f"files      see: agentd diff {task['id']}; take back: agentd undo {task['id']}")
    return [
        *lines,
        *_plan_part(task),
        *_council_part(task),
        *(_report_part(task["report"]) if task["report"] else _given_checks(task)),
    ]


def _plan_part(task: Mapping[str, Any]) -> list[str]:
    if task["plan"] is None:
        return []
    lines = ["", "plan"]
    for index, (state, mark, words) in enumerate(plan_lines(task)):
        lines.append(f"  {mark} {words}  [{state}]")
        if index < len(task["outcomes"]):
            lines += _outcome_part(task["outcomes"][index])
    return lines


def _council_part(task: Mapping[str, Any]) -> list[str]:
    lines = []
    for verdict in task["verdicts"]:
        lines += ["", f"council on the {verdict['about']}", *(f"  {line}" for line in verdict_lines(verdict))]
    return lines


def _outcome_part(outcome: Mapping[str, Any]) -> list[str]:
    lines = [f"      {output.one_line(outcome['text'], 400)}"] if outcome["text"] else []
    lines += [f"      | {output.one_line(evidence, 200)}" for evidence in outcome["evidence"]]
    return [*lines, *(f"      {line}" for line in _check_lines(outcome["checks"]))]


def _report_part(report: Mapping[str, Any]) -> list[str]:
    lines = ["", f"report     {report['state']} after {output.duration(report['seconds'])}, {_usage(report['usage'])}"]
    for title in ("verified", "claimed", "bent", "struck", "changed", "unkept", "restored", "made"):
        lines += [f"{title:9}  {output.one_line(entry, 400)}" for entry in report[title]]
    lines += [f"would run  {output.one_line(line, 400)}" for line in report["would_run"]]
    lines += [f"check      {line}" for line in _check_lines(report["checks"])]
    if report["reason"]:
        lines.append(f"reason     {output.one_line(report['reason'], 1000)}")
    return [*lines, "", output.harmless(report["answer"])] if report["answer"] else lines


def _given_checks(task: Mapping[str, Any]) -> list[str]:
    """What the contract asks for: that of the plan, once there is one."""
    checks = (task["plan"] or {}).get("checks") or task["checks"]
    return ["", *(f"check      {_check_words(check)}" for check in checks)] if checks else []


def _check_lines(results: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for result in results:
        verdict = "passed" if result["passed"] else "FAILED"
        exited = f" (exit {result['code']}, output {result['sha256'][:12]})" if result["code"] is not None else ""
        lines.append(f"{verdict}: {_check_words(result['check'])}{exited}  {output.one_line(result['detail'], 200)}")
    return lines


def _check_words(check: Mapping[str, Any]) -> str:
    kind = "" if check["kind"] == "command" else f"{check['kind'].replace('_', ' ')} "
    by = "" if check["by"] == "user" else f" [{check['by']}]"
    target = ", ".join(check["target"].split("\n"))
    return output.one_line(f"{kind}{target}" + (f" {check['text']!r}" if check["text"] else "") + by)


def _usage(usage: Mapping[str, Any]) -> str:
    tokens = usage["prompt_tokens"] + usage["completion_tokens"]
    return f"{usage['model_calls']} model calls, {tokens} tokens, {usage['tool_calls']} tool calls"
