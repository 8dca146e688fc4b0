"""A typed line becomes an action; spellings of one path become one."""

from __future__ import annotations

import pytest

from agentd.errors import BadInput
from agentd.policy.commands import action_of, fold, subject_of
from agentd.types import Action


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("git push --force", Action(kind="shell.exec", argv=("git", "push", "--force"))),
        ("  pytest -k 'a or b' ", Action(kind="shell.exec", argv=("pytest", "-k", "a or b"))),
        ("fs.write src/a b.py", Action(kind="fs.write", target="src/a b.py")),
        ("fs.read", Action(kind="fs.read")),
        ("git.commit", Action(kind="git.commit")),
        ("test.run python -m pytest", Action(kind="test.run", argv=("python", "-m", "pytest"))),
        ("check.exec ./x 'a b'", Action(kind="check.exec", argv=("./x", "a b"))),
        ("fs.writes a", Action(kind="shell.exec", argv=("fs.writes", "a"))),
    ],
)
def test_action_of(text: str, action: Action) -> None:
    assert action_of(text) == action


def test_the_kind_of_a_line_that_names_none_can_be_given() -> None:
    assert action_of("src/a.py", "fs.read") == Action(kind="fs.read", target="src/a.py")


@pytest.mark.parametrize("text", ["", "   ", "shell.exec", "shell.exec  ", "git 'push", "a \\"])
def test_what_is_no_command_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput):
        action_of(text)


@pytest.mark.parametrize(
    ("path", "folded"),
    [
        ("src/a.py", "src/a.py"),
        ("./src//A.py/", "src/a.py"),
        (".", "."),
        ("", "."),
        ("./", "."),
        (".GIT/Config", ".git/config"),
        (".git./x ", ".git/x"),
        (".git::$INDEX_ALLOCATION/x", ".git/x"),
        ("a.txt:stream", "a.txt"),
        ("GIT~1/hooks", ".git/hooks"),
        (".g\u200cit/x", ".git/x"),
        ("a\\b", "a/b"),
        ("STRASSE", "strasse"),
        ("...", "..."),
    ],
)
def test_fold(path: str, folded: str) -> None:
    assert fold(path) == folded


def test_the_program_is_compared_without_case_and_suffix() -> None:
    for name in ("git", "GIT", "Git.EXE", "git.cmd"):
        assert subject_of(Action(kind="shell.exec", argv=(name, "Log"))).line == "git\0Log\0"


def test_whatever_may_be_a_path_in_a_command_is_seen() -> None:
    argv = ("x", "plain", "--in=a/b", "-fc/d", "e:f", "-i", "@g,h")
    seen = subject_of(Action(kind="shell.exec", argv=argv)).paths
    assert {"plain", "a/b", "c/d", "e", "f", "g", "h"} <= set(seen)


@pytest.mark.parametrize(
    ("line", "outside"),
    [
        *(("go test ./...", False), ("ls ....", True), ("ls ..", True), ("ls a/.. ", True), ("x ./pkg/...", False)),
        *(("cp -rt/tmp a", True), ("cp -rt../x a", True), ("gcc -Isrc/include a.c", False), ("cp -rtsub/x a", False)),
        *(("git commit -m /x", False), ("git commit -m/x", False), ("git commit --message=/x", False)),
        *(("git commit -m x /y", True), ("git commit -m x -- /y", True), ("git commit -m -- /y", True)),
        ("git commit -m x -- -m /y", True),
        *(("git log --grep=/x", False), ("git log --grep /x", False), ("git log -S/x", False), ("git log -m /x", True)),
        *(("git log --format /x", True), ("git diff @~1", False), ("git diff @~a", True), ("ls a@~/x", True)),
    ],
)
def test_what_lies_outside(line: str, outside: bool) -> None:
    assert subject_of(action_of(line)).outside is outside
