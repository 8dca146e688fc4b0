"""Measures a model as a client sees it: the first token, how fast it reads, how fast it writes."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass

from agentd.errors import ModelError
from agentd.types import Delta, Message, Model, ModelRequest

_WORDS = "the river ran under old stones while a clerk counted barrels of salt and nobody wrote down how many "


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One measurement. Seconds of wall clock; rates in tokens a second."""

    prompt_tokens: int
    completion_tokens: int
    first_token: float
    """Seconds until the first piece of text, the whole prompt being new to the model."""
    prompt_rate: float
    decode_rate: float
    seconds: float


def measure(
    model: Model, *, prompt_tokens: int, tokens: int, cancel: threading.Event | None = None, timeout: float = 600.0
) -> Speed:
    """Let a model read about so many tokens and write so many. Raises `ModelError` when it writes fewer than two."""
    arrivals: list[float] = []

    def hear(delta: Delta) -> None:
        if delta.text or delta.reasoning:
            arrivals.append(time.monotonic())

    request = ModelRequest(
        messages=(Message(role="user", content=_text(model, prompt_tokens)),),
        max_tokens=tokens,
        ignore_eos=True,
        cache=False,
        client="bench",
        timeout=timeout,
    )
    started = time.monotonic()
    reply = model.chat(request, hear, cancel)
    ended = time.monotonic()
    if reply.completion_tokens < 2 or not arrivals:
        raise ModelError(
            f"{model.name} wrote {reply.completion_tokens} tokens, which is too little to measure", hint="ask for more"
        )
    first = arrivals[0] - started
    read = reply.prompt_tokens - reply.reused_tokens
    return Speed(
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        first_token=round(first, 4),
        prompt_rate=round(read / max(first, 1e-6), 1),
        decode_rate=round((reply.completion_tokens - 1) / max(ended - arrivals[0], 1e-6), 1),
        seconds=round(ended - started, 4),
    )


def _text(model: Model, tokens: int) -> str:
    """About so many tokens, beginning with something that no earlier prompt began with."""
    each = max(1, model.count(_WORDS))
    return f"{secrets.token_hex(8)} " + _WORDS * max(1, tokens // each)
