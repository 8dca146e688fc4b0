"""The one Python file that a model's reply should be: found, or said why there is none."""

from __future__ import annotations

import re

from agentd.errors import BadReply
from agentd.fences import blocks

MAX_BYTES = 64 * 1024
_THOUGHT = re.compile(r"^.*</think>|<think>.*\Z", re.DOTALL)
_PYTHON = ("", "python", "py", "python3", "content")


def code_in(reply: str, *, cut: bool = False) -> str:
    """The content of the only fenced block of Python. `cut`: the reply ended because there was no room.

    Raises `BadReply` with a reason that the model can use.
    """
    text = _THOUGHT.sub("", reply)
    if not text.strip():
        raise _bad("the reply is empty")
    if len(text.encode("utf-8", "replace")) > 4 * MAX_BYTES:
        raise _bad(f"the reply has {len(text)} characters")
    found = blocks(text)
    python = [block for block in found if block.label.lower().split(" ")[0] in _PYTHON]
    if (cut and not python) or any(not block.closed for block in python):
        raise _bad("the code breaks off before its end", "write less")
    if not found:
        raise _bad("there is no fenced block, only prose or bare code")
    if not python:
        raise _bad(f"the block is {found[0].label[:40]}, not Python")
    if len(python) > 1:
        raise _bad(f"there are {len(python)} blocks of Python", "put everything into one")
    if not python[0].body.strip():
        raise _bad("the block is empty")
    return python[0].body


def _bad(what: str, hint: str = "reply with one block that begins with ```python and ends with ```") -> BadReply:
    return BadReply(what, hint=hint)
