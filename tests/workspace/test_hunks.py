"""Diffs that git takes to the byte, and files with some of their hunks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentd.workspace.hunks import NOTHING, Content, change_of, count, partly

LINES = st.lists(st.sampled_from(["a", "b", "", "c\r", "\u2028x\x0cy", "é"]), max_size=30)
TEXTS = st.builds(lambda lines, end: "\n".join(lines) + end, LINES, st.sampled_from(["", "\n"]))


def content(text: str | bytes) -> Content:
    return Content(data=text.encode() if isinstance(text, str) else text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(old=TEXTS.filter(bool), new=TEXTS.filter(bool))
def test_git_applies_what_is_shown(tmp_path: Path, old: str, new: str) -> None:
    change = change_of("f", content(old), content(new))
    if change is None:
        assert old == new
        return
    (tmp_path / "f").write_bytes(old.encode())
    git = ["git", "apply", "--unidiff-zero", "-"]
    done = subprocess.run(git, cwd=tmp_path, input=change.diff.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr + change.diff.encode()
    assert (tmp_path / "f").read_bytes() == new.encode()


@given(old=TEXTS.filter(bool), new=TEXTS, chosen=st.sets(st.integers(1, 6)))
def test_all_hunks_make_the_new_file_and_none_the_old(old: str, new: str, chosen: set[int]) -> None:
    before, after = content(old), content(new)
    number = count(before, after)
    assert partly(before, after, range(1, number + 1)) == new.encode()
    assert partly(before, after, ()) == old.encode()
    # What is left out can be put in later, whatever is chosen first.
    some = content(partly(before, after, chosen))
    assert partly(some, after, range(1, count(some, after) + 1)) == new.encode()


def test_some_hunks() -> None:
    old = "".join(f"{number}\n" for number in range(20))
    new = old.replace("3\n4", "three\n4").replace("18\n", "")
    assert count(content(old), content(new)) == 2
    assert partly(content(old), content(new), [2]).decode() == old.replace("18\n", "")


@pytest.mark.parametrize(
    ("before", "after", "kind", "said"),
    [
        (NOTHING, content("x\n"), "added", "--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+x\n"),
        (content("x"), NOTHING, "deleted", "--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\\ No newline at end of file\n"),
        (content(b"\0\1"), content(b"\0\2\3"), "changed", "f: binary, 2 bytes -> binary, 3 bytes\n"),
        (Content(data=b"a", link=True), NOTHING, "deleted", "f: a link to a -> nothing\n"),
        (Content(data=b"a", mode=0o644), Content(data=b"a", mode=0o755), "mode", "f: mode 644 -> 755\n"),
        (
            Content(data=b"a\n", mode=0o644),
            Content(data=b"b\n", mode=0o755),
            "changed",
            "f: mode 644 -> 755\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n",
        ),
        (
            NOTHING,
            Content(data=b"\0", mode=0o755),
            "added",
            "f: mode 755\nf: nothing -> binary, 1 bytes\n",
        ),
    ],
)
def test_every_kind_of_change_is_told(before: Content, after: Content, kind: str, said: str) -> None:
    change = change_of("f", before, after)
    assert change is not None
    assert (change.kind, change.diff) == (kind, said)


def test_no_change_is_none_and_utf16_is_text() -> None:
    assert change_of("f", content("x"), content("x")) is None
    assert change_of("f", NOTHING, NOTHING) is None
    wide = change_of("f", content("a\n".encode("utf-16")), content("b\n".encode("utf-16")))
    assert wide is not None
    assert wide.diff.endswith("-a\n+b\n")
    assert partly(content("a\n".encode("utf-16")), content("b\n".encode("utf-16")), [1]) == "b\n".encode("utf-16")
