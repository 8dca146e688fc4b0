"""Make `.venv` and install the checkout into it, pinned by the lock files; can be interrupted and run again."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import _setup

ROOT = Path(_setup.ROOT)
VENV = Path(_setup.VENV)
PYTHON = _setup.program("python")
LOG = ROOT / "state" / "setup.log"
LOCK = ROOT / "state" / "setup.lock"
LLAMA = "llama-cpp-python"
QUIET_SECONDS = 30.0
"""Off a terminal, a long phase gives a sign of life this often."""
COMPILE = "import compileall, sys; [compileall.compile_dir(folder, quiet=2, workers=0) for folder in sys.argv[1:]]"
"""What does not compile is left to whoever imports it."""

HINTS = (
    (
        r"CMAKE_C(XX)?_COMPILER|is not able to compile|\b(g|clang)\+\+.*not found|Microsoft Visual C\+\+",
        "a C++ compiler is missing: apt install build-essential, dnf install gcc-c++, pacman -S base-devel, "
        "xcode-select --install (macOS), or the Build Tools for Visual Studio (Windows)",
    ),
    (r"ensurepip|No module named '?(venv|pip)", "this Python cannot make environments: apt install python3-venv"),
    (r"No space left|[Dd]isk quota", "the disk is full; llama.cpp needs about 1 GB while it compiles"),
    (r"Killed|out of memory|Cannot allocate", "memory ran out; try again with CMAKE_BUILD_PARALLEL_LEVEL=1"),
    (r"DO NOT MATCH THE HASHES|[Hh]ash mismatch", "a package is not the one of the lock file; do not trust its source"),
    (
        r"NewConnectionError|Could not fetch|Temporary failure|timed out|No matching distribution|error sending req",
        "a package could not be had; is there a network? The next call goes on from here",
    ),
)


def install(kind: str) -> None:
    """Set up `.venv` for `run` or `dev`. Ends the process, with the end of the log and a hint, when that fails."""
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        with _alone():
            if not _setup.ready(kind):  # another script may have been quicker
                _install(kind)
                _say(f"set up in {_span(time.monotonic() - started)}")
    except KeyboardInterrupt:
        _say("interrupted; the next call goes on from here")
        sys.exit(130)


def _install(kind: str) -> None:
    _, earlier_kind, earlier_args = _setup.stamp()
    kind = "dev" if "dev" in (kind, earlier_kind) else kind
    cmake_args = os.environ.get("CMAKE_ARGS", earlier_args)
    _say(f"setting up {VENV} for Python {platform.python_version()}")
    _make_environment()
    _write_stamp(_setup.UNFINISHED, kind, earlier_args)  # others are kept only once they are known to work
    _install_llama(cmake_args)
    _phase("packages", [*_installer(), "--require-hashes", "-r", str(ROOT / _setup.LOCKS[kind])])
    _phase("checkout", [*_installer(), "--no-deps", "-e", str(ROOT)])
    # Not every installer does it, and where Python may keep nothing each process compiles all that it imports.
    _phase("byte code", [PYTHON, "-c", COMPILE, str(VENV), str(ROOT / "agentd")])
    _write_stamp(_setup.fingerprint(), kind, cmake_args)


def _write_stamp(mark: str, kind: str, cmake_args: str) -> None:
    fresh = Path(_setup.STAMP + ".new")
    fresh.write_text(f"{mark}\n{kind}\n{cmake_args}\n", encoding="utf-8")
    fresh.replace(_setup.STAMP)


def _make_environment() -> None:
    """A `.venv` with a Python that is new enough and has pip; a usable one stays."""
    usable = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    if Path(PYTHON).exists() and subprocess.call([PYTHON, "-c", usable], stderr=subprocess.DEVNULL) == 0:
        return
    if uv := shutil.which("uv"):
        _phase("environment", [uv, "venv", "--seed", "--clear", "--python", sys.executable, str(VENV)])
    else:
        _phase("environment", [sys.executable, "-m", "venv", "--clear", str(VENV)])


def _installer() -> list[str]:
    uv = shutil.which("uv")
    return [uv, "pip", "install", "--python", PYTHON] if uv else [PYTHON, "-m", "pip", "install"]


# llama.cpp ------------------------------------------------------------------------------------------------------------


def _install_llama(cmake_args: str) -> None:
    """Install llama.cpp from a wheel that is compiled once for this machine, version and CMAKE_ARGS."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(LLAMA + "=="))
    pin = [lines[first]]
    while pin[-1].endswith("\\"):
        pin.append(lines[first + len(pin)])
    made_with = f"{pin[0]} {cmake_args}\n"
    marker = VENV / "agentd-llama"
    if marker.exists() and marker.read_text(encoding="utf-8") == made_with:
        return
    wheel = _llama_wheel("\n".join(pin), cmake_args)
    _phase("llama.cpp, unpacked", [PYTHON, "-m", "pip", "install", "--no-deps", "--force-reinstall", str(wheel)])
    marker.write_text(made_with, encoding="utf-8")


def _llama_wheel(pin: str, cmake_args: str) -> Path:
    """The compiled wheel, from this user's cache, or compiled now (pip may still have one from elsewhere)."""
    key = hashlib.sha256("\n".join([pin, cmake_args, sys.platform, _processor()]).encode()).hexdigest()[:12]
    store = _cache() / f"llama-{key}"
    for wheel in store.glob("*.whl"):
        return wheel
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store) as folder:
        requirement = Path(folder, "llama.txt")
        requirement.write_text(pin + "\n", encoding="utf-8")
        command = [PYTHON, "-m", "pip", "wheel", "-v", "--no-deps", "--require-hashes", "-r", str(requirement)]
        command += ["-w", folder, *(["--no-cache-dir"] if cmake_args else [])]  # pip's cache knows no CMAKE_ARGS
        _phase("llama.cpp", command, CMAKE_ARGS=cmake_args)
        made = next(Path(folder).glob("*.whl"))
        return made.replace(store / made.name)


def _processor() -> str:
    """What this machine's processor is called: llama.cpp is compiled for just that one."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine() + platform.processor()
    return platform.machine() + "".join(re.findall(r"^(?:model name|flags|Features)\s*:.*", about, re.M)[:2])


def _cache() -> Path:
    """Where this user's caches lie."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "agentd", "wheels")


# one phase: a command whose output goes to the log --------------------------------------------------------------------


def _phase(title: str, command: Sequence[str], **variables: str) -> None:
    """Run `command`, saying now and then how far it is; end the process when it fails."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")  # they would let pip look into another environment
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUTF8": "1", **variables}
    started = time.monotonic()
    with LOG.open("a+b") as log:
        log.write(f"\n== {title}: {' '.join(command)}\n".encode())
        log.flush()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=os.name == "posix"
        )
        try:
            code = _follow(child, title, started)
        except BaseException:
            _kill(child)
            raise
    if code != 0:
        _fail(title, command, code)
    _show(f"{title}: {_span(time.monotonic() - started)}", last=True)


def _follow(child: subprocess.Popen[bytes], title: str, started: float) -> int:
    """Wait for the child; on a terminal with a moving line, elsewhere with a line at times."""
    moving = sys.stderr.isatty()
    told = started
    with LOG.open("rb") as log:
        log.seek(0, os.SEEK_END)
        share = ""
        while True:
            earlier, share = share, _share(log) or share
            now = time.monotonic()
            if moving or now - told >= QUIET_SECONDS or (share and not earlier):
                _show(f"{title} … {share}{_span(now - started)}")
                told = now
            try:
                return child.wait(timeout=0.25)
            except subprocess.TimeoutExpired:
                continue


def _share(log: IO[bytes]) -> str:
    """How far the compiler is, from what is new in the log: ninja's `[57/193]`."""
    steps = re.findall(rb"^\s*\[(\d+)/(\d+)\]", log.read(), re.M)
    if not steps:
        return ""
    return f"compiling, only this once (5 to 10 minutes on 2 cores): {100 * int(steps[-1][0]) // int(steps[-1][1])} %, "


def _kill(child: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        os.killpg(child.pid, signal.SIGTERM)
    else:
        child.terminate()
    child.wait()


def _fail(title: str, command: Sequence[str], code: int) -> NoReturn:
    with LOG.open(encoding="utf-8", errors="replace") as log:
        tail = list(deque(log, maxlen=400))
    if sys.stderr.isatty():
        _show("", last=True)
    sys.stderr.write("".join(line if len(line) < 400 else line[:400] + "…\n" for line in tail[-20:]))
    _say(f"{title} failed (exit code {code}): {' '.join(command)}")
    _say(f"the whole log: {LOG}")
    hint = next((hint for pattern, hint in HINTS if re.search(pattern, "".join(tail))), "")
    if hint:
        _say(f"hint: {hint}")
    if args := os.environ.get("CMAKE_ARGS"):
        _say(f"hint: CMAKE_ARGS={args!r} was given; does it work without?")
    sys.exit(1)


def _show(line: str, last: bool = False) -> None:
    """A line about the phase; on a terminal the next one takes its place unless it is the last."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{('agentd: ' + line)[:width] if line else ''}" + ("\n" if last and line else ""))
        sys.stderr.flush()
    elif line:
        _say(line)


def _say(line: str) -> None:
    print(f"agentd: {line}", file=sys.stderr, flush=True)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# one set-up at a time -------------------------------------------------------------------------------------------------


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock of set-ups; the system lets it go when this process ends, however it ends."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        waiting = False
        while not _take(lock):
            if not waiting:
                _say("another set-up of this checkout is running; waiting for it")
                waiting = True
            time.sleep(0.2)
        LOG.write_bytes(b"")
        yield


if sys.platform == "win32":
    import msvcrt

    def _take(lock: IO[str]) -> bool:
        try:
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(lock: IO[str]) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
