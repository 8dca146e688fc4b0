"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from agentd.config import Settings, config_template, describe, init_home, load_settings
from agentd.errors import BadInput, ConfigError, NotFound


def refused(home: Path, toml: str = "", environ: dict[str, str] | None = None) -> ConfigError:
    (home / "agentd.toml").write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(home, environ or {})
    return caught.value


def test_defaults_without_a_file(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {})
    assert settings == Settings(home=tmp_path)
    assert settings.agent.steps == 40


def test_file_then_environment(home: Path) -> None:
    (home / "agentd.toml").write_text("[agent]\nsteps = 7\nseconds = 60\n[api]\ntcp = true\n", encoding="utf-8")
    settings = load_settings(home, {"AGENTD_AGENT__STEPS": "9", "AGENTD_LOG__LEVEL": "debug", "AGENTD_HOME": "x"})
    assert (settings.agent.steps, settings.agent.seconds, settings.api.tcp) == (9, 60.0, True)
    assert settings.log.level == "debug"
    assert settings.agent.tokens == 200_000


def test_the_template_is_the_defaults(home: Path) -> None:
    assert load_settings(home, {}) == Settings(home=home)
    uncommented = re.sub(r"^# (?=\w+ = )", "", config_template(), flags=re.M)
    (home / "agentd.toml").write_text(uncommented, encoding="utf-8")
    assert load_settings(home, {}) == Settings(home=home)
    keys = {f"{section}.{key}" for section, content in tomllib.loads(uncommented).items() for key in content}
    assert keys == {setting.path for setting in describe()}


def test_every_setting_is_described() -> None:
    for setting in describe():
        assert setting.description.endswith("."), setting.path
        assert setting.env == "AGENTD_" + setting.path.upper().replace(".", "__")


@pytest.mark.parametrize(
    ("toml", "line", "message", "hint"),
    [
        ("[agent]\n\nstpes = 3\n", 3, "unknown setting 'stpes'; [agent] has steps, tokens", "did you mean 'steps'?"),
        ("[agnet]\nsteps = 3\n", 1, "unknown section [agnet]; there are api, agent", "did you mean 'agent'?"),
        ("[agnet]\n", 1, "unknown section [agnet]", "did you mean 'agent'?"),
        ("steps = 3\n", 1, "'steps' stands outside a section", "it belongs below [agent]"),
        (
            "[agent]\nsteps = 0\n",
            2,
            "agent.steps = 0 should be greater than or equal to 1",
            "at least 1, at most 10000",
        ),
        ("[agent]\nsteps = '9'\n", 2, "agent.steps = '9' should be a valid integer", "default 40"),
        ("[api]\ntcp = 1\n", 2, "api.tcp = 1 should be a valid boolean", "boolean; default false"),
        ("[agent]\nseconds = inf\n", 2, "agent.seconds = inf should be a finite number", "more than 0"),
        ("[log]\nlevel = 'loud'\n", 2, "log.level = 'loud'", "debug, info, warning, error"),
        ("agent.steps = true\n", 1, "agent.steps = True should be a valid integer", "integer"),
        ("[agent\nsteps = 1\n", 1, "not TOML", "key = value"),
    ],
)
def test_wrong_files(home: Path, toml: str, line: int, message: str, hint: str) -> None:
    error = refused(home, toml)
    assert f"{home / 'agentd.toml'}:{line}: " in error.message
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AGENTD_AGENT__STEPS", "many", "AGENTD_AGENT__STEPS: agent.steps = 'many'"),
        ("AGENTD_AGENT__STPES", "4", "AGENTD_AGENT__STPES: unknown setting 'stpes'"),
        ("AGENTD_AGNT__STEPS", "4", "AGENTD_AGNT__STEPS: unknown section [agnt]"),
        ("AGENTD_AGENT__", "4", "AGENTD_AGENT__: unknown setting ''"),
    ],
)
def test_wrong_environment(home: Path, name: str, value: str, message: str) -> None:
    assert message in refused(home, environ={name: value}).message


def test_all_mistakes_are_told_at_once(home: Path) -> None:
    error = refused(home, "[agent]\nsteps = 0\ntokns = 5\n", {"AGENTD_API__PORT": "99999"})
    assert len(error.message.splitlines()) == 3
    assert "did you mean 'tokens'?" in error.message


def test_levels_that_contradict_each_other(home: Path) -> None:
    error = refused(home, "[policy]\ndefault_level = 3\nmax_level = 1\n")
    assert "policy.default_level = 3 is above policy.max_level = 1" in error.message


def test_a_file_that_is_no_text(home: Path) -> None:
    (home / "agentd.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(home, {})


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(ConfigError, match="is not a folder"):
        load_settings(tmp_path / "home", {})
    with pytest.raises(BadInput, match="is a file"):
        init_home(tmp_path / "home")


def test_get_names_what_is_near(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {"AGENTD_AGENT__STEPS": "9"})
    assert settings.get("agent.steps") == 9
    assert settings.get("log") == {"level": "info", "format": "json"}
    with pytest.raises(NotFound) as caught:
        settings.get("agent.step")
    assert caught.value.hint == "did you mean 'agent.steps'?"


def test_init_leaves_what_is_there(tmp_path: Path) -> None:
    made = init_home(tmp_path / "h")
    assert tmp_path / "h" / "policies" / "default.yaml" in made
    own = tmp_path / "h" / "policies" / "default.yaml"
    own.write_text("mine", encoding="utf-8")
    assert init_home(tmp_path / "h") == []
    assert own.read_text(encoding="utf-8") == "mine"
