"""Run as a program, it does what could kill a process; the tests run it so."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentd
from agentd.backends.json_schema import problems
from agentd.backends.llama.grammar import Grammar
from agentd.errors import NoGrammar

END, CONTROL = 256, 257
WORDS = ['{"', '":', '", "', "true", "false", "null", " the", "\n  ", "}}", "]}", "12", "é", '"}', "name", "    "]


class Bytes:
    """A vocabulary of all bytes, an end, a control token, and some words."""

    size = CONTROL + 1 + len(WORDS)
    ends = (END,)

    def piece(self, token: int) -> bytes:
        if token < 256:
            return bytes([token])
        return WORDS[token - CONTROL - 1].encode() if token > CONTROL else b""

    def tokens(self, text: str, *, controls: bool) -> list[int]:
        return list(text.encode())


VOCABULARY = Bytes()
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def takes(grammar: Grammar, text: str) -> bool:
    """Whether the whole text, and no part more, is what the grammar wants."""
    for byte in text.encode():
        if not grammar.allows(byte):
            return False
        grammar.accept(byte)
    return grammar.may_end


def takes_all(grammar: Grammar, tokens: Sequence[int]) -> None:
    for token in tokens:
        grammar.accept(token)


def walk(grammar: Grammar, chance: random.Random, steps: int = 600) -> str:
    """A reply of a model that likes everything that is allowed, and the ends of things most."""
    closing = [number for number in range(256, VOCABULARY.size) if VOCABULARY.piece(number)[-1:] in b'"}]']
    closing += [END, *b'"}]']
    said = b""
    for _ in range(steps):
        logits = np.array([chance.random() for _ in range(VOCABULARY.size)], dtype=np.float32)
        logits[closing] += 0.9
        token = int(grammar.restrict(logits).argmax())
        if token == END:
            return said.decode()
        grammar.accept(token)
        said += VOCABULARY.piece(token)
    raise AssertionError(f"no end after {said!r}")


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (PERSON, '{"name": "Ann", "age": 3}', True),
        (PERSON, '{"name":"Ann","age":3,"tags":["a","b"]}', True),
        (PERSON, '{\n  "name": "Ann",\n  "age": 150\n}', True),
        (PERSON, '{"name": "Ann", "age": 151}', False),
        (PERSON, '{"name": "Ann", "age": -1}', False),
        (PERSON, '{"name": "Annabel", "age": 1}', False),
        (PERSON, '{"name": "", "age": 1}', False),
        (PERSON, '{"name": "Ann"}', False),
        (PERSON, '{"name": "Ann", "age": 3, "tags": ["a", "b", "a"]}', False),
        (PERSON, '{"name": "Ann", "age": 3, "more": 1}', False),
        (PERSON, '{"name":  "Ann", "age": 3}', False),
        ({"type": "object"}, '{"any": [1, {"x": null}]}', True),
        ({"properties": {"a": {"type": "null"}}}, '{"a": null}', True),
        ({"type": "object", "properties": {"a": {}}}, '{"a": 1, "b": 2}', False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, '{"a": 1, "b": 2}', True),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, '{"b": 2}', True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}], "type": "object"}, '{"a": 1, "b": 2}', True),
        ({"type": "object"}, "[1]", False),
        (True, "[1.5e3]", True),
        ({}, '"x"', True),
        ({"type": "string", "pattern": "^[a-z]{2}$"}, '"ab"', True),
        ({"type": "string", "pattern": "^[a-z]{2}$"}, '"abc"', False),
        ({"type": "string", "pattern": "b"}, '"abc"', True),
        ({"type": "string", "maxLength": 100_000}, '"' + "x" * 5_000 + '"', True),
        ({"type": "string", "maxLength": 4_000}, '"' + "x" * 4_001 + '"', False),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1.5}, "1.25", True),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1.5}, "1.75", False),
        ({"type": "integer", "multipleOf": 7}, "49", True),
        ({"type": "integer", "multipleOf": 7}, "50", False),
        ({"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1}, "-9007199254740991", True),
        ({"enum": ["a", 1, None, {"k": [True]}]}, '{"k": [true]}', True),
        ({"const": "x"}, '"y"', False),
        ({"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}, "[[],[[]]]", True),
        ({"properties": {"description": {"type": "null"}}, "required": ["description"]}, '{"description": 1}', False),
        ({"type": "string", "format": "date"}, '"2024-02-29"', True),
        ({"type": "string", "format": "date"}, '"2024-02-30"', False),
    ],
)  # fmt: skip
def test_what_a_schema_takes(schema: Any, text: str, expected: bool) -> None:
    assert takes(Grammar(VOCABULARY, schema=schema), text) is expected


@pytest.mark.parametrize(
    ("grammar", "text", "expected"),
    [
        ('root ::= "yes" | "no"', "no", True),
        ('root ::= "yes" | "no"', "maybe", False),
        ('root ::= item+\nitem ::= "- " [^\\n]+ "\\n"  # a list', "- a\n- b\n", True),
        ('root ::= [\\u00e0-\\u00ff]+ "\\x41" "\\U0001F600"', "é😀", False),
        ('root ::= [\\u00e0-\\u00ff]+ "\\x41" "\\U0001F600"', "éA😀", True),
        ('root ::= ("x" "y"){2,3}', "xyxyxyxy", False),
        ('start: "a"+ DIGIT\nDIGIT: /[0-9]/', "aa1", True),
        ('start: "a"+ DIGIT\nDIGIT: /[0-9]/', "aa", False),
        ('start: %json {"type": "integer", "maximum": 5}', "6", False),
    ],
)
def test_what_a_grammar_takes(grammar: str, text: str, expected: bool) -> None:
    assert takes(Grammar(VOCABULARY, grammar=grammar), text) is expected


LINK = {
    "type": "object",
    "properties": {"v": {"const": 1}, "n": {"$ref": "#/$defs/n"}},
    "required": ["v"],
    "additionalProperties": False,
}
REAL: list[dict[str, Any]] = [
    PERSON,
    {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}, "maxItems": 3},
    {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Z]{1,3}-[0-9]+$", "maxLength": 9}]},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False, "minItems": 2},
    {"allOf": [{"required": ["a"]}, {"properties": {"a": {"enum": [1, 2]}}}], "type": "object", "maxProperties": 2},
    {"type": "object", "additionalProperties": {"type": "integer", "minimum": -3, "maximum": 3}, "maxProperties": 2},
    {"type": "object", "patternProperties": {"^s_": {"type": "null"}}, "additionalProperties": False},
    {"$ref": "#/$defs/n", "$defs": {"n": LINK}},
    {"type": ["integer", "null"], "exclusiveMinimum": 10, "maximum": 12},
    {"type": "number", "minimum": 0.25, "maximum": 0.75},
]  # fmt: skip


@pytest.mark.parametrize("schema", REAL)
def test_whatever_the_grammar_lets_through_fits_the_schema(schema: Any) -> None:
    chance = random.Random(7)
    for _ in range(12):
        grammar = Grammar(VOCABULARY, schema=schema)
        assert grammar.relaxed == ()
        assert problems(json.loads(walk(grammar, chance)), schema) == []


def test_both_ways_to_ask_agree_and_an_end_comes_only_where_it_may() -> None:
    grammar = Grammar(VOCABULARY, schema=PERSON)
    zeros = np.zeros(VOCABULARY.size, dtype=np.float32)
    for byte in b'{"name": "Bo", "age": 42}':
        restricted = set(np.flatnonzero(np.isfinite(grammar.restrict(zeros))).tolist())
        allowed = {token for token in range(VOCABULARY.size) if grammar.allows(token)}
        # Where only one text can come, a mask names its usual tokens; any others that say the same are taken too.
        assert restricted == allowed if not grammar.forced() else restricted <= allowed
        assert byte in allowed
        assert not grammar.allows(END)
        assert not grammar.allows(CONTROL)
        assert not grammar.finished
        grammar.accept(byte)
    assert grammar.finished
    assert np.flatnonzero(np.isfinite(grammar.restrict(zeros))).tolist() == [END]
    grammar.accept(END)
    assert grammar.finished


def test_what_must_come_is_known() -> None:
    grammar = Grammar(VOCABULARY, schema={"const": "abc"})
    assert bytes(grammar.forced()) == b'"abc"'
    assert Grammar(VOCABULARY, schema={"enum": ["abc", "abd"]}).forced() == list(b'"ab')
    assert Grammar(VOCABULARY, schema={"type": "object"}).forced() == []


def test_a_token_that_does_not_fit_is_refused_by_name() -> None:
    grammar = Grammar(VOCABULARY, schema=PERSON)
    with pytest.raises(NoGrammar, match="cannot be followed"):
        grammar.accept(ord("x"))


def test_replies_do_not_know_of_each_other() -> None:
    one, other = Grammar(VOCABULARY, schema=PERSON), Grammar(VOCABULARY, schema=PERSON)
    one.accept(ord("{"))
    assert other.allows(ord("{"))
    one.close()
    assert takes(other, '{"name": "A", "age": 1}')


def test_a_reply_that_was_too_much_for_its_grammar_leaves_the_next_one_alone() -> None:
    schema = {"type": "string", "pattern": "^(.{1,1000}x){1,1000}$"}
    chance = random.Random(0)
    for _ in range(2):
        grammar = Grammar(VOCABULARY, schema=schema)
        grammar.accept(ord('"'))
        with pytest.raises(NoGrammar, match="too many"):
            takes_all(grammar, chance.choices(b"abcdx", k=90_000))


def test_a_long_text_is_held_to_its_length() -> None:
    grammar = Grammar(VOCABULARY, schema={"type": "string", "maxLength": 100_000})
    grammar.accept(ord('"'))
    takes_all(grammar, b"x" * 100_000)
    assert not grammar.allows(ord("x"))
    assert takes(grammar, '"')


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "not": {"const": "x"}}, "not"),
        ({"type": "string", "pattern": "^(?=.*[0-9]).+$"}, "pattern"),
        ({"type": "integer", "maximum": 10**30}, "maximum"),
        ({"type": "integer", "multipleOf": 999_983}, "multipleOf"),
        ({"type": "string", "format": "klingon"}, "Unknown format: klingon"),
    ],
)
def test_what_no_grammar_can_hold_is_left_to_the_validation(schema: Any, keyword: str) -> None:
    assert Grammar(VOCABULARY, schema=schema).relaxed == (keyword,)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "klingon"}, "klingon"),
        ({"$ref": "http://example.com/x.json"}, "example.com"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "string", "pattern": "((("}, "unclosed group"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "minimum"),
        ({"$ref": "#"}, "no text at all"),
        (False, "False"),
        ([1], "object"),
        ({"enum": ["x" * 400_000]}, "characters"),
        ({"properties": {f"p{n}": {} for n in range(3000)}}, "3000 properties"),
        ({"enum": [float("nan")]}, "cannot be written down"),
    ],
)
def test_what_is_no_schema_is_said(schema: Any, why: str) -> None:
    with pytest.raises(NoGrammar, match=why):
        Grammar(VOCABULARY, schema=schema)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "Empty"),
        ('root ::= "abc', "end of input"),
        ('foo ::= "a"', "root"),
        ("root ::= bar", "bar"),
        ("root ::= " + "(" * 2000 + '"a"' + ")" * 2000, "Recursion"),
        ("start: " + "(" * 2000 + '"a"' + ")" * 2000, "nested"),
        ('start: %json {"multipleOf": 999983}', "multipleOf"),
        ("start: start", "no text at all"),
        ("\n".join(f"r{n}: r{n + 1}" for n in range(20_000)), "rules"),
        ('root ::= "\\', "IndexError"),
    ],
)
def test_what_is_no_grammar_is_said(grammar: str, why: str) -> None:
    with pytest.raises(NoGrammar, match=why):
        Grammar(VOCABULARY, grammar=grammar)


@pytest.mark.slow
def test_a_child_lives_through_everything() -> None:
    path = str(Path(agentd.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tried, made, refused, slowest = json.loads(done.stdout)
    assert tried == made + refused
    assert min(made, refused) > 50
    assert slowest < 5


def torture() -> None:
    """Compiles and follows every nasty schema; prints how many, how many held, how many were refused, most seconds."""
    chance = random.Random(1)
    made = refused = 0
    slowest = 0.0
    for keywords in nasty(chance):
        began = time.monotonic()
        try:
            grammar = Grammar(VOCABULARY, **keywords)
            made += 1
            for _ in range(20):
                logits = np.array([chance.random() for _ in range(VOCABULARY.size)], dtype=np.float32)
                token = int(grammar.restrict(logits).argmax())
                if token == END:
                    break
                grammar.accept(token)
        except NoGrammar:
            refused += 1
        slowest = max(slowest, time.monotonic() - began)
    print(json.dumps([made + refused, made, refused, slowest]))


def nasty(chance: random.Random) -> Iterator[dict[str, Any]]:
    for links in (50, 999, 5000):
        for kind in range(5):
            yield {"schema": chain(links, kind)}
        yield {"grammar": "start: r0\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(links)) + f'r{links}: "a"'}
        yield {"grammar": "start: R0\n" + "".join(f"R{n}: R{n + 1}\n" for n in range(links)) + f'R{links}: "a"'}
        yield {"grammar": "root ::= " + ' "a"?' * links}
    for bound in (-1, 0, 1500, 10**5, 10**9, 2**31, 2**63, 2**70, 1.5, True, None, "9"):
        for key in ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties", "multipleOf"):
            yield {"schema": {key: bound}}
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            yield {"schema": {"type": "number", key: bound}}
            yield {"schema": {"type": "integer", key: bound}}
    for pattern in (
        "(a+)+$",
        "(.*a){30}",
        "^[ab]*a[ab]{400}$",
        "((a{1,1000}){1,1000}){1,1000}",
        "(" * 3000,
        "[",
        "\\",
        "a" * 50_000,
    ):
        yield {"schema": {"type": "string", "pattern": pattern, "maxLength": 50_000}}
        yield {"schema": {"patternProperties": {pattern: {}, ".*x.*": {"type": "null"}}}}
        yield {"grammar": f"start: /{pattern}/"}
    yield {
        "schema": {"allOf": [{"anyOf": [{"properties": {f"{k}{n}": {"const": n}}} for k in "pq"]} for n in range(40)]}
    }
    yield {"schema": {"enum": [f"v{n}" for n in range(9000)]}}
    yield {"schema": {"properties": {f"p{n}": {"enum": ["a", n]} for n in range(1500)}, "additionalProperties": False}}
    yield {"schema": {"oneOf": [{"properties": {"k": {"const": n}}, "required": ["k"]} for n in range(300)]}}
    for _ in range(250):
        yield {"schema": anything(chance, 0)}
    for _ in range(100):
        yield {"grammar": "".join(chance.choice(GRAMMAR) for _ in range(chance.randint(1, 30)))}


GRAMMAR = [
    *("root ::= ", "start: ", '"a"', "[a-z]", "/x+/", "(", ")", "*", "{1,9999}", "|", "\n", "a", "A: ", "%json {}"),
    *("&", "~", "<x>"),
]
KEYS = [
    *("type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", "not", "properties", "patternProperties", "items"),
    *("additionalProperties", "required", "prefixItems", "minItems", "maxLength", "pattern", "minimum", "format"),
    *("$defs", "$id", "$schema", "$anchor", "multipleOf", "x-guidance", "if", "uniqueItems", "minProperties"),
]


def anything(chance: random.Random, depth: int) -> Any:
    """JSON that looks like a schema here and there."""
    scalar = chance.choice(
        ["object", "array", "string", "integer", "#", "#/$defs/a", "", "\ud800", -1, 3, 1e308, None, True]
    )
    if depth > 4 or chance.random() < 0.2:
        return scalar
    if chance.random() < 0.2:
        return [anything(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    if chance.random() < 0.2:
        return {chance.choice("abc"): anything(chance, depth + 1)}
    return {chance.choice(KEYS): anything(chance, depth + 1) for _ in range(chance.randint(0, 4))}


def chain(links: int, kind: int) -> Any:
    """Definitions that each lead to the next."""

    def link(number: int) -> Any:
        following = {"$ref": f"#/$defs/{number + 1}"}
        return (
            following,
            {"properties": {"a": following}, "required": ["a"], "type": "object"},
            {"anyOf": [following, {"type": "null"}]},
            {"allOf": [following, {"minLength": number}]},
            {"type": "array", "items": following},
        )[kind]

    parts = {str(number): link(number) for number in range(links)}
    return {"$ref": "#/$defs/0", "$defs": {**parts, str(links): {"type": "string"}}}


if __name__ == "__main__":
    torture()
