"""Which sequence serves which request, so that as little as possible is read twice and nothing dear is forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentd.backends.llama.context import Context, common
from agentd.backends.llama.refusals import Refused
from agentd.backends.llama.states import States

_ANEW = 2
"""Tokens that are computed anew at least: a batch of one is computed by other code, with slightly other numbers."""
_WORTH_KEEPING = 128
"""Tokens; shorter ones are read again sooner than they are restored."""
_WORTH_WAITING = 64
"""Tokens that somebody else reads right now."""
_HALF_LIFE = 600.0
"""Seconds after which it is half as likely that a conversation goes on."""
_MOVED = 1 / 100
"""What it costs to move a token's state from one sequence to another, in tokens read."""
_MOVE = 8
"""What any such move costs, in tokens read."""
_KEPT = 0.2
"""What it costs to lose a token that is kept in memory elsewhere."""


class Holder(Protocol):
    """Who has a sequence for itself."""

    tokens: list[int]

    @property
    def reading(self) -> bool:
        """Whether its prompt is not yet read to the end."""
        ...


@dataclass(slots=True)
class Place:
    number: int
    holder: Holder | None = None
    used: float = 0.0
    """When it was given back, on the monotonic clock."""


@dataclass(slots=True)
class Counts:
    """How prefixes were found: standing in the sequence, copied from another, restored; waited for; not at all."""

    prefix_hits: int = 0
    prefix_misses: int = 0
    prefix_copies: int = 0
    prefix_restores: int = 0
    prefix_waits: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to serve a request: in which place, from where its prefix comes, and what that costs, in tokens."""

    cost: float
    target: Place
    reused: int
    source: Place | None = None
    """None: what stands in the place, or a kept state if `restored`."""
    restored: bool = False


@dataclass(slots=True)
class Places:
    """The sequences of a context."""

    context: Context
    states: States
    count: int
    counts: Counts = field(default_factory=Counts)
    places: list[Place] = field(init=False)

    def __post_init__(self) -> None:
        self.places = [Place(number) for number in range(self.count)]

    @property
    def in_use(self) -> int:
        return sum(place.holder is not None for place in self.places)

    def take(self, holder: Holder) -> Place | None:
        """A place in which as much as possible of the holder's tokens stands; None when it has to wait for one."""
        free = [place for place in self.places if place.holder is None]
        if not free:
            return None
        tokens, most = holder.tokens, max(0, len(holder.tokens) - _ANEW)
        ways = list(self._ways(free, tokens, most))
        best = min(ways, key=lambda way: (way.cost, way.target.number))
        if self._is_being_read(tokens, most, best.reused):
            return None
        reused = self._go(best, tokens, most)
        best.target.holder = holder
        self.counts.reused_tokens += reused
        return best.target

    def give_back(self, place: Place) -> None:
        place.holder, place.used = None, time.monotonic()

    def _ways(self, free: Sequence[Place], tokens: list[int], most: int) -> Iterator[_Way]:
        shared = {place.number: self.context.common(place.number, tokens, most) for place in self.places}
        kept = self.states.find(tokens, most)
        source = max(self.places, key=lambda place: shared[place.number])
        from_source = shared[source.number]
        moved = _MOVE + _MOVED * len(self.context.tokens[source.number])
        for place in free:
            stays = shared[place.number]
            yield _Way(len(tokens) - stays + self._loss(place, stays), place, stays)
            lost = self._loss(place, 0)
            if source is not place and from_source > _MOVE:
                yield _Way(len(tokens) - from_source + moved + lost, place, from_source, source)
            if kept > _MOVE:
                yield _Way(len(tokens) - kept + _MOVE + _MOVED * kept + lost, place, kept, restored=True)

    def _loss(self, place: Place, kept: int) -> float:
        """What it costs, in tokens, that all but the first `kept` tokens of a place are forgotten."""
        lost = len(self.context.tokens[place.number]) - kept
        again: float = 0.5 ** ((time.monotonic() - place.used) / _HALF_LIFE)
        return lost * again * (_KEPT if self._would_keep(place.number, kept) else 1.0)

    def _is_being_read(self, tokens: list[int], most: int, reused: int) -> bool:
        """Whether somebody reads a prefix right now that is worth waiting for."""
        if not self.context.memory.can_cut:
            return False
        readers = [place.holder for place in self.places if place.holder is not None and place.holder.reading]
        return any(common(each.tokens, tokens, most) - reused >= _WORTH_WAITING for each in readers)

    def _go(self, way: _Way, tokens: list[int], most: int) -> int:
        """Returns how many of the tokens stand in the place then."""
        target = way.target.number
        found = self.states.take(tokens, most) if way.restored else None  # before keeping another pushes it out
        stays = way.reused if way.source is None and not way.restored else 0
        self._save(target, stays)
        if way.source is not None:
            self.counts.prefix_copies += 1
            standing = self.context.copy(way.source.number, target, way.reused)
        elif way.restored:
            standing = self._restore(target, found, tokens, most)
        else:
            standing = self.context.cut(target, way.reused)
        if standing > _MOVE:
            self.counts.prefix_hits += 1
        else:
            self.counts.prefix_misses += 1
        return standing

    def _restore(self, target: int, found: tuple[list[int], bytes] | None, tokens: list[int], most: int) -> int:
        try:
            if found is not None and len(found[0]) <= self.context.size:
                self.context.restore(target, found[1], found[0])
                self.counts.prefix_restores += 1
        except Refused:
            pass  # it is read again
        return self.context.cut(target, self.context.common(target, tokens, most))

    def _save(self, number: int, kept: int) -> None:
        """Before all but the first `kept` tokens of a sequence are forgotten."""
        if self._would_keep(number, kept):
            self.states.keep(self.context.tokens[number], self.context.save(number))

    def _would_keep(self, number: int, kept: int) -> bool:
        """Whether what goes on after the first `kept` tokens is a conversation of its own that may come back."""
        standing = len(self.context.tokens[number])
        return bool(self.states.limit) and standing - kept >= max(_WORTH_KEEPING, standing // 4)

    def free_one(self) -> bool:
        """Empty the place that is worth the least of those that nobody uses; False when there is none."""
        full = [place for place in self.places if place.holder is None and self.context.tokens[place.number]]
        if not full:
            return False
        least = min(full, key=lambda place: self._loss(place, 0))
        self._save(least.number, 0)
        self.context.cut(least.number, 0)
        return True

    def worth_keeping(self) -> Iterator[tuple[list[int], bytes]]:
        """Tokens and states of what stands in the sequences, the most valuable first."""
        for place in sorted(self.places, key=lambda place: self._loss(place, 0), reverse=True):
            standing = self.context.tokens[place.number]
            if len(standing) >= _WORTH_KEEPING:
                yield list(standing), self.context.save(place.number)
