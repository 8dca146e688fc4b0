"""One program with its arguments: no shell, nothing outside, nothing of the workspace."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import Denied, InDoubt, ToolFailed, ToolMisused
from agentd.tools.programs import real_argv
from agentd.tools.shell import run_command
from agentd.tools.tool import ToolContext
from agentd.types import Action, ToolResult
from agentd.workspace.paths import Workspace


def context(root: Path, **more: Any) -> ToolContext:
    return ToolContext(workspace=Workspace(root), key="task-1/call-1", **more)


def call(root: Path, command: str, **more: Any) -> ToolResult:
    result = run_command.run(context(root, **more), command=command)
    assert isinstance(result, ToolResult)
    return result


def test_output_and_exit_code(tmp_path: Path) -> None:
    told = call(tmp_path, """python -c 'import sys; print("hello"); print("bad", file=sys.stderr); sys.exit(3)'""")
    assert told.text.splitlines()[0].endswith("failed with exit code 3:")
    assert told.text.splitlines()[1:] == ["hello", "bad"]
    assert told.data["code"] == 3
    assert call(tmp_path, "python -c pass").text == "`python -c pass` succeeded (exit code 0) and printed nothing."


def test_no_shell_reads_it(tmp_path: Path) -> None:
    text = call(tmp_path, "echo $HOME `id` *; touch made | cat > made && touch made").text
    assert text.splitlines()[1] == "$HOME `id` *; touch made | cat > made && touch made"
    assert list(tmp_path.iterdir()) == []


def test_python_is_our_own_and_its_environment_clean(tmp_path: Path) -> None:
    assert sys.executable in call(tmp_path, "python3 -c 'import sys; print(sys.executable)'").text
    names = call(tmp_path, "python -c 'import os; print(*sorted(os.environ))'").text
    assert "PYTEST_CURRENT_TEST" not in names


def test_python_tools_are_not_taken_from_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "ruff.py").write_text("print('planted')\n")
    (tmp_path / "mypy.py").write_text("print('planted')\n")
    assert "planted" not in call(tmp_path, "ruff --version").text
    assert "planted" not in call(tmp_path, "python -m ruff --version").text
    assert real_argv(["mypy", "."])[1] == "-P"


@pytest.mark.parametrize(
    "command", ["git status", "pytest --version", "python --version", "python -m pytest --version"]
)
def test_what_is_planted_on_the_path_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """In the workspace, in a folder of the PATH below it, behind a link to that folder, and as a module."""
    root, link = tmp_path / "work", tmp_path / "link"
    (root / "bin").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", root], check=True)
    link.symlink_to(root / "bin")
    for folder in (root, root / "bin"):
        for name in ("git", "pytest", "python", "python3"):
            (folder / name).write_text(f"#!/bin/sh\necho planted\ntouch {root}/planted\n")
            (folder / name).chmod(0o755)
    (root / "pytest.py").write_text(f"open({str(root / 'planted')!r}, 'w')\nprint('planted')\n")
    monkeypatch.setenv("PATH", f"{root}:{root / 'bin'}:{link}:.:bin::{os.environ['PATH']}")
    told = call(root, command)
    assert told.ok, told.text
    assert "planted" not in told.text.splitlines()
    assert not (root / "planted").exists()


def test_programs_of_the_workspace_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    for command in ("./run.sh", "run.sh", str(script)):
        with pytest.raises((Denied, ToolFailed)):
            call(tmp_path, command)


@pytest.mark.parametrize(
    "command",
    [
        *("cat /etc/passwd", "cat ../x", "cat ~/x", "cat a/../../x", "ls ..", "black --config=/etc/x a.py"),
        *("black --config ../x a.py", "mypy -p/etc", "cat link", "cat --file=link/x", "cat C:/x", "cat ..\\\\x"),
    ],
)
def test_arguments_that_lead_out_are_refused(tmp_path: Path, command: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(Denied, match="leads out of the workspace"):
        call(root, command)


def test_paths_inside_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "x.txt").write_text("here\n")
    assert "here" in call(tmp_path, "cat a/../x.txt").text
    assert "here" in call(tmp_path, f"cat {tmp_path}/x.txt").text


def test_time_and_output_are_limited(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="was stopped"):
        call(tmp_path, "sleep 30", deadline=time.time() + 0.3)
    with pytest.raises(ToolFailed, match="wrote more than is taken"):
        call(tmp_path, """python -c 'while True: print("x" * 100000)'""")


@pytest.mark.parametrize("command", ["", "  ", "''", "echo 'open", "echo a\0b"])
def test_what_is_no_command_is_misuse(command: str) -> None:
    with pytest.raises(ToolMisused):
        run_command.actions(run_command.validate({"command": command}))


def test_what_policy_sees() -> None:
    actions = run_command.actions(run_command.validate({"command": "ruff check 'a b' && rm x"}))
    assert list(actions) == [Action(kind="shell.exec", argv=("ruff", "check", "a b", "&&", "rm", "x"))]


def test_an_unknown_program(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="no program named 'nowhere'"):
        call(tmp_path, "nowhere x")


def test_after_a_crash_only_what_may_be_repeated_is(tmp_path: Path) -> None:
    def probe(command: str) -> ToolResult | None:
        assert run_command.probe is not None
        return run_command.probe(context(tmp_path), run_command.validate({"command": command}), {})

    for command in ("ruff check .", "python -m pytest -q", "pytest", "npm run lint", "git status", "black ."):
        assert probe(command) is None
    for command in ("rm x", "python make.py", "npm publish", "npm run build", "python -c pass"):
        with pytest.raises(InDoubt, match="was started"):
            probe(command)


def test_a_typed_commit_is_found_after_a_crash(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=tmp_path, check=True)
    (tmp_path / "a.txt").write_text("x\n")
    ctx = context(tmp_path)
    args = run_command.validate({"command": "git commit -m Once a.txt"})
    assert run_command.before is not None
    assert run_command.probe is not None
    before = run_command.before(ctx, args)
    assert run_command.probe(ctx, args, before) is None
    told = run_command.run(ctx, command="git commit -m Once a.txt")
    assert isinstance(told, ToolResult)
    found = run_command.probe(ctx, args, before)
    assert found is not None
    assert found.text in told.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("node", "node a.js"),
        ("git", "git status --short"),
        ("ruff", "ruff check a.py"),
        ("mypy", "mypy a.py"),
        ("cp", "cp a.py b.py"),
        ("make", "make all"),
    ],
)
def test_ordinary_programs_work_behind_walls(tmp_path: Path, program: str, command: str) -> None:
    if shutil.which(program) is None and importlib.util.find_spec(program) is None:
        pytest.skip(f"there is no {program}")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a.py").write_text("x: int = 1\n")
    (tmp_path / "a.js").write_text("require('fs').writeFileSync('b.txt', require('os').hostname())\n")
    (tmp_path / "Makefile").write_text("all:\n\techo x > made\n")
    told = call(tmp_path, command)
    assert told.data["code"] == 0, told.text
