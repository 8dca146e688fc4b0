"""The way into the component: what WebAssembly calls inside it. Imported once, when the component is built."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

# By these names inside; the first is made by componentize-py.
wit_world: Any = importlib.import_module("wit_world")
loop: Any = importlib.import_module("guest.loop")

# What Python would import only when it is used, from files that there are none of.
importlib.import_module("_ast_unparse")
importlib.import_module("encodings.idna")
sys.stdin = sys.stdout = sys.stderr = None  # there is nobody to hear, and no stream


def _exchange(request: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(wit_world.ask(json.dumps(request)))
    return answer


PRACTICE = """
import math


def area(radius: float) -> float:
    values = [math.pi * float(radius) ** 2 for _ in range(2)]
    print(f"{values[0]:.2f}")
    return {"area": values[0]}
"""


def _practise() -> None:
    """What has been done once is done faster, and it is nobody who waits for this."""
    practice = loop.Conversation(_exchange)
    practice.answer({"nonce": "", "load": PRACTICE, "grants": [], "seed": 0, "output_bytes": 10_000, "seconds": 1.0})
    practice.answer({"nonce": "", "call": "area", "args": {"radius": 1}})


_practise()
conversation = loop.Conversation(_exchange)


class WitWorld:
    """What the component exports; componentize-py looks for this name."""

    def answer(self, frame: str) -> str:
        """To a frame, as JSON. To nothing, nothing: what is not ready for a first call gets ready."""
        if frame:
            return json.dumps(conversation.answer(json.loads(frame)))
        _practise()
        return ""
