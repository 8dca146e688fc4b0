"""What a child of the sandbox tries when the daemon tests it: runs inside, with ctypes and raw system calls at hand.

Each probe tries every way it knows and says which ones were open; that none was is what everybody hopes for.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import mmap
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

# By these names where this file runs; see nursery.py.
frames: Any = importlib.import_module("frames")
linux: Any = importlib.import_module("linux")

MPTCP, FAST_OPEN = 262, 0x20000000
SEIZE = 0x4206
"""Attaches without stopping: where nothing holds, the daemon must not stand still."""
SECONDS = 1.0
"""That a connection may take."""
Way = tuple[str, Callable[[], object]]


def serve(line: int) -> None:
    frames.write(line, {"ready": True})
    while (asked := frames.read(line)) is not None:
        ways = PROBES[asked["probe"]](asked["targets"])
        frames.write(line, {"nonce": asked["nonce"], "open": [name for name, way in ways if _done(way)]})


def _done(way: Callable[[], object]) -> bool:
    try:
        return way() is not False
    except (OSError, MemoryError, RuntimeError, ValueError):
        return False


def _call(name: str, *arguments: object) -> int:
    return int(linux.system_call(name, *arguments))


# files ----------------------------------------------------------------------------------------------------------------


def _read(to: dict[str, Any]) -> Iterator[Way]:
    path = to["file"]
    yield "open", lambda: open(path, "rb").close()
    yield "openat", lambda: _call("openat", -100, path.encode(), 0)
    yield "O_PATH", lambda: os.open(path, os.O_PATH)
    yield "stat", lambda: os.stat(path)
    yield "list", lambda: os.listdir(to["folder"])


def _write(to: dict[str, Any]) -> Iterator[Way]:
    path, new = to["file"], to["folder"] + "/new"
    yield "append", lambda: open(path, "ab").close()
    yield "create", lambda: open(new, "wb").close()
    yield "mkdir", lambda: os.mkdir(new)
    yield "symlink", lambda: os.symlink(path, new)
    yield "mknod", lambda: _call("mknodat", -100, new.encode(), 0o100600, 0)
    yield "chmod", lambda: os.chmod(path, 0o777)
    yield "utime", lambda: os.utime(path, (0, 0))
    yield "truncate", lambda: os.truncate(path, 0)
    yield "unlink", lambda: os.unlink(path)


def _proc(_: dict[str, Any]) -> Iterator[Way]:
    yield "list", lambda: os.listdir("/proc")
    yield "maps", lambda: open("/proc/self/maps").close()
    yield "environ", lambda: open("/proc/1/environ").close()
    yield "root", lambda: os.listdir("/proc/1/root")


# the network ----------------------------------------------------------------------------------------------------------


def _connect(family: int, kind: int, protocol: int, address: Any) -> None:
    with socket.socket(family, kind, protocol) as out:
        out.settimeout(SECONDS)
        out.connect(address)


def _send(kind: int, flags: int, address: Any) -> None:
    # Without a limit of time, with which a connection on its way counts as an error; on this machine it is at once.
    with socket.socket(socket.AF_INET, kind) as out:
        out.sendto(b"probe", flags, address)


def _tcp(to: dict[str, Any]) -> Iterator[Way]:
    address = ("127.0.0.1", to["tcp"])
    yield "connect", lambda: _connect(socket.AF_INET, socket.SOCK_STREAM, 0, address)
    yield "fast open", lambda: _send(socket.SOCK_STREAM, FAST_OPEN, address)
    yield "bind", lambda: socket.create_server(("127.0.0.1", 0)).close()


def _udp(to: dict[str, Any]) -> Iterator[Way]:
    yield "send", lambda: _send(socket.SOCK_DGRAM, 0, ("127.0.0.1", to["udp"]))


def _mptcp(to: dict[str, Any]) -> Iterator[Way]:
    yield "connect", lambda: _connect(socket.AF_INET, socket.SOCK_STREAM, MPTCP, ("127.0.0.1", to["tcp"]))


def _unix(to: dict[str, Any]) -> Iterator[Way]:
    yield "by path", lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, to["unix"])
    yield "abstract", lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, "\0" + to["abstract"])


def _families(_: dict[str, Any]) -> Iterator[Way]:
    kinds = {"packet": (17, 3), "netlink": (16, 3), "vsock": (40, 1), "raw": (2, 3), "alg": (38, 5), "inet6": (10, 1)}
    for name, (family, kind) in kinds.items():
        yield name, lambda family=family, kind=kind: _call("socket", family, kind, 0)  # type: ignore[misc]
    yield "pair", lambda: socket.socketpair()


# processes ------------------------------------------------------------------------------------------------------------


def _fork(_: dict[str, Any]) -> Iterator[Way]:
    yield "fork", lambda: os._exit(0) if (child := os.fork()) == 0 else child
    yield "clone", lambda: os._exit(0) if (child := _call("clone", signal.SIGCHLD, 0, 0, 0, 0)) == 0 else child
    yield "thread", lambda: threading.Thread(target=int, daemon=True).start()


def _exec(_: dict[str, Any]) -> Iterator[Way]:
    # One that can be done takes the child away, which is an answer too.
    for program in (b"/bin/true", b"/usr/bin/true", b"/proc/self/exe"):
        words = (ctypes.c_char_p * 2)(program, None)
        yield "execve", lambda program=program, words=words: _call("execve", program, words, None)  # type: ignore[misc]
    yield "execveat", lambda: _call("execveat", -100, b"/bin/true", None, None, 0)
    yield "memfd", lambda: _call("memfd_create", b"probe", 0)


def _signal(to: dict[str, Any]) -> Iterator[Way]:
    yield "the daemon", lambda: os.kill(to["pid"], 0)
    yield "the parent", lambda: os.kill(os.getppid() or 1, 0)
    yield "everybody", lambda: os.kill(-1, 0)
    yield "by descriptor", lambda: os.pidfd_open(to["pid"])


def _memory_of_others(to: dict[str, Any]) -> Iterator[Way]:
    room = ctypes.create_string_buffer(16)
    mine = (ctypes.c_size_t * 2)(ctypes.addressof(room), 16)
    theirs = (ctypes.c_size_t * 2)(ctypes.addressof(room), 16)
    for name, pid in {"the daemon": to["pid"], "the parent": os.getppid() or 1}.items():
        yield f"attach {name}", lambda pid=pid: _call("ptrace", SEIZE, pid, 0, 0)  # type: ignore[misc]
        yield (
            f"read {name}",
            lambda pid=pid: _call("process_vm_readv", pid, mine, 1, theirs, 1, 0),  # type: ignore[misc]
        )
    yield "be traced", lambda: _call("ptrace", 0, 0, 0, 0)


def _environment(_: dict[str, Any]) -> Iterator[Way]:
    # Python itself sets the one that is left out, where no locale is named.
    yield "names", lambda: bool(set(os.environ) - {"LC_CTYPE"})
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    for name in (b"PATH", b"HOME", b"USER", b"LANG", b"PWD"):
        yield name.decode(), lambda name=name: libc.getenv(name) is not None  # type: ignore[misc]


def _programs(_: dict[str, Any]) -> Iterator[Way]:
    made = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    yield "mmap", lambda: mmap.mmap(-1, mmap.PAGESIZE, prot=made).close()
    page = mmap.mmap(-1, mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    yield "mprotect", lambda: _call("mprotect", start, mmap.PAGESIZE, made)


def _kernel(_: dict[str, Any]) -> Iterator[Way]:
    yield "io_uring", lambda: _call("io_uring_setup", 1, ctypes.create_string_buffer(120))
    yield "user namespace", lambda: _call("unshare", linux.NEWUSER)
    yield "mount", _may_mount
    yield "keyring", lambda: _call("keyctl", 0, -3, 1)
    yield "bpf", lambda: _call("bpf", 0, ctypes.create_string_buffer(128), 128)
    yield "userfaultfd", lambda: _call("userfaultfd", 0)
    yield "perf", lambda: _call("perf_event_open", ctypes.create_string_buffer(128), 0, -1, -1, 0)
    yield "personality", lambda: _call("personality", 0x0040000)


def _may_mount() -> bool:
    """A kind of files that does not exist is what only those are told who may mount: nothing must come of it."""
    try:
        _call("mount", b"none", b"/", b"no-such-kind", 0, None)
    except OSError as error:
        return error.errno == errno.ENODEV
    return True


def _limits(_: dict[str, Any]) -> Iterator[Way]:
    most = resource.RLIM_INFINITY
    yield "memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))
    yield "processes", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
    yield "user", lambda: os.setresuid(0, 0, 0)


def _memory(to: dict[str, Any]) -> Iterator[Way]:
    size = 2 * to["memory_mb"] * 1024 * 1024
    yield "at once", lambda: len(bytearray(size))
    yield "by mmap", lambda: mmap.mmap(-1, size).close()


def _for_ever(_: dict[str, Any]) -> Iterator[Way]:
    while True:
        pass


PROBES: dict[str, Callable[[dict[str, Any]], Iterator[Way]]] = {
    "read a file": _read,
    "write a file": _write,
    "look into /proc": _proc,
    "TCP": _tcp,
    "UDP": _udp,
    "MPTCP": _mptcp,
    "the control socket": _unix,
    "other networks": _families,
    "fork": _fork,
    "exec": _exec,
    "signal the daemon": _signal,
    "another's memory": _memory_of_others,
    "environment": _environment,
    "make programs": _programs,
    "doors of the kernel": _kernel,
    "raise a limit": _limits,
    "memory": _memory,
    "time": _for_ever,
}
"""In the order in which they are tried: the last ones may cost the child."""
