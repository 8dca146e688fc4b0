"""A model's own chat template, filled so that nothing in a message can pass for one of the model's control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For a model that brings no template."""

Piece: TypeAlias = tuple[str, bool]
"""Text of a prompt, and whether control tokens in it are meant as such."""

_MARK = re.compile("\ue000(\\d+)\ue001")


class ChatTemplate:
    def __init__(self, source: str | None, *, bos: str, eos: str, controls: Sequence[str]) -> None:
        """`controls`: the texts of the model's control tokens. Raises `ValueError` for a template that is no Jinja."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _tojson
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "bos_token": bos, "eos_token": eos}
        self._controls = [text for text in sorted(controls, key=len, reverse=True) if text]
        self._pattern = re.compile("|".join(map(re.escape, self._controls))) if self._controls else None
        self._number = {text: number for number, text in enumerate(self._controls)}
        try:
            self._template = environment.from_string(source or CHATML)
        except jinja2.TemplateError as error:
            raise ValueError(f"the model's chat template cannot be read: {error}") from None

    def render(self, messages: Sequence[Mapping[str, str]], *, think: bool) -> list[Piece]:
        """The prompt in pieces, ready for the assistant's words. Raises `ValueError` when the template refuses."""
        disarmed = [{"role": message["role"], "content": self._disarm(message["content"])} for message in messages]
        try:
            text = self._fill(disarmed, think)
        except (jinja2.TemplateError, ValueError, TypeError):
            # Many templates know neither system nor tool messages and want user and assistant in turn.
            try:
                text = self._fill(_in_turn(disarmed), think)
            except (jinja2.TemplateError, ValueError, TypeError) as error:
                raise ValueError(f"the model's chat template refuses these messages: {error}") from None
        return self._pieces(text)

    def _fill(self, messages: Sequence[Mapping[str, str]], think: bool) -> str:
        return self._template.render(messages=messages, add_generation_prompt=True, enable_thinking=think, tools=None)

    def _disarm(self, content: str) -> str:
        if self._pattern is None:
            return content
        return self._pattern.sub(lambda found: f"\ue000{self._number[found[0]]}\ue001", content)

    def _pieces(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        at = 0
        for mark in _MARK.finditer(text):
            if int(mark[1]) < len(self._controls):
                pieces += [(text[at : mark.start()], True), (self._controls[int(mark[1])], False)]
                at = mark.end()
        return [piece for piece in [*pieces, (text[at:], True)] if piece[0]]


class _Generation(Extension):
    """`{% generation %}` marks text for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _in_turn(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Only user and assistant, in turn."""
    turns: list[dict[str, str]] = []
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + message["content"]
        else:
            turns.append({"role": role, "content": message["content"]})
    return turns


def _refuse(message: str) -> None:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
