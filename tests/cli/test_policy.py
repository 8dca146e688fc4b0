"""`policy` without a daemon: a project's own rules count, and cases are held against all rules."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentd.cli.main import call
from agentd.config import init_home

PROJECT = """\
max_level: 2
rules:
- id: history
  match: {action: shell.exec, git: log, taint: true}
  decision: ask
  because: "The history is private."
  examples: {match: [git log], not_match: [git diff]}
"""


class Home:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.folder, self.project = folder / "home", folder / "project"
        init_home(self.folder)
        (self.project / ".agentd").mkdir(parents=True)
        self.write(PROJECT)

    def write(self, text: str) -> None:
        (self.project / ".agentd" / "policy.yaml").write_text(text)

    def run(self, *words: str, stdin: str | bytes = "") -> tuple[int, str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = call(["--home", str(self.folder), "policy", *words])
        said = self.capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path, monkeypatch, capsys)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_project_s_rules_count_where_it_is_named(home: Home) -> None:
    commands = "git log\ngit commit -m x\n"
    _, plain = home.run("check", "-", "--level", "4", stdin=commands)
    assert [each["decision"] for each in lines(plain)] == ["allow", "allow"]
    _, narrowed = home.run("check", "-", "--level", "4", "--workspace", str(home.project), stdin=commands)
    assert [(each["decision"], each["level"]) for each in lines(narrowed)] == [("allow", 2), ("deny", 2)]
    assert "no task above level 2" in lines(narrowed)[1]["because"]
    code, told = home.run("check", "git log", "--level", "2", "--taint", "-w", str(home.project), "--json")
    assert (code, json.loads(told)["rule"], json.loads(told)["risk"]) == (6, "project:history", 50)
    _, shown = home.run("show", "-w", str(home.project))
    assert "no task above level 2" in shown
    assert "project:history" in shown


MALFORMED = {
    b"git 'log": "No closing quotation",
    b"git \0 log": "NUL",
    b"": "empty command",
    b"  \t": "empty command",
    b"git log \xff\xfe": "no UTF-8",
    b"cat " + b"a" * 1_000_000: "more than 200000 bytes",
    b"a " * 60_000: "at most 1000 words",
    b"fs.read " + b"a" * 150_000: "longer than any file system takes",
    b"'git log' -1": "name of a program",
    "s\u200budo x".encode(): "name of a program",
}


def test_each_line_has_its_answer_whatever_it_is(home: Home) -> None:
    told = home.run(
        "check", "-", "--level", "2", stdin=b"\xef\xbb\xbfgit log\r\n" + b"\n".join([*MALFORMED, b"git status"])
    )
    code, answers = told[0], lines(told[1])
    assert code == 0
    assert [each["decision"] for each in answers] == ["allow", *["deny"] * len(MALFORMED), "allow"]
    assert answers[0]["input"] == "git log"
    for answer, because in zip(answers[1:], MALFORMED.values(), strict=False):
        assert (answer["rule"], answer["level"], because in answer["because"]) == ("malformed", 2, True), answer[
            "because"
        ]


def test_an_answer_stands_on_one_line_for_all_that_split_lines(home: Home) -> None:
    _, told = home.run("check", "-", stdin="git log \u2028x\n\x0bgit\x0c\u2029\x85\x1c\n")
    assert len(told.splitlines()) == 2


def test_a_level_that_does_not_exist_is_refused(home: Home) -> None:
    code, told = home.run("check", "-", "--level", "9", stdin="git log\n")
    assert code == 2
    assert "9 is not in the range 0<=x<=4" in told


def test_a_project_that_would_give_is_refused(home: Home) -> None:
    home.write(PROJECT.replace("ask", "allow"))
    for name in (("show",), ("check", "git log")):
        code, told = home.run(*name, "-w", str(home.project))
        assert code == 2
        assert ".agentd/policy.yaml:4: " in told or ".agentd/policy.yaml:5: " in told


def test_cases_are_held_against_all_rules(home: Home, tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.write_text("# what must stay\n\n2 deny git push --force\n1 allow fs.write a.txt\n3 allow git.commit\n")
    assert home.run("test", str(cases))[0] == 0
    code, told = home.run("test", str(cases), "-w", str(home.project), "--json")
    assert code == 1
    (failed,) = json.loads(told)["failed"]
    assert failed.startswith(f"{cases}:5: 'git.commit' at level 3 is deny (default), not allow")
    for bad in ("5 allow ls", "2 maybe ls", "2 allow", "2 allow ls '"):
        cases.write_text(f"2 deny git push\n{bad}\n")
        code, told = home.run("test", str(cases))
        assert code == 2
        assert f"{cases}:2: " in told


def test_cases_may_name_a_workspace_and_taint(home: Home, tmp_path: Path) -> None:
    rules = home.folder / "policies" / "default.yaml"
    rules.write_text(
        rules.read_text()
        + '- match: {action: shell.exec, git: log, workspace: ["/somewhere/private"]}\n  decision: deny\n'
        '  because: "Private."\n  examples: {match: [git log], not_match: [git diff]}\n'
    )
    cases = tmp_path / "cases"
    lines = [
        "2 allow --taint git log",
        "2 allow --workspace=project git log",
        "2 ask --workspace=project --taint git log",
        "2 deny --workspace=/somewhere/private git log",
    ]
    cases.write_text("\n".join(lines))
    code, told = home.run("test", str(cases))
    assert code == 0, told
    code, told = home.run("test", str(cases), "-w", str(home.project), "--json")
    (failed,) = json.loads(told)["failed"]
    assert (code, failed.startswith(f"{cases}:1: 'git log' at level 2 is ask (project:history)")) == (1, True)
    cases.write_text("2 deny --level=3 git push\n")
    assert "there are --taint and --workspace=DIR" in home.run("test", str(cases))[1]


def test_a_rule_that_contradicts_its_examples_fails_the_test(home: Home) -> None:
    rules = home.folder / "policies" / "default.yaml"
    rules.write_text(rules.read_text().replace('match: [".git/hooks/pre-commit", ', 'match: ["README.md", '))
    code, told = home.run("test")
    assert code == 1
    assert "'README.md' must match, but does not" in told
