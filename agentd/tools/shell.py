"""`run_command`: one program with its arguments, never a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from agentd.errors import InDoubt, ToolMisused
from agentd.sandbox.launch import Completed
from agentd.tools.git import find_commit, head_before
from agentd.tools.git_command import git_command
from agentd.tools.programs import PYTHON_TOOLS, PYTHONS, execute, must_end, refuse_outside
from agentd.tools.tool import CommandLine, ToolContext, tool
from agentd.types import Action, Effect, JsonObject, ToolResult

TIMEOUT = 300.0
"""Seconds."""
MAX_OUTPUT = 4_000_000
"""Bytes of stdout and of stderr."""
MAX_COMMAND = 20_000
"""Characters."""

_REPEATABLE = (
    *(("pytest",), ("npm", "test"), ("npm", "run", "lint"), *((name,) for name in PYTHON_TOOLS)),
    *(("git", name) for name in ("status", "diff", "log", "show", "blame", "branch", "ls-files", "rev-parse")),
)
"""Checkers and formatters: run again after a crash, they leave what one run would have left."""


def parse(command: str) -> list[str]:
    """The words of a command line. Nothing is expanded; `;`, `|`, `>`, `$x` and `*` are words like any other."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ToolMisused(f"command {command[:200]!r} cannot be read: {error}", hint="close every quote") from None
    if not argv or not argv[0]:
        raise ToolMisused("the command is empty", hint="name a program and its arguments")
    if "\0" in command or len(command) > MAX_COMMAND:
        raise ToolMisused(f"the command contains a NUL or has more than {MAX_COMMAND} characters")
    return argv


def _actions(args: Any) -> Sequence[Action]:
    return [Action(kind="shell.exec", argv=tuple(parse(args.command)))]


def _before(ctx: ToolContext, args: Any) -> JsonObject:
    return head_before(ctx, args) if _is_commit(parse(args.command)) else {}


def _probe(ctx: ToolContext, args: Any, before: JsonObject) -> ToolResult | None:
    """After a crash: a commit is looked for, what may be repeated is; for all else a person must say."""
    argv = parse(args.command)
    if _is_commit(argv):
        return find_commit(ctx, args, before)
    if _may_repeat(argv):
        return None
    raise InDoubt(
        f"the command {args.command!r} was started and its end was not recorded",
        hint="see whether it took effect, then retry or cancel the task",
    )


@tool(
    actions=_actions,
    effect=Effect.PROBEABLE,
    before=_before,
    probe=_probe,
    destructive=True,
    examples=(
        "Run {command}",
        "Run the command {command}",
        "Execute {command} and tell me what it prints",
        "What does {command} say?",
        "Does {command} succeed?",
        "Check the code with the linter :: command=ruff check .",
        "Check the types :: command=mypy .",
        "Format the code :: command=black .",
    ),
)
def run_command(ctx: ToolContext, command: CommandLine) -> ToolResult:
    """Run one program with arguments and give its output and exit code.

    No shell: pipes, redirections, variables and wildcards do not work. Which programs may run depends on the access
    level: linters, type checkers, test runners and git status, diff, log; commits and others at higher levels.
    """
    return run_line(ctx, command)


def run_line(ctx: ToolContext, command: str) -> ToolResult:
    """Run a command line; `data["code"]` is its exit code. For tools that policy has let through."""
    argv = parse(command)
    done = git_command(ctx, argv[1:]) if argv[0] == "git" else _execute(ctx, argv)
    must_end(done, argv[0], TIMEOUT)
    return ToolResult(ok=True, text=_text(command, done), data={"code": done.code, "seconds": round(done.seconds, 2)})


def _execute(ctx: ToolContext, argv: Sequence[str]) -> Completed:
    for argument in argv[1:]:
        refuse_outside(ctx, argument)
    return execute(ctx, argv, timeout=TIMEOUT, max_output=MAX_OUTPUT)


def _text(command: str, done: Completed) -> str:
    output = "\n".join(filter(None, (done.stdout.rstrip(), done.stderr.rstrip())))
    ended = "succeeded (exit code 0)" if done.code == 0 else f"failed with exit code {done.code}"
    return f"`{command}` {ended}" + (f":\n{output}" if output else " and printed nothing.")


def _is_commit(argv: Sequence[str]) -> bool:
    return list(argv[:2]) == ["git", "commit"]


def _may_repeat(argv: Sequence[str]) -> bool:
    words = tuple(argv[2:] if argv[0] in PYTHONS and argv[1:2] == ["-m"] else argv)
    return any(words[: len(known)] == known for known in _REPEATABLE)
