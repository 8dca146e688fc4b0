"""The endpoints of llama.cpp's own server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentd.backends.scripted import ScriptedModel
from agentd.types import Delta, ModelReply, ModelRequest
from tests.api.openai.conftest import ASKED, Talk, error_of


def post(asked: Talk, path: str, **body: Any) -> Any:
    return asked.client.post(path, json=body)


def test_health(talk: Callable[..., Talk]) -> None:
    client = talk()
    assert client.client.get("/health").json() == {"status": "ok"}
    assert client.client.get("/v1/health").json() == {"status": "ok"}


def test_completion(talk: Callable[..., Talk]) -> None:
    found = post(talk("Once upon\na time"), "/completion", prompt="Tell", n_predict=8, temperature=0).json()
    assert found["content"] == "Once upon\na time"
    assert (found["stop"], found["stop_type"], found["has_new_line"], found["truncated"]) == (True, "eos", True, False)
    assert found["generation_settings"]["n_predict"] == 8
    assert found["tokens_evaluated"] == found["timings"]["prompt_n"]
    assert found["tokens"] == []
    assert found["prompt"] == "Tell"


def test_completions_of_several_prompts(talk: Callable[..., Talk]) -> None:
    found = post(talk("one", "two"), "/completions", prompt=["a", "b"]).json()
    assert sorted(each["content"] for each in found) == ["one", "two"]
    assert [each["index"] for each in found] == [0, 1]


def test_only_the_fields_that_are_wanted(talk: Callable[..., Talk]) -> None:
    wanted = ["content", "generation_settings/n_predict", "nothing"]
    found = post(talk("x"), "/completion", prompt="a", n_predict=5, response_fields=wanted).json()
    assert found == {"content": "x", "generation_settings/n_predict": 5}


def test_a_stream(talk: Callable[..., Talk]) -> None:
    client = talk({"say": {"text": ["Once ", "upon"]}})
    reply = post(client, "/completion", prompt="a", stream=True)
    pieces = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    assert [piece["stop"] for piece in pieces] == [False, False, True]
    assert "".join(piece["content"] for piece in pieces) == "Once upon"
    assert pieces[-1]["timings"]["predicted_n"] > 0


def test_a_hole_is_filled(talk: Callable[..., Talk]) -> None:
    body = {"input_prefix": "def f():\n", "prompt": "    ", "input_suffix": "\n"}
    assert post(talk("return 1"), "/infill", **body).json()["content"] == "return 1"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completion", {}),
        ("/completion", {"prompt": None}),
        ("/completion", {"prompt": {"a": 1}}),
        ("/completion", {"prompt": "a", "n_probs": -1}),
        ("/completion", {"prompt": "a", "grammar": "x", "json_schema": {}}),
        ("/infill", {"prompt": 3}),
        ("/infill", {"input_extra": [{"filename": "ok"}]}),
        ("/infill", {"input_extra": [{"filename": 1, "text": "x"}]}),
        ("/tokenize", {"content": 3}),
        ("/detokenize", {"tokens": "x"}),
        ("/apply-template", {"messages": []}),
        ("/chat/completions", {"messages": [{"role": "user", "content": 123}]}),
    ],
)
def test_wrong_requests(talk: Callable[..., Talk], path: str, body: dict[str, Any]) -> None:
    reply = post(talk("x"), path, **body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_chat_without_a_version(talk: Callable[..., Talk]) -> None:
    found = post(talk("hello"), "/chat/completions", messages=[{"role": "user", "content": "hi"}]).json()
    assert found["choices"][0]["message"]["content"] == "hello"


def test_embedding(talk: Callable[..., Talk]) -> None:
    found = post(talk(), "/embedding", content=["a b", "c"]).json()
    assert [each["index"] for each in found] == [0, 1]
    assert len(found[0]["embedding"][0]) > 1


class Known(ScriptedModel):
    """Knows its tokens, which are letters, and its prompts; keeps what it is asked."""

    def chat(self, request: ModelRequest, *rest: Any) -> ModelReply:
        self.asked = request
        return super().chat(request, *rest)

    def tokenize(self, text: str, *, special: bool = False, controls: bool = False) -> dict[str, Any]:
        return {"tokens": [ord(letter) for letter in text], "pieces": list(text)}

    def render(self, messages: Any, *, tools: Any = (), think: bool = False) -> str:
        return "".join(f"[{message.content}]" for message in messages) + "".join(tool["name"] for tool in tools)


@pytest.mark.parametrize("given", [[["ab", -100], [7, 1.5], [8, False]], {"ab": -100, "7": 1.5, "8": -100}])
def test_biases_by_text_and_by_number(talk: Callable[..., Talk], given: Any) -> None:
    model = Known(["x"], name="known")
    found = post(talk(model=model), "/completion", prompt="p", logit_bias=given).json()
    assert model.asked.logit_bias == {97: -100, 98: -100, 7: 1.5, 8: -100}
    told = {each["token"]: each["bias"] for each in found["generation_settings"]["logit_bias"]}
    assert told == {97: None, 98: None, 7: 1.5, 8: None}


def test_a_bias_by_text_needs_a_model_with_tokens(talk: Callable[..., Talk]) -> None:
    assert error_of(post(talk("x"), "/completion", prompt="p", logit_bias={"ab": 1})) == (400, "logit_bias", None)


def test_pictures_in_a_prompt_are_refused(talk: Callable[..., Talk]) -> None:
    prompt = {"prompt_string": "see <__media__>", "multimodal_data": ["aGk="]}
    assert error_of(post(talk("x"), "/completion", prompt=prompt))[::2] == (400, "unsupported_content")


def test_tokens_are_counted_as_the_model_is_prompted(talk: Callable[..., Talk]) -> None:
    client = talk(model=Known([], name="known"))
    tool = {"type": "function", "function": {"name": "xyz"}}
    body = {"messages": [{"role": "user", "content": "abc"}], "tools": [tool]}
    assert post(client, "/chat/completions/input_tokens", **body).json()["input_tokens"] == len("[abc]xyz")
    assert post(client, "/v1/chat/completions/input_tokens", **body, tool_choice="none").json()["input_tokens"] == 5
    assert post(client, "/v1/responses/input_tokens", input="abc", instructions="d").json()["input_tokens"] == 8
    assert error_of(post(talk("x"), "/chat/completions/input_tokens", **body))[:2] == (400, "model")


def test_the_prompt_of_a_chat_is_shown_on_request(talk: Callable[..., Talk]) -> None:
    body = {"messages": [{"role": "user", "content": "abc"}]}
    shown = post(talk(model=Known(["x"], name="known")), "/chat/completions", **body, verbose=True).json()
    assert shown["__verbose"]["prompt"] == "[abc]"
    assert "__verbose" not in post(talk(model=Known(["x"], name="known")), "/chat/completions", **body).json()


@pytest.mark.parametrize(
    ("last", "wishes", "param"),
    [
        ("assistant", {"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
        ("user", {"continue_final_message": True}, "continue_final_message"),
        ("user", {"add_generation_prompt": False}, "add_generation_prompt"),
        ("assistant", {"continue_final_message": True, "add_generation_prompt": False}, None),
    ],
)
def test_how_a_conversation_ends(talk: Callable[..., Talk], last: str, wishes: dict[str, bool], param: str) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": last, "content": "b"}]
    reply = post(talk("x"), "/chat/completions", messages=messages, **wishes)
    if param is None:
        assert reply.status_code == 200
    else:
        assert error_of(reply) == (400, param, None)


def test_timings_are_measured(talk: Callable[..., Talk]) -> None:
    class Slow(ScriptedModel):
        def chat(self, request: ModelRequest, on_delta: Any = None, cancel: Any = None) -> ModelReply:
            began = time.monotonic()
            time.sleep(0.05)
            on_delta(Delta(text="a"))
            time.sleep(0.1)
            seconds = time.monotonic() - began
            return ModelReply(
                text="ab", model="slow", prompt_tokens=9, completion_tokens=2, seconds=seconds, reused_tokens=4
            )

    for path, body in (("/completion", {"prompt": "p"}), ("/chat/completions", {"messages": ASKED})):
        told = post(talk(model=Slow([], name="slow")), path, **body, timings_per_token=True).json()["timings"]
        assert 50 <= told["prompt_ms"] < 90
        assert told["predicted_ms"] > 60
        assert (told["prompt_n"], told["cache_n"], told["predicted_n"]) == (5, 4, 2)
        assert told["predicted_per_token_ms"] == pytest.approx(told["predicted_ms"])  # the first came with the prompt
        assert told["prompt_per_token_ms"] == pytest.approx(told["prompt_ms"] / 5)
