"""Finding files by name and text in them, within limits."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import Cancelled, Denied, ToolFailed, ToolMisused
from agentd.tools import search
from agentd.tools.match_lines import shown
from agentd.tools.tool import Tool, ToolContext
from agentd.types import ToolResult
from agentd.workspace.paths import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("def load():\n    return parse(1)\n")
    (tmp_path / "src" / "parse.py").write_text("def parse(x):\n    return x  # Parse\n")
    (tmp_path / "README.md").write_text("Use parse.\r\nThat is all.\r\n")
    (tmp_path / "data.bin").write_bytes(b"parse\0\1\2")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "run.log").write_text("parse\n")
    return tmp_path


def call(tool: Tool, root: Path, more: dict[str, Any] | None = None, **args: Any) -> ToolResult:
    ctx = ToolContext(workspace=Workspace(root), key="k", **(more or {}))
    given = tool.validate(args)
    result = tool.run(ctx, **{name: getattr(given, name) for name in type(given).model_fields})
    assert isinstance(result, ToolResult)
    return result


def test_literal_search_gives_path_line_and_text(folder: Path) -> None:
    assert call(search.search_text, folder, pattern="parse(").text.splitlines() == [
        "2 matches in 2 files",
        "src/app.py:2: return parse(1)",
        "src/parse.py:1: def parse(x):",
    ]


def test_ignored_and_binary_files_are_left_out(folder: Path) -> None:
    found = call(search.search_text, folder, pattern="parse").data["files"]
    assert found == ["README.md", "src/app.py", "src/parse.py"]


def test_narrowing_by_path_glob_and_case(folder: Path) -> None:
    assert call(search.search_text, folder, pattern="parse", path="src/app.py").data["count"] == 1
    assert call(search.search_text, folder, pattern="parse", path="src").data["count"] == 2
    assert call(search.search_text, folder, pattern="parse", glob="*.md").data["files"] == ["README.md"]
    assert call(search.search_text, folder, pattern="parse", glob="src/*.py").data["count"] == 2
    assert call(search.search_text, folder, pattern="PARSE", ignore_case=True, path="src").data["count"] == 3


def test_no_match_is_a_good_answer(folder: Path) -> None:
    told = call(search.search_text, folder, pattern="nowhere")
    assert told.ok
    assert told.text == 'No file contains "nowhere".'
    assert call(search.search_text, folder, pattern="zz", path="src").text == 'src does not contain "zz".'


def test_expressions(folder: Path) -> None:
    told = call(search.search_text, folder, pattern=r"^def \w+\(", regex=True)
    assert [match["line"] for match in told.data["matches"]] == [1, 1]
    assert call(search.search_text, folder, pattern=r"that IS", regex=True, ignore_case=True).data["count"] == 1
    with pytest.raises(ToolMisused, match="not a regular expression"):
        call(search.search_text, folder, pattern="(", regex=True)


def test_an_expression_that_never_ends_is_stopped(folder: Path) -> None:
    (folder / "long.txt").write_text("a" * 60 + "b\n")
    started = time.monotonic()
    with pytest.raises(ToolFailed, match="was stopped"):
        call(search.search_text, folder, {"deadline": time.time() + 0.5}, pattern=r"(a+)+$", regex=True)
    assert time.monotonic() - started < 5


def test_cancel_stops_an_expression_at_work(folder: Path) -> None:
    (folder / "long.txt").write_text("a" * 60 + "b\n")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Cancelled):
        call(search.search_text, folder, {"cancel": stop}, pattern=r"(a+)+$", regex=True)


def test_many_matches_are_cut_and_it_is_said(folder: Path) -> None:
    (folder / "many.txt").write_text("needle\n" * (search.MAX_MATCHES + 5))
    for regex in (False, True):
        told = call(search.search_text, folder, pattern="needle", regex=regex)
        assert told.data["count"] == search.MAX_MATCHES
        assert told.text.endswith(f"Only the first {search.MAX_MATCHES} matches are shown.")


def test_a_large_file_is_left_out_and_it_is_said(folder: Path) -> None:
    with (folder / "huge.txt").open("wb") as stream:
        stream.truncate(3_000_000_000)
    told = call(search.search_text, folder, pattern="parse")
    assert told.data["count"] == 3
    assert "huge.txt was not searched" in told.text


def test_long_lines_are_cut_around_the_match() -> None:
    line = "x" * 5000 + "needle" + "y" * 5000
    assert "needle" in shown(line, 5000)
    assert len(shown(line, 5000)) < 310


def test_files_that_may_not_be_read_stay_out(folder: Path) -> None:
    (folder / ".env").write_text("parse=secret\n")
    for regex in (False, True):
        guarded = {"may_read": lambda path: path != ".env"}
        told = call(search.search_text, folder, guarded, pattern="parse=", regex=regex)
        assert "secret" not in told.text
        assert told.data["count"] == 0


def test_links_out_and_pipes_are_not_searched(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("parse outside\n")
    (folder / "link.txt").symlink_to(outside / "secret.txt")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    assert "outside" not in call(search.search_text, folder, pattern="parse").text
    for path in ("linked", "link.txt", "..", "/etc"):
        with pytest.raises(Denied):
            call(search.search_text, folder, pattern="parse", path=path)


def test_a_path_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(ToolFailed, match="there is no srk"):
        call(search.search_text, folder, pattern="x", path="srk")


@pytest.mark.parametrize("tool", [search.find_files, search.search_text])
def test_an_empty_pattern_is_refused(folder: Path, tool: Tool) -> None:
    with pytest.raises(ToolMisused, match="empty"):
        call(tool, folder, pattern=" ")


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("app", ".", ["src/app.py"]),
        ("APP.PY", ".", ["src/app.py"]),
        ("*.py", ".", ["src/app.py", "src/parse.py"]),
        ("*.MD", ".", ["README.md"]),
        ("src/*", ".", ["src/app.py", "src/parse.py"]),
        ("src/p", ".", ["src/parse.py"]),
        ("src", ".", ["src/"]),
        ("*.py", "src", ["src/app.py", "src/parse.py"]),
        ("README", "src", []),
        ("*.log", ".", []),
    ],
)
def test_find_files(folder: Path, pattern: str, path: str, found: list[str]) -> None:
    assert call(search.find_files, folder, pattern=pattern, path=path).data["files"] == found


def test_find_files_reads_like_an_answer(folder: Path) -> None:
    assert call(search.find_files, folder, pattern="app").text == '1 match for "app": src/app.py'
    assert call(search.find_files, folder, pattern="zz", path="src").text == 'No file in src has a name like "zz".'
    assert call(search.find_files, folder, pattern="*.py").text.splitlines()[0] == '2 matches for "*.py":'
