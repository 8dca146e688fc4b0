"""`setup`: what this machine has for models, and the model servers that run on it already."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

import click

from agentd.backends import fit, gguf_file
from agentd.backends.catalog import Catalog, ModelEntry
from agentd.backends.catalog_edit import CatalogFile
from agentd.backends.devices import Devices, here
from agentd.backends.discovery import KINDS, Found, look_around
from agentd.cli import output
from agentd.cli.client import home_of
from agentd.cli.options import Invocation, command
from agentd.errors import AgentdError
from agentd.home import Home, defaults_dir
from agentd.policy.hosts import is_loopback

_SHOWN = 6


@command("setup")
@click.option(
    "--port", "ports", multiple=True, type=click.IntRange(1, 65535), help="Look at this port, not at the usual ones."
)
def setup(invocation: Invocation, ports: tuple[int, ...]) -> None:
    """Look for model servers on this machine and offer to use them; show what fits into its memory.

    On a terminal it asks; --yes adds all, --no-input prints the commands that would.
    """
    home = home_of(invocation)
    catalog = Catalog.load(home.models_dir, defaults_dir() / "models")
    devices = here()
    fits = [_fit(entry, devices) for entry in catalog.models.values() if entry.backend == "llama_cpp"]
    found = [each for each in look_around(ports or tuple(KINDS)) if each.port != _own_port(home)]
    known = {each.port: name for each in found if (name := _name_of(catalog, each.port))}
    news = [(each, name) for each, name in _named(found, catalog) if each.port not in known]
    if not invocation.json:
        output.data(output.harmless("\n".join([*_machine(devices), *_local(fits), *_servers(found, known)])))
    added = [name for each, name in news if _wanted(invocation, each, name) and _add(home, each, name)]
    if invocation.json:
        servers = [_server_json(each, known.get(each.port), dict(news).get(each), added) for each in found]
        output.data_json({"machine": _machine_json(devices), "models": fits, "servers": servers})
        return
    _say_next(invocation, news, added)


def _say_next(invocation: Invocation, news: list[tuple[Found, str]], added: Collection[str]) -> None:
    if invocation.quiet:
        return
    for each, name in news:
        if name in added:
            output.note(f"added {name}; see what it can do: agentd backend test {name}")
            if each.models:
                command = _command(each, name, role=True)
                output.note(f"let a role use it: {command} --replace")
        else:
            output.note(f"to add it: {_command(each, name)}")


def _machine(devices: Devices) -> Iterator[str]:
    cards = ", ".join(f"{gpu.name} {_gb(gpu.total)} ({_gb(gpu.free)} free)" for gpu in devices.gpus) or "none in use"
    cores = "1 core" if devices.cores == 1 else f"{devices.cores} cores"
    yield "this machine"
    yield f"  memory  {_gb(devices.ram_total)} ({_gb(devices.ram_free)} free), {cores} for models"
    yield f"  cards   {cards}"


def _machine_json(devices: Devices) -> dict[str, Any]:
    gpus = [{"name": gpu.name, "kind": gpu.kind, "total": gpu.total, "free": gpu.free} for gpu in devices.gpus]
    return {"ram_total": devices.ram_total, "ram_free": devices.ram_free, "cores": devices.cores, "gpus": gpus}


def _fit(entry: ModelEntry, devices: Devices) -> dict[str, Any]:
    """Whether a local model can be loaded, and how."""
    path = entry.available
    if path is None:
        return {"name": entry.name, "state": "missing", "detail": f"not there: {entry.source}"}
    try:
        plan = fit.plan(gguf_file.read(path).shape, devices, fit.Wanted.of(entry))
    except AgentdError as error:
        return {"name": entry.name, "state": "too big", "detail": error.message}
    speed = f"{plan.context} tokens of context, about {plan.expected:.0f} tokens a second"
    return {"name": entry.name, "state": "fits", "detail": speed}


def _local(fits: list[dict[str, Any]]) -> Iterator[str]:
    yield "models of this machine"
    width = max((len(each["name"]) for each in fits), default=0)
    for each in fits:
        yield f"  {each['name']:{width}}  {each['state']}: {each['detail']}"
    if not fits:
        yield "  none; `agentd model pull` gets one"


def _servers(found: list[Found], known: dict[int, str]) -> Iterator[str]:
    yield "servers that run here"
    for each in found:
        where = f"as {known[each.port]}" if each.port in known else "not in the catalog"
        yield f"  {each.kind} on port {each.port} ({where})"
        if each.locked:
            yield "    wants a key before it tells its models"
            continue
        more = f" and {len(each.models) - _SHOWN} more" if len(each.models) > _SHOWN else ""
        yield f"    {', '.join(each.models[:_SHOWN]) or 'no model'}{more}"
    if not found:
        yield "  none; start llama-server, Ollama or another and call this again"


def _server_json(each: Found, known: str | None, name: str | None, added: Collection[str]) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "url": each.url,
        "models": list(each.models),
        "locked": each.locked,
        "known_as": known,
        "added": name if name in added else None,
        "command": None if name is None else _command(each, name),
    }


def _wanted(invocation: Invocation, each: Found, name: str) -> bool:
    if invocation.yes:
        return True
    if invocation.no_input or invocation.json or not sys.stdin.isatty():
        return False
    return click.confirm(f"Add {each.kind} on port {each.port} as {name}?", default=True, err=True)


def _add(home: Home, each: Found, name: str) -> bool:
    CatalogFile(home.models_dir, defaults_dir() / "models").add_server(name, {"url": each.url})
    return True


def _named(found: list[Found], catalog: Catalog) -> Iterator[tuple[Found, str]]:
    """Each with a name that is free; `agentd` is that of the agent itself."""
    taken = {"agentd", *catalog.servers, *catalog.models}
    for each in found:
        names = (each.kind, *(f"{each.kind}-{number}" for number in range(2, 1000)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        yield each, name


def _name_of(catalog: Catalog, port: int) -> str | None:
    """The server of the catalog that is on this port of this machine."""
    for server in catalog.servers.values():
        for parts in map(urlsplit, server.urls):
            if parts.port == port and is_loopback(parts.hostname or ""):
                return server.name
    return None


def _own_port(home: Home) -> int | None:
    """Where the daemon of this home listens."""
    try:
        return urlsplit(home.url_path.read_text(encoding="utf-8").strip()).port
    except (OSError, ValueError):
        return None


def _command(each: Found, name: str, *, role: bool = False) -> str:
    words = ["agentd", "backend", "add", name, each.url]
    if role:
        words += ["--model", each.models[0], "--role", "planner"]
    return shlex.join(words)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
