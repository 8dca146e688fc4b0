"""`status`, `url`, `backup`: what the daemon says of itself, and a copy of what it knows."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import click

from agentd.cli import output
from agentd.cli.backends import STATES
from agentd.cli.cache import cache_line
from agentd.cli.client import Client, endpoint
from agentd.cli.follow import ENDED
from agentd.cli.options import Invocation, command


@command("status")
def status(invocation: Invocation) -> None:
    """What the daemon is doing: process, home, queue, models."""
    found = Client(endpoint(invocation)).get("/api/status")
    if invocation.json:
        output.data_json(found)
    else:
        output.data(_status_text(found))


@command("url")
def url(invocation: Invocation) -> None:
    """Where the daemon listens: its TCP address when it has one, else its socket."""
    found = Client(endpoint(invocation)).get("/api/status")
    address = found["url"] or f"unix://{found['socket']}"
    if invocation.json:
        output.data_json({"url": address})
    else:
        output.data(address)


@command("backup")
@click.argument("target", required=False, metavar="[FILE]", type=click.Path(dir_okay=False))
def backup(invocation: Invocation, target: str | None) -> None:
    """Copy the database into FILE, which must not exist, while the daemon goes on."""
    name = target or time.strftime("agentd-%Y%m%d-%H%M%S.db")
    done = Client(endpoint(invocation)).post("/api/backup", {"path": os.path.abspath(name)}, timeout=3600)
    if invocation.json:
        output.data_json(done)
    else:
        output.data(done["path"])


def _status_text(status: Mapping[str, Any]) -> str:
    queue = status["queue"]
    under_way = [f"{queue.get(state, 0)} {state}" for state in ("queued", "running", "waiting")]
    ended = [f"{count} {state}" for state, count in queue.items() if count and state in ENDED]
    lines = [
        ("daemon", f"pid {status['pid']}, up {output.duration(status['uptime'])}, version {status['version']}"),
        ("home", status["home"]),
        *([("catalog", problem["message"])] if (problem := status.get("catalog_problem")) else []),
        ("socket", status["socket"]),
        ("url", status["url"] or "none (api.tcp is off)"),
        ("tasks", ", ".join(under_way) + (f"; {', '.join(ended)}" if ended else "")),
        ("models", ", ".join(_model_name(model) for model in status["models"]) or "none in memory"),
        *(("server", _server_text(server)) for server in status["servers"]),
        *(("role", _stand_in_text(role)) for role in status["stand_ins"]),
        ("cache", cache_line(status["cache"])),
    ]
    return "\n".join(f"{output.paint(name.ljust(6), 'dim')}  {text}" for name, text in lines)


def _server_text(server: Mapping[str, Any]) -> str:
    words = [STATES[server["state"]], f"{server['answered']} replies", f"{server['failed']} failures"]
    if server["running"]:
        words.append(f"{server['running']} under way")
    if server["usual"] is not None:
        words.append(f"usually within {server['usual']:.1f} s")
    if server["resting"]:
        words.append(f"left alone for {server['resting']:.0f} s")
    why = f" ({output.one_line(server['problem'], 120)})" if server["problem"] else ""
    return f"{server['server']} {server['url']}: {', '.join(words)}{why}"


def _stand_in_text(role: Mapping[str, Any]) -> str:
    return f"{role['role']}: {role['model']} for {role['instead_of']} ({output.one_line(role['why'], 120)})"


def _model_name(model: Mapping[str, Any]) -> str:
    return f"{model['model']}{' (busy)' if model['busy'] else ''}"
