"""Which files count is what git says, asked of git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentd.workspace.paths import Workspace


def make(root: Path, files: dict[str, str]) -> Workspace:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Workspace(root)


def by_git(root: Path) -> set[str]:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    if not (root / ".git").exists():
        subprocess.run(["git", "init", "-q", str(root)], check=True, env=env)
    argv = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"]
    done = subprocess.run(argv, check=True, capture_output=True, env=env)
    return set(done.stdout.decode().split("\0")) - {""}


def test_shallow_files_come_first_in_order(tmp_path: Path) -> None:
    ws = make(tmp_path, {"b.txt": "", "a/z.txt": "", "a/b/c.txt": "", "c/a.txt": "", "A.txt": ""})
    assert list(ws.files()) == ["A.txt", "b.txt", "a/z.txt", "c/a.txt", "a/b/c.txt"]


def test_gitignore_holds_with_and_without_a_repository(tmp_path: Path) -> None:
    files = {
        ".gitignore": "*.log\n!keep.log\n/only-here.txt\nbuild/\ndocs/**/draft.md\n# comment\n\\#odd\n",
        "a.log": "",
        "keep.log": "",
        "only-here.txt": "",
        "src/only-here.txt": "",
        "build/x": "",
        "src/build/y": "",
        "docs/a/b/draft.md": "",
        "docs/draft.txt": "",
        "#odd": "",
        "src/.gitignore": "!b.log\nlocal\n",
        "src/b.log": "",
        "src/c.log": "",
        "src/local": "",
        "local": "",
        "build/.gitignore": "!x\n",
    }
    ws = make(tmp_path, files)
    without = set(ws.files())
    assert without == by_git(tmp_path)
    assert set(ws.files()) == without
    assert {"keep.log", "src/b.log", "src/only-here.txt", "docs/draft.txt"} <= without
    assert not {"a.log", "only-here.txt", "build/x", "src/build/y", "src/c.log", "src/local", "#odd"} & without


PATTERNS = st.sampled_from(
    [
        "*.log",
        "!*.log",
        "a/",
        "/a",
        "a/b",
        "**/b",
        "a/**",
        "b*",
        "?",
        "[ab]",
        "!a/b",
        "/a/*",
        "!/a/b",
        "x.log",
        "*",
        "!*/",
        "b/ ",
        "\\!x",
    ]
)


@example(top=["*.log"], inner=["!*/"])
@example(top=["/a", "!*/"], inner=[])
@example(top=["*", "!*/"], inner=[])
@given(top=st.lists(PATTERNS, max_size=4), inner=st.lists(PATTERNS, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_patterns_mean_what_git_makes_of_them(
    tmp_path_factory: pytest.TempPathFactory, top: list[str], inner: list[str]
) -> None:
    root = tmp_path_factory.mktemp("ignore")
    names = ["a/b/x.log", "a/x.log", "a/a", "b", "x.log", "b.txt", "c/a/b", "c/b", "d/!x", "ab"]
    ws = make(root, {**dict.fromkeys(names, ""), ".gitignore": "\n".join(top), "a/.gitignore": "\n".join(inner)})
    assert set(ws.files()) == by_git(root)


def test_private_excludes_of_the_repository_hold(tmp_path: Path) -> None:
    ws = make(tmp_path, {"a.txt": "", "mine.txt": ""})
    by_git(tmp_path)
    (tmp_path / ".git" / "info" / "exclude").write_text("mine.txt\n")
    assert set(ws.files()) == {"a.txt"} == by_git(tmp_path)


def test_git_is_never_entered_and_tool_waste_left_out(tmp_path: Path) -> None:
    ws = make(
        tmp_path,
        {".git/config": "", "sub/.git/config": "", "src/__pycache__/a.pyc": "", "node_modules/x/y.js": "", "a": ""},
    )
    assert list(ws.files()) == ["a"]


def test_tool_waste_can_be_taken_back(tmp_path: Path) -> None:
    assert "m.pyc" in set(make(tmp_path, {".gitignore": "!*.pyc\n", "m.pyc": ""}).files())


def test_names_that_no_path_may_have_are_not_given(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("such names cannot be made")
    ws = make(tmp_path, {"good": "", "a:b": "", "new\nline": "", "aux.c": "", "back\\slash": "", "dot.": ""})
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_text("")
    assert list(ws.files()) == ["good"]
    for name in ws.files():
        ws.read_bytes(name)


def test_links_to_files_inside_count_and_links_to_folders_are_not_entered(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("links need a right there")
    ws = make(tmp_path / "w", {"real/a.txt": ""})
    (tmp_path / "w" / "link.txt").symlink_to("real/a.txt")
    (tmp_path / "w" / "folder").symlink_to("real")
    (tmp_path / "w" / "up").symlink_to("..")
    (tmp_path / "w" / "dangling").symlink_to("gone")
    assert set(ws.files()) == {"real/a.txt", "link.txt"}


def test_links_that_lead_out_are_not_given(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("links need a right there")
    ws = make(tmp_path / "w", {"a.txt": ""})
    (tmp_path / "secret").write_text("s")
    (tmp_path / "w" / "leak").symlink_to("../secret")
    assert set(ws.files()) == {"a.txt"}


def test_a_malformed_pattern_spoils_nothing_else(tmp_path: Path) -> None:
    ws = make(tmp_path, {".gitignore": "*.log\n!\n[\n/\n***\n", "a.log": "", "b.txt": ""})
    assert set(ws.files()) == by_git(tmp_path)


def test_a_gitignore_that_is_no_readable_file_spoils_nothing(tmp_path: Path) -> None:
    ws = make(tmp_path, {"a.txt": "", "d/b.txt": ""})
    (tmp_path / ".gitignore").mkdir()
    if os.name != "nt":
        os.mkfifo(tmp_path / "d" / ".gitignore")
    assert set(ws.files()) == {"a.txt", "d/b.txt"}


def test_a_huge_folder_ends(tmp_path: Path) -> None:
    ws = make(tmp_path, {f"{k % 20}/{k}.txt": "" for k in range(600)})
    assert len(list(ws.files(limit=50))) == 50
    assert len(list(ws.files())) == 600


def test_a_huge_ignored_folder_ends(tmp_path: Path) -> None:
    ws = make(tmp_path, {".gitignore": "*\n!z\n", "z": "", **{f"a{k}": "" for k in range(100)}})
    assert list(ws.files()) == ["z"]
    assert list(ws.files(limit=5)) == [], "looked at more than 50 entries"
