"""A value of a wanted form from a model: a grammar where it can, validation always, one retry that says why."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError

from agentd.backends.json_schema import problems
from agentd.errors import BadReply, NoGrammar
from agentd.fences import blocks
from agentd.types import JsonObject, Message, Model, ModelReply, ModelRequest

T = TypeVar("T")
Check: TypeAlias = Callable[[Any], str]

_THOUGHT = re.compile(r"^.*</think>|<think>.*\Z", re.DOTALL)
_MOST_STARTS = 200


@overload
def ask(
    model: Model,
    messages: Sequence[Message],
    kind: type[T],
    *,
    max_tokens: int = ...,
    temperature: float = ...,
    client: str = ...,
    cancel: threading.Event | None = ...,
    check: Callable[[T], str] | None = ...,
) -> T: ...


@overload
def ask(
    model: Model,
    messages: Sequence[Message],
    kind: JsonObject,
    *,
    max_tokens: int = ...,
    temperature: float = ...,
    client: str = ...,
    cancel: threading.Event | None = ...,
    check: Callable[[dict[str, Any]], str] | None = ...,
) -> dict[str, Any]: ...


def ask(
    model: Model,
    messages: Sequence[Message],
    kind: Any,
    *,
    max_tokens: int = 2048,
    temperature: float = 0.0,
    client: str = "",
    cancel: threading.Event | None = None,
    check: Check | None = None,
) -> Any:
    """A value of `kind`: a type that pydantic knows (dataclass, list[int] ...) or a JSON Schema, which gives a dict.

    `check(value)` says what else is wrong, in words for the model; an empty text is good. Raises `BadReply` when the
    second reply is wrong too, and what the model raises.
    """
    form = _Form(kind, check)
    request = ModelRequest(
        messages=tuple(messages),
        schema=form.schema,
        max_tokens=max_tokens,
        temperature=temperature,
        client=client,
    )
    reply = _chat(model, request, cancel)
    value, wrong = form.read(reply)
    if not wrong:
        return value
    again = (
        *messages,
        Message(role="assistant", content=reply.text),
        Message(role="user", content=_advice(wrong, form.schema)),
    )
    reply = _chat(model, replace(request, messages=again), cancel)
    value, wrong = form.read(reply)
    if wrong:
        raise BadReply(
            f"{model.name} gave no usable reply, also after it was told why: {'; '.join(wrong)}",
            hint="a larger model may do better",
        )
    return value


def choose(
    model: Model,
    messages: Sequence[Message],
    choices: Sequence[str],
    *,
    client: str = "",
    cancel: threading.Event | None = None,
) -> str:
    """One of `choices`. Raises `BadReply`, and what the model raises."""
    request = ModelRequest(messages=tuple(messages), choices=tuple(choices), client=client, max_tokens=64)
    text = model.chat(request, None, cancel).text
    for found in (text, text.strip()):
        if found in choices:
            return found
    raise BadReply(f"{model.name} chose {text!r:.200}; the choices are {', '.join(choices)}")


def values_in(text: str) -> Iterator[Any]:
    """JSON values in a model's reply, likeliest first: all of it, fenced blocks, then whatever begins like one."""
    text = _THOUGHT.sub("", text).strip()
    for candidate in (text, *(block.body for block in blocks(text) if block.closed)):
        try:
            yield _decode(candidate)
        except (ValueError, RecursionError):
            continue
    for start in [found.start() for found in re.finditer(r"[{\[]", text)][:_MOST_STARTS]:
        try:
            yield _DECODER.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue


class _Form:
    """What is wanted: its schema, and how a reply is read."""

    def __init__(self, kind: Any, check: Check | None) -> None:
        self._adapter: TypeAdapter[Any] | None = None if isinstance(kind, Mapping) else _adapter(kind)
        self.schema: JsonObject = kind if self._adapter is None else self._adapter.json_schema()
        self._check = check

    def read(self, reply: ModelReply) -> tuple[Any, list[str]]:
        """The value, and what is wrong with the reply; nothing when it can be used."""
        first: list[str] = []
        for value in values_in(reply.text):
            made, wrong = self._validate(value)
            if not wrong:
                return made, []
            first = first or wrong
        if not first:
            cut = f" (it was cut off after {reply.completion_tokens} tokens)" if reply.finish_reason == "length" else ""
            first = [f"reply: expected JSON, got {reply.text[:200]!r}{cut}"]
        return None, first

    def _validate(self, value: Any) -> tuple[Any, list[str]]:
        if self._adapter is None:
            made, wrong = value, problems(value, self.schema)
        else:
            try:
                made, wrong = self._adapter.validate_python(value), []
            except ValidationError as error:
                return None, [_describe(each) for each in error.errors()[:5]]
        if not wrong and self._check is not None and (said := self._check(made)):
            wrong = [said]
        return made, wrong


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _chat(model: Model, request: ModelRequest, cancel: threading.Event | None) -> ModelReply:
    try:
        return model.chat(request, None, cancel)
    except NoGrammar:
        return model.chat(replace(request, schema=None), None, cancel)


def _advice(wrong: Sequence[str], schema: JsonObject) -> str:
    lines = "\n".join(f"- {each}" for each in wrong)
    return (
        f"That reply cannot be used:\n{lines}\nReply again with JSON only, of this schema:\n"
        f"{json.dumps(schema, ensure_ascii=False, separators=(',', ':'))}"
    )


def _describe(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "reply"
    if error["type"] == "missing":
        return f"{where}: expected a value, got nothing"
    return f"{where}: {error['msg']}, got {error['input']!r:.120}"


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _decode(text: str) -> Any:
    return cast("Any", _DECODER.decode(text.strip()))
