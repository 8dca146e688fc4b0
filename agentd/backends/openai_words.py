"""A `ModelRequest` in the words of OpenAI's API, for servers that understand more or less of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from agentd.backends.chat_template import in_words
from agentd.types import JsonObject, Message, ModelRequest

Form: TypeAlias = Literal["json_schema", "json_object", "tools", "text"]
FORMS: tuple[Form, ...] = ("json_schema", "json_object", "tools", "text")
"""The ways in which a server can be held to a JSON schema, the surest first; with `text` it cannot."""

REPLY_TOOL = "reply"
_DEFAULTS = ModelRequest()
_OPTIONAL = ("stream_options", "seed", "top_k", "min_p", "repeat_penalty", "ignore_eos", "chat_template_kwargs")
"""What a server may do without: left out for one that complains of it."""


@dataclass(slots=True)
class Abilities:
    """What is known of a model on a server; learned when it is tested, and from what it refuses."""

    form: Form = "json_schema"
    streams: bool = True
    tools: bool = True
    """Else they are described in words, and calls are read out of the text."""
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What it calls the most tokens of a reply."""
    without: set[str] = field(default_factory=set)
    """Optional parameters that it does not take."""

    def learn(self, said: str, payload: Mapping[str, Any]) -> bool:
        """Take from what a server said to a refused request what it cannot do; whether anything was learned."""
        if "max_completion_tokens" in said and "max_tokens" in payload and self.limit == "max_tokens":
            self.limit = "max_completion_tokens"
            return True
        named = {name for name in _OPTIONAL if name in said and name in payload} - self.without
        self.without |= named
        return bool(named)


def path_of(request: ModelRequest) -> str:
    """Below the server's base URL."""
    return "/chat/completions" if request.prompt is None else "/completions"


def payload_of(request: ModelRequest, model: str, able: Abilities, *, stream: bool, think: bool) -> dict[str, Any]:
    """The body of the request. `think`: whether the model is one that can be told to think, or not to."""
    payload: dict[str, Any] = {"model": model, **_sampling(request)}
    if request.max_tokens is not None:
        payload[able.limit if request.prompt is None else "max_tokens"] = request.max_tokens
    if request.prompt is not None:
        payload["prompt"] = request.prompt
        if request.suffix is not None:
            payload["suffix"] = request.suffix
        if request.logprobs is not None:
            payload["logprobs"] = request.logprobs
    else:
        payload |= _chat(request, able)
    if stream:
        payload |= {"stream": True, "stream_options": {"include_usage": True}}
    if think and request.prompt is None:
        payload["chat_template_kwargs"] = {"enable_thinking": request.think}
    return {name: value for name, value in payload.items() if name not in able.without}


def _chat(request: ModelRequest, able: Abilities) -> dict[str, Any]:
    payload: dict[str, Any] = {"messages": [_message(each) for each in request.messages]}
    if request.logprobs is not None:
        payload |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.tools and request.tool_choice != "none":
        if able.tools:
            payload |= {"tools": [_tool(each) for each in request.tools], "tool_choice": request.tool_choice}
        else:
            payload["messages"] = _with_tools_in_words(request)
    if request.schema is not None:
        payload |= _held_to(request.schema, request.messages, able.form)
    return payload


def _with_tools_in_words(request: ModelRequest) -> list[dict[str, Any]]:
    """For a server that knows no tools: they are described to the model, and earlier calls are shown as text."""
    messages = [_message(each) for each in request.messages]
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = _parsed(call["function"]["arguments"])
    told = in_words(messages, [_tool(each) for each in request.tools])
    if request.tool_choice == "required":
        told.append({"role": "user", "content": "Call one of the functions now."})
    return told


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments  # as the model wrote it


def _held_to(schema: JsonObject, messages: Sequence[Message], form: Form) -> dict[str, Any]:
    if form == "json_schema":
        inner = {"name": REPLY_TOOL, "schema": schema, "strict": _is_strict(schema)}
        return {"response_format": {"type": "json_schema", "json_schema": inner}}
    if form == "tools":
        tool = {"name": REPLY_TOOL, "description": "Give the reply.", "parameters": schema}
        choice = {"type": "function", "function": {"name": REPLY_TOOL}}
        return {"tools": [_tool(tool)], "tool_choice": choice}
    told = f"Reply with one JSON object of this schema and nothing else:\n{json.dumps(schema, ensure_ascii=False)}"
    told_messages = [*messages, Message(role="user", content=told)] if form == "json_object" else messages
    return {"response_format": {"type": "json_object"}, "messages": [_message(each) for each in told_messages]}


def _sampling(request: ModelRequest) -> dict[str, Any]:
    """What differs from doing nothing: servers refuse parameters that they do not know."""
    sampling: dict[str, Any] = {"temperature": request.temperature}
    if request.temperature > 0:
        sampling |= {"top_p": request.top_p, "seed": request.seed}
    for name in ("top_k", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty", "ignore_eos"):
        value = getattr(request, name)
        if value != getattr(_DEFAULTS, name):
            sampling[name] = value
    if request.logit_bias:
        sampling["logit_bias"] = {str(token): bias for token, bias in request.logit_bias.items()}
    if request.stop:
        sampling["stop"] = list(request.stop)
    return sampling


def _message(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        said["name"] = message.name
    if message.tool_calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        said["tool_call_id"] = message.tool_call_id
    return said


def _tool(tool: JsonObject) -> dict[str, Any]:
    return {"type": "function", "function": dict(tool)}


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI's own strict mode takes the schema: every object lists all its properties and allows no others."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" or "properties" in schema:
            properties = schema.get("properties")
            if not isinstance(properties, Mapping) or schema.get("additionalProperties") is not False:
                return False
            if set(schema.get("required", ())) != set(properties):
                return False
        return all(_is_strict(value) for value in schema.values())
    return all(_is_strict(value) for value in schema) if isinstance(schema, list) else True
