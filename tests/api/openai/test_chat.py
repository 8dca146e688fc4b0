"""Chats over HTTP, with a model whose words are known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentd.app import App
from agentd.errors import Busy, ModelError, NoGrammar, TooLong, WorkerDied
from agentd.types import Delta, ModelProfile, ModelReply, ModelRequest, OnDelta, TokenLogprob
from tests.api.openai.conftest import ASKED, Talk, error_of

Make = Callable[..., Talk]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
PARIS = {"name": "weather", "arguments": {"city": "Paris"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}


class Listener:
    """A model that keeps what it is asked, and replies with what `reply` makes of it."""

    name = "listener"
    profile = ModelProfile(context=1000, sampling={"temperature": 0.3})

    def __init__(self, reply: Callable[[ModelRequest], ModelReply] | None = None) -> None:
        self.asked: list[ModelRequest] = []
        self._reply = reply or (lambda request: said("ok"))

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        self.asked.append(request)
        reply = self._reply(request)
        if on_delta is not None:
            on_delta(Delta(text=reply.text, logprobs=reply.logprobs))
        return reply


def said(text: str, **more: Any) -> ModelReply:
    return ModelReply(text=text, model="listener", prompt_tokens=7, completion_tokens=3, seconds=0.1, **more)


@pytest.fixture
def listener() -> Listener:
    return Listener()


# the answer -----------------------------------------------------------------------------------------------------------


def test_a_reply(talk: Make) -> None:
    found = talk("Hi there").said(model="words")
    assert found["id"].startswith("chatcmpl-")
    assert (found["object"], found["model"]) == ("chat.completion", "words")
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hi there", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    usage = found["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == 2 + 2


def test_thoughts_stand_apart(talk: Make) -> None:
    found = talk({"say": {"reasoning": "Hm. ", "text": "Yes."}}).said()
    message = found["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes.", "Hm. ")
    assert found["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_calls_of_tools(talk: Make) -> None:
    found = talk({"say": {"calls": [PARIS, PARIS]}}).said(tools=[WEATHER])
    (choice,) = found["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    first, second = choice["message"]["tool_calls"]
    assert first["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert first["id"] != second["id"]


def test_one_call_where_the_client_bears_no_more(talk: Make) -> None:
    two = {"say": {"calls": [PARIS, PARIS]}}
    client = talk(two, two, two)
    message = client.said(tools=[WEATHER], parallel_tool_calls=False)["choices"][0]["message"]
    assert len(message["tool_calls"]) == 1
    calls = [
        call for chunk in client.chunks(tools=[WEATHER], parallel_tool_calls=False)[:-1] for call in calls_of(chunk)
    ]
    assert {call["index"] for call in calls} == {0}
    legacy = client.said(functions=[WEATHER["function"]])["choices"][0]
    assert legacy["message"]["function_call"]["name"] == "weather"
    assert legacy["finish_reason"] == "function_call"


def calls_of(chunk: Any) -> list[Any]:
    return [call for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]


def test_several_replies(talk: Make) -> None:
    found = talk("a", "b", "c").said(n=3)
    assert sorted(choice["message"]["content"] for choice in found["choices"]) == ["a", "b", "c"]
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    assert found["usage"]["prompt_tokens"] == 2


def test_a_reply_cut_short_says_so(talk: Make) -> None:
    assert talk({"say": {"text": "a", "finish": "length"}}).said()["choices"][0]["finish_reason"] == "length"


def test_json_is_checked_unless_it_was_cut_short(talk: Make) -> None:
    client = talk('{"a": 1}', '{"a": "x"}', {"say": {"text": '{"a"', "finish": "length"}}, "no json")
    assert client.said(response_format=FORM)["choices"][0]["message"]["content"] == '{"a": 1}'
    assert error_of(client.chat(response_format=FORM))[0] == 502
    assert client.said(response_format=FORM)["choices"][0]["finish_reason"] == "length"
    assert error_of(client.chat(response_format={"type": "json_object"}))[0] == 502


# the stream -----------------------------------------------------------------------------------------------------------


def test_a_stream(talk: Make) -> None:
    chunks = talk({"say": {"text": ["Hi", " there"]}}).chunks(stream_options={"include_usage": True})
    assert chunks.pop() == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["system_fingerprint"]) for chunk in chunks}) == 1
    last = chunks.pop()
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 2 + 2)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": None}
    assert [choice["delta"].get("content") for choice in choices[1:]] == ["Hi", " there", None]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert choices[-1]["delta"] == {}


def test_no_usage_unless_it_is_asked_for(talk: Make) -> None:
    assert all("usage" not in chunk for chunk in talk("Hi").chunks()[:-1])


def test_streamed_calls_and_thoughts(talk: Make) -> None:
    chunks = talk({"say": {"reasoning": ["Hm", "."], "calls": [PARIS, PARIS]}}).chunks(tools=[WEATHER])[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 0, 0, 1, 1, 1]
    assert [call["function"].get("name") for call in calls] == ["weather", None, None] * 2
    assert [call["id"] for call in calls if "id" in call] == ["call_0", "call_1"]
    assert "".join(call["function"]["arguments"] for call in calls if call["index"] == 1) == '{"city": "Paris"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


class Quiet(Listener):
    """Says nothing before the end."""

    def chat(self, request: ModelRequest, *rest: Any) -> ModelReply:
        return super().chat(request)


def test_a_reply_that_comes_at_once_is_told_in_pieces(talk: Make) -> None:
    tokens = tuple(TokenLogprob(token=text, logprob=-0.5) for text in ("yel", "low ", "it is"))
    for more, wishes, pieces in (
        ({}, {}, ["yellow", " it", " is"]),
        ({"logprobs": tokens}, {"logprobs": True}, ["yel", "low ", "it is"]),
    ):
        reply = said("yellow it is", reasoning="so so", **more)
        chunks = talk(model=Quiet(lambda request, reply=reply: reply)).chunks(**wishes)  # type: ignore[misc]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[1:-2]]
        assert [delta["content"] for delta in deltas if "content" in delta] == pieces
        assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["so", " so"]


def test_several_replies_in_one_stream(talk: Make) -> None:
    chunks = talk("a", "b").chunks(n=2)[:-1]
    by_index: dict[int, list[Any]] = {0: [], 1: []}
    for chunk in chunks:
        choice = chunk["choices"][0]
        by_index[choice["index"]].append(choice["delta"].get("content") or choice["finish_reason"])
    assert sorted(map(tuple, by_index.values())) == [(None, "a", "stop"), (None, "b", "stop")]


def test_a_stream_that_breaks_is_no_short_success(talk: Make) -> None:
    chunks = talk({"say": {"text": ["Hi"], "fail": "the power is gone"}}).chunks()
    assert "the power is gone" in chunks[-1]["error"]["message"]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])


def test_a_streamed_reply_of_the_wrong_form_is_no_success(talk: Make) -> None:
    chunks = talk('{"a": "x"}').chunks(response_format=FORM)
    assert "does not fit" in chunks[-1]["error"]["message"]


def test_what_fails_at_once_has_a_status_of_its_own(talk: Make) -> None:
    reply = talk().chat(stream=True)
    assert reply.status_code == 503
    assert "no replies left" in reply.json()["error"]["message"] or "no reply" in reply.json()["error"]["message"]


# what the model is asked ----------------------------------------------------------------------------------------------


def test_what_is_said_of_nothing_comes_from_the_model_then_from_here(talk: Make, listener: Listener) -> None:
    talk(model=listener).said()
    (asked,) = listener.asked
    assert (asked.temperature, asked.top_p, asked.top_k, asked.min_p) == (0.3, 0.95, 40, 0.05)
    assert (asked.max_tokens, asked.cache, asked.logprobs, asked.schema) == (None, True, None, None)


def test_every_wish_reaches_the_model(talk: Make, listener: Listener) -> None:
    wishes = {"temperature": 1, "top_p": 0.5, "top_k": -1, "min_p": 0, "repeat_penalty": 1.1, "frequency_penalty": 0.5}
    more = {"presence_penalty": -1, "seed": 7, "stop": ["a", "b"], "max_completion_tokens": 9, "ignore_eos": True}
    talk(model=listener).said(
        **wishes, **more, logit_bias={"5": -100, "6": 1.5}, logprobs=True, top_logprobs=2, max_tokens=4
    )
    (asked,) = listener.asked
    assert (asked.temperature, asked.top_p, asked.top_k, asked.min_p) == (1, 0.5, 0, 0)
    assert (asked.repeat_penalty, asked.frequency_penalty, asked.presence_penalty) == (1.1, 0.5, -1)
    assert (asked.seed, asked.stop, asked.max_tokens, asked.ignore_eos) == (7, ("a", "b"), 9, True)
    assert (asked.logit_bias, asked.logprobs) == ({5: -100.0, 6: 1.5}, 2)


def test_each_of_several_replies_has_its_own_seed(talk: Make, listener: Listener) -> None:
    talk(model=listener).said(n=3, seed=2**32 - 2)
    assert sorted(asked.seed for asked in listener.asked) == [0, 2**32 - 2, 2**32 - 1]
    talk(model=listener).said(temperature=0)
    assert listener.asked[-1].seed == 0


def test_without_a_seed_it_is_another_one_each_time(talk: Make, listener: Listener) -> None:
    client = talk(model=listener)
    for _ in range(4):
        client.said(temperature=1)
    assert len({asked.seed for asked in listener.asked}) == 4


def test_messages_of_all_kinds(talk: Make, listener: Listener) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    talk(model=listener).said(messages=messages, tools=[WEATHER])
    system, user, assistant, tool = listener.asked[0].messages
    assert (system.role, user.content, user.name) == ("system", "a\nb", "ann")
    assert (assistant.content, assistant.tool_calls[0].id, tool.tool_call_id) == ("", "c1", "c1")


@pytest.mark.parametrize(
    ("wish", "names", "mode"),
    [
        ({}, ["weather", "other"], "auto"),
        ({"tool_choice": "none"}, ["weather", "other"], "none"),
        ({"tool_choice": "required"}, ["weather", "other"], "required"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, ["other"], "required"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}}},
            ["weather"],
            "auto",
        ),
    ],
)
def test_which_tools_may_be_called(
    talk: Make, listener: Listener, wish: dict[str, Any], names: list[str], mode: str
) -> None:
    talk(model=listener).said(tools=[WEATHER, {"type": "function", "function": {"name": "other"}}], **wish)
    (asked,) = listener.asked
    assert ([tool["name"] for tool in asked.tools], asked.tool_choice) == (names, mode)


def test_a_required_call_comes_before_a_form(talk: Make, listener: Listener) -> None:
    talk(model=listener).chat(tools=[WEATHER], tool_choice="required", response_format=FORM)
    assert listener.asked[0].schema is None


def test_forms(talk: Make, listener: Listener) -> None:
    client = talk(model=listener)
    client.chat(response_format=FORM)
    client.chat(response_format={"type": "json_object"})
    client.chat(json_schema=SCHEMA)
    client.chat(grammar='root ::= "a"')
    assert [asked.schema for asked in listener.asked] == [SCHEMA, {"type": "object"}, SCHEMA, None]
    assert listener.asked[-1].grammar == 'root ::= "a"'


def test_no_cache_when_the_client_says_so(talk: Make, listener: Listener) -> None:
    talk(model=listener).client.post(
        "/v1/chat/completions", json={"messages": ASKED}, headers={"Cache-Control": "no-cache"}
    )
    assert listener.asked[0].cache is False


def test_thinking_can_be_asked_for(talk: Make, listener: Listener) -> None:
    client = talk(model=listener)
    client.said(reasoning_effort="high")
    client.said(chat_template_kwargs={"enable_thinking": True})
    client.said(reasoning_effort="none")
    client.said()
    assert [asked.think for asked in listener.asked] == [True, True, False, False]


def test_log_probabilities(talk: Make) -> None:
    tokens = (
        TokenLogprob(token="H", logprob=-0.5, bytes=(72,), id=1, top=(("H", -0.5), ("J", float("-inf")))),
        TokenLogprob(token="i", logprob=-0.1, bytes=(105,), id=2, top=(("i", -0.1), ("o", -3.0))),
    )
    client = talk(model=Listener(lambda request: said("Hi", logprobs=tokens)))
    content = client.said(logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in content] == ["H", "i"]
    assert content[0]["bytes"] == [72]
    assert [(top["token"], top["logprob"]) for top in content[0]["top_logprobs"]] == [("H", -0.5), ("J", -9999.0)]
    assert client.said(logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    streamed = client.chunks(logprobs=True, top_logprobs=1)[1]["choices"][0]["logprobs"]["content"]
    assert [len(each["top_logprobs"]) for each in streamed] == [1, 1]


# what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [*ASKED, {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages[1].tool_calls[0].function",
        ),
        ({"messages": [{"role": "assistant", "content": "a"}] * 2}, "messages[1]"),
        ({"model": 5}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "sound"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object", "schema": 5}}, "response_format.schema"),
        ({"response_format": {"type": "json_object"}, "grammar": "x"}, "grammar"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": 5}, "tool_choice"),
    ],
)
def test_what_is_wrong_is_named(talk: Make, wrong: dict[str, Any], param: str) -> None:
    status, named, _ = error_of(talk("never said").chat(**wrong))
    assert (status, named) == (400, param)


def test_fields_that_mean_nothing_here_are_passed_over(talk: Make) -> None:
    talk("ok").said(store=True, metadata={"a": "b"}, modalities=["text"], whatever={"x": [1]}, user="me", audio=None)


def test_null_is_as_good_as_nothing(talk: Make, listener: Listener) -> None:
    names = ["temperature", "top_p", "n", "stop", "max_tokens", "logit_bias", "seed", "tools", "tool_choice", "model"]
    talk(model=listener).said(
        **dict.fromkeys([*names, "response_format", "stream", "stream_options", "logprobs", "user"])
    )
    assert len(listener.asked) == 1


def test_unknown_models(talk: Make) -> None:
    client = talk("ok")
    assert error_of(client.chat(model="gpt-4")) == (404, "model", "model_not_found")
    assert error_of(client.chat(model="agentd/level-9")) == (404, "model", "model_not_found")
    assert client.said(model="planner")["model"] == "words"


def test_a_model_may_stand_in_for_unknown_ones(talk: Make, core: App) -> None:
    core.change_settings({"api.unknown_model": "words"})
    try:
        assert talk("ok").said(model="gpt-4")["model"] == "words"
    finally:
        core.change_settings({"api.unknown_model": None})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (TooLong("too long", tokens=9, context=5), 400, "context_length_exceeded"),
        (NoGrammar("no"), 400, "invalid_schema"),
        (Busy("busy", retry_after=2.5), 429, "rate_limit_exceeded"),
        (WorkerDied("it died"), 503, "model.died"),
        (ModelError("it failed"), 503, "model.failed"),
        (RuntimeError("a bug"), 500, "error"),
    ],
)
def test_what_goes_wrong_in_a_model(talk: Make, error: Exception, status: int, code: str) -> None:
    def fail(request: ModelRequest) -> ModelReply:
        raise error

    client = talk(model=Listener(fail))
    for stream in (False, True):
        reply = client.chat(stream=stream)
        assert error_of(reply) == (status, None, code)
    if status == 429:
        assert reply.headers["retry-after"] == "3"
    if code == "context_length_exceeded":
        assert (reply.json()["error"]["n_prompt_tokens"], reply.json()["error"]["n_ctx"]) == (9, 5)


def test_an_agent_gives_one_reply(talk: Callable[..., Talk]) -> None:
    client = talk()
    assert error_of(client.chat(model="agentd", n=2)) == (400, "n", None)
    assert error_of(client.post("completions", model="agentd/plan-only", prompt="a", best_of=2))[0] == 400
