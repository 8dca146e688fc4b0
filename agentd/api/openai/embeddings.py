"""`/v1/embeddings`: vectors of texts."""

from __future__ import annotations

import base64
import math
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from agentd.api.deps import Core
from agentd.api.openai.asking import bridge_of, fields_of
from agentd.api.openai.body import Body, parse
from agentd.api.openai.errors import Refused
from agentd.api.openai.models import resolve
from agentd.api.openai.prompts import prompts_of, written
from agentd.types import Model

router = APIRouter(tags=["openai"])

MOST_TEXTS = 2048


class EmbeddingBody(Body):
    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    user: str | None = None


@router.post("/embeddings")
async def embeddings(request: Request, core: Core) -> Response:
    body = parse(EmbeddingBody, await fields_of(request))
    pieces = prompts_of(body.input, "input", most=MOST_TEXTS)
    bridge = bridge_of(request)
    with bridge.seat():
        model = await bridge.call(lambda: resolve(core, request, body.model, role="embed"))
        texts = await bridge.call(written, model, pieces)
        vectors, tokens = await bridge.call(_embed, model, texts)
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(_shortened(vector, body.dimensions), body)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})


def _embed(model: Model, texts: list[str]) -> tuple[list[list[float]], int]:
    return model.embed(texts), sum(map(model.count, texts))


def _shortened(vector: list[float], dimensions: int | None) -> list[float]:
    """The first numbers, made a vector of length 1 again."""
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise Refused(f"the model's vectors have {len(vector)} dimensions, not {dimensions:,}", param="dimensions")
    length = math.sqrt(sum(number * number for number in vector[:dimensions]))
    return [number / length for number in vector[:dimensions]] if length else vector[:dimensions]


def _encoded(vector: list[float], body: EmbeddingBody) -> list[float] | str:
    if body.encoding_format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
