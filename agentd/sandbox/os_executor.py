"""The executor that Linux holds: each program in a forked child without files, network, processes or environment."""

from __future__ import annotations

import json
import secrets
import threading
import time
from dataclasses import replace
from typing import Any, Protocol

from agentd.errors import AgentdError, BadInput, Cancelled, SandboxUnavailable
from agentd.sandbox.job import Broker, Ended, Limit, Limits, Program, RequestRefused
from agentd.sandbox.self_test import SelfTest, self_test
from agentd.sandbox.zygote import CPU_CALLS, Line, LineClosed, LineFull, LineSilent, Nursery, Zygote, packed
from agentd.types import JsonObject

CHECK_LIMITS = Limits(seconds=2.0, memory_mb=512)
_CHECKED = ("violations", "entries", "imports")
"""Of the static gate, whose parser meets whatever a stranger wrote."""


class GuestLine(Protocol):
    """To one guest; see `zygote.Line`."""

    def send(self, frame: JsonObject, deadline: float, cancel: threading.Event | None = None) -> None: ...
    def receive(self, deadline: float, cancel: threading.Event | None = None) -> dict[str, Any]: ...
    def kill(self) -> None: ...


class Lines(Protocol):
    """What has guests to give, each under its limits. Raises `SandboxUnavailable`."""

    def line(self, limits: Limits) -> GuestLine: ...


class OsExecutor:
    """See `job.Executor`. Its children are tested before a guest is let into one. `close` ends them all."""

    name = "os"
    ready = True

    def __init__(self, nursery: Nursery | None = None) -> None:
        self._zygote = Zygote(nursery)
        self._lock = threading.Lock()
        self._tested: SelfTest | None = None

    @property
    def level(self) -> str:
        return self.self_test().level

    def self_test(self, *, anew: bool = False) -> SelfTest:
        """What children are held by; of each zygote that is started once, or `anew`. Raises `SandboxUnavailable`."""
        with self._lock:
            if anew or self._tested is None or self._tested.reached is not self._zygote.reached():
                self._tested = self_test(self._zygote)
            return self._tested

    def line(self, limits: Limits) -> Line:
        """To a new child. Raises `SandboxUnavailable` where children are not held."""
        for _ in range(3):
            tested = self.self_test()
            tested.demand()
            line = self._zygote.open(limits)
            if line.control is tested.reached.control:
                return line
            line.kill()  # the zygote had died: the one in its place has not been tested yet
        raise SandboxUnavailable("the sandbox dies again and again", hint="agentd doctor")

    def open(self, program: Program, limits: Limits) -> OsSandbox:
        self.self_test().demand()
        return OsSandbox(self, program, limits)

    def check(self, source: bytes, grants: frozenset[str]) -> dict[str, Any]:
        """What the static gate says: `violations` (line, rule, message, hint), `entries`, the public functions, and
        `imports`, modules."""
        return checked(self, source, grants)

    def close(self) -> None:
        self._zygote.close()


def checked(lines: Lines, source: bytes, grants: frozenset[str]) -> dict[str, Any]:
    """See `OsExecutor.check`."""
    line = lines.line(CHECK_LIMITS)
    deadline = time.monotonic() + CHECK_LIMITS.seconds
    nonce = secrets.token_hex(8)
    try:
        line.send({"nonce": nonce, "check": source.decode("latin-1"), "grants": sorted(grants)}, deadline)
        found = line.receive(deadline)
        if found.get("nonce") != nonce or not found.keys() >= {*_CHECKED}:
            raise LineClosed("a frame that is not its own")
    except BadInput as error:
        return _unchecked(error.message)
    except (LineClosed, LineSilent) as error:
        ended = "needs too long" if isinstance(error, LineSilent) else "needs too much memory"
        return _unchecked(f"to look at this source {ended}")
    finally:
        line.kill()
    return {key: found[key] for key in _CHECKED}


def _unchecked(message: str) -> dict[str, Any]:
    told = {"line": 1, "rule": "checker", "message": message, "hint": "write plain, short code"}
    return {"violations": [told], "entries": [], "imports": []}


class OsSandbox:
    """See `job.Sandbox`."""

    def __init__(self, lines: Lines, program: Program, limits: Limits) -> None:
        self._lines = lines
        self._program = program
        self._limits = limits
        self._line: GuestLine | None = None
        self._spent = 0.0
        """Seconds that calls of this child took; the kernel ends it when it has computed for too many."""

    def call(
        self,
        entry: str,
        args: JsonObject,
        *,
        broker: Broker | None = None,
        cancel: threading.Event | None = None,
        seed: int | None = None,
    ) -> Ended:
        """See `job.Sandbox.call`. Raises `SandboxUnavailable`, `BadInput` for arguments that are no JSON or too large,
        and `Cancelled` when `cancel` was set.
        """
        packed({"args": dict(args)})  # before a child is asked for
        started = time.monotonic()
        # Whatever is raised on the way, the broker's errors too, leaves no child behind in the middle of a call.
        line, self._line = self._line, None
        fresh = line is None
        if line is None:
            line, self._spent = self._lines.line(self._limits), 0.0
        try:
            talk = _Talk(line, time.monotonic() + self._limits.seconds, cancel)
            told = {"call": entry, "args": dict(args), "seed": None if fresh else seed}
            ended = self._ended(talk, told, broker, self._program.seed if seed is None else seed, fresh)
            if ended.limit is None:
                self._line = line
        finally:
            if self._line is None:
                line.kill()
        seconds = time.monotonic() - started
        self._spent += seconds
        return replace(ended, seconds=seconds)

    def close(self) -> None:
        if self._line is not None:
            self._line.kill()
            self._line = None

    def _ended(self, talk: _Talk, told: JsonObject, broker: Broker | None, seed: int, fresh: bool) -> Ended:
        limits = self._limits
        try:
            if fresh:
                self._load(talk, seed)
            talk.say(dict(told))
            return _ended(self._answered(talk, broker), limits.output_bytes)
        except LineSilent:
            if talk.cancelled:
                raise Cancelled("the call of a plugin was cancelled") from None
            return Ended(ok=False, error=f"it did not end within {limits.seconds:g} s", limit=Limit.TIME)
        except LineFull as error:
            return Ended(ok=False, error=f"it says too much: {error}", limit=Limit.OUTPUT)
        except LineClosed as error:
            if self._spent + time.monotonic() - talk.started >= CPU_CALLS * limits.seconds:
                return Ended(ok=False, error="its process has computed for too long", limit=Limit.TIME)
            return Ended(ok=False, error=f"its process ended: {error}", limit=Limit.CRASH)
        except _TooMany:
            return Ended(ok=False, error=f"it asked more than {limits.requests} times", limit=Limit.CALLS)

    def _load(self, talk: _Talk, seed: int) -> None:
        program = self._program
        told = {"load": program.source, "grants": sorted(program.grants), "seed": seed}
        talk.say(told | {"output_bytes": self._limits.output_bytes, "seconds": self._limits.seconds})
        if talk.hear().get("loaded") is not True:
            raise LineClosed("it said something else than that it is loaded")

    def _answered(self, talk: _Talk, broker: Broker | None) -> dict[str, Any]:
        """The frame that ends a call, after every request in between was answered."""
        requests = 0
        while "ask" in (frame := talk.hear()):
            requests += 1
            if requests > self._limits.requests:
                raise _TooMany
            reply = _reply(broker, frame)
            try:
                talk.say(reply)
            except BadInput as error:
                talk.say({"raise": "OSError", "message": error.message})
        return frame


class _Talk:
    """What is said during one call, under a nonce that every answer has to carry, so that none can be prepared."""

    def __init__(self, line: GuestLine, deadline: float, cancel: threading.Event | None) -> None:
        self.started = time.monotonic()
        self._line, self._deadline, self._cancel = line, deadline, cancel
        self._nonce = secrets.token_hex(8)

    @property
    def cancelled(self) -> bool:
        return self._cancel is not None and self._cancel.is_set()

    def say(self, frame: dict[str, Any]) -> None:
        self._line.send(frame | {"nonce": self._nonce}, self._deadline, self._cancel)

    def hear(self) -> dict[str, Any]:
        frame = self._line.receive(self._deadline, self._cancel)
        if frame.get("nonce") != self._nonce:
            raise LineClosed("a frame that is not its own")
        return frame


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
    except (SandboxUnavailable, Cancelled):
        raise
    except AgentdError as error:
        return {"raise": "OSError", "message": error.message}


def _ended(frame: dict[str, Any], most: int) -> Ended:
    printed = frame.get("printed")
    shown = printed if isinstance(printed, str) else ""
    # The guest has measured it too, but who has come past its language says what it likes.
    if (size := len(json.dumps([frame.get("result"), shown]))) > most:
        return Ended(ok=False, error=f"it says too much: {size} bytes, {most} are allowed", limit=Limit.OUTPUT)
    if frame.get("ok") is True:
        return Ended(ok=True, result=frame.get("result"), printed=shown)
    limit = frame.get("limit")
    known = Limit(limit) if limit in (Limit.MEMORY, Limit.OUTPUT, Limit.REFUSED, Limit.TIME) else None
    return Ended(ok=False, error=str(frame.get("error"))[:2000], limit=known, printed=shown)
