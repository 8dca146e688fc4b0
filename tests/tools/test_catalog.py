"""What every built-in tool must have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentd.clock import SystemClock
from agentd.errors import NotFound, ToolFailed
from agentd.store.db import Database
from agentd.store.outputs import Outputs
from agentd.tools.catalog import builtin
from agentd.tools.outputs import read_output_tool
from agentd.tools.tool import ToolContext
from agentd.types import Effect, Grounding, ToolResult
from agentd.workspace.paths import Workspace

TOOLS = builtin()


def test_all_tools_are_there() -> None:
    assert sorted(TOOLS) == [
        *("apply_patch", "copy_path", "delete_path", "edit_file", "file_info", "find_files", "git_commit"),
        *("git_diff", "git_log"),
        *("git_status", "list_dir", "move_path", "read_file", "run_command", "run_tests", "search_text", "write_file"),
    ]


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_each_is_described_with_examples_that_fit_its_parameters(name: str) -> None:
    tool = TOOLS[name]
    fields = tool.arguments.model_fields
    assert tool.description.endswith(".")
    assert 4 <= len(tool.examples) <= 12
    for example in tool.examples:
        text, _, fixed = example.partition(" :: ")
        assert set(re.findall(r"\{(\w+)\}", text)) <= set(fields)
        assert not fixed or fixed.partition("=")[0] in fields
    for field in tool.schema["properties"].values():
        assert "description" in field or "enum" in field, f"{name}: a parameter without a description"
        grounding = field.get("x-grounding")
        assert grounding is None or grounding in list(Grounding)


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_effects_say_what_recovery_needs(name: str) -> None:
    tool = TOOLS[name]
    assert not tool.annotations.read_only or tool.effect is Effect.PURE
    assert tool.effect is not Effect.PROBEABLE or (tool.before and tool.probe)


def test_read_output_shows_lines_and_says_where_they_stand(tmp_path: Path) -> None:
    clock = SystemClock()
    database = Database(tmp_path / "agentd.db", clock=clock)
    outputs = Outputs(database, clock)
    handle = outputs.put("task-1", "\n".join(f"line {number}" for number in range(1, 501)))
    tool = read_output_tool(outputs)
    ctx = ToolContext(workspace=Workspace(tmp_path), key="k", task="task-1")
    told = tool.run(ctx, handle=handle, start=100, lines=2)
    assert isinstance(told, ToolResult)
    assert told.text == f"Lines 100 to 101 of 500 of {handle}:\nline 100\nline 101"
    with pytest.raises(ToolFailed, match="has 500 lines"):
        tool.run(ctx, handle=handle, start=501, lines=2)
    with pytest.raises(NotFound):
        tool.run(ctx, handle="out-999", start=1, lines=2)
    database.close()
