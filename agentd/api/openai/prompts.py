"""Texts as clients send them: one or a list, as text, as numbers of tokens, or as both in turn."""

from __future__ import annotations

from typing import Any, TypeAlias

from agentd.api.openai.errors import Refused
from agentd.api.openai.messages import text_of
from agentd.api.openai.models import prompt_of
from agentd.types import Model

Pieces: TypeAlias = tuple[str | int, ...]
"""A text, made of texts and of numbers of tokens."""

MOST_PROMPTS = 512
_MOST_TOKENS = 1 << 20
_HIGHEST = 1 << 31


def prompts_of(given: Any, param: str, *, most: int = MOST_PROMPTS) -> tuple[Pieces, ...]:
    """One or several. A list with a number in it is one; any other list has one in each place. Raises `Refused`."""
    if isinstance(given, list) and not any(_is_number(each) for each in given):
        if not given:
            raise Refused(f"{param} is empty", param=param)
        if len(given) > most:
            raise Refused(f"{param} has {len(given):,} texts, more than {most:,}", param=param)
        return tuple(_one(each, f"{param}[{number}]") for number, each in enumerate(given))
    return (_one(given, param),)


def written(model: Model, prompts: tuple[Pieces, ...]) -> list[str]:
    """The prompts as texts; the model knows what its tokens mean."""
    return [_text(model, pieces) for pieces in prompts]


def _one(given: Any, param: str) -> Pieces:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, dict):
        return (_of_object(given, param),)
    if not isinstance(given, list) or not all(isinstance(each, str) or _is_number(each) for each in given):
        raise Refused(f"{param}: expected a text or a list of tokens, got {ascii(given)[:80]}", param=param)
    if not given or len(given) > _MOST_TOKENS:
        raise Refused(f"{param} has {len(given):,} tokens; there may be 1 to {_MOST_TOKENS:,}", param=param)
    for each in given:
        if isinstance(each, int) and not 0 <= each < _HIGHEST:
            raise Refused(f"{param}: {str(each)[:20]} is no token", param=param)
    return tuple(given)


def _of_object(given: dict[str, Any], param: str) -> str:
    """`{"prompt_string": TEXT}` or `{"content": [PARTS]}`, as llama.cpp's server takes them."""
    if given.get("multimodal_data"):
        raise Refused(f"{param}.multimodal_data: models here read text only", param=param, kind="unsupported_content")
    if isinstance(given.get("prompt_string"), str):
        return str(given["prompt_string"])
    if isinstance(given.get("content"), list):
        return text_of(given["content"], f"{param}.content", between="")
    raise Refused(f"{param}: expected a text or a list of tokens, got {ascii(given)[:80]}", param=param)


def _text(model: Model, pieces: Pieces) -> str:
    texts: list[str] = []
    tokens: list[int] = []
    for piece in pieces:
        if isinstance(piece, int):
            tokens.append(piece)
            continue
        if tokens:
            texts.append(prompt_of(model, tokens))
            tokens = []
        texts.append(piece)
    return "".join([*texts, prompt_of(model, tokens)] if tokens else texts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
