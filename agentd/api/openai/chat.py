"""`/v1/chat/completions`: a conversation gets one reply or several, as a whole or in pieces."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from agentd.api.deps import Core
from agentd.api.openai.asking import bridge_of, fields_of, of_headers, replies, several, timed_replies
from agentd.api.openai.body import Body, parse
from agentd.api.openai.bridge import Job
from agentd.api.openai.errors import Refused, error_object
from agentd.api.openai.events import DONE, Events, event
from agentd.api.openai.messages import messages_of
from agentd.api.openai.models import counted, rendered, resolve
from agentd.api.openai.sampling import MOST_REPLIES, MOST_TOP, Length, Sampled, one_constraint
from agentd.api.openai.tools import Choice, choice_of, legacy_choice, schema_object, schema_of
from agentd.api.openai.words import FINGERPRINT, chat_logprobs, new_id, refuse_misfit, timings, usage
from agentd.api.problems import status_of
from agentd.app import App
from agentd.backends.attempts import deltas_of
from agentd.errors import AgentdError
from agentd.types import CallDelta, Delta, JsonObject, Model, ModelReply, ModelRequest

router = APIRouter(tags=["openai"])


class StreamOptions(Body):
    include_usage: bool | None = None


class ChatBody(Sampled):
    messages: Any
    n: Annotated[int, Field(ge=1, le=MOST_REPLIES)] | None = None
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    grammar: str | None = None
    json_schema: Any = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    timings_per_token: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    verbose: bool | None = None
    """Show the prompt that the conversation became."""


@router.post("/chat/completions")
async def chat_completions(request: Request, core: Core) -> Response:
    fields, bridge = await fields_of(request), bridge_of(request)
    order = await bridge.call(order_of, core, request, fields)
    if order.stream:
        return Events(bridge, order.jobs, order.writer())
    if order.asked.timings:
        told = await timed_replies(request, order.jobs)
        found = _whole(order.asked, order.model, [reply for reply, _ in told]) | {"timings": timings(*told[0])}
    else:
        found = _whole(order.asked, order.model, await replies(request, order.jobs))
    return JSONResponse(found if order.prompt is None else found | {"__verbose": {"prompt": order.prompt}})


@router.post("/chat/completions/input_tokens")
async def input_tokens(request: Request, core: Core) -> Response:
    """How many tokens the prompt of such a request has."""
    fields = await fields_of(request)
    order = await bridge_of(request).call(order_of, core, request, fields)
    return JSONResponse(await bridge_of(request).call(counted, *order.jobs[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants of the replies' form."""

    choice: Choice
    schema: JsonObject | None
    top: int | None
    """Alternatives for each token; None for no log-probabilities."""
    legacy: bool
    """Calls are told as `function_call`, the way before there were tools."""
    one_call: bool
    usage: bool
    timings: bool

    @classmethod
    def of(cls, body: ChatBody) -> Asked:
        legacy = body.tools is None and body.functions is not None
        choice = legacy_choice(body.functions, body.function_call) if legacy else None
        return cls(
            choice=choice or choice_of(body.tools, body.tool_choice),
            schema=_schema(body),
            top=_top(body),
            legacy=legacy,
            one_call=legacy or body.parallel_tool_calls is False,
            usage=body.stream_options is not None and bool(body.stream_options.include_usage),
            timings=bool(body.timings_per_token),
        )

    def request(self, model: Model, body: ChatBody, headers: dict[str, Any]) -> ModelRequest:
        """Of the first reply. Raises `Refused`."""
        must_call = self.choice.mode == "required"
        return ModelRequest(
            messages=messages_of(body.messages),
            tools=self.choice.tools,
            tool_choice=self.choice.mode,
            max_tokens=_length(body),
            logprobs=self.top,
            schema=None if must_call else self.schema,
            grammar=body.grammar or None,
            think=_think(body, model),
            **body.sampling(model),
            **headers,
        )

    def calls(self, reply: ModelReply) -> list[dict[str, Any]]:
        calls = reply.tool_calls[:1] if self.one_call else reply.tool_calls
        return [
            {
                "id": call.id or new_id("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]

    def finish(self, reply: ModelReply) -> str:
        if reply.finish_reason == "length":
            return "length"
        if not reply.tool_calls:
            return "stop"
        return "function_call" if self.legacy else "tool_calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done for one request, and in which form it is told."""

    asked: Asked
    model: str
    jobs: list[Job]
    stream: bool
    prompt: str | None = None
    """What the model reads, where the client wants to know."""

    def writer(self) -> ChatStream:
        return ChatStream(self.asked, self.model, len(self.jobs))


def order_of(core: App, connection: HTTPConnection, fields: dict[str, Any]) -> Order:
    """May wait for a model's server. Raises `Refused`, `NotFound`, `ModelError`."""
    body = parse(ChatBody, fields)
    asked = Asked.of(body)
    model = resolve(core, connection, body.model)
    wanted = asked.request(model, body, of_headers(connection))
    _refuse_other_ends(body, wanted)
    jobs = several(model, wanted, body.n or 1)
    prompt = rendered(model, wanted) if body.verbose else None
    return Order(asked=asked, model=model.name, jobs=jobs, stream=bool(body.stream), prompt=prompt)


class ChatStream:
    """Writes pieces of replies as `chat.completion.chunk`s; see `events.Writer`."""

    def __init__(self, asked: Asked, model: str, count: int) -> None:
        self._asked = asked
        self._count = count
        self._head = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._heard: set[int] = set()
        self._replies: list[ModelReply] = []
        self._began = time.monotonic()
        self._first = 0.0
        """Seconds until something was said."""

    def begin(self) -> list[str]:
        return [self._chunk(index, {"role": "assistant", "content": None}) for index in range(self._count)]

    def heard(self, index: int, delta: Delta) -> list[str]:
        if not self._heard:
            self._first = time.monotonic() - self._began
        self._heard.add(index)
        said: dict[str, Any] = {}
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.text:
            said["content"] = delta.text
        if delta.call is not None:
            said |= self._call(delta.call)
        if not said and not delta.logprobs:
            return []
        return [self._chunk(index, said, logprobs=self._logprobs(delta))]

    def done(self, index: int, reply: ModelReply) -> list[str]:
        refuse_misfit(reply, self._asked.schema)
        told = () if index in self._heard else deltas_of(reply)
        lines = [line for delta in told for line in self.heard(index, delta)]
        self._replies.append(reply)
        return [*lines, self._chunk(index, {}, finish=self._asked.finish(reply))]

    def end(self) -> list[str]:
        last: dict[str, Any] = {**self._head, "choices": []}
        if self._asked.usage:
            last["usage"] = usage(self._replies[0].prompt_tokens, self._replies)
        if self._asked.timings:
            last["timings"] = timings(self._replies[0], self._first)
        return [event(last), DONE] if len(last) > len(self._head) + 1 else [DONE]

    def failed(self, error: AgentdError) -> list[str]:
        return [event({"error": error_object(error, status_of(error, "/v1"))})]

    def _call(self, call: CallDelta) -> dict[str, Any]:
        if self._asked.one_call and call.index > 0:
            return {}
        function = {"name": call.name} if call.name else {}
        function["arguments"] = call.arguments
        if self._asked.legacy:
            return {"function_call": function}
        named = {"id": call.id or new_id("call_"), "type": "function"} if call.name else {}
        return {"tool_calls": [{"index": call.index, **named, "function": function}]}

    def _logprobs(self, delta: Delta) -> dict[str, Any] | None:
        return None if self._asked.top is None else chat_logprobs(delta.logprobs, self._asked.top)

    def _chunk(
        self, index: int, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return event({**self._head, "choices": [choice], **({"usage": None} if self._asked.usage else {})})


def _whole(asked: Asked, model: str, replies: list[ModelReply]) -> dict[str, Any]:
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
        "choices": [_choice(asked, index, reply) for index, reply in enumerate(replies)],
        "usage": usage(replies[0].prompt_tokens, replies),
    }


def _choice(asked: Asked, index: int, reply: ModelReply) -> dict[str, Any]:
    refuse_misfit(reply, asked.schema)
    calls = asked.calls(reply)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or (None if calls else ""), "refusal": None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if calls and asked.legacy:
        message["function_call"] = calls[0]["function"]
    elif calls:
        message["tool_calls"] = calls
    logprobs = None if asked.top is None else chat_logprobs(reply.logprobs, asked.top)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": asked.finish(reply)}


def _refuse_other_ends(body: ChatBody, wanted: ModelRequest) -> None:
    """A last message of the assistant's is gone on with, after any other one the assistant's turn begins."""
    begun = wanted.messages[-1].role == "assistant"
    if body.continue_final_message and body.add_generation_prompt:
        raise Refused(
            "continue_final_message and add_generation_prompt exclude each other", param="add_generation_prompt"
        )
    if body.continue_final_message and not begun:
        raise Refused("the final message is not the assistant's", param="continue_final_message")
    if body.add_generation_prompt is False and not begun:
        raise Refused("a reply without a turn of its own is not to be had", param="add_generation_prompt")


def _schema(body: ChatBody) -> JsonObject | None:
    by_format = schema_of(body.response_format)
    by_field = None if body.json_schema is None else schema_object(body.json_schema, "json_schema")
    one_constraint(response_format=by_format, json_schema=by_field, grammar=body.grammar or None)
    return by_format if by_format is not None else by_field


def _top(body: ChatBody) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise Refused("top_logprobs is given without logprobs", param="top_logprobs", hint="set logprobs to true")
    return None


def _length(body: ChatBody) -> int | None:
    """The most tokens of a reply; None for the rest of the context."""
    said = body.max_completion_tokens or body.max_tokens
    return said if said is not None or body.n_predict in (None, -1) else max(1, body.n_predict or 1)


def _think(body: ChatBody, model: Model) -> bool:
    told = (body.chat_template_kwargs or {}).get("enable_thinking")
    if isinstance(told, bool):
        return told
    if body.reasoning_effort is not None:
        return body.reasoning_effort not in ("none", "minimal")
    return model.profile.think
