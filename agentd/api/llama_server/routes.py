"""All of these endpoints; they lie at the root, beside /v1."""

from __future__ import annotations

from fastapi import APIRouter

from agentd.api.llama_server import completion, server, tokens
from agentd.api.openai import chat, models

router = APIRouter(tags=["llama.cpp"])
for part in (server, tokens, completion, chat, models):
    router.include_router(part.router)
