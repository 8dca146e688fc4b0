"""What one task itself did to each file, step by step: what a commit of its work may consist of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentd.workspace.standing import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One change that a call of the task made; between two turns someone else may have changed the file."""

    key: str
    before: Standing
    after: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The turns of each path, in order; `read` gives the bytes of what stood there, None where they are not kept."""

    turns: Mapping[str, Sequence[Turn]]
    read: Callable[[Standing], bytes | None]
