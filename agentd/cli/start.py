"""Starts the daemon of a home in the background and waits until it answers."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import agentd
from agentd.cli.client import Client, endpoint, error_of, home_of
from agentd.cli.options import Invocation
from agentd.errors import AgentdError, Unreachable
from agentd.home import Home, make_private
from agentd.sandbox import launch

START_SECONDS = 60.0
ALREADY_RUNNING = 9
"""Exit code of a daemon that found another one of the same home."""
_POLL = 0.03
_LOG_LIMIT = 1_000_000
_TAIL_LINES = 12


def ensure_daemon(invocation: Invocation) -> Client:
    """A client of a daemon that runs; started if need be, unless an address was named."""
    client = reachable(invocation)
    if client is not None:
        return client
    if invocation.host or os.environ.get("AGENTD_HOST"):
        where = endpoint(invocation)
        raise Unreachable(f"no daemon answers at {where}", hint="start it there, or leave out --host and AGENTD_HOST")
    return start_daemon(invocation)


def reachable(invocation: Invocation) -> Client | None:
    """A client of the daemon, or None when none answers."""
    try:
        client = Client(endpoint(invocation))
    except Unreachable:
        return None
    return client if client.answers() else None


def start_daemon(invocation: Invocation) -> Client:
    """Start the daemon and wait until it answers. When it ends instead, the error shows what it said last."""
    home = home_of(invocation)
    make_private(home.state_dir)
    log = make_private(home.log_dir) / "daemon.err"
    start = _begin_log(log)
    child = _spawn(home, log)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        client = reachable(invocation)
        if client is not None:
            return client
        code = child.poll()
        if code is not None and code != ALREADY_RUNNING:
            raise _why_not(log, start, code)
        time.sleep(_POLL)
    raise AgentdError(
        f"the daemon of {home.home} did not answer within {START_SECONDS:.0f} s:\n{_tail(log, start)}",
        hint=f"its log is {home.log_dir}",
    )


def _spawn(home: Home, log: Path) -> Any:
    """The daemon in a session of its own, so that it outlives this terminal; it gets the whole environment."""
    with log.open("ab") as said:
        return launch.spawn(
            [sys.executable, "-m", "agentd.daemon", "--json", "--home", str(home.home)],
            cwd=Path(agentd.__file__).resolve().parent.parent,  # so that it runs the same code as this command
            env=os.environ,
            stdout=said,
            stderr=said,
        )


def _begin_log(log: Path) -> int:
    """The length of the log, which is emptied first when it has grown too long."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.fstat(descriptor).st_size > _LOG_LIMIT:
            os.ftruncate(descriptor, 0)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _why_not(log: Path, start: int, code: int) -> AgentdError:
    """The error with which the daemon ended, or what it said last when that was none of ours."""
    try:
        return error_of(json.loads(_said(log, start)[-1]))
    except (ValueError, KeyError, TypeError, IndexError):
        said = f"the daemon ended at once with exit code {code}:\n{_tail(log, start)}"
        return AgentdError(said, hint=f"its log is {log.parent}")


def _tail(log: Path, start: int) -> str:
    return "\n".join(f"  {line}" for line in _said(log, start)[-_TAIL_LINES:]) or "  (it said nothing)"


def _said(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(start)
        return file.read(_LOG_LIMIT).decode("utf-8", "replace").rstrip().splitlines()
