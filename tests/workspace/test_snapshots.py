"""What the agent did can be taken back, and nothing that anyone else did is lost by it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from agentd.errors import ToolFailed
from agentd.types import FileChange
from agentd.workspace import snapshots
from agentd.workspace.paths import Workspace
from tests.workspace.conftest import TASK, Agent

posix = pytest.mark.skipif(os.name == "nt", reason="links, modes and special files of POSIX")

Tree = dict[str, tuple[str, int, bytes]]


def tree(root: Path) -> Tree:
    """Everything below a folder: kind, mode, and bytes or target."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        if stat.S_ISLNK(state.st_mode):
            entry = ("link", 0, os.fsencode(os.readlink(path)))
        elif stat.S_ISDIR(state.st_mode):
            entry = ("folder", stat.S_IMODE(state.st_mode), b"")
        else:
            entry = ("file", stat.S_IMODE(state.st_mode), path.read_bytes())
        found[path.relative_to(root).as_posix()] = entry
    return found


def kinds(agent: Agent) -> dict[str, str]:
    return {change.path: change.kind for change in agent.ledger.changes(TASK)}


# what is taken back ---------------------------------------------------------------------------------------------------


def test_a_change_is_taken_back(agent: Agent, place: Path) -> None:
    (place / "a.txt").write_text("one\ntwo\n")
    before = tree(place)
    agent.write("a.txt", "one\nTWO\n")
    agent.write("new/deep/b.txt", "made\n")
    restored = agent.undo()
    assert tree(place) == before
    assert set(restored.paths) == {"a.txt", "new", "new/deep", "new/deep/b.txt"}
    assert not restored.conflicts


def test_it_comes_to_the_same_however_often_it_is_done(agent: Agent, place: Path) -> None:
    (place / "a.txt").write_text("one\n")
    agent.write("a.txt", "two\n")
    agent.undo()
    again = agent.undo()
    assert (again.paths, again.already, again.conflicts) == ((), ("a.txt",), ())
    assert (place / "a.txt").read_text() == "one\n"


def test_many_changes_of_one_file_are_taken_back_to_before_the_first(agent: Agent, place: Path) -> None:
    (place / "a.txt").write_text("0\n")
    for number in range(1, 6):
        agent.write("a.txt", f"{number}\n")
    agent.undo()
    assert (place / "a.txt").read_text() == "0\n"


def test_a_mark_parts_what_is_taken_back_from_what_stays(agent: Agent, place: Path) -> None:
    agent.write("a.txt", "first\n")
    mark = agent.ledger.mark(TASK)
    agent.write("a.txt", "second\n")
    agent.write("b.txt", "second\n")
    agent.undo(mark)
    assert tree(place).keys() == {"a.txt"}
    assert (place / "a.txt").read_text() == "first\n"
    agent.write("a.txt", "third\n")
    agent.undo()
    assert not tree(place)


def test_a_deleted_folder_comes_back_whole(agent: Agent, place: Path) -> None:
    (place / "src/empty").mkdir(parents=True)
    (place / "src/a.py").write_text("a\n")
    (place / "src/run.sh").write_text("#!/bin/sh\n")
    (place / "src/run.sh").chmod(0o755)
    (place / "src/zero").write_bytes(b"")
    if os.name != "nt":
        (place / "src/link").symlink_to("a.py")
        (place / "src/dangling").symlink_to("nowhere")
        (place / "src/odd \n\u00e9\udcff:name.").write_bytes(b"\xff\0")
    before = tree(place)
    agent.delete("src")
    assert not tree(place)
    restored = agent.undo()
    assert tree(place) == before
    assert len(restored.paths) == len(before)


def test_a_renamed_folder_goes_back(agent: Agent, place: Path) -> None:
    (place / "old/in").mkdir(parents=True)
    (place / "old/in/a").write_text("a")
    before = tree(place)
    agent.move("old", "far/new")
    assert (place / "far/new/in/a").read_text() == "a"
    agent.undo()
    assert tree(place) == before


def test_a_copied_folder_goes(agent: Agent, place: Path) -> None:
    (place / "one").mkdir()
    (place / "one/a").write_text("a")
    before = tree(place)
    agent.files().copy("one", "two")
    agent.undo()
    assert tree(place) == before


def test_a_file_where_a_folder_was_and_a_folder_where_a_file_was(agent: Agent, place: Path) -> None:
    (place / "folder/in").mkdir(parents=True)
    (place / "folder/in/a").write_text("a")
    (place / "file").write_text("f")
    before = tree(place)
    agent.delete("folder")
    agent.write("folder", "now a file")
    agent.delete("file")
    agent.write("file/in/b", "now a folder")
    agent.undo()
    assert tree(place) == before


@posix
def test_a_file_where_a_link_was(agent: Agent, place: Path) -> None:
    (place / "a").write_text("a")
    (place / "link").symlink_to("a")
    before = tree(place)
    agent.delete("link")
    agent.write("link/b", "b")
    agent.undo()
    assert tree(place) == before


@posix
def test_writing_through_a_link_changes_what_it_names(agent: Agent, place: Path) -> None:
    (place / "real.txt").write_text("old")
    (place / "link").symlink_to("real.txt")
    before = tree(place)
    agent.write("link", "new")
    assert (place / "real.txt").read_text() == "new"
    agent.undo()
    assert tree(place) == before


def test_the_mode_comes_back(agent: Agent, place: Path) -> None:
    (place / "run").write_text("1")
    (place / "run").chmod(0o750)
    agent.delete("run")
    agent.write("run", "2")
    agent.undo()
    assert stat.S_IMODE((place / "run").stat().st_mode) == 0o750


@posix
def test_the_other_name_of_a_hard_link_is_not_touched(agent: Agent, place: Path) -> None:
    (place / "a").write_text("shared")
    os.link(place / "a", place / "b")
    agent.write("a", "changed")
    agent.undo()
    assert ((place / "a").read_text(), (place / "b").read_text()) == ("shared", "shared")


def test_names_that_differ_in_case_are_two_files(agent: Agent, place: Path) -> None:
    (place / "Read.me").write_text("upper\n")
    if (place / "read.me").exists():
        pytest.skip("this file system takes them for one")
    (place / "read.me").write_text("lower\n")
    agent.write("Read.me", "UPPER\n")
    agent.write("read.me", "LOWER\n")
    agent.undo()
    assert ((place / "Read.me").read_text(), (place / "read.me").read_text()) == ("upper\n", "lower\n")


def test_a_large_file_is_kept_and_comes_back(agent: Agent, place: Path) -> None:
    block = os.urandom(1 << 20)
    with (place / "large").open("wb") as file:
        for number in range(50):
            file.write(number.to_bytes(4, "big") + block)
    before = (place / "large").read_bytes()
    agent.write("large", b"small now")
    assert agent.ledger.pre_image(TASK, "large") == before
    agent.undo()
    assert (place / "large").read_bytes() == before


def test_what_is_the_same_is_kept_once(agent: Agent, place: Path) -> None:
    data = os.urandom(1 << 20)
    for name in ("a", "b", "c"):
        (place / name).write_bytes(data)
        agent.write(name, "x")
    assert agent.ledger.blobs.stored() < 1.1 * len(data)


def test_only_some_paths(agent: Agent, place: Path) -> None:
    for path in ("a/1", "a/2", "b", "ab"):
        agent.write(path, "x")
    restored = agent.undo(paths=["a"])
    assert set(restored.paths) == {"a", "a/1", "a/2"}
    assert tree(place).keys() == {"b", "ab"}


def test_a_dry_run_says_the_same_and_does_nothing(agent: Agent, place: Path) -> None:
    (place / "a").write_text("1\n")
    agent.write("a", "2\n")
    agent.write("d/b", "2\n")
    agent.write("c", "2\n")
    (place / "c").write_text("user's\n")
    before = tree(place)
    said = agent.undo(dry_run=True)
    assert tree(place) == before
    assert agent.undo() == said


# what others did ------------------------------------------------------------------------------------------------------


LINES = [f"line {number}\n" for number in range(20)]


def test_a_later_edit_elsewhere_in_the_file_stays(agent: Agent, place: Path) -> None:
    (place / "a").write_text("".join(LINES))
    agent.write("a", "".join(LINES).replace("line 3\n", "agent's 3\n"))
    now = (place / "a").read_text()
    (place / "a").write_text(now.replace("line 15\n", "user's 15\n") + "user's end\n")
    restored = agent.undo()
    assert (place / "a").read_text() == "".join(LINES).replace("line 15\n", "user's 15\n") + "user's end\n"
    assert (restored.paths, restored.merged, restored.conflicts) == (("a",), ("a",), ())
    assert agent.undo().already == ("a",)


def test_an_edit_between_two_changes_stays(agent: Agent, place: Path) -> None:
    (place / "a").write_text("".join(LINES))
    agent.write("a", (place / "a").read_text().replace("line 3\n", "agent's 3\n"))
    (place / "a").write_text((place / "a").read_text().replace("line 10\n", "user's 10\n"))
    agent.write("a", (place / "a").read_text().replace("line 17\n", "agent's 17\n"))
    agent.undo()
    assert (place / "a").read_text() == "".join(LINES).replace("line 10\n", "user's 10\n")


def test_an_edit_that_the_agent_wrote_over_comes_back(agent: Agent, place: Path) -> None:
    (place / "a").write_text("first\n")
    agent.write("a", "agent's\n")
    (place / "a").write_text("user's\n")
    agent.write("a", "agent's again\n")
    restored = agent.undo()
    assert (place / "a").read_text() == "user's\n"
    (conflict,) = restored.conflicts
    assert (place / conflict.beside[0]).read_text() == "first\n"


def test_every_state_that_holds_an_edit_stands_beside_where_it_cannot_come_back(agent: Agent, place: Path) -> None:
    (place / "a").write_text("first\n")
    agent.write("a", "agent's\n")
    (place / "a").write_text("user's\n")
    agent.write("a", "agent's again\n")
    (place / "a").write_text("agent's again\nuser's end\n")
    (conflict,) = agent.undo().conflicts
    assert [(place / name).read_text() for name in conflict.beside] == ["first\n", "user's\n"]


def test_an_edit_of_the_same_place_stays_and_the_old_text_stands_beside_it(agent: Agent, place: Path) -> None:
    (place / "a.txt").write_text("one\n")
    agent.write("a.txt", "two\n")
    (place / "a.txt").write_text("three\n")
    (place / "a.txt.agentd-before").write_text("somebody's\n")
    restored = agent.undo()
    (conflict,) = restored.conflicts
    assert (conflict.path, conflict.beside) == ("a.txt", ("a.txt.agentd-before-2",))
    assert "someone else has changed it" in conflict.reason
    assert (place / "a.txt").read_text() == "three\n"
    assert (place / "a.txt.agentd-before-2").read_text() == "one\n"
    assert agent.undo() == restored
    assert len(tree(place)) == 3


def test_a_file_of_the_task_that_someone_has_changed_stays(agent: Agent, place: Path) -> None:
    agent.write("d/a", "agent's\n")
    (place / "d/a").write_text("user's\n")
    (place / "d/own").write_text("user's\n")
    restored = agent.undo()
    assert {conflict.path for conflict in restored.conflicts} == {"d", "d/a"}
    assert (place / "d/a").read_text() == "user's\n"


def test_a_file_that_someone_has_deleted_is_put_beside(agent: Agent, place: Path) -> None:
    (place / "a").write_text("one\n")
    agent.write("a", "two\n")
    (place / "a").unlink()
    (conflict,) = agent.undo().conflicts
    assert not (place / "a").exists()
    assert (place / conflict.beside[0]).read_text() == "one\n"


def test_a_binary_file_that_someone_has_changed_stays(agent: Agent, place: Path) -> None:
    (place / "a").write_bytes(b"\0one")
    agent.write("a", b"\0two")
    (place / "a").write_bytes(b"\0three")
    (conflict,) = agent.undo().conflicts
    assert (place / "a").read_bytes() == b"\0three"
    assert (place / conflict.beside[0]).read_bytes() == b"\0one"


def test_a_mode_that_someone_has_set_stays(agent: Agent, place: Path) -> None:
    (place / "a").write_text("one\n")
    agent.write("a", "two\n")
    (place / "a").chmod(0o700)
    agent.undo()
    assert stat.S_IMODE((place / "a").stat().st_mode) == 0o700
    assert (place / "a").read_text() == "one\n"


def test_a_mode_that_the_agent_has_set_goes_also_where_someone_has_edited_the_file(agent: Agent, place: Path) -> None:
    (place / "a").write_text("1\n2\n3\n4\n")
    (place / "a").chmod(0o644)
    agent.files().write_atomic("a", b"one\n2\n3\n4\n", mode=0o755)
    (place / "a").write_text("one\n2\n3\nfour\n")
    assert agent.undo().merged == ("a",)
    assert (place / "a").read_text() == "1\n2\n3\nfour\n"
    assert (place / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nobody keeps root from writing")
def test_a_renamed_folder_in_which_nobody_may_write_goes_back(agent: Agent, place: Path) -> None:
    (place / "d" / "e").mkdir(parents=True)
    (place / "d" / "e" / "f").write_text("f\n")
    (place / "d" / "e").chmod(0o555)
    (place / "d").chmod(0o555)
    before = tree(place)
    agent.move("d", "z")
    agent.undo()
    there = tree(place)
    for folder in (place / "d", place / "d" / "e"):
        folder.chmod(0o755)
    assert there == before


def test_a_folder_that_someone_has_put_where_a_file_was_stays(agent: Agent, place: Path) -> None:
    (place / "a").write_text("one\n")
    agent.delete("a")
    (place / "a").mkdir()
    (place / "a/own").write_text("user's\n")
    (conflict,) = agent.undo().conflicts
    assert (place / "a/own").read_text() == "user's\n"
    assert (place / conflict.beside[0]).read_text() == "one\n"


@posix
def test_a_moved_file_stands_beside_a_folder_that_has_to_stay_in_its_place(agent: Agent, place: Path) -> None:
    (place / "a").write_text("a\n")
    agent.move("a", "b")
    agent.write("a/x", "agent\n")
    (place / "a" / "x").write_text("user\n")
    conflicts = {conflict.path: conflict.beside for conflict in agent.undo().conflicts}
    assert conflicts == {"a": ("a.agentd-before",), "a/x": ()}
    assert (place / "a.agentd-before").read_text() == "a\n"
    assert not (place / "b").exists()
    assert (place / "a" / "x").read_text() == "user\n"


def test_a_link_that_someone_has_put_on_the_way_is_not_followed(agent: Agent, place: Path, tmp_path: Path) -> None:
    (place / "d").mkdir()
    (place / "d/a").write_text("one\n")
    agent.write("d/a", "two\n")
    (place / "d").rename(tmp_path / "elsewhere")
    (place / "d").symlink_to(tmp_path / "elsewhere")
    agent.undo()
    assert (tmp_path / "elsewhere/a").read_text() == "two\n"
    assert (place / "a.agentd-before").read_text() == "one\n"


@posix
def test_somebody_writing_at_the_same_time_stops_the_change(
    agent: Agent, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "a").write_text("one\n")
    real = snapshots.Ledger._write

    def write(self: snapshots.Ledger, *args: object) -> object:
        (place / "a").write_text((place / "a").read_text() + "user's\n")
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshots.Ledger, "_write", write)
    with pytest.raises(ToolFailed, match="written by someone else"):
        agent.write("a", "two\n")
    assert (place / "a").read_text() == "one\n" + "user's\n" * 3
    assert not agent.ledger.changes(TASK)


# an undo can be undone ------------------------------------------------------------------------------------------------


def test_an_undo_can_be_undone(agent: Agent, place: Path) -> None:
    (place / "a").write_text("one\n")
    (place / "gone").write_text("gone\n")
    agent.write("a", "two\n")
    agent.write("d/b", "made\n")
    agent.delete("gone")
    after = tree(place)
    mark = agent.ledger.mark(TASK)
    agent.undo(undo=1)
    assert tree(place).keys() == {"a", "gone"}
    agent.undo(mark, undo=2)
    assert tree(place) == after
    agent.undo(undo=3)
    assert tree(place).keys() == {"a", "gone"}
    assert kinds(agent) == {"a": "changed", "d/b": "added", "gone": "deleted"}


def test_the_audit_log_knows_of_it(agent: Agent, place: Path) -> None:
    agent.write("a", "x")
    agent.undo()
    (record,) = [each for each in agent.audit.tail(10, TASK) if each.kind == "snapshot.restored"]
    assert record.data["paths"] == ["a"]


# what is told of it ---------------------------------------------------------------------------------------------------


def test_changes_are_the_net_effect(agent: Agent, place: Path) -> None:
    for name in ("changed", "deleted", "same", "mode"):
        (place / name).write_text("one\n")
    agent.write("changed", "two\n")
    agent.write("changed", "three\nfour\n")
    agent.write("added", "new\n")
    agent.write("passing", "gone again\n")
    agent.delete("passing")
    agent.delete("deleted")
    agent.write("same", "two\n")
    agent.write("same", "one\n")
    found = {change.path: change for change in agent.ledger.changes(TASK)}
    assert {path: change.kind for path, change in found.items()} == {
        "added": "added",
        "changed": "changed",
        "deleted": "deleted",
    }
    assert (found["changed"].added, found["changed"].removed) == (2, 1)
    assert found["added"] == FileChange(
        path="added",
        kind="added",
        diff="diff --git a/added b/added\nnew file mode 100644\n--- /dev/null\n+++ b/added\n@@ -0,0 +1 @@\n+new\n",
        added=1,
    )
    assert agent.ledger.pre_image(TASK, "changed") == b"one\n"
    assert agent.ledger.pre_image(TASK, "added") is None
    assert agent.ledger.pre_image(TASK, "never") is None


@posix
def test_git_applies_the_diff(agent: Agent, place: Path, tmp_path: Path) -> None:
    names = ("plain", "with space", "umlaut \u00e4", 'quo"te', "no newline", "form\x0cfeed")
    for name in names:
        (place / name).write_text("".join(LINES) + ("end" if name == "no newline" else ""))
    (place / "run").write_text("x\n")
    (place / "latin").write_bytes(b"caf\xe9\nx\n")
    (place / "link").symlink_to("plain")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(place), str(copy)], check=True)
    for name in names:
        if name.isprintable():
            agent.write(name, (place / name).read_text().replace("line 9\n", "line\x0c9\u2028\n") + "more")
    agent.write("latin", b"caf\xe9s\nx\n")
    agent.delete("run")
    agent.delete("link")
    agent.write("deep/new", "new")
    agent.write("empty", "")
    diff = agent.ledger.diff(TASK)
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn"], cwd=copy, input=os.fsencode(diff), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert tree(copy) == tree(place)


def test_a_binary_file_has_no_lines(agent: Agent, place: Path) -> None:
    (place / "a").write_bytes(b"\0" * 100)
    agent.write("a", b"\0" * 200)
    (change,) = agent.ledger.changes(TASK)
    assert (change.kind, change.added, change.removed) == ("changed", 0, 0)
    assert "Binary files a/a and b/a differ" in change.diff


def test_a_text_that_is_too_large_has_no_diff(agent: Agent, place: Path) -> None:
    (place / "a").write_text("x\n" * 1_000_000)
    agent.write("a", "y\n")
    (change,) = agent.ledger.changes(TASK)
    assert (change.kind, change.diff) == ("changed", "")


# what cannot be kept is not changed -----------------------------------------------------------------------------------


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_not_changed(agent: Agent, place: Path) -> None:
    (place / "a").write_text("one\n")
    (place / "a").chmod(0o200)
    with pytest.raises(ToolFailed, match="cannot be kept"):
        agent.write("a", "two\n")


def test_a_change_that_fails_is_not_in_the_ledger(agent: Agent, place: Path) -> None:
    (place / "a").write_text("one\n")
    (place / "b").write_text("one\n")
    with pytest.raises(ToolFailed):
        agent.files().move("a", "b")
    assert not agent.ledger.changes(TASK)


def test_a_workspace_without_a_ledger_works_as_before(place: Path, agent: Agent) -> None:
    Workspace(place).write_atomic("a", b"x")
    assert not agent.ledger.has(TASK)
