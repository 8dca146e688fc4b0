"""`config` and `init`: the settings of a home, and new homes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agentd.backends.catalog import Catalog
from agentd.cli import output
from agentd.cli.client import Client, endpoint, home_of
from agentd.cli.options import Group, Invocation, command
from agentd.config import describe, init_home, load_settings, value_of
from agentd.config_file import change
from agentd.errors import AgentdError, BadInput
from agentd.home import defaults_dir
from agentd.policy.engine import PolicyEngine

group = Group("config", help="The settings: agentd.toml in the home, overruled by AGENTD_SECTION__KEY.")


@command("path")
def path(invocation: Invocation) -> None:
    """Where the settings are read from; the file need not exist."""
    file = home_of(invocation).config_path
    if invocation.json:
        output.data_json({"path": str(file), "exists": file.exists()})
    else:
        output.data(str(file))


@command("get")
@click.argument("key", required=False, metavar="[KEY]")
def get(invocation: Invocation, key: str | None) -> None:
    """The value of a setting (agent.steps) or section (agent); without KEY all, with what they mean."""
    settings = load_settings(home_of(invocation).home)
    if key is not None:
        value = settings.get(key)
        if invocation.json or isinstance(value, dict):
            output.data_json(value)
        else:
            output.data(_shown(value))
        return
    if invocation.json:
        output.data_json({each.path: asdict(each) | {"value": settings.get(each.path)} for each in describe()})
        return
    rows = [(each.path, _shown(settings.get(each.path)), each.description) for each in describe()]
    output.data(output.table(rows, ("SETTING", "VALUE", "MEANING")))


@command("set")
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1, required=True)
def set_(invocation: Invocation, assignments: tuple[str, ...]) -> None:
    """Change settings in the home's file: agent.steps=50. An empty value gives the default back.

    A running daemon takes up what it can; the rest waits for its next start, and is said so.
    """
    changes = dict(map(_assignment, assignments))
    where = endpoint(invocation)
    client = Client(where)
    if client.answers():
        found = client.patch("/v1/config", changes)
    else:
        change(home_of(invocation).home, changes)
        found = {"changed": {}, "waiting": list(changes)}
    lines = [f"{path} = {_shown(value)}" for path, value in found["changed"].items()]
    lines += [f"{path}: from the daemon's next start on" for path in found["waiting"]]
    output.done(invocation, found, "\n".join(lines))


@command("validate")
def validate(invocation: Invocation) -> int:
    """Check the settings, the policies and the catalog of models; each error names file and line."""
    home = home_of(invocation)
    parts: dict[str, tuple[Path, Callable[[], object]]] = {
        "settings": (home.config_path, lambda: load_settings(home.home)),
        "policies": (home.policies_dir, lambda: PolicyEngine.load(home.policies_dir)),
        "models": (home.models_dir, lambda: Catalog.load(home.models_dir, defaults_dir() / "models")),
    }
    found = {name: _error_of(load) for name, (_, load) in parts.items()}
    if invocation.json:
        output.data_json({name: _verdict(error) for name, error in found.items()})
    else:
        for name, error in found.items():
            if error is None:
                output.data(f"{name}: ok ({parts[name][0]})")
            else:
                output.fail(error, as_json=False)
    return 1 if any(found.values()) else 0


@command("init")
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path))
def init(invocation: Invocation, folder: Path | None) -> None:
    """Make DIR (else the home that would be used) a home; what is there already stays as it is."""
    home = folder.expanduser().resolve() if folder else home_of(invocation).home
    made = init_home(home)
    if invocation.json:
        output.data_json({"home": str(home), "made": [str(each) for each in made]})
        return
    output.data(str(home))
    if not invocation.quiet:
        output.note("\n".join(f"made {each}" for each in made) or "nothing was missing")


def _assignment(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"{text!r} is no KEY=VALUE", hint="for example agent.steps=50")
    return path.strip(), value_of(value) if value.strip() else None


def _error_of(load: Callable[[], object]) -> AgentdError | None:
    try:
        load()
    except AgentdError as error:
        return error
    return None


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _verdict(error: AgentdError | None) -> dict[str, Any]:
    return {"ok": True} if error is None else {"ok": False, "message": error.message, "hint": error.hint}


for each in (path, get, set_, validate):
    group.add_command(each)
