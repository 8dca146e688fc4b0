"""`up`, `down`, `status`, `serve`, `url`, `token`, `backup`: the daemon as a process."""

from __future__ import annotations

import os
import runpy
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from agentd.api.auth import ensure_token
from agentd.cli import output
from agentd.cli.client import Client, endpoint, home_of
from agentd.cli.follow import ENDED
from agentd.cli.options import Invocation, command
from agentd.cli.start import reachable, start_daemon, stop_daemon
from agentd.errors import AgentdError, BadInput
from agentd.home import Home


@command("up")
def up(invocation: Invocation) -> None:
    """Start the daemon in the background and wait until it answers.

    Does nothing when it runs already.
    """
    client = reachable(invocation)
    was_running = client is not None
    if client is None:
        if invocation.host:
            raise BadInput("--host names a daemon elsewhere; only one here can be started", hint="leave out --host")
        client = start_daemon(invocation)
    status = client.get("/api/status")
    if invocation.json:
        output.data_json(status)
    elif not invocation.quiet:
        output.note(f"{'already ' if was_running else ''}running, pid {status['pid']}, {client.where}")


@command("down")
def down(invocation: Invocation) -> None:
    """Stop the daemon and wait until it is gone.

    What runs goes on at the next start.
    """
    pid = stop_daemon(invocation)
    if invocation.json:
        output.data_json({"stopped": pid is not None, "pid": pid})
    elif not invocation.quiet:
        output.note("no daemon was running" if pid is None else f"stopped, pid {pid}")


@command("status")
def status(invocation: Invocation) -> None:
    """What the daemon is doing: process, home, queue, models."""
    found = Client(endpoint(invocation)).get("/api/status")
    if invocation.json:
        output.data_json(found)
    else:
        output.data(_status_text(found))


@command("serve")
def serve(invocation: Invocation) -> None:
    """Run the daemon in the foreground until it is told to stop.

    Its log goes to stderr as well.
    """
    if invocation.host:
        raise BadInput("--host is for commands that talk to a daemon", hint="set api.tcp, api.host and api.port")
    sys.argv = ["agentd", "--foreground", "--home", str(home_of(invocation).home)]
    if invocation.json:
        sys.argv.append("--json")
    # The daemon is a program of its own that shares no module with the command line.
    runpy.run_module("agentd.daemon", run_name="__main__")


@command("url")
def url(invocation: Invocation) -> None:
    """Where the daemon listens: its TCP address when it has one, else its socket."""
    found = Client(endpoint(invocation)).get("/api/status")
    address = found["url"] or f"unix://{found['socket']}"
    if invocation.json:
        output.data_json({"url": address})
    else:
        output.data(address)


@command("token")
@click.option("--url", "with_url", is_flag=True, help="Print the address with the token in it, for a browser.")
def token(invocation: Invocation, with_url: bool) -> None:
    """The token that the daemon's TCP port asks for; made when there is none yet."""
    home = home_of(invocation)
    found = ensure_token(home.token_path)
    if with_url:
        # After the # it stays in the browser: it stands in no request line and in no log.
        address = f"{_tcp_address(home)}/#token={found}"
    if invocation.json:
        output.data_json({"token": found} | ({"url": address} if with_url else {}))
    else:
        output.data(address if with_url else found)


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


def _tcp_address(home: Home) -> str:
    try:
        return home.url_path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        hint = "set `tcp = true` under [api] in agentd.toml and start the daemon"
        raise AgentdError("no daemon of this home listens on TCP", hint=hint) from None


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
