"""The input of `/v1/responses`: a text, or items that are messages, calls and what came of them."""

from __future__ import annotations

from typing import Any, NoReturn

from agentd.api.openai.errors import Refused
from agentd.api.openai.messages import MOST_MESSAGES, call_of, message_of, text_of
from agentd.types import FunctionCall, Message

_IGNORED = ("reasoning",)
"""What a model thought earlier is not told to it again."""


def messages_of_input(given: Any, instructions: str | None) -> tuple[Message, ...]:
    """Raises `Refused`."""
    first = (Message(role="system", content=instructions),) if instructions else ()
    if isinstance(given, str):
        return (*first, Message(role="user", content=given))
    if not isinstance(given, list):
        _wrong("input", "expected a text or a list of items", given)
    if not given or len(given) > MOST_MESSAGES:
        raise Refused(f"input has {len(given):,} items; there may be 1 to {MOST_MESSAGES:,}", param="input")
    found: list[Message] = []
    for number, item in enumerate(given):
        message = _message(item, f"input[{number}]")
        if message is not None:
            _add(found, message)
    if not found:
        raise Refused("input has no message", param="input")
    return (*first, *found)


def _message(item: Any, param: str) -> Message | None:
    if not isinstance(item, dict):
        _wrong(param, "expected an object", item)
    kind = item.get("type", "message")
    if kind in _IGNORED:
        return None
    if kind == "message":
        return message_of(item, param)
    if kind == "function_call":
        call = call_of(_text(item, "call_id", param), item, param)
        return Message(role="assistant", content="", tool_calls=(call,))
    if kind == "function_call_output":
        output = item.get("output")
        return Message(
            role="tool", content=text_of(output, f"{param}.output"), tool_call_id=_text(item, "call_id", param)
        )
    raise Refused(
        f"{param}.type is {ascii(kind)[:40]}; known are message, function_call, function_call_output",
        param=f"{param}.type",
    )


def _add(found: list[Message], message: Message) -> None:
    """Calls that follow what the assistant said are part of the same turn."""
    last = found[-1] if found else None
    if last is None or last.role != "assistant" or message.role != "assistant" or not message.tool_calls:
        found.append(message)
        return
    calls: tuple[FunctionCall, ...] = (*last.tool_calls, *message.tool_calls)
    found[-1] = Message(role="assistant", content=last.content, name=last.name, tool_calls=calls)


def _text(item: dict[str, Any], field: str, param: str) -> str:
    value = item.get(field)
    if not isinstance(value, str):
        _wrong(f"{param}.{field}", "expected a text", value)
    return value


def _wrong(param: str, wanted: str, value: Any) -> NoReturn:
    raise Refused(f"{param}: {wanted}, got {ascii(value)[:80]}", param=param, kind="invalid_type")
