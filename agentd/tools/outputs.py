"""`read_output`: the rest of an output that was shown cut."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agentd.errors import ToolFailed
from agentd.store.outputs import Outputs
from agentd.tools.tool import Text, Tool, ToolContext, tool
from agentd.types import Action, Effect, ToolResult


def read_output_tool(outputs: Outputs) -> Tool:
    """The tool over these outputs."""

    @tool(
        actions=lambda a: [Action(kind="output.read", target=a.handle)],
        effect=Effect.PURE,
        read_only=True,
        examples=(
            "Show the rest of {handle}",
            "Read {handle} from line {start}",
            "Continue reading the output {handle}",
            "What else does {handle} say?",
            "Show {lines} more lines of {handle}",
        ),
    )
    def read_output(
        ctx: ToolContext,
        handle: Annotated[Text, Field(max_length=100, description="name of the output, as the cut text gave it")],
        start: Annotated[int, Field(ge=1, description="first line, from 1")] = 1,
        lines: Annotated[int, Field(ge=1, le=2000, description="how many lines")] = 200,
    ) -> ToolResult:
        """Read more of an output that was too long to be shown whole.

        A cut output ends with its handle, such as out-12; give it here with the line to start from.
        """
        found = outputs.get(handle.strip(), ctx.task).splitlines()
        part = found[start - 1 : start - 1 + lines]
        if not part:
            raise ToolFailed(f"{handle} has {len(found)} lines, none from {start} on", hint="start earlier")
        head = f"Lines {start} to {start + len(part) - 1} of {len(found)} of {handle}:"
        data = {"handle": handle, "start": start, "lines": len(part), "total": len(found)}
        return ToolResult(ok=True, text="\n".join([head, *part]), data=data)

    return read_output
