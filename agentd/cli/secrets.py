"""`secret`: the keys and passwords that servers of models ask for."""

from __future__ import annotations

import sys
from urllib.parse import quote

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command
from agentd.cli.reach import ensure_daemon
from agentd.cli.times import clock
from agentd.errors import BadInput

group = Group("secret", help="Keys and passwords for servers: sealed in the database, never shown again.")


@command("set")
@click.argument("name")
def set_(invocation: Invocation, name: str) -> None:
    """Keep a secret under NAME; it is read from stdin, or asked for on a terminal.

    It is no argument of the command, because those can be seen in the list of processes.
    """
    value = _read(invocation, name)
    made = ensure_daemon(invocation).post("/api/secrets", {"name": name, "value": value})
    output.done(invocation, made, f"kept {name}")


@command("ls")
def ls(invocation: Invocation) -> None:
    """The names of the secrets, and when each was set."""
    found = Client(endpoint(invocation)).get("/api/secrets")
    if invocation.json:
        output.data_json(found)
        return
    output.data(output.table([(secret["name"], clock(secret["changed"])) for secret in found], ("NAME", "SET")))


@command("rm")
@click.argument("name")
def rm(invocation: Invocation, name: str) -> None:
    """Forget a secret."""
    removed = Client(endpoint(invocation)).delete(f"/api/secrets/{quote(name, safe='')}")
    output.done(invocation, removed, f"removed {name}")


def _read(invocation: Invocation, name: str) -> str:
    """The value without the end of its line. Raises `BadInput` when there is none."""
    if sys.stdin.isatty():
        if invocation.no_input:
            raise BadInput(f"no value for {name}", hint=f"write it to stdin: agentd secret set {name} < FILE")
        value = click.prompt(f"Value of {name}", hide_input=True, err=True, type=str)
    else:
        value = sys.stdin.read()
    value = str(value).removesuffix("\n").removesuffix("\r")
    if not value:
        raise BadInput(f"the value of {name} is empty", hint=f"write it to stdin: agentd secret set {name} < FILE")
    return value


for each in (set_, ls, rm):
    group.add_command(each)
