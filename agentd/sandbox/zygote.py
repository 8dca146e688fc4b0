"""A small process that forks confined children: each is ready in a few milliseconds, and none has seen anything of ours."""

from __future__ import annotations

import importlib.util
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentd.errors import SandboxUnavailable
from agentd.sandbox.job import Limits
from agentd.sandbox.launch import kill_group, spawn
from agentd.types import JsonObject

MAX_FRAME = 4 * 1024 * 1024
START_SECONDS = 20.0
_HERE = Path(__file__).parent
_ENCODINGS = [
    "ascii",
    "cp1252",
    "idna",
    "latin_1",
    "unicode_escape",
    "utf_8",
    "utf_8_sig",
    "utf_16",
    "utf_16_be",
    "utf_16_le",
    "utf_32",
]
_SLICE = 0.05
"""Seconds between looks at `cancel`."""


class LineClosed(Exception):
    """The child has ended, or what it sends is no frame."""


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
    """Layers that are left away, to see what the others hold: `landlock`, `seccomp`, `rlimits`."""


class Zygote:
    """Started with the first line, and again when it has died. Safe to use from several threads."""

    def __init__(self, nursery: Nursery | None = None) -> None:
        self._nursery = nursery or Nursery()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.namespaces: tuple[str, ...] = ()
        self.landlock = 0
        """The version of the kernel's; 0 for none."""

    def open(self, limits: Limits) -> Line:
        """A line to a new child under these limits. Raises `SandboxUnavailable` when none can be had."""
        if sys.platform != "linux":
            raise SandboxUnavailable(f"there is no sandbox for {sys.platform}", hint="`--executor wasm` needs no Linux")
        with self._lock:
            ours, theirs = socket.socketpair()
            try:
                number = self._fork(theirs)
            except (OSError, ValueError):
                self._stop()  # it has died: once more with a new one
                try:
                    number = self._fork(theirs)
                except (OSError, ValueError) as error:
                    ours.close()
                    self._stop()
                    raise SandboxUnavailable(f"the sandbox cannot be started: {error}", hint="agentd doctor") from None
            finally:
                theirs.close()
        line = Line(ours, self, number)
        line.send({"memory_mb": limits.memory_mb, "seconds": limits.seconds})
        try:
            line.receive(time.monotonic() + START_SECONDS)
        except (LineClosed, LineSilent):
            line.kill()
            raise SandboxUnavailable(
                "a child of the sandbox could not shut itself in, so nothing is run in it", hint="agentd doctor"
            ) from None
        return line

    def kill(self, number: int) -> None:
        with self._lock:
            if self._control is not None:
                try:
                    self._control.send(b"k %d" % number)
                except OSError:
                    pass  # its children died with it

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _fork(self, theirs: socket.socket) -> int:
        control = self._control or self._start()
        socket.send_fds(control, [b"f"], [theirs.fileno()])
        return int(control.recv(64))

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(START_SECONDS)
        nursery = self._nursery
        settings: dict[str, Any] = {
            "paths": [str(_HERE), *_libraries(), *nursery.paths],
            "preload": list(nursery.preload),
            "handler": nursery.handler,
            "without": list(nursery.without),
        }
        with theirs:
            settings["control"] = theirs.fileno()
            argv = [sys.executable, "-I", "-S", str(_HERE / "nursery.py"), json.dumps(settings)]
            self._child = spawn(argv, cwd=Path("/"), env={}, pass_fds=(theirs.fileno(),))
        hello = json.loads(ours.recv(4096) or b"x")
        self.namespaces, self.landlock = tuple(hello["namespaces"]), hello["landlock"]
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._child is not None:
            kill_group(self._child, grace=0.0)
        self._control = self._child = None


def _libraries() -> list[str]:
    found = importlib.util.find_spec("RestrictedPython")
    if found is None or not found.submodule_search_locations:
        raise SandboxUnavailable("RestrictedPython is not installed", hint="scripts/setup run")
    return [str(Path(found.submodule_search_locations[0]).parent)]


class Line:
    """Frames of JSON to and from one child. Not safe for several threads."""

    def __init__(self, ours: socket.socket, zygote: Zygote, number: int) -> None:
        self._socket = ours
        self._zygote = zygote
        self._number = number

    def send(self, frame: JsonObject) -> None:
        data = json.dumps(frame).encode()
        try:
            self._socket.settimeout(START_SECONDS)
            self._socket.sendall(len(data).to_bytes(4, "big") + data)
        except OSError:
            pass  # that the child has ended is met when its answer is read

    def receive(self, deadline: float, cancel: threading.Event | None = None) -> dict[str, Any]:
        """The next frame. `deadline` on the monotonic clock. Raises `LineClosed` and `LineSilent`."""
        size = int.from_bytes(self._exactly(4, deadline, cancel), "big")
        if size > MAX_FRAME:
            raise LineClosed(f"a frame of {size} bytes")
        data = self._exactly(size, deadline, cancel)
        try:
            frame = json.loads(data, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise LineClosed("what it sends is no JSON") from None
        if not isinstance(frame, dict):
            raise LineClosed("what it sends is no object")
        return frame

    def _exactly(self, count: int, deadline: float, cancel: threading.Event | None) -> bytes:
        parts = []
        while count:
            left = deadline - time.monotonic()
            if left <= 0 or (cancel is not None and cancel.is_set()):
                raise LineSilent
            if not select.select([self._socket], [], [], min(left, _SLICE))[0]:
                continue
            try:
                part = self._socket.recv(min(count, 1 << 16))
            except OSError:
                part = b""
            if not part:
                raise LineClosed("it has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def kill(self) -> None:
        """End the child, whatever it does."""
        self._zygote.kill(self._number)
        self._socket.close()


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
