"""From logits to tokens and from tokens to text: log-probabilities, sampling, choices, stop texts. Arrays only."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

TOP_K = 40
TOP_P = 0.95
END = -1
"""Stands for `the text ends here` among the options of a choice."""


def logprobs(rows: Floats, tokens: Sequence[int]) -> NDArray[np.float64]:
    """Log-probability (natural) of token i under row i of logits, shape (n, vocabulary)."""
    top = rows.max(axis=1)
    total = np.log(np.exp(rows - top[:, None]).sum(axis=1, dtype=np.float64))
    wanted = rows[np.arange(len(tokens)), np.asarray(tokens)].astype(np.float64)
    return np.asarray(wanted - top - total)


def pick(logits: Floats, temperature: float, chance: np.random.Generator) -> int:
    """The likeliest token at temperature 0, else one drawn from the best `TOP_K` within `TOP_P` of probability."""
    if temperature <= 0:
        return int(logits.argmax())
    count = min(TOP_K, logits.size)
    best = np.argpartition(logits, -count)[-count:]
    best = best[np.argsort(-logits[best], kind="stable")]
    weights = np.exp((logits[best] - logits[best[0]]).astype(np.float64) / temperature)
    weights /= weights.sum()
    kept = int(np.searchsorted(np.cumsum(weights), TOP_P)) + 1
    weights = weights[:kept] / weights[:kept].sum()
    return int(best[chance.choice(len(weights), p=weights)])


@dataclass(slots=True)
class _Branch:
    next: dict[int, _Branch] = field(default_factory=dict)
    ends: int | None = None
    """Which choice is complete here."""


def choose(
    choices: Sequence[Sequence[int]],
    ends: Sequence[int],
    logits: Callable[[list[int]], Floats],
    *,
    temperature: float,
    chance: np.random.Generator,
) -> tuple[int, int]:
    """Walk down the tree of the choices' tokens, at each fork as the model likes best.

    `logits(tokens)` goes on by these tokens and gives the logits after them; `ends` are the tokens that end a text.
    Returns which choice was taken and how many tokens the model was asked for.
    """
    at = _tree(choices)
    walked: list[int] = []
    asked = 0
    while True:
        options = [*at.next, *([END] if at.ends is not None else [])]
        if len(options) == 1:
            taken = options[0]
        else:
            after = logits(walked)
            walked = []
            asked += 1
            taken = options[pick(_restricted(after, options, ends), temperature, chance)]
        if taken == END:
            assert at.ends is not None
            return at.ends, asked
        walked.append(taken)
        at = at.next[taken]


def _tree(choices: Iterable[Sequence[int]]) -> _Branch:
    root = _Branch()
    for number, tokens in enumerate(choices):
        at = root
        for token in tokens:
            at = at.next.setdefault(token, _Branch())
        if at.ends is None:
            at.ends = number
    return root


def _restricted(logits: Floats, options: Sequence[int], ends: Sequence[int]) -> Floats:
    end = max((float(logits[token]) for token in ends), default=-math.inf)
    return np.array([end if option == END else logits[option] for option in options], dtype=np.float32)


class TextStream:
    """Makes text of the bytes of tokens; holds back what may turn out to be the start of a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self.stopped = False

    def add(self, piece: bytes, last: bool = False) -> str:
        """The text that is certain now; after a stop text came, `stopped` is set and nothing more comes."""
        if self.stopped:
            return ""
        text = self._pending + self._decoder.decode(piece, last)
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped = True
            self._pending = ""
            return text[: min(places)]
        held = 0 if last else self._doubtful(text)
        self._pending = text[len(text) - held :]
        return text[: len(text) - held]

    def _doubtful(self, text: str) -> int:
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
