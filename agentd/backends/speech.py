"""The words of chat on the wire of a local model: a request as a frame, and frames as deltas and a reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from agentd.types import Delta, Message, ModelReply, ModelRequest, OnDelta, TokenLogprob

Frame: TypeAlias = dict[str, Any]


def as_frame(request: ModelRequest, *, stream: bool) -> Frame:
    tools = () if request.tool_choice == "none" else request.tools
    return {
        "op": "generate",
        "prompt": request.prompt,
        "suffix": request.suffix,
        "messages": [as_message(message) for message in request.messages],
        "tools": [dict(tool) for tool in tools],
        "think": request.think,
        "max_tokens": max(1, request.max_tokens),
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
        "schema": request.schema,
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
    """What one request hears of its process, as deltas while it comes and as a reply at the end."""

    def __init__(self, request: ModelRequest, on_delta: OnDelta | None) -> None:
        self._on_delta = on_delta
        self.begun = False
        """Whether the listener has heard anything."""

    def hear(self, frame: Frame) -> None:
        if self._on_delta is not None and "delta" in frame:
            self._pass_on(Delta(text=frame["delta"], logprobs=_logprobs(frame)))

    def reply(self, found: Frame, *, model: str, seconds: float) -> ModelReply:
        return ModelReply(
            text=found["text"],
            model=model,
            prompt_tokens=found["prompt_tokens"],
            completion_tokens=found["completion_tokens"],
            seconds=seconds,
            finish_reason=found["finish_reason"],
            logprobs=_logprobs(found),
            reused_tokens=int(found.get("reused_tokens", 0)),
        )

    def _pass_on(self, delta: Delta) -> None:
        assert self._on_delta is not None
        self.begun = True
        self._on_delta(delta)


def _logprobs(frame: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token=token,
            logprob=logprob,
            bytes=tuple(numbers),
            id=number,
            top=tuple((text, value) for text, value in top),
        )
        for token, logprob, numbers, number, top in frame.get("logprobs") or ()
    )
