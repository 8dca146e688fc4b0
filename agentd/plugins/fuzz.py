"""Inputs made from a plugin's own schema: whatever is allowed must give a result of the promised form, or an error."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from agentd.backends.json_schema import problems
from agentd.plugins.broker import Broker
from agentd.plugins.spec import Spec
from agentd.plugins.trial import TrialPlace
from agentd.sandbox.job import Executor, Limit, Limits, Program
from agentd.types import Grounding

INPUTS = 20
_TEXTS = ("", "a", "Hello, World!", "0", "-1.5", "a,b\n1,2\n", "ünïcödé ☃", " \t\n", "x" * 2_000, '{"a": [1]}', "'\"\\")
_NUMBERS = (0, 1, -1, 2, 7, 100, 10**9)
_PATHS = (Grounding.FILE, Grounding.FOLDER, Grounding.PATH, Grounding.NEW_PATH)


def inputs(spec: Spec, seed: int, count: int = INPUTS) -> Iterator[dict[str, Any]]:
    """Arguments that the schema allows, the same for the same seed; paths are those of the examples."""
    chance = random.Random(seed)
    names = [name for example in spec.examples for name in example.files] or ["missing.txt"]
    required = set(spec.input.get("required", ()))
    for _ in range(count):
        fields = spec.input.get("properties", {}).items()
        made = {
            name: _value(field, chance, names) for name, field in fields if name in required or chance.random() < 0.7
        }
        if not problems(made, spec.input):
            yield made


def _value(field: dict[str, Any], chance: random.Random, names: list[str]) -> Any:
    if "enum" in field:
        return chance.choice(field["enum"])
    if field.get("x-grounding") in _PATHS:
        return chance.choice(names)
    match field.get("type", "string"):
        case "integer":
            return int(_within(field, chance.choice(_NUMBERS)))
        case "number":
            return _within(field, chance.choice([*_NUMBERS, 0.5, -2.25, 1e-9]))
        case "boolean":
            return chance.random() < 0.5
        case "array":
            most = min(5, field.get("maxItems", 5))
            count = chance.randint(min(field.get("minItems", 0), most), most)
            return [_value(field.get("items", {}), chance, names) for _ in range(count)]
        case "object":
            return {name: _value(each, chance, names) for name, each in field.get("properties", {}).items()}
        case _:
            return chance.choice(_TEXTS)[: field.get("maxLength", 2_000)]


def _within(field: dict[str, Any], number: float) -> float:
    return float(max(field.get("minimum", number), min(field.get("maximum", number), number)))


def flaw(spec: Spec, code: str, executor: Executor, limits: Callable[[], Limits], seed: int) -> tuple[str, int]:
    """What is wrong with the first input that it does not withstand (empty for none), and how many there were."""
    files = {name: text.encode() for example in spec.examples for name, text in example.files.items()}
    tried = 0
    sandbox = executor.open(Program(source=code, grants=spec.permissions.grants), limits())
    try:
        for args in inputs(spec, seed):
            tried += 1
            ended = sandbox.call(spec.name, args, broker=Broker(spec.permissions, TrialPlace(files)))
            if ended.limit not in (None, Limit.REFUSED):  # a path that it may not touch is refused for its sake
                return f"with the allowed arguments {args!r:.300}: {ended.error}", tried
            if ended.ok and (wrong := problems(ended.result, spec.output)):
                shown = f"{args!r:.300} gave {ended.result!r:.200}"
                return f"{shown}, which is not what the spec promises: {wrong[0]}", tried
    finally:
        sandbox.close()
    return "", tried
