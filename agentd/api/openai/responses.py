"""`/v1/responses`, stateless: nothing is kept, so every request brings its whole conversation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from agentd.api.deps import Core
from agentd.api.openai.asking import bridge_of, fields_of, of_headers, replies
from agentd.api.openai.body import Body, parse
from agentd.api.openai.errors import Refused, error_object
from agentd.api.openai.events import Events
from agentd.api.openai.inputs import messages_of_input
from agentd.api.openai.models import counted, resolve
from agentd.api.openai.outputs import Items, Numbers
from agentd.api.openai.sampling import MOST_TOP, Length, Sampled
from agentd.api.openai.tools import Choice, choice_of, schema_of
from agentd.api.openai.words import chat_logprobs, new_id, reasoning_tokens, refuse_misfit, usage
from agentd.api.problems import status_of
from agentd.backends.attempts import deltas_of
from agentd.errors import AgentdError
from agentd.types import Delta, JsonObject, Model, ModelReply, ModelRequest, TokenLogprob

router = APIRouter(tags=["openai"])

_LOGPROBS = "message.output_text.logprobs"
_FAILURES = {429: "rate_limit_exceeded"}
"""What OpenAI's clients know as the code of a failed response, by status."""
_STATEFUL = ("previous_response_id", "conversation", "prompt")


class TextOptions(Body):
    format: Any = None
    verbosity: str | None = None


class ReasoningOptions(Body):
    effort: str | None = None
    summary: str | None = None


class ResponseBody(Sampled):
    input: Any
    instructions: str | None = None
    max_output_tokens: Length | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    metadata: dict[str, Any] | None = None
    stream: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None


@router.post("/responses")
async def create_response(request: Request, core: Core) -> Response:
    body = parse(ResponseBody, await fields_of(request))
    _refuse_state(body)
    asked = Asked.of(body)
    model = await bridge_of(request).call(resolve, core, request, body.model)
    wanted = await bridge_of(request).call(asked.request, model, body, of_headers(request))
    job = (model, wanted)
    writer = ResponseStream(asked, _head(body, asked, model, wanted))
    if body.stream:
        return Events(bridge_of(request), [job], writer)
    (reply,) = await replies(request, [job])
    return JSONResponse(writer.whole(reply))


@router.post("/responses/input_tokens")
async def input_tokens(request: Request, core: Core) -> Response:
    """How many tokens the prompt of such a request has."""
    body = parse(ResponseBody, await fields_of(request))
    _refuse_state(body)
    asked = Asked.of(body)

    def work() -> dict[str, Any]:
        model = resolve(core, request, body.model)
        return counted(model, asked.request(model, body, of_headers(request)))

    return JSONResponse(await bridge_of(request).call(work))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants of the reply's form."""

    tools: tuple[JsonObject, ...]
    """All that the client named."""
    choice: Choice
    schema: JsonObject | None
    top: int | None
    one_call: bool

    @classmethod
    def of(cls, body: ResponseBody) -> Asked:
        wants = _LOGPROBS in (body.include or ()) or bool(body.top_logprobs)
        return cls(
            tools=choice_of(body.tools, None, flat=True).tools,
            choice=choice_of(body.tools, body.tool_choice, flat=True),
            schema=schema_of(body.text.format if body.text else None, "text.format"),
            top=(body.top_logprobs or 0) if wants else None,
            one_call=body.parallel_tool_calls is False,
        )

    def request(self, model: Model, body: ResponseBody, headers: dict[str, Any]) -> ModelRequest:
        """Raises `Refused`."""
        effort = body.reasoning.effort if body.reasoning else None
        return ModelRequest(
            messages=messages_of_input(body.input, body.instructions),
            tools=self.choice.tools,
            tool_choice=self.choice.mode,
            max_tokens=body.max_output_tokens,
            logprobs=self.top,
            schema=None if self.choice.mode == "required" else self.schema,
            think=model.profile.think if effort is None else effort not in ("none", "minimal"),
            **body.sampling(model),
            **headers,
        )


class ResponseStream:
    """Writes a reply as the events of a response, or as the whole of one; see `events.Writer`."""

    def __init__(self, asked: Asked, head: dict[str, Any]) -> None:
        self._asked = asked
        self._head = head
        self._numbers = Numbers()
        self._items = Items(self._numbers)
        self._heard = False
        self._reply: ModelReply | None = None

    def begin(self) -> list[str]:
        response = self._response("in_progress")
        return [self._numbers.event(f"response.{kind}", response=response) for kind in ("created", "in_progress")]

    def heard(self, index: int, delta: Delta) -> list[str]:
        self._heard = True
        lines = self._items.think(delta.reasoning) if delta.reasoning else []
        if delta.text or (delta.logprobs and self._asked.top is not None):
            lines += self._items.say(delta.text, self._logprobs(delta.logprobs))
        if delta.call is not None and not (self._asked.one_call and delta.call.index > 0):
            lines += self._items.call(delta.call)
        return lines

    def done(self, index: int, reply: ModelReply) -> list[str]:
        refuse_misfit(reply, self._asked.schema)
        lines = [line for delta in (() if self._heard else deltas_of(reply)) for line in self.heard(index, delta)]
        if not reply.tool_calls and not self._items.texts:
            lines += self._items.say("", [])
        self._reply = reply
        return [*lines, *self._items.close("incomplete" if reply.finish_reason == "length" else "completed")]

    def end(self) -> list[str]:
        response = self._ended()
        return [self._numbers.event(f"response.{response['status']}", response=response)]

    def failed(self, error: AgentdError) -> list[str]:
        status = status_of(error, "/v1")
        said = error_object(error, status)
        code, message = str(said["code"] or said["type"]), said["message"]
        known = _FAILURES.get(status, "invalid_prompt" if status < 500 else "server_error")
        response = self._response("failed") | {"error": {"code": known, "message": message}}
        return [
            self._numbers.event("error", code=code, message=message, param=said["param"]),
            self._numbers.event("response.failed", response=response),
        ]

    def whole(self, reply: ModelReply) -> dict[str, Any]:
        """The response of a reply that was not streamed."""
        self.done(0, reply)
        return self._ended()

    def _ended(self) -> dict[str, Any]:
        assert self._reply is not None
        cut = self._reply.finish_reason == "length"
        return self._response("incomplete" if cut else "completed") | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "completed_at": None if cut else int(time.time()),
            "usage": _usage(self._reply),
        }

    def _response(self, status: str) -> dict[str, Any]:
        return {**self._head, "status": status, "output": list(self._items.closed)}

    def _logprobs(self, tokens: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
        if self._asked.top is None:
            return []
        found: list[dict[str, Any]] = chat_logprobs(tokens, self._asked.top)["content"]
        return found


def _head(body: ResponseBody, asked: Asked, model: Model, wanted: ModelRequest) -> dict[str, Any]:
    """What a response says of its request."""
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": model.name,
        "output": [],
        "parallel_tool_calls": not asked.one_call,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": wanted.temperature,
        "text": {"format": _format(body)},
        "tool_choice": body.tool_choice if body.tool_choice is not None else "auto",
        "tools": [{"type": "function", "strict": False, **tool} for tool in asked.tools],
        "top_logprobs": asked.top or 0,
        "top_p": wanted.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def _format(body: ResponseBody) -> Any:
    asked = body.text.format if body.text else None
    return asked if asked is not None else {"type": "text"}


def _usage(reply: ModelReply) -> dict[str, Any]:
    counted = usage(reply.prompt_tokens, [reply])
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": counted["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens(reply)},
        "total_tokens": counted["total_tokens"],
    }


def _refuse_state(body: ResponseBody) -> None:
    for field in _STATEFUL:
        if getattr(body, field) is not None:
            raise Refused(
                f"{field}: nothing is kept here between requests",
                param=field,
                kind="unsupported_parameter",
                hint="send the whole conversation as input",
            )
    if body.background:
        raise Refused("background: replies are given at once", param="background", kind="unsupported_parameter")
