"""`audit`: read the audit log, and verify it."""

from __future__ import annotations

import json

import click

from agentd.cli import output, times
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command

group = Group("audit", help="The audit log: every decision, tool call, model call and change of a task's state.")


@command("tail")
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1, 10_000), default=50, help="The last N records (50).")
@click.option("--task", metavar="ID", help="Of this task alone.")
def tail(invocation: Invocation, limit: int, task: str | None) -> None:
    """The last records, the oldest of them first."""
    records = Client(endpoint(invocation)).get("/api/audit", limit=limit, task=task)
    if invocation.json:
        output.data_json(records)
        return
    for record in records:
        data = json.dumps(record["data"], ensure_ascii=False)
        line = f"{record['seq']:6}  {times.clock(record['at'])}  {record['task'] or '-':10}  {record['kind']}  {data}"
        output.data(output.harmless(line))


@command("verify")
def verify(invocation: Invocation) -> int:
    """Check that no record was changed, removed or moved; exit 1 when one was."""
    verdict = Client(endpoint(invocation)).get("/api/audit/verify")
    if invocation.json:
        output.data_json(verdict)
    elif verdict["ok"]:
        output.data(f"ok: {verdict['count']} records, head {verdict['head']}")
    else:
        output.data(f"{verdict['fault']}: {verdict['message']} ({verdict['count']} records before it are sound)")
    return 0 if verdict["ok"] else 1


group.add_command(tail)
group.add_command(verify)
