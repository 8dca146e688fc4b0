"""A file that is replaced keeps its rights and its links, and is never left half written."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from agentd.errors import ConfigError
from agentd.whole_file import replace_text


def test_a_new_file_in_a_new_folder(tmp_path: Path) -> None:
    replace_text(tmp_path / "new" / "a.toml", "a = 1\r\n")
    assert (tmp_path / "new" / "a.toml").read_bytes() == b"a = 1\r\n"
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["a.toml"]


def test_rights_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "link.toml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    in_the_way = tmp_path / "a.toml"
    in_the_way.mkdir()
    with pytest.raises(ConfigError, match=r"a\.toml cannot be written"):
        replace_text(in_the_way, "new")
    assert [each.name for each in tmp_path.iterdir()] == ["a.toml"]
