"""The endpoints of llama.cpp's own server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.openai.conftest import Talk


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
