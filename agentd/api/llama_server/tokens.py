"""`/tokenize`, `/detokenize`, `/apply-template` and `/embedding`: what a model makes of texts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from agentd.api.deps import Core
from agentd.api.openai.asking import bridge_of, fields_of
from agentd.api.openai.body import Body, parse
from agentd.api.openai.errors import Refused
from agentd.api.openai.messages import messages_of
from agentd.api.openai.models import resolve
from agentd.api.openai.prompts import prompts_of, written
from agentd.api.openai.tools import choice_of
from agentd.backends.router import RoutedModel
from agentd.types import Model

router = APIRouter()


class TextBody(Body):
    content: Any = ""
    model: str | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class TokensBody(Body):
    tokens: list[int]
    model: str | None = None


class TemplateBody(Body):
    messages: Any
    model: str | None = None
    tools: Any = None
    chat_template_kwargs: dict[str, Any] | None = None


class EmbeddingBody(Body):
    content: Any = None
    input: Any = None
    model: str | None = None


@router.post("/tokenize")
async def tokenize(request: Request, core: Core) -> Response:
    body = parse(TextBody, await fields_of(request))
    if not isinstance(body.content, str):
        raise Refused("content: expected a text", param="content")
    content = body.content

    def work() -> list[Any]:
        model = _local(resolve(core, request, body.model))
        found = model.tokenize(content, special=body.add_special, controls=body.parse_special)
        if not body.with_pieces:
            return list(found["tokens"])
        return [{"id": token, "piece": piece} for token, piece in zip(found["tokens"], found["pieces"], strict=True)]

    return JSONResponse({"tokens": await bridge_of(request).call(work)})


@router.post("/detokenize")
async def detokenize(request: Request, core: Core) -> Response:
    body = parse(TokensBody, await fields_of(request))

    def work() -> str:
        return _local(resolve(core, request, body.model)).detokenize(body.tokens)

    return JSONResponse({"content": await bridge_of(request).call(work)})


@router.post("/apply-template")
async def apply_template(request: Request, core: Core) -> Response:
    body = parse(TemplateBody, await fields_of(request))
    messages, tools = messages_of(body.messages), choice_of(body.tools, None).tools
    think = bool((body.chat_template_kwargs or {}).get("enable_thinking", False))

    def work() -> str:
        return _local(resolve(core, request, body.model)).render(messages, tools=tools, think=think)

    return JSONResponse({"prompt": await bridge_of(request).call(work)})


@router.post("/embedding")
@router.post("/embeddings")
async def embedding(request: Request, core: Core) -> Response:
    body = parse(EmbeddingBody, await fields_of(request))
    param = "content" if body.content is not None else "input"
    pieces = prompts_of(body.content if body.content is not None else body.input, param)
    bridge = bridge_of(request)

    def work() -> list[list[float]]:
        model = resolve(core, request, body.model, role="embed")
        return model.embed(written(model, pieces))

    with bridge.seat():
        vectors = await bridge.call(work)
    return JSONResponse([{"index": index, "embedding": [vector]} for index, vector in enumerate(vectors)])


def _local(model: Model) -> RoutedModel:
    if not isinstance(model, RoutedModel):
        raise Refused(f"{model.name} has no tokens of its own", param="model")
    return model
