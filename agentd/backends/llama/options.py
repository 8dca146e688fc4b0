"""What a frame asks for, checked: every value comes from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from agentd.backends.decoding import Sampling
from agentd.backends.llama.refusals import Refused

Frame: TypeAlias = dict[str, Any]

_MOST_KEPT = 512 * 1024 * 1024
_SHARE_KEPT = 8
"""One part of so many of the free memory may be taken for what is kept."""
_MOST_TOKENS = 1 << 30
_MOST_SEQUENCES = 64
_MOST_ALTERNATIVES = 100
_MOST_CHOICES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How a model is to be loaded."""

    path: Path
    context: int
    """Tokens of one sequence."""
    sequences: int
    unified: bool
    cells: int
    """Tokens of all sequences together."""
    gpu_layers: int
    threads: int
    threads_batch: int
    kv_type: str
    loras: tuple[Path, ...]
    requantise: str | None
    cache: Path
    embedding: bool
    states: Path | None
    kept_bytes: int
    """For states of conversations that had to give up their sequence."""

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Load:
        """Raises `Refused`."""
        context = integer(frame, "context", None, 1)
        sequences = integer(frame, "sequences", 1, 1, _MOST_SEQUENCES)
        unified = bool(frame.get("unified", False))
        threads = integer(frame, "threads", None, 1, 1024)
        kv_type = frame.get("kv_type") or "f16"
        if kv_type not in ("f16", "q8_0"):
            raise Refused(f"kv_type is {kv_type!r}; there are f16 and q8_0")
        cells = integer(frame, "cells", context if unified else context * sequences, context)
        loras = frame.get("loras") or ([frame["lora"]] if frame.get("lora") else [])
        return cls(
            path=Path(text(frame, "path")),
            context=context,
            sequences=sequences,
            unified=unified,
            cells=cells if unified else context * sequences,
            gpu_layers=integer(frame, "gpu_layers", 0, -1, 100_000),
            threads=threads,
            threads_batch=integer(frame, "threads_batch", threads, 1, 1024),
            kv_type=kv_type,
            loras=tuple(Path(str(each)) for each in loras),
            requantise=frame.get("requantise"),
            cache=Path(str(frame.get("cache") or ".")),
            embedding=bool(frame.get("embedding", False)),
            states=Path(frame["states"]) if frame.get("states") else None,
            kept_bytes=integer(frame, "kept_bytes", _affordable(), 0, 1 << 40),
        )


def _affordable() -> int:
    return min(_MOST_KEPT, int(psutil.virtual_memory().available) // _SHARE_KEPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a reply is to be written."""

    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    ignore_eos: bool
    logprobs: int | None
    """Alternatives for each token; None for no log-probabilities at all."""
    choices: tuple[str, ...] | None
    stream: bool
    night: bool

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Wish:
        """Raises `Refused`."""
        alternatives = frame.get("logprobs")
        choices = frame.get("choices")
        if choices is not None and not choices:
            raise Refused("there are no choices to choose from")
        return cls(
            sampling=_sampling(frame),
            max_tokens=integer(frame, "max_tokens", 512, 0, _MOST_TOKENS),
            stop=texts(frame, "stop"),
            ignore_eos=bool(frame.get("ignore_eos", False)),
            logprobs=None if alternatives is None else integer(frame, "logprobs", 0, 0, _MOST_ALTERNATIVES),
            choices=None if choices is None else texts(frame, "choices")[:_MOST_CHOICES],
            stream=bool(frame.get("stream", False)),
            night=frame.get("priority") == "night",
        )


def _sampling(frame: Mapping[str, Any]) -> Sampling:
    bias = frame.get("logit_bias") or {}
    try:
        biases = {int(token): float(by) for token, by in bias.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise Refused("logit_bias must be numbers by token id") from None
    if any(by != by for by in biases.values()):
        raise Refused("logit_bias holds something that is not a number")
    return Sampling(
        temperature=number(frame, "temperature", 0.0, 0.0, 1e6),
        top_p=number(frame, "top_p", 0.95, 0.0, 1.0),
        top_k=integer(frame, "top_k", 40, 0, _MOST_TOKENS),
        min_p=number(frame, "min_p", 0.0, 0.0, 1.0),
        frequency_penalty=number(frame, "frequency_penalty", 0.0, -100.0, 100.0),
        presence_penalty=number(frame, "presence_penalty", 0.0, -100.0, 100.0),
        repeat_penalty=number(frame, "repeat_penalty", 1.0, 0.0, 100.0),
        logit_bias=biases,
        seed=integer(frame, "seed", 0, -(1 << 63), 1 << 64),
    )


def integer(frame: Mapping[str, Any], key: str, default: int | None, low: int, high: int = _MOST_TOKENS) -> int:
    """A whole number within its limits; a default of None means that it must be there. Raises `Refused`."""
    value = frame.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(f"{key} is {value!r:.40}; it must be a whole number from {low} to {high}")
    return value


def number(frame: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    """Like `integer`, with a fraction."""
    value = frame.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # also not a number
        raise Refused(f"{key} is {value!r:.40}; it must be a number from {low:g} to {high:g}")
    return float(value)


def text(frame: Mapping[str, Any], key: str) -> str:
    """Raises `Refused`."""
    value = frame.get(key)
    if not isinstance(value, str):
        raise Refused(f"{key} must be a text")
    return value


def texts(frame: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Raises `Refused`."""
    value = frame.get(key) or ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise Refused(f"{key} must be a list of texts")
    return tuple(value)
