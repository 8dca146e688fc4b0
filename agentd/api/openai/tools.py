"""What a reply may or must be: functions that a model may call, and forms of JSON that it must hold to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from agentd.api.openai.errors import Refused
from agentd.types import JsonObject

Mode: TypeAlias = Literal["none", "auto", "required"]

MOST_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_ANY_OBJECT: JsonObject = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The functions that may be called, and whether one must be."""

    tools: tuple[JsonObject, ...] = ()
    mode: Mode = "auto"


def choice_of(tools: Any, tool_choice: Any, *, flat: bool = False) -> Choice:
    """Of `tools` and `tool_choice`; `flat` as /v1/responses writes them. Raises `Refused`."""
    found = _list(tools, "tools", lambda each, param: _tool(each, param, flat=flat))
    if tool_choice is None or isinstance(tool_choice, str):
        return _by_mode(found, tool_choice)
    if not isinstance(tool_choice, dict):
        _wrong("tool_choice", "expected none, auto, required or a function", tool_choice)
    if tool_choice.get("type") == "allowed_tools":
        return _among(found, tool_choice.get("allowed_tools", tool_choice), flat=flat)
    return _named(found, _wanted(tool_choice, "tool_choice", flat=flat), "tool_choice")


def legacy_choice(functions: Any, function_call: Any) -> Choice:
    """Of `functions` and `function_call`, as OpenAI's first models had them. Raises `Refused`."""
    found = _list(functions, "functions", _function)
    if function_call is None or function_call in ("none", "auto"):
        return _by_mode(found, function_call)
    name = function_call.get("name") if isinstance(function_call, dict) else None
    if not isinstance(name, str):
        _wrong("function_call", "expected none, auto or the name of a function", function_call)
    return _named(found, name, "function_call")


def schema_of(response_format: Any, param: str = "response_format") -> JsonObject | None:
    """The JSON Schema that a `response_format` asks for; None for plain text. Raises `Refused`."""
    if response_format is None:
        return None
    if not isinstance(response_format, dict):
        _wrong(param, "expected an object with a type", response_format)
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return schema_object(response_format.get("schema", {"type": "object"}), f"{param}.schema")
    if kind == "json_schema":
        # /v1/responses has the schema here, /v1/chat/completions one deeper.
        deeper = response_format.get("json_schema", response_format)
        if not isinstance(deeper, dict):
            _wrong(f"{param}.json_schema", "expected an object", deeper)
        if "schema" not in deeper:
            raise Refused(f"{param} has no schema", param=f"{param}.json_schema", kind="missing_required_parameter")
        return schema_object(deeper["schema"], f"{param}.json_schema.schema")
    raise Refused(
        f"{param}.type is {ascii(kind)[:40]}; there are text, json_object, json_schema", param=f"{param}.type"
    )


def schema_object(schema: Any, param: str) -> JsonObject:
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        _wrong(param, "expected a JSON Schema", schema)
    return schema


def _by_mode(tools: tuple[JsonObject, ...], mode: str | None) -> Choice:
    if mode in (None, "auto"):
        return Choice(tools=tools)
    if mode == "none":
        return Choice(tools=tools, mode="none")
    if mode not in ("required", "any"):
        _wrong("tool_choice", "expected none, auto, required or a function", mode)
    if not tools:
        raise Refused("tool_choice asks for a call, but there are no tools", param="tool_choice")
    return Choice(tools=tools, mode="required")


def _named(tools: tuple[JsonObject, ...], name: str, param: str) -> Choice:
    chosen = tuple(tool for tool in tools if tool["name"] == name)
    if not chosen:
        raise Refused(f"{param} names {name[:60]!r}, which is none of the tools", param=param)
    return Choice(tools=chosen, mode="required")


def _among(tools: tuple[JsonObject, ...], allowed: Any, *, flat: bool) -> Choice:
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        _wrong("tool_choice.allowed_tools", "expected an object with tools", allowed)
    names = [_wanted(each, "tool_choice.allowed_tools", flat=flat) for each in allowed["tools"]]
    return _by_mode(tuple(tool for tool in tools if tool["name"] in names), str(allowed.get("mode", "auto")))


def _wanted(choice: Any, param: str, *, flat: bool) -> str:
    if not isinstance(choice, dict) or choice.get("type", "function") != "function":
        _wrong(param, "expected a function", choice)
    function = choice.get("function", choice if flat else None)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        _wrong(f"{param}.function.name", "expected a text", name)
    return name


def _list(given: Any, param: str, read: Callable[[Any, str], JsonObject]) -> tuple[JsonObject, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        _wrong(param, "expected a list", given)
    if len(given) > MOST_TOOLS:
        raise Refused(f"{param} has {len(given)} functions, more than {MOST_TOOLS}", param=param)
    found = tuple(read(each, f"{param}[{number}]") for number, each in enumerate(given))
    names = [tool["name"] for tool in found]
    if len(set(names)) < len(names):
        raise Refused(f"{param} has two functions of one name", param=param)
    return found


def _tool(given: Any, param: str, *, flat: bool) -> JsonObject:
    if not isinstance(given, dict):
        _wrong(param, "expected an object", given)
    if given.get("type", "function") != "function":
        raise Refused(
            f"{param}.type is {ascii(given.get('type'))[:40]}; only functions are known here",
            param=f"{param}.type",
            hint="tools that run on OpenAI's servers are not here; the model agentd has tools of its own",
        )
    if flat and "function" not in given:
        return _function(given, param)
    return _function(given.get("function"), f"{param}.function")


def _function(given: Any, param: str) -> JsonObject:
    if not isinstance(given, dict):
        _wrong(param, "expected an object with a name", given)
    name, about, parameters = given.get("name"), given.get("description"), given.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        _wrong(f"{param}.name", "expected letters, digits, _ and -, at most 128", name)
    if about is not None and not isinstance(about, str):
        _wrong(f"{param}.description", "expected a text", about)
    if parameters is not None and not isinstance(parameters, dict):
        _wrong(f"{param}.parameters", "expected a JSON Schema", parameters)
    return {"name": name, "description": about or "", "parameters": parameters or _ANY_OBJECT}


def _wrong(param: str, wanted: str, value: Any) -> NoReturn:
    raise Refused(f"{param}: {wanted}, got {ascii(value)[:80]}", param=param, kind="invalid_type")
