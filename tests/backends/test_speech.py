"""What is heard of a model, as deltas and as a reply."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agentd.backends.speech import Speech, as_frame
from agentd.errors import BadReply
from agentd.types import Delta, Message, ModelReply, ModelRequest

WEATHER = {
    "name": "weather",
    "description": "The weather of a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}
CHAT = ModelRequest(messages=(Message(role="user", content="hi"),))
CALL = '<tool_call>\n{"name": "weather", "arguments": {"town": "Bonn"}}\n</tool_call>'


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "prompt_tokens": 5, "completion_tokens": 7, "finish_reason": "stop", **more}


def whole(request: ModelRequest, text: str, **more: Any) -> ModelReply:
    return Speech(request, None).reply(said(text, **more), model="m", seconds=0.1)


def streamed(request: ModelRequest, text: str, size: int, **more: Any) -> tuple[list[Delta], ModelReply]:
    """The text in pieces of `size` characters; `more` comes with the first frame, too."""
    heard: list[Delta] = []
    speech = Speech(request, heard.append)
    if more:
        speech.hear(more)
    for at in range(0, len(text), size):
        speech.hear({"delta": text[at : at + size]})
    return heard, speech.reply(said(text, **more), model="m", seconds=0.1)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "reasoning", "spoken", "calls"),
    [
        ("Just words.", "", "Just words.", 0),
        ("<think>\nLet me see.\n</think>\n\nIt is four.", "Let me see.", "It is four.", 0),
        (f"<think>I ask.</think>{CALL}", "I ask.", "", 1),
        (f"One moment.\n{CALL}\n{CALL}", "", "One moment.", 2),
        ('{"name": "unknown", "arguments": {}}', "", '{"name": "unknown", "arguments": {}}', 0),
    ],
)
def test_thoughts_words_and_calls_are_told_apart(text: str, reasoning: str, spoken: str, calls: int, size: int) -> None:
    request = replace(CHAT, tools=(WEATHER,))
    heard, reply = streamed(request, text, size)
    assert (reply.reasoning, reply.text.strip(), len(reply.tool_calls)) == (reasoning, spoken, calls)
    assert reply.finish_reason == ("tool_calls" if calls else "stop")
    assert "".join(delta.reasoning for delta in heard) == reply.reasoning
    assert "".join(delta.text for delta in heard) == reply.text
    assert [delta.call.id for delta in heard if delta.call] == [call.id for call in reply.tool_calls]
    at_once = whole(request, text)
    assert (at_once.text, at_once.reasoning) == (reply.text, reply.reasoning)
    assert [json.loads(call.arguments) for call in at_once.tool_calls] == [{"town": "Bonn"}] * calls


def test_a_thought_that_the_prompt_has_begun() -> None:
    text = "so it must be four.\n</think>\nFour."
    heard, reply = streamed(CHAT, text, 2, thinking=True)
    assert (reply.reasoning, reply.text) == ("so it must be four.", "Four.")
    assert heard[0].reasoning
    assert whole(CHAT, text, thinking=True).reasoning == "so it must be four."


@pytest.mark.parametrize(
    "request_",
    [
        ModelRequest(prompt="raw"),
        replace(CHAT, schema={"type": "string"}),
        replace(CHAT, grammar='start: "x"'),
        replace(CHAT, choices=("a",)),
    ],
)
def test_raw_and_held_replies_stay_as_they_are(request_: ModelRequest) -> None:
    text = "<think>x</think> " + CALL
    heard, reply = streamed(replace(request_, tools=(WEATHER,)), text, 4)
    assert reply.text == "".join(delta.text for delta in heard) == text
    assert reply.tool_calls == ()


def test_no_tools_no_calls() -> None:
    assert whole(CHAT, CALL).text == CALL
    hidden = replace(CHAT, tools=(WEATHER,), tool_choice="none")
    assert whole(hidden, CALL).text == CALL
    assert as_frame(hidden, stream=False)["tools"] == []


def test_a_call_that_is_required_is_held_by_a_schema() -> None:
    request = replace(CHAT, tools=(WEATHER,), tool_choice="required")
    frame = as_frame(request, stream=True)
    assert frame["schema"]["required"] == ["name", "arguments"]
    assert frame["tools"] == [WEATHER]
    text = '{"name": "weather", "arguments": {"town": "Bonn"}}'
    heard, reply = streamed(request, text, 5)
    assert reply.finish_reason == "tool_calls"
    assert reply.text == ""
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == [("weather", {"town": "Bonn"})]
    assert [delta.call.name for delta in heard if delta.call] == ["weather"]
    with pytest.raises(BadReply, match="was to call a function and did not"):
        whole(request, "I would rather not.")
    cut = whole(request, '{"name": "weather", "argu', finish_reason="length")
    assert (cut.finish_reason, cut.tool_calls) == ("length", ())


def test_a_reply_that_is_cut_in_the_middle_of_a_call_is_no_call() -> None:
    for end in range(len(CALL) - 15):
        reply = whole(replace(CHAT, tools=(WEATHER,)), CALL[:end], finish_reason="length")
        assert (reply.finish_reason, reply.tool_calls) == ("length", ())
    two = whole(replace(CHAT, tools=(WEATHER,)), f"{CALL}\n{CALL[:40]}", finish_reason="length")
    assert (two.finish_reason, len(two.tool_calls)) == ("length", 1)


def test_log_probabilities_go_with_what_they_brought_and_none_is_lost() -> None:
    heard: list[Delta] = []
    speech = Speech(replace(CHAT, logprobs=1), heard.append)
    tokens = [["<think>", -0.1, [60], 1, []], ["hm", -0.2, [104], 2, []], ["ok", -0.3, [111], 3, [["ok", -0.3, 3]]]]
    for token, text in zip(tokens, ("<think>", "hm</think>", "ok"), strict=True):
        speech.hear({"delta": text, "logprobs": [token]})
    reply = speech.reply(said("<think>hm</think>ok", logprobs=tokens), model="m", seconds=0.1)
    assert [token.id for delta in heard for token in delta.logprobs] == [1, 2, 3]
    assert [token.id for token in reply.logprobs] == [1, 2, 3]


def test_who_listens_to_nothing_has_heard_nothing() -> None:
    speech = Speech(CHAT, None)
    speech.hear({"delta": "x"})
    assert not speech.begun
    loud = Speech(CHAT, lambda delta: None)
    assert not loud.begun
    loud.hear({"delta": "x"})
    assert loud.begun
