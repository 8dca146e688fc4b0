"""Fenced blocks of a text that a model wrote, found in one pass over its lines whatever stands there."""

from __future__ import annotations

import re
from typing import NamedTuple

_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*(.*)")


class Block(NamedTuple):
    label: str
    """What stands behind the opening fence, such as `python`."""
    body: str
    closed: bool
    """Whether the text has its end."""


def blocks(text: str) -> list[Block]:
    """In their order. A fence that is indented further than the opening one is part of the block."""
    found: list[Block] = []
    indent, fence, label = "", "", ""
    body: list[str] = []
    for line in text.split("\n"):
        matched = _FENCE.match(line)
        if matched and not fence and "`" not in matched[3]:
            indent, fence, label = matched[1], matched[2], matched[3].strip()
        elif matched and fence and not matched[3].strip() and _closes(matched, indent, fence):
            found.append(Block(label, "".join(body), closed=True))
            fence, body = "", []
        elif fence:
            body.append(line + "\n")
    if fence:
        found.append(Block(label, "".join(body), closed=False))
    return found


def _closes(matched: re.Match[str], indent: str, fence: str) -> bool:
    return matched[2].startswith(fence) and len(matched[1]) <= len(indent)
