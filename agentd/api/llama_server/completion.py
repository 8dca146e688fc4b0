"""`/completion` and `/infill`: a text is continued, or a hole in a file is filled."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from agentd.api.deps import Core
from agentd.api.openai.asking import bridge_of, fields_of, of_headers, timed_replies
from agentd.api.openai.body import Body, parse
from agentd.api.openai.bridge import Job
from agentd.api.openai.errors import Refused, error_object
from agentd.api.openai.events import DONE, Events, event
from agentd.api.openai.filling import Filler
from agentd.api.openai.models import resolve
from agentd.api.openai.prompts import Pieces, prompts_of, written
from agentd.api.openai.sampling import FORBIDS, Sampled, one_constraint
from agentd.api.openai.tools import schema_object
from agentd.api.openai.words import refuse_misfit, sane, timings
from agentd.api.problems import status_of
from agentd.backends.attempts import deltas_of
from agentd.backends.router import RoutedModel
from agentd.errors import AgentdError, ModelError
from agentd.types import Delta, Model, ModelReply, ModelRequest, TokenLogprob

router = APIRouter()

MOST_PROBABLE = 100
_OFF = {
    "adaptive_decay": 0.0,
    "adaptive_target": -1.0,
    "dry_multiplier": 0.0,
    "dynatemp_range": 0.0,
    "mirostat": 0,
    "top_n_sigma": -1.0,
    "typical_p": 1.0,
    "xtc_probability": 0.0,
}
"""Ways of choosing tokens that are not here, in the words in which llama.cpp says that they are switched off."""


class CompletionBody(Sampled):
    """In the words of llama.cpp's server."""

    prompt: Any
    stream: bool = False
    n_probs: Annotated[int, Field(ge=0, le=MOST_PROBABLE)] = 0
    post_sampling_probs: bool = False
    return_tokens: bool = False
    response_fields: list[str] = Field(default_factory=list)
    grammar: str | None = None
    json_schema: Any = None
    timings_per_token: bool = False


class Extra(Body):
    filename: str = ""
    text: str


class InfillBody(CompletionBody):
    prompt: Any = ""
    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: list[Extra] = Field(default_factory=list)


@router.post("/completion")
@router.post("/completions")
async def completion(request: Request, core: Core) -> Response:
    body = parse(CompletionBody, await fields_of(request))
    return await _answer(request, core, body, prompts_of(body.prompt, "prompt"), suffix=None)


@router.post("/infill")
async def infill(request: Request, core: Core) -> Response:
    body = parse(InfillBody, await fields_of(request))
    if not isinstance(body.prompt, str):
        raise Refused("prompt: expected a text", param="prompt")
    files = "".join(f"{extra.filename}\n{extra.text}\n" for extra in body.input_extra)
    whole = f"{files}{body.input_prefix}{body.prompt}"
    return await _answer(request, core, body, ((whole,),), suffix=body.input_suffix)


async def _answer(
    request: Request, core: Core, body: CompletionBody, prompts: tuple[Pieces, ...], suffix: str | None
) -> Response:
    bridge = bridge_of(request)
    model = await bridge.call(resolve, core, request, body.model)
    texts = await bridge.call(written, model, prompts)
    base = await bridge.call(_request, body, model, suffix, of_headers(request))
    speaker = model if suffix is None else Filler(model)
    jobs: list[Job] = [(speaker, replace(base, prompt=text)) for text in texts]
    page = Page(body, base, texts, await bridge.call(_ends, model) if body.ignore_eos else [])
    if body.stream:
        return Events(bridge, jobs, PieceStream(page))
    told = await timed_replies(request, jobs)
    found = [page.whole(index, reply, first) for index, (reply, first) in enumerate(told)]
    return JSONResponse(found if isinstance(body.prompt, list) and len(found) > 1 else found[0])


def _request(body: CompletionBody, model: Model, suffix: str | None, headers: dict[str, Any]) -> ModelRequest:
    schema = None if body.json_schema is None else schema_object(body.json_schema, "json_schema")
    one_constraint(json_schema=schema, grammar=body.grammar or None)
    # The numbers of tokens come with their log-probabilities.
    tokens = body.n_probs or body.stream or body.return_tokens
    length = None if body.n_predict is None or body.n_predict < 0 else max(1, body.n_predict)
    return ModelRequest(
        prompt="",
        suffix=suffix,
        max_tokens=length,
        schema=schema,
        grammar=body.grammar or None,
        logprobs=body.n_probs if tokens else None,
        **body.sampling(model),
        **headers,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """How replies to one request are written."""

    body: CompletionBody
    request: ModelRequest
    prompts: list[str]
    ends: list[int]
    """Tokens that would end a reply and are not taken into account."""

    def whole(self, index: int, reply: ModelReply, first: float) -> dict[str, Any]:
        """A finished reply that began after `first` seconds. Raises `BadReply`."""
        refuse_misfit(reply, self.request.schema)
        found = self.end(index, reply, first) | {
            "content": reply.reasoning + reply.text,
            "tokens": [token.id for token in reply.logprobs] if self.body.return_tokens else [],
        }
        if self.body.n_probs:
            found["completion_probabilities"] = self.probabilities(reply.logprobs)
        return self._wanted(found)

    def piece(self, index: int, delta: Delta) -> dict[str, Any]:
        found: dict[str, Any] = {
            "index": index,
            "content": delta.reasoning + delta.text,
            "tokens": [token.id for token in delta.logprobs],
            "stop": False,
        }
        if self.body.n_probs:
            found["completion_probabilities"] = self.probabilities(delta.logprobs)
        return found

    def end(self, index: int, reply: ModelReply, first: float) -> dict[str, Any]:
        """Everything but the text."""
        return {
            "index": index,
            "content": "",
            "tokens": [],
            "stop": True,
            "model": reply.model,
            "tokens_predicted": reply.completion_tokens,
            "tokens_evaluated": reply.prompt_tokens,
            "tokens_cached": reply.reused_tokens,
            "generation_settings": self._settings(),
            "prompt": self.prompts[index],
            "has_new_line": "\n" in reply.text,
            "truncated": False,
            "stop_type": "limit" if reply.finish_reason == "length" else "eos",
            "stopping_word": "",
            "timings": timings(reply, first),
        }

    def probabilities(self, tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        after = self.body.post_sampling_probs
        return [
            _probable(token.token, token.logprob, token.id, after)
            | {
                "top_probs" if after else "top_logprobs": [
                    _probable(text, logprob, number, after)
                    for (text, logprob), number in zip(token.top, token.top_ids or repeat(-1), strict=False)
                ]
            }
            for token in tokens
        ]

    def _settings(self) -> dict[str, Any]:
        asked = self.request
        names = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
        settings = {name: getattr(asked, name) for name in (*names, "seed", "ignore_eos")}
        length = -1 if asked.max_tokens is None else asked.max_tokens
        biases = {token: None if by <= FORBIDS else by for token, by in asked.logit_bias.items()}
        return (
            settings
            | _OFF
            | {
                "n_predict": length,
                "max_tokens": length,
                "stop": list(asked.stop),
                "stream": self.body.stream,
                "n_probs": self.body.n_probs,
                "post_sampling_probs": self.body.post_sampling_probs,
                "timings_per_token": self.body.timings_per_token,
                "grammar": asked.grammar or "",
                "logit_bias": [
                    {"token": token, "bias": by} for token, by in (biases | dict.fromkeys(self.ends, None)).items()
                ],
            }
        )

    def _wanted(self, found: dict[str, Any]) -> dict[str, Any]:
        """The fields that were asked for, `a/b` being one inside another; all when none were."""
        if not self.body.response_fields:
            return found
        wanted = {}
        for path in self.body.response_fields:
            value: Any = found
            for part in path.split("/"):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                wanted[path] = value
        return wanted


class PieceStream:
    """Writes pieces of replies as llama.cpp's server does; see `events.Writer`."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._heard: set[int] = set()
        self._began = time.monotonic()
        self._first = 0.0

    def begin(self) -> list[str]:
        return []

    def heard(self, index: int, delta: Delta) -> list[str]:
        if not delta.text and not delta.reasoning and not delta.logprobs:
            return []
        self._first = self._first or time.monotonic() - self._began
        self._heard.add(index)
        return [event(self._page.piece(index, delta))]

    def done(self, index: int, reply: ModelReply) -> list[str]:
        refuse_misfit(reply, self._page.request.schema)
        told = () if index in self._heard else deltas_of(reply)
        lines = [line for delta in told for line in self.heard(index, delta)]
        return [*lines, event(self._page.end(index, reply, self._first))]

    def end(self) -> list[str]:
        return [DONE]

    def failed(self, error: AgentdError) -> list[str]:
        return [event({"error": error_object(error, status_of(error, "/v1"))})]


def _ends(model: Model) -> list[int]:
    """The tokens that end a text of this model, where they are known."""
    if isinstance(model, RoutedModel):
        with suppress(ModelError):  # it is remote, or scripted
            texts = model.stats().get("stop_tokens", ())
            return [token for text in texts for token in model.tokenize(text, controls=True)["tokens"]]
    return []


def _probable(text: str, logprob: float, number: int, after: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"id": number, "token": text, "bytes": list(text.encode("utf-8", "replace"))}
    return found | ({"prob": math.exp(sane(logprob))} if after else {"logprob": sane(logprob)})
