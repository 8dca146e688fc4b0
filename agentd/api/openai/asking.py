"""What every endpoint of replies does with a request before models are asked, and what it takes from its headers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect, HTTPConnection

from agentd.api.agent_model import AgentModel
from agentd.api.openai.body import read_json
from agentd.api.openai.bridge import Bridge, Job, Speaker
from agentd.api.openai.errors import Refused
from agentd.api.openai.sampling import another_seed
from agentd.errors import Cancelled
from agentd.types import ModelReply, ModelRequest


def bridge_of(request: Request) -> Bridge:
    bridge: Bridge = request.app.state.bridge
    return bridge


async def fields_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises `Refused`; `Cancelled` when the client went away too early."""
    try:
        return read_json(await request.body())
    except ClientDisconnect:
        raise Cancelled("the client has gone away") from None


def of_headers(request: HTTPConnection) -> dict[str, Any]:
    """The parts of a `ModelRequest` that headers decide: whose it is, and whether an earlier reply will do."""
    key = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
    return {
        "client": f"api-{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:8]}",
        "cache": "no-cache" not in request.headers.get("cache-control", "").lower(),
    }


def several(model: Speaker, request: ModelRequest, count: int) -> list[Job]:
    """The same request `count` times, each with a seed of its own. Raises `Refused` for more than one of an agent."""
    if count > 1 and isinstance(model, AgentModel):
        raise Refused("the agent gives one reply to a request", param="n", hint="leave out n and best_of")
    return [(model, replace(request, seed=another_seed(request.seed, number))) for number in range(count)]


async def replies(request: Request, jobs: list[Job]) -> list[ModelReply]:
    """The replies to all jobs; cancelled when the client goes away."""
    return [reply for reply, _ in await _replies(request, jobs, timed=False)]


async def timed_replies(request: Request, jobs: list[Job]) -> list[tuple[ModelReply, float]]:
    """Each with the seconds that went by before it began."""
    return await _replies(request, jobs, timed=True)


async def _replies(request: Request, jobs: list[Job], *, timed: bool) -> list[tuple[ModelReply, float]]:
    bridge = bridge_of(request)
    with bridge.seat():
        async with bridge.generate(jobs, request.receive, stream=timed) as generation:
            found = await generation.replies(len(jobs))
            return [(reply, generation.began.get(index, reply.seconds)) for index, reply in enumerate(found)]
