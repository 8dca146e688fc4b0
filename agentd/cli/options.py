"""The options that every command takes, before or after its name, and what they were set to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import click


class Invocation:
    """What the global options of this call say."""

    # No dataclass: to import that module and to make one takes more time than all else in here, and help must be quick.
    def __init__(self, *, home: str | None = None, host: str | None = None) -> None:
        self.home = home
        self.host = host
        self.json = False
        self.quiet = False
        self.verbose = False
        self.yes = False
        self.no_input = False


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Set only what was given, so that an option before the command is not undone by its absence after it."""
    if value and param.name is not None:
        setattr(ctx.ensure_object(Invocation), param.name.replace("-", "_"), value)


@cache
def global_options(*, hidden: bool) -> list[click.Option]:
    """The options, for the help of `agentd` itself or, `hidden`, for that of its commands."""

    def option(*names: str, help: str, hidden: bool = hidden, **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, is_eager=True, callback=_keep, help=help, hidden=hidden, **more)

    folder = click.Path(file_okay=False)
    return [
        option("--home", metavar="DIR", type=folder, help="The home to use (else AGENTD_HOME, else the usual one)."),
        option(
            "--host", metavar="URL", help="Talk to the daemon at this http:// or unix:// address (else AGENTD_HOST)."
        ),
        option("--json", is_flag=True, hidden=False, help="Print JSON; errors too, on stderr."),
        option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors."),
        option("-v", "--verbose", is_flag=True, help="Say more on stderr."),
        option("-y", "--yes", is_flag=True, help="Answer yes to questions; never overrules a policy's deny."),
        option("--no-input", is_flag=True, help="Ask nothing, also on a terminal."),
    ]


class Seconds(click.FloatRange):
    """A time from `least` on. Nothing is ever later than `nan`."""

    def __init__(self, least: float | None = None) -> None:
        super().__init__(least or 0, min_open=least is None)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not seconds < float("inf"):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


class Command(click.Command):
    """A command that takes the global options too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *global_options(hidden=True)]


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *global_options(hidden=True)]


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a `Command` of a function that takes an `Invocation` first and returns its exit code, or None for 0."""

    def decorate(function: Callable[..., Any]) -> Command:
        takes_invocation = click.make_pass_decorator(Invocation, ensure=True)
        made = click.command(name, cls=Command, **settings)(takes_invocation(function))
        assert isinstance(made, Command)
        return made

    return decorate
