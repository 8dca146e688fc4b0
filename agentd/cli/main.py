"""The command `agentd`: a table of commands, each imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from agentd import __version__
from agentd.cli.options import Group, Invocation, global_options
from agentd.errors import AgentdError, BadInput

# Help must be quick (under 100 ms with the start of Python), so it is made from this table alone.
_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Work": {
        "run": ("agentd.cli.run:run", "Do a task and follow it to its end."),
        "submit": ("agentd.cli.run:submit", "Queue a task and print its id."),
        "ps": ("agentd.cli.tasks:ps", "List tasks that have not ended; -a lists all."),
        "show": ("agentd.cli.tasks:show", "One task: plan, steps, evidence, checks, report."),
        "logs": ("agentd.cli.tasks:logs", "What happened, event by event; -f follows."),
        "wait": ("agentd.cli.tasks:wait", "Wait until tasks have ended."),
        "cancel": ("agentd.cli.tasks:cancel", "Stop tasks."),
        "retry": ("agentd.cli.tasks:retry", "Try tasks again that have ended."),
        "inbox": ("agentd.cli.inbox:inbox", "What waits for you: requests and questions."),
        "approve": ("agentd.cli.inbox:approve", "Say yes to what a task waits for; it goes on."),
        "reject": ("agentd.cli.inbox:reject", "Say no to it, and why."),
        "answer": ("agentd.cli.inbox:answer", "Answer what a task asks."),
        "council": ("agentd.cli.council:group", "Ask the council of roles: opinions and a verdict."),
        "diff": ("agentd.cli.undo:diff", "What a task changed in files."),
        "undo": ("agentd.cli.undo:undo", "Take back what a task did to files."),
        "apply": ("agentd.cli.run:apply", "Make the changes that a dry run or a shadow has shown."),
        "report": ("agentd.cli.report:report", "What was done lately: verified and claimed apart."),
        "eval": ("agentd.cli.evals:evaluate", "Run a suite of tasks and print the table."),
    },
    "Daemon": {
        "up": ("agentd.cli.process:up", "Start the daemon in the background."),
        "down": ("agentd.cli.process:down", "Stop the daemon."),
        "status": ("agentd.cli.status:status", "What the daemon is doing."),
        "serve": ("agentd.cli.process:serve", "Run the daemon in the foreground."),
        "url": ("agentd.cli.status:url", "Where the daemon listens."),
        "token": ("agentd.cli.token:token", "The token for its TCP port."),
        "key": ("agentd.cli.keys:group", "Keys for programs that use the TCP port."),
        "backup": ("agentd.cli.status:backup", "Copy the database while the daemon runs."),
    },
    "Parts": {
        "tool": ("agentd.cli.tools:group", "The tools: list, show, call."),
        "plugin": ("agentd.cli.plugins:group", "Plugins: list, try, add, judge them."),
        "model": ("agentd.cli.models:group", "The models: list, show, pull, load, measure, remove."),
        "cache": ("agentd.cli.cache:group", "Kept replies of models: list, show, forget."),
        "policy": ("agentd.cli.policy:group", "The rules: show, check a command, explain a task's decisions."),
        "audit": ("agentd.cli.audit:group", "The audit log: read it, verify it."),
        "scan": ("agentd.cli.scan:scan", "Keys and passwords in files, by file and line."),
    },
    "Set-up": {
        "setup": ("agentd.cli.setup_servers:setup", "Find model servers on this machine and use them."),
        "backend": ("agentd.cli.backends:group", "Servers of models: add, list, test, remove."),
        "secret": ("agentd.cli.secrets:group", "Keys for those servers: set, list, remove."),
        "doctor": ("agentd.cli.doctor:doctor", "Look for what is missing or wrong on this machine."),
        "init": ("agentd.cli.settings:init", "Make a folder a home."),
        "config": ("agentd.cli.settings:group", "The settings: get, set, path, validate."),
    },
}
_INTERRUPTED = 130
_COMMANDS = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}


class LazyGroup(Group):
    """Knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return click.Group.get_params(self, ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry[1]) for name, entry in commands.items()])


def _width() -> int:
    """Columns for help. Click would import shutil to find out, which takes 4 ms."""
    try:
        columns = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns
    except (OSError, ValueError):
        columns = 80
    return max(40, min(columns, 100)) - 2


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"agentd {__version__}")
        ctx.exit()


cli = LazyGroup(
    "agentd",
    params=[
        *global_options(hidden=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "terminal_width": _width()},
    help="An agent for this machine: it plans, acts through a gate, checks, and reports.",
    epilog='Start with: agentd run "How many lines are in README.md?"',
)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; ends the process with the exit code."""
    sys.exit(call(list(sys.argv[1:] if args is None else args)))


def call(args: list[str]) -> int:
    """Run the command line and return its exit code."""
    invocation = Invocation()
    try:
        returned = cli.main(args, prog_name="agentd", standalone_mode=False, obj=invocation)
        return returned if isinstance(returned, int) else 0
    except click.UsageError as error:
        return _usage(error, as_json=invocation.json or "--json" in args)
    except click.ClickException as error:
        return _fail(BadInput(error.format_message()), as_json=invocation.json)
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except AgentdError as error:
        return _fail(error, as_json=invocation.json)
    except Exception as error:
        if invocation.verbose:
            sys.excepthook(type(error), error, error.__traceback__)
        unexpected = AgentdError(
            f"unexpected: {type(error).__name__}: {error}", hint="run it again with -v to see where"
        )
        return _fail(unexpected, as_json=invocation.json)


def _fail(error: AgentdError, *, as_json: bool) -> int:
    from agentd.cli import output  # only now: what it imports takes a tenth of the time that help may take

    return output.fail(error, as_json=as_json)


def _usage(error: click.UsageError, *, as_json: bool) -> int:
    """Say how a command was called wrongly."""
    path = error.ctx.command_path if error.ctx else "agentd"
    wrong = AgentdError(error.format_message(), hint=f"{path} --help")
    wrong.code = "usage"
    return _fail(wrong, as_json=as_json)
