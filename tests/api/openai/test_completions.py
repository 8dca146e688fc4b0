"""Completions, embeddings and models over HTTP."""

from __future__ import annotations

import base64
import math
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentd.api.openai.errors import error_object, is_openai
from agentd.errors import NotServed, TooLong
from agentd.types import Delta, ModelProfile, ModelReply, ModelRequest, OnDelta, TokenLogprob
from tests.api.openai.conftest import Talk, error_of

Make = Callable[..., Talk]


class Echo:
    """A model that says the prompt backwards, knows tokens as letters, and keeps what it is asked."""

    name = "echo"
    profile = ModelProfile(context=500)

    def __init__(self, *, fills: bool = True) -> None:
        self.asked: list[ModelRequest] = []
        self._fills = fills

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        self.asked.append(request)
        if request.suffix is not None and not self._fills:
            raise NotServed("no holes here")
        text = (request.messages[-1].content if request.prompt is None else request.prompt)[::-1]
        logprobs = () if request.logprobs is None else _logprobs(text, -0.5 - request.seed % 3)
        if on_delta is not None:
            for letter, known in zip(text, logprobs or [None] * len(text), strict=True):
                on_delta(Delta(text=letter, logprobs=(known,) if known else ()))
        return ModelReply(
            text=f"{text}",
            model="echo",
            prompt_tokens=len(text),
            completion_tokens=len(text),
            seconds=0.1,
            logprobs=logprobs,
        )

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def count(self, text: str) -> int:
        return len(text)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[0.6, 0.0, 0.8] for _ in texts]


def _logprobs(text: str, logprob: float) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token=letter, logprob=logprob, top=((letter, logprob), ("?", -9.0))) for letter in text)


@pytest.fixture
def echo() -> Echo:
    return Echo()


def complete(client: Talk, prompt: Any = "abc", **body: Any) -> dict[str, Any]:
    reply = client.post("completions", prompt=prompt, **body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def texts(found: dict[str, Any]) -> list[str]:
    assert [choice["index"] for choice in found["choices"]] == list(range(len(found["choices"])))
    return [choice["text"] for choice in found["choices"]]


def test_a_text_goes_on(talk: Make, echo: Echo) -> None:
    found = complete(talk(model=echo), stop="x", seed=3)
    assert found["id"].startswith("cmpl-")
    assert (found["object"], texts(found)) == ("text_completion", ["cba"])
    assert found["usage"]["total_tokens"] == 6
    (asked,) = echo.asked
    assert (asked.prompt, asked.messages, asked.max_tokens, asked.stop, asked.seed) == ("abc", (), 16, ("x",), 3)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("ab", ["ba"]),
        (["ab", "cd"], ["ba", "dc"]),
        ([97, 98], ["ba"]),
        ([[97, 98], [99]], ["ba", "c"]),
        (["ab", [99, 100]], ["ba", "dc"]),
        ([97, "bc", 100], ["dcba"]),
        ("", [""]),
    ],
)
def test_prompts_of_all_kinds(talk: Make, echo: Echo, prompt: Any, said: list[str]) -> None:
    assert texts(complete(talk(model=echo), prompt)) == said


def test_several_replies_to_several_prompts(talk: Make, echo: Echo) -> None:
    found = complete(talk(model=echo), ["ab", "c"], n=2)
    assert texts(found) == ["ba", "ba", "c", "c"]
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (3, 6)


def test_the_best_of_several(talk: Make, echo: Echo) -> None:
    found = complete(talk(model=echo), "ab", n=1, best_of=3, seed=0, logprobs=1)
    assert found["choices"][0]["logprobs"]["token_logprobs"] == [-0.5, -0.5]
    assert len(echo.asked) == 3
    assert found["usage"]["completion_tokens"] == 6


def test_the_prompt_with_the_reply(talk: Make, echo: Echo) -> None:
    client = talk(model=echo)
    assert texts(complete(client, ["ab", "c"], echo=True)) == ["abba", "cc"]
    chunks = client.chunks("completions", prompt="ab", echo=True)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "abba"
    counted = complete(client, "abcd", echo=True, max_tokens=0)
    assert (texts(counted), counted["usage"]["prompt_tokens"]) == (["abcd"], 4)
    assert counted["usage"]["completion_tokens"] == 0


def test_a_stream(talk: Make, echo: Echo) -> None:
    chunks = talk(model=echo).chunks("completions", prompt=["ab", "c"], stream_options={"include_usage": True})
    assert chunks.pop() == "[DONE]"
    assert chunks.pop()["usage"]["total_tokens"] == 6
    said = {0: "", 1: ""}
    for chunk in chunks:
        said[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert said == {0: "ba", 1: "c"}
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert sorted(end for end in ends if end) == ["stop", "stop"]


def test_log_probabilities(talk: Make, echo: Echo) -> None:
    client = talk(model=echo)
    found = complete(client, "abc", logprobs=1, seed=0)["choices"][0]["logprobs"]
    assert found["tokens"] == ["c", "b", "a"]
    assert found["top_logprobs"][0] == {"c": -0.5}
    assert found["text_offset"] == [0, 1, 2]
    chunks = client.chunks("completions", prompt="abc", logprobs=1)[:-2]
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0], [1], [2]]


def test_a_hole_is_filled_by_models_that_know_how(talk: Make, echo: Echo) -> None:
    complete(talk(model=echo), "def f(", suffix="): pass")
    assert (echo.asked[0].prompt, echo.asked[0].suffix) == ("def f(", "): pass")


def test_other_models_are_asked_in_words(talk: Make) -> None:
    echo = Echo(fills=False)
    complete(talk(model=echo), "def f(", suffix="\n): pass", stop=["#"])
    asked = echo.asked[-1]
    assert (asked.prompt, asked.suffix, asked.stop) == (None, None, ("#", "): pass"))
    assert "def f(" in asked.messages[-1].content
    assert "): pass" in asked.messages[-1].content


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [2**40]}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [["a", {}]]}, "prompt[0]"),
        ({"prompt": ["a"] * 600}, "prompt"),
        ({"prompt": ["a"] * 400, "n": 2}, "prompt"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"suffix": 5}, "suffix"),
    ],
)
def test_what_is_wrong_is_named(talk: Make, echo: Echo, wrong: dict[str, Any], param: str) -> None:
    reply = talk(model=echo).post("completions", **({"prompt": "a"} | wrong))
    assert error_of(reply)[:2] == (400, param)
    assert echo.asked == []


def test_tokens_of_a_model_that_has_none(talk: Make) -> None:
    reply = talk("ok").post("completions", prompt=[1, 2])
    assert error_of(reply)[0] == 400
    assert "takes text" in reply.json()["error"]["message"]


# vectors --------------------------------------------------------------------------------------------------------------


def embed(client: Talk, given: Any, **body: Any) -> dict[str, Any]:
    reply = client.post("embeddings", input=given, **body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_vectors(talk: Make, echo: Echo) -> None:
    client = talk(model=echo)
    found = embed(client, ["ab", "c"], model="echo")
    assert (found["object"], found["model"], found["usage"]) == (
        "list",
        "echo",
        {"prompt_tokens": 3, "total_tokens": 3},
    )
    assert [(row["object"], row["index"], row["embedding"]) for row in found["data"]] == [
        ("embedding", 0, [0.6, 0.0, 0.8]),
        ("embedding", 1, [0.6, 0.0, 0.8]),
    ]
    packed = embed(client, "a", encoding_format="base64")["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == pytest.approx((0.6, 0.0, 0.8))


def test_shorter_vectors_have_length_1_too(talk: Make, echo: Echo) -> None:
    (row,) = embed(talk(model=echo), "a", dimensions=2)["data"]
    assert len(row["embedding"]) == 2
    assert math.hypot(*row["embedding"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("", 1),
        ([97, 98], 1),
        ([[97], [98]], 2),
        (["a", [97]], 2),
        ({"prompt_string": "a"}, 1),
        (["a", {"content": [{"type": "text", "text": "b"}]}], 2),
    ],
)
def test_inputs_of_all_kinds(talk: Make, echo: Echo, given: Any, count: int) -> None:
    assert len(embed(talk(model=echo), given)["data"]) == count


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": []},
        {"input": None},
        {"input": {"content": "a"}},
        {"input": {"content": [{"type": "input_audio"}]}},
        {"input": ["a"] * 3000},
        {"encoding_format": "hex"},
        {"dimensions": 0},
        {"dimensions": 4},
    ],
)
def test_wrong_inputs(talk: Make, echo: Echo, wrong: dict[str, Any]) -> None:
    assert error_of(talk(model=echo).post("embeddings", **({"input": "a"} | wrong)))[0] == 400


# models ---------------------------------------------------------------------------------------------------------------


def test_the_models_and_the_agent_are_listed(talk: Make, echo: Echo) -> None:
    client = talk(model=echo).client
    found = client.get("/v1/models").json()
    assert found["object"] == "list"
    names = [row["id"] for row in found["data"]]
    assert names[:2] == ["echo", "agentd"]
    assert {"agentd/plan-only", "agentd/level-2"} <= set(names)
    for row in found["data"]:
        assert set(row) == {"id", "object", "created", "owned_by"}
        assert client.get(f"/v1/models/{row['id']}").json() == row
    assert client.get("/v1/models/planner").json()["id"] == "planner"


def test_models_that_are_not_there(talk: Make, echo: Echo) -> None:
    client = talk(model=echo).client
    for name in ("nope", "a/b/c", "agentd/level-9"):
        assert error_of(client.get(f"/v1/models/{name}")) == (404, "model", "model_not_found")


def test_paths_and_methods_that_are_not_there(talk: Make, echo: Echo) -> None:
    client = talk(model=echo).client
    assert error_of(client.get("/v1/nothing"))[::2] == (404, "not_found")
    wrong = client.get("/v1/chat/completions")
    assert error_of(wrong)[::2] == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert error_of(client.get("/v1/responses/resp_1"))[0] == 404


def test_errors_beside_v1_are_those_of_llama_cpp() -> None:
    assert [is_openai(path) for path in ("/v1", "/v1/x", "/slots", "/chat/completions")] == [True] * 4
    assert [is_openai(path) for path in ("/", "", "/api/tasks", "/tools/x", "/v11")] == [False] * 5
    error = TooLong("too long", tokens=9, context=5)
    assert error_object(error, 400, "/completion")["type"] == "exceed_context_size_error"
    assert error_object(error, 400, "/v1/completions")["type"] == "invalid_request_error"
