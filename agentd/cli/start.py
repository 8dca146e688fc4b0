"""Starts the daemon of a home in the background, and stops it again."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

import agentd
from agentd.cli.client import Client, error_of, home_of, named_host
from agentd.cli.options import Invocation
from agentd.cli.reach import reachable
from agentd.errors import AgentdError, BadInput
from agentd.home import Home, make_private
from agentd.sandbox import launch
from agentd.store.lock import DaemonLock

START_SECONDS = 60.0
STOP_SECONDS = 30.0
_TERM_SECONDS = 10.0
ALREADY_RUNNING = 9
"""Exit code of a daemon that found another one of the same home."""
_POLL = 0.03
_LOG_LIMIT = 1_000_000
_TAIL_LINES = 12


def refuse_host(invocation: Invocation) -> None:
    """`BadInput` where a daemon is to be started and an address was given."""
    if host := named_host(invocation):
        raise BadInput(
            f"a daemon is started here, and {host} names one by its address",
            hint="leave out --host and AGENTD_HOST; where it listens is set by api.tcp, api.host and api.port",
        )


def start_daemon(invocation: Invocation, *options: str) -> Client:
    """Start the daemon, with more `options`, and wait until it answers; when it ends instead, the error says why."""
    home = home_of(invocation)
    make_private(home.state_dir)
    log = make_private(home.log_dir) / "daemon.err"
    start = _begin_log(log)
    exit_code = _spawn(home, log, options)
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        client = reachable(invocation)
        if client is not None:
            return client
        code = exit_code()
        if code is not None and code != ALREADY_RUNNING:
            raise _why_not(log, start, code)
        time.sleep(_POLL)
    raise AgentdError(
        f"the daemon of {home.home} did not answer within {START_SECONDS:.0f} s:\n{_tail(log, start)}",
        hint=f"its log is {home.log_dir}",
    )


def _spawn(home: Home, log: Path, options: Sequence[str]) -> Callable[[], int | None]:
    """Start the daemon in a session of its own, so that it outlives this terminal, with the whole environment.

    Returns what asks for its exit code, None while it runs.
    """
    with log.open("ab") as said:
        child = launch.spawn(
            [sys.executable, "-m", "agentd.daemon", "--json", "--home", str(home.home), *options],
            cwd=Path(agentd.__file__).resolve().parent.parent,  # so that it runs the same code as this command
            env=os.environ,
            stdout=said,
            stderr=said,
        )
    return child.poll


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


def stop_daemon(invocation: Invocation) -> int | None:
    """Stop the daemon and wait until it is gone; its pid, or None when none was there."""
    client = reachable(invocation)
    if client is None:
        return None if named_host(invocation) else _terminate(DaemonLock.holder(home_of(invocation).state_dir))
    pid = int(client.get("/api/status")["pid"])
    client.post("/api/shutdown")
    if client.where.path is None and named_host(invocation):  # its pid may be one of another machine
        _wait_for_silence(client)
    elif not _gone_within(pid, STOP_SECONDS):
        _terminate(pid)
    return pid


def _wait_for_silence(client: Client) -> None:
    until = time.monotonic() + STOP_SECONDS
    while client.answers():
        if time.monotonic() > until:
            raise AgentdError(f"the daemon at {client.where} still answers after {STOP_SECONDS:.0f} s")
        time.sleep(_POLL)


def _terminate(pid: int | None) -> int | None:
    """End a daemon that does not answer."""
    if pid is None:
        return None
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid
    if not _gone_within(pid, _TERM_SECONDS):
        raise AgentdError(f"the daemon, pid {pid}, did not stop within {_TERM_SECONDS:.0f} s", hint=f"kill -9 {pid}")
    return pid


def _gone_within(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not _alive(pid):
            return True
        time.sleep(_POLL)
    return False


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
