"""Settings changed in their file, and by a daemon that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentd.config import init_home, load_settings
from agentd.config_file import LiveSettings, change
from agentd.errors import BadInput, ConfigError, Conflict, NotFound


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_home(tmp_path / "home")
    return tmp_path / "home"


def test_a_change_keeps_the_comments(folder: Path) -> None:
    before = (folder / "agentd.toml").read_text()
    change(folder, {"agent.steps": 50, "log.level": "debug"}, {})
    after = (folder / "agentd.toml").read_text()
    assert load_settings(folder, {}).agent.steps == 50
    assert load_settings(folder, {}).log.level == "debug"
    assert set(before.splitlines()) < set(after.splitlines())


def test_none_gives_the_default_back(folder: Path) -> None:
    change(folder, {"agent.steps": 50}, {})
    change(folder, {"agent.steps": None, "tasks.workers": None}, {})
    assert load_settings(folder, {}).agent.steps == 40


def test_a_home_without_a_file_gets_one(tmp_path: Path) -> None:
    change(tmp_path, {"api.port": 9000}, {})
    assert (tmp_path / "agentd.toml").read_text() == "[api]\nport = 9000\n"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"agent.stepz": 5}, NotFound, "agent.stepz"),
        ({"agent.steps": 0}, BadInput, "agent.steps = 0"),
        ({"agent.steps": "many"}, BadInput, "many"),
        ({"agent.steps": object()}, BadInput, "no form in TOML"),
        ({"policy.default_level": 4}, BadInput, "above policy.max_level"),
        ({"log.level": "debug", "agent.steps": -1}, BadInput, "agent.steps"),
        ({"agent": {"steps": 5}}, NotFound, "agent"),
    ],
)
def test_a_wrong_change_writes_nothing(folder: Path, changes: dict[str, Any], error: type, said: str) -> None:
    before = (folder / "agentd.toml").read_bytes()
    with pytest.raises(error, match=said):
        change(folder, changes, {})
    assert (folder / "agentd.toml").read_bytes() == before


def test_what_the_environment_says_cannot_be_changed_here(folder: Path) -> None:
    with pytest.raises(Conflict, match="AGENTD_AGENT__STEPS"):
        change(folder, {"agent.steps": 50}, {"AGENTD_AGENT__STEPS": "7"})


def test_a_file_that_is_wrong_already_is_left_alone(folder: Path) -> None:
    (folder / "agentd.toml").write_text("[agent\n")
    with pytest.raises(ConfigError, match="not TOML"):
        change(folder, {"agent.steps": 50}, {})
    assert (folder / "agentd.toml").read_text() == "[agent\n"


def test_a_daemon_takes_up_what_it_can(folder: Path) -> None:
    live = LiveSettings(load_settings(folder, {}))
    assert live.change({"agent.steps": 50, "tasks.workers": 3}) == ["tasks.workers"]
    assert (live.current.agent.steps, live.current.tasks.workers) == (50, 1)
    assert load_settings(folder, {}).tasks.workers == 3
