"""The words of chat on the wire of a local model: a request as a frame, and frames as deltas and a reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from agentd.backends.dialects import DIALECTS, Dialect, Reading, call_schema
from agentd.errors import BadReply
from agentd.types import Delta, FunctionCall, JsonObject, Message, ModelReply, ModelRequest, OnDelta, TokenLogprob

Frame: TypeAlias = dict[str, Any]

_ALL = 1 << 30
"""More tokens than any context has."""


def as_frame(request: ModelRequest, *, stream: bool) -> Frame:
    schema = call_schema(request.tools) if _must_call(request) else request.schema
    return {
        "op": "generate",
        "prompt": request.prompt,
        "suffix": request.suffix,
        "messages": [as_message(message) for message in request.messages],
        "tools": [dict(tool) for tool in _offered(request)],
        "think": request.think,
        "max_tokens": _ALL if request.max_tokens is None else max(1, request.max_tokens),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "repeat_penalty": request.repeat_penalty,
        "logit_bias": {str(token): bias for token, bias in request.logit_bias.items()},
        "logprobs": request.logprobs,
        "seed": request.seed,
        "stop": list(request.stop),
        "ignore_eos": request.ignore_eos,
        "schema": schema,
        "grammar": request.grammar,
        "choices": None if request.choices is None else list(request.choices),
        "stream": stream,
        "priority": str(request.priority),
    }


def as_message(message: Message) -> Frame:
    """In the form in which chat templates know messages."""
    found: Frame = {"role": message.role, "content": message.content}
    if message.name:
        found["name"] = message.name
    if message.tool_call_id:
        found["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found


class Speech:
    """What one request hears of its process, as deltas while it comes and as a reply at the end.

    Thoughts and calls are told from text, except in raw completions and in replies that a schema, a grammar or choices
    hold.
    """

    def __init__(self, request: ModelRequest, on_delta: OnDelta | None, *, dialect: str | None = None) -> None:
        """`dialect`: the only one in which calls are looked for; None, or one that is not known, for all."""
        self._on_delta = on_delta
        self._tools = _offered(request)
        self._required = _must_call(request)
        named = "json" if self._required else dialect
        self._dialect: Dialect | None = next((each for each in DIALECTS if each == named), None)
        held = (request.schema, request.grammar, request.choices) != (None, None, None)
        self._reading = None if request.prompt is not None or held else Reading(self._tools, dialect=self._dialect)
        self.begun = False
        """Whether the listener has heard anything."""

    def hear(self, frame: Frame) -> None:
        """A frame before the last. The first may say that the prompt itself has begun a thought."""
        if frame.get("thinking"):
            self._think()
        if self._on_delta is not None and "delta" in frame:
            self._pass_on(self._read(frame["delta"]), _logprobs(frame))

    def reply(self, found: Frame, *, model: str, seconds: float) -> ModelReply:
        """Raises `BadReply` when a call was required and none came."""
        text, reason = found["text"], found["finish_reason"]
        reasoning = ""
        calls: tuple[FunctionCall, ...] = ()
        if self._reading is not None:
            if self._on_delta is None:
                self.hear({"thinking": found.get("thinking")})
                self._reading.feed(text)
            calls = self._finish(self._reading, cut=reason == "length")
            text, reasoning = self._reading.text, self._reading.reasoning
            reason = "tool_calls" if calls and reason == "stop" else reason
        if self._required and not calls and reason != "length":
            raise BadReply(f"{model} was to call a function and did not: {text!r:.200}")
        return ModelReply(
            text=text,
            model=model,
            prompt_tokens=found["prompt_tokens"],
            completion_tokens=found["completion_tokens"],
            seconds=seconds,
            finish_reason=reason,
            reasoning=reasoning,
            tool_calls=calls,
            logprobs=_logprobs(found),
            reused_tokens=int(found.get("reused_tokens", 0)),
        )

    def _finish(self, reading: Reading, *, cut: bool) -> tuple[FunctionCall, ...]:
        """The calls. One that is whole only because its end was guessed counts unless the reply was cut off."""
        before = reading.calls
        deltas = reading.end()
        self._pass_on([delta for delta in deltas if not (cut and delta.call)], ())
        return before if cut else reading.calls

    def _think(self) -> None:
        if self._reading is not None and not self._required:
            self._reading = Reading(self._tools, dialect=self._dialect, thinking=True)

    def _read(self, text: str) -> list[Delta]:
        return [Delta(text=text)] if self._reading is None else self._reading.feed(text)

    def _pass_on(self, deltas: Sequence[Delta], logprobs: tuple[TokenLogprob, ...]) -> None:
        """Log-probabilities go with the first of what they brought, or alone."""
        if self._on_delta is None:
            return
        if logprobs:
            deltas = [replace(next(iter(deltas), Delta()), logprobs=logprobs), *deltas[1:]]
        for delta in deltas:
            self.begun = True
            self._on_delta(delta)


def _offered(request: ModelRequest) -> tuple[JsonObject, ...]:
    return () if request.tool_choice == "none" else request.tools


def _must_call(request: ModelRequest) -> bool:
    return request.tool_choice == "required" and bool(request.tools)


def _logprobs(frame: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token=token,
            logprob=logprob,
            bytes=tuple(numbers),
            id=number,
            top=tuple((text, value) for text, value, _ in top),
            top_ids=tuple(each for _, _, each in top),
        )
        for token, logprob, numbers, number, top in frame.get("logprobs") or ()
    )
