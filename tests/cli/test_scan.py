"""Secrets in files are named by place and kind, and by nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentd.cli.main import call

KEY = "AKIA" + "Z7QXJ2WN4KLM5RTB"


def test_a_folder_is_looked_through_but_for_what_git_ignores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(f"import os\nKEY = '{KEY}'\n")
    (tmp_path / "bin").write_bytes(b"\0" + KEY.encode())
    (tmp_path / ".gitignore").write_text("local\n")
    (tmp_path / "local").write_text(KEY)
    assert call(["scan", str(tmp_path)]) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith("src/a.py:2: ")
    assert KEY not in shown.out + shown.err
    assert call(["scan", str(tmp_path), "--json"]) == 3
    assert [(each["path"], each["line"]) for each in json.loads(capsys.readouterr().out)] == [("src/a.py", 2)]


def test_nothing_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("AWS keys look like AKIAIOSFODNN7EXAMPLE\n")
    assert call(["scan", str(tmp_path / "a.txt")]) == 0
    assert capsys.readouterr() == ("", "nothing found\n")


def test_a_path_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["scan", str(tmp_path / "none")]) == 2
    assert "there is no" in capsys.readouterr().err


def test_what_was_not_looked_at_is_not_said_to_hold_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentd.cli.scan.MAX_BYTES", 1000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large.txt").write_text(f"{'x' * 1000}\n{KEY}\n")
    (tmp_path / "out.txt").write_text(KEY)
    (tmp_path / "in" / "link.txt").symlink_to("../out.txt")
    (tmp_path / "in" / "bin").write_bytes(b"\0\1")
    assert call(["scan", str(tmp_path / "in")]) == 0
    said = capsys.readouterr().err
    assert "not looked at: large.txt has 1022 bytes, more than 1000" in said
    assert said.count("not looked at") == 1
    for name in ("large.txt", "link.txt", "bin"):
        assert call(["scan", str(tmp_path / "in" / name)]) == 2
        assert "cannot be looked at" in capsys.readouterr().err
