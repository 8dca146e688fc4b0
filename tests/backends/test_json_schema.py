from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.backends.json_schema import problems

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", 1]}, "minItems": 1, "maxItems": 2},
        "friend": {"anyOf": [{"$ref": "#/$defs/name"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "object", "required": ["first"], "properties": {"first": {"minLength": 1}}}},
}


def test_what_fits() -> None:
    assert problems({"name": "Ann", "age": 3.0, "tags": ["a", 1], "friend": {"first": "B"}}, PERSON) == []
    assert problems({"name": "Ann", "friend": None}, PERSON) == []
    assert problems([1, "x", {}], {}) == []
    assert problems(1.5, {"type": ["number", "null"]}) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "reply: expected object, got []"),
        ({}, "name: expected a value, got nothing"),
        ({"name": 3}, "name: expected string, got 3"),
        ({"name": "A", "friend": {"first": ""}}, "friend.first: expected at least 1 characters, got ''"),
        ({"name": "Annabel"}, "name: expected at most 5 characters, got 'Annabel'"),
        ({"name": "ann"}, "name: expected a text that matches ^[A-Z], got 'ann'"),
        ({"name": "A", "age": True}, "age: expected integer, got True"),
        ({"name": "A", "age": 1.5}, "age: expected integer, got 1.5"),
        ({"name": "A", "age": -1}, "age: expected at least 0, got -1"),
        ({"name": "A", "age": 150}, "age: expected less than 150, got 150"),
        ({"name": "A", "tags": []}, "tags: expected at least 1 items, got []"),
        ({"name": "A", "tags": ["b"]}, "tags[0]: expected one of 'a', 1, got 'b'"),
        ({"name": "A", "tags": [True]}, "tags[0]: expected one of 'a', 1, got True"),
        ({"name": "A", "friend": {}}, "friend.first: expected a value, got nothing"),
        ({"name": "A", "nick": 1}, "nick: unknown; there are name, age, tags, friend"),
    ],
)
def test_what_does_not_fit(value: Any, expected: str) -> None:
    assert problems(value, PERSON) == [expected]


def test_at_most_so_many() -> None:
    assert len(problems(list(range(50)), {"items": {"type": "string"}})) == 5


def test_a_schema_that_names_itself_comes_to_an_end() -> None:
    assert problems(1, {"$ref": "#"}) == []
    assert problems(1, {"$ref": "#/nowhere"}) == []


FITS: list[tuple[Any, Any]] = [
    (4, {"multipleOf": 2}),
    (0.3, {"multipleOf": 0.1}),
    (1e300, {"multipleOf": 0.1}),
    (5, {"allOf": [{"minimum": 3}, {"maximum": 9}]}),
    (5, {"oneOf": [{"minimum": 3}, {"maximum": 2}]}),
    (5, {"not": {"type": "string"}}),
    (5, {"if": {"minimum": 3}, "then": {"maximum": 9}, "else": False}),
    (1, {"if": {"minimum": 3}, "then": False}),
    ({"a1": 1}, {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False}),
    ({"b": 1}, {"dependentRequired": {"a": ["c"]}}),
    ({"a": 1}, {"properties": {"a": {}}, "additionalProperties": {"type": "null"}}),
    ({"ab": 1}, {"propertyNames": {"minLength": 2}, "minProperties": 1, "maxProperties": 1}),
    ([1, "x", None], {"prefixItems": [{"type": "integer"}, {"type": "string"}]}),
    ([1, None], {"items": [{"type": "integer"}], "additionalItems": {"type": "null"}}),
    ([1, True, 0, False, [1], [True], {"a": 1}], {"uniqueItems": True}),
    ([1, "x"], {"contains": {"type": "string"}, "maxContains": 1}),
    ([], {"contains": {}, "minContains": 0}),
    ({"a": 1, "b": 2}, {"allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}, "unevaluatedProperties": False}),
    ([1, 2], {"anyOf": [{"prefixItems": [{}, {}]}, {"prefixItems": [False]}], "unevaluatedItems": False}),
    ({"x": [1.0]}, {"const": {"x": [1]}}),
    (3, {"minimum": 3, "exclusiveMaximum": True, "maximum": 4}),
    ("Ünique", {"pattern": "^\\p{Lu}"}),
    ("Passw0rd", {"pattern": "^(?=.*[A-Z])(?=.*[0-9]).{8,}$"}),
    ("x", {"$ref": "#/$defs/a~1b/anyOf/1", "$defs": {"a/b": {"anyOf": [{}, {"type": "string"}]}}}),
    ("x", {"$ref": "#word", "$defs": {"w": {"$anchor": "word", "type": "string"}}}),
    ("x", {"$id": "http://h/s", "$ref": "http://h/s#/$defs/w", "$defs": {"w": {"type": "string"}}}),
    ({"next": {"next": None}}, {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}),
]
FAILS: list[tuple[Any, Any, str]] = [
    (5, {"multipleOf": 2}, "reply: expected a multiple of 2, got 5"),
    (0.35, {"multipleOf": 0.1}, "reply: expected a multiple of 0.1, got 0.35"),
    (5, {"oneOf": [{"minimum": 3}, {"maximum": 9}]}, "reply: expected exactly one of 2 forms; it has 2 of them, got 5"),
    (5, {"not": {"type": "integer"}}, "reply: expected anything but this, got 5"),
    (5, {"if": {"minimum": 3}, "then": {"maximum": 4}}, "reply: expected at most 4, got 5"),
    ({"a1": "x"}, {"patternProperties": {"^a": {"type": "integer"}}}, "a1: expected integer, got 'x'"),
    ({"a": 1}, {"dependentRequired": {"a": ["c"]}}, "c: expected with a, got nothing"),
    ({"a": 1}, {"dependentSchemas": {"a": {"required": ["c"]}}}, "c: expected a value, got nothing"),
    ({"a": 1}, {"propertyNames": {"minLength": 2}}, "a: expected at least 2 characters, got 'a'"),
    ({}, {"minProperties": 1}, "reply: expected at least 1 fields, got {}"),
    ([1, 1.0], {"uniqueItems": True}, "reply: expected items that differ, got [1, 1.0]"),
    ([1], {"contains": {"type": "string"}}, "reply: expected at least 1 items of a certain form, got [1]"),
    ([1, None], {"items": [{}], "additionalItems": False}, "[1]: expected nothing here, got None"),
    (
        {"a": 1},
        {"unevaluatedProperties": False, "allOf": [{"properties": {"b": {}}}]},
        "a: expected nothing here, got 1",
    ),
    ([1, 2], {"prefixItems": [{}], "unevaluatedItems": False}, "[1]: expected nothing here, got 2"),
    ([True], {"const": [1]}, "reply: expected [1], got [True]"),
    (4, {"exclusiveMaximum": True, "maximum": 4}, "reply: expected less than 4, got 4"),
    ("passw0rd", {"pattern": "(?=.*[A-Z])"}, "reply: expected a text that matches (?=.*[A-Z]), got 'passw0rd'"),
    (
        9,
        {"enum": list(range(100, 140))},
        f"reply: expected one of {', '.join(map(str, range(100, 120)))} and 20 more, got 9",
    ),
    (1, {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, "reply: expected string, got 1"),
]


@pytest.mark.parametrize(("value", "schema"), FITS)
def test_the_rest_of_the_standard_holds(value: Any, schema: Any) -> None:
    assert problems(value, schema) == []


@pytest.mark.parametrize(("value", "schema", "expected"), FAILS)
def test_the_rest_of_the_standard_is_held_to(value: Any, schema: Any, expected: str) -> None:
    assert problems(value, schema) == [expected]


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "^(a|a)*$", "(?=(a+)+$)", "a*a*a*a*a*a*$(?!x)", "((a{1,1000}){1,1000}){1,1000}$", "((((", "a" * 9999],
)
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    began = time.monotonic()
    assert problems("a" * 300 + "!", {"pattern": pattern})
    assert time.monotonic() - began < 2


def doubling(kind: str) -> Any:
    parts = {f"d{n}": {kind: [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(40)}
    return {"$ref": "#/$defs/d0", "$defs": {**parts, "d40": {"type": "string"}}}


@pytest.mark.parametrize("kind", ["anyOf", "oneOf", "allOf"])
def test_what_would_take_too_long_is_no_pass(kind: str) -> None:
    began = time.monotonic()
    assert problems(1 if kind != "allOf" else "x", doubling(kind)) != []
    assert time.monotonic() - began < 5


def test_what_is_nested_too_deeply_is_no_pass() -> None:
    value: Any = "x"
    for _ in range(300):
        value = [value]
    assert "too deeply" in problems(value, {"type": ["array", "string"], "items": {"$ref": "#"}})[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text("ab(*$\\", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)
WORDS = [
    *(
        "type",
        "enum",
        "const",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "properties",
        "required",
    ),
    *("patternProperties", "additionalProperties", "propertyNames", "dependentRequired", "dependentSchemas", "items"),
    *("prefixItems", "contains", "minContains", "uniqueItems", "minItems", "maxLength", "pattern", "minimum", "$defs"),
    *("exclusiveMaximum", "multipleOf", "unevaluatedProperties", "unevaluatedItems", "$id", "$anchor"),
]
SCHEMAS = st.recursive(
    JSON,
    lambda inner: st.dictionaries(st.sampled_from(WORDS), inner | st.lists(inner, max_size=2), max_size=4),
    max_leaves=8,
)


@given(JSON, SCHEMAS)
def test_no_schema_breaks_the_check(value: Any, schema: Any) -> None:
    assert all(isinstance(each, str) for each in problems(value, schema))


@given(JSON)
def test_a_value_is_itself(value: Any) -> None:
    value = json.loads(json.dumps(value).replace("NaN", "0").replace("Infinity", "1"))
    assert problems(value, {"const": value, "enum": [value]}) == []
    assert problems([value, value], {"uniqueItems": True}) != []
