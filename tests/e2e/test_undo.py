"""What a task did is shown and taken back: in a repository that a person works in, and across kill -9."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Agentd, wait_for

pytestmark = pytest.mark.e2e

WORDS = """
- when: Tidy up
  replies:
    - steps:
        - intent: Replace milk with oat milk in notes.txt
        - intent: Rename old.txt to kept/new.txt
        - intent: Delete the folder junk
        - intent: Create a file ignored.log
    - edit_file
    - {path: notes.txt}
    - "```search\\nmilk\\n```\\n```replace\\noat milk\\n```"
    - answer
    - Replaced.
    - {done: true}
    - move_path
    - {source: old.txt, target: kept/new.txt}
    - answer
    - Renamed.
    - {done: true}
    - delete_path
    - {path: junk}
    - answer
    - Deleted.
    - {done: true}
    - write_file
    - {path: ignored.log}
    - "```\\nlog\\n```"
    - answer
    - Created.
    - {done: true}
    - Tidied up.
- when: Commit a change
  replies:
    - steps: [{intent: Overwrite notes.txt with butter}, {intent: Commit the changes to git}]
    - write_file
    - {path: notes.txt, mode: overwrite}
    - "```\\nbutter\\n```"
    - answer
    - Written.
    - {done: true}
    - git_commit
    - {paths: [notes.txt]}
    - "```\\nButter\\n```"
    - answer
    - Committed.
    - {done: true}
    - Committed.
- when: Throw it away
  replies:
    - {steps: [{intent: Throw it away}]}
    - delete_path
    - {path: many}
    - answer
    - Gone.
    - {done: true}
- when: Say hello
  replies: [{steps: [{intent: Say it}]}, answer, hello, {done: true}]
"""
MANY = 400

TIDY = "Tidy up: rename old.txt to kept/new.txt, delete the folder junk, write ignored.log"


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    folder = tmp_path_factory.mktemp("undo")
    words = folder / "words.yaml"
    words.write_text(WORDS, encoding="utf-8")
    made = Agentd(folder)
    made.speak(words)
    # Neither a council nor a person is asked here, however much a task deletes.
    made.env |= {"AGENTD_POLICY__COUNCIL_ABOVE": "100", "AGENTD_POLICY__ASK_ABOVE": "100"}
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture
def repository(agentd: Agentd, tmp_path: Path) -> Path:
    """A repository in which a person has staged one change and left others."""
    folder = tmp_path / "repository"
    (folder / "junk").mkdir(parents=True)
    for name in ("notes.txt", "old.txt", "staged.txt", "junk/a.txt"):
        (folder / name).write_text("milk\nbread\n" if name == "notes.txt" else f"{name}\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "Person")
    git(folder, "config", "user.email", "person@example.org")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "First")
    (folder / "staged.txt").write_text("staged\n")
    git(folder, "add", "staged.txt")
    (folder / "junk/b.txt").write_text("not in git\n")
    return folder


def git(folder: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def world(folder: Path) -> list[object]:
    """What git says, and every file."""
    said = [git(folder, *args) for args in (("status", "--porcelain"), ("rev-parse", "HEAD"), ("stash", "list"))]
    index = git(folder, "ls-files", "--stage")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [said, index, {name: data for name, data in files.items() if not name.startswith(".git/")}]


def do(agentd: Agentd, goal: str, folder: Path, *more: str) -> str:
    task = agentd.json("run", goal, "-w", str(folder), *more)
    assert task["state"] in ("claimed", "verified"), task
    return str(task["id"])


def test_a_task_is_taken_back_in_a_repository_that_is_worked_in(agentd: Agentd, repository: Path) -> None:
    before = world(repository)
    task = do(agentd, TIDY, repository)
    assert world(repository) != before
    assert agentd.ok("diff", task, "--stat").splitlines() == [
        "A ignored.log +1 -0",
        "D junk/a.txt +0 -1",
        "D junk/b.txt +0 -1",
        "A kept/new.txt +1 -0",
        "M notes.txt +1 -1",
        "D old.txt +0 -1",
    ]
    assert "-milk\n+oat milk\n" in agentd.ok("diff", task)
    assert f"agentd undo {task}" in agentd.ok("show", task)
    assert "would restore notes.txt" in agentd.ok("undo", task, "--dry-run")
    assert "restored notes.txt" in agentd.ok("undo", task)
    assert world(repository) == before
    assert agentd.ok("undo", task) == "everything stands as before already"
    agentd.ok("undo", task, "--back")
    assert (repository / "kept/new.txt").read_text() == "old.txt\n"


def test_what_a_person_changed_since_stays(agentd: Agentd, repository: Path) -> None:
    task = do(agentd, TIDY, repository)
    (repository / "notes.txt").write_text("oat milk\nbread\njam\n")
    (repository / "ignored.log").write_text("a person's\n")
    done = agentd.run("undo", task)
    assert done.returncode == 9
    assert "left ignored.log" in done.stdout
    assert (repository / "notes.txt").read_text().splitlines()[-1] == "jam"
    assert (repository / "ignored.log").read_text() == "a person's\n"


def test_a_commit_stays_and_the_command_that_takes_it_back_is_told(agentd: Agentd, repository: Path) -> None:
    task = do(agentd, "Commit a change", repository, "--level", "3")
    head = git(repository, "rev-parse", "HEAD").strip()
    undone = agentd.json("undo", task)
    assert git(repository, "rev-parse", "HEAD").strip() == head
    (commit,) = undone["commits"]
    assert (commit["commit"], commit["paths"]) == (head, ["notes.txt"])
    assert commit["command"] in agentd.ok("undo", task)
    subprocess.run(["sh", "-c", commit["command"]], cwd=repository, check=True, capture_output=True)
    assert git(repository, "show", "HEAD:notes.txt") == "milk\nbread\n"
    assert git(repository, "log", "-1", "--format=%s").strip() == 'Revert "Butter"'
    assert "notes.txt" not in git(repository, "status", "--porcelain")
    assert "staged.txt" in git(repository, "status", "--porcelain")


def test_a_commit_leaves_what_a_person_changed_uncommitted(agentd: Agentd, repository: Path) -> None:
    (repository / "notes.txt").write_text("milk\nbread\nnot yet committed\n")
    before = git(repository, "rev-parse", "HEAD")
    do(agentd, "Commit a change", repository, "--level", "3")
    assert git(repository, "rev-parse", "HEAD") == before  # the task wrote over the person's line
    git(repository, "checkout", "-q", "notes.txt")
    do(agentd, "Commit a change", repository, "--level", "3")
    assert git(repository, "show", "--format=%s", "--name-only").split() == ["Butter", "notes.txt"]
    assert git(repository, "status", "--porcelain").splitlines() == ["M  staged.txt", "?? junk/b.txt"]


def test_a_task_that_changed_nothing(agentd: Agentd, repository: Path) -> None:
    task = do(agentd, "Say hello", repository)
    assert agentd.run("diff", task).stderr == f"task {task} changed no file\n"
    assert agentd.ok("undo", task) == "it changed no file"
    assert agentd.error("undo", "nope", code=1)["code"] == "input.not_found"


def test_a_daemon_that_is_killed_in_an_undo_goes_on_with_it(agentd: Agentd, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    (folder / "many").mkdir(parents=True)
    for number in range(MANY):
        (folder / "many" / f"{number:03d}").write_text(f"{number}\n")
    task = do(agentd, "Throw it away: delete many", folder)
    assert not (folder / "many").exists()
    asking = agentd.start("undo", task)
    wait_for(lambda: (folder / "many").is_dir() and len(list((folder / "many").iterdir())) > 10)
    agentd.kill()
    asking.communicate()
    agentd.ok("up")
    agentd.ok("undo", task)
    found = {path.name: path.read_text() for path in (folder / "many").iterdir()}
    assert found == {f"{number:03d}": f"{number}\n" for number in range(MANY)}
    agentd.ok("undo", task, "--back")
    assert not (folder / "many").exists()
    assert agentd.json("audit", "verify")["ok"] is True
