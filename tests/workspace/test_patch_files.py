"""A diff of several files is applied as a whole or not at all; what it cannot say for certain is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentd.errors import Denied, InDoubt, ToolFailed
from agentd.workspace.diff import parse
from agentd.workspace.patch_files import apply_files, put_all
from agentd.workspace.paths import Workspace

FILES = {"a.py": "one\ntwo\nthree\n", "b.py": "x = 1\n", "dir/c d.py": "c\n", "süß.txt": "s\n", "empty": ""}
NO_END = "\\ No newline at end of file\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return Workspace(tmp_path)


def tree(workspace: Workspace) -> dict[str, str]:
    files = (path for path in workspace.root.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(workspace.root).as_posix(): path.read_text() for path in files}


def patched(workspace: Workspace, diff: str) -> dict[str, str]:
    """What is different afterwards; None for what is gone."""
    put_all(workspace, apply_files(workspace, parse(diff)), "key")
    return {name: content for name, content in tree(workspace).items() if FILES.get(name) != content} | {
        name: "gone" for name in FILES if name not in tree(workspace)
    }


@pytest.mark.parametrize(("old", "new"), [("\ufeff", "\ufeff"), ("\ufeff", ""), ("", "\ufeff")])
def test_a_byte_order_mark_is_a_part_of_the_first_line_as_git_has_it(workspace: Workspace, old: str, new: str) -> None:
    (workspace.root / "a.py").write_text(old + FILES["a.py"])
    diff = f"--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,3 @@\n-{old}one\n+{new}ONE\n two\n three\n"
    assert patched(workspace, diff)["a.py"] == new + CHANGED["a.py"].replace("one", "ONE").replace("TWO", "two")
    (workspace.root / "a.py").write_text("\ufeff" + FILES["a.py"])
    assert patched(workspace, CHANGE)["a.py"] == "\ufeff" + CHANGED["a.py"]
    (workspace.root / "a.py").write_text("\ufeff" + FILES["a.py"])
    assert patched(workspace, "\ufeff" + CHANGE)["a.py"] == "\ufeff" + CHANGED["a.py"]


def git(path: str, *lines: str, to: str = "") -> str:
    return "\n".join([f"diff --git a/{path} b/{to or path}", *lines, ""])


HUNK = "@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"
CHANGE = f"--- a/a.py\n+++ b/a.py\n{HUNK}"
ADD = "--- /dev/null\n+++ b/new/n.py\n@@ -0,0 +1,2 @@\n+n\n+m\n"
DELETE = "--- a/b.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x = 1\n"
CHANGED = {"a.py": "one\nTWO\nthree\n"}
ALL = CHANGED | {"new/n.py": "n\nm\n", "b.py": "gone"}

TAKEN = {
    "several files": (CHANGE + ADD + DELETE, ALL),
    "several blocks": (f"First:\n```diff\n{CHANGE}```\nand then\n```\n{ADD}```\n\n```\n{DELETE}```\nDone.\n", ALL),
    "no prefixes": ((CHANGE + ADD + DELETE).replace("a/", "").replace("b/n", "n").replace("b/a", "a"), ALL),
    "times behind names": (CHANGE.replace("a.py\n", "a.py\t2024-01-02 03:04:05.000000000 +0000\n"), CHANGED),
    "times behind spaces": (CHANGE.replace("a.py\n", "a.py 2024-01-02 03:04:05\n"), CHANGED),
    "svn": (f"Index: a.py\n{'=' * 67}\n" + CHANGE.replace("a/", "").replace("b/", ""), CHANGED),
    "windows endings": ((CHANGE + ADD + DELETE).replace("\n", "\r\n"), ALL),
    "git headers": (git("a.py", "index 1..2 100644", CHANGE.rstrip()), CHANGED),
    "rename": (git("a.py", "rename from a.py", "rename to z.py", to="z.py"), {"a.py": "gone", "z.py": FILES["a.py"]}),
    "rename with a change": (
        git(
            "a.py",
            "similarity index 90%",
            "rename from a.py",
            "rename to q/z.py",
            "--- a/a.py",
            "+++ b/q/z.py",
            to="q/z.py",
        )
        + HUNK,
        {"a.py": "gone", "q/z.py": CHANGED["a.py"]},
    ),
    "rename without diff --git": ("rename from a.py\nrename to z.py\n", {"a.py": "gone", "z.py": FILES["a.py"]}),
    "name with a space before it": (
        git("a.py", "rename from a.py", "rename to  z.py", "--- a/a.py", "+++ b/ z.py\t", to=" z.py") + HUNK,
        {"a.py": "gone", " z.py": CHANGED["a.py"]},
    ),
    "prefixes the other way round": (CHANGE.replace("a/", "i/").replace("b/", "c/"), CHANGED),
    "copy": (git("a.py", "copy from a.py", "copy to z.py", to="z.py"), {"z.py": FILES["a.py"]}),
    "two that swap": (
        git("a.py", "rename from a.py", "rename to b.py", to="b.py")
        + git("b.py", "rename from b.py", "rename to a.py", to="a.py"),
        {"a.py": FILES["b.py"], "b.py": FILES["a.py"]},
    ),
    "a chain": (
        git("a.py", "rename from a.py", "rename to b.py", to="b.py")
        + git("b.py", "rename from b.py", "rename to z.py", to="z.py"),
        {"a.py": "gone", "b.py": FILES["a.py"], "z.py": FILES["b.py"]},
    ),
    "empty file": (git("e.txt", "new file mode 100644", "index 0000000..e69de29"), {"e.txt": ""}),
    "empty file gone": (git("empty", "deleted file mode 100644", "index e69de29..0000000"), {"empty": "gone"}),
    "spaces in the name": (
        git("dir/c d.py", "--- a/dir/c d.py\t", "+++ b/dir/c d.py\t", "@@ -1 +1 @@", "-c", "+d"),
        {"dir/c d.py": "d\n"},
    ),
    "quoted name": (
        'diff --git "a/s\\303\\274\\303\\237.txt" "b/s\\303\\274\\303\\237.txt"\n'
        '--- "a/s\\303\\274\\303\\237.txt"\n+++ "b/s\\303\\274\\303\\237.txt"\n@@ -1 +1 @@\n-s\n+t\n',
        {"süß.txt": "t\n"},
    ),
    "end of file": (f"--- a/b.py\n+++ b/b.py\n@@ -1 +1 @@\n-x = 1\n+y\n{NO_END}", {"b.py": "y"}),
    "a mail": (f"From 12 Mon Sep\nSubject: x\n\nwords\n---\n a.py | 2 +-\n\n{CHANGE}-- \n2.39.5\n\n", CHANGED),
    "new by counts alone": ("--- a/n.py\n+++ b/n.py\n@@ -0,0 +1 @@\n+n\n", {"n.py": "n\n"}),
    "sql comments": (
        "--- a/b.py\n+++ b/b.py\n@@ -1 +1,2 @@\n x = 1\n+-- y\n" + CHANGE,
        CHANGED | {"b.py": "x = 1\n-- y\n"},
    ),
    "begin patch": (
        "*** Begin Patch\n*** Update File: a.py\n@@\n one\n-two\n+TWO\n*** Add File: new/n.py\n+n\n+m\n"
        "*** Delete File: b.py\n*** End Patch\n",
        ALL,
    ),
    "begin patch, moved": (
        "```\n*** Begin Patch\n*** Update File: a.py\n*** Move to: z.py\n one\n-two\n+TWO\n*** End Patch\n```\n",
        {"a.py": "gone", "z.py": CHANGED["a.py"]},
    ),
    "begin patch, at the end": (
        "*** Begin Patch\n*** Update File: a.py\n@@\n+four\n*** End of File\n*** End Patch",
        {"a.py": FILES["a.py"] + "four\n"},
    ),
    "begin patch, empty file": ("*** Begin Patch\n*** Add File: e.txt\n*** End Patch\n", {"e.txt": ""}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_all_of_a_diff_is_applied(workspace: Workspace, name: str) -> None:
    diff, expected = TAKEN[name]
    assert patched(workspace, diff) == expected


REFUSED = {
    "nothing": ("please", "there is no diff"),
    "no name": (HUNK, "does not say which file"),
    "one does not fit": (CHANGE + DELETE.replace("x = 1", "y = 1"), "b.py: hunk 1 of the diff does not fit"),
    "file is missing": (CHANGE + CHANGE.replace("a.py", "zz.py"), "there is no zz.py"),
    "file is there": (CHANGE + ADD.replace("new/n.py", "b.py"), "b.py exists already"),
    "target is there": (git("a.py", "rename from a.py", "rename to b.py", to="b.py"), "b.py exists already"),
    "not all lines": (DELETE.replace("b.py", "a.py").replace("x = 1", "one"), "not all its lines"),
    "deleted unseen": (git("a.py", "deleted file mode 100644"), "without its lines"),
    "twice": (CHANGE + CHANGE, "names a.py twice"),
    "twice by another spelling": (CHANGE + CHANGE.replace("a/a.py", "a/./a.py").replace("b/a.py", "b/./a.py"), "twice"),
    "changed and renamed": (CHANGE + git("a.py", "rename from a.py", "rename to z.py", to="z.py"), "names a.py twice"),
    "two names": ("--- a/a.py\n+++ b/z.py\n" + HUNK, "names two files"),
    "binary": (git("a.png", "index 1..2", "Binary files a/a.png and b/a.png differ"), "binary file"),
    "binary patch": (git("a.png", "index 1..2", "GIT binary patch", "literal 0"), "binary file"),
    "link": (git("l", "new file mode 120000", "--- /dev/null", "+++ b/l", "@@ -0,0 +1 @@", "+a.py"), "a link"),
    "submodule": (git("s", "index 1..2 160000", "--- a/s", "+++ b/s", "@@ -1 +1 @@", "-x", "+y"), "a submodule"),
    "merge": ("diff --cc a.py\nindex 1,2..3\n--- a/a.py\n+++ b/a.py\n@@@ -1 -1 +1 @@@\n", "combined diff"),
    "no hunk": ("--- a/a.py\n+++ b/a.py\n", "does not say what to change"),
    "lines without a hunk": ("--- a/a.py\n+++ b/a.py\n one\n-two\n+TWO\n", "belongs to no hunk"),
    "words within": (CHANGE + "and then\n" + ADD, "begins with neither space"),
    "cut off": (ADD + CHANGE.replace(" three\n", "").replace("+TWO\n", ""), "may be cut off"),
    "a folder": (CHANGE.replace("a.py", "dir"), "is a folder"),
    "a file for a folder": (ADD.replace("new/n.py", "a.py/n.py"), "is a file, not a folder"),
    "begin patch, not there": ("*** Begin Patch\n*** Update File: a.py\n-zwei\n+2\n*** End Patch\n", "does not fit"),
    "begin patch, nothing": ("*** Begin Patch\n*** Update File: a.py\n*** End Patch\n", "does not say what to change"),
    "begin patch, loose": ("*** Begin Patch\n-two\n+TWO\n*** End Patch\n", "belongs to no hunk"),
    "begin patch, no plus": ("*** Begin Patch\n*** Add File: n.py\nn\n*** End Patch\n", "belongs to no hunk"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_applied_changes_nothing(workspace: Workspace, name: str) -> None:
    diff, reason = REFUSED[name]
    with pytest.raises(ToolFailed) as caught:
        patched(workspace, diff)
    assert reason in caught.value.message
    assert tree(workspace) == FILES


@pytest.mark.parametrize("path", ["../x.py", "/etc/passwd", "dir/../../x.py", "~/x", "C:/x", ".git\u200b/hooks/x"])
def test_paths_outside_of_the_workspace_are_refused(workspace: Workspace, path: str) -> None:
    for diff in (f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n", f"*** Begin Patch\n*** Add File: {path}\n+x\n"):
        with pytest.raises(Denied):
            patched(workspace, CHANGE + diff)
    assert tree(workspace) == FILES


@pytest.mark.skipif(os.name == "nt", reason="has no such modes")
def test_modes(workspace: Workspace) -> None:
    root = workspace.root
    (root / "b.py").chmod(0o600)
    assert patched(workspace, git("a.py", "old mode 100644", "new mode 100755")) == {}
    assert (root / "a.py").stat().st_mode & 0o777 == 0o755
    made = git("run.sh", "new file mode 100755", "--- /dev/null", "+++ b/run.sh", "@@ -0,0 +1 @@", "+x")
    assert patched(workspace, made + git("b.py", "rename from b.py", "rename to z.py", to="z.py"))["run.sh"] == "x\n"
    assert (root / "run.sh").stat().st_mode & 0o111
    assert (root / "z.py").stat().st_mode & 0o777 == 0o600
    patched(workspace, git("a.py", "old mode 100755", "new mode 100644", CHANGE.rstrip()))
    assert (root / "a.py").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_is_not_taken_for_the_file_it_leads_to(workspace: Workspace) -> None:
    (workspace.root / "l.py").symlink_to("a.py")
    with pytest.raises(ToolFailed, match="is a link"):
        patched(workspace, CHANGE.replace("a.py", "l.py"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nobody keeps root from writing")
def test_a_failure_in_the_middle_takes_the_rest_back(workspace: Workspace) -> None:
    (workspace.root / "dir").chmod(0o500)
    try:
        with pytest.raises(ToolFailed, match="permission"):
            patched(workspace, CHANGE + DELETE + "--- a/dir/c d.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-c\n")
    finally:
        (workspace.root / "dir").chmod(0o700)
    assert tree(workspace) == FILES


@pytest.mark.parametrize("stuck", [False, True])
def test_a_failure_when_they_are_put_in_place_takes_the_rest_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, stuck: bool
) -> None:
    plain = workspace.delete

    def delete(path: str, key: str = "") -> None:
        if path == "b.py" or stuck:
            raise ToolFailed("no")
        plain(path, key)

    edits = apply_files(workspace, parse(CHANGE + ADD + DELETE))
    monkeypatch.setattr(workspace, "delete", delete)
    with pytest.raises(InDoubt if stuck else ToolFailed, match=r"new/n\.py could not be put back" if stuck else "no"):
        put_all(workspace, edits, "key")
    assert tree(workspace) == FILES | ({"new/n.py": "n\nm\n"} if stuck else {})
