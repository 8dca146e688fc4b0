"""Endpoints of plugins: one source tried in the sandbox."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from agentd.api.deps import Body, Core
from agentd.errors import BadInput
from agentd.types import JsonObject

router = APIRouter(prefix="/api/plugins", tags=["plugins"])


class Try(Body):
    source: str = Field(max_length=2_000_000)
    """The bytes of one Python file, in base64."""
    entry: str = Field(default="", max_length=200)
    args: dict[str, Any] = Field(default_factory=dict)
    executor: Literal["os", "wasm"] = "os"


@router.post("/try")
def try_source(core: Core, body: Try) -> JsonObject:
    """Put one source through the static gate and call one of its functions in the sandbox; nothing is registered."""
    try:
        source = base64.b64decode(body.source, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("`source` is no base64") from None
    return core.trial_runs.run(source, entry=body.entry, args=body.args, executor=body.executor)
