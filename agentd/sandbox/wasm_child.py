"""The program that has the engine, run as `python -I -S wasm_child.py SETTINGS`: builds a component, or serves one.

It runs beside the daemon, so that a fault of the engine is none of the daemon's and what does not end is killed. It
reads frames of JSON, each after its length and the milliseconds that an answer may take (four bytes each), and writes
answers, each after a letter and its length; what it passes on it does not look into. A frame of no length gives the
guest's memory up, and the one after that names the limits of the next guest.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SAID, ASKS, LATE, FULL, GONE = b"s", b"a", b"t", b"f", b"x"
"""Letters of an answer, a request, out of time, more than a frame holds, and ended for the reason that follows."""
MAX_FRAME = 1 << 20
OWN_MB = 24
"""Megabytes that a guest has before it has a program."""
STACK = 1 << 19
"""Bytes; the smallest main thread that a system gives us has a megabyte."""
ENTRANCE = "wasm_entrance"
WIT = """
package agentd:guest;
world guest {
  import ask: func(request: string) -> string;
  export answer: func(frame: string) -> string;
}
"""
"""All that a guest and the daemon are to each other."""


def main() -> None:
    settings = json.loads(sys.argv[1])
    sys.path += settings["paths"]
    # Here and not at the top: where they lie is known only now.
    wasmtime: Any = importlib.import_module("wasmtime")
    wasmtime.component = importlib.import_module("wasmtime.component")
    if "build" in settings:
        build(wasmtime, Path(settings["build"]), Path(settings["made"]))
    else:
        serve(wasmtime, settings["component"])


def engine_of(wasmtime: Any) -> Any:
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.max_wasm_stack = STACK
    return wasmtime.Engine(config)


# building -------------------------------------------------------------------------------------------------------------


def build(wasmtime: Any, inside: Path, made: Path) -> None:
    """Make what lies in `inside`, with a CPython, into machine code for the engine."""
    wit, component = made.with_suffix(".wit"), made.with_suffix(".wasm")
    wit.write_text(WIT, encoding="ascii")
    words = ["-q", "-d", wit, "-w", "guest", "componentize", "-p", inside, ENTRANCE, "-o", component]
    sys.argv = ["componentize-py", *map(str, words)]
    importlib.import_module("componentize_py").script()
    made.write_bytes(wasmtime.component.Component.from_file(engine_of(wasmtime), component).serialize())


# serving --------------------------------------------------------------------------------------------------------------


def serve(wasmtime: Any, component: str) -> None:
    clock = Clock()
    maker = Maker(wasmtime, component, clock)
    guest = maker.guest()  # so that everything has been done once that needs more than is left from here on
    layers = clock.shut_in()
    say(SAID, json.dumps({"layers": layers}).encode())
    while (limits := hear()[1]) is not None:
        if limits:
            guest.limit(json.loads(limits)["memory_mb"])
            say(SAID, b'{"ready": true}')
            _converse(guest)
            guest.end()
            guest = maker.guest()  # the next one is ready before it is wanted


def _converse(guest: Guest) -> None:
    while True:
        milliseconds, frame = hear()
        if frame is None:
            os._exit(0)
        if not frame:
            return
        say(*guest.answer(frame.decode(), milliseconds))


class Maker:
    """Makes guests. They import what is given here; to reach for anything else ends them."""

    def __init__(self, wasmtime: Any, path: str, clock: Clock) -> None:
        self.wasmtime, self.clock = wasmtime, clock
        self.engine = engine_of(wasmtime)
        self.component = wasmtime.component.Component.deserialize_file(self.engine, path)
        self.linker = wasmtime.component.Linker(self.engine)
        clock.ring = self.engine.increment_epoch
        with self.linker.root() as root:
            root.add_func("ask", lambda _, request: _asked(request))
            for name in self.component.type.imports(self.engine):
                given = self._given().get(name.partition("@")[0])
                if given:
                    with root.add_instance(name) as interface:
                        for function, does in given.items():
                            interface.add_func(function, does)
        self.linker.define_unknown_imports_as_traps(self.component)

    def guest(self) -> Guest:
        return Guest(self)

    def _given(self) -> dict[str, dict[str, Callable[..., Any]]]:
        """Of WASI: clocks, no environment, no folders, and nothing that nobody could foresee."""
        return {
            "wasi:clocks/wall-clock": {"now": lambda _: self._now()},
            "wasi:clocks/monotonic-clock": {"now": lambda _: time.monotonic_ns()},
            "wasi:random/random": {"get-random-bytes": lambda _, count: _zeros(count)},
            "wasi:cli/environment": {
                "get-environment": lambda _: [],
                "get-arguments": lambda _: [],
                "initial-cwd": lambda _: None,
            },
            "wasi:filesystem/preopens": {"get-directories": lambda _: []},
        }

    def _now(self) -> Any:
        now = self.wasmtime.component.Record()
        now.seconds, now.nanoseconds = divmod(time.time_ns(), 10**9)
        return now


class Guest:
    """A CPython of its own, used for one program."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._store = maker.wasmtime.Store(maker.engine)
        self.limit(0)
        self._store.set_epoch_deadline(1)
        instance = maker.linker.instantiate(self._store, maker.component)
        self._function = instance.get_func(self._store, "answer")
        self._call("")

    def limit(self, memory_mb: int) -> None:
        size = (OWN_MB + memory_mb) * 1024 * 1024
        self._store.set_limits(memory_size=size, table_elements=100_000, instances=100, tables=100, memories=4)

    def end(self) -> None:
        """Give its memory back now."""
        self._store.close()

    def answer(self, frame: str, milliseconds: int) -> tuple[bytes, bytes]:
        """A letter and what comes with it."""
        self._store.set_epoch_deadline(1)
        try:
            with self._maker.clock.within(milliseconds / 1000):
                said = self._call(frame).encode()
        except _TooLong:
            return FULL, b""
        except Exception as error:
            reason = str(error).strip().rpartition("\n")[2].strip()
            return (LATE, b"") if reason.endswith("interrupt") else (GONE, reason.encode()[:1_000])
        return (SAID, said) if len(said) <= MAX_FRAME else (FULL, b"")

    def _call(self, frame: str) -> str:
        said: str = self._function(self._store, frame)
        self._function.post_return(self._store)
        return said


class _TooLong(Exception):
    """A request that no frame holds."""


def _asked(request: str) -> str:
    data = request.encode()
    if len(data) > MAX_FRAME:
        raise _TooLong
    say(ASKS, data)
    answer = hear()[1]
    if not answer:
        os._exit(0)
    return answer.decode()


def _zeros(count: int) -> bytes:
    if count > 1 << 16:
        raise ValueError(f"{count} random bytes")
    return bytes(count)


class Clock:
    """Rings when a call has had its time. In a thread that is there from the start, since none can be made later."""

    ring: Callable[[], None]

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at: float | None = None
        self._shut: list[str] | None = None
        threading.Thread(target=self._run, daemon=True).start()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Any:
        with self._changed:
            self._at = time.monotonic() + seconds
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:  # whoever holds it has rung, or never will
                self._at = None

    def shut_in(self) -> list[str]:
        """This thread and that one. Says in which layers they are."""
        layers = shut_in()
        with self._changed:
            self._shut = layers
            self._changed.notify()
            self._changed.wait_for(lambda: self._shut is None)
        return layers

    def _run(self) -> None:
        with self._changed:
            while True:
                if self._shut is not None:
                    shut_in()
                    self._shut = None
                    self._changed.notify()
                left = None if self._at is None else self._at - time.monotonic()
                if left is not None and left <= 0:
                    self.ring()
                    self._at = left = None
                self._changed.wait(left)


def shut_in() -> list[str]:
    """A second wall around the calling thread, where the system has one: no files, no sockets, no programs."""
    if sys.platform != "linux":
        return []
    linux: Any = importlib.import_module("linux")
    layers = []
    linux.hide_memory()
    linux.gain_nothing()
    if version := linux.landlock_version():
        linux.confine_files({})
        layers.append(f"landlock{version}")
    with contextlib.suppress(linux.NotHeld):
        linux.install(_computing(linux))
        layers.append("seccomp")
    return layers


def _computing(linux: Any) -> bytes:
    no_program = [linux.Check(2, 0, mask=0x4)]
    free = ("munmap", "mremap", "madvise", "brk", "futex", "rt_sigprocmask", "rt_sigreturn", "sched_yield")
    harmless = ("clock_gettime", "clock_nanosleep", "getrandom", "exit", "exit_group")
    rules = [
        linux.Rule("read", linux.ALLOW, [linux.Check(0, 0)]),
        linux.Rule("write", linux.ALLOW, [linux.Check(0, 1)]),
        *(linux.Rule(call, linux.ALLOW, no_program) for call in ("mmap", "mprotect")),
        *(linux.Rule(call, linux.ALLOW) for call in (*free, *harmless)),
    ]
    return bytes(linux.filter_program(rules, otherwise=linux.refuse()))


# the line -------------------------------------------------------------------------------------------------------------


def say(letter: bytes, data: bytes) -> None:
    sys.stdout.buffer.write(letter + len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


def hear() -> tuple[int, bytes | None]:
    """Milliseconds and a frame; None when the daemon has closed the line."""
    head = sys.stdin.buffer.read(8)
    if len(head) < 8:
        return 0, None
    size = int.from_bytes(head[:4], "big")
    data = sys.stdin.buffer.read(size)
    return int.from_bytes(head[4:], "big"), data if len(data) == size else None


if __name__ == "__main__":
    main()
