"""Files that make programs run: the same names for the rules and for the watch, and what a program does to them."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentd.config import load_settings
from agentd.errors import ToolFailed
from agentd.policy.engine import PolicyEngine
from agentd.policy.places import makes_programs_run
from agentd.sandbox import confine
from agentd.sandbox.confine import Mode, Walls
from agentd.tools.checks import check_command
from agentd.tools.code import run_tests
from agentd.tools.shell import run_command
from agentd.tools.start_files import MOST_ASIDE, MOST_KEPT, WATCHES, Watch, settle_all
from agentd.tools.tool import ToolContext
from agentd.types import AccessLevel, Action, Ruling
from agentd.workspace.paths import Workspace

STARTING = [
    *("conftest.py", "a/b/conftest.py", "CONFTEST.py", "pytest.ini", ".pytest.ini", "setup.cfg", "tox.ini"),
    *("pyproject.toml", "package.json", "web/package.json", ".npmrc", ".mcp.json", ".envrc", "sitecustomize.py"),
    *("usercustomize.py", "x.pth", ".pre-commit-config.yaml", ".vscode/tasks.json", ".idea/x/y.xml", ".husky/pre-push"),
    *(".devcontainer/devcontainer.json", ".github/workflows/ci.yml", ".git/hooks/pre-commit", ".git/config", "a/.git"),
    *("pytest.py", "src/ruff.py", "mypy/__init__.py", "black/__main__.py", "ruff/__init__.cpython-311.so"),
]
HARMLESS = [
    *("a.py", "setup.py", "Makefile", "docs/pytest/page.md", "tests/test_conftest.py", "vscode/x", "workflows/ci.yml"),
    *(".github/CODEOWNERS", "README.md", "path.pth.txt", "black/__init__/x.py"),
]


@pytest.mark.parametrize("path", STARTING)
def test_what_is_watched_is_never_written_unasked(path: str, policy: PolicyEngine) -> None:
    assert makes_programs_run(path)
    for kind in ("fs.write", "fs.delete"):
        decided = policy.decide(Action(kind=kind, target=path), level=AccessLevel.EXTENDED_SHELL)
        assert decided.ruling in (Ruling.ASK, Ruling.DENY), decided


def test_what_a_killed_daemon_left_is_taken_back_at_the_next_start(tmp_path: Path) -> None:
    root, folder = tmp_path / "work", tmp_path / "state" / WATCHES
    (root / ".git" / "hooks").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "setup.cfg").write_text("[tool]\n")
    (root / "a.py").write_text("x = 1\n")
    Watch(Workspace(root), folder)  # and nobody settles it
    (root / "conftest.py").write_text("import evil\n")
    (root / ".git" / "hooks" / "pre-commit").write_text("evil\n")
    (root / "pyproject.toml").write_text("evil\n")
    (root / "setup.cfg").unlink()
    (root / "a.py").write_text("x = 2\n")
    (restored,) = settle_all(folder)
    assert restored.told == (
        ".git/hooks/pre-commit was added",
        "conftest.py was added",
        "pyproject.toml was changed",
        "setup.cfg was deleted",
    )
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["a.py", "pyproject.toml", "setup.cfg"]
    assert (root / "pyproject.toml").read_text() == "[project]\n"
    assert (root / "a.py").read_text() == "x = 2\n", "any other file is none of its business"
    assert (Path(restored.aside) / "conftest.py").read_text() == "import evil\n"
    assert list(settle_all(folder)) == []


def test_what_is_taken_back_is_put_aside_for_a_person_may_have_written_it(tmp_path: Path) -> None:
    root, folder = tmp_path / "work", tmp_path / WATCHES
    (root / ".git").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\n")
    watch = Watch(Workspace(root), folder)
    assert watch.aside is not None
    (root / "pyproject.toml").write_text("[project]\nname = 'mine'\n")
    (root / ".git" / "config").write_text("[remote]\n")
    (root / ".git" / "config").chmod(0o200)
    for number in range(MOST_ASIDE):
        (root / str(number)).mkdir()
        (root / str(number) / "conftest.py").write_text("x")
    (root / "setup.cfg").write_text("x" * (MOST_KEPT + 1))
    assert len(watch.settle()) == MOST_ASIDE + 3
    assert (root / "pyproject.toml").read_text() == "[project]\n"
    assert not (root / "setup.cfg").exists()
    assert (watch.aside / "pyproject.toml").read_text() == "[project]\nname = 'mine'\n"
    assert (watch.aside / ".git" / "config").read_text() == "[remote]\n"
    assert sum(path.is_file() for path in watch.aside.rglob("*")) == MOST_ASIDE
    assert folder.stat().st_mode & 0o077 == 0


def test_a_watch_that_was_settled_leaves_nothing_and_a_strange_one_harms_nobody(tmp_path: Path) -> None:
    root, folder = tmp_path / "work", tmp_path / WATCHES
    root.mkdir()
    Watch(Workspace(root), folder).settle()
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o077 == 0
    for number, text in enumerate(["", "[]", "{}", '{"workspace": "/nowhere", "before": {}}', '{"workspace": 1}']):
        (folder / f"{number}.json").write_text(text)
    assert list(settle_all(folder)) == []
    assert list(folder.glob("*.json")) == []


@pytest.mark.parametrize("path", HARMLESS)
def test_what_is_not_watched_is_free(path: str, policy: PolicyEngine) -> None:
    assert not makes_programs_run(path)
    for kind in ("fs.write", "fs.delete"):
        decided = policy.decide(Action(kind=kind, target=path), level=AccessLevel(1))
        assert decided.ruling is Ruling.ALLOW, decided


def test_the_lowest_level_is_not_asked_either(policy: PolicyEngine) -> None:
    decided = policy.decide(Action(kind="fs.write", target="conftest.py"), level=AccessLevel(0))
    assert decided.ruling is Ruling.DENY


def test_everything_that_was_done_is_undone(tmp_path: Path) -> None:
    for name in ("conftest.py", "deep/pyproject.toml", ".git/hooks/pre-commit", ".vscode/tasks.json", "gone/setup.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    (tmp_path / ".git/hooks/pre-commit").chmod(0o755)
    (tmp_path / "package.json").symlink_to("conftest.py")
    watch = Watch(Workspace(tmp_path))
    (tmp_path / "conftest.py").write_text("new")
    (tmp_path / "deep/pyproject.toml").unlink()
    (tmp_path / ".git/hooks/pre-commit").chmod(0o644)
    (tmp_path / ".vscode/tasks.json").unlink()
    (tmp_path / ".vscode/tasks.json").symlink_to("../a.py")
    (tmp_path / ".vscode/new.json").write_text("new")
    (tmp_path / "gone").rename(tmp_path / "there")
    (tmp_path / "sub/.git/hooks").mkdir(parents=True)
    (tmp_path / ".idea").symlink_to("sub")
    (tmp_path / "a.py").write_text("new")
    told = watch.settle()
    assert [word for line in told if "put back" in line for word in line.split()] == []
    assert {line.split()[0] for line in told} >= {
        *("conftest.py", "deep/pyproject.toml", ".git/hooks/pre-commit", ".vscode/tasks.json", ".vscode/new.json"),
        *("gone/setup.cfg", "there/setup.cfg", "sub/.git", ".idea"),
    }
    assert Watch(Workspace(tmp_path)).settle() == watch.settle() == []
    assert (tmp_path / "conftest.py").read_text() == (tmp_path / "gone/setup.cfg").read_text() == "old"
    assert stat.S_IMODE((tmp_path / ".git/hooks/pre-commit").stat().st_mode) == 0o755
    assert (tmp_path / "a.py").read_text() == "new"


def test_nothing_outside_is_put_back(tmp_path: Path) -> None:
    root, outside = tmp_path / "work", tmp_path / "outside"
    (root / "tests").mkdir(parents=True)
    outside.mkdir()
    (root / "tests" / "conftest.py").write_text("old")
    (outside / "conftest.py").write_text("theirs")
    watch = Watch(Workspace(root))
    (root / "tests").rename(root / "moved")
    (root / "tests").symlink_to(outside)
    assert "tests/conftest.py was deleted and could not be put back" in watch.settle()
    assert (outside / "conftest.py").read_text() == "theirs"
    assert not (root / "moved" / "conftest.py").exists()


# by programs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["best", Mode.BARE])
def ctx(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToolContext:
    """Behind the best walls that there are, and behind those that cannot hold a file still."""
    if request.param == Mode.BARE:
        if not confine.holds(Mode.BARE):
            pytest.skip("they do not hold here")
        monkeypatch.setattr(Walls, "mode", lambda _: Mode.BARE)
    elif confine.reached() is None:
        pytest.skip("there are no walls here")
    (tmp_path / "work").mkdir()
    return ToolContext(workspace=Workspace(tmp_path / "work"), key="k")


def test_what_tests_plant_is_taken_away_and_told(ctx: ToolContext) -> None:
    root = ctx.workspace.root
    (root / ".git" / "hooks").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.x]\n")
    (root / "test_a.py").write_text(
        "import os, contextlib, pytest\n"
        "@pytest.mark.parametrize('name', ['conftest.py', 'pytest.py', '.git/hooks/pre-commit', 'pyproject.toml'])\n"
        "def test_plant(name):\n"
        "    with contextlib.suppress(OSError), open(name, 'w') as file:\n"
        "        file.write('raise SystemExit')\n"
    )
    with pytest.raises(ToolFailed, match=r"touched files that make programs run: .*conftest\.py was added"):
        run_tests.run(ctx, target="")
    left = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert left == {"test_a.py", "pyproject.toml"}
    assert (root / "pyproject.toml").read_text() == "[tool.x]\n"


def test_where_it_was_put_is_told(ctx: ToolContext, tmp_path: Path) -> None:
    ctx = replace(ctx, walls=replace(ctx.walls, home=load_settings(tmp_path / "home")))
    (ctx.workspace.root / "plant.py").write_text("open('sitecustomize.py', 'w').write('import evil')\n")
    with pytest.raises(ToolFailed, match=r"sitecustomize\.py was added; what stood there lies in ") as caught:
        run_command.run(ctx, command="python plant.py")
    aside = Path(caught.value.message.rsplit(" ", 1)[-1])
    assert (aside / "sitecustomize.py").read_text() == "import evil"


@pytest.mark.parametrize("tool", [run_command, check_command])
def test_so_is_what_commands_plant(ctx: ToolContext, tool: Any) -> None:
    (ctx.workspace.root / "plant.py").write_text("open('sitecustomize.py', 'w')\n")
    with pytest.raises(ToolFailed, match=r"sitecustomize\.py was added"):
        tool.run(ctx, command="python plant.py")
    assert os.listdir(ctx.workspace.root) == ["plant.py"]


def test_the_level_is_told(ctx: ToolContext) -> None:
    run_command.run(ctx, command="python -c pass")
    assert ctx.notes["confined"] == ctx.walls.level
    assert "seccomp" in ctx.walls.level
