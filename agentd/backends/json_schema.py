"""Checks a value against a JSON Schema (draft 2020-12 and older forms) and says in words what is wrong."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_DEEPEST = 200
_MOST_STEPS = 100_000
"""Schemas tried on values; a handful of references to each other can ask for more than a machine can do."""
_MOST_NAMED = 20
_BACKTRACKED = 500
"""Characters that a pattern with look-around, which only a backtracking engine knows, may be tried on."""
_MOST_BACKTRACKED = 3
_ENTRIES = 10


def problems(value: Any, schema: Any, *, limit: int = 5) -> list[str]:
    """`field: expected ..., got ...` for at most `limit` things that are wrong; empty when the value fits.

    `format` is a comment here, and a reference to another document allows everything. What cannot be checked (too
    deep, too long, a pattern that may take for ever) is a problem, never a pass. Raises nothing for a broken schema.
    """
    found: list[str] = []
    try:
        found.extend(islice(_Check(schema).of(value, schema, "", 0), limit))
    except _TooMuch:
        found.append("reply: it takes too long to check it against this schema")
    except RecursionError:
        found.append("reply: it is nested too deeply to be checked")
    return found[:limit]


class _TooMuch(Exception):
    pass


class _Check:
    """One check of one value; `root` is what references start from."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0
        self._open: set[tuple[int, int]] = set()

    def of(self, value: Any, schema: Any, where: str, depth: int) -> Iterator[str]:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise _TooMuch
        if schema is True or schema == {}:
            return
        if not isinstance(schema, Mapping):
            yield _wrong(where, "nothing here", value)
        elif depth > _DEEPEST:
            yield f"{where[:80] or 'reply'}: nested too deeply to be checked"
        else:
            yield from self._reference(value, schema, where, depth)
            if types := _wrong_type(value, schema):
                yield _wrong(where, types, value)
            else:
                yield from self._keywords(value, schema, where, depth)

    def _fits(self, value: Any, schema: Any, depth: int) -> bool:
        return next(self.of(value, schema, "", depth + 1), None) is None

    def _reference(self, value: Any, schema: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if not isinstance(reference, str):
            return
        target = _resolve(self._root, reference)
        here = (id(target), id(value))
        if here in self._open:
            return  # a schema that is only itself says nothing
        self._open.add(here)
        try:
            yield from self.of(value, target, where, depth + 1)
        finally:
            self._open.discard(here)

    def _keywords(self, value: Any, schema: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
        if isinstance(choices := schema.get("enum"), list) and not any(_same(value, each) for each in choices):
            yield _wrong(where, f"one of {_named(map(repr, choices))}", value)
        if "const" in schema and not _same(value, schema["const"]):
            yield _wrong(where, repr(schema["const"]), value)
        yield from self._unions(value, schema, where, depth)
        if isinstance(value, dict):
            yield from self._object(value, schema, where, depth)
        elif isinstance(value, list):
            yield from self._array(value, schema, where, depth)
        elif isinstance(value, str):
            yield from _string(value, schema, where)
        elif _is_number(value):
            yield from _number(value, schema, where)

    def _unions(self, value: Any, schema: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
        for part in _list(schema, "allOf"):
            yield from self.of(value, part, where, depth + 1)
        for kind in ("anyOf", "oneOf"):
            if not (parts := _list(schema, kind)):
                continue
            tried = [list(islice(self.of(value, part, where, depth + 1), _ENTRIES)) for part in parts]
            if all(tried):
                # The alternative that came closest says most.
                yield min(tried, key=len)[0]
            elif kind == "oneOf" and tried.count([]) > 1:
                yield _wrong(where, f"exactly one of {len(parts)} forms; it has {tried.count([])} of them", value)
        if "not" in schema and self._fits(value, schema["not"], depth):
            yield _wrong(where, "anything but this", value)
        if "if" in schema:
            branch = schema.get("then" if self._fits(value, schema["if"], depth) else "else", True)
            yield from self.of(value, branch, where, depth + 1)

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
        yield from _sizes(len(value), schema, where, "fields", "minProperties", "maxProperties", value)
        for name in _missing(value, schema.get("required")):
            yield f"{_join(where, name)}: expected a value, got nothing"
        known, patterns = _map(schema, "properties"), _map(schema, "patternProperties")
        for name, each in value.items():
            inner = _join(where, name)
            parts = [known[name]] if name in known else []
            parts += [part for pattern, part in patterns.items() if _search(pattern, name) == ""]
            for part in parts:
                yield from self.of(each, part, inner, depth + 1)
            if not parts and (extra := schema.get("additionalProperties", True)) is False:
                yield f"{inner}: unknown; there are {_named(known) or 'no fields'}"
            elif not parts:
                yield from self.of(each, extra, inner, depth + 1)
            if "propertyNames" in schema:
                yield from self.of(name, schema["propertyNames"], inner, depth + 1)
        yield from self._dependent(value, schema, where, depth)
        if "unevaluatedProperties" in schema:
            for name in value.keys() - self._evaluated(value, schema, depth):
                yield from self.of(value[name], schema["unevaluatedProperties"], _join(where, name), depth + 1)

    def _dependent(self, value: dict[str, Any], schema: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
        for key in ("dependentRequired", "dependentSchemas", "dependencies"):
            for name, needs in _map(schema, key).items():
                if name in value and isinstance(needs, list):
                    missing = _missing(value, needs)
                    yield from (f"{_join(where, need)}: expected with {name}, got nothing" for need in missing)
                elif name in value:
                    yield from self.of(value, needs, where, depth + 1)

    def _array(self, value: list[Any], schema: Mapping[str, Any], where: str, depth: int) -> Iterator[str]:
        yield from _sizes(len(value), schema, where, "items", "minItems", "maxItems", value)
        fixed, rest = _list(schema, "prefixItems"), schema.get("items", True)
        if isinstance(rest, list):  # as it was before 2020
            fixed, rest = rest, schema.get("additionalItems", True)
        for number, each in enumerate(value):
            part = fixed[number] if number < len(fixed) else rest
            yield from self.of(each, part, f"{where}[{number}]", depth + 1)
        if schema.get("uniqueItems") is True and len({_canonical(each) for each in value}) < len(value):
            yield _wrong(where, "items that differ", value)
        if "contains" in schema:
            count = sum(self._fits(each, schema["contains"], depth) for each in value)
            bounds = {"minContains": 1, **schema}
            yield from _sizes(count, bounds, where, "items of a certain form", "minContains", "maxContains", value)
        if "unevaluatedItems" in schema:
            for number in sorted(set(range(len(value))) - self._evaluated(value, schema, depth)):
                part = schema["unevaluatedItems"]
                yield from self.of(value[number], part, f"{where}[{number}]", depth + 1)

    def _evaluated(self, value: Any, schema: Any, depth: int) -> set[Any]:
        """The fields or places of `value` that this schema, and those inside of it that fit, speak of."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return set()
        found: set[Any] = set()
        if isinstance(value, dict):
            known, patterns = _map(schema, "properties"), _map(schema, "patternProperties")
            found |= {name for name in value if name in known or any(_search(each, name) == "" for each in patterns)}
            found |= set(value) if "additionalProperties" in schema else set()
        else:
            everything = "items" in schema and not isinstance(schema["items"], list)
            found |= set(range(len(value) if everything else len(_list(schema, "prefixItems"))))
        for part in self._beside(value, schema, depth):
            found |= self._evaluated(value, part, depth + 1)
        return found

    def _beside(self, value: Any, schema: Mapping[str, Any], depth: int) -> Iterator[Any]:
        """Schemas that are held to the same value, as far as it fits them."""
        parts = [part for kind in ("allOf", "anyOf", "oneOf") for part in _list(schema, kind)]
        parts += [part for name, part in _map(schema, "dependentSchemas").items() if name in value]
        if isinstance(reference := schema.get("$ref"), str):
            parts.append(_resolve(self._root, reference))
        if "if" in schema:
            parts += [schema["if"]]
            parts += [schema.get("then" if self._fits(value, schema["if"], depth) else "else", True)]
        return (part for part in parts if self._fits(value, part, depth))


def _string(value: str, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _sizes(len(value), schema, where, "characters", "minLength", "maxLength", value)
    if isinstance(pattern := schema.get("pattern"), str) and (said := _search(pattern, value)):
        yield _wrong(where, said, value)


def _number(value: float, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    least, most = _bound(schema, "minimum", -math.inf), _bound(schema, "maximum", math.inf)
    # In draft 4 the exclusive ones were true or false.
    above = least if schema.get("exclusiveMinimum") is True else _bound(schema, "exclusiveMinimum", -math.inf)
    below = most if schema.get("exclusiveMaximum") is True else _bound(schema, "exclusiveMaximum", math.inf)
    if value < least:
        yield _wrong(where, f"at least {least}", value)
    if value > most:
        yield _wrong(where, f"at most {most}", value)
    if value <= above and above > -math.inf:
        yield _wrong(where, f"more than {above}", value)
    if value >= below and below < math.inf:
        yield _wrong(where, f"less than {below}", value)
    step = _bound(schema, "multipleOf", 0)
    if step > 0 and not _is_multiple(value, step):
        yield _wrong(where, f"a multiple of {step}", value)


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    if not (math.isfinite(value) and math.isfinite(step)):
        return False
    whole, part = Decimal(str(value)), Decimal(str(step))
    if whole.adjusted() - part.adjusted() > 20:
        return True  # beyond what a float can tell
    return whole % part == 0


def _sizes(
    size: int, schema: Mapping[str, Any], where: str, of: str, least: str, most: str, value: Any
) -> Iterator[str]:
    if size < _bound(schema, least, 0):
        yield _wrong(where, f"at least {schema[least]} {of}", value)
    if size > _bound(schema, most, math.inf):
        yield _wrong(where, f"at most {schema[most]} {of}", value)


def _search(pattern: str, text: str) -> str:
    """Nothing when the pattern is found in the text, else what was expected."""
    expected = f"a text that matches {pattern:.200}"
    try:
        _linear(pattern).validate_python(text)
        return ""
    except ValidationError:
        return expected
    except SchemaError:
        found = _backtracking(pattern)
    if isinstance(found, str):
        return found
    if len(text) > _BACKTRACKED:
        return f"{expected} (which can be checked for {_BACKTRACKED} characters at most)"
    return "" if found.search(text) else expected


@lru_cache(maxsize=32)
def _linear(pattern: str) -> SchemaValidator:
    """Rust's expressions, whose time only grows with the text. Raises `SchemaError` for what they do not know."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True))


@lru_cache(maxsize=256)
def _backtracking(pattern: str) -> re.Pattern[str] | str:
    """Python's expressions, for look-around and back-references; or why this one cannot be used."""
    refused = f"a text that matches {pattern:.200} (which cannot be checked"
    if len(pattern) > _BACKTRACKED:
        return f"{refused}: it is too long)"
    try:
        made = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{refused}: {error})"
    # Repetition of a group, and many repetitions in a row, are what can take for ever.
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
    runs = re.split(r"\(\?<?[=!]", plain)
    if re.search(r"\)\s*(?:[*+]|\{)", plain) or any(len(re.findall(r"[*+{]", run)) > _MOST_BACKTRACKED for run in runs):
        return f"{refused}: it may take for ever)"
    return made


def _wrong_type(value: Any, schema: Mapping[str, Any]) -> str:
    """The types that it should have, when it has none of them."""
    allowed = schema.get("type")
    names = [allowed] if isinstance(allowed, str) else allowed
    if not isinstance(names, list) or not names or any(_is(value, name) for name in names):
        return ""
    return " or ".join(map(str, names))


def _is(value: Any, name: Any) -> bool:
    if isinstance(value, bool):
        return bool(name == "boolean")
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(name, str) and isinstance(value, _TYPES.get(name, ()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, dict | list) or isinstance(other, dict | list):
        return type(value) is type(other) and len(value) == len(other) and _canonical(value) == _canonical(other)
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _canonical(value: Any) -> str:
    """The same text for values that JSON takes for the same, whatever the order of fields and the kind of number."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value) if not isinstance(value, int) or isinstance(value, bool) else hex(value)


def _resolve(root: Any, reference: str) -> Any:
    """What a `#/...` reference names; a schema that allows everything when it names nothing here."""
    if isinstance(root, Mapping) and isinstance(name := root.get("$id"), str):
        reference = reference.removeprefix(name.removesuffix("#"))
    if not reference.startswith("#"):
        return True
    if not reference.startswith("#/"):
        return root if reference == "#" else _anchored(root, reference[1:])
    at = root
    for part in unquote(reference[2:]).split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and part.isdecimal() and len(part) < 9 and int(part) < len(at):
            at = at[int(part)]
        elif isinstance(at, Mapping) and part in at:
            at = at[part]
        else:
            return True
    return at


def _anchored(root: Any, name: str) -> Any:
    rest = [root]
    while rest:
        part = rest.pop()
        if isinstance(part, Mapping):
            if name in (part.get("$anchor"), part.get("$dynamicAnchor")):
                return part
            rest += part.values()
        elif isinstance(part, list):
            rest += part
    return True


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    found = schema.get(key)
    return found if isinstance(found, list) else []


def _map(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = schema.get(key)
    return found if isinstance(found, Mapping) else {}


def _missing(value: Mapping[str, Any], names: Any) -> list[str]:
    names = names if isinstance(names, list) else []
    return [name for name in names if isinstance(name, str) and name not in value]


def _bound(schema: Mapping[str, Any], key: str, default: float) -> Any:
    found = schema.get(key)
    return found if _is_number(found) else default


def _named(names: Any) -> str:
    """Some of the names, and how many more there are."""
    every = [f"{name:.60}" for name in names]
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _wrong(where: str, expected: str, value: Any) -> str:
    return f"{where or 'reply'}: expected {expected}, got {value!r:.120}"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
