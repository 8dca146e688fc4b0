"""All endpoints of OpenAI's API that are served here, to be put below a prefix."""

from __future__ import annotations

from fastapi import APIRouter

from agentd.api.openai import chat, completions, embeddings, models, responses

router = APIRouter()
for part in (chat, completions, embeddings, responses, models):
    router.include_router(part.router)
