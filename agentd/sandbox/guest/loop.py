"""The conversation of a guest with the daemon, held by a confined child: frames of JSON, each after its length."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable
from typing import Any

from . import gate, patience
from .session import Session

MAX_FRAME = 4 * 1024 * 1024


class Conversation:
    """Answers frames, one after the other; `exchange` sends a request to the daemon and returns what it answers."""

    def __init__(self, exchange: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._exchange = exchange
        self._session: Session | None = None
        self._nonce = ""

    def answer(self, frame: dict[str, Any]) -> dict[str, Any]:
        """To `check`, `load` or `call`."""
        self._nonce = frame["nonce"]
        return {"nonce": self._nonce} | self._answer(frame)

    def _answer(self, frame: dict[str, Any]) -> dict[str, Any]:
        if "check" in frame:
            report = gate.check(frame["check"].encode("latin-1"), frame["grants"])
            found = [violation._asdict() for violation in report.violations]
            return {"violations": found, "entries": report.entries, "imports": report.imports}
        if "load" in frame:
            room = frame["output_bytes"]
            more = {"seed": frame["seed"], "output_bytes": room, "seconds": frame["seconds"]}
            self._session = Session(frame["load"], frame["grants"], self._ask, **more)
            return {"loaded": True}
        if self._session is None:
            return {"ok": False, "error": "nothing is loaded"}
        return self._session.call(frame["call"], frame["args"], frame.get("seed"))

    def _ask(self, name: str, args: dict[str, Any]) -> Any:
        answer = self._exchange({"nonce": self._nonce, "ask": name, "args": args})
        if "raise" in answer:
            kind = getattr(builtins, str(answer["raise"]), OSError)
            raise kind(answer.get("message", ""))
        return answer.get("value")


prepare = patience.prepare
"""Is called before there is a wall around the process."""


def serve(line: int) -> None:
    """Talk until the other side closes."""
    _send(line, {"ready": True})

    def exchange(request: dict[str, Any]) -> dict[str, Any]:
        _send(line, request)
        answer = _receive(line)
        if answer is None:
            os._exit(0)
        return answer

    conversation = Conversation(exchange)
    while (frame := _receive(line)) is not None:
        _send(line, conversation.answer(frame))


def _send(line: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame).encode()
    left = memoryview(len(data).to_bytes(4, "big") + data)
    while left:
        left = left[os.write(line, left) :]


def _receive(line: int) -> dict[str, Any] | None:
    head = _exactly(line, 4)
    if head is None or (size := int.from_bytes(head, "big")) > MAX_FRAME:
        return None
    data = _exactly(line, size)
    return None if data is None else json.loads(data)


def _exactly(line: int, count: int) -> bytes | None:
    parts = []
    while count:
        part = os.read(line, count)
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
