"""`status`, `url`, `backup`: what the daemon says of itself, and a copy of what it knows."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import click

from agentd.cli import output
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
        ("socket", status["socket"]),
        ("url", status["url"] or "none (api.tcp is off)"),
        ("tasks", ", ".join(under_way) + (f"; {', '.join(ended)}" if ended else "")),
        ("models", ", ".join(_model_name(model) for model in status["models"]) or "none in memory"),
    ]
    return "\n".join(f"{output.paint(name.ljust(6), 'dim')}  {text}" for name, text in lines)


def _model_name(model: Mapping[str, Any]) -> str:
    return f"{model['model']}{' (busy)' if model['busy'] else ''}"
