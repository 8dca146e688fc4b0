"""How programs of a project are started for it: a clean environment, nothing left behind, no path that leads out."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agentd.errors import Denied, ToolFailed, ToolMisused
from agentd.sandbox import launch
from agentd.sandbox.confine import Room
from agentd.sandbox.launch import Completed
from agentd.tools.start_files import WATCHES, Watch
from agentd.tools.tool import ToolContext
from agentd.workspace.paths import Workspace

PYTHONS = ("python", "python3")
PYTHON_TOOLS = ("ruff", "black", "mypy")
"""Run as modules of our own interpreter where it has them."""

# `python -m pytest` puts the workspace first on the module path, so that a file pytest.py there would run in place of
# pytest. Importing pytest before the workspace is put there leaves the tests all they need and closes that way.
_PYTEST = "import sys, pytest; sys.path.insert(0, ''); sys.argv[0] = 'pytest'; sys.exit(pytest.main())"
_NAMED = 10
"""So many files stand in a sentence."""
_VALUE = re.compile(r"^--?[A-Za-z][\w-]*=?(.*)$", re.DOTALL)
_DRIVE = re.compile(r"^[A-Za-z]:/")


def execute(
    ctx: ToolContext,
    argv: Sequence[str],
    *,
    timeout: float,
    max_output: int = 1_000_000,
    local: bool = False,
    outputs: Sequence[Path] = (),
) -> Completed:
    """Run a program in the workspace, behind walls; seconds and bytes limited, killed whole on `ctx.cancel`.

    `local`: the program may lie in the workspace; only for a command that the owner typed. `outputs`: other folders
    that it may write to. Raises `ToolFailed` when it touched files that make programs run, which are put back.
    """
    ctx.notes["confined"] = ctx.walls.level
    home = ctx.walls.home
    # What it puts back is no change of the agent.
    watch = Watch(Workspace(ctx.workspace.root), home.state_dir / WATCHES if home else None)
    touched: list[str] = []
    with project_env(ctx) as env:
        room = Room(
            workspace=ctx.workspace.root, scratch=Path(env["TMPDIR"]), outputs=tuple(outputs), still=watch.still
        )
        try:
            done = ctx.walls.run(
                real_argv(argv),
                room=room,
                env=env,
                timeout=seconds_left(ctx, timeout),
                max_output=max_output,
                cancel=ctx.cancel,
                local=local,
            )
        finally:
            touched += watch.settle()
    if touched:
        # Where nothing held them still, it may as well have been a person.
        kept = f"; what stood there lies in {watch.aside}" if watch.aside and watch.aside.exists() else ""
        raise ToolFailed(
            f"{argv[0]} touched files that make programs run: {'; '.join(touched[:_NAMED])}{kept}",
            hint="what could be put back was; the owner has to make such changes, or a file tool with a person's yes",
        )
    return done


def real_argv(argv: Sequence[str]) -> list[str]:
    """What is started for `argv`: our own interpreter for `python`, and its modules for the Python tools."""
    name, *rest = argv
    if name in PYTHONS and rest[:2] == ["-m", "pytest"]:
        return pytest_argv(rest[2:])
    if name in PYTHONS and rest[:1] == ["-m"] and rest[1:2] and rest[1] in PYTHON_TOOLS:
        return [sys.executable, "-P", *rest]
    if name in PYTHONS:
        return [sys.executable, *rest]
    if name == "pytest":
        return pytest_argv(rest)
    if name in PYTHON_TOOLS and importlib.util.find_spec(name) is not None:
        return [sys.executable, "-P", "-m", name, *rest]
    return list(argv)


def pytest_argv(arguments: Sequence[str]) -> list[str]:
    """pytest of our own interpreter, with the workspace first on the module path as `python -m pytest` has it."""
    return [sys.executable, "-P", "-c", _PYTEST, *arguments]


@contextmanager
def project_env(ctx: ToolContext) -> Iterator[dict[str, str]]:
    """Environment of a project's programs; caches and temporary files go to a folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="agentd-run-", ignore_cleanup_errors=True) as scratch:
        env = launch.clean_env()
        env["PATH"] = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), env.get("PATH", os.defpath))))
        yield env | _quiet(Path(scratch))


def _quiet(scratch: Path) -> dict[str, str]:
    temporary = {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    return temporary | {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": f'-o "cache_dir={(scratch / "pytest").as_posix()}"',
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
        "RUFF_CACHE_DIR": str(scratch / "ruff"),
        "MYPY_CACHE_DIR": str(scratch / "mypy"),
        "BLACK_CACHE_DIR": str(scratch / "black"),
        "COVERAGE_FILE": str(scratch / "coverage"),
        "CI": "1",  # test runners of JavaScript wait for a key press without it
        "NO_COLOR": "1",
        "npm_config_update_notifier": "false",
        "npm_config_offline": "true",
        "npm_config_cache": str(scratch / "npm"),
    }


def refuse_outside(ctx: ToolContext, argument: str) -> None:
    """`Denied` for an argument that names something outside the workspace, also as the value of an option."""
    if "\0" in argument:
        raise ToolMisused(f"argument {argument!r} contains a NUL")
    value = _VALUE.match(argument)
    for text in (argument, value[1] if value else "", argument[2:] if argument.startswith("-") else ""):
        if _leads_out(ctx, text):
            raise Denied(f"argument {argument!r} leads out of the workspace", hint="name paths below the workspace")


def _leads_out(ctx: ToolContext, text: str) -> bool:
    path = text.split("::", 1)[0].replace("\\", "/")
    return path.startswith("~") or bool(_DRIVE.match(path)) or not _below(ctx, path)


def _below(ctx: ToolContext, path: str) -> bool:
    try:
        return (ctx.workspace.root / path).resolve().is_relative_to(ctx.workspace.root)
    except (OSError, RuntimeError, ValueError):
        return False


def seconds_left(ctx: ToolContext, most: float) -> float:
    """The time a child may take: `most`, less where the deadline comes earlier."""
    return most if ctx.deadline is None else max(0.1, min(most, ctx.deadline - time.time()))


def must_end(done: Completed, name: str, limit: float) -> None:
    """`ToolFailed` for a program that was killed for its time or for too much output."""
    if done.timed_out:
        raise ToolFailed(
            f"{name} did not end within {max(done.seconds, 0.1):.3g} s and was stopped",
            hint=f"at most {limit:.0f} s are given; do less at once",
        )
    if done.truncated:
        raise ToolFailed(f"{name} wrote more than is taken ({len(done.stdout)} characters) and was stopped")
