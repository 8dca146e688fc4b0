"""Inputs made from a schema, and what a plugin has to do with them."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from agentd.backends.json_schema import problems
from agentd.plugins.fuzz import INPUTS, flaw, inputs
from agentd.plugins.spec import Example
from agentd.sandbox.job import Limits
from agentd.sandbox.os_executor import OsExecutor
from tests.plugins.conftest import ADD, CONVERT, INTEGER, adding, converting

FIELDS = {
    "count": INTEGER | {"minimum": 1, "maximum": 9},
    "share": {"type": "number"},
    "on": {"type": "boolean"},
    "kind": {"enum": ["a", "b"]},
    "names": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 2},
    "more": {"type": "object", "properties": {"x": INTEGER}, "required": ["x"]},
    "maybe": {"type": ["string", "null"]},
    "date": {"type": "string", "pattern": "^\\d{4}-\\d\\d-\\d\\d$"},
}


def test_inputs_are_allowed_and_the_same_for_the_same_seed() -> None:
    schema = {"type": "object", "properties": FIELDS, "required": ["count", "names", "date"]}
    example = Example(args={"count": 1, "names": ["a", "b"], "date": "2026-01-02"}, result=1)
    spec = adding(input=schema, examples=(example,))
    made = list(inputs(spec, 7))
    assert len(made) == INPUTS
    assert not [wrong for args in made for wrong in problems(args, schema)]
    assert made == list(inputs(spec, 7)) != list(inputs(spec, 8))
    assert {name for args in made for name in args} == set(FIELDS)


def test_paths_are_those_of_the_examples() -> None:
    assert {args["path"] for args in inputs(converting(), 1)} == {"a.csv", "b.csv", "c.csv"}


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")
@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        (ADD, ""),
        ("def add(a, b=1):\n    if a < 0:\n        raise ValueError('too small')\n    return a + b\n", ""),
        ("def add(a, b=1):\n    return (a + b) / 4\n", "which is not what the spec promises"),
        ("def add(a, b=1):\n    return 12 // a\n", "it crashed: ZeroDivisionError"),
        ("def add(a, b=1):\n    return {1: 2}[a]\n", "it crashed: KeyError"),
        ("def add(a, b=1):\n    return 'x' * a\n", "memory|which is not what|says too much"),
        ("def add(a, b=1):\n    return sum(range(a))\n", "did not end within"),
    ],
)
def test_flaws(executor: OsExecutor, code: str, wrong: str) -> None:
    found, tried = flaw(adding(), code, executor, lambda: Limits(seconds=0.5, memory_mb=64), seed=3)
    assert bool(found) == bool(wrong)
    assert re.search(wrong, found), found
    assert tried == INPUTS if not wrong else tried >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")
def test_an_error_that_the_spec_speaks_of_is_none(executor: OsExecutor) -> None:
    code = "def add(a, b=1):\n    return a if a in (0, 1) else {}[a]\n"
    limits: Any = Limits
    assert flaw(adding(), code, executor, limits, 3)[0]
    declared = adding(postconditions=("An unknown number raises KeyError.",))
    assert flaw(declared, code, executor, limits, 3)[0] == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")
def test_files_of_the_examples_are_there(executor: OsExecutor) -> None:
    assert flaw(converting(), CONVERT, executor, Limits, 1) == ("", INPUTS)
