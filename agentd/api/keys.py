"""Endpoints of the named keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from agentd.api.deps import Body, Core

router = APIRouter(prefix="/api/keys", tags=["keys"])


class KeyBody(Body):
    name: str


@router.get("")
def list_keys(core: Core) -> list[dict[str, Any]]:
    """The named keys: when they were made and last used; never the keys themselves."""
    return [asdict(key) for key in core.keys.all()]


@router.post("", status_code=201)
def make_key(core: Core, body: KeyBody) -> dict[str, Any]:
    """A new key for a program; it is shown this once."""
    return {"name": body.name, "key": core.keys.make(body.name)}


@router.delete("/{name}")
def remove_key(core: Core, name: str) -> dict[str, Any]:
    """Take a key back."""
    core.keys.remove(name)
    return {"removed": name}
