"""Finds out what a model can do by asking it: calls of tools, real context, edits, thinking, stopping, speed."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from agentd.backends import dialects
from agentd.backends.json_schema import problems
from agentd.errors import Cancelled
from agentd.types import Delta, FunctionCall, JsonObject, Message, Model, ModelReply, ModelRequest, Priority

Render: TypeAlias = Callable[[Sequence[Message], Sequence[JsonObject]], str]
"""The raw prompt of messages and tools, for a model whose template is at hand."""
Tell: TypeAlias = Callable[[str], None]
"""Hears in a few words what is being tried."""

FILLS = (25, 50, 75, 95)
"""How full the context is, in percent, when the needle is looked for."""
PATIENCE = 300.0
"""Seconds that a probe may take; what is not known by then stays unknown."""
_ROOM = 96
"""Tokens of the context that question and reply need."""

WEATHER: JsonObject = {
    "name": "get_weather",
    "description": "The weather in a city now.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
READ: JsonObject = {
    "name": "read_file",
    "description": "The text of a file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
TIMER: JsonObject = {
    "name": "set_timer",
    "description": "Ring after some minutes.",
    "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
}
TOOLS = (WEATHER, READ, TIMER)
CALLS = (
    *(
        (f"What is the weather in {city}?", "get_weather")
        for city in ("Paris", "Oslo", "Lima", "Cairo", "Seoul", "Rome")
    ),
    *((f"Show me the file {path}.", "read_file") for path in ("notes.txt", "src/app.py", "README.md", "a/b/c.toml")),
    *((f"What does {path} say?", "read_file") for path in ("todo.md", "log.txt", "main.c")),
    *((f"Wake me in {minutes} minutes.", "set_timer") for minutes in (5, 10, 12, 20, 30, 45, 90)),
)
"""Twenty requests, each with the tool that serves it."""

EDITS = (
    ("Change the port to 9000.", "host = 127.0.0.1\nport = 8080\nname = demo\n", "port = 8080", "port = 9000"),
    ("Rename the function to area.", "def size(w, h):\n    return w * h\n", "def size(", "def area("),
    ("Replace milk by bread.", "eggs\nmilk\nrice\n", "milk", "bread"),
)
"""What to do, the file, and the text in it that has to become another."""

_FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FAMILIES = {
    "<|im_start|>": "chatml",
    "<|start_header_id|>": "llama3",
    "[INST]": "mistral",
    "<start_of_turn>": "gemma",
    "<｜Assistant｜>": "deepseek",
    "<|assistant|>": "phi",
    "<|START_OF_TURN_TOKEN|>": "command-r",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a probe found. None stands for what could not be tried, or was not reached in time."""

    template: str = "none"
    """The family of its chat template."""
    dialect: str | None = None
    """How it writes calls of tools; None when it writes none that can be read."""
    parse_rate: float | None = None
    """Share of twenty replies that held a call with the right form."""
    right_rate: float | None = None
    """Share of them that called the right tool."""
    context: int = 0
    """Tokens that it has."""
    needles: Mapping[str, bool] = field(default_factory=dict)
    """How full the context was, in percent, and whether the needle was found then."""
    usable_context: int | None = None
    """Tokens up to which the needle was found every time."""
    edit_format: str | None = None
    """`whole` or `patch`: what it gets right more often."""
    edits: Mapping[str, float] = field(default_factory=dict)
    """Share of edits that came out right, by format."""
    thinks: bool | None = None
    """Whether it thinks when it may."""
    silent: bool | None = None
    """Whether it leaves the thinking when it must."""
    stops: bool | None = None
    """Whether it ends a short reply by itself."""
    stop_tokens: tuple[str, ...] = ()
    prompt_speed: float | None = None
    """Tokens a second."""
    speed: float | None = None
    """Tokens a second."""
    seconds: float = 0.0
    """How long the probe took."""


class Probe:
    """One probe of one model. `count` of tokens and everything else goes through the model itself."""

    def __init__(
        self,
        model: Model,
        *,
        render: Render | None = None,
        template: str | None = None,
        stop_tokens: Sequence[str] = (),
        tell: Tell = lambda words: None,
        cancel: threading.Event | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._model = model
        self._render = render
        self._template = template
        self._stop_tokens = tuple(stop_tokens)
        self._tell = tell
        self._cancel = cancel
        self._until = time.monotonic() + patience

    def run(self) -> Findings:
        """Raises `ModelError` when the model cannot be asked at all, and `Cancelled`."""
        started = time.monotonic()
        context = self._model.profile.context
        found = Findings(template=family(self._template), context=context, stop_tokens=self._stop_tokens)
        for words, part in (
            ("speed", self._speed),
            ("stopping", self._stopping),
            ("calls of tools", self._calls),
            ("edits", self._edits),
            ("thinking", self._thinking),
            ("context", self._needles),
        ):
            if self._late():
                break
            self._tell(words)
            found = replace(found, **part())
        return replace(found, seconds=round(time.monotonic() - started, 1))

    # what is tried ---------------------------------------------------------------------------------------------------

    def _speed(self) -> dict[str, Any]:
        """Of a prompt of some hundred tokens, and of a reply after it."""
        prompt = _filler(random.Random(1), 60)
        first: list[float] = []

        def heard(delta: Delta) -> None:
            first.append(time.monotonic())

        started = time.monotonic()
        reply = self._ask(ModelRequest(prompt=prompt, max_tokens=48, ignore_eos=True), heard)
        if not first or reply.completion_tokens < 2:
            return {}
        fresh = max(1, reply.prompt_tokens - reply.reused_tokens)
        decoding = max(time.monotonic() - first[0], 1e-6)
        return {
            "prompt_speed": round(fresh / max(first[0] - started, 1e-6), 1),
            "speed": round((reply.completion_tokens - 1) / decoding, 1),
        }

    def _stopping(self) -> dict[str, Any]:
        reply = self._chat("Reply with the word yes and nothing else.", most=160)
        return {"stops": reply.finish_reason == "stop"}

    def _calls(self) -> dict[str, Any]:
        spoken: dict[str, int] = {}
        parsed = right = tried = 0
        for request, tool in CALLS:
            if self._late():
                break
            tried += 1
            name, dialect = self._call(request)
            parsed += name is not None
            right += name == tool
            if dialect:
                spoken[dialect] = spoken.get(dialect, 0) + 1
        if not tried:
            return {}
        dialect = max(spoken, key=lambda name: spoken[name], default=None)
        return {"dialect": dialect, "parse_rate": parsed / tried, "right_rate": right / tried}

    def _call(self, request: str) -> tuple[str | None, str | None]:
        """The name in a well-formed call that the model made, and the dialect it came in."""
        message = Message(role="user", content=request)
        if self._render is None:
            reply = self._ask(ModelRequest(messages=(message,), tools=TOOLS, max_tokens=120))
            calls, dialect = reply.tool_calls, "native" if reply.tool_calls else None
        else:
            prompt = self._render((message,), TOOLS)
            reading = dialects.read(self._ask(ModelRequest(prompt=prompt, max_tokens=120)).text, TOOLS)
            calls, dialect = tuple(reading.calls), reading.found
        schemas = {tool["name"]: tool["parameters"] for tool in TOOLS}
        for call in calls:
            if call.name in schemas and not problems(_arguments(call), schemas[call.name]):
                return call.name, dialect
        return None, None

    def _edits(self) -> dict[str, Any]:
        rates = {"whole": self._rate(_whole), "patch": self._rate(_patch)}
        if any(rate is None for rate in rates.values()):
            return {}
        best = max(rates, key=lambda name: rates[name] or 0.0)
        return {"edits": rates, "edit_format": best if rates[best] else None}

    def _rate(self, form: Callable[[str, str], tuple[str, Callable[[str], str | None]]]) -> float | None:
        right = 0
        for what, before, old, new in EDITS:
            if self._late():
                return None
            question, read = form(what, before)
            made = read(self._chat(question, most=200).text)
            right += made is not None and made.strip() == before.replace(old, new).strip()
        return right / len(EDITS)

    def _thinking(self) -> dict[str, Any]:
        question = "Which is more, 17 or 4 times 4? Reply with the number."
        loud = self._chat(question, most=400, think=True)
        quiet = self._chat(question, most=80)
        return {"thinks": bool(loud.reasoning), "silent": not quiet.reasoning and "<think>" not in quiet.text}

    def _needles(self) -> dict[str, Any]:
        """The needle stands near the beginning; the hay after it grows, so what was read is not read again."""
        context = self._model.profile.context
        chance = random.Random(7)
        code = str(chance.randrange(1000, 10_000))
        head = f"{_filler(chance, 4)} The code of the safe is {code}. "
        hay = _filler(chance, context // 8)
        each = max(1.0, self._model.count(hay) / max(1, len(hay.split(". "))))
        found: dict[str, bool] = {}
        usable: int | None = 0
        for fill in FILLS:
            if self._late():
                break
            tokens = context * fill // 100 - _ROOM - self._model.count(head)
            text = ". ".join(hay.split(". ")[: max(1, int(tokens / each))])
            question = f"{head}{text}.\nThe code of the safe is"
            reply = self._ask(ModelRequest(prompt=question, max_tokens=12))
            found[str(fill)] = code in reply.text
            if found[str(fill)] and usable is not None and all(found.values()):
                usable = reply.prompt_tokens
        return {"needles": found, "usable_context": usable if found else None}

    # asking ---------------------------------------------------------------------------------------------------------

    def _chat(self, text: str, *, most: int, think: bool = False) -> ModelReply:
        return self._ask(ModelRequest(messages=(Message(role="user", content=text),), max_tokens=most, think=think))

    def _ask(self, request: ModelRequest, on_delta: Callable[[Delta], None] | None = None) -> ModelReply:
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("the probe was cancelled")
        left = max(1.0, self._until - time.monotonic())
        quiet = replace(request, client="probe", priority=Priority.NIGHT, cache=False, timeout=left + 60)
        return self._model.chat(quiet, on_delta, self._cancel)

    def _late(self) -> bool:
        return time.monotonic() >= self._until


def family(template: str | None) -> str:
    """A name for a chat template, by the marks in it."""
    if not template:
        return "none"
    return next((name for mark, name in _FAMILIES.items() if mark in template), "own")


def _arguments(call: FunctionCall) -> Any:
    try:
        return json.loads(call.arguments)
    except (ValueError, RecursionError):
        return None


def _whole(what: str, before: str) -> tuple[str, Callable[[str], str | None]]:
    def read(text: str) -> str | None:
        fenced = _FENCE.findall(text)
        return fenced[-1] if fenced else None

    return f"Here is a file:\n```\n{before}```\n{what} Reply with the whole new file in a fenced block.", read


def _patch(what: str, before: str) -> tuple[str, Callable[[str], str | None]]:
    def read(text: str) -> str | None:
        fenced = [block.rstrip("\n") for block in _FENCE.findall(text)]
        if len(fenced) != 2 or before.count(fenced[0]) != 1 or not fenced[0]:
            return None
        return before.replace(fenced[0], fenced[1])

    question = (
        f"Here is a file:\n```\n{before}```\n{what} Reply with two fenced blocks: first the text that stands in the "
        "file and has to go, then the text that takes its place."
    )
    return question, read


def _filler(chance: random.Random, sentences: int) -> str:
    """Plain sentences that say nothing of a safe."""
    who = ("A farmer", "The teacher", "My neighbour", "A sailor", "The baker", "An old man", "The girl", "A clerk")
    does = ("walked to", "looked at", "painted", "forgot", "described", "cleaned", "left", "found")
    what = ("the harbour", "a wooden door", "the garden", "an empty street", "the station", "a small boat", "the hill")
    when = ("in the morning", "before the rain", "on a Sunday", "after lunch", "without a word", "as always")
    return " ".join(
        f"{chance.choice(who)} {chance.choice(does)} {chance.choice(what)} {chance.choice(when)}."
        for _ in range(max(1, sentences))
    )
