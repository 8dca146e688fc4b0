"""Endpoints of the servers of models: which there are, how they do, what they can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Query
from pydantic import Field

from agentd.api.deps import Body, Core
from agentd.app import App
from agentd.backends.catalog import ServerEntry
from agentd.backends.catalog_edit import CatalogFile
from agentd.backends.http_lines import address_of
from agentd.backends.inspection import as_json, inspect
from agentd.errors import BadInput, Conflict, Denied
from agentd.home import defaults_dir
from agentd.policy.sending import check_sending

router = APIRouter(prefix="/api/backends", tags=["backends"])


class BackendBody(Body):
    """A server as it is written into the catalog; see `[servers.NAME]` there. `roles` get its `model` first of all."""

    name: str
    urls: list[str] = Field(min_length=1, max_length=64)
    weights: list[float] | None = None
    key: str | None = None
    timeout: float | None = None
    connect_timeout: float | None = None
    proxy: str | None = None
    ca: Path | None = None
    price: float | None = None
    model: str | None = None
    roles: list[str] = Field(default_factory=list)
    replace: bool = False


class TestBody(Body):
    model: str | None = None


@router.get("")
def list_backends(core: Core) -> list[dict[str, Any]]:
    """Every server with its models in the catalog and the health of each of its addresses."""
    health: dict[str, list[dict[str, Any]]] = {}
    for row in core.models.status()["servers"]:
        health.setdefault(row["server"], []).append(row)
    catalog = core.catalog.current()
    return [_line(core, server, health.get(server.name, [])) for server in catalog.servers.values()]


@router.post("")
def add_backend(core: Core, body: BackendBody) -> dict[str, Any]:
    """Write a server into the catalog, which takes effect at once."""
    catalog = core.catalog.current()
    if body.name in catalog.servers and not body.replace:
        raise Conflict(f"there is a server {body.name!r} already", hint="remove it first, or replace it")
    if unknown := [role for role in body.roles if role not in catalog.roles]:
        raise BadInput(f"there is no role {unknown[0]!r}", hint=f"there are {', '.join(catalog.roles)}")
    if body.roles and body.model is None:
        raise BadInput("which of its models shall have these roles?", hint="name it: --model")
    file = CatalogFile(core.settings.models_dir, defaults_dir() / "models")
    file.add_server(body.name, _fields(body))
    for role in body.roles:
        file.add_candidate(role, f"{body.name}/{body.model}", first=True)
    core.audit.record("backend.added", "", {"name": body.name, "urls": body.urls, "roles": body.roles})
    return _line(core, core.catalog.current().server(body.name), [])


@router.delete("/{name}")
def remove_backend(core: Core, name: str, models: Annotated[bool, Query()] = False) -> dict[str, Any]:
    """Take a server out of the catalog; with `models` also what uses it, the roles too."""
    CatalogFile(core.settings.models_dir, defaults_dir() / "models").remove_server(name, with_users=models)
    core.audit.record("backend.removed", "", {"name": name})
    return {"removed": name}


@router.post("/{name}/test")
def test_backend(core: Core, name: str, body: TestBody) -> list[dict[str, Any]]:
    """Ask each address of a server what it can do; takes up to some minutes with a slow model."""
    server = core.catalog.current().server(name)
    found = []
    for url in server.urls:
        link = core.remotes.link(replace(server, urls=(url,), weights=(1.0,)))
        found.append(as_json(inspect(link, body.model)))
    return found


def _fields(body: BackendBody) -> dict[str, Any]:
    fields = body.model_dump(exclude={"name", "urls", "ca", "model", "roles", "replace"}, exclude_none=True)
    address: dict[str, Any] = {"url": body.urls[0]} if len(body.urls) == 1 else {"urls": body.urls}
    return address | fields | ({} if body.ca is None else {"verify": str(body.ca)})


def _line(core: App, server: ServerEntry, health: list[dict[str, Any]]) -> dict[str, Any]:
    catalog = core.catalog.current()
    roles = [role for role, names in catalog.roles.items() if any(_serves(core, server, name) for name in names)]
    return {
        "name": server.name,
        "urls": list(server.urls),
        "weights": list(server.weights),
        "models": [entry.name for entry in catalog.models.values() if entry.server == server.name],
        "roles": roles,
        "key": server.key,
        "key_is_set": server.key is None or any(each.name == server.key for each in core.vault.names()),
        "proxy": None if server.proxy is None else urlsplit(server.proxy).hostname,
        "verify": None if server.verify is None else str(server.verify),
        "timeout": server.timeout,
        "connect_timeout": server.connect_timeout,
        "price": server.price,
        "denied": _denied(core, server),
        "health": health,
    }


def _serves(core: App, server: ServerEntry, name: str) -> bool:
    entry = core.catalog.current().models.get(name)
    return entry.server == server.name if entry is not None else name.startswith(f"{server.name}/")


def _denied(core: App, server: ServerEntry) -> dict[str, str] | None:
    """Why policy lets nothing be sent there, and how to allow it."""
    for url in (*server.urls, *filter(None, [server.proxy])):
        try:
            check_sending(core.policy, *address_of(url))
        except Denied as error:
            return {"message": error.message, "hint": error.hint}
    return None
