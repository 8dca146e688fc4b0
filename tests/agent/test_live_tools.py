"""Tools that come and go while a task runs, and what a replay of it makes of that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentd.agent.narrow import Narrow
from agentd.errors import Stopping
from agentd.tools.catalog import builtin
from agentd.tools.tool import Tool, ToolContext, tool
from agentd.types import Action, Effect, TaskState, ToolResult
from tests.agent.conftest import DONE, Agent, Words, one_step

READING = '{"path": "notes.txt"}'


def shouting(name: str = "shout") -> Tool:
    @tool(actions=lambda args: [Action(kind="plugin.call", target=name)], effect=Effect.PURE, examples=("Shout loud",))
    def shout(ctx: ToolContext) -> ToolResult:
        """Shout it loud."""
        return ToolResult(ok=True, text=f"LOUD for {ctx.model}")

    return replace(shout, name=name)


def test_a_tool_that_came_meanwhile_is_offered_at_the_next_turn(agent: Agent) -> None:
    (agent.folder / "notes.txt").write_text("milk\n")
    box = agent.app.tools

    class Bringing(Words):
        def chat(self, request, on_delta=None, cancel=None):
            if len(self.asked) == 2:
                box.put({"shout": shouting()})
            return super().chat(request, on_delta, cancel)

    words = Bringing(one_step("Shout it loud"), "read_file", READING, "shout", "answer", "LOUD for words", DONE)
    report = agent.run(words, "Shout it loud: notes.txt")
    assert (report.state, report.answer) == (TaskState.CLAIMED, "LOUD for words"), report
    assert "shout" not in words.asked[1].choices
    assert "shout" in words.asked[3].choices


class CutOff(Words):
    """Says its words until the daemon goes down."""

    def chat(self, request, on_delta=None, cancel=None):
        if not self.left:
            raise Stopping("the daemon stops")
        return super().chat(request, on_delta, cancel)


def test_a_replay_chooses_from_what_was_there_before_the_crash(agent: Agent) -> None:
    (agent.folder / "notes.txt").write_text("milk\n")
    with pytest.raises(Stopping):
        agent.run(CutOff(one_step("Read notes.txt"), "read_file", READING), "Read notes.txt")
    # So many new tools fit the words better that the one which was chosen would be shown no more.
    new = {
        name: replace(shouting(name), description="Read notes.txt") for name in map("read_notes_{}".format, range(9))
    }
    agent.app.tools.put(new)
    agent.app.queue.release(agent.task, "stopped")
    report = agent.go_on(Words("answer", "milk", DONE))
    assert (report.state, report.answer) == (TaskState.CLAIMED, "milk"), report


def test_a_replay_without_a_tool_that_was_there_ends_and_says_so(agent: Agent) -> None:
    agent.app.tools.put({"shout": shouting()})
    with pytest.raises(Stopping):
        agent.run(CutOff(one_step("Shout it loud"), "shout"), "Shout it loud")
    agent.app.tools.put({})
    agent.app.queue.release(agent.task, "stopped")
    report = agent.go_on(Words())
    assert (report.state, "shout went away" in report.reason) == (TaskState.IMPOSSIBLE, True), report


def test_what_is_likely_follows_the_tools(agent: Agent) -> None:
    narrow, tools = Narrow(), tuple(builtin().values())
    assert "shout" not in [tool.name for tool in narrow.best("shout it loud", 5, tools)]
    assert narrow.best("shout it loud", 5, (*tools, shouting()))[0].name == "shout"
