"""The executor that needs no Linux: each program in a CPython of its own in WebAssembly, beside the daemon."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from agentd.errors import SandboxUnavailable, ToolFailed
from agentd.sandbox.job import Limits, Program
from agentd.sandbox.launch import PIPE, kill_group, spawn
from agentd.sandbox.os_executor import OsSandbox, checked
from agentd.sandbox.wasm_child import ASKS, FULL, LATE, SAID
from agentd.sandbox.wasm_component import Component, Contents, child_argv, child_env, version
from agentd.sandbox.zygote import MAX_FRAME, LineClosed, LineFull, LineSilent, packed, parsed
from agentd.types import JsonObject

START_SECONDS = 60.0
GRACE = 0.25
"""Seconds after which a child is killed whose engine has not ended a call in time."""
SPARE = 2
"""Children that are kept for the next sandboxes."""
_SLICE = 0.02
"""Seconds between looks at `cancel`."""
_MOST_MILLISECONDS = (1 << 32) - 1


class WasmExecutor:
    """See `job.Executor`. Keeps its component in `folder`. Safe to use from several threads."""

    name = "wasm"

    def __init__(self, folder: Path, contents: Contents | None = None) -> None:
        self._component = Component(folder, contents)
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._idle: list[Child] = []
        self._level = ""

    @property
    def ready(self) -> bool:
        """Raises `SandboxUnavailable` where something is not installed."""
        return self._path is not None or self._component.built()

    @property
    def level(self) -> str:
        """Such as `wasm:wasmtime50.0.1+landlock7+seccomp`. Raises `SandboxUnavailable`."""
        if not self._level:
            self._release(self._taken(), resting=True)
        return self._level

    def line(self, limits: Limits) -> WasmLine:
        """To a guest that nobody has used. Raises `SandboxUnavailable`."""
        for _ in range(SPARE + 2):  # those that were kept may have died
            line = WasmLine(self._taken(), self._release)
            ready = time.monotonic() + START_SECONDS
            try:
                line.send({"memory_mb": limits.memory_mb}, ready)
                line.receive(ready)
                return line
            except (LineClosed, LineSilent):
                line.kill()
        raise SandboxUnavailable("the sandbox dies again and again", hint="agentd doctor")

    def open(self, program: Program, limits: Limits) -> OsSandbox:
        if not self._level:
            self._release(self._taken(), resting=True)
        return OsSandbox(self, program, limits)

    def check(self, source: bytes, grants: frozenset[str]) -> dict[str, Any]:
        """See `OsExecutor.check`."""
        return checked(self, source, grants)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    def _taken(self) -> Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._path is None:
                self._path = self._component.path()
        return self._started(self._path)

    def _started(self, path: Path) -> Child:
        try:
            child = Child(child_argv(component=str(path)))
        except ToolFailed as error:
            raise SandboxUnavailable(f"the sandbox cannot be started: {error.message}", hint="agentd doctor") from None
        try:
            hello = json.loads(child.receive(time.monotonic() + START_SECONDS, None)[1])
            self._level = "+".join([f"wasm:wasmtime{version('wasmtime')}", *hello["layers"]])
        except (LineClosed, LineSilent, ValueError, KeyError):
            child.close()
            with self._lock:
                self._component.forget()  # such as what was built on another machine
                self._path = None
            raise SandboxUnavailable(
                "the sandbox of WebAssembly does not start", hint="try again: it is built anew"
            ) from None
        return child

    def _release(self, child: Child, resting: bool) -> None:
        with self._lock:
            kept = resting and len(self._idle) < SPARE and child.forget()
            if kept:
                self._idle.append(child)
        if not kept:
            child.close()


class WasmLine:
    """Frames of JSON to and from one guest. Not safe for several threads.

    Nothing but the guest's answers comes over it, each when it was asked for: what it prints has no way here.
    """

    def __init__(self, child: Child, release: Callable[[Child, bool], None]) -> None:
        self._child = child
        self._release = release
        self._resting = True
        """Whether the child waits for whatever comes next, and not for an answer to a guest."""

    def send(self, frame: JsonObject, deadline: float, cancel: threading.Event | None = None) -> None:
        """`deadline` on the monotonic clock. Raises `BadInput` for what is too large or no JSON, and `LineSilent`."""
        data = packed(frame)
        self._resting = False
        self._child.send(data[4:], deadline, cancel)

    def receive(self, deadline: float, cancel: threading.Event | None = None) -> dict[str, Any]:
        """The next frame. Raises `LineClosed`, `LineFull` and `LineSilent`."""
        letter, data = self._child.receive(deadline, cancel)
        self._resting = letter != ASKS
        if letter == LATE:
            raise LineSilent
        if letter == FULL:
            raise LineFull(f"a frame of more than {MAX_FRAME} bytes")
        if letter not in (SAID, ASKS):
            raise LineClosed(data.decode("utf-8", "replace"))
        return parsed(data)

    def kill(self) -> None:
        """End the guest, whatever it does."""
        self._release(self._child, self._resting)


class Child:
    """A process with the engine, and its line."""

    def __init__(self, argv: list[str]) -> None:
        self._process = spawn(argv, cwd=Path(argv[0]).parent, env=child_env(), stdin=PIPE, stdout=PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._watch = _Watch(lambda: kill_group(self._process, grace=0.0))

    def send(self, data: bytes, deadline: float, cancel: threading.Event | None) -> None:
        """That it has ended is met when its answer is read."""
        milliseconds = min(max(0, int(1000 * (deadline - time.monotonic()))), _MOST_MILLISECONDS)
        left = memoryview(len(data).to_bytes(4, "big") + milliseconds.to_bytes(4, "big") + data)
        with self._watch.over(deadline + GRACE, cancel):
            try:
                while left:
                    left = left[self._to.write(left) :]
            except OSError:
                return

    def receive(self, deadline: float, cancel: threading.Event | None) -> tuple[bytes, bytes]:
        """A letter, and what came with it."""
        with self._watch.over(deadline + GRACE, cancel):
            head = self._exactly(5)
            size = int.from_bytes(head[1:], "big")
            if size > MAX_FRAME:
                raise LineFull(f"a frame of {size} bytes, {MAX_FRAME} are allowed")
            return head[:1], self._exactly(size)

    def forget(self) -> bool:
        """Let it give up its guest's memory; False when it has ended."""
        try:
            return self._to.write(bytes(8)) == 8
        except OSError:
            return False

    def close(self) -> None:
        self._watch.close()
        kill_group(self._process, grace=0.0)
        self._to.close()
        self._from.close()

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._from.read(count)
            if not part:
                raise LineSilent if self._watch.rang else LineClosed("it has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class _Watch:
    """Ends a child that is waited for in vain. A thread does it, since a pipe cannot be waited for on every system."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._cancel: threading.Event | None = None
        self._wakes = 0.0
        self._closed = False
        self.rang = False
        threading.Thread(target=self._run, daemon=True).start()

    @contextlib.contextmanager
    def over(self, deadline: float, cancel: threading.Event | None) -> Iterator[None]:
        with self._changed:
            self._deadline, self._cancel = deadline, cancel
            if self._wakes > self._next():
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._deadline = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _next(self) -> float:
        """When to look again."""
        if self._deadline is None:
            return float("inf")
        return self._deadline if self._cancel is None else min(self._deadline, time.monotonic() + _SLICE)

    def _run(self) -> None:
        with self._changed:
            while not self._closed and not self.rang:
                now = time.monotonic()
                if self._deadline is not None and (
                    now >= self._deadline or (self._cancel is not None and self._cancel.is_set())
                ):
                    self.rang = True
                    self._end()
                    return
                self._wakes = self._next()
                self._changed.wait(None if self._wakes == float("inf") else self._wakes - now)
