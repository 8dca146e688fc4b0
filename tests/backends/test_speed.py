from __future__ import annotations

import time
from threading import Event

import pytest

from agentd.backends.llama_cpp import LlamaModel
from agentd.backends.speed import measure
from agentd.errors import ModelError
from agentd.types import Delta, ModelProfile, ModelReply, ModelRequest, OnDelta


class Steady:
    """Reads for 60 ms, then writes a token every 10 ms; half of the prompt is known to it already."""

    name = "steady"
    profile = ModelProfile()

    def chat(self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: Event | None = None) -> ModelReply:
        assert on_delta is not None
        assert not request.cache
        self.prompt = request.messages[0].content
        started = time.monotonic()
        time.sleep(0.06)
        for _ in range(request.max_tokens):
            on_delta(Delta(text="a"))
            time.sleep(0.01)
        return ModelReply(
            text="a" * request.max_tokens,
            model=self.name,
            prompt_tokens=200,
            reused_tokens=100,
            completion_tokens=request.max_tokens,
            seconds=time.monotonic() - started,
        )

    def count(self, text: str) -> int:
        return len(text.split())


def test_what_a_client_waits_for() -> None:
    model = Steady()
    found = measure(model, prompt_tokens=200, tokens=10)  # type: ignore[arg-type]
    assert 0.06 <= found.first_token < 0.2
    assert found.prompt_rate == pytest.approx(100 / found.first_token, rel=0.05)
    assert 50 < found.decode_rate < 101
    assert (found.prompt_tokens, found.completion_tokens) == (200, 10)
    assert 150 < model.count(model.prompt) < 250


def test_no_two_prompts_begin_alike() -> None:
    model = Steady()
    measure(model, prompt_tokens=10, tokens=8)  # type: ignore[arg-type]
    first = model.prompt
    measure(model, prompt_tokens=10, tokens=8)  # type: ignore[arg-type]
    assert first[:8] != model.prompt[:8]


def test_the_embedded_model(model: LlamaModel) -> None:
    found = measure(model, prompt_tokens=100, tokens=16)
    assert 90 < found.prompt_tokens < 160
    assert found.completion_tokens == 16
    assert found.decode_rate > 1
    assert found.prompt_rate > 1


def test_too_little_to_measure() -> None:
    with pytest.raises(ModelError, match="steady wrote 1 tokens"):
        measure(Steady(), prompt_tokens=1, tokens=1)  # type: ignore[arg-type]
