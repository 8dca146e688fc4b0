"""Is `.venv` what this checkout asks for? Runs before everything else: quick, and readable for old Pythons."""

import os
import shutil
import sys
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "agentd-setup")
"""Three lines: the fingerprint of what was installed, `run` or `dev`, the CMAKE_ARGS that llama.cpp was made with."""
UNFINISHED = "unfinished"
LOCKS = {"run": "requirements.lock", "dev": "requirements-dev.lock"}
OLDEST = (3, 11)
INPUTS = ("pyproject.toml", "requirements.lock", "requirements-dev.lock", "scripts/_install.py")


def ensure(kind: str) -> None:
    """Bring `.venv` to what `run` or `dev` (which includes `run`) needs; most often there is nothing to do."""
    if ready(kind):
        return
    need_python()
    import _install  # takes longer to import than everything else here, and is seldom needed

    _install.install(kind)


def ready(kind: str) -> bool:
    """Whether a finished set-up of this very state of the checkout serves `kind`."""
    mark, installed, cmake_args = stamp()
    return (
        mark == fingerprint()
        and kind in (installed, "run")
        and os.environ.get("CMAKE_ARGS", cmake_args) == cmake_args
        and os.path.exists(program("python"))
    )


def stamp() -> "list[str]":
    """What STAMP says; before the first set-up, three empty texts."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except OSError:
        lines = []
    return [*lines, "", "", ""][:3]


def fingerprint() -> str:
    """Changes whenever the set-up has to run again: other inputs, or the checkout lies elsewhere."""
    value = zlib.crc32(ROOT.encode())
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as file:
            value = zlib.crc32(file.read(), value)
    return format(value, "08x")


def program(name: str) -> str:
    """Path of a program in `.venv`."""
    return os.path.join(VENV, "Scripts", name + ".exe") if os.name == "nt" else os.path.join(VENV, "bin", name)


def need_python() -> None:
    """Go on with the newest Python there is when this one is too old; end with a clear message when there is none."""
    if sys.version_info[:2] >= OLDEST:
        return
    for minor in range(14, OLDEST[1] - 1, -1):
        newer = shutil.which("python3." + str(minor))
        if newer:
            become([newer, *sys.argv])
    sys.exit(
        f"agentd needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}\n"
        "hint: apt install python3.11 python3.11-venv, brew install python, or https://www.python.org/downloads"
    )


def become(argv: "list[str]") -> None:
    """Let `argv` take the place of this process; what Python compiles there is kept, else each start does it anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":  # execv there returns to the shell at once
        import subprocess

        sys.exit(subprocess.call(argv))
    os.execv(argv[0], argv)
