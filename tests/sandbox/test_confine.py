"""What a project's program comes at from behind the walls, in every mode that this machine has, and what works."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentd.errors import Cancelled, SandboxUnavailable
from agentd.home import Home
from agentd.sandbox import confine, linux
from agentd.sandbox.confine import Mode, Room, Walls
from agentd.sandbox.launch import Completed, clean_env, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="walls are made of what Linux offers")

HEAD = """
import ctypes, json, os, signal, socket, subprocess, sys
to = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
def attempt(way):
    try:
        return way()
    except (OSError, PermissionError) as error:
        return None
"""


@pytest.fixture(params=list(Mode))
def mode(request: pytest.FixtureRequest) -> Mode:
    found = Mode(request.param)
    if not confine.holds(found):
        pytest.skip(f"{found} does not hold here")
    return found


@pytest.fixture
def separate(mode: Mode) -> Mode:
    """A mode with a world of its own."""
    if mode is Mode.BARE:
        pytest.skip("there are no namespaces in it")
    return mode


@pytest.fixture
def room(tmp_path: Path) -> Room:
    found = Room(workspace=tmp_path / "work", scratch=tmp_path / "scratch")
    found.workspace.mkdir()
    found.scratch.mkdir()
    return found


def inside(mode: Mode, room: Room, code: str, walls: Walls | None = None, **more: Any) -> Completed:
    """Python code behind walls; `to` in it is what else is given."""
    limits = {name: more.pop(name) for name in ("timeout", "cancel") if name in more}
    env = clean_env() | {"TMPDIR": str(room.scratch)}
    argv = [sys.executable, "-c", HEAD + code, json.dumps(more)]
    wrapped = (walls or Walls()).wrapped(argv, room, env, mode)
    return run(wrapped, cwd=room.workspace, env=env, **{"timeout": 30.0, **limits})


def printed(mode: Mode, room: Room, code: str, walls: Walls | None = None, **more: Any) -> str:
    done = inside(mode, room, code, walls, **more)
    assert done.code == 0, done
    return done.stdout.strip()


def test_what_the_system_offers_holds() -> None:
    """Without it, walls that fall would only be skipped by the tests below."""
    worlds = ["--unshare-user", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/", "true"]
    offered = {
        Mode.NAMESPACES: ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount", "true"],
        Mode.BUBBLEWRAP: ["bwrap", *worlds],
    }
    for mode, command in offered.items():
        there = shutil.which(command[0]) and subprocess.run(command, capture_output=True).returncode == 0
        assert confine.holds(mode) or not there, mode
    assert confine.holds(Mode.BARE) is (linux.landlock_version() >= 6)


# what is held ---------------------------------------------------------------------------------------------------------


def test_nothing_outside_is_read_written_or_changed(mode: Mode, room: Room, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    canary.chmod(0o640)
    before = canary.stat()
    code = """
print(attempt(lambda: open(to["canary"]).read()))
print(attempt(lambda: open(to["canary"], "r+").write("x")))
attempt(lambda: open(to["canary"] + "2", "w").write("x"))  # where there are namespaces, in an empty /tmp of its own
print(attempt(lambda: os.truncate(to["canary"], 0)))
print(attempt(lambda: os.rename(to["canary"], "taken")))
print(attempt(lambda: os.link(to["canary"], "linked")))
print(attempt(lambda: open("/etc/shadow").read()))
print(attempt(lambda: open("/usr/planted", "w").write("x")))
attempt(lambda: os.chmod(to["canary"], 0o777))
attempt(lambda: os.utime(to["canary"], (1, 1)))
attempt(lambda: os.setxattr(to["canary"], "user.x", b"x"))
"""
    assert set(printed(mode, room, code, canary=str(canary)).split()) == {"None"}
    after = canary.stat()
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, before.st_size)
    assert canary.read_text() == "secret"
    assert sorted(os.listdir(tmp_path)) == ["canary", "scratch", "work"]


def test_links_out_of_the_workspace_lead_nowhere(mode: Mode, room: Room, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("secret")
    (room.workspace / "link").symlink_to(tmp_path / "canary")
    assert printed(mode, room, "print(attempt(lambda: open('link').read()))") == "None"


def test_the_user_s_secrets_are_not_there(
    mode: Mode, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    for name in (".ssh/id", ".config/x", ".local/bin/tool", ".local/share/keys"):
        (user / name).parent.mkdir(parents=True, exist_ok=True)
        (user / name).write_text("secret")
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("PATH", f"{user}/.local/bin:{os.environ['PATH']}")
    code = "print(*[attempt(lambda: open(to['user'] + name).read()) for name in to['names']])"
    names = ["/.ssh/id", "/.config/x", "/.local/share/keys", "/.local/bin/tool"]
    assert printed(mode, room, code, user=str(user), names=names) == "None None None secret"


def test_agentd_s_own_home_in_the_workspace(separate: Mode, room: Room) -> None:
    for folder in ("state", "policies"):
        (room.workspace / folder).mkdir()
        (room.workspace / folder / "file").write_text("ours")
    (room.workspace / "agentd.toml").write_text("ours")
    code = """
print(attempt(lambda: open("state/file").read()), os.listdir("state"), open("policies/file").read())
for name in ("state/new", "policies/file", "policies/new", "agentd.toml"):
    print(attempt(lambda: open(name, "w")))
print(attempt(lambda: os.rename("policies", "elsewhere")), attempt(lambda: os.rename("agentd.toml", "old")))
"""
    told = printed(separate, room, code, Walls(home=Home(room.workspace)))
    assert told.splitlines() == ["None [] ours", *["None"] * 4, "None None"]
    assert sorted(os.listdir(room.workspace)) == ["agentd.toml", "policies", "state"]


def test_bare_walls_do_not_hide_what_lies_in_the_workspace_so_nothing_runs(room: Room) -> None:
    (room.workspace / "state").mkdir()
    with pytest.raises(SandboxUnavailable, match="must stay hidden"):
        Walls(home=Home(room.workspace)).wrapped(["/bin/true"], room, {}, Mode.BARE)


def test_no_socket_of_this_machine_is_reached(mode: Mode, room: Room, tmp_path: Path) -> None:
    with ExitStack() as opened:
        names = {
            "tcp": ("127.0.0.1", 0),
            "udp": ("127.0.0.1", 0),
            "unix": str(tmp_path / "s"),
            "abstract": f"\0{tmp_path}",
        }
        made = {}
        for name, address in names.items():
            family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
            kind = socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM
            made[name] = opened.enter_context(socket.socket(family, kind))
            made[name].bind(address)
            made[name].setblocking(False)
            if name != "udp":
                made[name].listen()
        ports = {name: made[name].getsockname()[1] for name in ("tcp", "udp")}
        code = """
def reach(family, kind, address, protocol=0):
    with socket.socket(family, kind, protocol) as made:
        made.settimeout(1)
        made.connect(address)
        made.send(b"x")
INET, UNIX, STREAM = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM
attempt(lambda: reach(INET, STREAM, ("127.0.0.1", to["tcp"])))
attempt(lambda: reach(INET, STREAM, ("127.0.0.1", to["tcp"]), 262))
attempt(lambda: reach(INET, socket.SOCK_DGRAM, ("127.0.0.1", to["udp"])))
attempt(lambda: reach(UNIX, STREAM, to["unix"]))
attempt(lambda: reach(UNIX, STREAM, chr(0) + to["abstract"]))
for family in (17, 38, 40):  # packets, the kernel's ciphers, the machine below this one
    print(attempt(lambda: socket.socket(family, socket.SOCK_RAW if family == 17 else STREAM)))
"""
        more = {"unix": names["unix"], "abstract": str(tmp_path)}
        assert set(printed(mode, room, code, **ports, **more).split()) == {"None"}
        for name, listener in made.items():
            with pytest.raises(BlockingIOError):
                listener.recv(1) if name == "udp" else listener.accept()


def test_other_processes_are_not_touched(mode: Mode, room: Room) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        code = """
attempt(lambda: os.kill(to["pid"], signal.SIGKILL)) if to["bare"] else None
print(attempt(lambda: call("ptrace", 16, to["pid"], None, None)), attempt(lambda: call("ptrace", 0, 0, None, None)))
print(attempt(lambda: open(f"/proc/{to['pid']}/environ").read()))
"""
        told = printed(mode, room, code, pid=other.pid, bare=mode is Mode.BARE).splitlines()
        assert other.poll() is None
        other.kill()
    assert told == ["None None", "None"]


def test_no_rights_come_back(mode: Mode, room: Room) -> None:
    code = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(status["CapEff"].strip(), status["CapPrm"].strip(), status["NoNewPrivs"].strip(), status["Seccomp"].strip())
print(attempt(lambda: call("unshare", 0x10000000)), attempt(lambda: call("mount", b"x", b"/tmp", b"tmpfs", 0, None)))
print(attempt(lambda: call("syscall", 425, 1, None)), attempt(lambda: os.chroot(".")))
print(attempt(lambda: open("/proc/sys/kernel/core_pattern", "w")))
"""
    first, *others = printed(mode, room, code).splitlines()
    assert first.split() == ["0" * 16, "0" * 16, "1", "2"]
    assert set(" ".join(others).split()) == {"None"}


def test_the_environment_is_the_one_that_was_given(mode: Mode, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTD_CANARY", "secret")
    assert "secret" not in printed(mode, room, "print(os.environ, open('/proc/self/environ').read())")


def test_nothing_is_left_of_what_it_started(separate: Mode, room: Room) -> None:
    code = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", to["mark"]])
    os._exit(0)
"""
    mark = str(60 + os.getpid() / 1e7)
    inside(separate, room, code, mark=mark)
    assert not [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]


def test_file_and_process_limits(mode: Mode, room: Room) -> None:
    code = """
import resource
print(resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_NPROC)[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
print(attempt(lambda: open("big", "wb", buffering=0).write(bytes(2 << 20))))
"""
    told = printed(mode, room, code, Walls(file_mb=1, processes=500))
    assert told.splitlines() == ["0 500", str(1 << 20)]


# what works -----------------------------------------------------------------------------------------------------------


def test_ordinary_programs_work(mode: Mode, room: Room) -> None:
    code = """
import shutil, tempfile
with tempfile.TemporaryDirectory() as folder, open(folder + "/a", "w") as file:
    file.write("x")
open("made", "w").write("x")
os.makedirs("deep/er")
os.rename("made", "deep/er/made")
shutil.copy("deep/er/made", "copy")
print(subprocess.run(["sh", "-c", "ls /usr | wc -l > /dev/null"], capture_output=True, check=True).returncode)
a, b = socket.socketpair()
"""
    assert printed(mode, room, code) == "0"
    assert (room.workspace / "copy").read_text() == "x"


def test_a_world_of_its_own_has_a_network_and_shared_memory(separate: Mode, room: Room) -> None:
    code = """
import asyncio, multiprocessing, pathlib, tempfile
from multiprocessing import shared_memory
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    client.send(b"hello")
    print(server.accept()[0].recv(5).decode())
with multiprocessing.Pool(2) as pool:
    print(pool.map(abs, [-1, -2]))
memory = shared_memory.SharedMemory(create=True, size=10)
memory.unlink()
pathlib.Path("/tmp/x").write_text("x")
pathlib.Path.home().joinpath("x").write_text("x")
os.openpty()
os.chmod("/tmp/x", 0o600)
"""
    assert printed(separate, room, code).splitlines() == ["hello", "[1, 2]"]
    assert not Path.home().joinpath("x").exists()


def test_exit_codes_and_signals(mode: Mode, room: Room) -> None:
    assert inside(mode, room, "sys.exit(7)").code == 7
    killed = inside(mode, room, "os.kill(os.getpid(), signal.SIGKILL)").code
    assert killed in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert inside(mode, room, "os.abort()").code in (-signal.SIGABRT, 128 + signal.SIGABRT)


def test_what_is_still_is_only_read(separate: Mode, room: Room) -> None:
    hooks = room.workspace / ".git" / "hooks"
    hooks.mkdir(parents=True)
    (room.workspace / "conftest.py").write_text("x")
    held = Room(
        workspace=room.workspace,
        scratch=room.scratch,
        still=(room.workspace / ".git", room.workspace / "conftest.py"),
    )
    code = """
open("made", "w").close()
print(attempt(lambda: open("conftest.py", "w")), attempt(lambda: os.unlink("conftest.py")))
print(attempt(lambda: os.rename("made", "conftest.py")), attempt(lambda: os.rename(".git", "git")))
print(attempt(lambda: open(".git/hooks/pre-commit", "w")))
"""
    assert set(printed(separate, held, code).split()) == {"None"}


def test_a_limit_of_time_ends_all(mode: Mode, room: Room) -> None:
    done = inside(mode, room, "print('begun', flush=True)\nsubprocess.run(['sleep', '60'])", timeout=1.0)
    assert done.timed_out
    assert done.stdout == "begun\n"


def test_it_may_clean_up_before_it_is_killed(room: Room) -> None:
    if not confine.holds(Mode.NAMESPACES):
        pytest.skip("no namespaces here")
    code = """
signal.signal(signal.SIGTERM, lambda *_: (open("cleaned", "w").close(), sys.exit(0)))
signal.pause()
"""
    assert inside(Mode.NAMESPACES, room, code, timeout=1.0).timed_out
    assert (room.workspace / "cleaned").exists()


def test_cancel_reaches_it(mode: Mode, room: Room) -> None:
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Cancelled):
        inside(mode, room, "signal.pause()", cancel=cancel)


# closed when in doubt -------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_holds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    confine.reached.cache_clear()
    monkeypatch.setattr(confine, "holds", lambda mode: False)
    yield
    confine.reached.cache_clear()


@pytest.mark.usefixtures("nothing_holds")
def test_without_walls_nothing_is_run(room: Room) -> None:
    argv = [sys.executable, "-c", "open('ran', 'w')"]
    with pytest.raises(SandboxUnavailable) as refused:
        Walls().run(argv, room=room, env=clean_env(), timeout=10)
    assert 'sandbox.commands = "off"' in refused.value.hint
    assert Walls().told == "refused"
    assert not (room.workspace / "ran").exists()


@pytest.mark.usefixtures("nothing_holds")
def test_the_owner_may_switch_them_off(room: Room) -> None:
    open_walls = Walls(required=False)
    argv = [sys.executable, "-c", "open('ran', 'w')"]
    assert open_walls.run(argv, room=room, env=clean_env(), timeout=10).code == 0
    assert open_walls.level == open_walls.told == confine.OPEN
    assert (room.workspace / "ran").exists()


def test_walls_that_do_not_stand_run_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    if confine.reached() is None:
        pytest.skip("no walls here")
    monkeypatch.setattr(Walls, "_places", lambda *_: iter([("read", "/proc/self/mem", "/dev/null/x")]))
    monkeypatch.setattr(Walls, "mode", lambda _: Mode.NAMESPACES)
    with pytest.raises(SandboxUnavailable, match="did not stand"):
        Walls().run([sys.executable, "-c", "open('ran', 'w')"], room=room, env=clean_env(), timeout=10)
    assert not (room.workspace / "ran").exists()
