"""File tools: what they say, what they change, and that a crash in between neither loses nor doubles a change."""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress
from dataclasses import replace as altered
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import AgentdError, Denied, InDoubt, ToolFailed, ToolMisused
from agentd.tools import files
from agentd.tools.tool import Tool, ToolContext
from agentd.types import Effect, ToolResult
from agentd.workspace.paths import Workspace

TOOLS = [
    *(files.read_file, files.list_dir, files.file_info, files.write_file),
    *(files.edit_file, files.copy_path, files.move_path, files.delete_path),
]


@pytest.fixture
def ctx(tmp_path: Path) -> ToolContext:
    root = tmp_path / "work"
    (root / "docs").mkdir(parents=True)
    (root / "notes.txt").write_bytes(b"milk\nbread\neggs\nrice\n")
    (root / "docs" / "intro.md").write_bytes(b"# Intro\n")
    (root / "docs" / "usage.md").write_bytes(b"")
    return ToolContext(workspace=Workspace(root), key="task-1/step-2/call-3", require=lambda action: None)


def call(tool: Tool, ctx: ToolContext, **args: Any) -> ToolResult:
    result = tool.run(ctx, **tool.validate(args).model_dump())
    assert isinstance(result, ToolResult)
    return result


def said(tool: Tool, ctx: ToolContext, **args: Any) -> str:
    return call(tool, ctx, **args).text


def content(ctx: ToolContext, path: str) -> bytes:
    return (ctx.workspace.root / path).read_bytes()


# every tool -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_examples_name_parameters_that_exist(tool: Tool) -> None:
    fields = tool.arguments.model_fields
    required = {name for name, info in fields.items() if info.is_required()}
    assert len(tool.examples) >= 5
    for example in tool.examples:
        request, _, fixed = example.partition(" :: ")
        given = dict(part.split("=", 1) for part in fixed.split(", ")) if fixed else {}
        used = set(re.findall(r"\{(\w+)\}", request))
        assert used | set(given) <= set(fields)
        assert required <= used | set(given) | ({"content"} if tool is files.write_file else set())
        values = {name: "1" if name in ("start", "lines") else "x" for name in used}
        tool.validate(values | given)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_change_can_be_looked_at_after_a_crash(tool: Tool) -> None:
    assert tool.annotations.read_only is (tool.effect is Effect.PURE)
    assert (tool.before is not None and tool.probe is not None) is (tool.effect is Effect.PROBEABLE)
    assert tool.description.endswith(".")


def test_actions_are_what_is_touched() -> None:
    def actions(tool: Tool, **args: Any) -> list[str]:
        return [str(action) for action in tool.actions(tool.validate(args))]

    assert actions(files.read_file, path="./a//b") == ["fs.read a/b"]
    assert actions(files.list_dir) == ["fs.read ."]
    assert actions(files.write_file, path="a", content="x") == ["fs.write a"]
    assert actions(files.edit_file, path="a", search="x") == ["fs.read a", "fs.write a"]
    assert actions(files.copy_path, source="a", target="b") == ["fs.read a", "fs.write b"]
    assert actions(files.move_path, source="a", target="b") == ["fs.read a", "fs.delete a", "fs.write b"]
    assert actions(files.delete_path, path="../a") == ["fs.delete ../a"]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "~/x", "C:\\x", "a\0b"])
def test_no_tool_takes_a_path_that_leads_out(ctx: ToolContext, tool: Tool, path: str) -> None:
    args: dict[str, str] = {
        "path": path,
        "source": "notes.txt",
        "target": path,
        "content": "x",
        "search": "x",
        "replace": "y",
    }
    with pytest.raises(Denied):
        call(tool, ctx, **{name: value for name, value in args.items() if name in tool.arguments.model_fields})


# read -----------------------------------------------------------------------------------------------------------------


def test_read_file_gives_the_text(ctx: ToolContext) -> None:
    assert said(files.read_file, ctx, path="notes.txt") == "milk\nbread\neggs\nrice\n"
    assert said(files.read_file, ctx, path="docs/usage.md") == "docs/usage.md is empty."


def test_read_file_gives_a_part_and_says_how_to_go_on(ctx: ToolContext) -> None:
    part = call(files.read_file, ctx, path="notes.txt", start=2, lines=2)
    assert part.text == "bread\neggs\n… more follows: read_file(path='notes.txt', start=4)"
    assert part.data == {"path": "notes.txt", "start": 2, "lines": 2, "more": True}
    assert said(files.read_file, ctx, path="notes.txt", start=4) == "rice\n"
    with pytest.raises(ToolFailed, match="has 4 lines, none at 5"):
        call(files.read_file, ctx, path="notes.txt", start=5)
    with pytest.raises(ToolMisused):
        call(files.read_file, ctx, path="notes.txt", start=0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_read_file_knows_encodings_and_endings(ctx: ToolContext, encoding: str) -> None:
    (ctx.workspace.root / "x.txt").write_bytes("größe\r\nzwei\r\ndrei".encode(encoding))
    assert said(files.read_file, ctx, path="x.txt") == "größe\nzwei\ndrei"
    assert said(files.read_file, ctx, path="x.txt", start=2, lines=1).startswith("zwei\n…")
    with pytest.raises(ToolFailed, match="has 3 lines, none at 9"):
        call(files.read_file, ctx, path="x.txt", start=9)


def test_a_binary_file_is_described_not_shown(ctx: ToolContext) -> None:
    (ctx.workspace.root / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    for tool in (files.read_file, files.file_info):
        assert (
            said(tool, ctx, path="logo.png")
            == "logo.png is a binary file (PNG image) of 108 bytes; it has no lines of text."
        )
    with pytest.raises(ToolFailed, match="is a binary file"):
        call(files.edit_file, ctx, path="logo.png", search="PNG", replace="JPG")
    with pytest.raises(ToolFailed, match="is a binary file"):
        call(files.write_file, ctx, path="logo.png", content="x", mode="append")


def test_a_very_long_line_is_cut(ctx: ToolContext) -> None:
    (ctx.workspace.root / "one.json").write_bytes("ä".encode() * 1_000_000)
    shown = call(files.read_file, ctx, path="one.json")
    assert 90_000 < len(shown.text) < 210_000
    assert shown.data["more"] is True


@pytest.mark.parametrize("head", [b"", b"line\n" * 100_000], ids=["zeros", "text"])
def test_a_file_of_2_gb_is_answered_at_once(ctx: ToolContext, head: bytes) -> None:
    with (ctx.workspace.root / "huge.log").open("wb") as file:
        file.write(head)
        file.truncate(2 << 30)
    started = time.monotonic()
    info = call(files.file_info, ctx, path="huge.log")
    assert str(2 << 30) in info.text
    assert ("more than 100000 lines" in info.text) is bool(head)
    shown = call(files.read_file, ctx, path="huge.log")
    assert len(shown.text) < 10_000
    if head:
        with pytest.raises(ToolFailed, match="lies beyond its first"):
            call(files.read_file, ctx, path="huge.log", start=10_000_000)
        with pytest.raises(ToolFailed, match="more than 20000000"):
            call(files.edit_file, ctx, path="huge.log", search="line", replace="x")
        with pytest.raises(ToolFailed, match="more than 20000000"):
            call(files.write_file, ctx, path="huge.log", content="x", mode="append")
    assert time.monotonic() - started < 3


def test_file_info_counts(ctx: ToolContext) -> None:
    assert said(files.file_info, ctx, path="notes.txt") == "notes.txt has 4 lines, 4 words and 21 bytes (text, utf-8)."
    (ctx.workspace.root / "one").write_bytes("a größer".encode("latin-1"))
    assert said(files.file_info, ctx, path="one") == "one has 1 line, 2 words and 8 bytes (text, latin-1)."
    assert said(files.file_info, ctx, path="docs") == "docs is a folder with 2 files and 0 folders directly in it."
    assert said(files.file_info, ctx, path=".") == "The workspace is a folder with 2 files and 1 folder directly in it."


def test_file_info_counts_the_lines_of_a_large_text(ctx: ToolContext) -> None:
    (ctx.workspace.root / "large.txt").write_bytes(b"0123456789abcdef\n" * 1_300_000)
    assert said(files.file_info, ctx, path="large.txt") == "large.txt has 1300000 lines and 22100000 bytes (text)."


def test_list_dir_names_entries_with_their_path(ctx: ToolContext) -> None:
    assert said(files.list_dir, ctx) == "docs/\nnotes.txt"
    assert said(files.list_dir, ctx, path="docs/") == "docs/intro.md\ndocs/usage.md"
    (ctx.workspace.root / "empty").mkdir()
    assert said(files.list_dir, ctx, path="empty") == "empty is empty."


def test_list_dir_of_a_huge_folder_is_cut(ctx: ToolContext) -> None:
    (ctx.workspace.root / "many").mkdir()
    for number in range(1005):
        (ctx.workspace.root / "many" / str(number)).touch()
    listed = call(files.list_dir, ctx, path="many")
    assert len(listed.data["entries"]) == 1000
    assert listed.text.endswith("… and more than these 1000")


@pytest.mark.parametrize(
    "tool", [files.read_file, files.file_info, files.list_dir, files.delete_path], ids=lambda t: t.name
)
def test_what_is_not_there_is_said_with_what_is(ctx: ToolContext, tool: Tool) -> None:
    with pytest.raises(ToolFailed) as caught:
        call(tool, ctx, path="missing.txt")
    assert caught.value.message == "there is no missing.txt in the workspace"
    assert "notes.txt" in caught.value.hint


@pytest.mark.skipif(os.name == "nt", reason="pipes with a name")
def test_a_pipe_is_never_waited_on(ctx: ToolContext) -> None:
    os.mkfifo(ctx.workspace.root / "pipe")
    for tool, args in ((files.read_file, {}), (files.file_info, {}), (files.edit_file, {"search": "a"})):
        with pytest.raises(ToolFailed, match="no regular file"):
            call(tool, ctx, path="pipe", **args)


# write ----------------------------------------------------------------------------------------------------------------


def test_write_file_creates_with_folders(ctx: ToolContext) -> None:
    result = call(files.write_file, ctx, path="a/b/hello.txt", content="Hello world")
    assert result.text == "Created a/b/hello.txt (1 line, 11 bytes)."
    assert result.changed == ("a/b/hello.txt",)
    assert content(ctx, "a/b/hello.txt") == b"Hello world"


def test_write_file_creates_nothing_over_something(ctx: ToolContext) -> None:
    with pytest.raises(ToolFailed) as caught:
        call(files.write_file, ctx, path="notes.txt", content="x")
    assert caught.value.message == "notes.txt exists already"
    assert "overwrite" in caught.value.hint
    assert content(ctx, "notes.txt") == b"milk\nbread\neggs\nrice\n"
    for mode in ("create", "overwrite", "append"):
        with pytest.raises(ToolFailed, match="is a folder"):
            call(files.write_file, ctx, path="docs", content="x", mode=mode)


@pytest.mark.parametrize(
    ("old", "added", "new"),
    [
        (b"call mum\n", "buy tea", b"call mum\nbuy tea\n"),
        (b"call mum", "buy tea\n", b"call mum\nbuy tea\n"),
        (b"", "buy tea", b"buy tea\n"),
        (b"a\r\nb", "c\nd", b"a\r\nb\r\nc\r\nd\r\n"),
        ("größe".encode("latin-1"), "süß", "größe\nsüß\n".encode("latin-1")),
        ("x".encode("utf-16"), "y", "x\ny\n".encode("utf-16")),
    ],
)
def test_append_adds_whole_lines_in_the_form_of_the_file(ctx: ToolContext, old: bytes, added: str, new: bytes) -> None:
    (ctx.workspace.root / "todo.txt").write_bytes(old)
    result = call(files.write_file, ctx, path="todo.txt", content=added, mode="append")
    assert content(ctx, "todo.txt") == new
    assert result.text.startswith("Added ")
    assert "to todo.txt (now " in result.text


def test_append_makes_a_missing_file(ctx: ToolContext) -> None:
    assert (
        said(files.write_file, ctx, path="new.txt", content="x", mode="append") == "Created new.txt (1 line, 2 bytes)."
    )


def test_overwrite_keeps_form_where_it_can(ctx: ToolContext) -> None:
    path = ctx.workspace.root / "x.txt"
    path.write_bytes("größe\r\n".encode("latin-1"))
    assert (
        said(files.write_file, ctx, path="x.txt", content="süß\nb\n", mode="overwrite")
        == "Overwrote x.txt (2 lines, 8 bytes)."
    )
    assert path.read_bytes() == "süß\r\nb\r\n".encode("latin-1")
    call(files.write_file, ctx, path="x.txt", content="5 €\n", mode="overwrite")
    assert path.read_bytes() == "5 €\n".encode()
    path.write_bytes(bytes(10))
    call(files.write_file, ctx, path="x.txt", content="text\n", mode="overwrite")
    assert path.read_bytes() == b"text\n"


def test_append_of_a_character_the_file_cannot_hold_is_refused(ctx: ToolContext) -> None:
    (ctx.workspace.root / "x.txt").write_bytes("größe\n".encode("latin-1"))
    with pytest.raises(ToolFailed, match="has no '€'"):
        call(files.write_file, ctx, path="x.txt", content="5 €", mode="append")
    assert content(ctx, "x.txt") == "größe\n".encode("latin-1")


NAUGHTY = [
    "",
    "undefined",
    "\\",
    "'; DROP TABLE x--",
    "\u202etest\u202c",
    "Ω≈ç√∫˜µ≤≥÷",
    "👩‍👩‍👧‍👦",
    "\x00",
    "$HOME`id`",
    "\r\n\r",
    "\ufeffx",
    "\x85\u2028",
]


@pytest.mark.parametrize("naughty", NAUGHTY)
def test_any_text_can_be_written_and_found_again(ctx: ToolContext, naughty: str) -> None:
    call(files.write_file, ctx, path="n.txt", content=naughty)
    assert content(ctx, "n.txt") == naughty.encode()
    call(files.file_info, ctx, path="n.txt")
    call(files.read_file, ctx, path="n.txt")
    call(files.write_file, ctx, path="n2.txt", content=f"a\nb {naughty}|\nc\n" if "\0" not in naughty else "a|\n")
    call(files.edit_file, ctx, path="n2.txt", search="|", replace=naughty)


def test_a_text_that_no_file_can_hold_is_refused(ctx: ToolContext) -> None:
    for mode in ("create", "append"):
        with pytest.raises(ToolFailed, match=r"U\+D800"):
            call(files.write_file, ctx, path="n.txt", content="a\ud800", mode=mode)
    assert ctx.workspace.stat("n.txt") is None


# edit -----------------------------------------------------------------------------------------------------------------


def test_edit_file_replaces_exactly(ctx: ToolContext) -> None:
    result = call(files.edit_file, ctx, path="notes.txt", search="bread", replace="butter")
    assert result.text == "Changed notes.txt at 1 place (line 2)."
    assert result.changed == ("notes.txt",)
    assert content(ctx, "notes.txt") == b"milk\nbutter\neggs\nrice\n"


def test_edit_file_replaces_everywhere_only_when_told(ctx: ToolContext) -> None:
    with pytest.raises(ToolFailed, match="stands at 4 places"):
        call(files.edit_file, ctx, path="notes.txt", search="\n", replace=";\n")
    assert said(files.edit_file, ctx, path="notes.txt", search="i", replace="I", all=True).endswith(
        "2 places (lines 1, 4)."
    )
    assert content(ctx, "notes.txt") == b"mIlk\nbread\neggs\nrIce\n"


def test_edit_file_can_remove_a_text(ctx: ToolContext) -> None:
    call(files.edit_file, ctx, path="notes.txt", search="eggs\n", replace="")
    assert content(ctx, "notes.txt") == b"milk\nbread\nrice\n"


def test_edit_file_takes_a_diff(ctx: ToolContext) -> None:
    diff = "--- a/notes.txt\n+++ b/notes.txt\n@@ -1,3 +1,3 @@\n milk\n-bread\n+butter\n eggs\n"
    call(files.edit_file, ctx, path="notes.txt", diff=diff)
    assert content(ctx, "notes.txt") == b"milk\nbutter\neggs\nrice\n"


def test_edit_file_takes_a_diff_with_a_byte_order_mark_and_without(ctx: ToolContext) -> None:
    file = ctx.workspace.root / "marked.txt"
    for mark in ("\ufeff", ""):
        file.write_text("\ufeffone\ntwo\n", encoding="utf-8")
        call(files.edit_file, ctx, path="marked.txt", diff=f"@@ -1,2 +1,2 @@\n {mark}one\n-two\n+TWO\n")
        assert file.read_text(encoding="utf-8") == "\ufeffone\nTWO\n"


@pytest.mark.parametrize("args", [{}, {"replace": "x"}, {"search": "a", "diff": "@@"}, {"replace": "a", "diff": "@@"}])
def test_edit_file_wants_one_of_the_two(ctx: ToolContext, args: dict[str, str]) -> None:
    with pytest.raises(ToolMisused):
        call(files.edit_file, ctx, path="notes.txt", **args)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_edit_file_keeps_encoding_and_endings(ctx: ToolContext, encoding: str) -> None:
    (ctx.workspace.root / "x.txt").write_bytes("größe\r\nzwei\r\n".encode(encoding))
    call(files.edit_file, ctx, path="x.txt", search="größe\nzwei", replace="süß\n2")
    assert content(ctx, "x.txt") == "süß\r\n2\r\n".encode(encoding)


# copy, move, delete ---------------------------------------------------------------------------------------------------


def test_copy_move_and_delete_say_what_they_did(ctx: ToolContext) -> None:
    copied = call(files.copy_path, ctx, source="notes.txt", target="backup/notes.bak")
    assert (copied.text, copied.changed) == ("Copied notes.txt to backup/notes.bak (21 bytes).", ("backup/notes.bak",))
    moved = call(files.move_path, ctx, source="backup", target="old")
    assert (moved.text, moved.changed) == ("Moved backup to old.", ("backup", "old"))
    deleted = call(files.delete_path, ctx, path="old")
    assert (deleted.text, deleted.changed) == ("Deleted old.", ("old",))
    assert sorted(os.listdir(ctx.workspace.root)) == ["docs", "notes.txt"]


@pytest.mark.parametrize("target", ["docs", "docs/", "./docs"])
def test_into_a_folder_things_keep_their_name(ctx: ToolContext, target: str) -> None:
    assert (
        said(files.copy_path, ctx, source="notes.txt", target=target)
        == "Copied notes.txt to docs/notes.txt (21 bytes)."
    )
    with pytest.raises(ToolFailed, match=r"docs/notes\.txt exists already"):
        call(files.move_path, ctx, source="notes.txt", target=target)
    assert said(files.move_path, ctx, source="notes.txt", target="fresh/") == "Moved notes.txt to fresh/notes.txt."


def test_nothing_is_copied_over_something(ctx: ToolContext) -> None:
    with pytest.raises(ToolFailed, match=r"docs/usage\.md exists already"):
        call(files.copy_path, ctx, source="notes.txt", target="docs/usage.md")
    assert content(ctx, "docs/usage.md") == b""


def test_a_folder_with_something_protected_is_not_deleted(ctx: ToolContext) -> None:
    (ctx.workspace.root / "docs" / ".env").write_text("KEY=1")
    careful = altered(ctx, may_read=lambda path: not path.endswith(".env"))
    with pytest.raises(Denied, match=r"docs holds docs/\.env"):
        call(files.delete_path, careful, path="docs")
    assert content(ctx, "docs/intro.md") == b"# Intro\n"


# crashes --------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Tool, dict[str, Any], str]] = {
    "create": (files.write_file, {"path": "new/x.txt", "content": "hello"}, "new/x.txt"),
    "overwrite": (files.write_file, {"path": "notes.txt", "content": "hello", "mode": "overwrite"}, "notes.txt"),
    "append": (files.write_file, {"path": "notes.txt", "content": "tea", "mode": "append"}, "notes.txt"),
    "edit": (files.edit_file, {"path": "notes.txt", "search": "i", "replace": "ii", "all": True}, "notes.txt"),
    "copy": (files.copy_path, {"source": "notes.txt", "target": "copy.txt"}, "copy.txt"),
    "copy a folder": (files.copy_path, {"source": "docs", "target": "copy"}, "copy/intro.md"),
    "move": (files.move_path, {"source": "notes.txt", "target": "docs"}, "docs/notes.txt"),
    "move a folder": (files.move_path, {"source": "docs", "target": "moved"}, "moved/intro.md"),
    "delete": (files.delete_path, {"path": "notes.txt"}, "notes.txt"),
    "delete a folder": (files.delete_path, {"path": "docs"}, "docs/intro.md"),
}


def state(ctx: ToolContext) -> dict[str, str]:
    root = ctx.workspace.root
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest, ctx: ToolContext) -> tuple[Tool, Any, str]:
    tool, args, path = CHANGES[request.param]
    return tool, tool.validate(args), path


def before(tool: Tool, ctx: ToolContext, args: Any) -> Any:
    assert tool.before is not None
    return tool.before(ctx, args)


def probe(tool: Tool, ctx: ToolContext, args: Any, seen: Any) -> ToolResult | None:
    assert tool.probe is not None
    return tool.probe(ctx, args, seen)


def test_after_a_crash_before_the_change_it_is_done(ctx: ToolContext, change: tuple[Tool, Any, str]) -> None:
    tool, args, _ = change
    seen = before(tool, ctx, args)
    assert probe(tool, ctx, args, seen) is None


def test_after_a_crash_behind_the_change_it_is_not_done_again(ctx: ToolContext, change: tuple[Tool, Any, str]) -> None:
    tool, args, _ = change
    seen = before(tool, ctx, args)
    done = tool.run(ctx, **args.model_dump())
    after = state(ctx)
    found = probe(tool, ctx, args, seen)
    assert found is not None
    assert isinstance(done, ToolResult)
    assert (found.ok, found.changed) == (True, done.changed)
    if tool is not files.edit_file:  # which lines changed can no longer be told
        assert found.text == done.text
    assert state(ctx) == after


def test_after_a_crash_what_someone_else_did_meanwhile_is_never_touched(
    ctx: ToolContext, change: tuple[Tool, Any, str]
) -> None:
    tool, args, path = change
    seen = before(tool, ctx, args)
    tool.run(ctx, **args.model_dump())
    theirs = ctx.workspace.root / path
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("theirs, and long enough to have another size")
    after = state(ctx)
    found = None
    with suppress(InDoubt):
        found = probe(tool, ctx, args, seen)
        assert found is not None, "would be done again"  # a moved folder is the same, whatever is in it now
    assert (found is None) is (tool is not files.move_path or path == "docs/notes.txt")
    assert state(ctx) == after


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_cannot_be_done_is_told_by_the_run_not_by_the_look_before(ctx: ToolContext, name: str) -> None:
    tool, args, _ = CHANGES[name]
    valid = tool.validate(args)
    for entry in list(ctx.workspace.root.iterdir()):
        entry.rename(ctx.workspace.root.parent / entry.name)
    (ctx.workspace.root / "new").write_text("in the way")
    seen = before(tool, ctx, valid)
    if name in ("overwrite", "append"):
        return  # these make the file
    with pytest.raises(AgentdError):
        tool.run(ctx, **args)
    assert probe(tool, ctx, valid, seen) is None


def test_an_open_deletion_leaves_a_new_file_of_that_name_alone(ctx: ToolContext) -> None:
    args = files.delete_path.validate({"path": "notes.txt"})
    seen = before(files.delete_path, ctx, args)
    call(files.delete_path, ctx, path="notes.txt")
    (ctx.workspace.root / "notes.txt").write_text("mine")
    with pytest.raises(InDoubt):
        probe(files.delete_path, ctx, args, seen)
    assert content(ctx, "notes.txt") == b"mine"


def test_an_edit_that_someone_undid_is_in_no_doubt(ctx: ToolContext) -> None:
    args = files.edit_file.validate({"path": "notes.txt", "search": "milk", "replace": "oats"})
    seen = before(files.edit_file, ctx, args)
    call(files.edit_file, ctx, path="notes.txt", search="milk", replace="oats")
    call(files.edit_file, ctx, path="notes.txt", search="oats", replace="milk")
    assert probe(files.edit_file, ctx, args, seen) is None


def test_a_folder_is_not_copied_with_what_may_not_be_read(ctx: ToolContext) -> None:
    guarded = altered(ctx, may_read=lambda path: path != "docs/usage.md")
    with pytest.raises(Denied, match="holds docs"):
        call(files.copy_path, guarded, source="docs", target="other")
    assert not (ctx.workspace.root / "other").exists()
    call(files.copy_path, ctx, source="docs", target="other")
