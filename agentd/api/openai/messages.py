"""A conversation as clients send it: roles, texts in parts, calls of tools and what came of them."""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from agentd.api.openai.errors import Refused
from agentd.types import FunctionCall, Message

Role = Literal["system", "user", "assistant", "tool"]

MOST_MESSAGES = 10_000
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Type of a part -> where its text stands."""


def messages_of(given: Any, param: str = "messages") -> tuple[Message, ...]:
    """Raises `Refused` for what is no conversation."""
    if not isinstance(given, list):
        _wrong(param, "expected a list of messages", given)
    if not given:
        raise Refused(f"{param} is empty", param=param)
    if len(given) > MOST_MESSAGES:
        raise Refused(f"{param} has {len(given):,} messages, more than {MOST_MESSAGES:,}", param=param)
    found = tuple(message_of(each, f"{param}[{number}]") for number, each in enumerate(given))
    if [message.role for message in found[-2:]] == ["assistant", "assistant"]:
        raise Refused("the last two messages are both the assistant's", param=f"{param}[{len(found) - 1}]")
    return found


def text_of(content: Any, param: str, *, between: str = "\n") -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        _wrong(param, "expected a text or a list of parts", content)
    return between.join(_part(each, f"{param}[{number}]") for number, each in enumerate(content))


def message_of(given: Any, param: str) -> Message:
    """Raises `Refused` for what is no message."""
    if not isinstance(given, dict):
        _wrong(param, "expected an object", given)
    role = _role(given, param)
    calls = _calls(given, param) if role == "assistant" else ()
    name = _optional_text(given, "name", param)
    answered = _optional_text(given, "tool_call_id", param) if role == "tool" else ""
    return Message(
        role=role, content=_content(given, role, calls, param), name=name, tool_calls=calls, tool_call_id=answered
    )


def _role(given: dict[str, Any], param: str) -> Role:
    if "role" not in given:
        raise Refused(f"{param}.role is missing", param=f"{param}.role", kind="missing_required_parameter")
    role = given["role"]
    if not isinstance(role, str) or role not in _ROLES:
        _wrong(f"{param}.role", f"expected one of {', '.join(_ROLES)}", role)
    return _ROLES[role]


def _content(given: dict[str, Any], role: Role, calls: tuple[FunctionCall, ...], param: str) -> str:
    content = given.get("content")
    if content is not None:
        return text_of(content, f"{param}.content", between="" if role == "assistant" else "\n")
    if role == "assistant" and (calls or "content" in given):
        refusal = given.get("refusal")
        return refusal if isinstance(refusal, str) else ""
    raise Refused(f"{param}.content is missing", param=f"{param}.content", kind="missing_required_parameter")


def _part(given: Any, param: str) -> str:
    if isinstance(given, str):
        return given
    if not isinstance(given, dict):
        _wrong(param, "expected an object with a type", given)
    kind = given.get("type")
    if not isinstance(kind, str):
        _wrong(f"{param}.type", "expected a text", kind)
    if kind not in _TEXTS:
        raise Refused(
            f"{param}.type is {kind[:40]!r}; models here read text only",
            param=f"{param}.type",
            kind="unsupported_content",
            hint="send parts of the type text",
        )
    text = given.get(_TEXTS[kind])
    if not isinstance(text, str):
        _wrong(f"{param}.{_TEXTS[kind]}", "expected a text", text)
    return text


def _calls(given: dict[str, Any], param: str) -> tuple[FunctionCall, ...]:
    legacy = given.get("function_call")
    if legacy is not None:
        return (call_of("", legacy, f"{param}.function_call"),)
    calls = given.get("tool_calls")
    if calls is None:
        return ()
    if not isinstance(calls, list):
        _wrong(f"{param}.tool_calls", "expected a list", calls)
    return tuple(_call(each, f"{param}.tool_calls[{number}]") for number, each in enumerate(calls))


def _call(given: Any, param: str) -> FunctionCall:
    if not isinstance(given, dict):
        _wrong(param, "expected an object", given)
    if given.get("type", "function") != "function":
        raise Refused(f"{param}.type: only calls of functions are known here", param=f"{param}.type")
    return call_of(_optional_text(given, "id", param), given.get("function"), f"{param}.function")


def call_of(number: str, function: Any, param: str) -> FunctionCall:
    """The call `number` of `{"name", "arguments"}`."""
    if not isinstance(function, dict):
        _wrong(param, "expected an object", function)
    name, arguments = function.get("name"), function.get("arguments", "{}")
    if not isinstance(name, str) or not name:
        _wrong(f"{param}.name", "expected a text", name)
    if not isinstance(arguments, str):
        _wrong(f"{param}.arguments", "expected JSON as a text", arguments)
    return FunctionCall(id=number, name=name, arguments=arguments)


def _optional_text(given: dict[str, Any], field: str, param: str) -> str:
    value = given.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        _wrong(f"{param}.{field}", "expected a text", value)
    return value


def _wrong(param: str, wanted: str, value: Any) -> NoReturn:
    raise Refused(f"{param}: {wanted}, got {ascii(value)[:80]}", param=param, kind="invalid_type")
