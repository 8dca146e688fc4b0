"""The only door to child processes: an own group that is killed whole, bounded output, no inherited secrets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from agentd.errors import Cancelled, Denied, ToolFailed

WINDOWS = os.name == "nt"
PIPE = subprocess.PIPE
"""For a stream of `spawn`."""
POLL = 0.05
"""Seconds between looks at `cancel` and at the clock."""
GRACE = 0.5
"""Seconds that a group has between the polite signal and the last one; git removes its lock files in it."""

_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
    *(
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "PROGRAMFILES",
    ),
)
_BATCH_UNSAFE = frozenset('&|<>^"%!\r\n')


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a child ended. `code` is None when it was killed for time or output; output is decoded as UTF-8."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False
    truncated: bool = False


def clean_env(extra: Iterable[str] = ()) -> dict[str, str]:
    """The few variables a program needs, and those named in `extra`; no keys, tokens, proxies or Python paths.

    PATH keeps absolute folders only.
    """
    wanted = {*_KEPT, *extra}
    env = {name: value for name, value in os.environ.items() if name in wanted or name.startswith("LC_")}
    if "PATH" in env:
        env["PATH"] = os.pathsep.join(entry for entry in env["PATH"].split(os.pathsep) if os.path.isabs(entry))
    return env


def find_program(name: str, *, cwd: Path, env: Mapping[str, str], local: bool = False) -> str:
    """The absolute path of the program that `name` starts; never one inside `cwd` unless `local`.

    Raises `ToolFailed` when there is none, `Denied` when it lies inside `cwd`. The running interpreter is always taken.
    """
    if "\0" in name or not name:
        raise ToolFailed(f"{name!r} names no program")
    if name == sys.executable:
        return name
    if "/" in name or (WINDOWS and "\\" in name):
        return _named_program(name, cwd, env, local)
    for entry in env.get("PATH", os.defpath).split(os.pathsep):
        found = _runnable(os.path.join(entry, name), env) if os.path.isabs(entry) else None
        if found and (local or not (_inside(entry, cwd) or _inside(found, cwd))):
            return found
    raise ToolFailed(f"there is no program named {name!r} on the PATH", hint="install it, or name another program")


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout: float,
    max_output: int = 1_000_000,
    cancel: threading.Event | None = None,
    stdin: bytes | None = None,
    local: bool = False,
) -> Completed:
    """Run a program to its end and return its exit code and output.

    `timeout` in seconds; `max_output` in bytes for each of stdout and stderr. Its whole process group ends with it, and
    is killed on timeout, on too much output and on `cancel` (raises `Cancelled`). `env` is used exactly as given,
    `clean_env()` when None. `local` lets the program lie inside `cwd`: only for a command that the owner typed.
    """
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"{' '.join(argv)[:200]} was not started: cancelled")
    started = time.monotonic()
    pipe = subprocess.PIPE
    child = spawn(argv, cwd=cwd, env=env, stdin=None if stdin is None else pipe, stdout=pipe, stderr=pipe, local=local)
    wake = threading.Event()
    out, err = _Reader(child.stdout, max_output, wake), _Reader(child.stderr, max_output, wake)
    if stdin is not None:
        threading.Thread(target=_feed, args=(child.stdin, stdin), daemon=True).start()
    why = _watch(child, (out, err), wake, started + timeout, cancel)
    kill_group(child, grace=0.0 if why == "ended" else GRACE)
    for reader in (out, err):
        reader.finish()
    if why == "cancelled":
        raise Cancelled(f"{argv[0]} was stopped: cancelled")
    truncated = out.full or err.full
    return Completed(
        code=child.returncode if why == "ended" and not truncated else None,
        stdout=out.text(),
        stderr=err.text(),
        seconds=time.monotonic() - started,
        timed_out=why == "timeout",
        truncated=truncated,
    )


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    pass_fds: Sequence[int] = (),
    local: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program that lives on, in its own session; end it with `kill_group`.

    Streams left out are the null device; no descriptor but `pass_fds` (not on Windows) is inherited.
    """
    used = clean_env() if env is None else dict(env)
    program = find_program(argv[0] if argv else "", cwd=cwd, env=used, local=local)
    _refuse_batch_tricks(program, argv)
    own_group: dict[str, Any] = (
        {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        if WINDOWS
        else {"start_new_session": True, "pass_fds": tuple(pass_fds)}
    )
    null = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            [program, *argv[1:]],
            cwd=cwd,
            env=used,
            stdin=null if stdin is None else stdin,
            stdout=null if stdout is None else stdout,
            stderr=null if stderr is None else stderr,
            close_fds=True,
            bufsize=0,
            **own_group,
        )
    except (OSError, ValueError) as error:
        raise ToolFailed(f"{argv[0]} could not be started: {error}") from None


def kill_group(child: subprocess.Popen[bytes], *, grace: float = GRACE) -> None:
    """End a child started here with everything it started; returns when it is gone. Fine on one that has ended.

    `grace` in seconds: how long it may end by itself after the polite signal.
    """
    family = [] if _ended(child) else _family(child)
    if grace > 0 and not _ended(child):
        _signal(child, family, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline and not _ended(child):
            time.sleep(POLL / 5)
    _signal(child, family, getattr(signal, "SIGKILL", signal.SIGTERM))
    child.wait()


class _Reader:
    """Takes what a pipe gives into memory, up to `limit` bytes; beyond that it stops reading and says `full`."""

    def __init__(self, pipe: IO[bytes] | None, limit: int, wake: threading.Event) -> None:
        assert pipe is not None
        self._pipe, self._limit, self._wake = pipe, limit, wake
        self._chunks: list[bytes] = []
        self.full = False
        self.done = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        left = self._limit
        try:
            while chunk := os.read(self._pipe.fileno(), 65536):
                self._chunks.append(chunk[:left])
                left -= len(chunk)
                if left < 0:
                    self.full = True
                    break
        except (OSError, ValueError):
            pass  # the pipe was closed under the reader: what came is kept
        self.done = True
        self._wake.set()

    def finish(self) -> None:
        # A process that left the group may hold the pipe open for ever: the reader is a daemon thread and left behind.
        self._thread.join(GRACE)
        if self.done:
            self._pipe.close()

    def text(self) -> str:
        return b"".join(self._chunks).decode("utf-8", "replace")


def _watch(
    child: subprocess.Popen[bytes],
    readers: Sequence[_Reader],
    wake: threading.Event,
    deadline: float,
    cancel: threading.Event | None,
) -> str:
    """Wait; says why the wait is over: `ended`, `full`, `timeout` or `cancelled`."""
    pause = POLL / 50
    while True:
        wake.wait(POLL)
        wake.clear()  # before the look, so that nothing that comes during it is missed
        if any(reader.full for reader in readers):
            return "full"
        finished = all(reader.done for reader in readers)
        if _ended(child):
            return "ended"
        if cancel is not None and cancel.is_set():
            return "cancelled"
        if time.monotonic() >= deadline:
            return "timeout"
        if finished:
            time.sleep(pause)  # the pipes are closed: the exit is near, or it goes on without them
            pause = min(2 * pause, POLL)
            wake.set()


def _feed(pipe: IO[bytes] | None, data: bytes) -> None:
    assert pipe is not None
    left = memoryview(data)
    try:
        while left:
            left = left[pipe.write(left) :]
    except OSError:
        pass  # the child did not want to read it all
    pipe.close()


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has exited; leaves it unreaped where possible, so that its group id cannot be someone else's yet."""
    if WINDOWS or child.returncode is not None:
        return child.poll() is not None
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _family(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Descendants, also those in another group; one whose parents have all ended can no longer be told apart."""
    try:
        return list(psutil.Process(child.pid).children(recursive=True))
    except psutil.Error:
        return []


def _signal(child: subprocess.Popen[bytes], family: Iterable[psutil.Process], number: int) -> None:
    try:
        if WINDOWS:
            child.kill()
        elif child.returncode is None:
            os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # the group is empty
    for process in family:
        try:
            process.send_signal(number)
        except (psutil.Error, ValueError):
            continue


def _named_program(name: str, cwd: Path, env: Mapping[str, str], local: bool) -> str:
    path = os.path.join(cwd, name)
    if not local and (not os.path.isabs(name) or _inside(path, cwd)):
        raise Denied(f"program {name!r} lies inside the workspace {cwd}", hint="name an installed program")
    found = _runnable(path, env)
    if not found:
        raise ToolFailed(f"there is no program {name!r}", hint="install it, or name another program")
    return found


def _inside(path: str, cwd: Path) -> bool:
    """Whether the path, or what it links to, lies in `cwd`."""
    root = os.path.realpath(cwd)
    return any(Path(form).is_relative_to(root) for form in (os.path.abspath(path), os.path.realpath(path)))


def _runnable(path: str, env: Mapping[str, str]) -> str | None:
    endings = ("", *env.get("PATHEXT", ".COM;.EXE;.BAT;.CMD").split(";")) if WINDOWS else ("",)
    for ending in endings:
        if os.path.isfile(path + ending) and os.access(path + ending, os.X_OK):
            return path + ending
    return None


def _refuse_batch_tricks(program: str, argv: Sequence[str]) -> None:
    """A .bat or .cmd file is run by cmd.exe, which reads these characters in arguments as commands."""
    if program.lower().endswith((".bat", ".cmd")) and any(_BATCH_UNSAFE & set(part) for part in argv[1:]):
        raise Denied(f"arguments of {argv[0]} contain characters that cmd.exe would run")
