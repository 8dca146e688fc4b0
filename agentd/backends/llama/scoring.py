"""How likely texts are after others; what consecutive pairs share is computed once, and prefixes are remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from agentd.backends import decoding
from agentd.backends.decoding import Floats
from agentd.backends.llama.context import MOST_ROWS, Context, Part, common
from agentd.backends.llama.refusals import Refused
from agentd.backends.llama.vocabulary import Vocabulary

Scores: TypeAlias = Generator[None, None, list[tuple[float, int]]]
"""Stops after every forward pass, so that others get their turn."""
Compute: TypeAlias = Callable[[Part], Floats]

CONTEXT = 4096
"""Tokens of the context that is used for scoring only."""
_PREFIX_BYTES = 128 * 1024 * 1024
"""Memory for the states of prefixes that were scored before."""
_SHORTEST_KEPT = 8


@dataclass
class Prefixes:
    """States of prefixes that were scored, the least recently used one going first."""

    limit: int = _PREFIX_BYTES
    size: int = 0
    """Bytes."""
    _kept: OrderedDict[tuple[int, ...], tuple[bytes, Floats]] = field(default_factory=OrderedDict)

    def find(self, tokens: Sequence[int]) -> tuple[bytes, Floats] | None:
        """The state after `tokens`, and the logits of their last."""
        found = self._kept.get(key := tuple(tokens))
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, tokens: Sequence[int], state: bytes, row: Floats) -> None:
        added = len(state) + row.nbytes
        if added > self.limit // 2 or tuple(tokens) in self._kept:
            return
        self._kept[tuple(tokens)] = (state, row)
        self.size += added
        while self.size > self.limit:
            _, (old, old_row) = self._kept.popitem(last=False)
            self.size -= len(old) + old_row.nbytes


class Scorer:
    """Scores in one sequence of a context that nobody else touches."""

    def __init__(self, context: Context, sequence: int, vocabulary: Vocabulary, compute: Compute) -> None:
        self._context = context
        self._compute = compute
        self._sequence = sequence
        self._vocabulary = vocabulary
        self._prefixes = Prefixes()
        self._rows: dict[int, Floats] = {}
        """Place in the sequence -> logits of the token there."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """(summed natural log-probability, tokens) of each continuation given its prefix; order kept."""
        split = [self._tokens(prefix, text) for prefix, text in pairs]
        found: list[tuple[float, int]] = [(0.0, 0)] * len(pairs)
        for number in sorted(range(len(pairs)), key=lambda number: split[number]):
            prefix, text = split[number]
            if text:
                rows = yield from self._logits(prefix, text)
                found[number] = (float(decoding.logprobs(rows, text).sum()), len(text))
        return found

    def _tokens(self, prefix: str, text: str) -> tuple[list[int], list[int]]:
        before = self._vocabulary.tokens(prefix, controls=True)
        if (self._vocabulary.adds_bos or not before) and before[:1] != [self._vocabulary.bos]:
            before = [max(self._vocabulary.bos, 0), *before]
        return before, self._vocabulary.tokens(text, controls=False)

    def _logits(self, prefix: list[int], text: list[int]) -> Generator[None, None, Floats]:
        """A row for each token of `text`: the logits of the token before it."""
        whole = [*prefix, *text[:-1]]
        if len(whole) >= self._context.size:
            raise Refused(f"a pair of {len(whole)} tokens does not fit into a context of {self._context.size}")
        last = len(prefix) - 1
        shared = common(self._context.tokens[self._sequence], whole, len(whole))
        if shared < len(prefix) and (kept := self._prefixes.find(prefix)):
            self._context.restore(self._sequence, kept[0], prefix)
            self._rows = {last: kept[1]}
            shared = len(prefix)
        while shared > 0 and any(place not in self._rows for place in range(last, shared)):
            shared -= 1
        if shared < len(prefix):
            yield from self._extend(prefix, shared, last)
            if len(prefix) >= _SHORTEST_KEPT:
                self._prefixes.keep(prefix, self._context.save(self._sequence), self._rows[last])
            shared = len(prefix)
        yield from self._extend(whole, shared, last)
        return np.stack([self._rows[place] for place in range(last, len(whole))])

    def _extend(self, tokens: Sequence[int], shared: int, rows_from: int) -> Generator[None]:
        """Make the sequence hold `tokens`, of which the first `shared` stand there."""
        if len(tokens) - shared == 1:
            # A batch of one token is computed by other code, with slightly other numbers: take one more.
            shared = max(0, shared - 1)
        at = self._context.cut(self._sequence, shared)
        self._rows = {place: row for place, row in self._rows.items() if place < at}
        while at < len(tokens):
            end = min(at + self._context.batch_size, len(tokens))
            if end > rows_from:
                end = min(end, max(at, rows_from) + MOST_ROWS)
            part = Part(self._sequence, tokens[at:end], min(max(0, rows_from - at), end - at))
            rows = self._compute(part)
            for place, row in enumerate(rows, max(at, rows_from)):
                self._rows[place] = row.copy()
            at = end
            yield
