"""Dry runs and shadows show what they would change, and change nothing; apply makes exactly that, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Agentd, wait_for

pytestmark = pytest.mark.e2e

GOAL = "Write the greeting, test it and commit it"
WIRED = "Write the project file"
TOOL = "Fold a paper crane"
DIFF = "--- /dev/null\n+++ b/greeting.txt\n@@ -0,0 +1,2 @@\n+hello\n+world\n"


def words() -> list[dict[str, Any]]:
    """By what the model is shown, so that a daemon may be killed between any two."""
    says: list[tuple[list[str], Any]] = [
        (["Make the shortest plan"], {"steps": [{"intent": "Do it"}]}),
        (["Does what was done give"], {"done": True}),
        (["You chose `answer`"], "It is done."),
        ([GOAL, "Result of git_commit", "What next?"], "answer"),
        ([GOAL, "Result of run_command", "Now the value of"], "```message\nGreet\n```"),
        ([GOAL, "Result of run_command", "Arguments for git_commit"], {"paths": ["greeting.txt"]}),
        ([GOAL, "Result of run_command", "What next?"], "git_commit"),
        ([GOAL, "Created greeting.txt", "Arguments for run_command"], {"command": "python -m pytest -q"}),
        ([GOAL, "Created greeting.txt", "What next?"], "run_command"),
        ([GOAL, "Now the value of"], "```content\nhello\nworld\n```"),
        ([GOAL, "Arguments for write_file"], {"path": "greeting.txt", "mode": "create"}),
        ([GOAL, "What next?"], "write_file"),
        ([WIRED, "Created pyproject.toml", "What next?"], "answer"),
        ([WIRED, "Now the value of"], "```content\n[project]\n```"),
        ([WIRED, "Arguments for write_file"], {"path": "pyproject.toml", "mode": "create"}),
        ([WIRED, "What next?"], "write_file"),
        ([TOOL, "What next?"], "need_new_tool"),
        ([TOOL, "You chose `need_new_tool`"], "a tool that folds paper"),
    ]
    return [{"when": when, "replies": [reply] * 4} for when, reply in says]


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    folder = tmp_path_factory.mktemp("previews")
    (folder / "script.yaml").write_text(json.dumps(words()))
    made = Agentd(folder)
    made.speak(folder / "script.yaml")
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture
def project(agentd: Agentd) -> Iterator[Agentd]:
    """A repository with a test that looks at the greeting, committed."""
    agentd.workspace = agentd.workspace.parent / f"work-{os.urandom(4).hex()}"
    agentd.workspace.mkdir()
    test = 'def test_it():\n    assert open("greeting.txt").read() == "hello\\nworld\\n"\n'
    agentd.files({"README.md": "# x\n", "test_it.py": test})
    git(agentd, "init", "-q")
    git(agentd, "config", "user.name", "Ann")
    git(agentd, "config", "user.email", "ann@example.org")
    git(agentd, "add", "-A")
    git(agentd, "commit", "-qm", "first")
    yield agentd
    for task in agentd.json("ps"):
        agentd.ok("cancel", task["id"])


def git(agentd: Agentd, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=agentd.workspace, capture_output=True, text=True, check=True)
    return done.stdout


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file, those of git as well: mode and content."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copies(agentd: Agentd) -> list[str]:
    folder = agentd.home.copies_dir
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def plugins(agentd: Agentd) -> Any:
    return agentd.json("plugin", "ls", "-a")


def test_a_dry_run_shows_the_diff_and_changes_nothing(project: Agentd) -> None:
    before = tree(project.workspace)
    done = project.run("run", "--dry-run", "--level", "3", "--check", "python -m pytest -q", GOAL)
    assert (done.returncode, done.stdout) == (0, DIFF), done.stderr
    said = done.stderr.splitlines()
    assert said[0] == "plan: 1 step"
    would = [line for line in said if line.startswith("would run: ")]
    assert [line.split()[2] for line in would] == ["shell.exec", "git.commit", "check:"]
    assert "nothing was changed; 1 file would be" in said[-1]
    assert tree(project.workspace) == before
    assert copies(project) == []


def test_nothing_is_asked_in_a_dry_run_and_no_tool_is_made(project: Agentd) -> None:
    before, had = tree(project.workspace), plugins(project)
    found = json.loads(project.ok("run", "--dry-run", WIRED, "--json"))
    assert (found["mode"], [change["path"] for change in found["changes"]]) == ("dry_run", ["pyproject.toml"])
    assert project.run("run", "--dry-run", TOOL).returncode == 3
    assert (plugins(project), tree(project.workspace)) == (had, before)
    assert project.error("run", "--dry-run", "--shadow", "x", code=2)["code"] == "usage"


def test_a_shadow_does_it_all_in_a_copy_and_apply_takes_over_the_files(project: Agentd) -> None:
    before = tree(project.workspace)
    done = project.run("run", "--shadow", "--level", "3", "--check", "python -m pytest -q", GOAL)
    assert (done.returncode, done.stdout) == (0, DIFF), done.stderr
    assert "verified: " in done.stderr  # the test passed, in the copy
    assert (tree(project.workspace), copies(project)) == (before, [])
    task = project.json("ps", "-a")[0]["id"]
    assert project.ok("diff", task) + "\n" == DIFF
    assert "worked in a copy" in project.error("undo", task, code=9)["message"]
    assert project.ok("apply", task).startswith("Applied ")
    after = tree(project.workspace)
    assert {name for name in after if after[name] != before.get(name)} == {"greeting.txt"}
    assert (project.workspace / "greeting.txt").read_text() == "hello\nworld\n"
    assert git(project, "log", "--oneline").count("\n") == 1


def test_apply_is_refused_after_an_edit_of_the_user(project: Agentd) -> None:
    done = project.run("run", "--shadow", WIRED, "--yes", "--json")
    task = json.loads(done.stdout)["id"]
    (project.workspace / "pyproject.toml").write_text("[mine]\n")
    before = tree(project.workspace)
    refused = project.run("apply", task)
    assert (refused.returncode, "changed since they were looked at: pyproject.toml" in refused.stderr) == (3, True)
    assert tree(project.workspace) == before


def test_a_shadow_that_waits_survives_a_kill_and_its_copy_goes_at_the_end(project: Agentd) -> None:
    before = tree(project.workspace)
    task = project.json("submit", "--shadow", WIRED)["id"]
    project.run("wait", task)
    assert copies(project) == [task]
    project.kill()
    project.ok("up")
    assert copies(project) == [task]
    project.ok("approve", task)
    wait_for(lambda: project.json("show", task)["state"] == "claimed")
    assert (tree(project.workspace), copies(project)) == (before, [])
    # Applied to the real folder it is asked for once more: that yes was for the copy.
    assert project.run("apply", task).returncode == 6
    assert tree(project.workspace) == before


def test_a_project_s_policy_holds_in_a_copy(project: Agentd) -> None:
    project.files({".gitignore": ".agentd/\n", ".agentd/policy.yaml": "max_level: 0\n"})
    shown = json.loads(project.run("run", GOAL, "--level", "3", "--dry-run", "--json").stdout)
    assert shown["report"]["changed"] == []
    project.files({".agentd/policy.yaml": "max_level: 9\n"})
    failed = json.loads(project.run("run", GOAL, "--level", "3", "--shadow", "--json").stdout)
    assert (failed["state"], ".agentd/policy.yaml:1: " in failed["report"]["reason"]) == ("failed", True)
