"""`up`, `down`, `serve`: the daemon as a process."""

from __future__ import annotations

import runpy
import sys

from agentd.cli import output
from agentd.cli.client import home_of
from agentd.cli.options import Invocation, command
from agentd.cli.reach import reachable
from agentd.cli.start import refuse_host, start_daemon, stop_daemon


@command("up")
def up(invocation: Invocation) -> None:
    """Start the daemon in the background and wait until it answers.

    Does nothing when it runs already.
    """
    client = reachable(invocation)
    was_running = client is not None
    if client is None:
        refuse_host(invocation)
        client = start_daemon(invocation)
    status = client.get("/api/status")
    output.done(invocation, status, f"{'already ' if was_running else ''}running, pid {status['pid']}, {client.where}")


@command("down")
def down(invocation: Invocation) -> None:
    """Stop the daemon and wait until it is gone.

    What runs goes on at the next start.
    """
    pid = stop_daemon(invocation)
    output.done(
        invocation,
        {"stopped": pid is not None, "pid": pid},
        "no daemon was running" if pid is None else f"stopped, pid {pid}",
    )


@command("serve")
def serve(invocation: Invocation) -> None:
    """Run the daemon in the foreground until it is told to stop.

    Its log goes to stderr as well.
    """
    refuse_host(invocation)
    sys.argv = ["agentd", "--foreground", "--home", str(home_of(invocation).home)]
    if invocation.json:
        sys.argv.append("--json")
    # The daemon is a program of its own that shares no module with the command line.
    runpy.run_module("agentd.daemon", run_name="__main__")
