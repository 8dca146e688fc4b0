"""Endpoints of the settings: read them, and change them while the daemon runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body

from agentd.api.deps import Core
from agentd.config import describe
from agentd.errors import BadInput

router = APIRouter(prefix="/v1/config", tags=["settings"])


@router.get("")
def settings(core: Core) -> dict[str, Any]:
    """Every setting with its value, its default, what it may be, and whether a change takes effect at once."""
    return {each.path: asdict(each) | {"value": core.settings.get(each.path)} for each in describe()}


@router.patch("")
def change(core: Core, changes: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Set `{"agent.steps": 50}`, or a section as an object; null gives a setting its default back.

    All are checked before any is written. `waiting` names those that the daemon takes up at its next start.
    """
    flat = dict(_flat(changes))
    if not flat:
        raise BadInput("no setting is named", hint='send {"agent.steps": 50}')
    waiting = core.change_settings(flat)
    core.audit.record("settings.changed", "", {"settings": sorted(flat)})
    return {"changed": {path: core.settings.get(path) for path in flat if path not in waiting}, "waiting": waiting}


def _flat(changes: dict[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for name, value in changes.items():
        if isinstance(value, dict):
            found += [(f"{name}.{key}", inner) for key, inner in value.items()]
        else:
            found.append((name, value))
    return found
