"""Endpoints of the kept replies of models: which there are, one of them, and away with them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from agentd.api.deps import Core

router = APIRouter(prefix="/api/cache", tags=["cache"])


@router.get("")
def list_replies(core: Core, limit: Annotated[int, Query(ge=0, le=10_000)] = 50) -> dict[str, Any]:
    """`stats` of the kept replies (sizes in bytes), and the `replies` that were used last, without their texts."""
    return {"stats": core.replies.stats(), "replies": core.replies.rows(limit)}


@router.get("/{key}")
def get_reply(core: Core, key: str) -> dict[str, Any]:
    """One kept reply by its key, or the start of it that no other has."""
    return core.replies.show(key)


@router.delete("")
def clear(core: Core, model: str | None = None) -> dict[str, Any]:
    """Forget all kept replies, or those of one model."""
    return {"forgotten": core.replies.clear(model)}
