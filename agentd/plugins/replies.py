"""The one Python file that a model's reply should be: found, or said why there is none."""

from __future__ import annotations

import re

from agentd.errors import BadReply

MAX_BYTES = 64 * 1024
_THOUGHT = re.compile(r"^.*</think>|<think>.*\Z", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n]*)\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
_OPEN = re.compile(r"^[ \t]*(`{3,}|~{3,})", re.MULTILINE)
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
    blocks = [(language.strip().lower(), body) for _, language, body in _FENCE.findall(text)]
    if not blocks:
        if cut or _OPEN.search(text):
            raise _bad("the code breaks off before its end", "write less")
        raise _bad("there is no fenced block, only prose or bare code")
    python = [body for language, body in blocks if language.split(" ")[0] in _PYTHON]
    if not python:
        raise _bad(f"the block is {blocks[0][0]}, not Python")
    if len(python) > 1:
        raise _bad(f"there are {len(python)} blocks of Python", "put everything into one")
    if not python[0].strip():
        raise _bad("the block is empty")
    return str(python[0])


def _bad(what: str, hint: str = "reply with one block that begins with ```python and ends with ```") -> BadReply:
    return BadReply(what, hint=hint)
