"""`plugin`: tools that come as plugins."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import click

from agentd.cli import output
from agentd.cli.options import Group, Invocation, command
from agentd.cli.reach import ensure_daemon
from agentd.errors import BadInput

_REFUSED = 5
_FAILED = 1

group = Group("plugin", help="Plugins: tools in a sandbox.")


@command("try")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=False))
@click.option("--entry", metavar="NAME", default="", help="The function to call (run, main, or the last public one).")
@click.option("--args", metavar="JSON", default="{}", help="Its arguments, as a JSON object.")
@click.option("--executor", type=click.Choice(["os", "wasm"]), default="os", help="What holds it (os).")
def try_file(invocation: Invocation, file: Path, entry: str, args: str, executor: str) -> int:
    """Put one source file through the static gate and call it once in the sandbox; nothing is registered.

    Exit code 0 for a result, 1 when the code raised an error, 5 when the gate or the sandbox refused it.
    """
    body = {"source": _source(file), "entry": entry, "args": _arguments(args), "executor": executor}
    found = ensure_daemon(invocation).post("/api/plugins/try", body)
    if invocation.json:
        output.data_json(found)
    else:
        _show(found)
    if found["check"]["violations"] or found["limit"]:
        return _REFUSED
    return _FAILED if found["error"] is not None else 0


def _source(file: Path) -> str:
    try:
        return base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"--args {text[:100]!r} is no JSON: {error}", hint='such as --args \'{"path": "a.txt"}\''
        ) from None
    if not isinstance(found, dict):
        raise BadInput(f"--args {text[:100]!r} is no JSON object", hint='such as --args \'{"path": "a.txt"}\'')
    return found


def _show(found: dict[str, Any]) -> None:
    for each in found["check"]["violations"]:
        hint = f" ({each['hint']})" if each["hint"] else ""
        output.data(output.harmless(f"line {each['line']}: {each['rule']}: {each['message']}{hint}"))
    if not found["check"]["ok"]:
        return
    if found["error"] is not None:
        why = f" [{found['limit']}]" if found["limit"] else ""
        output.data(output.harmless(f"{found['error']}{why}"))
    else:
        output.data(output.harmless(json.dumps(found["result"], ensure_ascii=False, indent=2)))
    output.note(f"{found['seconds'] * 1000:.1f} ms in {found['level']}")


group.add_command(try_file)
