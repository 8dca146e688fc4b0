"""What the queue takes and what it refuses, with words that say why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import AgentdError, BadInput, Denied
from agentd.tasks.request import Defaults, accepted
from agentd.types import AccessLevel, Budget, Check, CheckKind, TaskRequest

NOW = 1_800_000_000.0


def take(workspace: Path | str, **fields: Any) -> TaskRequest:
    request = TaskRequest(**{"goal": "count", "workspace": str(workspace), **fields})
    return accepted(request, Defaults(), NOW, {"known1"}.__contains__)


def test_what_is_not_said_gets_the_default(tmp_path: Path) -> None:
    taken = take(tmp_path)
    assert taken.level is AccessLevel.RUN_TESTS
    assert taken.budget == Budget()


def test_the_workspace_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert take(tmp_path / "link").workspace == str((tmp_path / "real").resolve())


def test_a_default_level_above_the_cap_is_lowered(tmp_path: Path) -> None:
    request = TaskRequest(goal="x", workspace=str(tmp_path))
    defaults = Defaults(level=AccessLevel.GIT_COMMIT, max_level=AccessLevel.SAFE_WRITE)
    assert accepted(request, defaults, NOW, bool).level is AccessLevel.SAFE_WRITE


def test_the_same_task_named_twice_counts_once(tmp_path: Path) -> None:
    assert take(tmp_path, after=("known1", "known1")).after == ("known1",)


@pytest.mark.parametrize("goal", ["umlaut ä, 日本 and 🙂", "two\nlines\twith a tab\r\n", "x" * 64 * 1024])
def test_plain_text_is_a_goal(tmp_path: Path, goal: str) -> None:
    assert take(tmp_path, goal=goal).goal == goal


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        ("", "the goal is empty"),
        (" \n\t ", "the goal is empty"),
        ("x" * 1024 * 1024, "1,048,576 bytes; the most is 65,536"),
        ("ä" * 40_000, "80,000 bytes"),
        ("GIF89a\x00\x01", "U+0000 at character 7"),
        ("\x7fELF", "U+007F"),
        ("\x1b[31mred", "U+001B"),
        ("latin \x80", "U+0080"),
        ("half \udcff", "U+DCFF"),
    ],
)
def test_a_goal_that_is_none(tmp_path: Path, goal: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        take(tmp_path, goal=goal)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_workspace_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for workspace in (tmp_path / "missing", tmp_path / "file", "", "  ", "relative", "~", "/", f"{tmp_path}\0"):
        with pytest.raises(BadInput):
            take(workspace)


def test_a_level_above_the_cap_is_denied(tmp_path: Path) -> None:
    with pytest.raises(Denied) as caught:
        take(tmp_path, level=AccessLevel.EXTENDED_SHELL)
    assert "level 4 is above the highest that is allowed here, 3" in caught.value.message
    assert "policy.max_level" in caught.value.hint


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (Check(target="grep 'open quote"), "not a command line"),
        (Check(target="   "), "names no program"),
        (Check(target="''"), "names no program"),
        (Check(target="true\0"), "not plain text"),
        (Check(target="x" * 5000), "longer than 4,096"),
        (Check(kind=CheckKind.FILE_CONTAINS, target="a.txt"), "which text"),
        (Check(kind=CheckKind.FILE_EXISTS, target="../../etc/passwd"), "passwd"),
    ],
)
def test_a_check_that_could_never_run(tmp_path: Path, check: Check, says: str) -> None:
    with pytest.raises(AgentdError) as caught:
        take(tmp_path, checks=(check,))
    assert says in caught.value.message


def test_checks_that_can_run(tmp_path: Path) -> None:
    checks = (
        Check(target="python -m pytest -q 'tests/a b.py'"),
        Check(kind=CheckKind.FILE_EXISTS, target="not/yet/there.txt"),
        Check(kind=CheckKind.FILE_CONTAINS, target="a.txt", text="done"),
    )
    assert take(tmp_path, checks=checks).checks == checks


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline": NOW - 1},
        {"deadline": math.nan},
        {"deadline": math.inf},
        {"not_before": math.inf},
        {"not_before": NOW + 20, "deadline": NOW + 10},
        {"after": ("nobody",)},
        {"after": ("known1",) * 101},
        {"checks": (Check(target="true"),) * 101},
        {"priority": 2**70},
        {"budget": Budget(steps=-1)},
        {"budget": Budget(tokens=-1)},
        {"budget": Budget(seconds=math.nan)},
        {"budget": Budget(retries=-1)},
    ],
)
def test_fields_that_make_no_sense(tmp_path: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        take(tmp_path, **fields)
