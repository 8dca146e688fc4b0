"""What models are asked for a new plugin: a spec, tests from it, code for it, and whether it may be used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from agentd.backends.structured import ask
from agentd.errors import BadInput
from agentd.plugins.exam import MIN_CASES
from agentd.plugins.registry import Registry
from agentd.plugins.replies import code_in
from agentd.plugins.spec import Spec
from agentd.types import Message, Model, ModelRequest

MAX_TOKENS = 4_096
MIN_EXAMPLES = 3
OTHERWISE = 0.8
"""The temperature at which a model comes to another version."""
_SHOWN = 1_500
"""Characters of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    accept: bool
    reason: str


def write_spec(model: Model, *, goal: str, missing: str, given: Mapping[str, str], registry: Registry) -> Spec:
    """Raises `BadReply`. `given`: files of the workspace with their text."""
    shown = "\n".join(f"{name}:\n{text[:_SHOWN]}" for name, text in given.items()) or "(none)"
    prompt = _fill("spec", goal=goal[:3_000], missing=missing[:1_000], files=shown)

    def wrong(spec: Spec) -> str:
        if spec.permissions.http:
            return "permissions: a tool that is made for a task has no network; leave http out"
        try:
            registry.refuse_unusable(spec)
        except BadInput as error:
            return error.message
        if len(spec.examples) < MIN_EXAMPLES:
            return f"examples: {len(spec.examples)}; give at least {MIN_EXAMPLES}"
        if given and not any(given.keys() & example.files.keys() for example in spec.examples):
            return f"examples: none is made of the task; one has to begin with {' or '.join(given)} in its files"
        return ""

    return ask(model, [Message(role="user", content=prompt)], Spec, max_tokens=MAX_TOKENS, check=wrong)


def write_tests(model: Model, spec: Spec, advice: Sequence[str]) -> str:
    """Raises `BadReply`."""
    prompt = _fill("tests", spec=_spec(spec), name=spec.name, least=MIN_CASES, advice=_advice(advice))
    return _code(model, prompt)


def write_code(model: Model, spec: Spec, modules: str, advice: Sequence[str], *, number: int = 1) -> str:
    """Raises `BadReply`. It sees the spec and what went wrong, never the tests.

    From the second `number` on it is to come to something else than before.
    """
    arguments = ", ".join(spec.input.get("properties", {}))
    said = {"spec": _spec(spec), "name": spec.name, "arguments": arguments, "modules": modules}
    return _code(model, _fill("code", **said, advice=_advice(advice)), number)


def review(model: Model, spec: Spec, code: str) -> Review:
    """Raises `BadReply`."""
    prompt = _fill("review", spec=_spec(spec), code=code)
    return ask(model, [Message(role="user", content=prompt)], Review, max_tokens=300)


def _code(model: Model, prompt: str, number: int = 1) -> str:
    request = ModelRequest(messages=(Message(role="user", content=prompt),), max_tokens=MAX_TOKENS)
    if number > 1:
        request = replace(request, temperature=OTHERWISE, seed=number)
    reply = model.chat(request)
    return code_in(reply.text, cut=reply.finish_reason == "length")


def _spec(spec: Spec) -> str:
    return json.dumps(spec.model_dump(mode="json", exclude={"requests"}), indent=1, ensure_ascii=False)


def _advice(advice: Sequence[str]) -> str:
    return "".join(f"\nAn earlier attempt was refused: {each}" for each in advice[-2:]) + "\n" if advice else ""


@cache
def _prompt(name: str) -> str:
    return files("agentd.plugins").joinpath("prompts", f"{name}.md").read_text("utf-8")


def _fill(prompt: str, /, **values: object) -> str:
    """Values are taken literally: what stands in one is no slot."""
    parts = [_prompt(prompt)]
    for slot, value in values.items():
        parts = [each for part in parts for each in _between(part, "{" + slot + "}", _Literal(str(value)))]
    return "".join(parts).strip()


class _Literal(str):
    """A value that has been filled in."""


def _between(part: str, slot: str, value: _Literal) -> list[str]:
    if isinstance(part, _Literal):
        return [part]
    pieces = part.split(slot)
    return [each for piece in pieces[:-1] for each in (piece, value)] + [pieces[-1]]
