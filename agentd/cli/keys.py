"""`key`: keys for programs that use the TCP port, one for each, so that one can be taken back without the others."""

from __future__ import annotations

from urllib.parse import quote

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command
from agentd.cli.times import clock

group = Group("key", help="Keys for programs that use the TCP port: editors, scripts, other agents.")


@command("add")
@click.argument("name")
def add(invocation: Invocation, name: str) -> None:
    """Make a key and print it; it is not shown again. It opens /v1 and /tools, not the owner's /api."""
    made = Client(endpoint(invocation)).post("/api/keys", {"name": name})
    if invocation.json:
        output.data_json(made)
    else:
        output.data(made["key"])


@command("ls")
def ls(invocation: Invocation) -> None:
    """The keys by name: when they were made and last used."""
    found = Client(endpoint(invocation)).get("/api/keys")
    if invocation.json:
        output.data_json(found)
        return
    rows = [(key["name"], clock(key["created"]), clock(key["used"]) if key["used"] else "never") for key in found]
    output.data(output.table(rows, ("NAME", "MADE", "USED")))


@command("rm")
@click.argument("name")
def rm(invocation: Invocation, name: str) -> None:
    """Take a key back; who uses it is refused from now on."""
    found = Client(endpoint(invocation)).delete(f"/api/keys/{quote(name, safe='')}")
    output.done(invocation, found, f"removed {name}")


for each in (add, ls, rm):
    group.add_command(each)
