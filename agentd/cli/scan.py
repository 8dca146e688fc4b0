"""`scan`: keys, tokens and passwords that stand in files, by file and line, never by what they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from agentd.cli import output
from agentd.cli.options import Invocation, command
from agentd.errors import BadInput, Denied, ToolFailed
from agentd.security.scan import scan as find
from agentd.workspace.paths import Workspace
from agentd.workspace.text import decode_file

FOUND = 3
"""Exit code."""
MAX_BYTES = 16 * 1024 * 1024
"""Of a file that is looked at."""


@command("scan")
@click.argument("path", metavar="[PATH]", default=".", type=click.Path())
def scan(invocation: Invocation, path: str) -> int:
    """Look for keys, tokens and passwords in a file, or in all files of a folder that git does not ignore.

    Prints file, line and kind of each, and ends with exit code 3 when there is one. What looks like an example is
    passed over. Nothing is sent anywhere, and no daemon is needed.
    """
    findings = list(_findings(Path(path).absolute()))
    if invocation.json:
        output.data_json([{"path": name, "line": line, "kind": kind} for name, line, kind in findings])
    else:
        for name, line, kind in findings:
            output.data(f"{output.one_line(name)}:{line}: {kind}")
        if not invocation.quiet:
            output.note(f"{len(findings)} found" if findings else "nothing found")
    return FOUND if findings else 0


def _findings(path: Path) -> Iterator[tuple[str, int, str]]:
    if not path.exists():
        raise BadInput(f"there is no {path}", hint="name a file or a folder")
    workspace = Workspace(path if path.is_dir() else path.parent)
    for name in workspace.files() if path.is_dir() else [path.name]:
        try:
            text, _ = decode_file(name, workspace.read_bytes(name, MAX_BYTES))
        except (ToolFailed, Denied, OSError):
            continue  # no text, too large, or not to be read
        for finding in find(text):
            yield name, finding.line, finding.kind
