"""Where a home is, and that nobody else can look into it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agentd.errors import ConfigError
from agentd.home import Home, defaults_dir, find_home, make_private, private_runtime_dir

CHECKOUT = Path(__file__).resolve().parents[1]


def test_explicit_then_environment_then_checkout(tmp_path: Path) -> None:
    assert find_home(tmp_path / "a", {"AGENTD_HOME": str(tmp_path / "b")}) == tmp_path / "a"
    assert find_home(None, {"AGENTD_HOME": str(tmp_path / "b")}) == tmp_path / "b"
    assert find_home(None, {}) == CHECKOUT
    assert find_home(None, {"AGENTD_HOME": ""}) == CHECKOUT


def test_defaults_are_in_the_checkout() -> None:
    assert (defaults_dir() / "policies" / "default.yaml").is_file()


def test_policies_of_a_home_without_any(tmp_path: Path) -> None:
    assert Home(tmp_path).policies_dir == defaults_dir() / "policies"
    (tmp_path / "policies").mkdir()
    assert Home(tmp_path).policies_dir == tmp_path / "policies"


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_private_folders(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for folder in (tmp_path / "open", tmp_path / "new" / "deep"):
        assert stat.S_IMODE(make_private(folder).stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="unix sockets")
def test_a_long_home_gets_a_short_socket(tmp_path: Path) -> None:
    assert Home(tmp_path).socket_path == tmp_path / "state" / "agentd.sock"
    long = tmp_path / ("x" * 100)
    short = Home(long).socket_path
    assert len(os.fsencode(short)) <= 100
    assert short == Home(long).socket_path != Home(tmp_path / ("y" * 100)).socket_path
    assert stat.S_IMODE(short.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_runtime_folder_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agentd").mkdir(mode=0o777)
    (tmp_path / "agentd").chmod(0o777)
    with pytest.raises(ConfigError, match="not a folder of this user alone"):
        private_runtime_dir(tmp_path / "agentd")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="not a folder of this user alone"):
        private_runtime_dir(tmp_path / "link")
    with pytest.raises(ConfigError, match="no short folder"):
        private_runtime_dir(tmp_path / "none" / "deep")
