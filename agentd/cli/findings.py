"""What `doctor` finds: one thing looked at, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`fail`: agentd cannot work so; `warn`: something is missing that some tasks need."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    hint: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name=name, state="ok", text=text)


def warn(name: str, text: str, hint: str) -> Finding:
    return Finding(name=name, state="warn", text=text, hint=hint)


def fail(name: str, text: str, hint: str) -> Finding:
    return Finding(name=name, state="fail", text=text, hint=hint)
