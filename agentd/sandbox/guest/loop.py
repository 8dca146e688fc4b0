"""The conversation of a confined child with the daemon: frames of JSON, each after its length in four bytes."""

from __future__ import annotations

import builtins
import json
import os
from typing import Any

from . import gate
from .session import Session

MAX_FRAME = 4 * 1024 * 1024


def serve(line: int) -> None:
    """Answer `check`, `load` and `call` until the other side closes."""
    _send(line, {"ready": True})
    session: Session | None = None
    nonce = ""

    def ask(name: str, args: dict[str, Any]) -> Any:
        _send(line, {"nonce": nonce, "ask": name, "args": args})
        answer = _receive(line)
        if answer is None:
            os._exit(0)
        if "raise" in answer:
            kind = getattr(builtins, str(answer["raise"]), OSError)
            raise kind(answer.get("message", ""))
        return answer.get("value")

    while (frame := _receive(line)) is not None:
        nonce = frame["nonce"]
        if "check" in frame:
            report = gate.check(frame["check"].encode("latin-1"), frame["grants"])
            found = [violation._asdict() for violation in report.violations]
            _send(line, {"nonce": nonce, "violations": found, "entries": report.entries})
        elif "load" in frame:
            room = frame["output_bytes"]
            session = Session(frame["load"], frame["grants"], ask, seed=frame["seed"], output_bytes=room)
            _send(line, {"nonce": nonce, "loaded": True})
        elif session is not None:
            _send(line, {"nonce": nonce} | session.call(frame["call"], frame["args"]))


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
