"""What Linux offers to shut a process in, through ctypes and the standard library alone: runs under `python -I -S`.

Numbers are those of the kernel's headers (`asm/unistd.h`, `linux/landlock.h`, `linux/seccomp.h`, `linux/prctl.h`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

if sys.platform != "win32":
    import fcntl

# Absent where this file is only imported, not used: Windows and macOS.
_libc: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What a filter of system calls is told of the machine, in the order of the columns below."""
_CALLS = """
read 0 63, write 1 64, close 3 57, mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, brk 12 214, madvise 28 233
rt_sigprocmask 14 135, rt_sigreturn 15 139, setitimer 38 103, sched_yield 24 124, futex 202 98, getrandom 318 278
clock_gettime 228 113, clock_nanosleep 230 115, exit 60 93, exit_group 231 94
openat 257 56, execve 59 221, execveat 322 281, clone 56 220, clone3 435 435, unshare 272 97, setns 308 268, kill 62 129
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, sendto 44 206, sendmsg 46 211, sendmmsg 307 269
ioctl 16 29, prlimit64 302 261, personality 135 92, memfd_create 319 279, mknodat 259 33
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, pidfd_getfd 438 438
kcmp 312 272, move_pages 279 239, migrate_pages 256 238, perf_event_open 298 241, bpf 321 280, userfaultfd 323 282
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, lookup_dcookie 212 18
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, move_mount 429 429, open_tree 428 428, fsopen 430 430
fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442, swapon 167 224, swapoff 168 225
name_to_handle_at 303 264, open_by_handle_at 304 265, fanotify_init 300 262, quotactl 179 60, acct 163 89
keyctl 250 219, add_key 248 217, request_key 249 218, kexec_load 246 104, kexec_file_load 320 294, reboot 169 142
init_module 175 105, finit_module 313 273, delete_module 176 106, syslog 103 116, vhangup 153 58
settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, clock_adjtime 305 266, sethostname 170 161
setdomainname 171 162, iopl 172 -, ioperm 173 -, modify_ldt 154 -
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54
utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7
removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16
"""
"""name, number on x86_64, number on aarch64."""
_ROWS = [row.split() for row in _CALLS.replace("\n", ",").split(",") if row]
_NUMBERS = {name: tuple(None if number == "-" else int(number) for number in numbers) for name, *numbers in _ROWS}
SYSTEM_CALLS = frozenset(_NUMBERS)


class NotHeld(OSError):
    """The kernel does not offer a protection that was asked for."""


def _checked(done: int, what: str) -> int:
    if done < 0:
        number = ctypes.get_errno()
        raise NotHeld(number, f"{what}: {os.strerror(number)}")
    return done


def _long(value: int) -> ctypes.c_ulong:
    return ctypes.c_ulong(value)


def system_call(name: str, *arguments: object) -> int:
    """The call itself, past every library. Integers go as long ones. Raises `NotHeld`."""
    number = dict(zip(_MACHINES, _NUMBERS[name], strict=True)).get(platform.machine())
    if number is None:
        raise NotHeld(errno.ENOSYS, f"{name} is no system call of this machine")
    longs = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *longs)), name)


# processes ------------------------------------------------------------------------------------------------------------

_DEATH_SIGNAL, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38
_CAPABILITIES_VERSION = 0x20080522
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000


def _prctl(option: int, value: int, what: str) -> None:
    _checked(_libc.prctl(option, _long(value), _long(0), _long(0), _long(0)), what)


def die_with_parent() -> None:
    """Killed when the thread that started this process ends. Is lost when the user changes."""
    _prctl(_DEATH_SIGNAL, 9, "the signal of a parent's death")


def hide_memory() -> None:
    """No debugger, no core file, and `/proc/PID` belongs to root."""
    _prctl(_DUMPABLE, 0, "not dumpable")


def gain_nothing() -> None:
    """No program that is started from here on gives more rights than there are now."""
    _prctl(_NO_NEW_PRIVILEGES, 1, "no new privileges")


def drop_capabilities() -> None:
    """Root only by name, also inside a user namespace of one's own."""
    header, nothing = struct.pack("=Ii", _CAPABILITIES_VERSION, 0), bytes(24)
    _checked(_libc.capset(header, nothing), "capabilities")


def separate(flags: int) -> bool:
    """Leave the namespaces that `flags` (`NEW...`) name; False where the kernel does not let this user."""
    return int(_libc.unshare(ctypes.c_int(flags))) == 0


def keep_user(uid: int, gid: int) -> None:
    """In a user namespace of one's own: be the one user that was before, and nobody else."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def raise_loopback() -> None:
    """In a network namespace of one's own: 127.0.0.1 and ::1 answer. Needs its capabilities."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        up_and_running = struct.pack("16sH14x", b"lo", 0x1 | 0x40)
        fcntl.ioctl(any_socket, 0x8914, up_and_running)


# mounts: in a mount namespace of one's own ----------------------------------------------------------------------------

READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS = 0x1, 0x2, 0x4, 0x8
REMOUNT, BIND, RECURSIVE, PRIVATE = 0x20, 0x1000, 0x4000, 0x40000


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """`mount(2)`. Raises `NotHeld`."""
    words = [os.fsencode(word) for word in (source, target, kind)]
    done = _libc.mount(*words, _long(flags), os.fsencode(options) or None)
    _checked(done, f"mount {target}")


def empty_root() -> None:
    """From here on nothing has a name: the root is an empty folder in memory that nobody can write."""
    mount("none", "/", flags=RECURSIVE | PRIVATE)
    held = READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS
    mount("none", "/tmp", "tmpfs", held, "size=4k,mode=555")
    os.chroot("/tmp")
    os.chdir("/")


# Landlock -------------------------------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RIGHTS_KNOWN = {0: 0, 1: 13, 2: 14, 3: 15, 4: 15}
"""How many of the rights below each version knows; from 5 on all 16."""
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = (1 << 16) - 1 - READ - MAKE_CHAR - MAKE_BLOCK - IOCTL_DEV
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Those that a rule for something else than a folder may name."""


def landlock_version() -> int:
    """0 where the kernel has none, or does not let it be used."""
    if _libc is None or platform.system() != "Linux":
        return 0
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def confine_files(allowed: Mapping[str, int], *, network: bool = True, others: bool = True) -> None:
    """From here on this process opens nothing but what lies under the paths `allowed`, with the rights named.

    With `network` it neither binds nor connects a TCP port, with `others` it neither signals processes outside nor
    reaches their abstract sockets; both as far as the kernel's version goes (4 and 6). Paths that do not exist count as
    not named. `gain_nothing` comes first. Raises `NotHeld`.
    """
    version = landlock_version()
    if version == 0:
        raise NotHeld(errno.ENOSYS, "the kernel has no Landlock")
    handled = (1 << _RIGHTS_KNOWN.get(version, 16)) - 1
    parts = [handled, *([0b11 * network] if version >= 4 else []), *([0b11 * others] if version >= 6 else [])]
    attributes = struct.pack(f"={len(parts)}Q", *parts)
    size, flags = ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    rules = _checked(_libc.syscall(_CREATE_RULESET, attributes, size, flags), "Landlock")
    try:
        for path, rights in allowed.items():
            _allow(rules, path, rights & handled)
        _checked(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), flags), "Landlock")
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            rights &= _OF_FILES
        beneath = struct.pack("=Qi", rights, found)
        done = _libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), beneath, ctypes.c_uint32(0))
        _checked(done, f"Landlock for {path}")
    finally:
        os.close(found)


# seccomp --------------------------------------------------------------------------------------------------------------

ALLOW, KILL = 0x7FFF0000, 0x80000000


def refuse(number: int = errno.EPERM) -> int:
    """What makes a system call fail with that error."""
    return 0x00050000 | number


class Check(NamedTuple):
    """Of the low 32 bits of one argument (0 to 5): those of `mask` are `value`, or, with `differs`, are not."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF
    differs: bool = False


class Rule(NamedTuple):
    """What becomes of one system call when all checks hold."""

    call: str
    action: int
    checks: Sequence[Check] = ()


_Line = tuple[int, int, int, int]
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT, _X32 = 0, 4, 16, 0x40000000


def filter_program(rules: Iterable[Rule], otherwise: int, machine: str = "") -> bytes:
    """The rules as code for `install`; the first one that fits decides. Another machine's calls kill.

    Raises `NotHeld` for a machine whose numbers are not known here, `KeyError` for a call that is not.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise NotHeld(errno.ENOSYS, f"no numbers of system calls are known for {machine or 'this machine'}")
    column = list(_MACHINES).index(machine)
    lines: list[_Line] = [
        *((_LOAD, 0, 0, _MACHINE_AT), (_EQUAL, 1, 0, _MACHINES[machine]), (_RETURN, 0, 0, KILL)),
        *((_LOAD, 0, 0, _NUMBER_AT), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, KILL)),
    ]
    for rule in rules:
        number = _NUMBERS[rule.call][column]
        if number is not None:
            lines += _block(number, rule)
    return b"".join(struct.pack("=HBBI", *line) for line in [*lines, (_RETURN, 0, 0, otherwise)])


def _block(number: int, rule: Rule) -> list[_Line]:
    """Falls through to what comes after it, with the call's number loaded, where the rule does not fit."""
    if not rule.checks:
        return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, rule.action)]
    tests = [line for check in rule.checks for line in _test(check)]
    end = len(tests)
    # A jump of one is a test that fails: to the line that loads the number again.
    aimed = [(code, yes * (end - at), no * (end - at), value) for at, (code, yes, no, value) in enumerate(tests)]
    lines = [*aimed, (_RETURN, 0, 0, rule.action), (_LOAD, 0, 0, _NUMBER_AT)]
    return [(_EQUAL, 0, len(lines), number), *lines]


def _test(check: Check) -> list[_Line]:
    compared = (_EQUAL, int(check.differs), int(not check.differs), check.value)
    return [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * check.argument), (_AND, 0, 0, check.mask), compared]


def install(program: bytes) -> None:
    """From here on the filter stands over this thread and all that it starts. `gain_nothing` comes first."""
    room = ctypes.create_string_buffer(program, len(program))
    filled = struct.pack("@HP", len(program) // 8, ctypes.addressof(room))
    done = _libc.prctl(_SECCOMP, _long(2), filled, _long(0), _long(0))
    _checked(done, "seccomp")


def computing_only(descriptor: int) -> bytes:
    """For a process that computes, and speaks over one descriptor alone; no memory becomes a program."""
    own = [Check(0, descriptor)]
    no_program = Check(2, 0, mask=0x4)
    free = ("munmap", "mremap", "madvise", "brk", "futex", "rt_sigprocmask", "rt_sigreturn", "sched_yield")
    harmless = ("clock_gettime", "clock_nanosleep", "setitimer", "getrandom", "exit", "exit_group")
    return filter_program(
        [
            *(Rule(call, ALLOW, own) for call in ("read", "write")),
            Rule("mmap", ALLOW, [no_program, Check(3, 0x20, mask=0x20)]),
            Rule("mprotect", ALLOW, [no_program]),
            *(Rule(call, ALLOW) for call in (*free, *harmless)),
        ],
        otherwise=refuse(),
    )
