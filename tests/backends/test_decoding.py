from __future__ import annotations

import math

import numpy as np
import pytest

from agentd.backends.decoding import Floats, TextStream, choose, logprobs, pick


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_logprobs_are_those_of_a_softmax() -> None:
    rows = np.array([[0.0, 1.0, 2.0], [1000.0, 0.0, 0.0], [-5.0, -5.0, -5.0]], dtype=np.float32)
    total = math.log(math.exp(0) + math.exp(1) + math.exp(2))
    assert logprobs(rows, [1, 0, 2]) == pytest.approx([1 - total, 0.0, -math.log(3)], abs=1e-6)


def test_picking() -> None:
    logits = np.array([0.0, 3.0, 2.9, -9.0], dtype=np.float32)
    assert pick(logits, 0.0, chance()) == 1
    drawn = {pick(logits, 1.0, chance(seed)) for seed in range(50)}
    assert drawn == {1, 2}, "the unlikely ones are outside the best 95 percent"
    assert pick(logits, 1.0, chance(7)) == pick(logits, 1.0, chance(7))


def likes(*favourites: int) -> tuple[list[list[int]], object]:
    """A model that likes these tokens, the first most; and what it was asked."""
    asked: list[list[int]] = []

    def logits(tokens: list[int]) -> Floats:
        asked.append(tokens)
        row = np.zeros(20, dtype=np.float32)
        for place, token in enumerate(favourites):
            row[token] = 10.0 - place
        return row

    return asked, logits


def test_a_choice_is_walked_token_by_token_and_only_forks_are_asked() -> None:
    choices = [[1, 2, 3, 4], [1, 2, 5, 6], [7]]
    asked, logits = likes(9, 5, 1)
    assert callable(logits)
    assert choose(choices, [0], logits, temperature=0, chance=chance()) == (1, 2)
    assert asked == [[], [1, 2]]


def test_a_choice_that_begins_another_needs_the_end() -> None:
    for favourite, expected in ((0, 0), (3, 1)):
        _, logits = likes(favourite)
        assert callable(logits)
        assert choose([[1, 2], [1, 2, 3]], [0], logits, temperature=0, chance=chance())[0] == expected


def test_one_choice_and_an_empty_one() -> None:
    asked, logits = likes()
    assert callable(logits)
    assert choose([[4, 4, 4]], [0], logits, temperature=0, chance=chance()) == (0, 0)
    assert asked == []
    assert choose([[], [4]], [0], logits, temperature=0, chance=chance())[0] in (0, 1)


def test_text_comes_whole_across_tokens() -> None:
    stream = TextStream([])
    euro = "€".encode()
    assert [stream.add(euro[:1]), stream.add(euro[1:2]), stream.add(euro[2:] + b"x")] == ["", "", "€x"]
    assert stream.add(euro[:1]) + stream.add(b"", last=True) == "\ufffd"


def test_a_stop_text_is_cut_out_also_across_tokens() -> None:
    stream = TextStream(["END", "\n\n"])
    assert stream.add(b"one E") == "one "
    assert stream.add(b"N") == ""
    assert stream.add(b"E") == "EN"
    assert stream.add(b"ND more") == ""
    assert stream.stopped
    assert stream.add(b"x") == ""


def test_what_only_looked_like_a_stop_text_is_not_lost() -> None:
    stream = TextStream(["END"])
    assert stream.add(b"EN") + stream.add(b"", last=True) == "EN"
