"""How alike two requests are in their words: cosine of term weights, rare words counting more (TF-IDF)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

_TERM = re.compile(r"[^\W\d_]+|'abc'|'xyz'|'make'")

Vector = Mapping[str, float]


class Likeness:
    """Term weights learnt from `texts`, so that words most of them share count little."""

    def __init__(self, texts: Iterable[str]) -> None:
        bags = [set(_terms(text)) for text in texts]
        self._size = len(bags)
        self._seen = Counter(term for bag in bags for term in bag)

    def vector(self, text: str) -> Vector:
        """Unit-length weights of the terms of `text`."""
        counts = Counter(_terms(text))
        weights = {term: self._weight(term) * (1 + math.log(number)) for term, number in counts.items()}
        length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        return {term: weight / length for term, weight in weights.items()}

    def _weight(self, term: str) -> float:
        return math.log((self._size + 1) / (self._seen.get(term, 0) + 0.5))


def cosine(one: Vector, other: Vector) -> float:
    return sum(weight * other.get(term, 0.0) for term, weight in one.items())


def _terms(text: str) -> list[str]:
    return _TERM.findall(text.lower())
