"""A small process that forks confined children: each is ready in milliseconds, and none has seen anything of ours."""

from __future__ import annotations

import importlib.util
import json
import math
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agentd.errors import BadInput, SandboxUnavailable, ToolFailed
from agentd.sandbox.job import Limits
from agentd.sandbox.launch import kill_group, spawn
from agentd.types import JsonObject

MAX_FRAME = 1 << 20
MAX_DEPTH = 80
MAX_DIGITS = 1_000
"""Of a whole number."""
CPU_CALLS = 20
"""How often a child may use up the seconds of one call in its whole life."""
START_SECONDS = 20.0
GUEST, PROBE = "f", "p"
"""Letters of the handlers that every zygote has."""
_HERE = Path(__file__).parent
_ENCODINGS = (
    *("ascii", "cp1252", "idna", "latin_1", "unicode_escape", "utf_8", "utf_8_sig"),
    *("utf_16", "utf_16_be", "utf_16_le", "utf_32"),
)
_SLICE = 0.02
"""Seconds between looks at `cancel`."""


class LineClosed(Exception):
    """The child has ended, or what it sends is no frame."""


class LineFull(LineClosed):
    """It sends more than a frame holds."""


class LineSilent(Exception):
    """The time is up, or the call was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nursery:
    """What a zygote imports before it forks, and who serves a child's line: `module:function`."""

    handler: str = "guest.loop:serve"
    preload: Sequence[str] = ("_strptime", *(f"encodings.{name}" for name in _ENCODINGS))
    """What Python would import only when it is used, which a child cannot."""
    paths: Sequence[str] = ()
    without: Sequence[str] = ()
    """Layers that are left away, to see what the others hold: `landlock`, `seccomp`, `rlimits`, `namespaces`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one zygote and its children stand behind, by its own word; a new object for each that is started."""

    layers: tuple[str, ...]
    landlock: int
    """The version of the kernel's; 0 for none."""
    control: socket.socket = field(repr=False, compare=False)


class Zygote:
    """Started with the first line, and again when it has died. Safe to use from several threads."""

    def __init__(self, nursery: Nursery | None = None) -> None:
        self._nursery = nursery or Nursery()
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self._reached: Reached | None = None

    def reached(self) -> Reached:
        """Of the zygote that runs now, or is started for this. Raises `SandboxUnavailable`."""
        with self._lock:
            return self._running()

    def open(self, limits: Limits, handler: str = GUEST) -> Line:
        """A line to a new child under these limits. Raises `SandboxUnavailable` when none can be had."""
        with self._lock:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    control, number = self._forked(theirs, handler)
                except BaseException:
                    ours.close()
                    raise
        line = Line(ours, self, control, number)
        ready = time.monotonic() + START_SECONDS
        try:
            line.send({"memory_mb": limits.memory_mb, "cpu_seconds": math.ceil(limits.seconds * CPU_CALLS)}, ready)
            line.receive(ready)
        except (LineClosed, LineSilent):
            line.kill()
            raise SandboxUnavailable(
                "a child of the sandbox could not shut itself in, so nothing is run in it", hint="agentd doctor"
            ) from None
        return line

    def kill(self, control: socket.socket, number: int) -> None:
        """End a child of the zygote behind `control`; those of an earlier one have died with it."""
        with self._lock:
            try:
                control.send(b"k %d" % number)
            except OSError:
                pass  # its children died with it

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _forked(self, theirs: socket.socket, handler: str) -> tuple[socket.socket, int]:
        for last in (False, True):
            control = self._running().control
            try:
                socket.send_fds(control, [handler.encode()], [theirs.fileno()])
                return control, int(control.recv(64))
            except (OSError, ValueError) as error:
                self._stop()  # it has died: once more with a new one
                if last:
                    raise _unusable(error) from None
        raise AssertionError

    def _running(self) -> Reached:
        if self._reached is None:
            self._reached = self._started()
        return self._reached

    def _started(self) -> Reached:
        if sys.platform != "linux":
            raise SandboxUnavailable(f"there is no sandbox for {sys.platform}", hint="`--executor wasm` needs no Linux")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(START_SECONDS)
        try:
            with theirs:
                argv = [sys.executable, "-I", "-S", str(_HERE / "nursery.py"), self._settings(theirs.fileno())]
                child = spawn(argv, cwd=Path("/"), env={}, pass_fds=(theirs.fileno(),))
                self._end = partial(kill_group, child, grace=0.0)
            hello = json.loads(ours.recv(4096))
        except (OSError, ValueError, ToolFailed) as error:
            ours.close()
            self._stop()
            raise _unusable(error) from None
        return Reached(layers=tuple(hello["layers"]), landlock=hello["landlock"], control=ours)

    def _settings(self, control: int) -> str:
        nursery = self._nursery
        return json.dumps(
            {
                "control": control,
                "paths": [str(_HERE), *_libraries(), *nursery.paths],
                "preload": list(nursery.preload),
                "handlers": {GUEST: nursery.handler, PROBE: "probes:serve"},
                "without": list(nursery.without),
            }
        )

    def _stop(self) -> None:
        if self._reached is not None:
            self._reached.control.close()
        if self._end is not None:
            self._end()
        self._reached = self._end = None


def _unusable(error: Exception) -> SandboxUnavailable:
    return SandboxUnavailable(f"the sandbox cannot be started: {error}", hint="agentd doctor")


def _libraries() -> list[str]:
    found = importlib.util.find_spec("RestrictedPython")
    if found is None or not found.submodule_search_locations:
        raise SandboxUnavailable("RestrictedPython is not installed", hint="scripts/setup run")
    return [str(Path(found.submodule_search_locations[0]).parent)]


class Line:
    """Frames of JSON to and from one child, each after its length in four bytes. Not safe for several threads."""

    def __init__(self, ours: socket.socket, zygote: Zygote, control: socket.socket, number: int) -> None:
        ours.setblocking(False)
        self._socket = ours
        self._zygote = zygote
        self.control = control
        """Of the zygote that the child is of."""
        self._number = number

    def send(self, frame: JsonObject, deadline: float, cancel: threading.Event | None = None) -> None:
        """`deadline` on the monotonic clock. Raises `BadInput` for what is too large or no JSON, and `LineSilent`.

        That the child has ended is met when its answer is read.
        """
        left = memoryview(packed(frame))
        while left:
            self._wait(deadline, cancel, write=True)
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                continue
            except OSError:
                return

    def receive(self, deadline: float, cancel: threading.Event | None = None) -> dict[str, Any]:
        """The next frame. `deadline` on the monotonic clock. Raises `LineClosed`, `LineFull` and `LineSilent`."""
        size = int.from_bytes(self._exactly(4, deadline, cancel), "big")
        if size > MAX_FRAME:
            raise LineFull(f"a frame of {size} bytes, {MAX_FRAME} are allowed")
        return parsed(self._exactly(size, deadline, cancel))

    def _exactly(self, count: int, deadline: float, cancel: threading.Event | None) -> bytes:
        parts = []
        while count:
            self._wait(deadline, cancel)
            try:
                part = self._socket.recv(min(count, 1 << 16))
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if not part:
                raise LineClosed("it has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _wait(self, deadline: float, cancel: threading.Event | None, *, write: bool = False) -> None:
        """Until the socket can be read, or written. `poll`, since `select` knows no descriptor above 1023."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if write else select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or (cancel is not None and cancel.is_set()):
                raise LineSilent
            if poll.poll(math.ceil(1000 * (left if cancel is None else min(left, _SLICE)))):
                return

    def gone(self, deadline: float) -> bool:
        """End the child, and whether it has ended by then."""
        self._zygote.kill(self.control, self._number)
        try:
            while self._exactly(1, deadline, None):
                pass
        except LineClosed:
            return True
        except LineSilent:
            return False
        raise AssertionError

    def kill(self) -> None:
        """End the child, whatever it does."""
        self._zygote.kill(self.control, self._number)
        self._socket.close()


def packed(frame: JsonObject) -> bytes:
    """A frame as it goes over a line. Raises `BadInput`."""
    try:
        data = json.dumps(frame, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"what a sandbox is told has to be JSON: {error}", hint="pass JSON values") from None
    if len(data) > MAX_FRAME:
        raise BadInput(
            f"what a sandbox is told has {len(data)} bytes of JSON, {MAX_FRAME} are allowed", hint="pass less"
        )
    return len(data).to_bytes(4, "big") + data


def parsed(data: bytes) -> dict[str, Any]:
    """A stranger's frame: an object, of JSON that we could write again ourselves. Raises `LineClosed`."""
    try:
        frame = json.loads(data.decode(), parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except (ValueError, RecursionError):
        raise LineClosed("what it sends is no JSON") from None
    if not isinstance(frame, dict):
        raise LineClosed("what it sends is no object")
    _look_through(frame)
    return frame


def _look_through(frame: Any) -> None:
    level, depth = [frame], 0
    while level:
        if depth > MAX_DEPTH:
            raise LineClosed(f"what it sends is nested more than {MAX_DEPTH} deep")
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii() and _halved(value):
                raise LineClosed("what it sends has half a character in it")
        level, depth = below, depth + 1


def _halved(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number that is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)
