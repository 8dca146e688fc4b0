"""What the reference says of the command line is there, and all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from agentd.cli.main import cli

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from commands(found, f"{name} {each}".strip())
    else:
        yield name, command


def test_every_command_and_option_stands_in_the_reference() -> None:
    text = "".join(
        (REFERENCE / f"{page}.md").read_text(encoding="utf-8") for page in ("command-line", "models", "evals")
    )
    words = set(re.findall(r"(?<![\w-])-{0,2}[a-z0-9][a-z0-9-]*", text))
    for name, command in commands(cli):
        assert set(name.split()) <= words, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert words & set(option.opts), f"{name} {'/'.join(option.opts)}"
