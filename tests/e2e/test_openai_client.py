"""OpenAI's own Python client against a running daemon with the model that comes with it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

from agentd.config import load_settings
from tests.e2e.harness import Agentd, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MODEL = "smollm2-135m"
ASKED: Any = [{"role": "user", "content": "Name one colour."}]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
PAINT: Any = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paint a wall",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    made = Agentd(tmp_path_factory.mktemp("openai"))
    made.ok("config", "set", "api.tcp=true", "api.port=0")
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def base(served: Agentd) -> dict[str, Any]:
    url = load_settings(served.home.home).url_path.read_text().strip()
    return {"base_url": f"{url}/v1", "api_key": served.ok("token").split()[-1], "max_retries": 0, "timeout": 60}


@pytest.fixture(scope="module")
def client(base: dict[str, Any]) -> Iterator[OpenAI]:
    with OpenAI(**base) as made:
        yield made


def chat(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**({"model": MODEL, "messages": ASKED, "max_tokens": 8, "seed": 1} | more))


def test_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == MODEL
    assert "agentd" in names
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("agentd/plan-only").owned_by == "agentd"


def test_a_chat_and_its_usage(client: OpenAI) -> None:
    found = chat(client, temperature=0)
    assert found.object == "chat.completion"
    assert found.choices[0].message.content
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 8
    assert found.usage.total_tokens == found.usage.prompt_tokens + 8
    again = chat(client, temperature=0)
    assert again.choices[0].message.content == found.choices[0].message.content


def test_a_stream_says_the_same(client: OpenAI) -> None:
    whole = chat(client, temperature=0).choices[0].message.content
    chunks = list(chat(client, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1


def test_seeds(client: OpenAI) -> None:
    said = [chat(client, temperature=1.5, seed=seed).choices[0].message.content for seed in (5, 5, 6)]
    assert said[0] == said[1] != said[2]


def test_several_replies_and_stops(client: OpenAI) -> None:
    found = chat(client, n=3, temperature=1.5, seed=1)
    assert len({choice.message.content for choice in found.choices}) > 1
    assert found.usage.completion_tokens <= 24
    text = chat(client, temperature=0).choices[0].message.content
    stop = text[3:6]
    stopped = chat(client, temperature=0, stop=[stop]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (text[: text.index(stop)], "stop")


def test_log_probabilities(client: OpenAI) -> None:
    found = chat(client, temperature=0, logprobs=True, top_logprobs=3, max_tokens=4).choices[0]
    assert "".join(token.token for token in found.logprobs.content) == found.message.content
    for token in found.logprobs.content:
        assert token.logprob <= 0
        assert bytes(token.bytes).decode() == token.token
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (t.logprob for t in token.top_logprobs), reverse=True
        )
        assert token.top_logprobs[0].token == token.token
    streamed = [
        token.token
        for chunk in chat(client, temperature=0, logprobs=True, max_tokens=4, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert streamed == [token.token for token in found.logprobs.content]


def test_a_biased_token(client: OpenAI) -> None:
    first = chat(client, temperature=0, logprobs=True, max_tokens=1).choices[0].message.content
    found = client.completions.create(model=MODEL, prompt=[1, 2, 3], max_tokens=1, temperature=0)
    assert found.choices[0].text is not None
    ids = {str(number): -100 for number in range(2000)}
    assert chat(client, temperature=0, max_tokens=1, logit_bias=ids).choices[0].message.content != first


class Paint(BaseModel):
    colour: Literal["red", "blue"]
    walls: Annotated[list[Literal["north", "south"]], Field(max_length=2)]


def test_forms(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "paint", "strict": True, "schema": SCHEMA}}
    found = json.loads(chat(client, max_tokens=200, temperature=0, response_format=form).choices[0].message.content)
    assert set(found) == {"colour", "count"}
    assert 1 <= found["count"] <= 9
    streamed = chat(client, max_tokens=200, temperature=0, response_format=form, stream=True)
    assert set(json.loads("".join(chunk.choices[0].delta.content or "" for chunk in streamed))) == set(found)
    anything = chat(client, max_tokens=60, response_format={"type": "json_object"}).choices[0]
    assert anything.finish_reason == "length" or isinstance(json.loads(anything.message.content), dict)
    parsed = client.chat.completions.parse(
        model=MODEL, messages=ASKED, response_format=Paint, max_tokens=200, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, Paint)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "paint"}}])
def test_a_required_call(client: OpenAI, choice: Any) -> None:
    found = chat(client, tools=[PAINT], tool_choice=choice, max_tokens=200, temperature=0).choices[0]
    assert found.finish_reason == "tool_calls"
    (call,) = found.message.tool_calls
    assert call.function.name == "paint"
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")
    messages = [*ASKED, found.message, {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    assert chat(client, messages=messages, tools=[PAINT], tool_choice="none").choices[0].message.tool_calls is None


def test_a_streamed_call(client: OpenAI) -> None:
    chunks = list(chat(client, tools=[PAINT], tool_choice="required", max_tokens=200, temperature=0, stream=True))
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].id
    assert calls[0].function.name == "paint"
    assert json.loads("".join(call.function.arguments for call in calls))["colour"] in ("red", "blue")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_completions(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "temperature": 0, "max_tokens": 6}
    one = client.completions.create(prompt="The sky is", **asked)
    assert one.usage is not None
    assert one.usage.completion_tokens == 6
    assert client.completions.create(prompt="The sky is", echo=True, **asked).choices[0].text.startswith("The sky is")
    both = client.completions.create(prompt=["The sky is", "Grass is"], **asked).choices
    assert both[0].text == one.choices[0].text
    streamed = client.completions.create(prompt="The sky is", stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == one.choices[0].text
    likely = client.completions.create(prompt="The sky is", logprobs=2, **asked).choices[0].logprobs
    assert likely is not None
    assert "".join(likely.tokens or ()) == one.choices[0].text
    assert client.completions.create(prompt="def add(a, b):\n    ", suffix="\n\nadd(1, 2)", **asked).choices


def test_vectors(client: OpenAI) -> None:
    found = client.embeddings.create(model=MODEL, input=["a red wall", "a red wall", "tax law"])
    first, second, third = (row.embedding for row in found.data)
    assert first == second != third
    assert abs(sum(number**2 for number in first) - 1) < 1e-3
    assert found.usage.prompt_tokens > 3
    plain = client.embeddings.create(model=MODEL, input="a red wall", encoding_format="float").data[0].embedding
    assert plain == pytest.approx(first, abs=1e-6)
    assert len(client.embeddings.create(model=MODEL, input="a", dimensions=16).data[0].embedding) == 16


def test_responses(client: OpenAI) -> None:
    found = client.responses.create(model=MODEL, input="Name one colour.", max_output_tokens=8, temperature=0)
    assert (found.status, found.output_text != "") == ("incomplete", True)
    colour: Any = {"format": {"type": "json_schema", "name": "colour", "schema": {"enum": ["red", "blue"]}}}
    with client.responses.stream(model=MODEL, input=ASKED, max_output_tokens=40, text=colour) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert json.loads(text) in ("red", "blue")
        assert stream.get_final_response().output_text == text
    cut = list(client.responses.create(model=MODEL, input=ASKED, max_output_tokens=3, stream=True))[-1]
    assert (cut.type, cut.response.status) == ("response.incomplete", "incomplete")
    tool: Any = {"type": "function", "strict": True, **PAINT["function"]}
    called = client.responses.create(
        model=MODEL, input="Paint it.", tools=[tool], tool_choice="required", max_output_tokens=200, temperature=0
    )
    assert called.output[-1].type == "function_call"
    parsed = client.responses.parse(
        model=MODEL, input="Paint it.", text_format=Paint, max_output_tokens=200, temperature=0
    )
    assert isinstance(parsed.output_parsed, Paint)


def test_a_kept_reply_comes_in_pieces_too(client: OpenAI) -> None:
    chat(client, temperature=0, max_tokens=9)
    chunks = list(chat(client, temperature=0, max_tokens=9, stream=True))
    assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) > 2


def test_several_streams_in_one(client: OpenAI) -> None:
    chunks = [chunk.choices[0] for chunk in chat(client, n=2, temperature=1.0, stream=True)]
    assert {choice.index for choice in chunks} == {0, 1}
    assert sorted(choice.index for choice in chunks if choice.finish_reason) == [0, 1]


def test_words_for_the_same(client: OpenAI) -> None:
    said = chat(client, temperature=0).choices[0].message.content
    parts = [{"role": "user", "content": [{"type": "text", "text": "Name one colour."}]}]
    assert chat(client, temperature=0, messages=parts).choices[0].message.content == said
    orders = [
        chat(client, temperature=0, messages=[{"role": role, "content": "Be brief."}, *ASKED])
        .choices[0]
        .message.content
        for role in ("developer", "system")
    ]
    assert orders[0] == orders[1]
    other = chat(client, max_tokens=None, max_completion_tokens=8, temperature=0)
    assert other.choices[0].message.content == said


def test_stops_of_letters_beyond_ascii_and_across_tokens(client: OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "Repeat: café ☕ naïve"}]
    text = chat(client, messages=asked, temperature=0, max_tokens=40).choices[0].message.content
    for stop in ("é", "☕", text[7:13]):
        found = chat(client, messages=asked, temperature=0, max_tokens=40, stop=["never said", stop], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in found) == text.split(stop)[0]


def test_a_word_that_must_come(client: OpenAI) -> None:
    assert (
        chat(client, temperature=0, max_tokens=3, logit_bias={" blue": 100}).choices[0].message.content == " blue" * 3
    )


def test_penalties(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": "1 2 1 2 1 2 1 2", "max_tokens": 12, "temperature": 0}
    plain = client.completions.create(**asked).choices[0].text
    assert client.completions.create(**asked, frequency_penalty=2).choices[0].text != plain
    assert client.completions.create(**asked, presence_penalty=2).choices[0].text != plain


def test_prompts_counted_before_they_are_sent(client: OpenAI) -> None:
    counted = client.responses.input_tokens.count(model=MODEL, input="Name one colour.").input_tokens
    assert counted == chat(client).usage.prompt_tokens


def test_the_best_of_several_completions(client: OpenAI) -> None:
    found = client.completions.create(model=MODEL, prompt="The sky", max_tokens=4, best_of=3, temperature=1.0)
    assert len(found.choices) == 1
    assert found.usage is not None
    assert found.usage.completion_tokens > 4


def test_a_begun_reply_is_gone_on_with(client: OpenAI) -> None:
    begun: Any = [*ASKED, {"role": "assistant", "content": "One colour is"}]
    asked = {"messages": begun, "temperature": 0, "max_tokens": 4}
    said = chat(client, **asked, extra_body={"continue_final_message": True, "verbose": True})
    assert said.model_extra["__verbose"]["prompt"].endswith("One colour is")
    with pytest.raises(openai.BadRequestError):
        chat(client, **asked, extra_body={"continue_final_message": True, "add_generation_prompt": True})


def test_what_stands_in_headers(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED, max_tokens=1)
    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    with pytest.raises(openai.APIStatusError) as wrong:
        client.get("/chat/completions", cast_to=dict[str, Any])
    assert (wrong.value.status_code, wrong.value.response.headers["allow"]) == (405, "POST")


def test_who_does_not_wait_holds_nobody_up(client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        chat(client.with_options(timeout=0.3), max_tokens=3000, extra_body={"ignore_eos": True})
    began = time.monotonic()
    chat(client, messages=[{"role": "user", "content": "Quick"}], max_tokens=2)
    assert time.monotonic() - began < 3


def test_errors(client: OpenAI, base: dict[str, Any]) -> None:
    with pytest.raises(openai.AuthenticationError) as refused, OpenAI(**(base | {"api_key": "wrong"})) as other:
        other.models.list()
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as unknown:
        chat(client, model="gpt-4")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as hot:
        chat(client, temperature=5)
    assert hot.value.param == "temperature"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as long:
            chat(client, messages=[{"role": "user", "content": "word " * 5000}], stream=stream)
        assert long.value.code == "context_length_exceeded"
    hiccup = {"name": "x", "schema": {"type": "hiccup"}}
    with pytest.raises(openai.BadRequestError) as form:
        chat(client, response_format={"type": "json_schema", "json_schema": hiccup})
    assert form.value.code == "invalid_schema"


def test_who_stops_reading_stops_the_model(client: OpenAI, served: Agentd) -> None:
    def busy() -> bool:
        return any(model["busy"] for model in served.json("status")["models"])

    stream = chat(client, max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert busy()
    stream.close()
    began = time.monotonic()
    wait_for(lambda: not busy())
    assert time.monotonic() - began < 5


def test_many_at_once(base: dict[str, Any]) -> None:
    async def ask(client: AsyncOpenAI, number: int) -> str:
        try:
            asked: Any = [{"role": "user", "content": f"Count from {number}."}]
            found = await client.chat.completions.create(model=MODEL, messages=asked, max_tokens=2)
        except openai.RateLimitError:
            return "refused"
        return "answered" if found.choices[0].message.content is not None else "empty"

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(**base) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(30)))

    assert set(asyncio.run(all_of_them())) <= {"answered", "refused"}


def test_a_place_is_busy_while_it_serves(client: OpenAI, base: dict[str, Any]) -> None:
    root, headers = base["base_url"].removesuffix("/v1"), {"Authorization": f"Bearer {base['api_key']}"}

    def busy() -> int:
        return sum(slot["is_processing"] for slot in httpx2.get(f"{root}/slots", headers=headers).json())

    stream = client.completions.create(
        model=MODEL, prompt="One two three", max_tokens=300, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert busy() == 1
    stream.close()
    wait_for(lambda: busy() == 0)
