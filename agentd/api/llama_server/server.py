"""`/health`, `/props` and `/slots`: that the server is there, what its model is, and how busy it is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from agentd.api.deps import Core
from agentd.api.openai.sampling import DEFAULTS
from agentd.api.openai.words import FINGERPRINT
from agentd.app import App

router = APIRouter()


@router.get("/health")
@router.get("/v1/health")
def health() -> dict[str, str]:
    """That somebody is there."""
    return {"status": "ok"}


@router.get("/props")
def props(core: Core, model: Annotated[str | None, Query()] = None) -> dict[str, Any]:
    """The model that answers where none is named, or `model`: its file, its context, its defaults."""
    row = _row(core, model)
    settings = {"n_ctx": row["context"], "params": {**DEFAULTS, "seed": -1, "n_predict": -1, "stop": []}}
    return {
        "default_generation_settings": settings,
        "total_slots": _places(row),
        "model_alias": row["name"],
        "model_path": row["file"],
        "modalities": {"vision": False, "audio": False},
        "build_info": FINGERPRINT,
    }


@router.get("/slots")
def slots(core: Core, model: Annotated[str | None, Query()] = None) -> list[dict[str, Any]]:
    """The places at a model, and which of them are taken."""
    row = _row(core, model)
    busy = sum(each["requests"] for each in core.models.loaded() if each["model"] == row["name"])
    return [{"id": number, "n_ctx": row["context"], "is_processing": number < busy} for number in range(_places(row))]


def _row(core: App, name: str | None) -> dict[str, Any]:
    found = core.models.named(name) if name else core.models.for_role("planner")
    known = {row["name"]: row for row in core.models.describe()}
    return known.get(found.name) or {"name": found.name, "file": "", "context": found.profile.context}


def _places(row: dict[str, Any]) -> int:
    return int((row.get("plan") or {}).get("sequences", 1))
