"""The git tools: what they say, what they commit, and that a repository's configuration starts nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import AgentdError, Cancelled, Denied, ToolFailed, ToolMisused
from agentd.sandbox.confine import Walls, reached
from agentd.tools import git, repository
from agentd.tools.git_command import git_command
from agentd.tools.repository import readable
from agentd.tools.shell import run_command
from agentd.tools.tool import Tool, ToolContext
from agentd.types import ToolResult
from agentd.workspace.paths import Workspace

PLAIN = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "ann@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def plain(root: Path, *args: str, check: bool = True) -> str:
    """git as a person would run it, without any of our care."""
    done = subprocess.run(["git", *args], cwd=root, env=PLAIN, check=check, capture_output=True, text=True)
    return done.stdout.strip()


def context(root: Path, **more: Any) -> ToolContext:
    return ToolContext(workspace=Workspace(root), key="task-1/call-1", task="task-1", **more)


def call(tool: Tool, ctx: ToolContext, **args: Any) -> ToolResult:
    given = tool.validate(args)
    result = tool.run(ctx, **{name: getattr(given, name) for name in type(given).model_fields})
    assert isinstance(result, ToolResult)
    return result


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one commit of app.py and notes.txt, nothing changed."""
    root = tmp_path / "repo"
    root.mkdir()
    plain(root, "init", "-q", "-b", "main")
    (root / "app.py").write_text("a = 1\n")
    (root / "notes.txt").write_text("one\ntwo\n")
    plain(root, "add", ".")
    plain(root, "commit", "-qm", "First")
    return root


# what they say --------------------------------------------------------------------------------------------------------


def test_status_names_branch_and_files_with_their_lines(repo: Path) -> None:
    assert call(git.git_status, context(repo)).text == "On branch main. Nothing has changed since the last commit."
    (repo / "app.py").write_text("a = 1\nb = 2\n")
    told = call(git.git_status, context(repo))
    assert told.text == "On branch main. 1 file changed since the last commit: app.py (+1 -0)"
    assert told.data["changes"] == [{"path": "app.py", "state": "changed", "added": 1, "removed": 0}]


def test_status_tells_new_deleted_renamed_and_binary_files_apart(repo: Path) -> None:
    (repo / "app.py").rename(repo / "main.py")
    (repo / "notes.txt").unlink()
    (repo / "logo.bin").write_bytes(b"\0\1\2")
    (repo / "odd name é.txt").write_text("x\n")
    plain(repo, "add", "main.py")
    states = {row["path"]: row["state"] for row in call(git.git_status, context(repo)).data["changes"]}
    assert states == {"main.py": "renamed", "notes.txt": "deleted", "logo.bin": "new", "odd name é.txt": "new"}
    assert "main.py (renamed from app.py)" in call(git.git_status, context(repo)).text


def test_status_leaves_ignored_files_out_and_writes_nothing(repo: Path) -> None:
    (repo / ".gitignore").write_text("*.log\n")
    (repo / "big.log").write_text("x")
    before = {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")}
    assert [row["path"] for row in call(git.git_status, context(repo)).data["changes"]] == [".gitignore"]
    assert call(git.git_diff, context(repo)).data["changes"]
    assert {path: path.stat().st_mtime_ns for path in (repo / ".git").rglob("*")} == before


def test_diff_shows_staged_unstaged_and_new_files_together(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    plain(repo, "add", "app.py")
    (repo / "notes.txt").write_text("one\n")
    (repo / "new.txt").write_text("hello\n")
    text = call(git.git_diff, context(repo)).text
    assert text.startswith("3 files changed since the last commit: app.py (+1 -1), new.txt (new, +1 -0), notes.txt")
    for line in ("-a = 1", "+a = 2", "-two", "+hello"):
        assert line in text.splitlines()


def test_diff_of_one_path(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    (repo / "notes.txt").write_text("")
    assert "notes" not in call(git.git_diff, context(repo), path="./app.py").text
    assert "notes" not in call(git.git_diff, context(repo), path=str(repo / "app.py")).text
    (repo / "notes.txt").write_text("one\ntwo\n")
    told = call(git.git_diff, context(repo), path="notes.txt").text
    assert told == "notes.txt has not changed since the last commit."
    with pytest.raises(Denied):
        call(git.git_diff, context(repo), path="../other")


def test_a_pathspec_is_a_name_and_no_pattern(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    assert call(git.git_diff, context(repo), path="*.py").data["changes"] == []


def test_log_lists_commits_and_counts_them(repo: Path) -> None:
    assert call(git.git_log, context(repo)).text.startswith("1 commit: ")
    (repo / "app.py").write_text("a = 2\n")
    plain(repo, "commit", "-qam", "Second")
    told = call(git.git_log, context(repo), limit=1)
    assert told.text.splitlines()[0] == "2 commits, the newest 1:"
    assert told.text.splitlines()[1].endswith("ann@example.org: Second")
    assert call(git.git_log, context(repo), path="notes.txt").data["total"] == 1


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    plain(tmp_path, "init", "-q", "-b", "main")
    ctx = context(tmp_path)
    assert call(git.git_log, ctx).text == "There is no commit yet."
    (tmp_path / "a.txt").write_text("x\n")
    assert "a.txt (new, +1 -0)" in call(git.git_status, ctx).text
    assert "+x" in call(git.git_diff, ctx).text
    assert call(git.git_commit, ctx, message="Start").text.startswith("Committed 1 file as ")
    assert plain(tmp_path, "log", "--format=%s") == "Start"
    assert "commit (initial)" in plain(tmp_path, "reflog")


def test_sha256_repositories(tmp_path: Path) -> None:
    plain(tmp_path, "init", "-q", "--object-format=sha256")
    (tmp_path / "a.txt").write_text("x\n")
    assert "+x" in call(git.git_diff, context(tmp_path)).text
    assert len(call(git.git_commit, context(tmp_path)).data["commit"]) == 64


# commits --------------------------------------------------------------------------------------------------------------


def test_commit_takes_every_change_and_says_so(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    (repo / "notes.txt").unlink()
    (repo / "new.txt").write_text("x\n")
    told = call(git.git_commit, context(repo), message="Change things")
    assert told.text.splitlines()[0].endswith("on main: Change things")
    assert set(told.data["files"]) == {"app.py", "notes.txt", "new.txt"}
    assert plain(repo, "status", "--porcelain") == ""
    assert told.data["commit"] == plain(repo, "rev-parse", "HEAD")
    trailers = plain(repo, "log", "-1", "--format=%B").splitlines()[-2:]
    assert trailers == ["Agentd-Task: task-1", "Agentd-Key: task-1/call-1"]
    assert plain(repo, "fsck", "--strict") == ""


def test_a_commit_with_a_secret_is_refused_with_file_and_line_and_not_the_value(repo: Path) -> None:
    token = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"
    (repo / "notes.txt").write_text(f"one\n++ {token}\ntwo\n")
    head = plain(repo, "rev-parse", "HEAD")
    for commit in (
        lambda: call(git.git_commit, context(repo), message="x"),
        lambda: call(run_command, context(repo), command="git commit -am x"),
    ):
        with pytest.raises(ToolFailed, match=r"notes\.txt:2 \(GitHub token\)") as caught:
            commit()
        assert token not in str(caught.value)
    assert plain(repo, "rev-parse", "HEAD") == head
    (repo / "notes.txt").write_text("one\ntwo\nthree\n")
    assert call(git.git_commit, context(repo), message="x").ok


TOKEN = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"
VAULTED = "open sesame"
HIDDEN: dict[str, tuple[str, bytes]] = {
    "a value of the vault": ("secret of the vault", f"say {VAULTED}\n".encode()),
    "no UTF-8": ("GitHub token", f"gr\u00fc\u00dfe {TOKEN}\n".encode("latin-1")),
    "a binary file": ("GitHub token", b"\0\1\2\xff" + TOKEN.encode() + b"\0"),
    "UTF-16": ("GitHub token", f"x\n{TOKEN}\n".encode("utf-16")),
    "behind more than a megabyte": ("GitHub token", b"x = 1\n" * 300_000 + TOKEN.encode()),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_no_secret_is_hidden_from_a_commit(repo: Path, name: str) -> None:
    kind, content = HIDDEN[name]
    head = plain(repo, "rev-parse", "HEAD")
    (repo / "new.bin").write_bytes(content)
    ctx = context(repo, known=lambda: [VAULTED])
    with pytest.raises(ToolFailed, match=rf"new\.bin:\d+ \({kind}\)"):
        call(git.git_commit, ctx, message="x")
    plain(repo, "add", "new.bin")
    (repo / "new.bin").unlink()  # what is staged is committed, and not what stands there
    with pytest.raises(ToolFailed, match=rf"new\.bin:\d+ \({kind}\)"):
        call(run_command, ctx, command="git commit -m x")
    assert plain(repo, "rev-parse", "HEAD") == head


def test_no_secret_stands_in_the_message_of_a_commit(repo: Path) -> None:
    (repo / "new.txt").write_text("new\n")
    with pytest.raises(ToolFailed, match=r"the message \(GitHub token\)"):
        call(git.git_commit, context(repo), message=f"Use {TOKEN}")


def test_a_change_too_large_to_be_searched_is_not_committed(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "_WHOLE", 1000)
    (repo / "new.txt").write_text("new\n" * 1000)
    with pytest.raises(ToolFailed, match="too large to be searched for secrets"):
        call(git.git_commit, context(repo), message="x")


def test_commit_of_some_paths_leaves_the_rest_as_it_was(repo: Path) -> None:
    (repo / "notes.txt").write_text("staged\n")
    plain(repo, "add", "notes.txt")
    (repo / "app.py").write_text("a = 2\n")
    (repo / "new.txt").write_text("x\n")
    call(git.git_commit, context(repo), message="Only app", paths=["app.py"])
    assert plain(repo, "show", "--format=", "--name-only") == "app.py"
    assert plain(repo, "status", "--porcelain").splitlines() == ["M  notes.txt", "?? new.txt"]


def test_commit_of_a_staged_rename(repo: Path) -> None:
    plain(repo, "mv", "app.py", "main.py")
    assert "main.py (renamed from app.py)" in call(git.git_commit, context(repo)).text
    assert plain(repo, "status", "--porcelain") == ""


def test_a_commit_without_a_message_names_its_files(repo: Path) -> None:
    (repo / "new.txt").write_text("x\n")
    assert call(git.git_commit, context(repo)).data["subject"] == "Add new.txt"


def test_nothing_to_commit(repo: Path) -> None:
    with pytest.raises(ToolFailed, match="nothing to commit"):
        call(git.git_commit, context(repo), message="x")
    (repo / "app.py").write_text("a = 2\n")
    with pytest.raises(ToolFailed, match=r"notes\.txt has not changed"):
        call(git.git_commit, context(repo), message="x", paths=["notes.txt"])


def test_the_author_is_the_configured_one_else_agentd(repo: Path) -> None:
    plain(repo, "config", "user.name", 'Zoë "Z" \\ Ng')
    plain(repo, "config", "user.email", "zoe@example.org")
    (repo / "app.py").write_text("a = 2\n")
    call(git.git_commit, context(repo))
    assert plain(repo, "log", "-1", "--format=%an <%ae>") == 'Zoë "Z" \\ Ng <zoe@example.org>'


def test_a_crash_after_the_commit_is_noticed(repo: Path) -> None:
    ctx = context(repo)
    args = git.git_commit.validate({"message": "Once"})
    assert git.git_commit.before is not None
    assert git.git_commit.probe is not None
    before = git.git_commit.before(ctx, args)
    assert git.git_commit.probe(ctx, args, before) is None
    (repo / "app.py").write_text("a = 2\n")
    told = call(git.git_commit, ctx, message="Once")
    assert git.git_commit.probe(ctx, args, before) == told
    plain(repo, "commit", "-q", "--allow-empty", "-m", "Later")
    assert git.git_commit.probe(ctx, args, before).data["commit"] == told.data["commit"]  # type: ignore[union-attr]
    assert git.git_commit.probe(replace(ctx, key="task-1/call-11"), args, before) is None


def test_no_commit_in_the_middle_of_a_merge_or_off_a_branch(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    (repo / ".git" / "MERGE_HEAD").write_text(plain(repo, "rev-parse", "HEAD") + "\n")
    with pytest.raises(ToolFailed, match="a merge is in progress"):
        call(git.git_commit, context(repo))
    (repo / ".git" / "MERGE_HEAD").unlink()
    plain(repo, "checkout", "-q", "--detach")
    assert "HEAD is detached at" in call(git.git_status, context(repo)).text
    with pytest.raises(ToolFailed, match="detached"):
        call(git.git_commit, context(repo))


def test_files_that_may_not_be_read_are_neither_shown_nor_committed(repo: Path) -> None:
    (repo / ".env").write_text("TOKEN=hidden\n")
    (repo / "app.py").write_text("a = 2\n")
    ctx = context(repo, may_read=lambda path: path != ".env")
    text = call(git.git_diff, ctx).text
    assert "hidden" not in text
    assert ".env: not shown" in text
    assert "+a = 2" in text
    told = call(git.git_commit, ctx, message="x")
    assert told.data["files"] == ["app.py"]
    assert ".env" in told.text.splitlines()[-1]
    plain(repo, "add", ".env")
    plain(repo, "commit", "-qm", "by hand")
    shown = git_command(ctx, ["log", "-p", "-1"]).stdout
    assert "hidden" not in shown
    assert "by hand" in shown


FORMS = (
    "--graph; --graph --stat; --format=%h; --format=x%n; --format=%x00; --format=%B%x0d; --oneline; -z; --raw"
    "; --reverse; -u; -U0; --stat=80; --text; --full-index; --pretty; --left-right; --boundary; -Shidden; -Ghid.en"
    "; -M -C; --no-patch -p; --all"
)


@pytest.mark.parametrize("options", FORMS.split("; "))
def test_no_form_of_a_log_shows_what_may_not_be_read(repo: Path, options: str) -> None:
    (repo / ".env").write_text("TOKEN=hidden\n")
    plain(repo, "add", ".env")
    plain(repo, "commit", "-qm", "by hand")
    ctx = context(repo, may_read=lambda path: path != ".env")
    try:
        shown = git_command(ctx, ["log", "-p", *options.split()]).stdout
    except ToolMisused:
        return
    assert "hidden" not in shown


def test_content_cannot_pass_for_the_head_of_another_file() -> None:
    diff = "diff --git a/k b/k\n--- a/k\n+++ b/k\n@@ -0,0 +1 @@\n+x\x0cdiff --git a/ok b/ok\n+secret\n"
    assert "secret" not in readable(diff, lambda path: path != "k")


# nothing is started ---------------------------------------------------------------------------------------------------

HOOKS = (
    *("pre-commit", "prepare-commit-msg", "commit-msg", "post-commit", "post-index-change", "reference-transaction"),
    *("pre-auto-gc", "post-rewrite", "fsmonitor-watchman"),
)

Plant = Callable[[Path, str], None]
"""Puts something into a repository that makes git start the program."""


def settings(**values: str) -> Plant:
    """`core__fsmonitor="{run}"`: settings of the repository, `__` for the dots."""

    def plant(root: Path, run: str) -> None:
        for key, value in values.items():
            plain(root, "config", key.replace("__", "."), value.replace("{run}", run))

    return plant


def attributed(line: str, **values: str) -> Plant:
    def plant(root: Path, run: str) -> None:
        (root / ".git" / "info" / "attributes").write_text(line + "\n")
        settings(**values)(root, run)

    return plant


def hooks(root: Path, run: str, folder: str = ".git/hooks") -> None:
    (root / folder).mkdir(exist_ok=True, parents=True)
    for name in HOOKS:
        (root / folder / name).write_text(f"#!/bin/sh\n{run}\n")
        (root / folder / name).chmod(0o755)


def hooks_path(root: Path, run: str) -> None:
    hooks(root, run, ".git/elsewhere")
    plain(root, "config", "core.hooksPath", ".git/elsewhere")


def included(root: Path, run: str) -> None:
    (root / ".git" / "more").write_text(f'[core]\n\tfsmonitor = "{run}"\n')
    plain(root, "config", "include.path", "more")


def included_if(root: Path, run: str) -> None:
    (root / ".git" / "more").write_text(f'[diff]\n\texternal = "{run}"\n')
    plain(root, "config", "includeIf.onbranch:main.path", "more")


def worktree_config(root: Path, run: str) -> None:
    plain(root, "config", "extensions.worktreeConfig", "true")
    plain(root, "config", "--worktree", "core.fsmonitor", run)


def submodule(root: Path, run: str) -> None:
    """A submodule whose own configuration starts the program, with a file changed in it."""
    inner = root / "inner"
    inner.mkdir()
    plain(inner, "init", "-q", "-b", "main")
    (inner / "x.txt").write_text("x\n")
    plain(inner, "add", ".")
    plain(inner, "commit", "-qm", "inner")
    plain(root, "-c", "advice.addEmbeddedRepo=false", "add", "inner")
    plain(root, "commit", "-qm", "with inner")
    plain(inner, "config", "core.fsmonitor", run)
    (inner / "x.txt").write_text("changed\n")
    settings(status__submoduleSummary="true", diff__submodule="diff", submodule__recurse="true")(root, run)


def lazy_fetch(root: Path, run: str) -> None:
    """A partial clone that lacks an object and knows a program to ask for it."""
    sha = plain(root, "rev-parse", "HEAD:notes.txt")
    (root / ".git" / "objects" / sha[:2] / sha[2:]).unlink()
    values = {"remote__o__url": "."} | {"remote__o__promisor": "true", "remote__o__uploadpack": "{run} </dev/null #"}
    settings(core__repositoryformatversion="1", extensions__partialClone="o", **values)(root, run)


PLANTS: dict[str, Plant] = {
    "fsmonitor": settings(core__fsmonitor="{run}"),
    "hooks": hooks,
    "hooksPath": hooks_path,
    "external diff": settings(diff__external="{run}"),
    "textconv": attributed("*.py diff=x", diff__x__textconv="{run}"),
    "diff command": attributed("*.py diff=x", diff__x__command="{run}"),
    "clean filter": attributed("*.txt filter=x", filter__x__clean="{run}", filter__x__required="true"),
    "process filter": attributed("*.txt filter=x", filter__x__process="{run}"),
    "signature": settings(commit__gpgSign="true", gpg__program="{run}", user__signingKey="k"),
    "ssh signature": settings(
        commit__gpgSign="true", gpg__format="ssh", gpg__ssh__program="{run}", user__signingKey="k"
    ),
    "alias": settings(alias__st="!{run}"),
    "include": included,
    "includeIf": included_if,
    "worktree configuration": worktree_config,
    "submodule": submodule,
    "lazy fetch": lazy_fetch,
    "trailer": settings(trailer__x__command="{run}", trailer__x__cmd="{run}", trailer__x__key="Agentd-Key"),
    "pager": settings(core__pager="{run}", pager__status="{run}", pager__diff="{run}", pager__config="{run}"),
    "editor": settings(core__editor="{run}", sequence__editor="{run}", commit__verbose="true"),
    "transport": settings(core__sshCommand="{run}", core__gitProxy="{run}", credential__helper="!{run}"),
    "configured hook": settings(hook__x__command="{run}", hook__x__event="pre-commit"),
    "shown signatures": settings(log__showSignature="true", gpg__program="{run}"),
}
SILENT = {"alias", "trailer", "pager", "editor", "transport", "configured hook", "shown signatures"}
"""What plain git does not start in the control run below: needs a terminal, another command, or a newer git."""


def prepared(repo: Path, name: str, tmp_path: Path) -> Path:
    """Plant; returns the file that appears when the program is started."""
    canary = tmp_path / "started"
    script = tmp_path / "plant.sh"
    script.write_text(f"#!/bin/sh\necho started >> {canary}\nexec cat\n")
    script.chmod(0o755)
    (repo / "app.py").write_text("a = 2\n")
    PLANTS[name](repo, str(script))
    (repo / "notes.txt").write_text("one\n2\n")
    canary.unlink(missing_ok=True)
    return canary


@pytest.mark.parametrize("name", sorted(set(PLANTS) - SILENT))
def test_the_plants_work_where_nothing_is_done_against_them(repo: Path, name: str, tmp_path: Path) -> None:
    canary = prepared(repo, name, tmp_path)
    for args in (["status"], ["diff"], ["add", "-A"], ["commit", "-m", "x"]):
        subprocess.run(["git", *args], cwd=repo, env=PLAIN, capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    assert canary.exists()


@pytest.mark.parametrize("name", sorted(PLANTS))
def test_configuration_starts_nothing(repo: Path, name: str, tmp_path: Path) -> None:
    canary = prepared(repo, name, tmp_path)
    ctx = context(repo)
    steps: list[Callable[[], object]] = [
        lambda: call(git.git_status, ctx),
        lambda: call(git.git_diff, ctx),
        lambda: call(git.git_log, ctx),
        lambda: call(git.git_commit, ctx, message="Commit app.py", paths=["app.py"]),
        lambda: git_command(ctx, ["status"]),
        lambda: git_command(ctx, ["diff", "HEAD~1"]),
        lambda: git_command(ctx, ["log", "-p"]),
        lambda: git_command(ctx, ["commit", "-am", "all"]),
    ]
    refused = 0
    for step in steps:
        try:
            step()
        except AgentdError:
            refused += 1
        assert not canary.exists()
    # Where an object is missing nothing can be compared; a filtered file is not committed; all else must work.
    assert refused <= {"lazy fetch": 7, "clean filter": 1, "process filter": 1}.get(name, 0)


def test_a_file_with_a_configured_filter_is_not_committed_unfiltered(repo: Path, tmp_path: Path) -> None:
    prepared(repo, "clean filter", tmp_path)
    with pytest.raises(ToolFailed, match=r"notes\.txt goes through the filter 'x'"):
        call(git.git_commit, context(repo))
    assert plain(repo, "log", "--format=%s") == "First"


# where the repository is ----------------------------------------------------------------------------------------------


def test_no_repository(tmp_path: Path) -> None:
    for tool in (git.git_status, git.git_diff, git.git_log, git.git_commit):
        with pytest.raises(ToolFailed, match="not a git repository"):
            call(tool, context(tmp_path))


def test_a_folder_inside_a_repository_names_where_it_starts(repo: Path) -> None:
    (repo / "sub").mkdir()
    with pytest.raises(ToolFailed) as caught:
        call(git.git_status, context(repo / "sub"))
    assert str(repo) in caught.value.hint


def test_data_outside_the_workspace_is_refused(repo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / ".git").write_text(f"gitdir: {repo / '.git'}\n")
    with pytest.raises(Denied, match="outside the workspace"):
        call(git.git_status, context(other))
    (other / ".git").unlink()
    (other / ".git").symlink_to(repo / ".git")
    with pytest.raises(Denied):
        call(git.git_status, context(other))
    (other / ".git").unlink()
    shutil.copytree(repo / ".git", other / ".git")
    shutil.rmtree(other / ".git" / "objects")
    (other / ".git" / "objects").symlink_to(repo / ".git" / "objects")
    with pytest.raises(Denied, match="objects of the repository is a link"):
        call(git.git_status, context(other))


def test_a_linked_worktree_is_refused(repo: Path) -> None:
    plain(repo, "worktree", "add", "-q", str(repo / "tree"))
    with pytest.raises(Denied):
        call(git.git_status, context(repo / "tree"))


def test_core_worktree_cannot_point_elsewhere(repo: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "app.py").write_text("outside\n")
    plain(repo, "config", "core.worktree", str(secret))
    assert call(git.git_status, context(repo)).data["clean"] is True


def test_special_files_in_place_of_head_are_not_waited_on(repo: Path) -> None:
    (repo / ".git" / "HEAD").unlink()
    os.mkfifo(repo / ".git" / "HEAD")
    with pytest.raises(Denied, match="HEAD of the repository is no regular file"):
        call(git.git_status, context(repo))


def test_a_broken_configuration_is_told_in_gits_words(repo: Path) -> None:
    (repo / ".git" / "config").write_text("[core\n")
    with pytest.raises(ToolFailed, match="git config failed: bad config line 1"):
        call(git.git_status, context(repo))


def test_cancel_stops_git(repo: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        call(git.git_status, context(repo, cancel=stop))


# typed as commands ----------------------------------------------------------------------------------------------------


def test_typed_commands_give_what_git_prints(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    ctx = context(repo)
    assert git_command(ctx, ["status", "--short"]).stdout == " M app.py\n"
    assert git_command(ctx, ["diff", "--name-only"]).stdout == "app.py\n"
    assert git_command(ctx, ["log", "--oneline", "-n", "1", "--", "app.py"]).stdout.endswith(" First\n")
    assert git_command(ctx, ["diff", "--exit-code"]).code == 1
    assert git_command(ctx, ["diff", "nowhere"]).code == 128


def test_typed_commits(repo: Path) -> None:
    ctx = context(repo)
    (repo / "app.py").write_text("a = 2\n")
    (repo / "new.txt").write_text("x\n")
    with pytest.raises(ToolFailed, match="nothing is staged"):
        git_command(ctx, ["commit", "-m", "x"])
    assert "Committed 1 file" in git_command(ctx, ["commit", "-am", "Tracked only"]).stdout
    assert "Committed 1 file" in git_command(ctx, ["commit", "-m", "New", "-m", "More", "new.txt"]).stdout
    assert plain(repo, "log", "-1", "--format=%B").splitlines()[:3] == ["New", "", "More"]
    (repo / "app.py").write_text("a = 3\n")
    plain(repo, "add", "app.py")
    assert "Committed 1 file" in git_command(ctx, ["commit", "-m", "Staged"]).stdout


@pytest.mark.parametrize(
    "line",
    [
        *("push", "config core.pager x", "-c core.fsmonitor=x status", "--git-dir=/x status", "--exec-path=/x log"),
        *("diff --no-index a b", "diff --output=x", "diff --ext-diff", "diff --textconv", "diff --submodule=log"),
        *("diff /etc/passwd /etc/hostname", "diff -- ../x", "diff ../x y", "diff -O/etc/passwd", "diff --word-diff"),
        *("log --show-signature", "log --format=%G?", "log --pretty=%-GS", "log --output=x", "log --help"),
        *("commit -m", "commit", "commit -F /etc/passwd", "commit -S -m x", "commit --amend -m x", "commit -m x ../y"),
        *("status --help", "status --recurse-submodules", ""),
    ],
)
def test_other_typed_commands_and_options_are_refused(repo: Path, line: str) -> None:
    (repo / "app.py").write_text("a = 2\n")
    with pytest.raises((ToolMisused, Denied)):
        git_command(context(repo), line.split())
    assert plain(repo, "log", "--format=%s") == "First"


# looking around ------------------------------------------------------------------------------------------------------


def test_commands_that_look(repo: Path) -> None:
    (repo / "app.py").write_text("a = 2\n")
    plain(repo, "commit", "-qam", "Second")
    ctx = context(repo)

    def said(*words: str) -> str:
        done = git_command(ctx, words)
        assert done.code == 0, done.stderr
        return done.stdout

    assert "Second" in said("show")
    assert "+a = 2" in said("show", "HEAD", "--", "app.py")
    assert said("show", "HEAD~1:app.py") == "a = 1\n"
    assert "a = 2" in said("blame", "-L", "1,1", "app.py")
    assert said("branch", "--show-current").strip() == "main"
    assert said("ls-files").split() == ["app.py", "notes.txt"]
    assert said("rev-parse", "HEAD").strip() == plain(repo, "rev-parse", "HEAD")


def test_looking_makes_nothing_and_shows_nothing_that_may_not_be_read(repo: Path) -> None:
    (repo / "key.txt").write_text("hidden\n")
    plain(repo, "add", ".")
    plain(repo, "commit", "-qm", "Key")
    blob, tag = plain(repo, "rev-parse", "HEAD:key.txt"), "for-the-key"
    plain(repo, "tag", tag, blob)
    ctx = context(repo, may_read=lambda path: path != "key.txt")
    assert "hidden" not in git_command(ctx, ["show", "HEAD"]).stdout
    for words in (
        *(["show", name] for name in (blob, blob[:9], tag, "HEAD:key.txt", ":key.txt", ":0:key.txt", "HEAD:./key.txt")),
        *(["show", name] for name in (":0:./x/../key.txt", "HEAD:./x/../key.txt")),
        *(["blame", "key.txt"], ["blame", "HEAD", "--", "key.txt"], ["blame", "--contents", "key.txt", "app.py"]),
        *(["branch", "new"], ["branch", "-D", "main"], ["show", "--output=x"], ["ls-files", "-X", "key.txt"]),
        *(["show", "HEAD", blob], ["show", "HEAD", "--format=%GG"], ["rev-parse", "--git-dir"]),
    ):
        with pytest.raises((ToolMisused, Denied)):
            git_command(ctx, words)
    assert plain(repo, "branch", "--format=%(refname:short)") == "main"


# hooks and signatures -------------------------------------------------------------------------------------------------


@pytest.fixture
def walls() -> None:
    if reached() is None:
        pytest.skip("this machine has no walls for programs")


def allowing(root: Path, *actions: str) -> ToolContext:
    return replace(context(root), may=lambda action: str(action) in actions)


def put_hook(repo: Path, name: str, script: str) -> None:
    hook = repo / ".git" / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)


def test_a_hook_that_is_not_allowed_does_not_run(repo: Path) -> None:
    put_hook(repo, "pre-commit", "exit 1")
    put_hook(repo, "commit-msg", "exit 1")
    (repo / "app.py").write_text("a = 2\n")
    assert call(git.git_commit, context(repo), message="x").ok


@pytest.mark.usefixtures("walls")
def test_a_hook_that_is_allowed_sees_what_is_committed_and_may_say_no(repo: Path) -> None:
    put_hook(repo, "pre-commit", "git diff --cached --name-only; ! git diff --cached | grep -q '^+a = 3'")
    ctx = allowing(repo, "git.hook pre-commit")
    (repo / "notes.txt").write_text("not committed\n")
    (repo / "app.py").write_text("a = 3\n")
    head = plain(repo, "rev-parse", "HEAD")
    with pytest.raises(ToolFailed, match="the hook pre-commit says no") as caught:
        call(git.git_commit, ctx, message="x", paths=["app.py"])
    assert caught.value.hint == "app.py"
    assert plain(repo, "rev-parse", "HEAD") == head
    (repo / "app.py").write_text("a = 2\n")
    assert call(git.git_commit, ctx, message="x", paths=["app.py"]).ok
    assert ctx.notes["hooks"] == ["pre-commit 1", "pre-commit 0"]
    assert plain(repo, "status", "--porcelain") == "M notes.txt"


@pytest.mark.usefixtures("walls")
def test_a_hook_changes_no_file_and_reaches_nothing_outside(
    repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.write_text("x")
    tries = f"(echo x >app.py) && exit 1; (echo x >.git/config) && exit 1; cat {outside} && exit 1; exit 0"
    put_hook(repo, "pre-commit", tries)
    (repo / "notes.txt").write_text("new\n")
    assert call(git.git_commit, allowing(repo, "git.hook pre-commit"), message="x").ok
    assert (repo / "app.py").read_text() == "a = 1\n"


@pytest.mark.usefixtures("walls")
def test_a_hook_words_the_message_and_leaves_whose_commit_it_is(repo: Path) -> None:
    put_hook(repo, "commit-msg", 'git interpret-trailers --in-place --trailer "Change-Id: I42" "$1"')
    ctx = allowing(repo, "git.hook commit-msg")
    (repo / "app.py").write_text("a = 2\n")
    assert call(git.git_commit, ctx, message="x").ok
    assert plain(repo, "log", "-1", "--format=%(trailers:key=Change-Id,valueonly)") == "I42"
    assert "Agentd-Task: task-1" in plain(repo, "log", "-1", "--format=%B")
    put_hook(repo, "commit-msg", 'echo other > "$1"')
    (repo / "app.py").write_text("a = 3\n")
    with pytest.raises(ToolFailed, match="takes away the line 'Agentd-Task: task-1'"):
        call(git.git_commit, ctx, message="x")


def test_a_hook_does_not_run_without_walls(repo: Path) -> None:
    put_hook(repo, "pre-commit", "touch ran")
    (repo / "app.py").write_text("a = 2\n")
    ctx = replace(allowing(repo, "git.hook pre-commit"), walls=Walls(required=False))
    with pytest.raises(ToolFailed, match="runs behind walls only"):
        call(git.git_commit, ctx, message="x")
    assert not (repo / "ran").exists()


@pytest.fixture
def signing_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose git signs with a key of ssh."""
    home = tmp_path_factory.mktemp("user")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "key")], check=True)
    (home / "signers").write_text(f"me@example.org {(home / 'key.pub').read_text()}")
    settings = f'[gpg]\n\tformat = ssh\n[gpg "ssh"]\n\tallowedSignersFile = {home}/signers\n'
    (home / ".gitconfig").write_text(f"{settings}[user]\n\tsigningkey = {home}/key.pub\n")
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen")
def test_a_commit_is_signed_where_that_is_allowed_by_the_users_program_only(repo: Path, signing_user: Path) -> None:
    plain(repo, "config", "gpg.ssh.program", str(repo / "evil"))
    plain(repo, "config", "commit.gpgsign", "true")
    (repo / "evil").write_text("#!/bin/sh\ntouch ran\n")
    (repo / "evil").chmod(0o755)
    (repo / "app.py").write_text("a = 2\n")
    signers = ("-c", f"gpg.ssh.allowedSignersFile={signing_user}/signers", "-c", "gpg.ssh.program=ssh-keygen")
    call(git.git_commit, context(repo), message="Not signed", paths=["app.py"])
    assert plain(repo, *signers, "log", "-1", "--format=%G?") == "N"
    (repo / "app.py").write_text("a = 3\n")
    call(git.git_commit, allowing(repo, "git.sign"), message="Signed", paths=["app.py"])
    assert plain(repo, *signers, "log", "-1", "--format=%G? %s") == "G Signed"
    assert not (repo / "ran").exists()


def test_a_commit_that_cannot_be_signed_is_not_made(repo: Path, signing_user: Path) -> None:
    (signing_user / "key").unlink()
    (repo / "app.py").write_text("a = 2\n")
    head = plain(repo, "rev-parse", "HEAD")
    with pytest.raises(ToolFailed, match="git commit-tree failed"):
        call(git.git_commit, allowing(repo, "git.sign"), message="x")
    assert plain(repo, "rev-parse", "HEAD") == head
