"""A change is applied exactly or refused with the reason; never in the wrong place."""

from __future__ import annotations

import difflib
import random
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentd.errors import ToolFailed
from agentd.workspace.patch import apply_diff, replace

# search and replace ---------------------------------------------------------------------------------------------------


def test_replaces_where_it_stands_once() -> None:
    done = replace("one\ntwo\nthree\n", "two", "2")
    assert done.text == "one\n2\nthree\n"
    assert done.lines == (2,)


def test_more_than_one_place_is_refused_with_their_lines() -> None:
    with pytest.raises(ToolFailed) as caught:
        replace("foo\nbar\nfoo\n", "foo", "x")
    assert "2 places (lines 1, 3)" in caught.value.message
    assert "all=true" in caught.value.hint


def test_all_places_are_replaced_when_asked() -> None:
    done = replace("foo\nbar foo\nfoo", "foo", "food", all=True)
    assert done.text == "food\nbar food\nfood"
    assert done.lines == (1, 2, 3)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("def ad(a, b):", "closest is line 1: 'def add(a, b):'"),
        ("  return a + b\nmore", "line 2 begins like it: '    return a + b'"),
        ("zzz", "no line is like it"),
        ("\n\n\n", "no line is like it"),
    ],
)
def test_what_is_not_there_is_refused_with_the_closest_line(search: str, said: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        replace("def add(a, b):\n    return a + b\n", search, "x")
    assert said in caught.value.message
    assert "read_file" in caught.value.hint


@pytest.mark.parametrize(("search", "new"), [("", "x"), ("a", "a"), ("a\r\nb", "a\nb")])
def test_a_replacement_that_says_nothing_is_refused(search: str, new: str) -> None:
    with pytest.raises(ToolFailed):
        replace("a\nb\n", search, new)


def test_line_endings_of_the_file_are_kept() -> None:
    assert replace("a\r\nb\r\nc\r\n", "a\nb", "x\ny\nz").text == "x\r\ny\r\nz\r\nc\r\n"
    assert replace("a\nb\n", "a\r\nb", "x\r\ny").text == "x\ny\n"
    assert replace("a\r\nb", "b", "x\ny").text == "a\r\nx\r\ny"
    assert replace("dos\r\nunix\nend", "dos", "1\n2").text == "1\r\n2\r\nunix\nend"
    assert replace("dos\r\nunix\nend", "unix", "1\n2").text == "dos\r\n1\n2\nend"
    assert replace("a\r\n\r\nb\r\n", "\n\n", "\n").text == "a\r\nb\r\n"


TEXTS = st.text(alphabet="ab\n", max_size=30)


@given(content=TEXTS, search=st.text(alphabet="ab\n", min_size=1, max_size=3), new=TEXTS, rich=st.booleans())
@settings(deadline=None)
def test_all_is_what_str_replace_does_whatever_the_endings(content: str, search: str, new: str, rich: bool) -> None:
    assume(search in content and search != new)
    wide = content.replace("\n", "\r\n") if rich else content
    expected = content.replace(search, new)
    assume(not rich or "\n" in content)
    assert replace(wide, search, new, all=True).text == (expected.replace("\n", "\r\n") if rich else expected)


AROUND = st.lists(st.sampled_from(["a", "b", "\n", "\r\n", "\r"]), max_size=8).map("".join)


@given(
    head=AROUND, tail=AROUND, inner=st.lists(st.sampled_from(["a", "\n"]), max_size=4).map("".join), wide=st.booleans()
)
@settings(deadline=None)
def test_what_is_around_the_place_is_kept_to_the_byte(head: str, tail: str, inner: str, wide: bool) -> None:
    stands = f"<{inner}>".replace("\n", "\r\n" if wide else "\n")
    assert replace(head + stands + tail, f"<{inner}>", "Z").text == head + "Z" + tail


# unified diffs --------------------------------------------------------------------------------------------------------

OLD = "".join(f"line {n}\n" for n in range(1, 21))
DIFF = """\
--- a/f.txt
+++ b/f.txt
@@ -3,5 +3,6 @@
 line 3
 line 4
-line 5
+line five
+and a half
 line 6
 line 7
@@ -16,4 +17,3 @@
 line 16
-line 17
 line 18
 line 19
"""
NEW = OLD.replace("line 5\n", "line five\nand a half\n").replace("line 17\n", "")

DAMAGED = {
    "whole": DIFF,
    "git headers": "diff --git a/f.txt b/f.txt\nindex 123..456 100644\n" + DIFF,
    "counts off": DIFF.replace("-3,5 +3,6", "-3,9 +3,1").replace("-16,4", "-16,3"),
    "no counts": DIFF.replace("-3,5 +3,6", "-3 +3"),
    "all at line 1": DIFF.replace("-3,5 +3,6", "-1,5 +1,6").replace("-16,4 +17,3", "-1,4 +1,3"),
    "no numbers": DIFF.replace("@@ -3,5 +3,6 @@", "@@ def f():").replace("@@ -16,4 +17,3 @@", "@@"),
    "no file names": DIFF.split("\n", 2)[2],
    "fenced": "Here is the change:\n\n```diff\n" + DIFF + "```\nIt fixes line 5.\n",
    "windows endings": DIFF.replace("\n", "\r\n"),
    "no newline at the end": DIFF.rstrip("\n"),
    "empty lines after": DIFF + "\n\n",
    "empty line between hunks": DIFF.replace("@@ -16", "\n@@ -16"),
    "mail signature": DIFF + "-- \n2.39.5\n",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_diff_as_models_write_it_applies_exactly(name: str) -> None:
    done = apply_diff(OLD, DAMAGED[name], "dir/f.txt")
    assert done.text == NEW
    assert done.lines == (5, 17)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_with_windows_endings_keeps_them(name: str) -> None:
    assert apply_diff(OLD.replace("\n", "\r\n"), DAMAGED[name], "f.txt").text == NEW.replace("\n", "\r\n")


def test_a_diff_that_changes_endings_changes_them() -> None:
    diff = "@@ -1,2 +1,2 @@\n a\r\n-b\r\n+b\n"
    assert apply_diff("a\r\nb\r\nc\r\n", diff).text == "a\r\nb\nc\r\n"


def test_blank_context_that_lost_its_space_still_fits() -> None:
    old = "import os\n\n\ndef f():\n    pass\n"
    diff = "@@ -1,5 +1,5 @@\n import os\n\n\n-def f():\n+def g():\n     pass\n"
    assert apply_diff(old, diff).text == old.replace("f()", "g()")


def test_added_and_removed_lines_that_look_like_file_names() -> None:
    old = "a\n-- old\nb\nc\n"
    diff = "--- f.sql\n+++ f.sql\n@@ -1,3 +1,3 @@\n a\n--- old\n+++ new\n b\n@@ -4 +4 @@\n-c\n+d\n"
    assert apply_diff(old, diff).text == "a\n++ new\nb\nd\n"
    at_the_end = "@@ -1,2 +1,2 @@\n a\n--- old\n+++ new\n@@ -4 +4 @@\n-c\n+d\n"
    assert apply_diff(old, at_the_end).text == "a\n++ new\nb\nd\n"
    with pytest.raises(ToolFailed, match="changes nothing"):
        apply_diff(old, at_the_end.replace("-1,2 +1,2", "-1,9 +1,9"))


def test_fences_inside_a_markdown_file_are_its_text() -> None:
    old = "# Use\n```sh\nrun\n```\nend\n"
    diff = "```diff\n@@ -1,5 +1,5 @@\n # Use\n ```sh\n-run\n+go\n ```\n end\n```\n"
    assert apply_diff(old, diff).text == old.replace("run", "go")
    lost = "@@ -1,5 +1,5 @@\n # Use\n```sh\n-run\n+go\n ```\n end\n"
    with pytest.raises(ToolFailed, match="code fence"):
        apply_diff(old, lost)


def test_a_new_file_is_made_from_nothing() -> None:
    diff = "--- /dev/null\n+++ b/n.txt\n@@ -0,0 +1,2 @@\n+a\n+b\n"
    assert apply_diff("", diff, "n.txt").text == "a\nb\n"
    with pytest.raises(ToolFailed, match="only adds lines"):
        apply_diff("something\n", diff, "n.txt")


NO_END = "\\ No newline at end of file\n"


@pytest.mark.parametrize(
    ("old", "diff", "new"),
    [
        ("a\nb", f"@@ -1,2 +1,2 @@\n a\n-b\n{NO_END}+c\n", "a\nc\n"),
        ("a\nb", f"@@ -1,2 +1,2 @@\n a\n-b\n{NO_END}+c\n{NO_END}", "a\nc"),
        ("a\nb\n", f"@@ -1,2 +1,2 @@\n a\n-b\n+c\n{NO_END}", "a\nc"),
        ("a\nb", f"@@ -1,2 +1,2 @@\n-a\n+x\n b\n{NO_END}", "x\nb"),
        ("a\nb", "@@ -1,2 +1,2 @@\n-a\n+x\n b\n", "x\nb"),
        ("a\r\nb", f"@@ -1,2 +1,3 @@\n a\n-b\n{NO_END}+b\n+c\n", "a\r\nb\r\nc\r\n"),
        ("a\na\na\n", f"@@ -3 +3 @@\n-a\n+b\n{NO_END}", "a\na\nb"),
        ("a\na\na\n", f"@@ -1 +1 @@\n-a\n+b\n{NO_END}", "a\na\nb"),
        ("a\nx\na", "@@ -1,2 +1,2 @@\n-a\n+b\n x\n", "b\nx\na"),
        ("a\nx\ny\na", "@@ -2 +2 @@\n-x\n+z\n@@ -4 +4 @@\n-a\n" + f"{NO_END}+b\n", "a\nz\ny\nb\n"),
        ("a\nb\n", "@@ -2,0 +3 @@\n+c\n", "a\nb\nc\n"),
        ("a\na\nb\na\n", "@@ -2 +1,0 @@\n-a\n", "a\nb\na\n"),
    ],
)
def test_the_end_of_the_file_is_as_the_diff_says(old: str, diff: str, new: str) -> None:
    assert apply_diff(old, diff).text == new


AMBIGUOUS = "start\nx\ny\nmiddle\nx\ny\nend\n"

REFUSED = {
    "not there": (OLD, DIFF.replace("line 4", "line four"), "hunk 1 of the diff does not fit: at line 4"),
    "other spaces": (
        "def f():\n\tx\n",
        "@@ -1,2 +1,2 @@\n def f():\n-    x\n+    y\n",
        "at line 2 the file has '\\tx'",
    ),
    "two places": (AMBIGUOUS, "@@ -9,2 +9,2 @@\n x\n-y\n+z\n", "fits at 2 places (lines 2, 5)"),
    "two places, wrong counts": (AMBIGUOUS, "@@ -5,4 +5,1 @@\n x\n-y\n+z\n", "fits at 2 places"),
    "two places, line 1": ("x\ny\nx\ny\n", "@@ -1,2 +1,2 @@\n x\n-y\n+z\n", "fits at 2 places"),
    "no context": (OLD, "@@ -3,0 +4,1 @@\n+new\n", "only adds lines"),
    "done already": (NEW, DIFF, "hunk 1 of the diff is in the file already"),
    "wrong order": (
        AMBIGUOUS,
        "@@ -4 +4 @@\n-middle\n+M\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n@@ -2,2 +2,2 @@\n x\n-y\n+w\n",
        "do not fit in their order",
    ),
    "overlap": (OLD, "@@ -3 +3 @@\n-line 3\n+x\n line 4\n@@ -4 +4 @@\n-line 4\n+y\n", "do not fit in their order"),
    "nothing": (OLD, "please change line 3", "no hunk"),
    "empty": (OLD, "", "no hunk"),
    "no change": (OLD, "@@ -3 +3 @@\n line 3\n", "changes nothing"),
    "same again": (OLD, "@@ -3 +3 @@\n-line 3\n+line 3\n", "changes nothing"),
    "lost space": (OLD, "@@ -3,2 +3,2 @@\nline 3\n-line 4\n+x\n", "begins with neither space, - nor +"),
    "other file": (OLD, DIFF.replace("f.txt", "g.txt"), "is for g.txt, not for f.txt"),
    "two files": (OLD, DIFF + DIFF, "several files"),
    "two git files": (OLD, DIFF + "diff --git a/g b/g\n" + DIFF, "several files"),
    "two fences": (OLD, f"```\n{DIFF}```\n```\n{DIFF}```\n", "several files"),
    "two fences, one file": (OLD, f"```\n{DIFF}```\n```\n@@ -1 +1 @@\n-line 1\n+x\n```\n", "code fence"),
    "rename": (
        OLD,
        "diff --git a/f.txt b/g.txt\nrename from f.txt\nrename to g.txt\n" + DIFF,
        "more than change lines",
    ),
    "mode alone": (OLD, "diff --git a/f.txt b/f.txt\nold mode 100644\nnew mode 100755\n", "more than change lines"),
    "deletion": ("a\n", "--- a/f.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n", "deletes the whole file"),
    "merge": (OLD, "@@@ -1,2 -1,2 +1,2 @@@\n  line 1\n", "combined diff"),
    "end not said": ("a\nb", "@@ -1,2 +1,2 @@\n a\n-b\n+c\n", "no newline at its end"),
    "end not said, added": ("a\nb", "@@ -1,2 +1,3 @@\n a\n b\n+c\n", "no newline at its end"),
    "end in the middle": ("a\nb\n", f"@@ -1,2 +1,2 @@\n-a\n+x\n{NO_END} b\n", "not the last"),
    "end that is not": ("a\nb\n", f"@@ -1,2 +1,2 @@\n a\n-b\n{NO_END}+c\n", "does not fit"),
    "hunk twice": (AMBIGUOUS, "@@ -5,2 +5,2 @@\n x\n-y\n+z\n" * 2, "is hunk 1 once more"),
    "new file twice": ("", "@@ -0,0 +1 @@\n+a\n" * 2, "is hunk 1 once more"),
    "cut off": (OLD, DIFF[: DIFF.index(" line 6")], "may be cut off"),
    "cut off, one line": (OLD, "@@ -3,4 +3,5 @@\n line 3\n line 4\n-line 5\n+x\n", "may be cut off"),
    "mark lost": ("a\nb\n", "@@ -1,2 +1,2 @@\n-a\n+x\n-b\n+b\n", "changes nothing where it replaces 'b'"),
    "ends of lines lost": ("a\r\nb\n", "@@ -1,2 +1,2 @@\n-a\n+a\n-b\n+c\n", "changes nothing where it replaces 'a'"),
    "some ends lost": ("a\nb\nc\nd\n", "@@ -1,3 +1,4 @@\n a\r\n b\r\n+x\n c\r\n d\r\n", "carriage return"),
    "first line lost": ("a\nb\nc\n", "@@ -1,3 +1,3 @@\n+x\n b\n-c\n", "lacks a line of context"),
    "blank line lost": (
        "a\nb\nc\n\n",
        "@@ -1 +1 @@\n-a\n+A\n@@ -2,3 +2,4 @@\n b\n c\n+x\n",
        "lacks a line of context",
    ),
    "one of two places, end not said": ("a\nx\na", "@@ @@\n-a\n+b\n", "fits at 2 places"),
    "stray mark": (OLD, f"@@ -1 +1 @@\n{NO_END}-line 1\n", "follows no line"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_exactly_is_refused_with_the_reason(name: str) -> None:
    old, diff, reason = REFUSED[name]
    with pytest.raises(ToolFailed) as caught:
        apply_diff(old, diff, "f.txt")
    assert reason in caught.value.message


def test_right_numbers_decide_between_places() -> None:
    assert apply_diff(AMBIGUOUS, "@@ -5,2 +5,2 @@\n x\n-y\n+z\n").text == "start\nx\ny\nmiddle\nx\nz\nend\n"


def test_a_number_1_counts_where_another_says_where() -> None:
    old = "x\nx\ny\n" + "".join(f"{number}\n" for number in range(9)) + "x\n"
    diff = "@@ -1 +1,2 @@\n x\n+new\n@@ -5 +6 @@\n-1\n+one\n"
    assert apply_diff(old, diff).text == old.replace("x\nx\n", "x\nnew\nx\n").replace("\n1\n", "\none\n")
    with pytest.raises(ToolFailed, match="fits at 3 places"):
        apply_diff(old, diff[: diff.index("@@ -5")])


def test_the_order_of_hunks_decides_between_places() -> None:
    diff = "@@ -1 +1 @@\n-middle\n+MIDDLE\n@@ -1 +1 @@\n x\n-y\n+z\n"
    assert apply_diff(AMBIGUOUS, diff).text == "start\nx\ny\nMIDDLE\nx\nz\nend\n"


def test_counts_that_are_off_by_one_leave_the_line_numbers_right() -> None:
    for counts in ("-5,3 +5,2", "-5,2 +5,1", "-5,1 +5,2"):
        diff = f"@@ {counts} @@\n x\n-y\n+z\n end\n"
        assert apply_diff(AMBIGUOUS, diff.replace(" x\n", " x\n")).text == AMBIGUOUS.replace("y\nend", "z\nend")


def test_hunks_out_of_their_order_go_where_each_alone_belongs() -> None:
    second, first = "@@ -16 +16 @@\n-line 16\n+x\n", "@@ -3 +3 @@\n-line 3\n+y\n"
    assert apply_diff(OLD, second + first).text == OLD.replace("line 3\n", "y\n").replace("line 16\n", "x\n")
    assert apply_diff(OLD, second + first).lines == (3, 16)
    swapped = "@@ -5,2 +5,2 @@\n x\n-y\n+z\n@@ -2,2 +2,2 @@\n x\n-y\n+w\n"
    assert apply_diff(AMBIGUOUS, swapped).text == "start\nx\nw\nmiddle\nx\nz\nend\n"


def test_counts_beyond_the_end_of_the_file_are_wrong_and_no_sign_of_a_cut() -> None:
    assert apply_diff("a\nb\n", "@@ -7,9 +7,9 @@\n a\n-b\n+c\n").text == "a\nc\n"
    with pytest.raises(ToolFailed, match="may be cut off"):
        apply_diff("a\nb\n" + OLD, "@@ -7,9 +7,9 @@\n a\n-b\n+c\n")


HEADED = "def f():\n    a = 1\n    return a\n\n\ndef g():\n    a = 1\n    return a\n"


def test_a_heading_decides_between_places() -> None:
    diff = "@@ -1,2 +1,2 @@ def g():\n-    a = 1\n+    a = 2\n     return a\n"
    assert apply_diff(HEADED, diff).text == HEADED[:40] + HEADED[40:].replace("a = 1", "a = 2")
    assert apply_diff(HEADED, diff.replace("-1,2 +1,2 @@ ", " ")).text == apply_diff(HEADED, diff).text
    with pytest.raises(ToolFailed, match="fits at 2 places"):
        apply_diff(HEADED, diff.replace("def g", "def h"))
    wrong = diff.replace("-1,2 +1,2", "-2,2 +2,2")  # the number names f, the heading g
    assert apply_diff(HEADED, wrong).text == apply_diff(HEADED, diff).text


def test_places_that_give_the_same_text_are_one() -> None:
    assert apply_diff("a\n\n\nb\n", "@@ -1,2 +1,1 @@\n-\n").text == "a\n\nb\n"


def test_many_repetitions_end_soon() -> None:
    diff = "@@ -1 +1 @@\n same\n-same\n" * 30
    with pytest.raises(ToolFailed, match="places"):
        apply_diff("same\n" * 3000 + "other\n", diff.replace("-same\n", "-same\n+x\n"))


def mutated(lines: list[str], seed: int) -> list[str]:
    chance = random.Random(seed)
    result = list(lines)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(result) + 1)
        result[at : at + chance.randint(0, 2)] = [f"{chance.choice('xyz')}\n"] * chance.randint(0, 2)
    return result


LINES = st.lists(
    st.sampled_from(["a\n", "b\n", "\n", "}\n", "-- c\n", "++ d\n", "@@ e\n", "```\n"]), min_size=1, max_size=14
)


@given(lines=LINES, seed=st.integers(0, 10_000), context=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_a_sound_diff_of_any_text_applies_exactly_or_is_refused(lines: list[str], seed: int, context: int) -> None:
    new = mutated(lines, seed)
    assume(new != lines)
    diff = "".join(difflib.unified_diff(lines, new, "a/f", "b/f", n=context))
    refused = ""
    try:
        assert apply_diff("".join(lines), diff, "f").text == "".join(new)
    except ToolFailed as refusal:
        refused = refusal.message
    assert not refused or "places" in refused or "only adds" in refused


@given(lines=LINES, seed=st.integers(0, 10_000), moved=st.integers(2, 9))
@settings(max_examples=200, deadline=None)
def test_numbers_that_are_off_never_lead_to_a_wrong_text(lines: list[str], seed: int, moved: int) -> None:
    new = mutated(lines, seed)
    assume(new != lines)
    diff = "".join(difflib.unified_diff(lines, new, "a/f", "b/f", n=2))
    off = re.sub(r"(?m)^@@ -(\d+)(?:,\d+)? \+(\d+)", lambda m: f"@@ -{m[1]},99 +{int(m[2]) + moved}", diff)
    try:
        assert apply_diff("".join(lines), off, "f").text == "".join(new)
    except ToolFailed:
        pass


@given(lines=LINES, seed=st.integers(0, 10_000), at=st.integers(0, 13))
@settings(max_examples=200, deadline=None)
def test_a_stale_diff_never_touches_a_line_that_it_does_not_name(lines: list[str], seed: int, at: int) -> None:
    """Someone else changed a line since: either it is outside every hunk and kept, or the diff is refused."""
    new = mutated(lines, seed)
    assume(new != lines)
    diff = "".join(difflib.unified_diff(lines, new, "a/f", "b/f", n=2))
    stale = list(lines)
    stale[at % len(lines)] = "theirs\n"
    try:
        assert "theirs\n" in apply_diff("".join(stale), diff, "f").text
    except ToolFailed:
        pass
