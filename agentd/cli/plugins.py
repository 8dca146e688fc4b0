"""`plugin`: tools that were added to this home: which there are, how they do, and what a person decides of them."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from agentd.cli import output
from agentd.cli.client import Client, endpoint
from agentd.cli.options import Group, Invocation, command
from agentd.cli.reach import ensure_daemon
from agentd.cli.run import level_option, request_of, see_through, workspace_option
from agentd.errors import BadInput, Conflict

_REFUSED = 5
_FAILED = 1
_PATIENCE = 3600.0
"""Seconds for a proof, or for a sandbox that has to be built first."""

group = Group("plugin", help="Plugins: tools that the agent or you added, proven, signed, and run in a sandbox.")
_VERSION = click.argument("version", type=click.IntRange(min=1), required=False)


@command("try")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=False))
@click.option("--entry", metavar="NAME", default="", help="The function to call (run, main, or the last public one).")
@click.option("--args", metavar="JSON", default="{}", help="Its arguments, as a JSON object.")
@click.option("--executor", type=click.Choice(["os", "wasm"]), default=None, help="What holds it (sandbox.executor).")
def try_file(invocation: Invocation, file: Path, entry: str, args: str, executor: str | None) -> int:
    """Put one source file through the static gate and call it once in the sandbox; nothing is registered.

    Exit code 0 for a result, 1 when the code raised an error, 5 when the gate or the sandbox refused it.
    """
    body = {"source": _source(file), "entry": entry, "args": _arguments(args), "executor": executor or ""}
    client = ensure_daemon(invocation)
    _announce(client, executor or "")
    found = client.post("/api/plugins/try", body, timeout=_PATIENCE)
    if invocation.json:
        output.data_json(found)
    else:
        _show(found)
    if found["check"]["violations"] or found["limit"]:
        return _REFUSED
    return _FAILED if found["error"] is not None else 0


def _announce(client: Client, executor: str = "") -> None:
    """What is built once takes longer than anybody expects."""
    if not client.get("/api/plugins/sandbox", executor=executor)["ready"]:
        output.note("The sandbox of WebAssembly is built, once; that takes about a minute.")


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


@command("ls")
@click.option("--all", "-a", "everything", is_flag=True, help="Every version, not only those that are called.")
def ls(invocation: Invocation, everything: bool) -> None:
    """List the plugins and the skills."""
    found = Client(endpoint(invocation)).get("/api/plugins")
    if invocation.json:
        output.data_json(found)
        return
    shown = [plugin for plugin in found["plugins"] if everything or plugin["active"]]
    output.data(output.table([_row(plugin) for plugin in shown], ("PLUGIN", "STATE", "OK", "FAILED", "WHAT IT DOES")))
    hidden = len(found["plugins"]) - len(shown)
    if hidden and not invocation.quiet:
        output.note(f"{hidden} more are not in use; -a lists them")
    if found["skills"]:
        rows = [(skill["name"], skill["problem"] or skill["description"]) for skill in found["skills"]]
        output.data(output.table(rows, ("SKILL", "WHAT IT DESCRIBES")))


def _row(plugin: dict[str, Any]) -> tuple[object, ...]:
    name = f"{plugin['name']} {plugin['version']}{' *' if plugin['active'] else ''}"
    return name, plugin["state"], plugin["successes"], plugin["failures"], plugin["purpose"]


@command("show")
@click.argument("name")
@_VERSION
def show(invocation: Invocation, name: str, version: int | None) -> None:
    """One plugin: what it is for, how it came to be, how it does, and its code."""
    query = {} if version is None else {"version": version}
    found = Client(endpoint(invocation)).get(_at(name), **query)
    if invocation.json:
        output.data_json(found)
        return
    spec, evidence = found["spec"], found["evidence"]
    allowed = {kind: globs for kind, globs in spec["permissions"].items() if globs}
    lines = [
        output.paint(f"{found['name']} {found['version']}", "bold"),
        spec["purpose"],
        "",
        f"state        {found['state']}: {found['reason']}",
        f"may          {', '.join(f'{kind} {glob}' for kind, globs in allowed.items() for glob in globs) or 'nothing'}",
        f"by           {evidence['author']} {evidence['model']}".rstrip(),
        f"proven on    {found['proven_on']}",
        *(
            f"called by    {each['model'] or 'a person'}: {each['successes']} ok, {each['failures']} failed"
            for each in found["models"]
        ),
        f"versions     {', '.join(_named(each) for each in found['versions'])}",
        "",
        found["problem"] or found["code"],
    ]
    output.data(output.harmless("\n".join(lines)) if sys.stdout.isatty() else "\n".join(lines))


def _named(plugin: dict[str, Any]) -> str:
    return f"{plugin['version']} {plugin['state']}{' *' if plugin['active'] else ''}"


@command("test")
@click.argument("name")
@_VERSION
def test(invocation: Invocation, name: str, version: int | None) -> int:
    """Take a plugin through the gate again; one that does not pass is quarantined (exit code 1)."""
    client = ensure_daemon(invocation)
    _announce(client)
    found = client.post(f"{_at(name)}/test", {"version": version}, timeout=_PATIENCE)
    words = f"{name} {found['version']} passes" if found["ok"] else f"{name} {found['version']}: {found['problem']}"
    output.done(invocation, found, output.harmless(words))
    return 0 if found["ok"] else _FAILED


@command("trust")
@click.argument("name")
@_VERSION
def trust(invocation: Invocation, name: str, version: int | None) -> None:
    """Vouch for a plugin: it is trusted, and its record begins anew."""
    _decide(invocation, name, "trust", version)


@command("demote")
@click.argument("name")
@_VERSION
def demote(invocation: Invocation, name: str, version: int | None) -> None:
    """Take a plugin out of use; an older version that works takes its place."""
    _decide(invocation, name, "demote", version)


@command("rollback")
@click.argument("name")
@_VERSION
def rollback(invocation: Invocation, name: str, version: int | None) -> None:
    """Call an older version from now on: VERSION, or the one before."""
    _decide(invocation, name, "rollback", version)


def _decide(invocation: Invocation, name: str, what: str, version: int | None) -> None:
    found = Client(endpoint(invocation)).post(f"{_at(name)}/{what}", {"version": version})
    output.done(invocation, found, f"{name} {found['version']} is {found['state']}")


@command("rm")
@click.argument("name")
@_VERSION
def rm(invocation: Invocation, name: str, version: int | None) -> None:
    """Take a plugin away, with its files; one version when it is named."""
    query = {} if version is None else {"version": version}
    found = Client(endpoint(invocation)).delete(_at(name), **query)
    output.done(invocation, found, f"removed {', '.join(found['removed'])}")


@command("verify")
def verify(invocation: Invocation) -> int:
    """Look whether every plugin is what was signed; exit code 1 when one is not, which is then quarantined."""
    found = Client(endpoint(invocation)).post("/api/plugins/verify")
    if invocation.json:
        output.data_json(found)
    else:
        for fault in found["faults"]:
            output.data(output.harmless(f"{fault['plugin']}: {fault['problem']}"))
        if not invocation.quiet:
            output.note(f"{found['checked']} looked at, {len(found['faults'])} not as they should be")
    return _FAILED if found["faults"] else 0


@command("health")
def health(invocation: Invocation) -> None:
    """What the plugins are worth together: used again, saying the same, become worse, dead."""
    found = Client(endpoint(invocation)).get("/api/plugins/health")
    if invocation.json:
        output.data_json(found)
        return
    pairs = [" and ".join(pair) for pair in found["redundant"]]
    rows = [
        ("in use", found["plugins"]),
        ("called more than once", f"{found['reuse_rate']:.0%}"),
        ("nearly the same", ", ".join(pairs) or "none"),
        ("became worse", ", ".join(found["regressions"]) or "none"),
        ("not called for a month", ", ".join(found["dead"]) or "none"),
    ]
    output.data("\n".join(f"{label:<24}{value}" for label, value in rows))


@command("init")
@click.argument("name")
def init(invocation: Invocation, name: str) -> None:
    """Make a folder NAME with a plugin that works, to be changed; `plugin new --from NAME` installs it."""
    from agentd.plugins.skeleton import skeleton  # pydantic with it; other commands do without

    if not re.fullmatch(r"[a-z][a-z0-9_]{2,39}", name):
        raise BadInput(f"{name[:60]!r} is no name of a plugin", hint="small letters, digits and _, from 3 to 40")
    folder = Path(name)
    try:
        folder.mkdir()
        for file, text in skeleton(name).items():
            (folder / file).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise Conflict(f"{folder} is there already", hint="take another name, or another folder") from None
    output.done(invocation, {"made": str(folder)}, f"made {folder}; `agentd plugin new --from {folder}` installs it")


@command("new")
@click.argument("goal", nargs=-1)
@click.option(
    "--from",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with plugin.py, test_plugin.py, GUIDE.md and manifest.json, in place of GOAL.",
)
@workspace_option
@level_option
def new(invocation: Invocation, goal: tuple[str, ...], folder: Path | None, workspace: str, level: int | None) -> int:
    """Let the agent make a tool for GOAL, or take one that you wrote through the same gate.

    GOAL is what the tool is to do, in words; files that it names are what the tool is tried on. Exit code 5 when a
    plugin of your own does not pass.
    """
    if bool(goal) is (folder is not None):
        raise BadInput("plugin new takes either a GOAL or --from DIR", hint='agentd plugin new "Turn a.csv into JSON"')
    if folder is None:
        return see_through(invocation, request_of(goal, workspace, level) | {"tool": True})
    _add(invocation, folder)
    return 0


def _add(invocation: Invocation, folder: Path) -> None:
    files = {name: _text_of(folder / name) for name in ("plugin.py", "test_plugin.py", "GUIDE.md")}
    try:
        spec = json.loads(_text_of(folder / "manifest.json"))["spec"]
    except (ValueError, KeyError, TypeError, RecursionError):
        wrong = f"{folder}/manifest.json is no JSON object with a spec"
        raise BadInput(wrong, hint="agentd plugin init NAME shows one") from None
    client = ensure_daemon(invocation)
    _announce(client)
    made = client.post("/api/plugins", {"spec": spec, "files": files}, timeout=_PATIENCE)
    output.done(invocation, made, f"installed {made['name']} {made['version']}, {made['state']}")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} cannot be read: {error}", hint="agentd plugin init NAME shows the files") from None


def _at(name: str) -> str:
    return f"/api/plugins/{quote(name, safe='')}"


for each in (ls, show, init, new, try_file, test, trust, demote, rollback, rm, verify, health):
    group.add_command(each)
