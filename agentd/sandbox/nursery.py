"""The program of the zygote, run as `python -I -S nursery.py SETTINGS`: forks children that shut themselves in.

It gets nothing but a socket, which it moves to descriptor 3: no environment, no secrets, no open files. Each message on it is `f` with
the descriptor of a line (a child is forked that serves it; the answer is its number) or `k NUMBER` (it is killed).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

CONTROL = 3
LINE = 3
"""In a child."""
_NAMESPACES = "user net pid ipc uts"


def main() -> None:
    settings = json.loads(sys.argv[1])
    os.dup2(settings["control"], CONTROL)
    os.closerange(CONTROL + 1, 1024)
    sys.path += settings["paths"]
    linux: Any = importlib.import_module("linux")
    handler = _preload(settings)
    linux.die_with_parent()
    linux.hide_memory()
    apart = _leave(linux)
    control = socket.socket(fileno=CONTROL)
    control.send(json.dumps({"namespaces": apart, "landlock": linux.landlock_version()}).encode())
    gc.collect()
    gc.freeze()  # so that a child does not copy pages only to look for garbage
    _serve(control, lambda line: _confined(linux, line, handler, settings))


def _preload(settings: dict[str, Any]) -> Callable[[int], None]:
    for name in settings["preload"]:
        importlib.import_module(name)
    module, _, function = settings["handler"].partition(":")
    found: Callable[[int], None] = getattr(importlib.import_module(module), function)
    return found


def _leave(linux: Any) -> list[str]:
    """Into namespaces of our own, where the kernel lets us; the process goes on as the first one of its own."""
    if not linux.separate(linux.NEWUSER | linux.NEWNET | linux.NEWPID | linux.NEWIPC | linux.NEWUTS):
        return []
    first = os.fork()
    if first:
        os.close(CONTROL)
        os.waitpid(first, 0)
        os._exit(0)
    linux.die_with_parent()
    return _NAMESPACES.split()


def _serve(control: socket.socket, child: Callable[[int], None]) -> None:
    living: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 100, 1)
        if not message:
            os._exit(0)
        _bury(living)
        if message == b"f" and descriptors:
            number = os.fork()
            if number == 0:
                control.close()
                child(descriptors[0])
                os._exit(0)
            living.add(number)
            os.close(descriptors[0])
            control.send(b"%d" % number)
        elif message.startswith(b"k ") and (number := int(message[2:])) in living:
            os.kill(number, signal.SIGKILL)


def _bury(living: set[int]) -> None:
    """Take note of who has ended: only a child that was not waited for still has its number."""
    while living:
        try:
            number, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if number == 0:
            return
        living.discard(number)


def _confined(linux: Any, line: int, handler: Callable[[int], None], settings: dict[str, Any]) -> None:
    """Give up everything, then serve the line. Whatever cannot be given up ends the child before it has begun."""
    without = set(settings.get("without", ()))
    with contextlib.suppress(BaseException):
        os.dup2(line, LINE)
        os.closerange(LINE + 1, 1024)
        os.setsid()
        linux.die_with_parent()
        linux.gain_nothing()
        # What is announced on the line first are the limits of this child, by the parent alone.
        limits = _limits(json.loads(_first(LINE)))
        linux.hide_memory()
        if "landlock" not in without and linux.landlock_version():
            linux.confine_files({})
        if "rlimits" not in without:
            for which, value in limits:
                resource.setrlimit(which, (value, value))
        if "seccomp" not in without:
            linux.install(linux.computing_only(LINE))
        handler(LINE)
    os._exit(0)


def _first(line: int) -> bytes:
    select.select([line], [], [], 5.0)
    size = int.from_bytes(os.read(line, 4), "big")
    return os.read(line, size)


def _limits(given: dict[str, Any]) -> list[tuple[int, int]]:
    """Memory is what may come on top of what is shared with the zygote."""
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    return [
        (resource.RLIMIT_AS, now + int(given["memory_mb"]) * 1024 * 1024),
        (resource.RLIMIT_CPU, int(given["seconds"]) + 2),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, LINE + 1),
        (resource.RLIMIT_NPROC, 0),
    ]


if __name__ == "__main__":
    main()
