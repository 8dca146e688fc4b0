"""The process: one per home, from the lock on the database to the sockets that front ends talk to."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from agentd import telemetry
from agentd.api.auth import LOOPBACK, AsgiApp, TokenGuard, ensure_token
from agentd.api.http import create_app
from agentd.api.limits import MAX_BODY
from agentd.api.problems import answer
from agentd.api.rate import RateLimit
from agentd.app import App, build
from agentd.config import ApiSettings, Settings, load_settings
from agentd.errors import AgentdError, AlreadyRunning, ConfigError
from agentd.home import find_home, make_private
from agentd.security.scan import Redactor
from agentd.store.lock import DaemonLock

log = telemetry.get_logger("agentd.daemon")  # it runs as __main__

WINDOWS = os.name == "nt"
BACKLOG = 128
CLOSE_SECONDS = 3
"""How long requests under way may take once the daemon stops."""
ALREADY_RUNNING = 9
"""Exit code when the home has a daemon already."""


class Switch:
    """Turned off, by a signal or by a request, when the daemon is to stop; whoever serves looks at it."""

    def __init__(self) -> None:
        self.off = False

    def turn_off(self) -> None:
        self.off = True


def serve(settings: Settings, *, foreground: bool = False, role_model: str | None = None) -> None:
    """Run the daemon of a home until it is told to stop. `role_model` takes every role of the catalog.

    `AlreadyRunning` when the home has one; then nothing was written. `ConfigError` when its TCP port cannot be used.
    """
    switch = Switch()
    with ExitStack() as stack:
        make_private(settings.state_dir)
        lock = DaemonLock.acquire(settings.state_dir)
        stack.callback(lock.release)
        telemetry.configure(settings, foreground=foreground, clean=Redactor().clean)
        stack.callback(telemetry.close)
        stack.enter_context(_crashes())
        stack.enter_context(_signals(switch, foreground=foreground))
        listeners = stack.enter_context(_listeners(settings))
        app = build(settings, role_model=role_model)
        stack.callback(app.stop)
        telemetry.configure(settings, foreground=foreground, clean=app.redactor.clean)  # the vault is open now
        app.start()
        log.info("the daemon has started", pid=os.getpid(), home=str(settings.home), url=listeners.url)
        asyncio.run(_answer_requests(app, listeners, switch))
        log.info("the daemon stops", pid=os.getpid())


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Bound sockets; over `tcp` a request needs the token."""

    unix: socket.socket | None
    tcp: socket.socket | None
    token: str = ""

    @property
    def url(self) -> str | None:
        if self.tcp is None:
            return None
        host, port = self.tcp.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _answer_requests(app: App, listeners: Listeners, switch: Switch) -> None:
    api = create_app(app, shut_down=switch.turn_off, url=listeners.url)
    api.state.ticker.start(asyncio.get_running_loop())
    jobs = []
    if listeners.unix is not None:
        jobs.append(_Server(api, api, switch).serve([listeners.unix]))
    if listeners.tcp is not None:
        jobs.append(_Server(api, _guarded(api, app, listeners), switch).serve([listeners.tcp]))
    await asyncio.gather(*jobs)


class _Server(uvicorn.Server):
    """Serves until the switch is turned off, and ends what would never end by itself."""

    def __init__(self, api: FastAPI, served: AsgiApp, switch: Switch) -> None:
        super().__init__(
            uvicorn.Config(
                served,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=CLOSE_SECONDS,
                # Some room above what a request may have, so that one too long can be told so.
                ws_max_size=2 * MAX_BODY,
                ws_per_message_deflate=False,
            )
        )
        self._api = api
        self._switch = switch

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the daemon's, which has two of these servers

    async def on_tick(self, counter: int) -> bool:
        return self._switch.off or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.state.ticker.close()
        self._api.state.stopping.set()
        self._api.state.bridge.close()
        await super().shutdown(sockets)


def _guarded(api: FastAPI, app: App, listeners: Listeners) -> AsgiApp:
    """What answers on the TCP port."""
    assert listeners.tcp is not None
    settings, port = app.settings.api, listeners.tcp.getsockname()[1]
    limited = RateLimit(api, lambda: app.settings.api.requests_per_minute, time.monotonic, answer)
    guard = TokenGuard(
        limited,
        listeners.token,
        {*LOOPBACK, settings.host},
        port,
        answer,
        knows=app.keys.knows,
        origins=settings.cors_origins,
    )
    if not settings.cors_origins:
        return guard
    # Outside the guard, because a browser asks whether it may without showing the token.
    return CORSMiddleware(guard, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"])


@contextmanager
def _listeners(settings: Settings) -> Iterator[Listeners]:
    """The sockets, bound; with their files removed at the end. Only for the holder of the lock."""
    with ExitStack() as stack:
        unix = None if WINDOWS else stack.enter_context(_unix_socket(settings.socket_path))
        if not (settings.api.tcp or WINDOWS):
            yield Listeners(unix=unix, tcp=None)
            return
        tcp = stack.enter_context(_tcp_socket(settings.api))
        listeners = Listeners(unix=unix, tcp=tcp, token=ensure_token(settings.token_path))
        path = settings.url_path
        path.write_text(f"{listeners.url}\n", encoding="utf-8")
        stack.callback(path.unlink, missing_ok=True)
        yield listeners


@contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """A socket for its owner alone, in a folder for its owner alone; one that a dead daemon left is replaced."""
    _remove_stale(path)
    make_private(path.parent)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(path))
        try:
            path.chmod(0o600)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is in the way: it is no socket", hint="move it away")
    path.unlink()


@contextmanager
def _tcp_socket(settings: ApiSettings) -> Iterator[socket.socket]:
    """A listening socket on a loopback address."""
    host, port = settings.host, settings.port
    if host not in LOOPBACK and not host.startswith("127."):
        raise ConfigError(
            f"api.host = {host!r} is not an address of this machine alone",
            hint="use 127.0.0.1; to reach it from elsewhere forward the port through ssh",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if not WINDOWS:  # where it would let two programs take the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of {host} is in use by another program",
                    hint="set api.port to another one, or to 0 for any that is free",
                ) from None
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint="set api.host and api.port"
            ) from None
        yield listener


@contextmanager
def _crashes() -> Iterator[None]:
    """What ends a thread goes to the log, from which secrets are left out, and not to stderr."""

    def tell(ended: threading.ExceptHookArgs) -> None:
        name = ended.thread.name if ended.thread is not None else ""
        log.critical("a thread ended with an internal error", thread=name, exc_info=ended.exc_value)

    before, threading.excepthook = threading.excepthook, tell
    try:
        yield
    except AgentdError:
        raise
    except Exception as error:
        log.critical("the daemon ends with an internal error", exc_info=error)
        raise AgentdError(f"internal error: {type(error).__name__}", hint="the log in state/logs says more") from None
    finally:
        threading.excepthook = before


@contextmanager
def _signals(switch: Switch, *, foreground: bool) -> Iterator[None]:
    """SIGINT and SIGTERM stop the daemon, and so does the end of the terminal it runs on."""

    def stop(number: int, frame: FrameType | None) -> None:
        switch.turn_off()

    handlers: dict[str, Callable[[int, FrameType | None], None] | signal.Handlers] = {"SIGINT": stop, "SIGTERM": stop}
    handlers["SIGHUP"] = stop if foreground else signal.SIG_IGN
    known = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in known.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Run as a program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="agentd-daemon", description="The daemon of one home.")
    parser.add_argument("--home", type=Path, help="the home")
    parser.add_argument("--foreground", action="store_true", help="log to stderr as well")
    parser.add_argument("--role-model", metavar="NAME", help="this model of the catalog takes every role")
    parser.add_argument("--json", action="store_true", help="say errors as JSON")
    given = parser.parse_args()
    try:
        settings = load_settings(find_home(given.home))
        serve(settings, foreground=given.foreground, role_model=given.role_model)
    except AgentdError as error:
        _say(error, as_json=given.json)
        return ALREADY_RUNNING if isinstance(error, AlreadyRunning) else 1
    return 0


def _say(error: AgentdError, *, as_json: bool) -> None:
    if as_json:
        sys.stderr.write(json.dumps({"error": error.as_json()}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
