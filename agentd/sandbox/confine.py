"""Programs of a project behind walls of the operating system: no network, only the project's files and the system's."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from agentd.config import SandboxSettings
from agentd.errors import AgentdError, SandboxUnavailable
from agentd.home import Places
from agentd.sandbox import linux
from agentd.sandbox.launch import Completed, clean_env, find_program, run
from agentd.sandbox.self_test import Bait

OPEN = "none"
"""The level where the owner has switched the walls off."""
FILE_MB = 4096
PROCESSES = 4096
MOST_STILL = 500
"""Paths that are held still by a mount of their own; the rest is only looked at afterwards."""

_HINT = 'agentd doctor says what is missing; the setting sandbox.commands = "off" runs such programs without walls'
_UNSAFE, _REFUSED = 125, "agentd: not confined: "
"""How the wrapper ends where walls do not stand: exit code, and how stderr begins. It runs alone, so it is told."""
_WRAPPER = Path(__file__).with_name("confined.py")
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix"),
    "/sys/devices/system/cpu",
)
_SECRET = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d"),
    *("/etc/ssh", "/etc/ssl/private", "/etc/krb5.keytab", "/etc/NetworkManager/system-connections"),
)
_SECRET_AT_HOME = (
    *(
        ".ssh",
        ".gnupg",
        ".aws",
        ".azure",
        ".kube",
        ".docker",
        ".config/gcloud",
        ".netrc",
        ".git-credentials",
        ".pypirc",
    ),
    *(".cargo/credentials", ".cargo/credentials.toml", ".password-store", ".mozilla", ".config/gh"),
)
_PROGRAM_FOLDERS = ("bin", "sbin", "shims", "condabin")
_PATIENCE = 20.0
"""Seconds for a look from inside."""
_LANDLOCK_OF_BARE = 6
"""From this version on Landlock keeps signals and abstract sockets in; before, only namespaces do."""


class Mode(StrEnum):
    """What the walls are made of; the first that holds is taken."""

    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    BARE = "bare"
    """Landlock and seccomp alone, where neither this user nor bubblewrap may make namespaces. No sockets at all."""


class Kind(StrEnum):
    """What a program may do at a place."""

    READ = "read"
    WRITE = "write"
    EMPTY = "empty"
    """There is a folder in memory, to write to."""
    HIDDEN = "hidden"
    """Nothing is to be seen there."""


Place = tuple[Kind, str, str]
"""Kind, real path, and the path under which it is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What one run works with. Paths are real ones."""

    workspace: Path
    scratch: Path
    """Is written to as well, and is `/tmp` where there are namespaces."""
    outputs: tuple[Path, ...] = ()
    """Other folders that are written to."""
    still: tuple[Path, ...] = ()
    """In the workspace, and only read."""
    looks: bool = False
    """All of the workspace is only read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """`required`: without walls nothing is run. Of `home` nothing private is seen and nothing written."""

    required: bool = True
    home: Places | None = None
    file_mb: int = FILE_MB
    processes: int = PROCESSES

    @property
    def level(self) -> str:
        """What holds a program, as a look from inside has shown it. Raises `SandboxUnavailable` where nothing does."""
        return level_of(self.mode()) if self.required else OPEN

    @property
    def told(self) -> str:
        """The level in words also where there is none."""
        return "refused" if self.required and reached() is None else self.level

    def mode(self) -> Mode:
        found = reached()
        if found is None:
            raise SandboxUnavailable("this machine has no walls for programs of a project, so none is run", hint=_HINT)
        return found

    def run(
        self,
        argv: Sequence[str],
        *,
        room: Room,
        env: Mapping[str, str],
        timeout: float,
        max_output: int = 1_000_000,
        cancel: threading.Event | None = None,
        local: bool = False,
    ) -> Completed:
        """`launch.run` in the workspace, behind walls. A program that a signal ended has 128 and its number as code."""
        started = list(argv)
        if self.required:
            program = find_program(argv[0] if argv else "", cwd=room.workspace, env=env, local=local)
            started = self.wrapped([program, *argv[1:]], room, env, self.mode())
        done = run(
            started, cwd=room.workspace, env=env, timeout=timeout, max_output=max_output, cancel=cancel, local=local
        )
        if self.required and done.code == _UNSAFE and done.stderr.startswith(_REFUSED):
            raise SandboxUnavailable(f"the walls did not stand: {done.stderr[len(_REFUSED) :].strip()}", hint=_HINT)
        return done

    def wrapped(self, argv: Sequence[str], room: Room, env: Mapping[str, str], mode: Mode) -> list[str]:
        """What is started so that the program, an absolute path, runs behind walls."""
        places = list(self._places(Path(argv[0]), room, env))
        if mode is Mode.BARE:
            places = list(_apart(places, room))
        settings = {
            "mode": mode,
            "cwd": str(room.workspace),
            "places": places,
            "file_mb": self.file_mb,
            "processes": self.processes,
            "unsafe": _UNSAFE,
            "refused": _REFUSED,
        }
        wrapper = [sys.executable, "-I", "-S", str(_WRAPPER), json.dumps(settings), *argv]
        return [*_bubblewrap(places), "--", *wrapper] if mode is Mode.BUBBLEWRAP else wrapper

    def _places(self, program: Path, room: Room, env: Mapping[str, str]) -> Iterator[Place]:
        """From the root down, so that what lies deeper is laid over what lies above it; hidden places at last."""
        user = Path.home()
        readable = [*map(Path, _SYSTEM), *_installations(program, room, env, user), _WRAPPER.parent]
        steering: list[Path] = []
        hidden = [*map(Path, _SECRET), *(user / name for name in _SECRET_AT_HOME)]
        if self.home is not None:
            home = self.home
            steering = [home.config_path, home.home / "policies", home.models_dir, home.plugins_dir]
            steering = [path for path in steering if path.resolve().is_relative_to(room.workspace)]
            hidden += [home.state_dir, home.socket_path.parent]
            if not room.workspace.is_relative_to(home.copies_dir.resolve()):
                hidden.append(home.copies_dir)
        placed = [(Kind.READ, path) for path in (*readable, *steering, *room.still[:MOST_STILL])]
        placed += [(Kind.READ if room.looks else Kind.WRITE, room.workspace)]
        placed += [(Kind.WRITE, path) for path in (room.scratch, *room.outputs)]
        if room.workspace != Path("/tmp"):
            yield Kind.WRITE, str(room.scratch), "/tmp"
        if not user.is_relative_to(room.workspace):
            yield Kind.EMPTY, str(user), str(user)
        found = {(kind, str(path.resolve()), str(seen)) for kind, path in placed for seen in (path, path.resolve())}
        yield from sorted(found, key=lambda place: (len(Path(place[2]).parts), place))
        for path in dict.fromkeys(path.resolve() for path in hidden if path.exists()):
            yield Kind.HIDDEN, str(path), str(path)


def _installations(program: Path, room: Room, env: Mapping[str, str], user: Path) -> Iterator[Path]:
    """The interpreter, the programs on the PATH and the one that is started, each with what it was installed with."""
    yield from (Path(sys.prefix), Path(sys.base_prefix))
    folders = [Path(folder) for folder in env.get("PATH", os.defpath).split(os.pathsep)]
    for folder in (*folders, program.parent, program.resolve().parent):
        private = [user, room.workspace]
        if not folder.is_dir() or any(place.is_relative_to(folder.resolve()) for place in private):
            continue
        above = folder.parent
        whole = folder.name in _PROGRAM_FOLDERS and above.name != ".local"
        yield above if whole and not any(place.is_relative_to(above.resolve()) for place in private) else folder
    yield from (path for path in (user / ".rustup", user / ".gitconfig") if path.exists())


def _apart(places: Sequence[Place], room: Room) -> Iterator[Place]:
    """For Landlock, which can only allow: folders that hold a hidden place are named by what else is in them."""
    hidden = [Path(target) for kind, _, target in places if kind is Kind.HIDDEN]
    for kind, source, target in places:
        if kind is Kind.HIDDEN or target == "/tmp" or kind is Kind.EMPTY:
            continue
        if kind is Kind.WRITE and any(place.is_relative_to(source) for place in hidden):
            raise SandboxUnavailable(f"{source} holds what must stay hidden, and no namespaces can be had", hint=_HINT)
        yield from ((kind, str(path), str(path)) for path in _without(Path(source), hidden))


def _without(path: Path, hidden: Sequence[Path]) -> Iterator[Path]:
    if any(path.is_relative_to(place) for place in hidden):
        return
    if not any(place.is_relative_to(path) for place in hidden):
        yield path
        return
    for below in sorted(path.iterdir()):
        yield from _without(below, hidden)


def _bubblewrap(places: Sequence[Place]) -> Iterator[str]:
    yield from ("bwrap", "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts")
    yield from ("--die-with-parent", "--cap-drop", "ALL", "--dev", "/dev", "--proc", "/proc")
    for kind, source, target in places:
        if kind is Kind.EMPTY or (kind is Kind.HIDDEN and Path(source).is_dir()):
            yield from ("--tmpfs", target, *(("--remount-ro", target) if kind is Kind.HIDDEN else ()))
        else:
            bind = "--bind-try" if kind is Kind.WRITE else "--ro-bind-try"
            yield from (bind, "/dev/null" if kind is Kind.HIDDEN else source, target)
    yield from ("--remount-ro", "/")


def walls_of(home: Places, settings: SandboxSettings) -> Walls:
    """As the owner of a home wants them."""
    return Walls(
        required=settings.commands == "required",
        home=home,
        file_mb=settings.file_mb,
        processes=settings.processes,
    )


# what this machine has ------------------------------------------------------------------------------------------------


def level_of(mode: Mode) -> str:
    """Such as `namespaces+landlock7+seccomp`."""
    version = linux.landlock_version()
    parts = [mode.value] * (mode is not Mode.BARE) + [f"landlock{version}"] * bool(version) + ["seccomp"]
    return "+".join(parts)


@cache
def reached() -> Mode | None:
    """The first mode whose walls hold on this machine; None where none does. Tried once in a process."""
    if sys.platform != "linux":
        return None
    return next((mode for mode in Mode if holds(mode)), None)


def holds(mode: Mode) -> bool:
    """Whether a program, from inside, comes at nothing that it is not to: files, ports, sockets, the kernel's doors."""
    if mode is Mode.BARE and linux.landlock_version() < _LANDLOCK_OF_BARE:
        return False
    with tempfile.TemporaryDirectory(prefix="agentd-walls-") as folder:
        outside, work, scratch = (Path(folder, name) for name in ("outside", "work", "scratch"))
        for path in (outside, work, scratch):
            path.mkdir()
        env, room = clean_env(), Room(workspace=work, scratch=scratch)
        with Bait(outside) as bait:
            argv = [sys.executable, "-I", "-S", "-c", _TRIES, json.dumps(bait.targets)]
            try:
                done = run(Walls().wrapped(argv, room, env, mode), cwd=work, env=env, timeout=_PATIENCE)
            except AgentdError:  # no bubblewrap, or nothing can be started: it does not hold
                return False
            return done.code == 0 and done.stdout.split() == ["held"] and not list(bait.taken())


_TRIES = """
import ctypes, json, os, socket, sys
to = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def failing(done):
    if done != 0:
        raise OSError(ctypes.get_errno())
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as made:
        made.settimeout(1)
        made.connect(address)
        made.send(b"x")
ways = {
    "read": lambda: open(to["file"]).close(),
    "write": lambda: open(to["file"] + "2", "w").close(),
    "TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", to["tcp"])),
    "unix": lambda: connect(socket.AF_UNIX, to["unix"]),
    "abstract": lambda: connect(socket.AF_UNIX, chr(0) + to["abstract"]),
    "mount": lambda: failing(libc.mount(b"none", b"/", b"", 0x44000, None)),
    "user": lambda: failing(libc.unshare(0x10000000)),
    "debug": lambda: failing(libc.ptrace(0, 0, None, None)),
}
through = []
# These may seem to succeed; whether anything arrived is seen from outside.
quiet = [lambda: os.chmod(to["file"], 0o777), lambda: os.utime(to["file"], (1, 1)),
         lambda: connect(socket.AF_INET, ("127.0.0.1", to["udp"]), socket.SOCK_DGRAM)]
for way in quiet:
    try:
        way()
    except OSError:
        pass
for name, way in ways.items():
    try:
        way()
        through.append(name)
    except OSError:
        pass
with open("mine", "w") as file:
    file.write("x")
print(*through or ["held"])
"""
