"""Checks: what decides whether work is done. Run by the critic for owner and plan, never offered to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from agentd.tools.programs import execute, must_end
from agentd.tools.shell import parse, run_command, run_line
from agentd.tools.tool import CommandLine, NewPath, Text, Tool, ToolContext, tool
from agentd.types import Action, Effect, ToolResult
from agentd.workspace.text import decode

TIMEOUT = 600.0
"""Seconds."""
MAX_BYTES = 16 * 1024 * 1024
"""Of a file whose text is looked at."""


def _owner(args: Any) -> Sequence[Action]:
    return [Action(kind="check.exec", argv=tuple(parse(args.command)))]


def _planned(args: Any) -> Sequence[Action]:
    return run_command.actions(args)


def _file(args: Any) -> Sequence[Action]:
    return [Action(kind="fs.read", target=args.path)]


@tool(actions=_owner, effect=Effect.IDEMPOTENT)
def check_command(ctx: ToolContext, command: CommandLine) -> ToolResult:
    """Run a command that the owner of the task gave as a check; passed when it exits with 0."""
    argv = parse(command)
    done = execute(ctx, argv, timeout=TIMEOUT, local=True)
    must_end(done, argv[0], TIMEOUT)
    output = "\n".join(filter(None, (done.stdout.rstrip(), done.stderr.rstrip())))
    return ToolResult(
        ok=True,
        text=f"`{command}` exited with {done.code}\n{output}".rstrip(),
        data={"passed": done.code == 0, "code": done.code},
    )


@tool(actions=_planned, effect=Effect.IDEMPOTENT)
def check_planned_command(ctx: ToolContext, command: CommandLine) -> ToolResult:
    """Run a command that a plan gave as a check, under the same policy as any command of the agent."""
    result = run_line(ctx, command)
    return ToolResult(
        ok=result.ok, text=result.text, data={"passed": result.data["code"] == 0, "code": result.data["code"]}
    )


@tool(actions=_file, effect=Effect.PURE, read_only=True)
def check_file(
    ctx: ToolContext, path: NewPath, fact: Literal["exists", "absent", "contains"], text: Text = ""
) -> ToolResult:
    """Look whether a file exists, is absent, or contains a text."""
    there = ctx.workspace.resolve(path).exists()
    if fact == "contains":
        passed = there and text in decode(ctx.workspace.read_bytes(path, MAX_BYTES))[0]
        said = f"{path} {'contains' if passed else 'lacks' if there else 'does not exist, so lacks'} {text!r}"
    else:
        passed = there == (fact == "exists")
        said = f"{path} {'exists' if there else 'does not exist'}"
    return ToolResult(ok=True, text=said, data={"passed": passed})


def checks() -> dict[str, Tool]:
    return {each.name: each for each in (check_command, check_planned_command, check_file)}
