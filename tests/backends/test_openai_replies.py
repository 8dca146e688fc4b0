"""Reading what servers send: no cut and no nonsense gives a reply that looks whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.backends.openai_replies import ReplyReader, events_of, object_of, said_in, short
from agentd.errors import BrokenReply, ModelError
from agentd.types import Delta, Message, ModelReply, ModelRequest
from tests.backends.openai_server import call_delta, delta, message

TOOL = {"name": "weather", "parameters": {}}
REQUEST = ModelRequest(messages=(Message(role="user", content="hi"),), tools=(TOOL,), logprobs=1)
STREAM = "".join(
    f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
    for event in [delta("grün"), delta(reasoning="hm"), delta(" und 😀"), call_delta(0, "weather", '{"a":', "x"),
                  call_delta(0, "", '"b"}'), delta(finish="tool_calls"), {"choices": [], "usage": {"prompt_tokens": 3}}]
).encode() + b"data: [DONE]\n\n"  # fmt: skip


def read(pieces: list[bytes]) -> tuple[ModelReply, list[Delta]]:
    reader = ReplyReader(REQUEST, model="m", at="box")
    deltas = [each for event in events_of(pieces, "box") for each in reader.feed(event)]
    return reader.end(1.0), deltas


def test_the_whole_stream() -> None:
    reply, deltas = read([STREAM])
    assert (reply.text, reply.reasoning, reply.tool_calls[0].arguments) == ("grün und 😀", "hm", '{"a":"b"}')
    assert "".join(each.text for each in deltas) == reply.text


def test_cut_off_at_any_byte_it_is_whole_or_an_error() -> None:
    whole = read([STREAM])[0]
    ends = 0
    for place in range(len(STREAM)):
        try:
            reply, _ = read([STREAM[:place]])
        except ModelError:
            continue
        ends += 1
        assert (reply.text, reply.tool_calls, reply.finish_reason) == (whole.text, whole.tool_calls, "tool_calls")
    assert ends < 100  # only after the event that says why it ends


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=30))
@settings(max_examples=50, deadline=None)
def test_cut_into_pieces_it_stays_the_same(places: list[int]) -> None:
    edges = [0, *sorted(places), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges)]
    assert read(pieces)[0] == read([STREAM])[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places_in(value[key], (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def with_everything() -> dict[str, Any]:
    event = call_delta(0, "weather", "{}", "x")
    event["choices"][0]["delta"] |= {"content": "a", "reasoning_content": "b"}
    token = {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -1.0}]}
    event["choices"][0] |= {"logprobs": {"content": [token]}, "finish_reason": "stop"}
    return event | {"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}}


EVENT = with_everything()
OLD = {
    "choices": [
        {
            "index": 0,
            "text": "a",
            "finish_reason": "stop",
            "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]},
        }
    ]
}
WHOLE = message("a", reasoning_content="b", tool_calls=EVENT["choices"][0]["delta"]["tool_calls"])


def reply_or_error(do: Callable[[], ModelReply]) -> None:
    """No other exception, and nothing that could not be written down or shown."""
    try:
        reply = do()
    except ModelError as error:
        said = error.message
    else:
        json.dumps([reply.text, reply.reasoning]).encode()
        assert reply.prompt_tokens >= 0
        said = ""
    assert said.isprintable()


@given(st.sampled_from(list(places_in(EVENT))), JSON)
@settings(max_examples=100, deadline=None)
def test_nonsense_in_any_place_of_an_event_is_read_or_an_error(place: tuple[Any, ...], nonsense: Any) -> None:
    event = put(EVENT, place, nonsense)
    reply_or_error(lambda: read([f"data: {json.dumps(event)}\n\n".encode()])[0])


@given(st.sampled_from(list(places_in(WHOLE))), JSON)
@settings(max_examples=100, deadline=None)
def test_nonsense_in_any_place_of_a_whole_reply_is_read_or_an_error(place: tuple[Any, ...], nonsense: Any) -> None:
    def whole() -> ModelReply:
        reader = ReplyReader(REQUEST, model="m", at="box")
        reader.whole(json.dumps(put(WHOLE, place, nonsense)).encode())
        return reader.end(1.0)

    reply_or_error(whole)


@given(st.sampled_from(list(places_in(OLD))), JSON)
@settings(max_examples=100, deadline=None)
def test_nonsense_in_any_place_of_a_completion_is_read_or_an_error(place: tuple[Any, ...], nonsense: Any) -> None:
    def whole() -> ModelReply:
        reader = ReplyReader(ModelRequest(prompt="x", logprobs=1), model="m", at="box")
        reader.whole(json.dumps(put(OLD, place, nonsense)).encode())
        return reader.end(1.0)

    reply_or_error(whole)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_at_all(data: bytes) -> None:
    with pytest.raises(ModelError):
        read([data])


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_whatever_an_error_says_is_one_harmless_line(found: Any) -> None:
    said = said_in(found)
    assert said.isprintable()
    assert 0 < len(said) <= 300


@pytest.mark.parametrize("text", ["\x00\x1b[31m", "a\u202eb", "\u2028" * 500, "x" * 10_000, "\ud800"])
def test_texts_are_made_short_and_harmless(text: str) -> None:
    assert len(short(text)) <= 300
    assert short(text).isprintable()


def test_what_is_no_object() -> None:
    for text in ("5", "null", '"x"', "[]", "", "{", b"\xff", "[" * 100_000):
        with pytest.raises(BrokenReply):
            object_of(text, "box")
