"""What the inner loop may do next, and what every way of choosing it looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agentd.agent.work import Evidence, Work
from agentd.types import Step, ToolCall


class End(StrEnum):
    """The choices that are always there beside the tools; each ends the step."""

    ANSWER = "answer"
    ASK = "ask"
    NEED_NEW_TOOL = "need_new_tool"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Call a tool."""

    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End the step: with an answer, a question, the capability that is missing, or why it cannot be done."""

    end: End
    text: str


class Chooser(Protocol):
    """Lets a model decide the next move of a step. `patience`: refusals by policy it can learn from."""

    patience: int

    def next(self, work: Work, step: Step, seen: Sequence[Evidence], advice: str) -> Act | Stop: ...
