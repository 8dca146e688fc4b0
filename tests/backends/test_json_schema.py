from __future__ import annotations

from typing import Any

import pytest

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
