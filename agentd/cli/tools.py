"""`tool`: the tools, and calling one by hand through the gate."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from agentd.cli import output
from agentd.cli.asking import agreed
from agentd.cli.client import Client, endpoint
from agentd.cli.inbox import who
from agentd.cli.options import Group, Invocation, command
from agentd.cli.reach import ensure_daemon
from agentd.errors import BadInput, NeedsApproval

CALL_SECONDS = 3600.0

group = Group("tool", help="The tools: what the agent can do.")


@command("ls")
def ls(invocation: Invocation) -> None:
    """List the tools."""
    tools = Client(endpoint(invocation)).get("/api/tools")
    if invocation.json:
        output.data_json(tools)
        return
    rows = [
        (tool["signature"], "reads" if tool["annotations"]["read_only"] else "acts", tool["description"])
        for tool in tools
    ]
    output.data(output.table(rows, ("TOOL", "KIND", "WHAT IT DOES")))


@command("show")
@click.argument("name")
def show(invocation: Invocation, name: str) -> None:
    """One tool: its guide, its arguments, requests that it serves."""
    tool = Client(endpoint(invocation)).get(f"/api/tools/{name}")
    if invocation.json:
        output.data_json(tool)
        return
    lines = [output.paint(tool["signature"], "bold"), tool["description"], "", tool["guide"], "", "arguments"]
    required = tool["schema"].get("required", [])
    for name, field in tool["schema"].get("properties", {}).items():
        default = "" if name in required else f" (default {json.dumps(field.get('default'))})"
        lines.append(f"  {name}: {field.get('description', field.get('type', ''))}{default}")
    lines += ["", "examples", *(f"  {example}" for example in tool["examples"])]
    output.data("\n".join(lines))


@command("call")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]... | JSON")
@click.option("--workspace", "-w", metavar="DIR", default=".", help="Folder to work in (the current one).")
@click.option("--level", type=click.IntRange(0, 4), help="Access level (else the configured one).")
def call(invocation: Invocation, name: str, arguments: tuple[str, ...], workspace: str, level: int | None) -> int:
    """Run a tool once, through the gate, and print what it gives.

    Where policy wants a person's yes you are asked on the terminal, and your yes covers exactly what you were shown;
    --yes gives it. Exit code 1 when the tool failed, 5 when policy refused it, 6 when nobody said yes.
    """
    body = {
        "args": _arguments(arguments),
        "workspace": os.path.abspath(os.path.expanduser(workspace)),
        "level": level,
    }
    result = _called(invocation, f"/api/tools/{quote(name, safe='')}/call", body)
    if invocation.json:
        output.data_json(result)
    elif result["ok"]:
        output.data(output.harmless(result["text"]) if sys.stdout.isatty() else result["text"])
    else:
        output.note(output.harmless(result["text"]))
    return 0 if result["ok"] else 1


def _called(invocation: Invocation, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The result; what has to be asked is asked until nothing is left to ask."""
    client, approved = ensure_daemon(invocation), list[str]()
    while True:
        try:
            answer = {"by": who(), "approved": approved}
            result: dict[str, Any] = client.post(path, {**body, **answer}, timeout=CALL_SECONDS)
            return result
        except NeedsApproval as error:
            if error.asked is None:
                raise
            if not agreed(invocation, error.asked):
                error.hint = f"{error.hint}; on a terminal you are asked, --yes says yes at once"
                raise
            approved.append(error.asked["digest"])


def _arguments(given: tuple[str, ...]) -> dict[str, Any]:
    """`path=a.txt lines=3`, or one JSON object. Values stay text; the tool reads numbers from them."""
    if len(given) == 1 and given[0].lstrip().startswith("{"):
        try:
            value = json.loads(given[0])
        except ValueError as error:
            raise BadInput(f"the arguments are not JSON: {error}", hint='for example {"path": "a.txt"}') from None
        return dict(value)
    found: dict[str, Any] = {}
    for argument in given:
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise BadInput(f"{argument!r} is no argument of a tool", hint="give KEY=VALUE, or one JSON object")
        found[name] = value
    return found


for each in (ls, show, call):
    group.add_command(each)
