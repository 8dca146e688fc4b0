"""Inputs made from a plugin's own schema: whatever is allowed must give a result of the promised form, or an error
that it could mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentd.backends.json_schema import problems
from agentd.plugins.broker import Broker
from agentd.plugins.spec import Spec
from agentd.plugins.trial import TrialPlace, Used
from agentd.sandbox.job import Ended, Executor, Limit, Limits, Program
from agentd.types import Grounding

INPUTS = 20
_TRIES = 10
"""For each input: what the schema does not allow is not taken."""
_TEXTS = ("", "a", "Hello, World!", "0", "-1.5", "a,b\n1,2\n", "ünïcödé ☃", " \t\n", "x" * 2_000, '{"a": [1]}', "'\"\\")
_NUMBERS = (0, 1, -1, 2, 7, 100, 10**9)
_PATHS = (Grounding.FILE, Grounding.FOLDER, Grounding.PATH, Grounding.NEW_PATH)
_CRASHES = (
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "IndexError",
    "KeyError",
    "NameError",
    "NotImplementedError",
    "OverflowError",
    "RecursionError",
    "StopIteration",
    "TypeError",
    "UnboundLocalError",
    "ZeroDivisionError",
)
"""Errors that nobody raises on purpose for what the schema allows, unless the spec speaks of them."""


def inputs(spec: Spec, seed: int, count: int = INPUTS) -> Iterator[dict[str, Any]]:
    """Arguments that the schema allows, the same for the same seed; paths are those of the examples."""
    chance = random.Random(seed)
    paths = [name for example in spec.examples for name in example.files] or ["missing.txt"]
    fields, required = spec.input.get("properties", {}), spec.input.get("required", ())
    seen = {name: [each.args[name] for each in spec.examples if name in each.args] for name in fields}
    made = 0
    for _ in range(count * _TRIES):
        args = {
            name: _argument(field, chance, paths, seen[name])
            for name, field in fields.items()
            if name in required or chance.random() < 0.7
        }
        if not problems(args, spec.input):
            yield args
            made += 1
        if made == count:
            return


def _argument(field: Mapping[str, Any], chance: random.Random, paths: Sequence[str], seen: Sequence[Any]) -> Any:
    """What the examples have is a good beginning where a schema asks for more than a type."""
    return chance.choice(seen) if seen and chance.random() < 0.25 else _value(field, chance, paths)


def _value(field: Mapping[str, Any], chance: random.Random, paths: Sequence[str]) -> Any:
    if "enum" in field:
        return chance.choice(field["enum"])
    if field.get("x-grounding") in _PATHS:
        return chance.choice(paths)
    kinds = field.get("type", "string")
    match chance.choice(kinds) if isinstance(kinds, list) and kinds else kinds:
        case "integer":
            return int(_within(field, chance.choice(_NUMBERS)))
        case "number":
            return _within(field, chance.choice([*_NUMBERS, 0.5, -2.25, 1e-9]))
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
        case "array":
            most = min(5, field.get("maxItems", 5))
            count = chance.randint(min(field.get("minItems", 0), most), most)
            return [_value(field.get("items", {}), chance, paths) for _ in range(count)]
        case "object":
            return {name: _value(each, chance, paths) for name, each in field.get("properties", {}).items()}
        case _:
            return chance.choice(_TEXTS)[: field.get("maxLength", 2_000)]


def _within(field: Mapping[str, Any], number: float) -> float:
    return float(max(field.get("minimum", number), min(field.get("maximum", number), number)))


def flaw(spec: Spec, code: str, executor: Executor, limits: Callable[[], Limits], seed: int) -> tuple[str, int]:
    """What is wrong with the first input that it does not withstand (empty for none), and how many there were."""
    files = {name: text.encode() for example in spec.examples for name, text in example.files.items()}
    tried = 0
    sandbox = executor.open(Program(source=code, grants=spec.permissions.grants), limits())
    try:
        for args in inputs(spec, seed):
            tried += 1
            broker, used = Broker(spec.permissions, TrialPlace(files)), Used()
            ended = sandbox.call(spec.name, args, broker=broker)
            used.saw(broker, args)
            if wrong := _wrong(spec, ended, used):
                return f"with the allowed arguments {args!r:.300} {wrong}", tried
    finally:
        sandbox.close()
    return "", tried


def _wrong(spec: Spec, ended: Ended, used: Used) -> str:
    if used.beyond:
        return f"it reached for {next(iter(used.beyond))!r:.200}, which its permissions do not name"
    if ended.ok:
        wrong = problems(ended.result, spec.output)
        return f"it gave {ended.result!r:.200}, which is not what the spec promises: {wrong[0]}" if wrong else ""
    if ended.limit not in (None, Limit.REFUSED):  # a path that it may not touch is refused for its sake
        return f"it failed: {ended.error} ({ended.limit})"
    kind = ended.error.partition(":")[0]
    if kind in _CRASHES and kind not in " ".join((spec.purpose, *spec.preconditions, *spec.postconditions)):
        return f"it crashed: {ended.error}; for input that it cannot take it raises ValueError"
    return ""
