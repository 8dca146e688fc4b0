"""Checks a value against a JSON Schema and says in words what is wrong: the part of the standard that tools use."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_DEEPEST = 100


def problems(value: Any, schema: Any, *, limit: int = 5) -> list[str]:
    """`field: expected ..., got ...` for at most `limit` things that are wrong; empty when the value fits."""
    found = []
    for problem in _check(value, schema, "", schema, 0):
        found.append(problem)
        if len(found) == limit:
            break
    return found


def _check(value: Any, schema: Any, where: str, root: Any, depth: int) -> Iterator[str]:
    if schema is True or schema == {} or depth > _DEEPEST:
        return
    if not isinstance(schema, Mapping):
        yield _wrong(where, "nothing here", value)
        return
    if "$ref" in schema:
        yield from _check(value, _resolve(root, schema["$ref"]), where, root, depth + 1)
    allowed = schema.get("type")
    names = [allowed] if isinstance(allowed, str) else list(allowed or ())
    if names and not any(_is(value, name) for name in names):
        yield _wrong(where, " or ".join(names), value)
        return
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        yield _wrong(where, f"one of {', '.join(map(repr, schema['enum']))}", value)
    if "const" in schema and not _same(value, schema["const"]):
        yield _wrong(where, repr(schema["const"]), value)
    yield from _unions(value, schema, where, root, depth)
    if isinstance(value, dict):
        yield from _object(value, schema, where, root, depth)
    elif isinstance(value, list):
        yield from _array(value, schema, where, root, depth)
    elif isinstance(value, str):
        yield from _string(value, schema, where)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(value, schema, where)


def _unions(value: Any, schema: Mapping[str, Any], where: str, root: Any, depth: int) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        yield from _check(value, part, where, root, depth + 1)
    for kind in ("anyOf", "oneOf"):
        if kind not in schema:
            continue
        tried = [list(_check(value, part, where, root, depth + 1)) for part in schema[kind]]
        if all(tried):
            # The alternative that came closest says most.
            yield min((each for each in tried), key=len)[0]


def _object(value: dict[str, Any], schema: Mapping[str, Any], where: str, root: Any, depth: int) -> Iterator[str]:
    known: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{_join(where, name)}: expected a value, got nothing"
    extra = schema.get("additionalProperties", True)
    for name, each in value.items():
        if name in known:
            yield from _check(each, known[name], _join(where, name), root, depth + 1)
        elif extra is False:
            yield f"{_join(where, name)}: unknown; there are {', '.join(known) or 'no fields'}"
        else:
            yield from _check(each, extra, _join(where, name), root, depth + 1)


def _array(value: list[Any], schema: Mapping[str, Any], where: str, root: Any, depth: int) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield _wrong(where, f"at least {schema['minItems']} items", value)
    if len(value) > schema.get("maxItems", math.inf):
        yield _wrong(where, f"at most {schema['maxItems']} items", value)
    fixed = schema.get("prefixItems", ())
    for number, each in enumerate(value):
        part = fixed[number] if number < len(fixed) else schema.get("items", True)
        yield from _check(each, part, f"{where}[{number}]", root, depth + 1)


def _string(value: str, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield _wrong(where, f"at least {schema['minLength']} characters", value)
    if len(value) > schema.get("maxLength", math.inf):
        yield _wrong(where, f"at most {schema['maxLength']} characters", value)
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield _wrong(where, f"a text that matches {schema['pattern']}", value)


def _number(value: float, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if value < schema.get("minimum", -math.inf):
        yield _wrong(where, f"at least {schema['minimum']}", value)
    if value > schema.get("maximum", math.inf):
        yield _wrong(where, f"at most {schema['maximum']}", value)
    if value <= schema.get("exclusiveMinimum", -math.inf):
        yield _wrong(where, f"more than {schema['exclusiveMinimum']}", value)
    if value >= schema.get("exclusiveMaximum", math.inf):
        yield _wrong(where, f"less than {schema['exclusiveMaximum']}", value)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, ()))


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _resolve(root: Any, ref: str) -> Any:
    """What a `#/...` reference names; a schema that allows everything when it names nothing here."""
    at = root
    for part in ref.removeprefix("#").split("/")[1:]:
        at = at.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(at, Mapping) else None
    return True if at is None else at


def _wrong(where: str, expected: str, value: Any) -> str:
    return f"{where or 'reply'}: expected {expected}, got {value!r:.120}"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
