"""The program of the zygote, run as `python -I -S nursery.py SETTINGS`: forks children that shut themselves in.

It gets nothing but a socket: no environment, no secrets, no open files. Each message on it is the letter of a handler
with the descriptor of a line (a child is forked that serves it, and answered is a number that no other child gets), or
`k NUMBER`, which kills.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

CONTROL = 3
LINE = 3
"""In a child."""
NOBODY = 65534
FIRST_FRAME = 1000
"""Bytes of what a child is told of its limits."""


def main() -> None:
    settings = json.loads(sys.argv[1])
    os.dup2(settings["control"], CONTROL)
    os.closerange(CONTROL + 1, max(1024, settings["control"] + 1))
    sys.path += settings["paths"]
    linux: Any = importlib.import_module("linux")
    handlers = _preload(settings)
    without = set(settings["without"])
    # Read while there is a /proc: what all children share counts for nobody.
    with open("/proc/self/statm", encoding="ascii") as file:
        shared = int(file.read().split()[0]) * resource.getpagesize()
    layers = [layer for layer in ("seccomp", "rlimits") if layer not in without]
    if "landlock" not in without and linux.landlock_version():
        layers.append("landlock")
    if "namespaces" not in without:
        layers += _leave(linux)
    linux.hide_memory()
    # That the daemon ends is met as the end of its messages: the signal would come with the thread that started us.
    control = socket.socket(fileno=CONTROL)
    control.send(json.dumps({"layers": layers, "landlock": linux.landlock_version()}).encode())
    filtered = linux.computing_only(LINE)
    gc.collect()
    gc.freeze()  # so that a child does not copy pages only to look for garbage
    _serve(control, handlers, lambda line: _shut_in(linux, line, layers, filtered, shared))


def _preload(settings: dict[str, Any]) -> dict[bytes, Callable[[int], None]]:
    for name in settings["preload"]:
        importlib.import_module(name)
    found = {}
    for letter, handler in settings["handlers"].items():
        module, _, function = handler.partition(":")
        served = importlib.import_module(module)
        getattr(served, "prepare", lambda: None)()
        found[letter.encode()] = getattr(served, function)
    return found


def _leave(linux: Any) -> list[str]:
    """Into a world of our own, as nobody: no network, no other processes, an empty root. Says how far it came.

    Root needs no user namespace for that; where it is root only by name, it tries as anybody would. The process goes on
    as the first one of its world, and takes all others with it when it ends.
    """
    world = linux.NEWNET | linux.NEWPID | linux.NEWIPC | linux.NEWUTS | linux.NEWNS
    root = os.geteuid() == 0
    apart = root and linux.separate(world)
    if root and not apart:
        _become_nobody()
    if not apart and not linux.separate(world | linux.NEWUSER):
        return []
    first = os.fork()
    if first:
        os.close(CONTROL)
        os.waitpid(first, 0)
        os._exit(0)
    reached = ["namespaces"]
    with contextlib.suppress(OSError):
        linux.empty_root()
        reached.append("empty root")
    if apart:
        _become_nobody()
    linux.drop_capabilities()
    linux.die_with_parent()
    return reached


def _become_nobody() -> None:
    """As far as a container knows that user."""
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def _serve(
    control: socket.socket, handlers: dict[bytes, Callable[[int], None]], shut_in: Callable[[int], None]
) -> None:
    living: dict[int, int] = {}
    numbers = itertools.count(1)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 100, 1)
        if not message:
            os._exit(0)
        if message in handlers and descriptors:
            child = os.fork()
            if child == 0:
                _live(control, descriptors[0], shut_in, handlers[message])
            os.close(descriptors[0])
            number = next(numbers)
            living[number] = child
            control.send(b"%d" % number)
        elif message.startswith(b"k "):
            _end(living.pop(int(message[2:]), 0))


def _end(child: int) -> None:
    """Kill it with its group, and take note: until then nobody else gets its process number."""
    if child == 0:
        return
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _live(control: socket.socket, line: int, shut_in: Callable[[int], None], handler: Callable[[int], None]) -> None:
    """The whole life of a child. Whatever it cannot give up ends it before it has begun."""
    with contextlib.suppress(BaseException):
        control.close()
        shut_in(line)
        handler(LINE)
    os._exit(0)


def _shut_in(linux: Any, line: int, layers: list[str], filtered: bytes, shared: int) -> None:
    os.dup2(line, LINE)
    os.closerange(LINE + 1, 1024)
    os.setsid()
    linux.die_with_parent()
    linux.hide_memory()
    linux.gain_nothing()
    # The first frame is from the daemon alone: the limits of this child.
    size = int.from_bytes(os.read(LINE, 4), "big")
    given = json.loads(os.read(LINE, min(size, FIRST_FRAME)))
    if "landlock" in layers:
        linux.confine_files({})
    if "rlimits" in layers:
        _limit(given, shared)
    if "seccomp" in layers:
        linux.install(filtered)


def _limit(given: dict[str, Any], shared: int) -> None:
    """Memory comes on top of what is shared; seconds of CPU are those of its whole life."""
    for which, value in (
        (resource.RLIMIT_AS, shared + int(given["memory_mb"]) * 1024 * 1024),
        (resource.RLIMIT_CPU, int(given["cpu_seconds"])),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, LINE + 1),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(which, (value, value))


if __name__ == "__main__":
    main()
