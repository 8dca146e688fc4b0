"""The command line as such: help, errors, options before and after the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentd import __version__
from agentd.cli.main import _COMMANDS, call, cli
from agentd.cli.options import Command, Group

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in _COMMANDS)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_can_be_imported_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(
        cli.commands.get(name) or cli.get_command(cli.make_context("agentd", ["ps"]), name), Command | Group
    )
    assert call([name, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out == f"agentd {__version__}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["frob"], "No such command 'frob'"),
        (["rnu"], "Did you mean 'run'?"),
        (["run"], "Missing argument 'GOAL...'"),
        (["ps", "--frob"], "No such option"),
        (["run", "--level", "9", "x"], "9 is not in the range"),
        (["run", "--timeout", "nan", "x"], "no number of seconds"),
        (["wait", "--timeout", "inf", "x"], "no number of seconds"),
        (["tool", "frob"], "No such command 'frob'"),
    ],
)
def test_wrong_usage_is_exit_code_two(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "\nhint: agentd" in shown.err


def test_wrong_usage_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["ps", "--frob", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "usage"


@pytest.mark.parametrize("place", ["before", "after"])
def test_global_options_stand_before_or_after_the_command(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, name = ["--home", str(tmp_path), "--json"], ["config", "path"]
    assert call([*options, *name] if place == "before" else [*name, *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "agentd.toml"), "exists": False}


def test_a_daemon_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--home", str(tmp_path), "ps"]) == 7
    shown = capsys.readouterr().err
    assert "no daemon answers" in shown
    assert "hint: start it with `agentd up`" in shown


@pytest.mark.parametrize("command", [["up"], ["serve"], ["run", "look"]])
def test_an_address_names_a_daemon_that_is_not_ours_to_start(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = call(["--home", str(tmp_path), "--host", f"unix://{tmp_path}/none.sock", *command])
    assert code == (7 if command[0] == "run" else 2)
    assert "--host" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("goal", ["", "  ", "\n"])
def test_an_empty_goal_starts_nothing(goal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--home", str(tmp_path), "run", goal]) == 2
    assert "the goal is empty" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from agentd.cli.main import call; call(['--help']);"
        "heavy = {'pydantic', 'fastapi', 'rich', 'psutil', 'http', 'agentd.types', 'asyncio'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_is_quick() -> None:
    def seconds(*args: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *args], cwd=ROOT, env=os.environ, capture_output=True, check=True)
        return time.perf_counter() - began

    # Compared with the bare interpreter and click, so that a busy machine does not decide.
    bare = min(seconds("-c", "import click") for _ in range(5))
    help_ = min(seconds("-m", "agentd", "--help") for _ in range(5))
    assert help_ < bare * 1.8
