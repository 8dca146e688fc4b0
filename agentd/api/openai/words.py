"""The JSON that all endpoints of replies share: names, usage, log-probabilities, timings."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from agentd import __version__
from agentd.backends.json_schema import problems
from agentd.errors import BadReply
from agentd.types import JsonObject, ModelReply, TokenLogprob

FINGERPRINT = f"b{__version__}-agentd"
_LEAST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON does not know."""


def new_id(kind: str) -> str:
    return f"{kind}{secrets.token_hex(12)}"


def usage(prompt_tokens: int, replies: Sequence[ModelReply]) -> dict[str, Any]:
    """`prompt_tokens` are counted once, however many replies there are."""
    written = sum(reply.completion_tokens for reply in replies)
    reused = max((reply.reused_tokens for reply in replies[:1]), default=0)
    found: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
        "prompt_tokens_details": {"cached_tokens": min(reused, prompt_tokens)},
    }
    if any(reply.reasoning for reply in replies):
        found["completion_tokens_details"] = {"reasoning_tokens": sum(map(reasoning_tokens, replies))}
    return found


def reasoning_tokens(reply: ModelReply) -> int:
    """About: its share of the characters that the model wrote."""
    said = len(reply.text) + sum(len(call.arguments) for call in reply.tool_calls)
    return round(reply.completion_tokens * len(reply.reasoning) / max(1, len(reply.reasoning) + said))


def chat_logprobs(tokens: Sequence[TokenLogprob], top: int) -> dict[str, Any]:
    return {"content": [_token(token) | {"top_logprobs": _top(token, top)} for token in tokens], "refusal": None}


def timings(reply: ModelReply, prompt_seconds: float) -> dict[str, Any]:
    """As llama.cpp's server gives them; `prompt_seconds` went by before the first piece of the reply."""
    read, written = max(0, reply.prompt_tokens - reply.reused_tokens), reply.completion_tokens
    before = min(max(prompt_seconds, 1e-6), max(reply.seconds, 1e-6))
    after = max(reply.seconds - before, 1e-6)
    # The first token comes with the end of the prompt.
    steps = max(0, written - 1)
    return {
        "cache_n": reply.reused_tokens,
        "prompt_n": read,
        "prompt_ms": before * 1000,
        "prompt_per_token_ms": before * 1000 / max(1, read),
        "prompt_per_second": read / before,
        "predicted_n": written,
        "predicted_ms": after * 1000,
        "predicted_per_token_ms": after * 1000 / steps if steps else 0.0,
        "predicted_per_second": steps / after,
    }


def refuse_misfit(reply: ModelReply, schema: JsonObject | None) -> None:
    """`BadReply` for a whole reply that is not of the form that was asked for; one cut short says so itself."""
    if schema is None or reply.finish_reason != "stop" or reply.tool_calls:
        return
    try:
        wrong = problems(json.loads(reply.text), schema)
    except (ValueError, RecursionError):
        wrong = [f"it is no JSON: {reply.text[:100]!r}"]
    if wrong:
        raise BadReply(f"the reply of {reply.model} does not fit the schema: {'; '.join(wrong)}")


def sane(logprob: float) -> float:
    return max(_LEAST, min(0.0, logprob)) if logprob == logprob else _LEAST


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": sane(token.logprob), "bytes": list(token.bytes) or _bytes(token.token)}


def _top(token: TokenLogprob, top: int) -> list[Mapping[str, Any]]:
    return [{"token": text, "logprob": sane(logprob), "bytes": _bytes(text)} for text, logprob in token.top[:top]]


def _bytes(text: str) -> list[int]:
    return list(text.encode("utf-8", "replace"))
