"""Each protection alone, in a process of its own that shuts itself in and then tries."""

from __future__ import annotations

import os
import platform
import re
import struct
import sys
from pathlib import Path

import pytest

from agentd.sandbox import launch, linux

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="Linux's own")

SANDBOX = Path(linux.__file__).parent
HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
START = """
import errno, os, signal, socket, sys
sys.path.append(sys.argv[1])
import linux
from linux import ALLOW, Check, NotHeld, Rule, refuse
def fails(action, number=errno.EPERM):
    try:
        action()
    except OSError as error:
        assert error.errno == number, error
    else:
        raise SystemExit("it could be done")
"""


def inside(code: str, *args: object, cwd: Path) -> str:
    argv = [sys.executable, "-I", "-S", "-c", START + code, str(SANDBOX), *map(str, args)]
    done = launch.run(argv, cwd=cwd, env={}, timeout=20)
    assert done.code == 0, f"{done.code}: {done.stderr}"
    return done.stdout


def test_files_that_are_not_allowed_do_not_open(tmp_path: Path) -> None:
    for name in ("open", "shut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("canary")
    code = """
linux.gain_nothing()
shown, hidden = sys.argv[2] + "/open", sys.argv[2] + "/shut"
linux.confine_files({shown: linux.READ, shown + "/file": linux.WRITE_FILE, sys.argv[2] + "/none": linux.READ})
assert open(shown + "/file").read() == "canary"
open(shown + "/file", "r+").write("C")
fails(lambda: open(shown + "/new", "w"), errno.EACCES)
fails(lambda: open(hidden + "/file"), errno.EACCES)
fails(lambda: os.listdir(hidden), errno.EACCES)
fails(lambda: os.unlink(shown + "/file"), errno.EACCES)
"""
    inside(code, tmp_path, cwd=tmp_path)
    assert (tmp_path / "open" / "file").read_text() == "Canary"


def test_ports_and_strangers_are_out_of_reach(tmp_path: Path) -> None:
    if linux.landlock_version() < 6:
        pytest.skip("this kernel's Landlock knows files alone")
    code = """
linux.gain_nothing()
linux.confine_files({})
fails(lambda: socket.socket().bind(("127.0.0.1", 0)), errno.EACCES)
fails(lambda: socket.socket().connect(("127.0.0.1", 9)), errno.EACCES)
fails(lambda: os.kill(os.getppid(), 0))
"""
    inside(code, cwd=tmp_path)


def test_a_filter_weighs_arguments(tmp_path: Path) -> None:
    code = """
linux.gain_nothing()
rules = [
    Rule("socket", refuse(errno.EAFNOSUPPORT), [Check(0, socket.AF_INET), Check(2, 262)]),
    Rule("socket", ALLOW, [Check(1, socket.SOCK_DGRAM, mask=0xF)]),
    Rule("socket", refuse(), [Check(0, socket.AF_UNIX, differs=True), Check(0, socket.AF_INET, differs=True)]),
    Rule("kill", refuse()),
]
linux.install(linux.filter_program(rules, otherwise=ALLOW))
socket.socket()
socket.socket(socket.AF_UNIX)
socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262), errno.EAFNOSUPPORT)
fails(lambda: socket.socket(socket.AF_INET6))
fails(lambda: os.kill(os.getpid(), 0))
"""
    inside(code, cwd=tmp_path)


def test_who_may_only_compute_has_one_descriptor_and_makes_no_programs(tmp_path: Path) -> None:
    code = """
import mmap
linux.gain_nothing()
linux.install(linux.computing_only(1))
os.write(1, b"heard")
assert sum(bytearray(b"\\1") * 50_000_000) == 50_000_000
fails(lambda: os.write(2, b"unheard"))
fails(lambda: os.open("/", os.O_RDONLY))
fails(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
private_of_a_file = 2
fails(lambda: linux.system_call("mmap", 0, 4096, mmap.PROT_READ, private_of_a_file, 2, 0))
fails(os.fork)
fails(socket.socket)
fails(lambda: os.execv("/bin/true", ["true"]))
fails(lambda: os.kill(os.getpid(), 9))
"""
    assert inside(code, cwd=tmp_path) == "heard"


def test_calls_of_another_machine_kill(tmp_path: Path) -> None:
    other = next(name for name in HEADERS if name != platform.machine())
    code = f"""
linux.gain_nothing()
if os.fork() == 0:
    linux.install(linux.filter_program([], otherwise=ALLOW, machine={other!r}))
    os._exit(0)
print(os.WTERMSIG(os.wait()[1]) == signal.SIGSYS)
"""
    assert inside(code, cwd=tmp_path) == "True\n"


def test_a_world_of_its_own(tmp_path: Path) -> None:
    code = """
uid, gid = os.getuid(), os.getgid()
if not linux.separate(linux.NEWUSER | linux.NEWNET | linux.NEWNS):
    print("no")
    raise SystemExit
linux.keep_user(uid, gid)
assert os.getuid() == uid
linux.raise_loopback()
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname(), 1).close()
fails(lambda: socket.create_connection(("192.0.2.1", 9), 1), errno.ENETUNREACH)
linux.empty_root()
assert os.listdir("/") == []
fails(lambda: open("/new", "w"), errno.EROFS)
linux.drop_capabilities()
fails(linux.empty_root)
print("yes")
"""
    if inside(code, cwd=tmp_path) == "no\n":
        pytest.skip("this kernel lets this user have no namespaces")


def test_memory_is_hidden_and_nothing_is_gained(tmp_path: Path) -> None:
    code = """
linux.gain_nothing()
linux.hide_memory()
linux.die_with_parent()
lines = open("/proc/self/status").read()
assert "NoNewPrivs:\\t1" in lines
assert os.stat("/proc/self/mem").st_uid == 0
import ctypes
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
"""
    inside(code, cwd=tmp_path)


def test_what_the_kernel_does_not_have_is_said() -> None:
    with pytest.raises(linux.NotHeld, match="sparc"):
        linux.filter_program([], otherwise=linux.ALLOW, machine="sparc")
    with pytest.raises(KeyError):
        linux.filter_program([linux.Rule("no_such_call", linux.KILL)], otherwise=linux.ALLOW)


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_headers(machine: str) -> None:
    if not os.path.exists(HEADERS[machine]):
        pytest.skip("no kernel headers")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(HEADERS[machine]).read_text())
    known = {name: int(number) for name, number in found}
    for name in linux.SYSTEM_CALLS:
        program = linux.filter_program([linux.Rule(name, linux.KILL)], otherwise=linux.ALLOW, machine=machine)
        numbers = [value for code, _, _, value in struct.iter_unpack("=HBBI", program) if code == 0x15]
        # Headers may be older than a call; from 424 on all machines have the same numbers.
        newer = [each for each in numbers[1:] if each > max(known.values()) and each >= 424]
        assert numbers[1:] == ([known[name]] if name in known else newer), name
