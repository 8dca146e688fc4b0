"""The output of `/v1/responses`: its items, built piece by piece, with the events that tell of each piece."""

from __future__ import annotations

from typing import Any

from agentd.api.openai.events import event
from agentd.api.openai.words import new_id
from agentd.types import CallDelta

Fields = dict[str, Any]


class Items:
    """The items of one response, of which the last may be open. Every method returns the events to send."""

    def __init__(self, numbers: Numbers) -> None:
        self.closed: list[Fields] = []
        self._numbers = numbers
        self._open: Fields | None = None
        self._call = -1
        """Which call the open item is."""

    @property
    def texts(self) -> bool:
        """Whether there is a message."""
        return any(item["type"] == "message" for item in [*self.closed, *([self._open] if self._open else [])])

    def say(self, text: str, logprobs: list[Fields]) -> list[str]:
        lines = self._ready("message")
        part = self._part()
        part["text"] += text
        part["logprobs"] += logprobs
        return [*lines, self._event("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)]

    def think(self, text: str) -> list[str]:
        lines = self._ready("reasoning")
        self._part()["text"] += text
        return [*lines, self._event("response.reasoning_text.delta", content_index=0, delta=text)]

    def call(self, piece: CallDelta) -> list[str]:
        lines: list[str] = []
        if self._open is None or self._open["type"] != "function_call" or self._call != piece.index:
            lines, self._call = self.close(), piece.index
            lines += self._begin(_call_item(piece))
        if piece.arguments:
            assert self._open is not None
            self._open["arguments"] += piece.arguments
            lines.append(self._event("response.function_call_arguments.delta", delta=piece.arguments))
        return lines

    def close(self, status: str = "completed") -> list[str]:
        """Nothing more comes to the open item."""
        if self._open is None:
            return []
        item, lines = self._open, []
        if item["type"] == "function_call":
            lines.append(
                self._event("response.function_call_arguments.done", arguments=item["arguments"], name=item["name"])
            )
        else:
            lines += self._part_done()
        item["status"] = status
        lines.append(self._plain("response.output_item.done", item=item))
        self.closed.append(item)
        self._open = None
        return lines

    def _ready(self, kind: str) -> list[str]:
        """Events that make an item of this kind the open one, with a part for text."""
        if self._open is not None and self._open["type"] == kind:
            return []
        lines = self.close()
        lines += self._begin(_message_item() if kind == "message" else _reasoning_item())
        part = _text_part() if kind == "message" else {"type": "reasoning_text", "text": ""}
        lines.append(self._event("response.content_part.added", content_index=0, part=part))
        assert self._open is not None
        self._open["content"].append(part)
        return lines

    def _begin(self, item: Fields) -> list[str]:
        line = self._plain("response.output_item.added", item=item)
        self._open = item
        return [line]

    def _part(self) -> Fields:
        assert self._open is not None
        part: Fields = self._open["content"][0]
        return part

    def _part_done(self) -> list[str]:
        part = self._part()
        if part["type"] == "output_text":
            done = self._event(
                "response.output_text.done", content_index=0, text=part["text"], logprobs=part["logprobs"]
            )
        else:
            done = self._event("response.reasoning_text.done", content_index=0, text=part["text"])
        return [done, self._event("response.content_part.done", content_index=0, part=part)]

    def _event(self, kind: str, **fields: Any) -> str:
        assert self._open is not None
        return self._plain(kind, item_id=self._open["id"], **fields)

    def _plain(self, kind: str, **fields: Any) -> str:
        return self._numbers.event(kind, output_index=len(self.closed), **fields)


class Numbers:
    """Events of one stream, numbered in their order."""

    def __init__(self) -> None:
        self._last = -1

    def event(self, kind: str, **fields: Any) -> str:
        self._last += 1
        return event({"type": kind, "sequence_number": self._last, **fields}, kind)


def _message_item() -> Fields:
    return {"id": new_id("msg_"), "type": "message", "role": "assistant", "status": "in_progress", "content": []}


def _reasoning_item() -> Fields:
    return {"id": new_id("rs_"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}


def _call_item(piece: CallDelta) -> Fields:
    return {
        "id": new_id("fc_"),
        "type": "function_call",
        "call_id": piece.id or new_id("call_"),
        "name": piece.name,
        "arguments": "",
        "status": "in_progress",
    }


def _text_part() -> Fields:
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
