from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.backends.dialects import DIALECTS, Dialect, Reading, call_schema, read
from agentd.backends.json_schema import problems
from agentd.types import Delta

TOOLS = [
    {
        "name": "read",
        "description": "reads a file",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "lines": {"type": "integer"}, "deep": {"type": "boolean"}},
            "required": ["path"],
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
CALL = '{"name": "read", "arguments": {"path": "a.py"}}'
READ = ("read", {"path": "a.py"})


def pairs(reading: Reading) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in reading.calls]


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>", "hermes"),
        (f"<tool_call>{CALL}</tool_call>\n", "hermes"),
        (f"<tool_call>[{CALL}]</tool_call>", "hermes"),
        (f"<tools>\n{CALL}\n</tools>", "tools"),
        ("<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>", "xml"),
        ("<tool_call>\n<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>", "xml"),
        ('<function=read>{"path": "a.py"}</function>', "xml"),
        (CALL, "json"),
        (f"\n [{CALL}]\n", "json"),
        (f"```json\n{CALL}\n```", "json"),
        (f"```\n{CALL}\n```\n", "json"),
        ('{"name": "read", "parameters": {"path": "a.py"}}', "json"),
        ('{"type": "function", "function": {"name": "read", "arguments": "{\\"path\\": \\"a.py\\"}"}}', "json"),
        ('{"tool": "read", "args": {"path": "a.py"}}', "json"),
        ('{"tool_calls": [{"function": {"name": "functions.read", "arguments": {"path": "a.py"}}}]}', "json"),
        (f"<|python_tag|>{CALL}<|eom_id|>", "native"),
        (f"[TOOL_CALLS] [{CALL}]", "native"),
        ('[TOOL_CALLS]read[ARGS]{"path": "a.py"}', "native"),
        ('[TOOL_CALLS]read{"path": "a.py"}', "native"),
        (f"functools[{CALL}]", "native"),
        (f"<|tool_call|>[{CALL}]<|/tool_call|>", "native"),
        (f"<function_call>{CALL}</function_call>", "native"),
        ('>>>read\n{"path": "a.py"}', "native"),
        ('read\n{"path": "a.py"}', "native"),
        ('read{"path": "a.py"}', "native"),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>read\n```json\n"
            '{"path": "a.py"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            "native",
        ),
        ('<｜tool▁call▁begin｜>read<｜tool▁sep｜>{"path": "a.py"}<｜tool▁call▁end｜>', "native"),
    ],
)  # fmt: skip
def test_every_dialect_is_read(text: str, dialect: Dialect) -> None:
    reading = read(text, TOOLS)
    assert (pairs(reading), reading.text, reading.found) == ([READ], "", dialect)
    assert pairs(read(text, TOOLS, dialect=dialect)) == [READ]
    slowly = Reading(TOOLS)
    deltas = [delta for letter in text for delta in slowly.feed(letter)] + slowly.end()
    assert (pairs(slowly), len(deltas)) == ([READ], 1)
    with_think = read(f"<think>\nlet me see\n</think>\n\n{text}", TOOLS)
    assert (pairs(with_think), with_think.text, with_think.reasoning) == ([READ], "", "let me see")
    others = [each for each in DIALECTS if each != dialect and not (dialect == "xml" and each == "hermes")]
    assert all(read(text, TOOLS, dialect=other).calls == () or "tool_call>" in text for other in others)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "plain words\n",
        "read the {file}",
        "now {",
        "re",
        '{"name": "Ann", "age": 3}',
        '{"name": "read"}',
        '{"name": "unknown", "arguments": {}}',
        '{"answer": [1, 2]}',
        "[1, 2, 3]",
        f"{CALL} and more",
        f"see: {CALL}",
        f"```json\n{CALL}\n```\nThat is how.",
        '```json\n{"a": 1}\n```',
        "```python\nprint(1)\n```\n",
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "read", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "read", "arguments": {"path": "a',
        "<tool_call>words</tool_call>",
        "<tool_call>",
        "a < b and <tool",
        "<function=unknown><parameter=a>1</parameter></function>",
        "<function=read><parameter=path>a.py",
        "<function=read>\n<parameter=lines>\n3\n</parameter>\n",
        "[TOOL_CALLS]",
        "[TOOL_CALLS] what",
        "functools[1]",
        ">>>all\nhello",
        ">>> 1 + 1\n2\n",
        "<｜tool▁calls▁begin｜>nothing<｜tool▁calls▁end｜>",
        '{"name": "read", "arguments": {"path": NaN}}',
        "the tag <think> begins a thought, </think> ends it",
        "[" * 5000,
        '{"name":' * 5000,
    ],
)
def test_what_is_no_call_stays_as_it_is(text: str) -> None:
    reading = read(text, TOOLS)
    assert (reading.text, reading.calls, reading.reasoning, reading.found) == (text, (), "", None)
    assert read(text, []).text == text


@pytest.mark.parametrize(
    ("text", "calls", "said"),
    [
        (f"I look.\n<tool_call>\n{CALL}\n</tool_call>", [READ], "I look."),
        (f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>\nDone.", [READ, READ], "Done."),
        (f"<tool_call>\n{CALL}\n{CALL}\n</tool_call>", [READ, READ], ""),
        (f"<tool_call>\n{CALL}", [READ], ""),
        (f"<tool_call>\n{CALL}\nThat is it.", [READ], "That is it."),
        ('<tool_call>{"name": "read", "arguments": {"path": "a.py"', [READ], ""),
        ('<tool_call>{"name": "read", "arguments": {"path": "a.py"}</tool_call>', [READ], ""),
        (f"<tool_call>{CALL}}}</tool_call>", [READ], ""),
        ('<tool_call>{"name": "read", "arguments": {"path": "a.py",},}</tool_call>', [READ], ""),
        ("<tool_call>{'name': 'read', 'arguments': {'path': 'a.py'}}</tool_call>", [READ], ""),
        (
            '<tool_call>{"name": "read", "arguments": {"path": "a.py", "deep": True}}</tool_call>',
            [("read", {"path": "a.py", "deep": True})],
            "",
        ),
        ('<tool_call>{"name": "now"}</tool_call>', [("now", {})], ""),
        (
            '<tool_call>{"name": "read", "arguments": {"path": "</tool_call> <tool_call> \\" }"}}</tool_call>',
            [("read", {"path": '</tool_call> <tool_call> " }'})],
            "",
        ),
        ('<tool_call>{"name": "read", "arguments": {"path": "a\nb"}}</tool_call>', [("read", {"path": "a\nb"})], ""),
        (f"<tool_call> <tool_call>{CALL}</tool_call>", [READ], "<tool_call>"),
        (f"<tool_call>oops</tool_call><tool_call>{CALL}</tool_call>", [READ], "<tool_call>oops</tool_call>"),
        (
            "<function=read><parameter=path>3</parameter><parameter=lines>3</parameter>"
            "<parameter=deep>True</parameter></function>",
            [("read", {"path": "3", "lines": 3, "deep": True})],
            "",
        ),
        ("<function=read>\n<parameter=path>\n\n a\n\n</parameter>\n</function>", [("read", {"path": "\n a\n"})], ""),
        (f"Here:\n```json\n{CALL}\n```", [READ], "Here:"),
        (f"{CALL}; {CALL}", [READ, READ], ""),
        ('read{"path": "a.py"} now{}', [READ, ("now", {})], ""),
        (f"<think>hm</think>{CALL}", [READ], ""),
        (f"<think>I call <tool_call>{CALL}</tool_call></think>", [READ], ""),
        (f"<think>I call <tool_call>{CALL}</tool_call>", [READ], ""),
        (f"<think>a <tool_call>{CALL}</tool_call></think>\nThe answer.", [READ], "The answer."),
        (f'<think><tool_call>{CALL}</tool_call></think><tool_call>{{"name": "now"}}</tool_call>', [("now", {})], ""),
        (f"<think>{CALL}</think>so", [], "so"),
    ],
)
def test_what_models_do(text: str, calls: list[Any], said: str) -> None:
    reading = read(text, TOOLS)
    assert (pairs(reading), reading.text) == (calls, said)


def test_thoughts() -> None:
    reading = read("<think>\n one\n two \n</think>\n\nwords </think>", [])
    assert (reading.reasoning, reading.text) == ("one\n two", "words </think>")
    begun = Reading([], thinking=True)
    assert [*begun.feed("I thi"), *begun.feed("nk</th"), *begun.feed("ink>yes")] == [
        Delta(reasoning="I thi"), Delta(reasoning="nk"), Delta(text="yes"),
    ]  # fmt: skip
    assert read("<think>never ends", TOOLS).reasoning == "never ends"
    twice = read("<think>a</think> <think>b</think> c", TOOLS)
    assert (twice.reasoning, twice.text) == ("a\n\nb", "c")


def test_words_come_at_once_and_only_a_beginning_is_held_back() -> None:
    reading = Reading(TOOLS)
    said = [
        "".join(delta.text for delta in reading.feed(piece)) for piece in ("Hi", " there", "! a <", "b> ", "c", "<tool")
    ]
    assert said == ["Hi", " there", "! a", " <b>", " c", ""]
    assert [delta.text for delta in reading.end()] == ["<tool"]


def test_json_that_is_no_call_is_not_held_back() -> None:
    reading = Reading(TOOLS)
    assert "".join(delta.text for delta in reading.feed('{"answer": ')) == '{"answer":'
    code = Reading(TOOLS)
    assert "".join(delta.text for delta in code.feed("```py\nprint(")) == "```py\nprint("


def test_a_call_comes_as_soon_as_it_is_whole() -> None:
    reading = Reading(TOOLS, new_id=lambda: "id1")
    assert reading.feed(f"<tool_call>{CALL}") == []
    (delta,) = reading.feed("</tool_call>")
    assert delta.call is not None
    assert (delta.call.index, delta.call.id, delta.call.name) == (0, "id1", "read")
    assert json.loads(delta.call.arguments) == {"path": "a.py"}
    assert reading.end() == []


def test_ids_differ() -> None:
    reading = read(f"<tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>", TOOLS)
    assert len({call.id for call in reading.calls}) == 2


BITS = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tools>", "</tools>", "<function=read>", "</function>"),
    *("<parameter=path>", "</parameter>", "```", "```json\n", CALL, CALL[:-1], '{"name": "now", "arguments": {}}'),
    *("[", "]", "{", "}", '"', "\\", "\n", " ", "a", "é😀", ",", "[TOOL_CALLS]", "read", "[ARGS]", '{"path": "x"}'),
    *("functools[", ">>>", "<|python_tag|>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
    *("<｜tool▁call▁end｜>", "'", "True", "<｜tool▁calls▁end｜>", "<", "<tool", "</tool_call", "<function="),
]


@given(text=st.lists(st.sampled_from(BITS), max_size=14).map("".join), cuts=st.lists(st.integers(1, 7), min_size=1))
def test_what_is_found_does_not_depend_on_how_it_comes(text: str, cuts: list[int]) -> None:
    whole = read(text, TOOLS)
    pieces, at, number = Reading(TOOLS), 0, 0
    deltas: list[Delta] = []
    while at < len(text):
        deltas += pieces.feed(text[at : at + cuts[number % len(cuts)]])
        at, number = at + cuts[number % len(cuts)], number + 1
    deltas += pieces.end()
    assert (pairs(pieces), pieces.text, pieces.reasoning) == (pairs(whole), whole.text, whole.reasoning)
    assert pieces.found == whole.found
    assert "".join(delta.text for delta in deltas) == pieces.text
    assert "".join(delta.reasoning for delta in deltas) == pieces.reasoning
    assert [delta.call.name for delta in deltas if delta.call] == [call.name for call in pieces.calls]
    if not whole.calls and not whole.reasoning and not text.lstrip().startswith("<think>"):
        assert whole.text == text


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 9000,
        '<tool_call>{"' * 9000,
        '<tool_call>{"a": "<tool_call>' * 4000,
        "<tool_call>{'" * 9000,
        "<function=read><parameter=path>" * 4000,
        '```\n{"name": "' * 7000,
        "[" * 90_000,
        '{"name": ' + '"\\"' * 40_000,
        "<｜tool▁calls▁begin｜>" * 5000,
        ">>>read\n" * 9000,
        " " * 90_000,
        "<think>" + f"<tool_call>{CALL}" * 1500,
        '<tool_call>{"name": "read", "arguments": {"path": "' + "x" * 90_000,
        '<tool_call>{"name": "read", "arguments": {"path": "' + "</tool_call>" * 8000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.monotonic()
    reading = Reading(TOOLS)
    for at in range(0, len(text), 4):
        reading.feed(text[at : at + 4])
    reading.end()
    read(text, TOOLS)
    assert time.monotonic() - began < 4


def test_a_required_call_has_a_schema() -> None:
    schema = call_schema(TOOLS)
    assert problems({"name": "read", "arguments": {"path": "x"}}, schema) == []
    assert problems({"name": "now", "arguments": {}}, schema) == []
    for wrong in ({"name": "read", "arguments": {}}, {"name": "other", "arguments": {}}, {"name": "now"}, []):
        assert problems(wrong, schema) != []
    assert problems({"name": "now", "arguments": {}}, call_schema(TOOLS[1:])) == []


def test_references_inside_of_a_tool_still_lead_home() -> None:
    tree = {
        "properties": {"t": {"$ref": "#/$defs/t"}},
        "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}},
    }
    tool = {"name": "grow", "parameters": tree}
    for tools in ([tool], [TOOLS[0], tool]):
        assert problems({"name": "grow", "arguments": {"t": [[], [[]]]}}, call_schema(tools)) == []
        assert problems({"name": "grow", "arguments": {"t": [[1]]}}, call_schema(tools)) != []
