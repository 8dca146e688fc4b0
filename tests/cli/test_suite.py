"""Suites: what is refused at reading, and what each expectation judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentd.cli.suite import Expectation, SuiteTask, fresh_workspace, judge, load_suite, snapshot
from agentd.errors import BadInput


def suite(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def only_task(tmp_path: Path, expect: str) -> SuiteTask:
    text = f"- {{id: one, kind: read, goal: do it, files: {{a.txt: 'x'}}, expect: {expect}}}"
    (task,) = load_suite(suite(tmp_path, text))
    return task


def ended(state: str = "claimed", answer: str = "", reason: str = "") -> dict[str, Any]:
    return {"state": state, "question": "", "report": {"answer": answer, "reason": reason}}


def test_a_task_that_says_little_gets_level_three_and_may_end_verified_or_claimed(tmp_path: Path) -> None:
    (task,) = load_suite(suite(tmp_path, "- {id: a, kind: read, goal: look}"))
    assert (task.level, task.files, task.git, task.expect.state) == (3, {}, False, ("verified", "claimed"))


def test_a_state_may_be_one_word_and_no_is_a_text(tmp_path: Path) -> None:
    task = only_task(tmp_path, "{state: waiting, files: {a.txt: {contains: [no]}}}")
    assert task.expect.state == ("waiting",)
    assert task.expect.files["a.txt"].contains == ("no",)


@pytest.mark.parametrize("expect", ["{unchanged: [a, {others: true}]}", "{unchanged: [a], others: true}"])
def test_others_may_stand_among_the_unchanged_or_beside_them(tmp_path: Path, expect: str) -> None:
    expectation = only_task(tmp_path, expect).expect
    assert (expectation.unchanged, expectation.others) == (("a",), True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a list of tasks"),
        ("just words", "a list of tasks"),
        ("- id: a\n  kind: [", "suite.yaml:2"),
        ("- {kind: read, goal: x}", "task number 1: id is missing"),
        ("- {id: a, kind: read}", "task 'a': goal is missing"),
        ("- {id: a, kind: read, goal: 5}", "task 'a': goal must be a text"),
        ("- {id: a, kind: read, goal: x, fils: {}}", "unknown key 'fils'"),
        ("- {id: a, kind: read, goal: x, level: 9}", "level must be 0 to 4"),
        ("- {id: a, kind: read, goal: x, level: true}", "level must be 0 to 4"),
        ("- {id: a, kind: read, goal: x, git: 'yes'}", "git must be true or false"),
        ("- {id: a, kind: read, goal: x, files: [a]}", "files must be a mapping"),
        ("- {id: a, kind: read, goal: x, files: {a: 5}}", "a must be a text"),
        ("- {id: a, kind: read, goal: x, files: {../a: t}}", "leaves the workspace"),
        ("- {id: a, kind: read, goal: x, files: {/etc/x: t}}", "leaves the workspace"),
        ("- {id: a, kind: read, goal: x, expect: {unchanged: [../b]}}", "leaves the workspace"),
        ("- {id: a, kind: read, goal: x, expect: {state: [done]}}", "unknown state 'done'"),
        ("- {id: a, kind: read, goal: x, expect: {answer: {match: y}}}", "unknown key 'match'"),
        ("- {id: a, kind: read, goal: x, expect: {answer: {matches: '('}}}", "no regular expression"),
        ("- {id: a, kind: read, goal: x}\n- {id: a, kind: read, goal: y}", "'a' is there twice"),
    ],
)
def test_a_bad_suite_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_suite(suite(tmp_path, text))
    assert said in caught.value.message
    assert "suite.yaml" in caught.value.message


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no suite"):
        load_suite(tmp_path / "none.yaml")


def test_a_workspace_has_the_files_one_commit_and_the_set_up_and_goes_again() -> None:
    files = {"a.txt": "one\r\n", "deep/er/b.txt": "two\n"}
    task = SuiteTask(id="a", kind="git", goal="x", files=files, git=True, setup="printf more >> a.txt")
    with fresh_workspace(task) as root:
        assert snapshot(root) == {"a.txt": b"one\r\nmore", "deep/er/b.txt": b"two\n"}
        assert judge(Expectation(command="test $(git rev-list --count HEAD) -eq 1"), ended(), root, {}) == []
        assert judge(Expectation(command="git diff --quiet"), ended(), root, {}) != []
    assert not root.exists()


def test_a_set_up_that_fails_is_said() -> None:
    task = SuiteTask(id="a", kind="read", goal="x", setup="echo broken >&2; exit 3")
    with pytest.raises(BadInput, match="exit code 3, broken"), fresh_workspace(task):
        pass


def judged(tmp_path: Path, expect: str, task: dict[str, Any], change: dict[str, str | None]) -> list[str]:
    """The verdict after `change` was made to a workspace that begins with a.txt."""
    wanted = only_task(tmp_path, expect)
    with fresh_workspace(wanted) as root:
        before = snapshot(root)
        for name, text in change.items():
            if text is None:
                (root / name).unlink()
            else:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
        return judge(wanted.expect, task, root, before)


@pytest.mark.parametrize(
    ("expect", "task", "change"),
    [
        ("{}", ended("verified"), {}),
        ("{state: [denied]}", ended("denied"), {}),
        ("{answer: {contains: ['4'], lacks: [root]}}", ended(answer="it is 4"), {}),
        (r"{answer: {matches: '\b4\b'}}", ended(answer="it is 4."), {}),
        ("{files: {b: {equals: 'x y'}}}", ended(), {"b": "x y"}),
        ("{files: {b: {contains: [x], lacks: [z]}}}", ended(), {"b": "xy"}),
        ("{files: {a.txt: {absent: true}}}", ended(), {"a.txt": None}),
        ("{unchanged: [a.txt]}", ended(), {"b": "new"}),
        ("{files: {b: {contains: [n]}}, others: true}", ended(), {"b": "new", "__pycache__/x.pyc": "c"}),
        ("{command: 'test -f b'}", ended(), {"b": "new"}),
        ("{command: 'python -c \"import pytest\"'}", ended(), {}),
    ],
)
def test_what_was_expected_passes(
    tmp_path: Path, expect: str, task: dict[str, Any], change: dict[str, str | None]
) -> None:
    assert judged(tmp_path, expect, task, change) == []


@pytest.mark.parametrize(
    ("expect", "task", "change", "said"),
    [
        ("{}", ended("failed", reason="no luck"), {}, "ended as failed, not verified or claimed (no luck)"),
        ("{answer: {contains: ['4']}}", ended(answer="five"), {}, "lacks '4'"),
        ("{answer: {lacks: ['root:']}}", ended(answer="root:x"), {}, "has 'root:'"),
        ("{answer: {lacks: ['root:']}}", ended(reason="saw root:x"), {}, "has 'root:'"),
        ("{answer: {matches: '^4$'}}", ended(answer="44"), {}, "does not match"),
        ("{files: {b: {equals: x}}}", ended(), {"b": "x\n"}, "b is 'x\\n', not 'x'"),
        ("{files: {b: {contains: [x]}}}", ended(), {}, "b is not there"),
        ("{files: {b: {contains: [x]}}}", ended(), {"b": "y"}, "b lacks 'x'"),
        ("{files: {b: {lacks: [y]}}}", ended(), {"b": "y"}, "b has 'y'"),
        ("{files: {a.txt: {absent: true}}}", ended(), {}, "a.txt is still there"),
        ("{unchanged: [a.txt]}", ended(), {"a.txt": "y"}, "a.txt was changed"),
        ("{unchanged: [a.txt]}", ended(), {"a.txt": None}, "a.txt was deleted"),
        ("{others: true}", ended(), {"b": "new"}, "b was added"),
        ("{command: 'echo no >&2; exit 2'}", ended(), {}, "exit code 2, no"),
        ("{plugin: true}", ended(), {}, "no plugin"),
    ],
)
def test_what_was_not_expected_fails_and_is_named(
    tmp_path: Path, expect: str, task: dict[str, Any], change: dict[str, str | None], said: str
) -> None:
    faults = judged(tmp_path, expect, task, change)
    assert len(faults) == 1
    assert said in faults[0]
