"""`report`: the morning page, with what was verified and what is only claimed apart."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from agentd.cli import output, times
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Invocation, command

_TITLES = (
    ("verified", "Verified: checks ran and passed"),
    ("claimed", "Claimed: done by the model's word, no check shows it"),
    ("other", "Not done"),
)


@command("report")
@click.option(
    "--since", metavar="T", default="24h", help="From when on: 22:00 (the last one), 2h (ago), or an ISO date (24h)."
)
def report(invocation: Invocation, since: str) -> None:
    """What ended lately, verified and claimed apart, then what failed and why, and what waits."""
    page = Client(endpoint(invocation)).get("/api/report", since=times.past(since, time.time()))
    if invocation.json:
        output.data_json(page)
    else:
        output.data("\n".join(_page(page)))


def _page(page: Mapping[str, Any]) -> list[str]:
    lines = [f"{times.clock(page['since'])} to {times.clock(page['until'])}: {_counts(page)}"]
    for key, title in _TITLES:
        lines += _section(title, page[key])
    if page["waiting"]:
        lines += ["", "Waiting for you"]
        for task in page["waiting"]:
            lines += [
                f"  {task['id']}  {output.one_line(task['goal'], 80)}",
                f"      {output.one_line(task['question'], 200)}",
            ]
    return lines


def _counts(page: Mapping[str, Any]) -> str:
    named = [("verified", "verified"), ("claimed", "claimed"), ("other", "not done"), ("waiting", "waiting")]
    return ", ".join(f"{len(page[key])} {words}" for key, words in named)


def _section(title: str, tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["", f"{title} ({len(tasks)})"] if tasks else []
    for task in tasks:
        state = "" if task["state"] in ("verified", "claimed") else f"[{task['state']}] "
        lines.append(f"  {task['id']}  {state}{output.one_line(task['goal'], 80)}")
        lines += [f"      {line}" for line in _details(task)]
    return lines


def _details(task: Mapping[str, Any]) -> list[str]:
    lines = [output.one_line(task["reason"], 300)] if task["reason"] else []
    if task["answer"]:
        lines.append(output.one_line(task["answer"], 200))
    told = [check for check in task["checks"] if check["by"] != "agentd" or not check["passed"]]
    lines += [f"{'passed' if check['passed'] else 'FAILED'}: {check['check']}" for check in told]
    if task["bent"]:
        lines.append(f"but it changed {', '.join(task['bent'])} itself")
    lines += [f"struck out, for nothing on record shows it: {sentence}" for sentence in task["struck"]]
    if task["restored"]:
        lines.append(f"put back: {', '.join(task['restored'])}")
    if task["changed"]:
        lines.append(f"changed: {', '.join(task['changed'])}")
    lines += [f"council: {output.one_line(said, 300)}" for said in task["council"]]
    return [output.one_line(line) for line in lines]
