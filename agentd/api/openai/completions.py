"""`/v1/completions`: texts are continued, or a hole before a suffix is filled."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from agentd.api.deps import Core
from agentd.api.openai.asking import bridge_of, fields_of, of_headers, replies, several
from agentd.api.openai.body import parse
from agentd.api.openai.bridge import Job
from agentd.api.openai.chat import StreamOptions
from agentd.api.openai.errors import Refused, error_object
from agentd.api.openai.events import DONE, Events, event
from agentd.api.openai.filling import Filler
from agentd.api.openai.models import resolve
from agentd.api.openai.prompts import MOST_PROMPTS, Pieces, prompts_of, written
from agentd.api.openai.sampling import MOST_REPLIES, MOST_TOP, Sampled, one_constraint
from agentd.api.openai.tools import schema_object, schema_of
from agentd.api.openai.words import FINGERPRINT, new_id, refuse_misfit, sane, timings, usage
from agentd.api.problems import status_of
from agentd.app import App
from agentd.backends.attempts import deltas_of
from agentd.errors import AgentdError
from agentd.types import Delta, JsonObject, Model, ModelReply, ModelRequest, TokenLogprob

router = APIRouter(tags=["openai"])

DEFAULT_TOKENS = 16
"""As at OpenAI."""
_MOST_TOKENS = 1 << 30


class CompletionBody(Sampled):
    prompt: Any
    suffix: str | None = None
    n: Annotated[int, Field(ge=1, le=MOST_REPLIES)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_REPLIES)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=_MOST_TOKENS)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Any = None
    grammar: str | None = None
    json_schema: Any = None
    timings_per_token: bool | None = None


@router.post("/completions")
async def completions(request: Request, core: Core) -> Response:
    fields, bridge = await fields_of(request), bridge_of(request)
    order = await bridge.call(order_of, core, request, fields)
    if order.nothing is not None:
        return JSONResponse(order.nothing)
    if order.stream:
        return Events(bridge, order.jobs, order.writer())
    return JSONResponse(_whole(order.asked, order.model, order.prompts, await replies(request, order.jobs)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants of the replies' form."""

    prompts: tuple[Pieces, ...]
    count: int
    """Replies to each prompt that are given."""
    tries: int
    """Replies to each prompt that are made."""
    schema: JsonObject | None
    top: int | None
    echo: bool
    usage: bool
    timings: bool

    @classmethod
    def of(cls, body: CompletionBody) -> Asked:
        """Raises `Refused`."""
        prompts, count = prompts_of(body.prompt, "prompt"), body.n or 1
        tries = body.best_of or count
        if tries < count:
            raise Refused(f"best_of is {tries}, less than n, {count}", param="best_of")
        if body.stream and tries > count:
            raise Refused("the best of several replies cannot be streamed", param="best_of")
        if len(prompts) * tries > MOST_PROMPTS:
            raise Refused(f"that makes {len(prompts) * tries:,} replies, more than {MOST_PROMPTS}", param="prompt")
        if body.echo and body.logprobs is not None:
            raise Refused(
                "log-probabilities of an echoed prompt are not given", param="logprobs", hint="leave out echo"
            )
        return cls(
            prompts=prompts,
            count=count,
            tries=tries,
            schema=_schema(body),
            top=body.logprobs,
            echo=bool(body.echo),
            usage=body.stream_options is not None and bool(body.stream_options.include_usage),
            timings=bool(body.timings_per_token),
        )

    def request(self, model: Model, body: CompletionBody, headers: dict[str, Any]) -> ModelRequest:
        compare = self.tries > self.count and self.top is None
        return ModelRequest(
            prompt="",
            suffix=body.suffix or None,
            max_tokens=_length(body),
            logprobs=0 if compare else self.top,
            schema=self.schema,
            grammar=body.grammar or None,
            **body.sampling(model),
            **headers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done for one request, and in which form it is told."""

    asked: Asked
    model: str
    prompts: list[str]
    jobs: list[Job]
    stream: bool
    nothing: dict[str, Any] | None = None
    """The answer to a request of no tokens."""

    def writer(self) -> TextStream:
        return TextStream(self.asked, self.model, self.prompts)


def order_of(core: App, connection: HTTPConnection, fields: dict[str, Any]) -> Order:
    """May wait for a model. Raises `Refused`, `NotFound`, `ModelError`."""
    body = parse(CompletionBody, fields)
    asked = Asked.of(body)
    model = resolve(core, connection, body.model)
    prompts = written(model, asked.prompts)
    nothing = _nothing_new(asked, model, prompts) if body.max_tokens == 0 else None
    base = asked.request(model, body, of_headers(connection))
    speaker = Filler(model) if base.suffix else model
    jobs = [job for prompt in prompts for job in several(speaker, replace(base, prompt=prompt), asked.tries)]
    if nothing is not None:
        jobs = []
    return Order(asked=asked, model=model.name, prompts=prompts, jobs=jobs, stream=bool(body.stream), nothing=nothing)


class TextStream:
    """Writes pieces of replies as `text_completion`s; see `events.Writer`."""

    def __init__(self, asked: Asked, model: str, prompts: list[str]) -> None:
        self._asked = asked
        self._prompts = prompts
        self._head = _head(model)
        self._heard: set[int] = set()
        self._offsets: dict[int, int] = {}
        self._replies: dict[int, ModelReply] = {}
        self._began = time.monotonic()
        self._first = 0.0

    def begin(self) -> list[str]:
        if not self._asked.echo:
            return []
        texts = [prompt for prompt in self._prompts for _ in range(self._asked.count)]
        return [self._chunk(index, text) for index, text in enumerate(texts)]

    def heard(self, index: int, delta: Delta) -> list[str]:
        if not self._heard:
            self._first = time.monotonic() - self._began
        self._heard.add(index)
        text = delta.reasoning + delta.text
        if not text and not delta.logprobs:
            return []
        logprobs = None
        if self._asked.top is not None:
            logprobs = _logprobs(delta.logprobs, self._asked.top, self._offsets.get(index, 0))
        self._offsets[index] = self._offsets.get(index, 0) + sum(len(token.token) for token in delta.logprobs)
        return [self._chunk(index, text, logprobs=logprobs)]

    def done(self, index: int, reply: ModelReply) -> list[str]:
        refuse_misfit(reply, self._asked.schema)
        told = () if index in self._heard else deltas_of(reply)
        lines = [line for delta in told for line in self.heard(index, delta)]
        self._replies[index] = reply
        return [*lines, self._chunk(index, "", finish=_finish(reply))]

    def end(self) -> list[str]:
        last: dict[str, Any] = {**self._head, "choices": []}
        if self._asked.usage:
            last["usage"] = usage(*_spent(self._asked, [self._replies[index] for index in sorted(self._replies)]))
        if self._asked.timings and self._replies:
            last["timings"] = timings(self._replies[0], self._first)
        return [event(last), DONE] if len(last) > len(self._head) + 1 else [DONE]

    def failed(self, error: AgentdError) -> list[str]:
        return [event({"error": error_object(error, status_of(error, "/v1"))})]

    def _chunk(
        self, index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish: str | None = None
    ) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return event({**self._head, "choices": [choice], **({"usage": None} if self._asked.usage else {})})


def _whole(asked: Asked, model: str, prompts: list[str], replies: list[ModelReply]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        made = replies[number * asked.tries : (number + 1) * asked.tries]
        for reply in _best(made, asked.count):
            choices.append(_choice(asked, len(choices), prompt, reply))
    return {**_head(model), "choices": choices, "usage": usage(*_spent(asked, replies))}


def _choice(asked: Asked, index: int, prompt: str, reply: ModelReply) -> dict[str, Any]:
    refuse_misfit(reply, asked.schema)
    text = (prompt if asked.echo else "") + reply.reasoning + reply.text
    logprobs = None if asked.top is None else _logprobs(reply.logprobs, asked.top, 0)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": _finish(reply)}


def _nothing_new(asked: Asked, model: Model, prompts: list[str]) -> dict[str, Any]:
    """For a request of no tokens: the prompts, counted."""
    choices = [
        {"index": index, "text": prompt if asked.echo else "", "logprobs": None, "finish_reason": "length"}
        for index, prompt in enumerate(prompt for prompt in prompts for _ in range(asked.count))
    ]
    return {**_head(model.name), "choices": choices, "usage": usage(sum(map(model.count, prompts)), [])}


def _best(made: list[ModelReply], count: int) -> list[ModelReply]:
    """Those whose tokens were the likeliest."""
    if len(made) == count:
        return made

    def likely(reply: ModelReply) -> float:
        return sum(sane(token.logprob) for token in reply.logprobs) / max(1, len(reply.logprobs))

    return sorted(made, key=likely, reverse=True)[:count]


def _spent(asked: Asked, replies: list[ModelReply]) -> tuple[int, list[ModelReply]]:
    """Each prompt's tokens are counted once."""
    return sum(reply.prompt_tokens for reply in replies[:: asked.tries]), replies


def _logprobs(tokens: tuple[TokenLogprob, ...], top: int, start: int) -> dict[str, Any]:
    lengths = [len(token.token) for token in tokens]
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [sane(token.logprob) for token in tokens],
        "top_logprobs": [{text: sane(logprob) for text, logprob in token.top[:top]} for token in tokens],
        "text_offset": list(accumulate(lengths[:-1], initial=start)) if tokens else [],
    }


def _head(model: str) -> dict[str, Any]:
    return {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def _finish(reply: ModelReply) -> str:
    return "length" if reply.finish_reason == "length" else "stop"


def _schema(body: CompletionBody) -> JsonObject | None:
    by_format = schema_of(body.response_format)
    by_field = None if body.json_schema is None else schema_object(body.json_schema, "json_schema")
    one_constraint(response_format=by_format, json_schema=by_field, grammar=body.grammar or None)
    return by_format if by_format is not None else by_field


def _length(body: CompletionBody) -> int | None:
    """The most tokens of a reply; None for the rest of the context."""
    if body.max_tokens is not None:
        return body.max_tokens
    if body.n_predict is None:
        return DEFAULT_TOKENS
    return None if body.n_predict < 0 else max(1, body.n_predict)
