"""Globs and argument patterns."""

from __future__ import annotations

import pytest

from agentd.policy.patterns import argv_pattern, path_pattern, programs_of


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**", ["a", "a/b", "."], []),
        ("*", ["a", "."], ["a/b"]),
        ("a", ["a"], ["b/a", "a/b", "ab"]),
        ("**/a", ["a", "x/a", "x/y/a"], ["xa", "a/x"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["ab", "b/a"]),
        ("**/.git/**", [".git", ".git/x", "s/.git", "s/.git/x/y"], [".gitignore", "a.git"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["src/a.pyc", "a.py"]),
        ("*.pem", ["a.pem"], ["x/a.pem", "apem"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("A.TXT", ["a.txt"], []),
        ("a+(b)[c]", ["a+(b)[c]"], ["aab"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    pattern = path_pattern([glob])
    assert [path for path in yes if not pattern.fullmatch(path)] == []
    assert [path for path in no if pattern.fullmatch(path)] == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (["git", "push"], ["git push"], ["git", "git push x", "git pushx", "xgit push"]),
        (["git", "*"], ["git x"], ["git", "git x y"]),
        (["git", "**"], ["git", "git x y z"], ["gitx"]),
        (["**", "x", "**"], ["x", "a x", "x b", "a x b"], ["a", "xx"]),
        (["a|b", "c"], ["a c", "b c"], ["a", "ab c", "c"]),
        (["!a|b*", "**"], ["c", "ax"], ["a", "b", "bx"]),
        (["git", "--no-pager?", "log"], ["git log", "git --no-pager log"], ["git x log"]),
        (["git", "-**", "push"], ["git push", "git -a --b push"], ["git a push"]),
        (["x", ["|", "a|b"]], ["x |", "x a|b"], ["x a", "x"]),
        (["x", "--out=*"], ["x --out=", "x --out=a=b"], ["x --out"]),
        (["x", "NUMBER"], ["x 12"], ["x a", "x -1"]),
        (["x", "PATH"], ["x a/b.py", "x main..dev", "x HEAD~1"], ["x -a", "x /a", "x ../a", "x a/..", "x ~", "x @a"]),
        (["x", "WORD"], ["x /a"], ["x -a", "x"]),
        (["x", "REV"], ["x @", "x @{u}..", "x @~1", "x a/b"], ["x @a", "x @:../a", "x @/a", "x ../a"]),
        (["x", "-!-a|-b*", "**"], ["x -c", "x --all", "x - y"], ["x -a", "x -bc", "x y", "x"]),
        (["x", "a\\|b|c"], ["x a|b", "x c"], ["x a", "x b"]),
        (["a.b"], ["a.b"], ["axb"]),
    ],
)
def test_argument_patterns(pattern: list[str | list[str]], yes: list[str], no: list[str]) -> None:
    compiled = argv_pattern(pattern, None, None)
    assert [line for line in yes if not compiled.fullmatch(ended(line))] == []
    assert [line for line in no if compiled.fullmatch(ended(line))] == []


GRAMMAR = argv_pattern(
    ["x", "**"],
    [
        "-q",
        "-v",
        "--all",
        "--tb=a|b",
        "-k WORD",
        "--max NUMBER",
        "--in PATH",
        "-p no:*",
        "-w a|e::NAME",
        "--none=",
        "-NUMBER",
    ],
    "PATH",
)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "x",
            "x -q",
            "x -qv",
            "x -vvq",
            "x a/b",
            "x --all -q a b --tb=a",
            "x -k w",
            "x -kw",
            "x --max 3",
            "x --max=3",
        ),
        *("x -w a", "x -w e::B_c", "x --none="),
        *("x --in a/b", "x --in=a/b", "x -p no:c", "x -5", "x -- a b", "x -q -- a", "x a -q b --"),
    ],
)
def test_known_options_pass(line: str) -> None:
    assert GRAMMAR.fullmatch(ended(line))


@pytest.mark.parametrize(
    "line",
    [
        *("x -z", "x -qz", "x --al", "x --all=1", "x --tb a", "x --tb=c", "x -k", "x -k -q", "x --max a", "x --max"),
        *("x --in /a", "x --in=../a", "x --in=-a", "x -p c", "x -pno", "x /a", "x ../a", "x a/../b", "x ~a", "x @a"),
        *("x -w e::", "x -w e::b.c", "x -w b", "x --none=a", "x --none"),
        *("x -- -z", "x -- /a", "x a:../b", "x a\nb", "x $(a)", "x `a`", "x a;b", "x a|b", "x C:/a", "x \\a", "x -"),
    ],
)
def test_everything_else_does_not(line: str) -> None:
    assert not GRAMMAR.fullmatch(ended(line))


def test_a_long_command_takes_no_time() -> None:
    """No pattern may backtrack without end."""
    words = ended("x " + "a " * 1000 + "/b")
    assert not GRAMMAR.fullmatch(words)
    assert not argv_pattern(["**", "-c", "**", "-d", "**"], None, None).fullmatch(words)


def test_the_programs_of_a_pattern_are_known_where_it_lists_them() -> None:
    assert programs_of("git") == {"git"}
    assert programs_of("a|b") == {"a", "b"}
    assert programs_of(["a", "b|c"]) == {"a", "b|c"}
    for open_one in ("*", "**", "-**", "!a|b", "a*|b", "a?", "PATH"):
        assert programs_of(open_one) is None


def ended(line: str) -> str:
    return "".join(f"{word}\0" for word in line.split(" "))
