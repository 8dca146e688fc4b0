"""Run as `python -I -S confined.py SETTINGS PROGRAM ARGUMENT...`: shuts itself in, then becomes a project's program.

SETTINGS are those of `confine.py`, as JSON. Whatever cannot be given up ends it before the program begins.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from typing import Any

_OLD = "/old"
_DETACH, _AT_CWD, _RECURSIVE, _NO_WRITES, _NO_SETUID = 2, -100, 0x8000, 0x1, 0x2
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_UNIX, _INTERNET, _INTERNET_6, _NETLINK = 1, 2, 10, 16
_TYPE_AHEAD, _CONSOLE = 0x5412, 0x541C
_NEVER = """
ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp move_pages migrate_pages perf_event_open bpf
userfaultfd io_uring_setup io_uring_enter io_uring_register lookup_dcookie mount umount2 pivot_root chroot move_mount
open_tree fsopen fsconfig fsmount fspick mount_setattr swapon swapoff name_to_handle_at open_by_handle_at fanotify_init
quotactl acct keyctl add_key request_key kexec_load kexec_file_load reboot init_module finit_module delete_module syslog
vhangup settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname iopl ioperm unshare setns
"""
_OF_METADATA = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
"""
_NO_SUCH_CALL, _NO_SUCH_FAMILY = 38, 97


def main() -> None:
    settings = json.loads(sys.argv[1])
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    linux: Any = importlib.import_module("linux")
    own_world = settings["mode"] == "namespaces"
    try:
        if own_world:
            _leave(linux)
            _build(linux, settings["places"])
            linux.raise_loopback()
        os.chdir(settings["cwd"])
        _give_up(linux, settings)
    except OSError as error:
        sys.stderr.write(f"{settings['refused']}{error}\n")
        sys.stderr.flush()
        os._exit(settings["unsafe"])
    if own_world:
        _first_of(os.fork())
    for number in _PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    os.execv(sys.argv[2], sys.argv[2:])


def _first_of(child: int) -> None:
    """In the parent: wait, take in orphans, and end as the child did. With the first process its whole world ends."""
    if child == 0:
        return
    ended = status = 0
    while ended != child:
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _leave(linux: Any) -> None:
    """Into a world of its own, as the same user; what comes after goes on as its first process."""
    user, group = os.getuid(), os.getgid()
    flags = linux.NEWUSER | linux.NEWNS | linux.NEWPID | linux.NEWNET | linux.NEWIPC | linux.NEWUTS
    if not linux.separate(flags):
        raise OSError("no namespaces")
    linux.keep_user(user, group)
    linux.die_with_parent()
    for number in _PASSED_ON:  # the program may clean up, and its end is ours
        signal.signal(number, signal.SIG_IGN)
    _first_of(os.fork())
    linux.die_with_parent()


# files ----------------------------------------------------------------------------------------------------------------


def _build(linux: Any, places: Iterable[tuple[str, str, str]]) -> None:
    """A new root in memory with nothing in it but the places."""
    linux.mount("none", "/", flags=linux.RECURSIVE | linux.PRIVATE)
    linux.mount("root", "/tmp", "tmpfs", linux.NO_SETUID | linux.NO_DEVICES, "mode=755,size=16m")
    os.mkdir(f"/tmp{_OLD}")
    linux.system_call("pivot_root", b"/tmp", f"/tmp{_OLD}".encode())
    os.chdir("/")
    _devices(linux)
    os.mkdir("/proc")
    with contextlib.suppress(OSError):  # not where a container hides parts of it; the program has none then
        linux.mount("proc", "/proc", "proc", linux.READ_ONLY | linux.NO_SETUID | linux.NO_DEVICES | linux.NO_PROGRAMS)
    for kind, source, target in places:
        _place(linux, kind, _OLD + source, target)
    linux.system_call("umount2", _OLD.encode(), _DETACH)
    os.rmdir(_OLD)
    _restrict(linux, "/", _NO_WRITES, deep=False)


def _place(linux: Any, kind: str, source: str, target: str) -> None:
    if not os.path.lexists(source):
        return
    folder = os.path.isdir(source)
    if not os.path.exists(target):
        os.makedirs(target if folder else os.path.dirname(target), exist_ok=True)
        if not folder:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    if kind == "hidden" and not folder:
        kind, source = "read", f"{_OLD}/dev/null"
    if kind in ("empty", "hidden"):
        held = linux.READ_ONLY if kind == "hidden" else 0
        linux.mount(kind, target, "tmpfs", linux.NO_SETUID | linux.NO_DEVICES | held, "mode=700,size=25%")
        return
    linux.mount(source, target, flags=linux.BIND | linux.RECURSIVE)
    _restrict(linux, target, _NO_SETUID | (_NO_WRITES if kind == "read" else 0))


def _restrict(linux: Any, target: str, attributes: int, *, deep: bool = True) -> None:
    wanted = b"".join(number.to_bytes(8, sys.byteorder) for number in (attributes, 0, 0, 0))
    linux.system_call("mount_setattr", _AT_CWD, os.fsencode(target), _RECURSIVE * deep, wanted, len(wanted))


def _devices(linux: Any) -> None:
    for folder in ("/dev", "/dev/shm", "/dev/pts"):
        os.mkdir(folder)
    for name in _DEVICES:
        if os.path.exists(f"{_OLD}/dev/{name}"):
            os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
            linux.mount(f"{_OLD}/dev/{name}", f"/dev/{name}", flags=linux.BIND)
    linux.mount("shm", "/dev/shm", "tmpfs", linux.NO_SETUID | linux.NO_DEVICES | linux.NO_PROGRAMS, "size=25%")
    with contextlib.suppress(OSError):
        terminals = linux.NO_SETUID | linux.NO_PROGRAMS
        linux.mount("devpts", "/dev/pts", "devpts", terminals, "newinstance,ptmxmode=0666,mode=620")
    for name, meant in _DEVICE_LINKS.items():
        os.symlink(meant, f"/dev/{name}")


# rights ---------------------------------------------------------------------------------------------------------------


def _give_up(linux: Any, settings: dict[str, Any]) -> None:
    """What is left once every file is in its place. The order matters: each takes away what those before it need."""
    bare = settings["mode"] == "bare"
    for which, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, settings["file_mb"] * 1024 * 1024),
        (resource.RLIMIT_NPROC, settings["processes"]),
    ):
        most = resource.getrlimit(which)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(which, (value, value))
    linux.gain_nothing()
    if linux.landlock_version():
        linux.confine_files(_rights(linux, settings["places"], bare), network=bare)
    linux.drop_capabilities()
    linux.install(linux.filter_program(_rules(linux, bare), linux.ALLOW))


def _rights(linux: Any, places: Iterable[tuple[str, str, str]], bare: bool) -> dict[str, int]:
    allowed = {"/proc": linux.READ} if bare else {"/": linux.READ, "/dev": 0xFFFF}
    for name in _DEVICES:
        allowed[f"/dev/{name}"] = linux.READ_FILE | linux.WRITE_FILE | linux.IOCTL_DEV
    for kind, _, target in places:
        if kind in ("write", "empty"):
            allowed[target] = linux.READ | linux.WRITE
        elif bare and kind == "read":
            allowed.setdefault(target, linux.READ)
    return allowed


def _rules(linux: Any, bare: bool) -> list[Any]:
    """What no program of a project needs. Without a network of its own it gets no socket but pairs."""
    never = [linux.Rule(call, linux.refuse()) for call in _NEVER.split()]
    worlds = linux.NEWNS | linux.NEWUTS | linux.NEWIPC | linux.NEWUSER | linux.NEWPID | linux.NEWNET
    for flag in (1 << bit for bit in range(32) if worlds >> bit & 1):
        never.append(linux.Rule("clone", linux.refuse(), [linux.Check(0, flag, mask=flag)]))
    # Its flags lie in memory, where a filter cannot look; without it the C library takes `clone`.
    never.append(linux.Rule("clone3", linux.refuse(_NO_SUCH_CALL)))
    for request in (_TYPE_AHEAD, _CONSOLE):
        never.append(linux.Rule("ioctl", linux.refuse(), [linux.Check(1, request)]))
    if bare:
        # Landlock does not know of them. Programs that copy files call them, and go on when they seem to succeed.
        silent = [linux.Rule(call, linux.refuse(0)) for call in _OF_METADATA.split()]
        return [*never, *silent, linux.Rule("socket", linux.refuse())]
    families = [linux.Rule("socket", linux.ALLOW, [linux.Check(0, kind)]) for kind in (_UNIX, _INTERNET, _INTERNET_6)]
    routes = linux.Rule("socket", linux.ALLOW, [linux.Check(0, _NETLINK), linux.Check(2, 0)])
    return [*never, *families, routes, linux.Rule("socket", linux.refuse(_NO_SUCH_FAMILY))]


if __name__ == "__main__":
    main()
