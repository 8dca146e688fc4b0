"""`model`: the models of the catalog."""

from __future__ import annotations

from agentd.cli import output
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command

group = Group("model", help="The models: which there are, and which are in memory.")


@command("ls")
def ls(invocation: Invocation) -> None:
    """List the models of the catalog: for which roles, whether the file is there, whether it is in memory."""
    found = Client(endpoint(invocation)).get("/api/models")
    if invocation.json:
        output.data_json(found)
        return
    rows = [
        (model["name"], ", ".join(model["roles"]) or "-", model["state"], model["context"], model["file"])
        for model in found["models"]
    ]
    output.data(output.table(rows, ("MODEL", "ROLES", "STATE", "CONTEXT", "FILE")))


group.add_command(ls)
