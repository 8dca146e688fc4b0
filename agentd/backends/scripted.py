"""A model that replays given replies: for tests, and for suites that measure everything but the model.

The file for the catalog is a YAML list; each entry replays its replies in order:

    - when: how many lines            # text that must stand in the messages, or a list of texts that all must
      replies:
        - file_info                   # a text is the reply as it is
        - {path: notes.txt}           # anything else is written as JSON
    - replies: [answer]               # without `when`: for every request
    - when: weather                   # `say` and nothing else: a reply in pieces, with what else a reply may have
      replies:
        - say:
            reasoning: [It is about, " Paris"]   # a text, or a list of texts that come one by one
            text: I look.
            calls: [{name: weather, arguments: {city: Paris}}]
            finish: length            # stop, or tool_calls when there are calls, where it says nothing
            wait: 0.5                 # seconds before each piece
            fail: The power is gone   # a `ModelError` after the pieces

A request takes the next reply of the first entry that fits and has one left. Every client (a task) has its own place in
each entry, so that tasks do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from agentd.errors import BadReply, Cancelled, ModelError, ModelMissing
from agentd.types import CallDelta, Delta, FunctionCall, ModelProfile, ModelReply, ModelRequest, OnDelta, Score

Function: TypeAlias = Callable[[ModelRequest], Any]
Replies: TypeAlias = Sequence[Any] | Mapping[str, Sequence[Any]] | Function
Finish: TypeAlias = Literal["stop", "length", "tool_calls"]

_DIMENSIONS = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    when: tuple[str, ...]
    replies: tuple[Any, ...]


class ScriptedModel:
    """`replies`: a list, lists by a text that must stand in the messages, or a function of the request.

    Out of replies: `ModelError`. A reply that is not among the choices of its request: `BadReply`.
    """

    def __init__(self, replies: Replies, *, name: str = "scripted", profile: ModelProfile | None = None) -> None:
        self._name = name
        self._profile = profile or ModelProfile()
        self._function = replies if callable(replies) else None
        self._entries = () if callable(replies) else _entries(replies)
        self._places: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_file(cls, path: Path, *, name: str = "scripted", profile: ModelProfile | None = None) -> ScriptedModel:
        """Raises `ModelMissing`, and `ModelError` for a file that is no list of replies."""
        model = cls([], name=name, profile=profile)
        model._entries = tuple(_entry(path, number, each) for number, each in enumerate(_read(path), start=1))
        return model

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ModelProfile:
        return self._profile

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"the request to {self._name} was cancelled")
        started = time.monotonic()
        asked = _text(request)
        speech = _Speech(self._function(request) if self._function is not None else self._next(request.client, asked))
        if request.choices is not None and speech.text not in request.choices:
            raise BadReply(f"{self._name} replied {speech.text!r:.200}; the choices are {', '.join(request.choices)}")
        for delta in speech.deltas:
            self._wait(speech.wait, cancel)
            if on_delta is not None:
                on_delta(delta)
        if speech.fail:
            error = ModelError(f"{self._name}: {speech.fail}")
            error.sent = on_delta is not None and bool(speech.deltas)
            raise error
        return ModelReply(
            text=speech.text,
            model=self._name,
            prompt_tokens=self.count(asked),
            completion_tokens=self.count(speech.reasoning + speech.text),
            seconds=time.monotonic() - started,
            finish_reason=speech.finish,
            reasoning=speech.reasoning,
            tool_calls=speech.calls,
        )

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        """A continuation is the likelier the more of its words stand in the prefix."""
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"the request to {self._name} was cancelled")
        return [_overlap(prefix, text) for prefix, text in pairs]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Which words stand in a text, hashed into 256 numbers of length 1."""
        return [_hashed(text) for text in texts]

    def count(self, text: str) -> int:
        """About: four characters make a token."""
        return math.ceil(len(text) / 4)

    def _wait(self, seconds: float, cancel: threading.Event | None) -> None:
        if cancel is None:
            time.sleep(seconds)
        elif cancel.wait(seconds):
            raise Cancelled(f"the request to {self._name} was cancelled")

    def _next(self, client: str, asked: str) -> Any:
        fitting = 0
        with self._lock:
            for number, entry in enumerate(self._entries):
                if not all(word in asked for word in entry.when):
                    continue
                fitting += 1
                place = self._places.get((client, number), 0)
                if place < len(entry.replies):
                    self._places[client, number] = place + 1
                    return entry.replies[place]
        why = "has no replies left" if fitting else "has no reply"
        raise ModelError(
            f"{self._name} {why} for a request that ends {asked[-200:]!r}", hint="add replies to the script"
        )


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    arguments: Any = Field(default_factory=dict)


class _Say(BaseModel):
    """What stands under `say`."""

    model_config = ConfigDict(extra="forbid")
    reasoning: str | list[str] = ""
    text: str | list[str] = ""
    calls: list[_Call] = []
    finish: Finish | None = None
    wait: float = 0.0
    fail: str = ""


class _Speech:
    """What a scripted reply says, in which pieces and how fast. Raises `ModelError` for a wrong `say`."""

    def __init__(self, reply: Any) -> None:
        said = _said(reply)
        thoughts, texts = _pieces(said.reasoning), _pieces(said.text)
        self.reasoning, self.text = "".join(thoughts), "".join(texts)
        self.calls = tuple(
            FunctionCall(id=f"call_{number}", name=call.name, arguments=_written(call.arguments))
            for number, call in enumerate(said.calls)
        )
        self.deltas = [
            *(Delta(reasoning=piece) for piece in thoughts),
            *(Delta(text=piece) for piece in texts),
            *(delta for number, call in enumerate(self.calls) for delta in _call_deltas(number, call)),
        ]
        self.finish: Finish = said.finish or ("tool_calls" if self.calls else "stop")
        self.wait = said.wait
        self.fail = said.fail


def _said(reply: Any) -> _Say:
    if not isinstance(reply, Mapping) or set(reply) != {"say"}:
        return _Say(text=[_written(reply)])
    try:
        return _Say.model_validate(reply["say"])
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(["say", *map(str, wrong["loc"])])
        raise ModelError(
            f"a scripted reply is wrong: {where}: {wrong['msg']}", hint="see backends/scripted.py"
        ) from None


def _pieces(said: str | list[str]) -> list[str]:
    return said if isinstance(said, list) else [said] if said else []


def _call_deltas(number: int, call: FunctionCall) -> list[Delta]:
    """The name first, then the arguments in two pieces."""
    middle = len(call.arguments) // 2
    return [
        Delta(call=CallDelta(index=number, id=call.id, name=call.name)),
        Delta(call=CallDelta(index=number, arguments=call.arguments[:middle])),
        Delta(call=CallDelta(index=number, arguments=call.arguments[middle:])),
    ]


def _entries(replies: Sequence[Any] | Mapping[str, Sequence[Any]]) -> tuple[_Entry, ...]:
    if isinstance(replies, Mapping):
        return tuple(_Entry((when,), tuple(each)) for when, each in replies.items())
    return (_Entry((), tuple(replies)),)


def _read(path: Path) -> list[Any]:
    try:
        found = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelMissing(f"there is no file of replies {path}", hint="write it, or name another") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the replies in {path} cannot be read: {error}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ModelError(f"{path}:{line}: {error.problem}", hint="it must be YAML") from None
    except YAMLError as error:
        raise ModelError(f"{path}: {error}", hint="it must be YAML") from None
    if not isinstance(found, list):
        raise ModelError(f"{path} is no list of entries", hint="each entry is {when: text, replies: [...]}")
    return found


def _entry(path: Path, number: int, each: Any) -> _Entry:
    wrong = ModelError(f"{path}: entry {number} is no mapping of `when` and `replies`", hint="replies is a list")
    if not isinstance(each, dict) or not isinstance(each.get("replies"), list) or set(each) - {"when", "replies"}:
        raise wrong
    when = each.get("when", [])
    texts = [when] if isinstance(when, str) else when
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise wrong
    return _Entry(tuple(texts), tuple(each["replies"]))


def _text(request: ModelRequest) -> str:
    return request.prompt if request.prompt is not None else "\n".join(message.content for message in request.messages)


def _written(reply: Any) -> str:
    return reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False)


def _overlap(prefix: str, text: str) -> Score:
    known = set(prefix.lower().split())
    words = text.lower().split()
    return Score(logprob=float(sum(-1.0 if word in known else -3.0 for word in words)), tokens=len(words))


def _hashed(text: str) -> list[float]:
    numbers = [0.0] * _DIMENSIONS
    for word in text.lower().split():
        numbers[int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=2).digest()) % 256] += 1.0
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers] if length else numbers
