"""`apply_patch`: what policy is asked, what is said, and that a kill at any moment leaves all or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.errors import InDoubt, ToolFailed, ToolMisused
from agentd.store.db import Database
from agentd.tools.patches import apply_patch
from agentd.tools.tool import ToolContext
from agentd.types import JsonObject, ToolResult
from agentd.workspace.paths import Entry, Workspace
from agentd.workspace.snapshots import Ledger

FILES = {"a.py": "one\ntwo\nthree\n", "b.py": "x = 1\n", "old.py": "old\n", "z.py": "z\n"}
PATCH = """\
--- a/a.py
+++ b/a.py
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
--- /dev/null
+++ b/new/n.py
@@ -0,0 +1 @@
+n
--- a/b.py
+++ /dev/null
@@ -1 +0,0 @@
-x = 1
diff --git a/old.py b/z.py
rename from old.py
rename to z.py
diff --git a/z.py b/y.py
rename from z.py
rename to y.py
--- a/z.py
+++ b/y.py
@@ -1 +1 @@
-z
+y
"""
AFTER = {"a.py": "one\nTWO\nthree\n", "new/n.py": "n\n", "z.py": "old\n", "y.py": "y\n"}


@pytest.fixture
def ctx(tmp_path: Path) -> ToolContext:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return ToolContext(workspace=Workspace(tmp_path), key="task-1/call-1", task="task-1")


def tree(ctx: ToolContext) -> dict[str, str]:
    root = ctx.workspace.root
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def before(ctx: ToolContext, patch: str = PATCH) -> JsonObject:
    assert apply_patch.before is not None
    return apply_patch.before(ctx, apply_patch.validate({"patch": patch}))


def probe(ctx: ToolContext, seen: JsonObject, patch: str = PATCH) -> ToolResult | None:
    assert apply_patch.probe is not None
    return apply_patch.probe(ctx, apply_patch.validate({"patch": patch}), seen)


def test_policy_is_asked_about_every_file() -> None:
    actions = [str(action) for action in apply_patch.actions(apply_patch.validate({"patch": PATCH}))]
    assert actions == [
        *("fs.read a.py", "fs.write a.py", "fs.write new/n.py", "fs.read b.py", "fs.delete b.py"),
        *("fs.read old.py", "fs.delete old.py", "fs.write z.py", "fs.read z.py", "fs.delete z.py", "fs.write y.py"),
    ]
    spelled = "--- /dev/null\n+++ b/.//.env\n@@ -0,0 +1 @@\n+x\n"
    assert [str(a) for a in apply_patch.actions(apply_patch.validate({"patch": spelled}))] == ["fs.write .env"]


@pytest.mark.parametrize("patch", ["", "please", "@@ -1 +1 @@\n-a\n+b\n", "--- a/x\n+++ b/x\n@@ -1 +1 @@\nx\n"])
def test_what_names_no_file_is_misused(patch: str) -> None:
    with pytest.raises(ToolMisused, match="apply_patch: "):
        apply_patch.actions(apply_patch.validate({"patch": patch}))


def test_it_says_what_became_of_each_file(ctx: ToolContext) -> None:
    result = apply_patch.run(ctx, patch=PATCH)
    assert isinstance(result, ToolResult)
    assert result.text.splitlines() == [
        *("Changed a.py at line 2.", "Created new/n.py.", "Deleted b.py.", "Renamed old.py to z.py."),
        "Renamed z.py to y.py and changed it at line 1.",
    ]
    assert result.changed == ("a.py", "new/n.py", "b.py", "old.py", "z.py", "y.py")
    assert tree(ctx) == AFTER


def test_a_refusal_changes_nothing(ctx: ToolContext) -> None:
    with pytest.raises(ToolFailed, match=r"b\.py: hunk 1 of the diff does not fit"):
        apply_patch.run(ctx, patch=PATCH.replace("x = 1", "x = 2"))
    assert tree(ctx) == FILES


# crashes --------------------------------------------------------------------------------------------------------------


def killed(ctx: ToolContext, at: int) -> bool:
    """Run it in a child that dies before its `at`th rename; whether it came to that."""
    child = os.fork()
    if child == 0:
        left = at
        plain: Callable[..., Any] = Entry.rename

        def rename(self: Entry, target: Entry) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            plain(self, target)

        Entry.rename = rename  # type: ignore[method-assign]
        try:
            apply_patch.run(ctx, patch=PATCH)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
def test_a_kill_at_any_moment_leaves_all_or_nothing(ctx: ToolContext, tmp_path_factory: pytest.TempPathFactory) -> None:
    ends = []
    for at in range(20):
        root = tmp_path_factory.mktemp("w")
        for name, content in FILES.items():
            (root / name).write_text(content)
        here = ToolContext(workspace=Workspace(root), key="task-1/call-1", task="task-1")
        seen = before(here)
        if not killed(here, at):
            assert tree(here) == AFTER
            break
        found = probe(here, seen)
        ends.append(found is not None)
        assert tree(here) == (FILES if found is None else AFTER)
        if found is not None:
            assert found.text.startswith("Changed a.py at line 2.\nCreated new/n.py.\n")
            assert probe(here, seen) == found  # killed again after it
    assert ends == [False, True, True, True, True, True]


def test_what_someone_else_changed_meanwhile_is_in_doubt(ctx: ToolContext) -> None:
    seen = before(ctx)
    assert probe(ctx, seen) is None
    (ctx.workspace.root / "b.py").write_text("theirs\n")
    with pytest.raises(InDoubt, match=r"b\.py: neither as before the patch nor as after it"):
        probe(ctx, seen)
    apply_patch.run(ctx, patch=PATCH.replace("x = 1", "theirs"))
    assert probe(ctx, seen) is not None
    (ctx.workspace.root / "y.py").write_text("theirs\n")
    with pytest.raises(InDoubt):
        probe(ctx, seen)


def test_a_link_in_the_way_is_followed_only_inside(ctx: ToolContext, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (ctx.workspace.root / "out").symlink_to(outside, target_is_directory=True)
    with pytest.raises(Exception, match="leads out of the workspace"):
        apply_patch.run(ctx, patch="--- /dev/null\n+++ b/out/x\n@@ -0,0 +1 @@\n+x\n")
    assert list(outside.iterdir()) == []


def test_all_of_it_can_be_taken_back(ctx: ToolContext, tmp_path_factory: pytest.TempPathFactory) -> None:
    db = Database(tmp_path_factory.mktemp("home") / "agentd.db", clock=SystemClock())
    ledger, root = Ledger(db, SystemClock()), ctx.workspace.root
    apply_patch.run(replace(ctx, workspace=Workspace(root, ledger.keeper("task-1", ctx.key, root))), patch=PATCH)
    assert tree(ctx) == AFTER
    ledger.finish("task-1", ctx.key)
    ledger.restore("task-1", Workspace(root))
    assert tree(ctx) == FILES
    db.close()
