"""From logits to tokens and from tokens to text: log-probabilities, sampling, choices, stop texts. Arrays only."""

from __future__ import annotations

import codecs
import math
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

REPEAT_WINDOW = 64
"""Latest tokens that `repeat_penalty` looks at."""
_REACHES = (6.0, 12.0, math.inf)
"""How far below the best logit candidates are looked for, until there are enough."""
END = -1
"""Stands for `the text ends here` among the options of a choice."""


def logprobs(rows: Floats, tokens: Sequence[int]) -> NDArray[np.float64]:
    """Log-probability (natural) of token i under row i of logits, shape (n, vocabulary)."""
    top = rows.max(axis=1)
    total = np.log(np.exp(rows - top[:, None]).sum(axis=1, dtype=np.float64))
    wanted = rows[np.arange(len(tokens)), np.asarray(tokens)].astype(np.float64)
    return np.asarray(wanted - top - total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn; the words and their meaning are those of OpenAI and llama.cpp."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 for no limit."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """-100 and less forbids a token."""
    seed: int = 0


class Sampler:
    """Draws the tokens of one reply."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._chance = np.random.default_rng(sampling.seed % 2**64)
        self._written: Counter[int] = Counter()
        self._counted = 0

    def pick(self, logits: Floats, tokens: Sequence[int] = (), prompt: int = 0) -> int:
        """The next token after `tokens`, of which the first `prompt` are the prompt; only penalties look at them.

        May be asked more than once at one place; `tokens` only ever grows.
        """
        logits = self._penalised(self._biased(logits), tokens, prompt)
        wanted = self._sampling
        best = int(logits.argmax())
        top = float(logits[best])
        if wanted.temperature <= 0 or wanted.top_k == 1 or not math.isfinite(top):
            return best
        kept = self._likely(logits, top)
        weights = np.exp((logits[kept].astype(np.float64) - top) / wanted.temperature)
        shares = np.cumsum(weights)
        place = int(np.searchsorted(shares, self._chance.random() * shares[-1], side="right"))
        return int(kept[min(place, len(kept) - 1)])

    @staticmethod
    def alternatives(logits: Floats, n: int) -> list[tuple[int, float]]:
        """The `n` likeliest tokens and their log-probabilities (natural), untouched by temperature and penalties."""
        n = min(n, logits.size)
        if n < 1:
            return []
        best = _top(logits, n, float(logits.max()))
        rows = np.broadcast_to(logits, (1, logits.size))
        total = float(logits[best[0]]) - float(logprobs(rows, best[:1].tolist())[0])
        return [(int(token), float(logits[token]) - total) for token in best]

    def _biased(self, logits: Floats) -> Floats:
        bias = {token: by for token, by in self._sampling.logit_bias.items() if 0 <= token < logits.size}
        if not bias:
            return logits
        logits = logits.copy()
        logits[list(bias)] += np.array([by if by > -100 else -math.inf for by in bias.values()], dtype=np.float32)
        return logits

    def _penalised(self, logits: Floats, tokens: Sequence[int], prompt: int) -> Floats:
        """OpenAI's two penalties count the tokens of the reply, llama.cpp's third one the latest, the prompt's too."""
        wanted = self._sampling
        recent = sorted(set(tokens[-REPEAT_WINDOW:])) if wanted.repeat_penalty not in (0.0, 1.0) else []
        counts = self._counts(tokens, prompt) if wanted.frequency_penalty or wanted.presence_penalty else {}
        if not recent and not counts:
            return logits
        logits = logits.copy()
        if recent:
            held = logits[recent]
            logits[recent] = np.where(held > 0, held / wanted.repeat_penalty, held * wanted.repeat_penalty)
        if counts:
            often = np.array(list(counts.values()), dtype=np.float32)
            logits[list(counts)] -= often * wanted.frequency_penalty + wanted.presence_penalty
        return logits

    def _counts(self, tokens: Sequence[int], prompt: int) -> Mapping[int, int]:
        start = max(prompt, self._counted)
        self._written.update(tokens[start:])
        self._counted = max(start, len(tokens))
        return self._written

    def _likely(self, logits: Floats, top: float) -> NDArray[np.intp]:
        """The tokens to draw from: the best `top_k`, `top_p` of their probability, and of these all above `min_p`."""
        wanted = self._sampling
        kept = _top(logits, wanted.top_k, top) if 0 < wanted.top_k < logits.size else None
        if wanted.top_p < 1:
            kept = _nucleus(logits, kept, wanted.top_p, top)
        if kept is None:
            kept = np.flatnonzero(logits > -math.inf)
        if wanted.min_p > 0:
            kept = kept[logits[kept] >= top + math.log(min(wanted.min_p, 1.0))]
        return kept


def _top(logits: Floats, count: int, top: float) -> NDArray[np.intp]:
    """The best `count` tokens, the likeliest first. Sorting a whole vocabulary is slow, so only its upper end is."""
    for reach in _REACHES:
        near = np.flatnonzero(logits >= top - reach)
        if len(near) >= count:
            break
    if len(near) > count:
        near = near[np.argpartition(-logits[near], count - 1)[:count]]
    return near[np.argsort(-logits[near], kind="stable")]


def _nucleus(logits: Floats, kept: NDArray[np.intp] | None, share: float, top: float) -> NDArray[np.intp]:
    """The fewest of the likeliest tokens that together have `share` of the probability of `kept` (None: of all)."""
    if kept is not None:
        weights = np.exp(logits[kept].astype(np.float64) - top)
        whole = float(weights.sum())
    else:
        whole = float(np.exp(logits - np.float32(top)).sum(dtype=np.float64))
        for reach in _REACHES:
            near = np.flatnonzero(logits >= top - reach)
            kept = near[np.argsort(-logits[near], kind="stable")]
            weights = np.exp(logits[kept].astype(np.float64) - top)
            if weights.sum() >= share * whole:
                break
    assert kept is not None
    return kept[: int(np.searchsorted(np.cumsum(weights), share * whole)) + 1]


@dataclass(slots=True)
class _Branch:
    next: dict[int, _Branch] = field(default_factory=dict)
    ends: int | None = None
    """Which choice is complete here."""


def choose(
    choices: Sequence[Sequence[int]],
    ends: Sequence[int],
    sampler: Sampler,
) -> Generator[list[int], Floats, tuple[int, int]]:
    """Walk down the tree of the choices' tokens, at each fork as the model likes best.

    Yields the tokens to go on by, and is sent the logits after them; `ends` are the tokens that end a text. Returns
    which choice was taken and how often the model was asked.
    """
    at = _tree(choices)
    walked: list[int] = []
    asked = 0
    while True:
        options = [*at.next, *([END] if at.ends is not None else [])]
        if len(options) == 1:
            taken = options[0]
        else:
            after = yield walked
            walked = []
            asked += 1
            taken = options[sampler.pick(_restricted(after, options, ends))]
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
        found = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:  # the one that is complete first, as if the text came character by character
            self.stopped = True
            self._pending = ""
            return text[: min(found)[1]]
        held = 0 if last else self._doubtful(text)
        self._pending = text[len(text) - held :]
        return text[: len(text) - held]

    def _doubtful(self, text: str) -> int:
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
