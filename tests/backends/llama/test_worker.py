"""Many requests at once, in a real worker with the included model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.backends.llama.worker_client import Frame, Refusal, WorkerClient

_FRESH = count()


@pytest.fixture
def own_worker(spec: Frame) -> Iterator[WorkerClient]:
    """One that the test may break, or whose places must be empty."""
    with WorkerClient(spec) as client:
        yield client


def words(number: int, about: str = "") -> str:
    """A text of some `number` tokens that no test used before."""
    return f"Text {next(_FRESH)} {about}:" + " apple pear plum cherry" * (number // 4)


def test_what_a_load_tells(worker: WorkerClient) -> None:
    told = worker.loaded
    assert (told["context"], told["sequences"], told["threads"], told["unified"]) == (1024, 4, 1, False)
    assert told["kv_bytes"] == 4 * 1024 * 30 * 2 * 3 * 64 * 2
    assert told["load_speed"] > 1


def test_many_at_once_say_what_each_says_alone(worker: WorkerClient) -> None:
    prompts = ["1, 2, 3, 4,", "The capital of France is", "Monday, Tuesday,", "Roses are red, violets are"]
    alone = [worker.write(prompt, 12).result()["text"] for prompt in prompts]
    calls = [worker.write(prompt, 12) for prompt in prompts * 2]
    together = [call.result()["text"] for call in calls]
    for said, expected in zip(together, alone * 2, strict=True):
        assert said[:12] == expected[:12], "a batch of several has slightly other numbers, which may show later"
    assert any(one.first < other.ended and other.first < one.ended for one in calls[:2] for other in calls[2:4])


def test_seeds_draw_the_same_words_again(worker: WorkerClient) -> None:
    def drawn(seed: int) -> str:
        return str(worker.write("Once upon a time", 12, temperature=1.0, seed=seed).result()["text"])

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.slow
def test_cancelling_one_leaves_the_others_alone(worker: WorkerClient) -> None:
    calls = [worker.write(f"{start}, 2, 3,", 60, ignore_eos=True) for start in "123"]
    for call in calls:
        call.hear(3)
    worker.cancel(calls[1])
    assert calls[1].refusal().kind == "cancelled"
    for call in (calls[0], calls[2]):
        assert call.result()["completion_tokens"] == 60
    assert calls[1].ended < calls[0].ended


@pytest.mark.slow
def test_cancelling_what_reads_or_waits(worker: WorkerClient) -> None:
    reading = [worker.write(words(800), 4) for _ in range(6)]
    time.sleep(0.3)
    started = time.monotonic()
    for call in reading:
        worker.cancel(call)
    assert {call.refusal().kind for call in reading} == {"cancelled"}
    assert time.monotonic() - started < 2.0
    assert worker.stats()["sequences_in_use"] == 0


@pytest.mark.slow
def test_everybody_gets_signs_of_life(own_worker: WorkerClient) -> None:
    calls = [own_worker.write(words(400), 4) for _ in range(6)]
    for call in calls:
        call.result()
    assert all(call.ticks >= 1 for call in calls), "those who wait, too"


@pytest.mark.slow
def test_prompts_are_read_one_after_the_other(own_worker: WorkerClient) -> None:
    started = time.monotonic()
    calls = [own_worker.write(words(400), 2) for _ in range(4)]
    for call in calls:
        call.result()
    first = [call.first - started for call in calls]
    assert first == sorted(first)
    assert first[0] < 0.5 * first[-1]
    assert sum(first) / 4 < 0.8 * first[-1]


@pytest.mark.slow
def test_the_night_waits_for_people(own_worker: WorkerClient) -> None:
    night = [own_worker.write(words(400), 4, priority="night") for _ in range(4)]
    time.sleep(0.1)
    day = own_worker.write(words(100), 4)
    day.result()
    for call in night:
        assert call.result()["completion_tokens"] == 4
    assert sum(day.first < call.first for call in night) >= 3, "one of them may have been read already"


@pytest.mark.slow
def test_the_night_gives_its_place_and_goes_on_later(own_worker: WorkerClient) -> None:
    night = [own_worker.write(f"{start}, 2, 3, 4,", 100, priority="night", ignore_eos=True) for start in range(4)]
    for call in night:
        call.hear(3)
    day = own_worker.write("Hello", 4)
    day.result()
    assert day.ended < night[0].ended or not night[0].ended
    for call in night:
        found = call.result()
        assert found["completion_tokens"] == 100
        assert found["text"] == "".join(frame["delta"] for frame in call.deltas)


def test_a_conversation_goes_on_where_it_stood(worker: WorkerClient) -> None:
    # A text whose reply is cut into the same tokens when it comes back.
    said = "Count to a hundred. 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"
    first = worker.write(said, 20).result()
    said += first["text"] + " and so on"
    second = worker.write(said, 4).result()
    assert second["reused_tokens"] >= first["prompt_tokens"] + 15, "the reply is not read again"


@pytest.mark.slow
def test_a_shared_prefix_is_read_once(own_worker: WorkerClient) -> None:
    prefix = words(600)
    calls = [own_worker.write(f"{prefix}\nThe {role} says:", 3) for role in ("critic", "user", "owner", "tester")]
    found = sorted(call.result()["reused_tokens"] for call in calls)
    assert found[0] == 0
    assert found[1] > 590
    stats = own_worker.stats()
    assert stats["read_tokens"] < 700
    assert stats["prefix_copies"] == 3
    assert stats["prefix_waits"] == 3


@pytest.mark.slow
def test_a_branch_leaves_the_other_one_standing(own_worker: WorkerClient) -> None:
    prefix = words(300)
    long = prefix + words(300)
    own_worker.write(long, 2).result()
    branch = own_worker.write(prefix + " something else", 2).result()
    assert branch["reused_tokens"] > 290
    assert own_worker.write(long, 2).result()["reused_tokens"] > 590
    assert own_worker.stats()["prefix_copies"] == 1


@pytest.mark.slow
def test_a_conversation_that_lost_its_place_is_restored(own_worker: WorkerClient) -> None:
    talks = [words(300) for _ in range(6)]
    said = [own_worker.write(talk, 6).result()["text"] for talk in talks]
    assert own_worker.stats()["kept_states"] >= 1
    again = own_worker.write(talks[0], 6).result()
    assert again["reused_tokens"] > 290
    assert again["text"] == said[0]
    assert own_worker.stats()["prefix_restores"] == 1


@pytest.mark.slow
def test_one_memory_for_all(spec: Frame) -> None:
    """Shared cells: a copied prefix takes none, and when they run out the last who came waits."""
    with WorkerClient({**spec, "unified": True, "cells": 1024}) as client:
        prefix = words(400)
        calls = [client.write(f"{prefix}\nThe {role} says:", 3) for role in ("critic", "user", "owner", "tester")]
        assert sorted(call.result()["reused_tokens"] for call in calls)[1] > 390
        calls = [client.write(words(300), 20, ignore_eos=True) for _ in range(4)]
        assert [call.result()["completion_tokens"] for call in calls] == [20] * 4
        assert client.write("1, 2, 3, 4,", 6).result()["text"].startswith(" 5, 6")


@pytest.mark.slow
def test_coarse_keys_and_values_take_half_the_room(spec: Frame, worker: WorkerClient) -> None:
    with WorkerClient({**spec, "kv_type": "q8_0"}) as client:
        assert client.loaded["kv_bytes"] < 0.54 * worker.loaded["kv_bytes"]
        assert client.write("1, 2, 3, 4,", 6).result()["text"].startswith(" 5, 6")


@pytest.mark.slow
def test_states_outlive_the_process(spec: Frame, tmp_path: Path) -> None:
    states, talk = tmp_path / "states", words(300)
    load = {**spec, "states": str(states)}
    with WorkerClient(load) as client:
        said = client.write(talk, 6).result()["text"]
        client.stop()
    assert states.stat().st_mode & 0o077 == 0
    with WorkerClient(load) as client:
        again = client.write(talk, 6).result()
        assert again["text"] == said
        assert again["reused_tokens"] > 290
        assert "1 conversations can go on" in client.stop()
    with WorkerClient({**load, "kv_type": "q8_0"}) as client:
        assert client.write(talk, 2).result()["reused_tokens"] == 0, "it was written under other conditions"


@pytest.mark.slow
def test_scoring_does_not_stop_replies(worker: WorkerClient) -> None:
    talk = worker.write("1, 2, 3,", 150, ignore_eos=True)
    talk.hear(2)
    pairs = [[words(100), f" ending {number}"] for number in range(8)]
    score = worker.start("score", pairs=pairs)
    assert len(score.result()["scores"]) == 8
    talk.result()
    assert talk.first < score.ended < talk.ended


def test_a_score_can_be_cancelled(worker: WorkerClient) -> None:
    score = worker.start("score", pairs=[[words(300), f" ending {number}"] for number in range(50)])
    time.sleep(0.3)
    worker.cancel(score)
    assert score.refusal().kind == "cancelled"
    assert worker.ask("score", pairs=[["The capital of France is", " Paris"]])["scores"][0][1] == 1


def test_a_hole_is_refused_by_a_model_that_cannot_fill_it(worker: WorkerClient) -> None:
    refusal = worker.write("def f(", suffix="return x").refusal()
    assert refusal.kind == "refused"
    assert "cannot fill a hole" in str(refusal)


def test_logprobs_are_those_of_the_whole_distribution(worker: WorkerClient) -> None:
    size = 49_152
    call = worker.write("The capital of France is", 5, logprobs=3, temperature=1.0, seed=7)
    found = call.result()
    assert len(found["logprobs"]) == 5
    assert "".join(entry[0] for entry in found["logprobs"]) == found["text"]
    for _, logprob, raw, token, top in found["logprobs"]:
        assert logprob <= top[0][1] + 1e-9 <= 2e-9  # two sums of one row
        assert len(top) == 3
        assert bytes(raw).decode() == worker.ask("detokenize", tokens=[token])["text"]
        assert top[0][0] == worker.ask("detokenize", tokens=[top[0][2]])["text"]
    streamed = [entry for frame in call.deltas for entry in frame.get("logprobs", [])]
    assert streamed == found["logprobs"]
    all_of_them = worker.write("The capital of France is", 1, logprobs=100).result()["logprobs"][0][4]
    shares = [math.exp(logprob) for _, logprob, _ in all_of_them]
    assert shares == sorted(shares, reverse=True)
    assert 0.5 < sum(shares) < 1.0 - 1 / size
    scored = worker.ask("score", pairs=[["The capital of France is", all_of_them[0][0]]])["scores"][0][0]
    assert scored == pytest.approx(all_of_them[0][1], abs=1e-3)


def test_logprobs_end_with_the_text(worker: WorkerClient) -> None:
    found = worker.write("1, 2, 3, 4, 5,", 16, stop=[" 8"], logprobs=0).result()
    assert "".join(entry[0] for entry in found["logprobs"]) == found["text"] == " 6, 7,"


def test_a_reply_held_to_a_schema_and_one_to_a_grammar(worker: WorkerClient) -> None:
    schema = {
        "type": "object",
        "properties": {"a_long_name_that_must_come": {"type": "boolean"}, "kind": {"enum": ["old", "new"]}},
        "required": ["a_long_name_that_must_come", "kind"],
        "additionalProperties": False,
    }
    held = worker.write("JSON:", 60, schema=schema)
    free = worker.write("JSON:", 60, ignore_eos=True)
    value = json.loads(held.result()["text"])
    assert value["kind"] in ("old", "new")
    free.result()
    found = worker.write("Is it so?", 9, grammar='start: "certainly " ("not" | "so")').result()
    assert found["text"] in ("certainly not", "certainly so")
    assert found["finish_reason"] == "stop"
    assert worker.write("x", grammar="start: nothing_of_that_name").refusal().kind == "no_grammar"


def test_words_and_numbers(worker: WorkerClient) -> None:
    found = worker.ask("tokenize", text="Hello é \U0001f600")
    assert worker.ask("detokenize", tokens=found["tokens"])["text"] == "Hello é \U0001f600"
    assert found["pieces"][0] == "Hello"
    assert any(isinstance(piece, list) for piece in found["pieces"]), "a part of a character is bytes"
    plain, control = (len(worker.ask("tokenize", text="<|im_end|>", controls=on)["tokens"]) for on in (False, True))
    assert (plain > 1, control) == (True, 1)
    rendered = worker.ask("render", messages=[{"role": "user", "content": "Hi"}])["prompt"]
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_nothing_to_write_reads_the_prompt(worker: WorkerClient) -> None:
    found = worker.write(words(50), 0).result()
    assert (found["text"], found["completion_tokens"], found["finish_reason"]) == ("", 0, "length")


HOSTILE: list[Frame] = [
    {"op": "generate"},
    {"op": "generate", "prompt": 3},
    {"op": "generate", "prompt": ["a"], "max_tokens": 2},
    {"op": "generate", "prompt": "a", "max_tokens": "many"},
    {"op": "generate", "prompt": "a", "max_tokens": -1},
    {"op": "generate", "prompt": "a", "max_tokens": 10**400},
    {"op": "generate", "prompt": "a", "temperature": "hot"},
    {"op": "generate", "prompt": "a", "temperature": -1},
    {"op": "generate", "prompt": "a", "top_k": 1.5},
    {"op": "generate", "prompt": "a", "seed": []},
    {"op": "generate", "prompt": "a", "stop": "x"},
    {"op": "generate", "prompt": "a", "stop": [1]},
    {"op": "generate", "prompt": "a", "logit_bias": [1]},
    {"op": "generate", "prompt": "a", "logit_bias": {"x": 1}},
    {"op": "generate", "prompt": "a", "logprobs": True},
    {"op": "generate", "prompt": "a", "choices": []},
    {"op": "generate", "prompt": "a", "choices": [1]},
    {"op": "generate", "prompt": "a", "schema": {"type": "nonsense"}},
    {"op": "generate", "prompt": "a", "grammar": 7},
    {"op": "generate", "prompt": "word " * 2000},
    {"op": "generate", "messages": "hello"},
    {"op": "generate", "messages": [None]},
    {"op": "score"},
    {"op": "score", "pairs": [["a"]]},
    {"op": "score", "pairs": [[1, 2]]},
    {"op": "score", "pairs": [["word " * 2000, "x"]]},
    {"op": "embed", "texts": "x"},
    {"op": "count"},
    {"op": "tokenize", "text": None},
    {"op": "detokenize", "tokens": [10**9]},
    {"op": "detokenize", "tokens": [-1]},
    {"op": "detokenize", "tokens": ["a"]},
    {"op": "detokenize", "tokens": [True]},
    {"op": "render", "messages": 5},
    {"op": "load", "path": "/nowhere"},
    {"op": ["generate"]},
    {"op": None},
    {},
]


def test_hostile_frames_are_refused_and_nothing_else(worker: WorkerClient) -> None:
    talk = worker.write("1, 2, 3,", 100, ignore_eos=True)
    for frame in HOSTILE:
        frame = dict(frame)
        refusal = worker.start(frame.pop("op", ""), **frame).refusal()
        assert refusal.kind in ("refused", "no_grammar"), frame
        assert str(refusal), frame
    assert talk.result()["completion_tokens"] == 100


def test_frames_without_a_number_of_their_own(worker: WorkerClient) -> None:
    nobody = worker.hear_nobody()
    numbers: list[object] = [None, "one", [], {}, 1.5]
    for number in numbers:
        worker.raw({"op": "count", "text": "x", "id": number})
        assert "a number of its own" in str(nobody.refusal())
    for number in [*numbers, 10**9]:
        worker.raw({"op": "cancel", "id": number})
    assert worker.ask("count", text="one two")["tokens"] == 2


@pytest.mark.slow
def test_a_context_too_big_for_the_memory(spec: Frame) -> None:
    with pytest.raises(Refusal) as caught:
        WorkerClient({**spec, "context": 8192, "sequences": 32}, memory=3_000_000_000)
    assert caught.value.kind == "memory"
    assert "not enough memory" in str(caught.value)


@pytest.mark.slow
def test_loads_that_cannot_be(spec: Frame) -> None:
    for wrong in (
        {"path": "/nowhere.gguf"},
        {"context": 0},
        {"context": 100_000},
        {"kv_type": "q2"},
        {"threads": "all"},
    ):
        with pytest.raises(Refusal) as caught:
            WorkerClient({**spec, **wrong})
        assert caught.value.kind == "load", wrong


@pytest.mark.slow
def test_a_context_for_vectors(spec: Frame) -> None:
    with WorkerClient({**spec, "embedding": True}) as client:
        near, text, far = client.ask("embed", texts=["Read the file", "read a file", "bananas and monkeys"])["vectors"]
        assert len(text) == 576

        def likeness(one: list[float], other: list[float]) -> float:
            return sum(a * b for a, b in zip(one, other, strict=True))

        assert likeness(text, text) == pytest.approx(1.0, abs=1e-3)
        assert likeness(near, text) > likeness(far, text)
        assert client.write("a").refusal().kind == "refused"
        assert client.start("embed", texts=["word " * 3000]).refusal().kind == "refused"


@pytest.mark.slow
def test_a_hundred_at_once(worker: WorkerClient) -> None:
    calls = [worker.write(f"{number}, {number + 1},", 4) for number in range(100)]
    for call in calls:
        assert call.result()["completion_tokens"] <= 4
    assert worker.stats()["waiting"] == 0
