"""`backend`: servers of models, on this machine or on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command
from agentd.cli.reach import ensure_daemon

_TEST_SECONDS = 600.0
STATES = {"closed": "well", "open": "failing", "half-open": "trying"}
"""Of a server's circuit breaker, in words."""

group = Group("backend", help="Servers of models that speak OpenAI's API: llama-server, Ollama, vLLM, a cloud.")


@command("add")
@click.argument("name")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("--model", metavar="ID", help="One of its models, for --role.")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="Let this role use --model before all others.")
@click.option("--key", metavar="SECRET", help="Name of its key in the vault (`agentd secret set SECRET`).")
@click.option("--weight", "weights", multiple=True, type=float, metavar="N", help="Share of each URL, in their order.")
@click.option("--timeout", type=float, metavar="S", help="Seconds for a whole reply (600).")
@click.option("--connect-timeout", type=float, metavar="S", help="Seconds to connect (5).")
@click.option("--proxy", metavar="URL", help="Go through this proxy; those of the environment are not used.")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The certificate to trust.")
@click.option("--price", type=float, metavar="N", help="For a million tokens, to compare servers by.")
@click.option("--replace", is_flag=True, help="In place of a server of the same name.")
def add(
    invocation: Invocation, name: str, urls: tuple[str, ...], roles: tuple[str, ...], ca: Path | None, **fields: Any
) -> None:
    """Add a server at URL; several URLs serve the same models and share the work.

    For example: agentd backend add box http://127.0.0.1:8080 --model qwen3 --role planner
    """
    weights = list(fields.pop("weights")) or None
    body = fields | {"name": name, "urls": list(urls), "roles": list(roles), "weights": weights}
    body["ca"] = None if ca is None else str(ca.resolve())
    made = ensure_daemon(invocation).post("/api/backends", body)
    if invocation.json:
        output.data_json(made)
        return
    output.data(f"{made['name']}: {', '.join(made['urls'])}")
    if invocation.quiet:
        return
    if made["denied"]:
        output.note(f"{made['denied']['message']}\nhint: {made['denied']['hint']}")
    if not made["key_is_set"]:
        output.note(f"its key is not there yet\nhint: agentd secret set {made['key']}")
    output.note(f"see what it can do: agentd backend test {name}")


@command("ls")
def ls(invocation: Invocation) -> None:
    """The servers: where they are, what uses them, how they do."""
    found = Client(endpoint(invocation)).get("/api/backends")
    if invocation.json:
        output.data_json(found)
        return
    rows = [row for server in found for row in _rows(server)]
    output.data(output.table(rows, ("SERVER", "ADDRESS", "ROLES", "STATE", "REPLIES", "USUAL", "PROBLEM")))
    if not found and not invocation.quiet:
        output.note("there are none; `agentd setup` looks for those on this machine")


@command("test")
@click.argument("name")
@click.option("--model", metavar="ID", help="The model to ask (else its first).")
def test(invocation: Invocation, name: str, model: str | None) -> int:
    """Ask a server what it can do; exit 1 when it does not reply."""
    client = ensure_daemon(invocation)
    found = client.post(f"/api/backends/{quote(name, safe='')}/test", {"model": model}, timeout=_TEST_SECONDS)
    if invocation.json:
        output.data_json(found)
    else:
        for each in found:
            output.data(output.harmless("\n".join(_lines(each))))
    return 0 if all(each["ok"] for each in found) else 1


@command("rm")
@click.argument("name")
@click.option("--models", is_flag=True, help="Also take out its models, from the roles too.")
def rm(invocation: Invocation, name: str, models: bool) -> None:
    """Remove a server from the catalog."""
    client = Client(endpoint(invocation))
    removed = client.delete(f"/api/backends/{quote(name, safe='')}", models=str(models).lower())
    output.done(invocation, removed, f"removed {name}")


def _rows(server: dict[str, Any]) -> list[tuple[object, ...]]:
    """One for each address."""
    roles = ", ".join(server["roles"]) or "-"
    known = {row["url"]: row for row in server["health"]}
    return [(server["name"], url, roles, *_state(server, known.get(url, {}))) for url in server["urls"]]


def _state(server: dict[str, Any], health: dict[str, Any]) -> tuple[str, str, str, str]:
    """State, replies so far, usual seconds of one, and what went wrong last."""
    if server["denied"]:
        return "denied by policy", "-", "-", server["denied"]["message"]
    if not server["key_is_set"]:
        return "lacks its key", "-", "-", f"agentd secret set {server['key']}"
    usual = health.get("usual")
    return (
        STATES.get(health.get("state", ""), "-"),
        f"{health.get('answered', 0)}, {health.get('failed', 0)} failed",
        output.duration(usual) if usual else "-",
        output.one_line(health.get("problem") or "-", 80),
    )


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['server']} at {found['url']}"]
    if found["models"]:
        more = f" and {len(found['models']) - 10} more" if len(found["models"]) > 10 else ""
        lines.append(f"  models: {', '.join(found['models'][:10])}{more}")
    if found["model"]:
        lines.append(f"  asked: {found['model']}")
    for each in found["findings"]:
        mark = output.paint("yes", "green") if each["ok"] else output.paint("no ", "red")
        lines.append(f"  {mark} {each['what']}: {each['detail']}")
    if found["tokens_per_second"]:
        lines.append(f"  {found['tokens_per_second']:.1f} tokens a second")
    return lines


for each in (add, ls, test, rm):
    group.add_command(each)
