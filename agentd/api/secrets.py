"""Endpoints of the vault: what is in it by name, never the secrets themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from agentd.api.deps import Body, Core

router = APIRouter(prefix="/api/secrets", tags=["secrets"])


class SecretBody(Body):
    name: str
    value: str


@router.get("")
def list_secrets(core: Core) -> list[dict[str, Any]]:
    """The names, with the time of the last change of each."""
    return [asdict(secret) for secret in core.vault.names()]


@router.post("")
def set_secret(core: Core, body: SecretBody) -> dict[str, Any]:
    """Keep a secret, in place of an older one of the same name."""
    with core.db.transaction():
        core.vault.set(body.name, body.value)
        core.audit.record("secret.set", "", {"name": body.name})
    return {"name": body.name}


@router.delete("/{name}")
def remove_secret(core: Core, name: str) -> dict[str, Any]:
    """Forget a secret."""
    with core.db.transaction():
        core.vault.remove(name)
        core.audit.record("secret.removed", "", {"name": name})
    return {"removed": name}
