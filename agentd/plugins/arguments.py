"""The arguments of a plugin as a pydantic model that is true to the JSON Schema of its spec."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from agentd.backends.json_schema import problems
from agentd.plugins.spec import Spec
from agentd.types import Grounding

MOST_ARGUMENTS = 12
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TYPES: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list[Any],
    "object": dict[str, Any],
    "null": None,
}


def arguments_flaw(spec: Spec) -> str:
    """Why no tool can be made of the spec's `input`, in words for whoever wrote it; empty when one can."""
    schema = spec.input
    fields = schema.get("properties", {})
    if schema.get("type") != "object" or not isinstance(fields, dict):
        return "input: expected a JSON Schema of type object with properties"
    if len(fields) > MOST_ARGUMENTS:
        return f"input: {len(fields)} arguments; {MOST_ARGUMENTS} are allowed"
    for name, field in fields.items():
        # A model would have its own methods hidden by some of these.
        if not _NAME.fullmatch(name) or keyword.iskeyword(name) or hasattr(BaseModel, name):
            return f"input.{name}: cannot be the name of an argument; take another one"
        if not isinstance(field, dict):
            return f"input.{name}: expected a schema"
        if field.get("x-grounding", Grounding.TEXT) not in list(Grounding):
            return f"input.{name}: x-grounding is one of {', '.join(Grounding)}"
        if "default" in field and problems(field["default"], field):
            return f"input.{name}: the default {field['default']!r:.60} does not fit its own schema"
    required = schema.get("required", [])
    if not isinstance(required, list) or not set(map(str, required)) <= set(fields):
        return f"input.required: names what is no property: {required!r:.100}"
    for number, example in enumerate(spec.examples, 1):
        if wrong := problems(example.args, schema | {"additionalProperties": False}):
            return f"examples.{number}: {wrong[0]}"
    return ""


def arguments_model(spec: Spec) -> type[BaseModel]:
    """A model whose schema is `spec.input`, of a spec without flaw. Values that came as text are read as what they are
    to be; what the schema says beyond that is checked by it."""
    schema = spec.input
    required = schema.get("required", [])
    fields: dict[str, Any] = {
        name: (_annotation(field), ... if name in required else field.get("default"))
        for name, field in schema["properties"].items()
    }
    for name, field in schema["properties"].items():
        kind, default = fields[name]
        extra = {"x-grounding": field["x-grounding"]} if "x-grounding" in field else None
        fields[name] = (kind, Field(default, description=str(field.get("description", "")), json_schema_extra=extra))
    own = {"additionalProperties": False, **schema}
    fits: Any = model_validator(mode="after")(partial(_fits, own))
    return create_model(
        f"{spec.name}_arguments",
        __config__=ConfigDict(extra="forbid", protected_namespaces=(), json_schema_extra=partial(_as_it_stands, own)),
        __validators__={"fits": fits},
        **fields,
    )


def given(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a call has: what was left out and has no default is not there."""
    fields, required = spec.input["properties"], spec.input.get("required", [])
    return {
        name: value
        for name, value in values.items()
        if value is not None or name in required or "default" in fields[name]
    }


def _annotation(field: Mapping[str, Any]) -> Any:
    choices = field.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(each, str | int) for each in choices):
        return Literal[tuple(choices)] | None
    kinds = field.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not kinds or not all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
        return Any
    return Union[(*(_TYPES[kind] for kind in kinds), None)]


def _as_it_stands(own: Mapping[str, Any], schema: dict[str, Any]) -> None:
    """In place of what pydantic makes of the fields: models and people get to see the schema of the spec."""
    schema.clear()
    schema.update(own)


def _fits(own: Mapping[str, Any], model: Any) -> Any:
    values = {name: getattr(model, name) for name in type(model).model_fields}
    left_out = {name for name in values if values[name] is None and name not in model.model_fields_set}
    wrong = problems({name: value for name, value in values.items() if name not in left_out}, own)
    if wrong:
        raise ValueError("; ".join(wrong))
    return model
