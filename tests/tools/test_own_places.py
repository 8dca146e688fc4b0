"""What of the agent's home stays closed to its tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.home import Home
from agentd.tools.own_places import OwnPlaces
from agentd.types import Action


@pytest.fixture
def around(tmp_path: Path) -> Path:
    home = tmp_path / "around" / "home"
    for folder in ("state/logs", "policies", "models", "src"):
        (home / folder).mkdir(parents=True)
    (home / "state" / "token").write_text("geheim\n")
    (home / "quiet").symlink_to("state/token")
    return tmp_path / "around"


def refused(around: Path, kind: str, name: str, root: str = "home") -> bool:
    own = OwnPlaces.of(Home(around / "home"))
    place = {"home": around / "home", "around": around}[root]
    action = (
        Action(kind=kind, target=name) if kind.startswith("fs.") else Action(kind=kind, argv=("cat", *name.split()))
    )
    return own.refusal(action, place) is not None


def test_copies_are_closed_to_all_but_the_task_that_works_in_one(around: Path) -> None:
    mine, other = around / "home" / "copies" / "t1" / "work" / "x", around / "home" / "copies" / "t2"
    for folder in (mine, other):
        folder.mkdir(parents=True)
    assert refused(around, "fs.read", "copies/t1/work/x/a.py")
    assert refused(around, "shell.exec", "copies/t2/a.py")
    own = OwnPlaces.of(Home(around / "home"))
    assert own.refusal(Action(kind="fs.write", target="a.py"), mine) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("fs.read", "state/token"),
        ("fs.read", "./src/../state/token"),
        ("fs.read", "quiet"),
        ("fs.read", "STATE/Token"),
        ("fs.read", "state"),
        ("fs.write", "state/new"),
        ("fs.delete", "state"),
        ("fs.write", "agentd.toml"),
        ("fs.write", "policies/default.yaml"),
        ("fs.write", "models/catalog.toml"),
        ("fs.write", "plugins_generated/x.py"),
        ("fs.delete", "policies"),
        ("shell.exec", "state/token"),
        ("shell.exec", "-n --file=state/token"),
        ("test.run", "state"),
    ],
)
def test_keys_and_rules_are_closed(around: Path, kind: str, name: str) -> None:
    assert refused(around, kind, name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("fs.read", "."),
        ("fs.read", "agentd.toml"),
        ("fs.read", "policies/default.yaml"),
        ("fs.read", "statement.md"),
        ("fs.write", "src/state.py"),
        ("fs.write", "src/models/x.py"),
        ("fs.delete", "src"),
        ("shell.exec", "-n src"),
        ("check.exec", "state/token"),
        ("read_output", "state"),
    ],
)
def test_all_else_is_as_policy_says(around: Path, kind: str, name: str) -> None:
    assert not refused(around, kind, name)


def test_from_a_folder_around_the_home_too(around: Path) -> None:
    assert refused(around, "fs.read", "home/state/token", root="around")
    assert refused(around, "fs.delete", "home", root="around")
    assert not refused(around, "fs.read", "home", root="around")
    assert not refused(around, "fs.write", "state/token", root="around")


def test_a_workspace_elsewhere_may_call_its_folders_so(around: Path, tmp_path: Path) -> None:
    own = OwnPlaces.of(Home(around / "home"))
    assert own.refusal(Action(kind="fs.write", target="state/token"), tmp_path / "elsewhere") is None
