"""How a reply is to be chosen: the fields that every endpoint of replies shares."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field, field_validator

from agentd.api.openai.body import Body
from agentd.api.openai.errors import Refused
from agentd.api.openai.models import tokens_of
from agentd.types import Model, Priority

MOST_REPLIES = 32
"""`n`."""
MOST_STOPS = 16
MOST_TOP = 20
"""Alternatives of a token."""
_LONGEST_STOP = 1000
_MOST_BIASED = 10_000
_MOST_TOKENS = 1 << 30
_INT64 = 1 << 63
FORBIDS = -100.0
"""A bias that a token cannot make up for."""
DEFAULTS = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.0}
"""Where neither the request nor the model's entry in the catalog says anything."""

Unit: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
Seed: TypeAlias = Annotated[int, Field(ge=-_INT64, lt=_INT64)]
Length: TypeAlias = Annotated[int, Field(ge=1, le=_MOST_TOKENS)]


class Sampled(Body):
    """Fields of OpenAI, and those of llama.cpp's server under its names."""

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=-1, le=_MOST_TOKENS)] | None = None
    min_p: Unit | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: Any = None
    seed: Seed | None = None
    stop: Any = None
    ignore_eos: bool | None = None
    n_predict: Annotated[int, Field(ge=-1, le=_MOST_TOKENS)] | None = None
    user: str | None = None
    service_tier: str | None = None
    """`flex`: nobody waits for it; it comes after what people wait for."""

    @field_validator("logit_bias")
    @classmethod
    def _biases(cls, value: Any) -> dict[int | str, float]:
        return _biases(value)

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: Any) -> tuple[str, ...]:
        return _stops(value)

    def sampling(self, model: Model) -> dict[str, Any]:
        """The part of a `ModelRequest` that says how tokens are chosen; for the first of several replies.

        May wait for the model, whose tokens the texts of `logit_bias` are.
        """
        known = {**DEFAULTS, **model.profile.sampling}
        asked = {name: getattr(self, name) for name in DEFAULTS if getattr(self, name) is not None}
        found: dict[str, Any] = known | asked
        found["top_k"] = max(0, int(found["top_k"]))
        return found | {
            "frequency_penalty": self.frequency_penalty or 0.0,
            "presence_penalty": self.presence_penalty or 0.0,
            "logit_bias": _by_token(self.logit_bias or {}, model),
            "seed": self._seed(float(found["temperature"])),
            "stop": self.stop or (),
            "ignore_eos": bool(self.ignore_eos),
            "priority": Priority.NIGHT if self.service_tier == "flex" else Priority.INTERACTIVE,
        }

    def _seed(self, temperature: float) -> int:
        if self.seed is not None and self.seed != -1:
            return self.seed % (1 << 32)
        return random.SystemRandom().randrange(1 << 32) if temperature > 0 else 0


def another_seed(seed: int, number: int) -> int:
    """Of reply `number` (from 0) to the same request."""
    return (seed + number) % (1 << 32)


def _stops(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError("expected a text or a list of texts")
    if len(found) > MOST_STOPS:
        raise ValueError(f"expected at most {MOST_STOPS} texts")
    if any(len(each) > _LONGEST_STOP for each in found):
        raise ValueError(f"expected texts of at most {_LONGEST_STOP} characters")
    return tuple(each for each in found if each)


def _by_token(biases: Mapping[int | str, float], model: Model) -> dict[int, float]:
    found: dict[int, float] = {}
    for token, by in biases.items():
        numbers = tokens_of(model, token, "logit_bias") if isinstance(token, str) else [token]
        found |= dict.fromkeys(numbers, by)
    return found


def _biases(value: Any) -> dict[int | str, float]:
    """Of an object by token, or of a list of pairs. A token is its number, or a text: then all that it is made of."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if pairs is None:
        return {}
    if not isinstance(pairs, list) or len(pairs) > _MOST_BIASED:
        raise ValueError(f"expected an object of at most {_MOST_BIASED:,} numbers by token")
    return dict(_bias(pair) for pair in pairs)


def _bias(pair: Any) -> tuple[int | str, float]:
    wrong = ValueError("expected numbers from -100 to 100 by the number or the text of a token")
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise wrong
    token, by = pair
    number = int(token) if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 10 else token
    by = FORBIDS if by is False else by
    if isinstance(number, str):
        if not 0 < len(number) <= _LONGEST_STOP:
            raise wrong
    elif not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
        raise wrong
    if not isinstance(by, int | float) or isinstance(by, bool) or not -100 <= by <= 100:
        raise wrong
    return number, float(by)


def one_constraint(**given: Any) -> None:
    """`Refused` when more than one of these says what a reply must look like."""
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise Refused(f"{' and '.join(named)} exclude each other", param=named[1])
