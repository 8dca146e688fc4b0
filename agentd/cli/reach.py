"""Finds the daemon that commands talk to, and has it started when there is none."""

from __future__ import annotations

from agentd.cli.client import Client, endpoint, named_host
from agentd.cli.options import Invocation
from agentd.errors import Unreachable


def ensure_daemon(invocation: Invocation) -> Client:
    """A client of a daemon that runs; started if need be, unless an address was named."""
    client = reachable(invocation)
    if client is not None:
        return client
    if named_host(invocation):
        where = endpoint(invocation)
        raise Unreachable(f"no daemon answers at {where}", hint="start it there, or leave out --host and AGENTD_HOST")
    from agentd.cli.start import start_daemon  # psutil with it; most commands find a daemon that runs

    return start_daemon(invocation)


def reachable(invocation: Invocation) -> Client | None:
    """A client of the daemon, or None when none answers."""
    try:
        client = Client(endpoint(invocation))
    except Unreachable:
        return None
    return client if client.answers() else None
