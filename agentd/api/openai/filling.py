"""Text before a suffix, from models that were trained for it and from those that have to be asked in words."""

from __future__ import annotations

import threading
from dataclasses import replace

from agentd.errors import NotServed, TooLong
from agentd.types import Message, Model, ModelReply, ModelRequest, OnDelta

_ORDER = (
    "You fill the hole in a text. You are given what stands before the hole and what stands after it. "
    "Reply with the missing text alone: no explanation, no quotes, nothing of what is given."
)
_LONGEST_STOP = 60


class Filler:
    """Asks `model` to fill a hole in its own way; where it has none, in words, ending where the suffix begins."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        try:
            return self._model.chat(request, on_delta, cancel)
        except TooLong:
            raise
        except NotServed as error:
            if error.sent:
                raise
            return self._model.chat(_in_words(request), on_delta, cancel)


def _in_words(request: ModelRequest) -> ModelRequest:
    before, after = request.prompt or "", request.suffix or ""
    asked = f"Before the hole:\n{before}\n\nAfter the hole:\n{after}\n\nThe missing text:"
    messages = (Message(role="system", content=_ORDER), Message(role="user", content=asked))
    end = next((line for line in after.splitlines() if line.strip()), "")[:_LONGEST_STOP]
    stop = (*request.stop, end) if end else request.stop
    return replace(request, prompt=None, suffix=None, messages=messages, stop=stop)
