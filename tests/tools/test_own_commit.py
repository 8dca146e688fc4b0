"""A commit holds what the task changed and nothing of the user's, in every state of a repository and after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.errors import Denied, ToolFailed
from agentd.store.db import Database
from agentd.tools import git, repository
from agentd.tools.git_command import git_command
from agentd.tools.repository import Repository
from agentd.tools.tool import ToolContext
from agentd.types import ToolResult
from agentd.workspace.paths import Workspace
from agentd.workspace.snapshots import Ledger, OriginOfChange

TASK = "task-1"
PLAIN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "ann@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
BASE = "".join(f"line {n}\n" for n in range(1, 21))


@dataclass
class Bench:
    """A repository of a user, and an agent that works in it."""

    root: Path
    ledger: Ledger
    calls: int = 0

    def git(self, *args: str, check: bool = True) -> str:
        """As the user runs it."""
        done = subprocess.run(["git", *args], cwd=self.root, env=PLAIN, check=check, capture_output=True, text=True)
        return done.stdout.rstrip("\n")

    def user(self, path: str, content: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def swap(self, path: str, old: str, new: str, by: str = "user") -> None:
        content = self.read(path)
        assert old in content
        (self.user if by == "user" else self.agent)(path, content.replace(old, new))

    def files(self, origin: OriginOfChange = "tool") -> Workspace:
        self.calls += 1
        return Workspace(self.root, self.ledger.keeper(TASK, f"{self.calls:05d}", self.root, origin))

    def done(self) -> None:
        self.ledger.finish(TASK, f"{self.calls:05d}")

    def agent(self, path: str, content: str | bytes, origin: OriginOfChange = "tool") -> None:
        self.files(origin).write_atomic(path, content.encode() if isinstance(content, str) else content)
        self.done()

    def context(self, **more: Any) -> ToolContext:
        plain = Workspace(self.root)
        self.calls += 1
        return ToolContext(
            workspace=plain, key=f"{self.calls:05d}", task=TASK, own=lambda: self.ledger.own(TASK, plain), **more
        )

    def commit(self, *paths: str, message: str = "Work") -> ToolResult:
        result = git.git_commit.run(self.context(), message=message, paths=paths)
        assert isinstance(result, ToolResult)
        return result

    def committed(self, path: str, commit: str = "HEAD") -> str:
        return self.git("show", f"{commit}:{path}") + "\n"

    def status(self) -> list[str]:
        return self.git("status", "--porcelain").splitlines()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Two files are committed, the agent has changed nothing yet."""
    root = tmp_path / "repo"
    root.mkdir()
    db = Database(tmp_path / "agentd.db", clock=SystemClock())
    made = Bench(root, Ledger(db, SystemClock()))
    made.git("init", "-q", "-b", "main")
    made.user("a.txt", BASE)
    made.user("b.txt", "b\n")
    made.git("add", ".")
    made.git("commit", "-qm", "First")
    yield made
    db.close()


# a user's changes stay ------------------------------------------------------------------------------------------------


def test_only_the_agents_files_are_committed(bench: Bench) -> None:
    bench.user("b.txt", "theirs\n")
    bench.user("dir/new.txt", "theirs\n")
    bench.agent("dir/own.txt", "mine\n")
    bench.swap("a.txt", "line 5\n", "LINE 5\n", by="agent")
    told = bench.commit()
    assert told.data["files"] == ["a.txt", "dir/own.txt"]
    assert bench.status() == [" M b.txt", "?? dir/new.txt"]
    assert bench.git("log", "-1", "--format=%B").splitlines()[-2:] == ["Agentd-Task: task-1", "Agentd-Key: 00003"]
    assert bench.git("fsck", "--strict") == ""


def test_a_file_that_was_dirty_is_committed_without_the_users_lines(bench: Bench) -> None:
    bench.swap("a.txt", "line 2\n", "theirs\n")
    bench.swap("a.txt", "line 15\n", "mine\n", by="agent")
    bench.swap("a.txt", "line 9\n", "theirs later\n")
    stands = bench.read("a.txt")
    bench.commit()
    assert bench.committed("a.txt") == BASE.replace("line 15\n", "mine\n")
    assert bench.read("a.txt") == stands
    assert bench.status() == [" M a.txt"]
    shown = bench.git("diff", "-U0")
    assert "+theirs" in shown
    assert "+theirs later" in shown
    assert bench.git("fsck", "--strict") == ""  # nothing of theirs got into the repository
    assert "mine" not in shown


def test_staged_and_unstaged_changes_of_the_same_file_stay_so(bench: Bench) -> None:
    bench.swap("a.txt", "line 2\n", "staged\n")
    bench.git("add", "a.txt")
    bench.swap("a.txt", "line 9\n", "unstaged\n")
    bench.swap("a.txt", "line 15\n", "mine\n", by="agent")
    bench.user("b.txt", "staged too\n")
    bench.git("add", "b.txt")
    bench.commit()
    assert bench.committed("a.txt") == BASE.replace("line 15\n", "mine\n")
    assert bench.status() == ["MM a.txt", "M  b.txt"]
    assert bench.git("show", ":a.txt") + "\n" == BASE.replace("line 2\n", "staged\n").replace("line 15\n", "mine\n")
    assert [line for line in bench.git("diff", "-U0").splitlines() if line[0] in "+-"][2:] == ["-line 9", "+unstaged"]


def test_many_turns_of_both_and_many_commits(bench: Bench) -> None:
    bench.swap("a.txt", "line 2\n", "theirs 2\n")
    bench.swap("a.txt", "line 15\n", "mine 15\n", by="agent")
    bench.commit()
    bench.swap("a.txt", "line 18\n", "theirs 18\n")
    bench.swap("a.txt", "mine 15\n", "mine again\n", by="agent")
    bench.swap("a.txt", "line 6\n", "mine 6\n", by="agent")
    bench.commit()
    expected = BASE.replace("line 15\n", "mine again\n").replace("line 6\n", "mine 6\n")
    assert bench.committed("a.txt") == expected
    assert [line for line in bench.git("diff", "-U0").splitlines() if line.startswith("+")][1:] == [
        *("+theirs 2", "+theirs 18"),
    ]
    with pytest.raises(ToolFailed, match="is committed already"):
        bench.commit()
    bench.git("commit", "-qam", "Theirs")
    bench.swap("a.txt", "mine 6\n", "mine 66\n", by="agent")
    bench.commit()
    assert bench.status() == []
    assert bench.git("log", "--format=%s").splitlines() == ["Work", "Theirs", "Work", "Work", "First"]


CLASHES: dict[str, tuple[Callable[[Bench], None], str]] = {}


def clash(reason: str) -> Callable[[Callable[[Bench], None]], None]:
    def add(prepare: Callable[[Bench], None]) -> None:
        CLASHES[prepare.__name__] = (prepare, reason)

    return add


@clash("a.txt: it had changes that are not committed, where this task changed it too")
def same_line(bench: Bench) -> None:
    bench.swap("a.txt", "line 5\n", "theirs\n")
    bench.swap("a.txt", "theirs\n", "mine\n", by="agent")


@clash("u.txt: it is not in the last commit, and was there before")
def untracked_before(bench: Bench) -> None:
    bench.user("u.txt", "theirs\n")
    bench.agent("u.txt", "theirs\nmine\n")


@clash("a.txt: it had changes that are not committed")
def deleted_dirty(bench: Bench) -> None:
    bench.swap("a.txt", "line 5\n", "theirs\n")
    bench.files().delete("a.txt")
    bench.done()


@clash("a.txt: what is staged of it touches what this task changed")
def staged_same_line(bench: Bench) -> None:
    bench.swap("a.txt", "line 5\n", "staged\n")
    bench.git("add", "a.txt")
    bench.user("a.txt", BASE)
    bench.swap("a.txt", "line 5\n", "mine\n", by="agent")


@clash("a.txt: it had changes")
def dirty_and_no_utf8(bench: Bench) -> None:
    (bench.root / "a.txt").write_bytes(b"\xe4\n" + BASE.encode())
    bench.agent("a.txt", b"\xe4\n" + BASE.encode() + b"mine\n")


@clash("sub/x.txt: it lies in sub")
def in_a_submodule(bench: Bench) -> None:
    inner = Bench(bench.root / "sub", bench.ledger)
    inner.root.mkdir()
    inner.git("init", "-q", "-b", "main")
    inner.user("x.txt", "x\n")
    inner.git("add", ".")
    inner.git("commit", "-qm", "inner")
    bench.git("-c", "advice.addEmbeddedRepo=false", "add", "sub")
    bench.git("commit", "-qm", "with sub")
    bench.agent("sub/x.txt", "mine\n")


@pytest.mark.parametrize("name", CLASHES)
def test_what_cannot_be_told_apart_is_refused_and_nothing_committed(bench: Bench, name: str) -> None:
    prepare, reason = CLASHES[name]
    bench.agent("own.txt", "mine\n")
    prepare(bench)
    before = bench.git("rev-parse", "HEAD"), bench.status(), bench.git("diff", "--cached")
    with pytest.raises(ToolFailed) as caught:
        bench.commit()
    assert reason in caught.value.message
    assert (bench.git("rev-parse", "HEAD"), bench.status(), bench.git("diff", "--cached")) == before
    assert bench.commit("own.txt").data["files"] == ["own.txt"]


def test_a_task_that_changed_nothing_commits_nothing(bench: Bench) -> None:
    bench.user("b.txt", "theirs\n")
    bench.git("add", "b.txt")
    for attempt in (bench.commit, lambda: git_command(bench.context(), ["commit", "-am", "x"])):
        with pytest.raises(ToolFailed, match="this task has changed no file"):
            attempt()
    assert bench.status() == ["M  b.txt"]


def test_typed_commits_are_the_same(bench: Bench) -> None:
    bench.user("b.txt", "theirs\n")
    bench.git("add", "b.txt")
    bench.agent("own.txt", "mine\n")
    bench.agent("other.txt", "mine\n")
    assert "Committed 1 file" in git_command(bench.context(), ["commit", "-m", "One", "own.txt"]).stdout
    assert "Committed 1 file" in git_command(bench.context(), ["commit", "-m", "Rest"]).stdout
    assert bench.status() == ["M  b.txt"]


# kinds of changes -----------------------------------------------------------------------------------------------------


def test_deleted_renamed_and_new_files(bench: Bench) -> None:
    bench.files().move("a.txt", "dir/z.txt")
    bench.done()
    bench.files().delete("b.txt")
    bench.done()
    bench.agent("b.txt/inner.txt", "a folder now\n")
    told = bench.commit()
    assert "dir/z.txt (renamed from a.txt)" in told.text
    assert bench.git("ls-tree", "-r", "--name-only", "HEAD").splitlines() == ["b.txt/inner.txt", "dir/z.txt"]
    assert bench.status() == []


def test_what_came_and_went_again_is_no_change(bench: Bench) -> None:
    bench.agent("tmp.txt", "x\n")
    bench.files().delete("tmp.txt")
    bench.done()
    bench.agent("a.txt", "x\n")
    bench.agent("a.txt", BASE)
    with pytest.raises(ToolFailed, match="or is as it was"):
        bench.commit()


def test_ignored_files_and_those_of_tests_are_left_out(bench: Bench) -> None:
    bench.user(".gitignore", "*.log\n")
    bench.agent("x.log", "x\n")
    bench.agent("cache.txt", "x\n", origin="test")
    bench.agent("made.txt", "x\n", origin="command")
    assert bench.commit().data["files"] == ["made.txt"]


@pytest.mark.skipif(os.name == "nt", reason="has neither")
def test_modes_and_links(bench: Bench) -> None:
    bench.git("config", "core.filemode", "true")
    bench.user("run.sh", "x\n")
    (bench.root / "run.sh").chmod(0o755)
    (bench.root / "link").symlink_to("a.txt")
    bench.git("add", ".")
    bench.git("commit", "-qm", "Second")
    bench.agent("run.sh", "y\n")
    bench.files().delete("link")
    bench.done()
    bench.commit()
    assert bench.git("ls-tree", "HEAD", "run.sh").startswith("100755")
    assert "link" not in bench.git("ls-tree", "--name-only", "HEAD")
    assert bench.status() == []


def test_line_endings_are_as_the_attributes_say(bench: Bench) -> None:
    bench.user(".gitattributes", "*.txt text eol=crlf\n")
    bench.git("add", ".")
    bench.git("commit", "-qm", "Attributes")
    wide = BASE.replace("\n", "\r\n")
    (bench.root / "a.txt").write_bytes(wide.replace("line 2\r", "theirs\r").encode())
    bench.agent("a.txt", wide.replace("line 2\r", "theirs\r").replace("line 15\r", "mine\r"))
    bench.commit()
    assert bench.committed("a.txt") == BASE.replace("line 15\n", "mine\n")
    assert bench.status() == [" M a.txt"]


def test_line_endings_that_git_has_are_kept(bench: Bench) -> None:
    rich = BASE.replace("\n", "\r\n")
    bench.user("w.txt", rich)
    bench.git("add", ".")
    bench.git("commit", "-qm", "Windows")
    bench.git("config", "core.autocrlf", "true")
    assert bench.status() == []
    bench.user("w.txt", rich.replace("line 9", "USER"))
    bench.agent("w.txt", rich.replace("line 9", "USER").replace("line 5", "LINE 5"))
    bench.commit()
    assert bench.status() == [" M w.txt"]
    assert bench.git("diff", "--numstat", "HEAD^", "HEAD") == "1\t1\tw.txt"
    assert bench.git("ls-files", "--eol", "w.txt").startswith("i/crlf")


def test_an_index_that_someone_else_holds_is_waited_for_or_nothing_committed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "_LOCKED_PAUSE", 0.0)
    bench.agent("a.txt", BASE.replace("line 5", "LINE 5"))
    lock = bench.root / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(ToolFailed, match="another git"):
        bench.commit()
    assert bench.git("log", "--format=%s") == "First"
    lock.unlink()

    tries = []

    def locked_at_first(self: Repository, *args: str, **more: Any) -> Any:
        if args[:3] == ("update-index", "-z", "--index-info") and more.get("write") and not more.get("index"):
            tries.append(args)
            lock.unlink() if len(tries) > 2 else lock.touch()
        return run(self, *args, **more)

    run = Repository.run
    monkeypatch.setattr(Repository, "run", locked_at_first)
    bench.commit()
    assert len(tries) == 3
    assert bench.status() == []


def test_a_binary_file_that_was_clean(bench: Bench) -> None:
    bench.agent("logo.bin", b"\0\1\2\xff")
    bench.commit()
    bench.agent("logo.bin", b"\0\1\2\xfe")
    bench.commit()
    shown = subprocess.run(["git", "show", "HEAD:logo.bin"], cwd=bench.root, env=PLAIN, capture_output=True)
    assert shown.stdout == b"\0\1\2\xfe"


# states of a repository -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_the_first_commit_of_all(tmp_path: Path, bench: Bench, form: str) -> None:
    fresh = Bench(tmp_path / "fresh", bench.ledger)
    fresh.root.mkdir()
    fresh.git("init", "-q", "-b", "main", f"--object-format={form}")
    fresh.user("theirs.txt", "x\n")
    fresh.git("add", ".")
    fresh.agent("own.txt", "mine\n")
    fresh.commit()
    assert fresh.status() == ["A  theirs.txt"]
    fresh.files().delete("own.txt")
    fresh.done()
    fresh.commit()
    assert fresh.git("ls-tree", "-r", "--name-only", "HEAD") == ""
    assert "commit (initial)" in fresh.git("reflog")


def test_a_merge_in_conflict_and_a_detached_head_are_refused(bench: Bench) -> None:
    bench.git("checkout", "-q", "-b", "other")
    bench.user("b.txt", "other\n")
    bench.git("commit", "-qam", "Other")
    bench.git("checkout", "-q", "main")
    bench.user("b.txt", "main\n")
    bench.git("commit", "-qam", "Main")
    bench.git("merge", "other", check=False)
    bench.agent("own.txt", "mine\n")
    with pytest.raises(ToolFailed, match="a merge is in progress"):
        bench.commit()
    (bench.root / ".git" / "MERGE_HEAD").unlink()
    with pytest.raises(ToolFailed, match="files in conflict"):
        bench.commit()
    bench.git("checkout", "-q", "-f", "--detach")
    with pytest.raises(ToolFailed, match="detached"):
        bench.commit()


def test_a_linked_worktree_is_refused(bench: Bench) -> None:
    bench.git("worktree", "add", "-q", "tree")
    inner = Bench(bench.root / "tree", bench.ledger)
    inner.agent("own.txt", "mine\n")
    with pytest.raises(Denied):
        inner.commit()


def test_nothing_of_the_repository_runs(bench: Bench, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    script = tmp_path / "run.sh"
    script.write_text(f"#!/bin/sh\necho ran >> {canary}\nexec cat\n")
    script.chmod(0o755)
    for folder in (".git/hooks", ".git/elsewhere"):
        (bench.root / folder).mkdir(exist_ok=True)
        for name in ("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "reference-transaction"):
            (bench.root / folder / name).write_text(f"#!/bin/sh\n{script} < /dev/null\nexit 1\n")
            (bench.root / folder / name).chmod(0o755)
    for key in ("core.fsmonitor", "core.editor", "gpg.program", "filter.x.smudge", "merge.x.driver", "diff.external"):
        bench.git("config", key, str(script))
    bench.git("config", "core.hooksPath", ".git/elsewhere")
    bench.git("config", "commit.gpgsign", "true")
    (bench.root / ".git" / "info" / "attributes").write_text("*.txt filter=x merge=x diff=x\n")
    canary.unlink(missing_ok=True)
    bench.swap("a.txt", "line 2\n", "theirs\n")
    bench.swap("a.txt", "line 15\n", "mine\n", by="agent")
    bench.commit()
    assert not canary.exists()
    bench.git("config", "filter.x.clean", str(script))
    canary.unlink(missing_ok=True)
    bench.swap("a.txt", "line 17\n", "mine\n", by="agent")
    with pytest.raises(ToolFailed, match="goes through the filter 'x'"):
        bench.commit()
    assert not canary.exists()


def test_files_that_may_not_be_read_are_not_committed(bench: Bench) -> None:
    bench.agent("own.txt", "mine\n")
    bench.agent(".env", "TOKEN=x\n")
    ctx = bench.context(may_read=lambda path: path != ".env")
    with pytest.raises(ToolFailed, match=r"policy keeps \.env from being read"):
        git.git_commit.run(ctx, message="x", paths=())
    assert git.git_commit.run(ctx, message="x", paths=("own.txt",)).data["files"] == ["own.txt"]  # type: ignore[union-attr]


TOKEN = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"


def test_a_new_secret_is_refused_and_an_old_one_of_the_user_is_not(bench: Bench) -> None:
    bench.user("b.txt", f"b\nkey = {TOKEN}\n")
    bench.git("commit", "-qam", "The user's own")
    bench.agent("b.txt", f"b\nx\nkey: {TOKEN}\n")
    assert bench.commit().data["files"] == ["b.txt"]
    head = bench.git("rev-parse", "HEAD")
    bench.agent("own.txt", f"gr\u00fc\u00dfe {TOKEN[:-1]}7\n".encode("latin-1"))
    with pytest.raises(ToolFailed, match=r"own\.txt:1 \(GitHub token\)"):
        bench.commit()
    bench.agent("own.txt", "say open sesame\n")
    with pytest.raises(ToolFailed, match=r"own\.txt:1 \(secret of the vault\)"):
        git.git_commit.run(bench.context(known=lambda: ["open sesame"]), message="x", paths=())
    assert (bench.git("rev-parse", "HEAD"), bench.status()) == (head, ["?? own.txt"])
    assert bench.git("fsck", "--strict", "--unreachable") == ""  # nothing of it got into the repository


# crashes --------------------------------------------------------------------------------------------------------------

MOMENTS = {
    "read-tree": (1, False),
    "write-tree": (1, False),
    "commit-tree": (1, False),
    "update-ref": (1, False),
    "update-index": (3, True),  # the first two are of our own index
    "made": (1, True),
}


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_commits_once_and_leaves_the_users_changes(bench: Bench, moment: str) -> None:
    nth, has_committed = MOMENTS[moment]
    bench.swap("a.txt", "line 2\n", "staged\n")
    bench.git("add", "a.txt")
    bench.swap("a.txt", "line 9\n", "unstaged\n")
    bench.swap("a.txt", "line 15\n", "mine\n", by="agent")
    bench.agent("own.txt", "mine\n")
    stands = bench.read("a.txt")
    ctx = bench.context()
    args = git.git_commit.validate({"message": "Once"})
    assert git.git_commit.before is not None
    assert git.git_commit.probe is not None
    before = git.git_commit.before(ctx, args)
    assert _killed(ctx, "diff-tree" if moment == "made" else moment, nth)
    found = git.git_commit.probe(ctx, args, before)
    assert (found is not None) == has_committed
    if found is None:
        git.git_commit.run(ctx, message="Once", paths=())
    assert git.git_commit.probe(ctx, args, before) is not None  # killed again, after it
    assert bench.git("log", "--format=%s").splitlines() == ["Once", "First"]
    assert bench.committed("a.txt") == BASE.replace("line 15\n", "mine\n")
    assert bench.git("show", ":a.txt") + "\n" == BASE.replace("line 2\n", "staged\n").replace("line 15\n", "mine\n")
    assert bench.read("a.txt") == stands
    assert bench.status() == ["MM a.txt"]
    assert bench.git("fsck", "--strict", "--no-dangling") == ""


def _killed(ctx: ToolContext, command: str, nth: int) -> bool:
    """Commit in a child that dies before it runs this command of git for the `nth` time; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = nth
        plain: Callable[..., Any] = Repository.run

        def run(self: Repository, *args: str, **more: Any) -> Any:
            nonlocal left
            left -= args[0] == command
            if left == 0:
                os._exit(9)
            return plain(self, *args, **more)

        Repository.run = run  # type: ignore[method-assign]
        try:
            git.git_commit.run(ctx, message="Once", paths=())
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
