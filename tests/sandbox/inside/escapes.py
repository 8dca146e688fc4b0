"""Ways out in plain Python, with no language layer: each returns what it got hold of, nothing when it was held.

They are tried with one layer away too, so none does harm where it comes through: signals are number 0, nothing of the
host is named but the bait.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

frames: Any = importlib.import_module("frames")
linux: Any = importlib.import_module("linux")
Target = dict[str, Any]
LINE = 3


def serve(line: int) -> None:
    frames.write(line, {"ready": True})
    while (asked := frames.read(line)) is not None:
        try:
            got = ESCAPES[asked["escape"]](asked["to"])
        except (OSError, MemoryError, RuntimeError, ImportError, RecursionError) as error:
            frames.write(line, {"nonce": asked["nonce"], "got": "", "held": repr(error)[:200]})
        else:
            frames.write(line, {"nonce": asked["nonce"], "got": "" if got in (None, False) else repr(got)[:200]})


ESCAPES: dict[str, Callable[[Target], object]] = {}


def escape(way: Callable[[Target], object]) -> Callable[[Target], object]:
    ESCAPES[way.__name__] = way
    return way


def call(name: str, *arguments: object) -> int:
    return int(linux.system_call(name, *arguments))


# files ----------------------------------------------------------------------------------------------------------------


@escape
def read_canary(to: Target) -> object:
    return open(to["file"]).read()


@escape
def read_passwords(to: Target) -> object:
    return open("/etc/passwd").read()


@escape
def read_raw(to: Target) -> object:
    found = call("openat", -100, to["file"].encode(), 0)
    return os.read(found, 100)


@escape
def read_through_root(to: Target) -> object:
    return os.open(to["file"].lstrip("/"), os.O_RDONLY, dir_fd=os.open("/", os.O_PATH))


@escape
def read_through_proc(to: Target) -> object:
    return open("/proc/self/root" + to["file"]).read()


@escape
def list_folder(to: Target) -> object:
    return os.listdir(to["folder"])


@escape
def list_root(to: Target) -> object:
    return os.listdir("/")


@escape
def stat_canary(to: Target) -> object:
    return os.stat(to["file"]).st_size


@escape
def climb_out_of_root(to: Target) -> object:
    os.chroot(".")
    for _ in range(20):
        os.chdir("..")
    os.chroot(".")
    return open(to["file"]).read()


@escape
def open_by_handle(to: Target) -> object:
    handle = ctypes.create_string_buffer(b"\x08\0\0\0\1\0\0\0\2\0\0\0\0\0\0\0")
    return call("open_by_handle_at", -100, handle, 0)


@escape
def import_from_disk(to: Target) -> object:
    return importlib.import_module("smtplib").__file__


@escape
def append(to: Target) -> object:
    return open(to["file"], "a").write("x")


@escape
def create(to: Target) -> object:
    return open(to["folder"] + "/new", "w").write("x")


@escape
def create_in_shared_memory(to: Target) -> object:
    return open("/dev/shm/agentd-escape", "w").write("x")


@escape
def make_folder(to: Target) -> object:
    return os.mkdir(to["folder"] + "/new") or "made"


@escape
def make_node(to: Target) -> object:
    return call("mknodat", -100, (to["folder"] + "/new").encode(), 0o100600, 0) == 0


@escape
def make_link(to: Target) -> object:
    return os.link(to["file"], to["folder"] + "/new") or "made"


@escape
def rename(to: Target) -> object:
    return os.rename(to["file"], to["folder"] + "/new") or "renamed"


@escape
def unlink(to: Target) -> object:
    return os.unlink(to["file"]) or "gone"


@escape
def change_mode(to: Target) -> object:
    return os.chmod(to["file"], 0o777) or "changed"


@escape
def change_time(to: Target) -> object:
    return os.utime(to["file"], (0, 0)) or "changed"


@escape
def truncate(to: Target) -> object:
    return os.truncate(to["file"], 0) or "cut"


@escape
def inherited_descriptors(to: Target) -> object:
    return [number for number in range(64) if number > LINE and os.fstat(number)]


# environment ----------------------------------------------------------------------------------------------------------


@escape
def environment(to: Target) -> object:
    return sorted(set(os.environ) - {"LC_CTYPE"}) or None


@escape
def environment_of_c(to: Target) -> object:
    found = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    names, at = [], 0
    while found[at]:
        names.append(found[at])
        at += 1
    return [name for name in names if not name.startswith(b"LC_CTYPE=")] or None


@escape
def environment_of_the_parent(to: Target) -> object:
    return open(f"/proc/{os.getppid()}/environ").read()


@escape
def arguments_of_the_daemon(to: Target) -> object:
    return open(f"/proc/{to['pid']}/cmdline").read()


# programs -------------------------------------------------------------------------------------------------------------


def _words(*words: bytes) -> Any:
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


@escape
def execute(to: Target) -> object:
    return call("execve", b"/bin/true", _words(b"true"), None)


@escape
def execute_at(to: Target) -> object:
    return call("execveat", -100, b"/bin/true", _words(b"true"), None, 0)


@escape
def spawn(to: Target) -> object:
    return os.posix_spawn("/bin/true", ["true"], {})


@escape
def shell(to: Target) -> object:
    return os.system("true") == 0


@escape
def execute_memory(to: Target) -> object:
    found = os.memfd_create("x", 0)
    os.write(found, b"#!/bin/true\n")
    return call("execveat", found, b"", _words(b"x"), None, 0x1000)


@escape
def machine_code(to: Target) -> object:
    return len(mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))


@escape
def machine_code_later(to: Target) -> object:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    call("mprotect", ctypes.addressof(ctypes.c_char.from_buffer(page)), mmap.PAGESIZE, 7)
    return "made"


# network --------------------------------------------------------------------------------------------------------------


def _connect(family: int, kind: int, protocol: int, address: Any) -> object:
    with socket.socket(family, kind, protocol) as out:
        out.settimeout(1.0)
        out.connect(address)
        return "connected"


@escape
def tcp(to: Target) -> object:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", to["tcp"]))


@escape
def tcp_fast_open(to: Target) -> object:
    with socket.socket() as out:
        return out.sendto(b"x", 0x20000000, ("127.0.0.1", to["tcp"]))


@escape
def mptcp(to: Target) -> object:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, 262, ("127.0.0.1", to["tcp"]))


@escape
def udp(to: Target) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        return out.sendto(b"x", ("127.0.0.1", to["udp"]))


@escape
def control_socket(to: Target) -> object:
    return _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, to["unix"])


@escape
def abstract_socket(to: Target) -> object:
    return _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, "\0" + to["abstract"])


@escape
def vsock(to: Target) -> object:
    return _connect(40, socket.SOCK_STREAM, 0, (2, 1))


@escape
def serve_others(to: Target) -> object:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()


@escape
def packets(to: Target) -> object:
    return call("socket", 17, 3, 0)


@escape
def raw_packets(to: Target) -> object:
    return call("socket", 2, 3, 1)


@escape
def resolve(to: Target) -> object:
    return socket.getaddrinfo("localhost", 80)


# processes ------------------------------------------------------------------------------------------------------------


@escape
def fork(to: Target) -> object:
    child = os.fork()
    if child == 0:
        os._exit(0)
    return child


@escape
def clone(to: Target) -> object:
    child = call("clone", signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return child


@escape
def thread(to: Target) -> object:
    threading.Thread(target=int, daemon=True).start()
    return "started"


@escape
def live_on(to: Target) -> object:
    """Persistence: a process that outlives the one that is killed."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(30)
        os._exit(0)
    return child


@escape
def signal_the_daemon(to: Target) -> object:
    return os.kill(to["pid"], 0) or "heard"


@escape
def signal_the_zygote(to: Target) -> object:
    return os.kill(os.getppid() or 1, 0) or "heard"


@escape
def signal_everybody(to: Target) -> object:
    return os.kill(-1, 0) or "heard"


@escape
def trace_the_zygote(to: Target) -> object:
    return call("ptrace", 0x4206, os.getppid() or 1, 0, 0) or "attached"


@escape
def read_the_daemon(to: Target) -> object:
    room = ctypes.create_string_buffer(8)
    part = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8)
    return call("process_vm_readv", to["pid"], part, 1, part, 1, 0)


@escape
def write_the_zygote(to: Target) -> object:
    room = ctypes.create_string_buffer(8)
    part = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8)
    return call("process_vm_writev", os.getppid() or 1, part, 1, part, 1, 0)


@escape
def steal_a_descriptor(to: Target) -> object:
    return call("pidfd_getfd", os.pidfd_open(os.getppid() or 1), 3, 0)


@escape
def slow_the_daemon(to: Target) -> object:
    return os.setpriority(os.PRIO_PROCESS, to["pid"], 19) or "slowed"


# more rights ----------------------------------------------------------------------------------------------------------


@escape
def become_root(to: Target) -> object:
    if os.geteuid() == 0:
        return "is root"
    return os.setresuid(0, 0, 0) or "root"


@escape
def world_of_its_own(to: Target) -> object:
    return call("unshare", linux.NEWUSER | linux.NEWNS) == 0


@escape
def mount(to: Target) -> object:
    return call("mount", b"none", b"/tmp", b"tmpfs", 0, None) == 0


@escape
def keys_that_stay(to: Target) -> object:
    return call("add_key", b"user", b"agentd-escape", b"x", 1, -5)


@escape
def rings(to: Target) -> object:
    return call("io_uring_setup", 1, ctypes.create_string_buffer(120))


@escape
def programs_of_the_kernel(to: Target) -> object:
    return call("bpf", 0, ctypes.create_string_buffer(128), 128)


@escape
def faults(to: Target) -> object:
    return call("userfaultfd", 0)


@escape
def raise_limits(to: Target) -> object:
    endless = resource.RLIM_INFINITY
    return resource.setrlimit(resource.RLIMIT_AS, (endless, endless)) or "raised"


# bombs: held when they end, or are ended, within their limits ---------------------------------------------------------


@escape
def memory_at_once(to: Target) -> object:
    return len(bytearray(3 * to["memory_mb"] << 20))


@escape
def memory_in_pieces(to: Target) -> object:
    kept = [bytearray(1 << 20) for _ in range(3 * to["memory_mb"])]
    return len(kept)


@escape
def memory_without_a_file(to: Target) -> object:
    return len(mmap.mmap(-1, 3 * to["memory_mb"] << 20))


@escape
def memory_in_a_descriptor(to: Target) -> object:
    found = os.memfd_create("x")
    return sum(os.write(found, bytes(1 << 20)) for _ in range(3 * to["memory_mb"]))


@escape
def children_without_end(to: Target) -> object:
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    return "twenty"


@escape
def stack_without_end(to: Target) -> object:
    sys.setrecursionlimit(1 << 30)

    def deeper(value: object) -> object:
        return deeper([value])

    return deeper(0)


@escape
def sleep(to: Target) -> object:
    time.sleep(60)
    return "slept"


@escape
def loop(to: Target) -> object:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


@escape
def flood(to: Target) -> object:
    for _ in range(100):
        os.write(LINE, b"\x7f\xff\xff\xff" + bytes(1 << 20))
    return "poured"
