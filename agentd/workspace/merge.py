"""Two changes of the same text brought together, line by line; where they touch each other there is no answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

from agentd.workspace.text import is_binary

MAX_MERGED = 4_000_000
"""Bytes of a text."""
_MANY = 5_000
"""Lines from which on those that stand everywhere are no help to see what belongs together, and take minutes."""

_Lines = Sequence[bytes]
_Sync = tuple[int, int, int, int]
"""A run of lines that all three have: where it starts in base, mine and theirs, and its length."""


def merge(base: bytes, mine: bytes, theirs: bytes) -> bytes | None:
    """`mine` with what `theirs` changes in `base`; None when both change the same place, or one of them is no text."""
    texts = (base, mine, theirs)
    if any(len(text) > MAX_MERGED or is_binary(text) for text in texts):
        return None
    b, m, t = (text.splitlines(keepends=True) for text in texts)
    merged: list[bytes] = []
    starts = [(0, 0, 0, 0), *_syncs(b, m, t)]
    for (b0, m0, t0, size), (b1, m1, t1, _) in pairwise(starts):
        merged += b[b0 : b0 + size]
        part = _chosen(b[b0 + size : b1], m[m0 + size : m1], t[t0 + size : t1])
        if part is None:
            return None
        merged += part
    return b"".join(merged)


def _chosen(base: _Lines, mine: _Lines, theirs: _Lines) -> _Lines | None:
    """Of a stretch between lines that all have, the side that changed it."""
    if mine == theirs or theirs == base:
        return mine
    return theirs if mine == base else None


def _syncs(base: _Lines, mine: _Lines, theirs: _Lines) -> Iterator[_Sync]:
    """The stretches that stand in all three, in order, and the ends."""
    ours, others = _blocks(base, mine), _blocks(base, theirs)
    one = other = 0
    while one < len(ours) and other < len(others):
        b1, m1, size1 = ours[one]
        b2, t2, size2 = others[other]
        start, end = max(b1, b2), min(b1 + size1, b2 + size2)
        if start < end:
            yield start, m1 + start - b1, t2 + start - b2, end - start
        if b1 + size1 < b2 + size2:
            one += 1
        else:
            other += 1
    yield len(base), len(mine), len(theirs), 0


def _blocks(base: _Lines, other: _Lines) -> list[tuple[int, int, int]]:
    """Matching stretches. Equal ends are taken off first: what was changed is mostly small."""
    head = 0
    most = min(len(base), len(other))
    while head < most and base[head] == other[head]:
        head += 1
    tail = 0
    while tail < most - head and base[-1 - tail] == other[-1 - tail]:
        tail += 1
    one, two = base[head : len(base) - tail], other[head : len(other) - tail]
    inner = SequenceMatcher(None, one, two, autojunk=max(len(one), len(two)) > _MANY)
    middle = [(head + a, head + b, size) for a, b, size in inner.get_matching_blocks()]
    return [(0, 0, head), *middle, (len(base) - tail, len(other) - tail, tail)]
