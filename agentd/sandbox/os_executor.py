"""The executor that Linux holds: each program in a forked child without files, network, processes or environment."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import replace
from typing import Any

from agentd.errors import AgentdError, Cancelled, SandboxUnavailable
from agentd.sandbox.job import Broker, Ended, Limit, Limits, Program, RequestRefused
from agentd.sandbox.zygote import Line, LineClosed, LineSilent, Nursery, Zygote
from agentd.types import JsonObject

CHECK_LIMITS = Limits(seconds=2.0, memory_mb=512)
"""Of the static gate, whose parser meets whatever a stranger wrote."""


class OsExecutor:
    """See `job.Executor`. `close` ends every child."""

    name = "os"

    def __init__(self, nursery: Nursery | None = None) -> None:
        self._zygote = Zygote(nursery)

    @property
    def level(self) -> str:
        layers = [f"landlock {self._zygote.landlock}"] if self._zygote.landlock else []
        return "os: " + ", ".join(["seccomp", "rlimits", *layers, *self._zygote.namespaces])

    def open(self, program: Program, limits: Limits) -> OsSandbox:
        return OsSandbox(self._zygote, program, limits)

    def check(self, source: bytes, grants: frozenset[str]) -> dict[str, Any]:
        """What the static gate says: `violations` (line, rule, message, hint) and `entries`, the public functions."""
        line = self._zygote.open(CHECK_LIMITS)
        nonce = secrets.token_hex(8)
        try:
            line.send({"nonce": nonce, "check": source.decode("latin-1"), "grants": sorted(grants)})
            found = line.receive(time.monotonic() + CHECK_LIMITS.seconds)
        except (LineClosed, LineSilent) as error:
            ended = "needs too long" if isinstance(error, LineSilent) else "needs too much memory"
            hint = "write plain, short code"
            told = {"line": 1, "rule": "checker", "message": f"to look at this source {ended}", "hint": hint}
            return {"violations": [told], "entries": []}
        finally:
            line.kill()
        return {"violations": found["violations"], "entries": found["entries"]}

    def close(self) -> None:
        self._zygote.close()


class OsSandbox:
    """See `job.Sandbox`."""

    def __init__(self, zygote: Zygote, program: Program, limits: Limits) -> None:
        self._zygote = zygote
        self._program = program
        self._limits = limits
        self._line: Line | None = None
        self._nonce = ""

    def call(
        self, entry: str, args: JsonObject, *, broker: Broker | None = None, cancel: threading.Event | None = None
    ) -> Ended:
        """See `job.Sandbox.call`. Raises `SandboxUnavailable`, and `Cancelled` when `cancel` was set."""
        started = time.monotonic()
        line = self._line or self._opened()
        deadline = time.monotonic() + self._limits.seconds
        try:
            if self._line is None:
                self._load(line, deadline, cancel)
            line.send({"nonce": self._nonce, "call": entry, "args": dict(args)})
            frame = self._answered(line, deadline, broker, cancel)
            ended = _ended(frame)
        except LineSilent:
            if cancel is not None and cancel.is_set():
                self._drop(line)
                raise Cancelled("the call of a plugin was cancelled") from None
            ended = Ended(ok=False, error=f"it did not end within {self._limits.seconds:g} s", limit=Limit.TIME)
        except LineClosed as error:
            ended = Ended(ok=False, error=f"its process ended: {error}", limit=Limit.CRASH)
        except _TooMany:
            ended = Ended(ok=False, error=f"it asked more than {self._limits.requests} times", limit=Limit.CALLS)
        if ended.limit is not None:
            self._drop(line)
        else:
            self._line = line
        return replace(ended, seconds=time.monotonic() - started)

    def close(self) -> None:
        if self._line is not None:
            self._drop(self._line)

    def _opened(self) -> Line:
        self._nonce = secrets.token_hex(8)
        return self._zygote.open(self._limits)

    def _load(self, line: Line, deadline: float, cancel: threading.Event | None) -> None:
        program = self._program
        told = {"nonce": self._nonce, "load": program.source, "grants": sorted(program.grants)}
        line.send(told | {"seed": program.seed, "output_bytes": self._limits.output_bytes})
        if self._next(line, deadline, cancel).get("loaded") is not True:
            raise LineClosed("it said something else than that it is loaded")

    def _answered(
        self, line: Line, deadline: float, broker: Broker | None, cancel: threading.Event | None
    ) -> dict[str, Any]:
        """The frame that ends a call, after every request in between was answered."""
        for _ in range(self._limits.requests + 1):
            frame = self._next(line, deadline, cancel)
            if "ask" not in frame:
                return frame
            line.send(_reply(broker, frame))
        raise _TooMany

    def _next(self, line: Line, deadline: float, cancel: threading.Event | None) -> dict[str, Any]:
        frame = line.receive(deadline, cancel)
        if frame.get("nonce") != self._nonce:
            raise LineClosed("a frame that is not its own")
        return frame

    def _drop(self, line: Line) -> None:
        line.kill()
        self._line = None


class _TooMany(Exception):
    """More requests than a call may make."""


def _reply(broker: Broker | None, frame: dict[str, Any]) -> dict[str, Any]:
    name, args = frame["ask"], frame.get("args")
    if not isinstance(name, str) or not isinstance(args, dict):
        return {"raise": "ValueError", "message": "a request has a name and arguments"}
    try:
        if broker is None:
            raise RequestRefused(f"{name[:100]} is not offered here")
        return {"value": broker(name, args)}
    except RequestRefused as refusal:
        return {"raise": refusal.kind, "message": refusal.message}
    except SandboxUnavailable:
        raise
    except AgentdError as error:
        return {"raise": "OSError", "message": error.message}


def _ended(frame: dict[str, Any]) -> Ended:
    printed = frame.get("printed")
    shown = printed if isinstance(printed, str) else ""
    if frame.get("ok") is True:
        return Ended(ok=True, result=frame.get("result"), printed=shown)
    limit = frame.get("limit")
    known = Limit(limit) if limit in (Limit.MEMORY, Limit.OUTPUT) else None
    return Ended(ok=False, error=str(frame.get("error"))[:2000], limit=known, printed=shown)
