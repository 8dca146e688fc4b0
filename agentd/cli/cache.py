"""`cache`: the replies of models that are kept and given again to the same request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from agentd.cli import output, times
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command

_MIB = 1024 * 1024

group = Group("cache", help="Replies of models, kept for the very same request at temperature 0.")


@command("ls")
@click.option("-n", "--limit", metavar="N", type=click.IntRange(0, 10_000), default=50, help="The last N (50).")
def ls(invocation: Invocation, limit: int) -> None:
    """The kept replies, the last used first; how many, how large, how often given."""
    found = Client(endpoint(invocation)).get("/api/cache", limit=limit)
    if invocation.json:
        output.data_json(found)
        return
    rows = [
        (
            row["key"][:12],
            row["model"],
            row["bytes"],
            times.clock(row["created"]),
            times.clock(row["used"]),
            row["hits"],
        )
        for row in found["replies"]
    ]
    if rows:
        output.data(output.table(rows, ("KEY", "MODEL", "BYTES", "KEPT", "USED", "GIVEN")))
    if not invocation.quiet:
        output.note(cache_line(found["stats"]))


@command("show")
@click.argument("key")
def show(invocation: Invocation, key: str) -> None:
    """One kept reply; KEY is the start of its key."""
    found = Client(endpoint(invocation)).get(f"/api/cache/{quote(key, safe='')}")
    if invocation.json:
        output.data_json(found)
        return
    reply = found["reply"]
    for name in ("reasoning", "text"):
        if reply[name]:
            output.data(output.harmless(reply[name]))
    for call in reply["tool_calls"]:
        output.data(output.harmless(f"{call['name']}({call['arguments']})"))


@command("clear")
@click.option("--model", metavar="NAME", help="Only what this model said.")
def clear(invocation: Invocation, model: str | None) -> None:
    """Forget the kept replies."""
    done = Client(endpoint(invocation)).delete("/api/cache", model=model)
    output.done(invocation, done, f"{done['forgotten']} replies forgotten")


def cache_line(stats: Mapping[str, Any]) -> str:
    """How much is kept, and what it was good for."""
    if not stats["enabled"]:
        return "off (cache.enabled)"
    size = f"{stats['bytes'] / _MIB:.1f} of {stats['max_bytes'] / _MIB:.0f} MiB"
    since = f"since the start {stats['hits']} found, {stats['misses']} not"
    return f"{stats['replies']} replies, {size}, given {stats['given']} times; {since}"


for each in (ls, show, clear):
    group.add_command(each)
