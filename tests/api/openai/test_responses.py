"""Responses over HTTP: whole, and as events in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from agentd.errors import ModelError
from tests.api.openai.conftest import Talk, error_of
from tests.api.openai.test_chat import Listener

Make = Callable[..., Talk]
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
PARIS = {"name": "weather", "arguments": {"city": "Paris"}}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def respond(client: Talk, given: Any = "Hello", **body: Any) -> dict[str, Any]:
    reply = client.post("responses", input=given, **body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    Response.model_validate(found)
    return found


def heard(client: Talk, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of a kind that OpenAI's client knows, numbered in order."""
    events = client.chunks("responses", input="Hello", **body)
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_a_response(talk: Make) -> None:
    found = respond(talk("Hi there"), instructions="Be brief.", metadata={"a": "b"})
    assert found["id"].startswith("resp_")
    assert (found["object"], found["status"], found["store"]) == ("response", "completed", False)
    assert (found["instructions"], found["metadata"], found["error"]) == ("Be brief.", {"a": "b"}, None)
    (message,) = found["output"]
    assert message["id"].startswith("msg_")
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "completed")
    assert message["content"] == [{"type": "output_text", "text": "Hi there", "annotations": [], "logprobs": []}]
    assert found["usage"]["total_tokens"] == found["usage"]["input_tokens"] + found["usage"]["output_tokens"]


def test_thoughts_text_and_calls_are_items(talk: Make) -> None:
    said = {"say": {"reasoning": "Hm.", "text": "I look.", "calls": [PARIS, PARIS]}}
    found = respond(talk(said), tools=[WEATHER])
    thought, message, first, second = found["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "I look."
    assert (first["type"], first["name"], first["arguments"]) == ("function_call", "weather", '{"city": "Paris"}')
    assert first["call_id"] != second["call_id"]
    one = respond(talk(said), tools=[WEATHER], parallel_tool_calls=False)
    assert len(one["output"]) == 3


def test_a_response_cut_short(talk: Make) -> None:
    found = respond(talk({"say": {"text": "a", "finish": "length"}}), max_output_tokens=16)
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert found["output"][0]["status"] == "incomplete"


def test_a_response_without_words_has_a_message(talk: Make) -> None:
    assert respond(talk(""))["output"][0]["content"][0]["text"] == ""


def test_a_stream(talk: Make) -> None:
    events = heard(talk({"say": {"text": ["Hi", " there"]}}))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    item = events[2]["item"]
    assert (item["status"], item["content"]) == ("in_progress", [])
    assert {event["item_id"] for event in events[3:8]} == {item["id"]} == {events[8]["item"]["id"]}
    assert events[6]["text"] == "Hi there"
    response = events[-1]["response"]
    assert response["id"] == events[0]["response"]["id"]
    assert response["output"] == [events[8]["item"]]
    assert response["usage"]["output_tokens"] == 2


def test_a_stream_with_everything(talk: Make) -> None:
    said = {"say": {"reasoning": ["Hm", "."], "text": "I look.", "calls": [PARIS, PARIS]}}
    events = heard(talk(said), tools=[WEATHER])
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    kinds = ["reasoning", "message", "function_call", "function_call"]
    assert [event["item"]["type"] for event in added] == kinds
    assert [event["output_index"] for event in added] == [event["output_index"] for event in done] == [0, 1, 2, 3]
    assert [event["item"] for event in done] == events[-1]["response"]["output"]
    deltas = [event for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(event["delta"] for event in deltas if event["output_index"] == 3) == '{"city": "Paris"}'
    thoughts = [event["delta"] for event in events if event["type"] == "response.reasoning_text.delta"]
    assert thoughts == ["Hm", "."]


def test_a_stream_that_breaks_has_no_good_end(talk: Make) -> None:
    events = heard(talk({"say": {"text": ["Hi"], "fail": "the power is gone"}}))
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert "the power is gone" in events[-1]["response"]["error"]["message"]
    assert events[-1]["response"]["status"] == "failed"


def test_what_the_model_is_asked(talk: Make) -> None:
    listener = Listener()
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    talk(model=listener).post("responses", input=items, instructions="Be brief.", tools=[WEATHER], text=form)
    (asked,) = listener.asked
    assert [message.role for message in asked.messages] == ["system", "user", "assistant", "tool"]
    assert (asked.messages[2].content, asked.messages[2].tool_calls[0].name) == ("I look.", "weather")
    assert asked.messages[3].tool_call_id == "c1"
    assert [tool["name"] for tool in asked.tools] == ["weather"]
    assert (asked.schema, asked.max_tokens) == (schema, None)


def test_a_tool_by_name(talk: Make) -> None:
    listener = Listener()
    talk(model=listener).post(
        "responses", input="a", tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}
    )
    assert listener.asked[0].tool_choice == "required"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.json_schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_is_wrong_is_named(talk: Make, wrong: dict[str, Any], param: str) -> None:
    reply = talk("never said").post("responses", **({"input": "a"} | wrong))
    assert error_of(reply)[:2] == (400, param)


def test_what_fails_at_once_has_a_status_of_its_own(talk: Make) -> None:
    def fail(request: Any) -> Any:
        raise ModelError("it failed")

    assert error_of(talk(model=Listener(fail)).post("responses", input="a", stream=True))[0] == 503
