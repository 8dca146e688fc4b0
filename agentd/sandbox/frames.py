"""A child's end of its line: frames of JSON, each after its length in four bytes. Runs inside the sandbox."""

from __future__ import annotations

import json
import os
from typing import Any


def write(line: int, frame: dict[str, Any]) -> None:
    data = json.dumps(frame).encode()
    left = memoryview(len(data).to_bytes(4, "big") + data)
    while left:
        left = left[os.write(line, left) :]


def read(line: int) -> dict[str, Any] | None:
    """None when the other side has closed."""
    head = _exactly(line, 4)
    data = _exactly(line, int.from_bytes(head, "big"))
    return json.loads(data) if data else None


def _exactly(line: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(line, count)
        if not part:
            return b""
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
