"""How large a request may be."""

from __future__ import annotations

from fastapi import FastAPI, Request

from agentd.api import problems
from agentd.api.limits import MAX_BODY, BodyLimit
from tests.api.asgi import call


def echo() -> FastAPI:
    api = FastAPI()
    problems.install(api)
    api.add_middleware(BodyLimit)

    @api.post("/")
    async def size(request: Request) -> int:
        return len(await request.body())

    return api


def test_as_much_as_is_allowed() -> None:
    assert call(echo(), chunks=[b"x" * MAX_BODY]).json == MAX_BODY


def test_a_length_that_is_announced_is_refused_unread() -> None:
    said = call(echo(), headers={"Content-Length": str(MAX_BODY + 1)}, chunks=[b"never read"])
    assert (said.status, said.json["error"]["code"]) == (413, "input.too_large")


def test_a_length_that_turns_out_is_refused_too() -> None:
    said = call(echo(), chunks=[b"x" * MAX_BODY, b"y", b"z"])
    assert (said.status, said.json["error"]["code"]) == (413, "input.too_large")
