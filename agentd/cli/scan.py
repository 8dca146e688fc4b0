"""`scan`: keys, tokens and passwords that stand in files, by file and line, never by what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from agentd.cli import output
from agentd.cli.options import Invocation, command
from agentd.errors import AgentdError, BadInput, Denied, ToolFailed
from agentd.security.scan import scan as find
from agentd.workspace.paths import Workspace
from agentd.workspace.text import decode_file

FOUND = 3
"""Exit code."""
MAX_BYTES = 16 * 1024 * 1024
"""Of a file that is looked at."""
MOST_FILES = 1_000_000
NAMED = 10
"""Files that were not looked at."""


@command("scan")
@click.argument("path", metavar="[PATH]", default=".", type=click.Path())
def scan(invocation: Invocation, path: str) -> int:
    """Look for keys, tokens and passwords in a file, or in all files of a folder that git does not ignore.

    Prints file, line and kind of each, and ends with exit code 3 when there is one. What looks like an example is
    passed over, and so is what is no text. Nothing is sent anywhere, and no daemon is needed.
    """
    missed: list[str] = []
    findings = list(_findings(Path(path).absolute(), missed))
    if not invocation.quiet:
        for told in missed[:NAMED]:
            output.note(f"not looked at: {output.one_line(told)}")
        if len(missed) > NAMED:
            output.note(f"not looked at: {len(missed) - NAMED} more files")
    if invocation.json:
        output.data_json([{"path": name, "line": line, "kind": kind} for name, line, kind in findings])
    else:
        for name, line, kind in findings:
            output.data(f"{output.one_line(name)}:{line}: {kind}")
        if not invocation.quiet:
            output.note(f"{len(findings)} found" if findings else "nothing found")
    return FOUND if findings else 0


def _findings(path: Path, missed: list[str]) -> Iterator[tuple[str, int, str]]:
    """What is found; `missed` gets what could not be looked at, and why. `BadInput` when that is all that was named."""
    if not path.exists():
        raise BadInput(f"there is no {path}", hint="name a file or a folder")
    whole = path.is_dir()
    workspace = Workspace(path if whole else path.parent)
    for name in workspace.files(MOST_FILES) if whole else [path.name]:
        try:
            data = workspace.read_bytes(name, MAX_BYTES)
            text = _text(name, data) if whole else decode_file(name, data)[0]
        except (ToolFailed, Denied, OSError) as error:
            why = error.message if isinstance(error, AgentdError) else str(error)
            if not whole:
                raise BadInput(f"{path} cannot be looked at: {why}") from None
            missed.append(why if name in why else f"{name}: {why}")
            continue
        for finding in find(text):
            yield name, finding.line, finding.kind


def _text(name: str, data: bytes) -> str:
    """Nothing of a picture or a program."""
    try:
        return decode_file(name, data)[0]
    except ToolFailed:
        return ""
