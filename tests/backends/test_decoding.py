from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.backends.decoding import Floats, Sampler, Sampling, TextStream, choose, logprobs


def test_logprobs_are_those_of_a_softmax() -> None:
    rows = np.array([[0.0, 1.0, 2.0], [1000.0, 0.0, 0.0], [-5.0, -5.0, -5.0]], dtype=np.float32)
    total = math.log(math.exp(0) + math.exp(1) + math.exp(2))
    assert logprobs(rows, [1, 0, 2]) == pytest.approx([1 - total, 0.0, -math.log(3)], abs=1e-6)


def likes(*favourites: int) -> tuple[list[list[int]], Callable[[list[int]], Floats]]:
    """A model that likes these tokens, the first most; and what it was asked."""
    asked: list[list[int]] = []

    def logits(tokens: list[int]) -> Floats:
        asked.append(tokens)
        row = np.zeros(20, dtype=np.float32)
        for place, token in enumerate(favourites):
            row[token] = 10.0 - place
        return row

    return asked, logits


def taken(choices: list[list[int]], logits: Callable[[list[int]], Floats]) -> tuple[int, int]:
    walk = choose(choices, [0], Sampler(Sampling()))
    try:
        tokens = next(walk)
        while True:
            tokens = walk.send(logits(tokens))
    except StopIteration as done:
        found: tuple[int, int] = done.value
        return found


def test_a_choice_is_walked_token_by_token_and_only_forks_are_asked() -> None:
    choices = [[1, 2, 3, 4], [1, 2, 5, 6], [7]]
    asked, logits = likes(9, 5, 1)
    assert taken(choices, logits) == (1, 2)
    assert asked == [[], [1, 2]]


def test_a_choice_that_begins_another_needs_the_end() -> None:
    for favourite, expected in ((0, 0), (3, 1)):
        _, logits = likes(favourite)
        assert taken([[1, 2], [1, 2, 3]], logits)[0] == expected


def test_one_choice_and_an_empty_one() -> None:
    asked, logits = likes()
    assert taken([[4, 4, 4]], logits) == (0, 0)
    assert asked == []
    assert taken([[], [4]], logits)[0] in (0, 1)


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


def test_the_stop_text_that_is_complete_first_counts() -> None:
    stream = TextStream(["abcd", "bc"])
    assert stream.add(b"xabcd") == "xa"


def test_what_only_looked_like_a_stop_text_is_not_lost() -> None:
    stream = TextStream(["END"])
    assert stream.add(b"EN") + stream.add(b"", last=True) == "EN"


@given(
    text=st.text(alphabet="abé€😀", max_size=30),
    stops=st.lists(st.text(alphabet="abé€", min_size=1, max_size=3), max_size=3),
    cuts=st.lists(st.integers(0, 60), max_size=10),
)
def test_stops_do_not_depend_on_how_the_bytes_are_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    raw = text.encode()
    borders = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    found = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    stream = TextStream(stops)
    parts = [stream.add(raw[start:end]) for start, end in pairwise(borders)]
    assert "".join([*parts, stream.add(b"", last=True)]) == (text[: min(found)[1]] if found else text)


LOGITS = np.array([1.0, 3.0, 2.5, 2.0, -1.0, -math.inf], dtype=np.float32)


def drawn(sampling: Sampling, logits: Floats = LOGITS, count: int = 400) -> set[int]:
    sampler = Sampler(sampling)
    return {sampler.pick(logits) for _ in range(count)}


def test_at_temperature_0_the_likeliest_is_taken_whatever_else_is_asked() -> None:
    assert drawn(Sampling(top_p=0.1, top_k=3, min_p=0.5)) == {1}


def test_what_is_never_drawn() -> None:
    hot = 5.0
    assert drawn(Sampling(temperature=hot)) == {0, 1, 2, 3, 4}
    assert drawn(Sampling(temperature=hot, top_k=2)) == {1, 2}
    assert drawn(Sampling(temperature=hot, top_k=1)) == {1}
    # Shares at temperature 1: 0.45, 0.27, 0.17, 0.06, 0.01. Truncation comes before the temperature, as in llama.cpp.
    assert drawn(Sampling(temperature=hot, top_p=0.7)) == {1, 2}
    assert drawn(Sampling(temperature=hot, top_p=0.0)) == {1}
    assert drawn(Sampling(temperature=hot, min_p=0.5)) == {1, 2}
    assert drawn(Sampling(temperature=hot, top_k=3, top_p=0.9)) == {1, 2, 3}
    assert drawn(Sampling(temperature=hot, logit_bias={1: -100, 4: 50, 99: 1})) == {4}


def test_a_bias_of_minus_100_forbids() -> None:
    logits = np.array([0.0, -500.0], dtype=np.float32)
    assert Sampler(Sampling(logit_bias={0: -100})).pick(logits) == 1
    assert Sampler(Sampling(logit_bias={0: -99})).pick(logits) == 0


def test_how_often_each_is_drawn() -> None:
    sampler = Sampler(Sampling(temperature=2.0))
    counts = np.bincount([sampler.pick(LOGITS) for _ in range(20_000)], minlength=6) / 20_000
    weights = np.exp(LOGITS.astype(np.float64) / 2.0)
    assert counts == pytest.approx(weights / weights.sum(), abs=0.015)


def test_a_seed_decides() -> None:
    def some(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler.pick(LOGITS) for _ in range(30)]

    assert some(7) == some(7) != some(8)
    assert some(-1) == some(-1)


def test_penalties() -> None:
    logits = np.array([4.0, 3.0, -1.0, -1.1], dtype=np.float32)
    prompt, reply = [0] * 3, [1, 1]
    asked = [*prompt, *reply]
    assert Sampler(Sampling(frequency_penalty=1.0)).pick(logits, asked, 3) == 0, "the prompt does not count"
    assert Sampler(Sampling(frequency_penalty=0.6)).pick(logits, [0, 0], 0) == 1
    assert Sampler(Sampling(presence_penalty=0.9)).pick(logits, [0] * 9, 0) == 0, "once is as often as nine times"
    assert Sampler(Sampling(presence_penalty=1.1)).pick(logits, [0], 0) == 1
    assert Sampler(Sampling(repeat_penalty=1.5)).pick(logits, [0, *[2] * 63], 64) == 1, "the prompt counts"
    assert Sampler(Sampling(repeat_penalty=1.5)).pick(logits, [0, *[2] * 64], 65) == 0, "only the latest 64"
    low = np.array([-9.0, -9.0, -1.0, -1.1], dtype=np.float32)
    assert Sampler(Sampling(repeat_penalty=1.5)).pick(low, [2]) == 3, "a negative logit is pushed down too"


def test_penalties_count_each_token_once_however_often_is_asked() -> None:
    sampler = Sampler(Sampling(frequency_penalty=0.3))
    logits = np.array([4.0, 3.0], dtype=np.float32)
    reply: list[int] = []
    for _ in range(4):
        assert sampler.pick(logits, [9, 9, *reply], 2) == sampler.pick(logits, [9, 9, *reply], 2)
        reply.append(sampler.pick(logits, [9, 9, *reply], 2))
    assert reply == [0, 0, 0, 0], "four times 0.3 are more than 1 only now"
    assert sampler.pick(logits, [9, 9, *reply], 2) == 1


def test_logits_are_left_as_they_are() -> None:
    logits = LOGITS.copy()
    logits.flags.writeable = False
    sampling = Sampling(temperature=1.0, top_k=3, repeat_penalty=2.0, presence_penalty=1.0, logit_bias={1: 1.0})
    Sampler(sampling).pick(logits, [1, 2])


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
def test_a_broken_model_still_gives_a_token(bad: float) -> None:
    logits = np.full(6, bad, dtype=np.float32)
    assert 0 <= Sampler(Sampling(temperature=1.0, top_k=3, top_p=0.9)).pick(logits) < 6


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 50.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 900, 5000])
def test_only_the_upper_end_is_sorted_but_nothing_is_missed(spread: float, top_k: int) -> None:
    logits = (np.random.default_rng(1).normal(size=1000) * spread).astype(np.float32)
    sampling = Sampling(temperature=1.0, top_k=top_k, top_p=0.8)
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    weights = np.exp(logits[order].astype(np.float64) - logits.max())
    kept = order[: int(np.searchsorted(np.cumsum(weights), 0.8 * weights.sum())) + 1]
    found = Sampler(sampling)._likely(logits, float(logits.max()))
    assert len(found) == len(kept)
    assert sorted(logits[found]) == sorted(logits[kept])


def test_alternatives() -> None:
    total = math.log(sum(math.exp(value) for value in LOGITS))
    found = Sampler.alternatives(LOGITS, 3)
    assert [token for token, _ in found] == [1, 2, 3]
    assert [share for _, share in found] == pytest.approx([3.0 - total, 2.5 - total, 2.0 - total], abs=1e-5)
    assert Sampler.alternatives(LOGITS, 0) == []
    assert len(Sampler.alternatives(LOGITS, 99)) == 6
