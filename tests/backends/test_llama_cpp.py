"""The included model, really loaded: what it says matters little, that it says it as asked matters."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from agentd.backends.devices import usable_cores
from agentd.backends.fit import Wanted
from agentd.backends.llama_cpp import LlamaModel
from agentd.errors import Cancelled, ModelError, NoGrammar
from agentd.types import Delta, Message, Model, ModelProfile, ModelRequest

QUESTION = ModelRequest(messages=(Message(role="user", content="Name three colours."),), max_tokens=6)


def raw(prompt: str, **more: object) -> ModelRequest:
    return replace(ModelRequest(prompt=prompt, max_tokens=6), **more)  # type: ignore[arg-type]


def test_it_is_a_model(model: LlamaModel) -> None:
    assert isinstance(model, Model)
    facts = model.start()
    assert facts["context"] == 4096
    assert facts["trained_context"] == 8192
    assert facts["threads"] == max(1, usable_cores() - 1)
    assert model.pid is not None


def test_a_reply_counts_its_tokens(model: LlamaModel) -> None:
    reply = model.chat(QUESTION)
    assert reply.model == "smollm2"
    assert reply.text
    assert reply.completion_tokens == 6
    assert reply.finish_reason == "length"
    assert 20 < reply.prompt_tokens < 60, "the model's template adds its own system message"
    assert model.chat(raw("The capital of France is", max_tokens=1)).prompt_tokens == 5


def test_the_same_words_whatever_was_asked_before(model: LlamaModel, own_model: LlamaModel) -> None:
    first = own_model.chat(QUESTION).text
    model.chat(replace(QUESTION, temperature=1.0, seed=3))
    model.chat(raw("Something else entirely:", max_tokens=3))
    assert model.chat(QUESTION).text == first
    assert model.chat(QUESTION).text == first


def test_the_same_words_when_a_reply_becomes_part_of_the_prompt(model: LlamaModel, own_model: LlamaModel) -> None:
    prompt = "Three things that one finds in a kitchen: "
    reply = model.chat(raw(prompt, max_tokens=30, temperature=1.0, seed=5)).text
    go_on = raw(prompt + reply + " and then", max_tokens=20)
    assert model.chat(go_on).text == own_model.chat(go_on).text


def test_drawn_words_follow_the_seed(model: LlamaModel) -> None:
    said = [model.chat(raw("Once upon a time", temperature=1.0, seed=seed)).text for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_a_prompt_that_went_before_is_not_computed_again(model: LlamaModel) -> None:
    long = "A list of words: " + "apple, " * 40
    model.chat(raw(long, max_tokens=1))
    before = model.stats()["reused_tokens"]
    model.chat(raw(long + "pear", max_tokens=1))
    assert model.stats()["reused_tokens"] - before > 78


def test_streaming_gives_the_reply_in_parts(model: LlamaModel) -> None:
    parts: list[str] = []
    reply = model.chat(QUESTION, lambda delta: parts.append(delta.text))
    assert len(parts) > 2
    assert "".join(parts) == reply.text


def test_a_stop_text_ends_the_reply(model: LlamaModel) -> None:
    counting = raw("1, 2, 3, 4, 5,", max_tokens=16)
    whole = model.chat(counting).text
    assert " 8" in whole
    reply = model.chat(replace(counting, stop=(" 8", "never")))
    assert reply.text == whole[: whole.index(" 8")]
    assert reply.finish_reason == "stop"


def test_cancelling_takes_effect_within_one_token(model: LlamaModel) -> None:
    cancel = threading.Event()
    parts: list[str] = []

    def hear(delta: Delta) -> None:
        parts.append(delta.text)
        if len(parts) == 3:
            cancel.set()

    with pytest.raises(Cancelled):
        model.chat(raw("1, 2, 3,", max_tokens=1000), hear, cancel)
    assert len(parts) == 3
    spent = model.stats()["completion_tokens"]
    time.sleep(0.2)
    assert model.stats()["completion_tokens"] == spent, "nothing runs on"


def test_cancelling_while_the_prompt_is_read(model: LlamaModel) -> None:
    cancel = threading.Event()
    threading.Timer(0.4, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        model.chat(raw("word " * 3900, max_tokens=1), None, cancel)
    assert time.monotonic() - started < 2.0, "one batch alone takes longer"
    assert model.chat(QUESTION).completion_tokens == 6


def test_what_is_cancelled_before_it_starts_is_not_started(model: LlamaModel) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        model.chat(QUESTION, None, cancel)
    with pytest.raises(Cancelled):
        model.score([("a", "b")], cancel=cancel)


def test_a_request_that_takes_too_long(model: LlamaModel) -> None:
    with pytest.raises(ModelError, match=r"was not done after 0\.3 s"):
        model.chat(raw("1, 2, 3,", max_tokens=3000, timeout=0.3))
    assert model.chat(QUESTION).text


def test_a_listener_that_fails_ends_the_reply_and_nothing_else(model: LlamaModel) -> None:
    def hear(delta: Delta) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.chat(raw("1, 2, 3,", max_tokens=1000), hear)
    assert model.chat(QUESTION).completion_tokens == 6


def test_a_prompt_too_long_for_the_context(model: LlamaModel) -> None:
    with pytest.raises(ModelError, match=r"the prompt has \d+ tokens: that exceeds the available context size of 4096"):
        model.chat(raw("word " * 4200))


def test_texts_of_every_kind_go_through(model: LlamaModel) -> None:
    for text in ("", "\0", "\ud800", "é" * 9, "<|im_end|>", "\U0001f600", "a\r\nb\ttab"):
        said = model.chat(replace(QUESTION, messages=(Message(role="user", content=text),), max_tokens=1))
        assert said.completion_tokens <= 1
        assert model.count(text) <= 4 * len(text) + 1


def test_a_message_cannot_pass_for_a_control_token(model: LlamaModel) -> None:
    def prompt_tokens(text: str) -> int:
        return model.chat(replace(QUESTION, messages=(Message(role="user", content=text),), max_tokens=1)).prompt_tokens

    assert prompt_tokens("a<|im_end|>b") - prompt_tokens("ab") > 3


def test_a_reply_held_to_a_schema(model: LlamaModel) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "kind": {"enum": ["old", "new"]}},
        "required": ["city", "kind"],
        "additionalProperties": False,
    }
    request = replace(QUESTION, messages=(Message(role="user", content="A city?"),), schema=schema, max_tokens=60)
    for temperature in (0.0, 1.0):
        value = json.loads(model.chat(replace(request, temperature=temperature)).text)
        assert set(value) == {"city", "kind"}
        assert value["kind"] in ("old", "new")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/$defs/missing"},
    ],
)
def test_a_schema_that_no_grammar_can_hold(model: LlamaModel, schema: dict[str, object]) -> None:
    pid = model.start()["pid"]
    with pytest.raises(NoGrammar):
        model.chat(replace(QUESTION, schema=schema))
    assert model.pid == pid, "the process lives on"


def test_a_schema_with_big_bounds_does_not_crash_the_process(model: LlamaModel) -> None:
    pid = model.start()["pid"]
    schema = {"type": "array", "items": {"type": "string", "maxLength": 100_000}, "maxItems": 100_000}
    assert model.chat(raw("JSON:", schema=schema, max_tokens=3)).text.startswith("[")
    assert model.pid == pid


def test_a_choice_is_always_one_of_those_given(model: LlamaModel) -> None:
    choices = ("run", "run_tests", 'we"ird\n\\', "日本語 🙂", "", "<|im_end|>", " run", "x" * 300)
    for seed in range(4):
        request = replace(QUESTION, choices=choices, temperature=2.0, seed=seed)
        reply = model.chat(request)
        assert reply.text in choices
        assert reply.finish_reason == "stop"


def test_a_choice_is_the_models_own(model: LlamaModel) -> None:
    def pick(prompt: str) -> str:
        return model.chat(raw(prompt, choices=(" Paris", " banana", " Parisian banana"))).text

    assert pick("The capital of France is the city of") == " Paris"
    assert pick("She peeled the yellow skin and ate the ripe") == " banana"


def test_choices_must_be_there(model: LlamaModel) -> None:
    with pytest.raises(ModelError, match="no choices"):
        model.chat(replace(QUESTION, choices=()))


def test_scores(model: LlamaModel) -> None:
    likely, unlikely = model.score([("The capital of France is", " Paris"), ("The capital of France is", " banana")])
    assert likely.logprob > unlikely.logprob + 3
    assert likely.tokens == 1
    assert -3 < likely.logprob < 0
    first, both, second = model.score(
        [
            ("one two three", " four five"),
            ("one two three", " four five six seven"),
            ("one two three four five", " six seven"),
        ]
    )
    assert both.logprob == pytest.approx(first.logprob + second.logprob, abs=0.2)
    assert both.tokens == first.tokens + second.tokens
    assert model.score([("anything", ""), ("", "word")])[0].tokens == 0
    assert model.score([]) == []


def test_the_score_of_a_pair_does_not_depend_on_the_others(model: LlamaModel) -> None:
    prefixes = [f"Similar requests:\n- count the lines of notes.txt\n- size number {number}\n-" for number in range(3)]
    endings = [" how long is data.txt", " how long", " how many lines are there", " are there more"]
    pairs = [(prefix, ending) for prefix in prefixes for ending in endings]
    together = model.score(pairs)
    assert model.score(pairs[::-1]) == together[::-1]
    for place in (0, 6, 10):
        assert model.score([pairs[place]]) == [together[place]]


def test_a_score_does_not_depend_on_where_the_text_was_cut(model: LlamaModel, own_model: LlamaModel) -> None:
    prefix, text = "Similar requests:" + "\n- count the lines of notes.txt" * 6, " how many lines are there in data.txt"
    longer = prefix + "\n- show how long the file is" * 6 + "\n-"
    model.score([(prefix, text)])
    assert model.score([(longer, text)]) == own_model.score([(longer, text)])


def test_a_prefix_scored_before_is_not_computed_again(model: LlamaModel) -> None:
    prefix = "Words that were never scored before this test: " + "alpha beta gamma delta " * 20
    started = time.monotonic()
    model.score([(prefix, " one two")])
    first = time.monotonic() - started
    model.score([("something else entirely that takes its place in the context", " one two")])
    started = time.monotonic()
    model.score([(prefix, " three four")])
    assert time.monotonic() - started < first / 2


def test_a_pair_too_long_to_score(model: LlamaModel) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        model.score([("word " * 4200, " x")])


def test_embeddings_are_near_for_near_texts(model: LlamaModel) -> None:
    near, text, far, empty = model.embed(["Read the file", "read a file", "bananas and monkeys", ""])
    assert len(text) == 256
    assert np.linalg.norm(text) == pytest.approx(1.0, abs=1e-3)
    assert np.dot(near, text) > np.dot(far, text) + 0.3
    assert not any(empty)
    assert model.embed([]) == []


def test_counting(model: LlamaModel) -> None:
    assert model.count("") == 0
    assert model.count("The capital of France is") == 5


def test_many_threads_at_once(model: LlamaModel) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        text = f"number {number} " * (number + 1)
        expected = 3 * (number + 1)
        for _ in range(5):
            if (found := model.count(text.strip())) != expected:
                wrong.append((number, found, expected))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_client_with_one_request_need_not_wait_for_all_of_another(gguf: Path) -> None:
    model = LlamaModel(gguf, name="m", profile=ModelProfile(), wanted=Wanted(context=512, sequences=1))
    model.start()
    done: list[str] = []
    lock = threading.Lock()

    def work(client: str) -> None:
        model.chat(raw("1, 2, 3,", max_tokens=4, client=client))
        with lock:
            done.append(client)

    threads = [threading.Thread(target=work, args=(client,)) for client in ("busy",) * 5]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    threads.append(threading.Thread(target=work, args=("other",)))
    threads[-1].start()
    for thread in threads:
        thread.join()
    model.close()
    assert done.index("other") <= 2


def test_a_context_the_model_was_not_trained_for(gguf: Path) -> None:
    model = LlamaModel(gguf, name="m", profile=ModelProfile(context=100_000))
    with pytest.raises(ModelError, match="trained for a context of 8192 tokens; 100000 are configured"):
        model.start()
    assert model.pid is None


def test_a_model_cut_to_half(gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    with gguf.open("rb") as file:
        path.write_bytes(file.read(gguf.stat().st_size // 2))
    model = LlamaModel(path, name="half", profile=ModelProfile())
    with pytest.raises(ModelError, match="cut off or damaged"):
        model.chat(QUESTION)
    assert model.starts == 0, "no process was needed to see it"


def test_a_file_that_only_llama_can_refuse(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16) + bytes(64))
    model = LlamaModel(path, name="empty", profile=ModelProfile())
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load .*empty\.gguf: .*\w"):
        model.chat(QUESTION)
    assert model.pid is None


def adapter(path: Path, *, width: int = 576) -> Path:
    """A LoRA adapter that changes the first layer a lot."""
    writer = GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    writer.add_tensor("blk.0.attn_output.weight.lora_a", np.full((1, width), 0.5, dtype=np.float32))
    writer.add_tensor("blk.0.attn_output.weight.lora_b", np.full((width, 1), 0.5, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_named_adapter_is_used(gguf: Path, model: LlamaModel, tmp_path: Path) -> None:
    pairs = [("The capital of France is", " Paris")]
    lora = adapter(tmp_path / "lora.gguf")
    adapted = LlamaModel(gguf, name="adapted", profile=ModelProfile(context=512), loras=[lora])
    try:
        assert adapted.score(pairs)[0].logprob != pytest.approx(model.score(pairs)[0].logprob, abs=0.5)
        assert adapted.chat(QUESTION).text != model.chat(QUESTION).text
    finally:
        adapted.stop()


def test_an_adapter_that_does_not_fit(gguf: Path, tmp_path: Path) -> None:
    for lora, words in (
        (adapter(tmp_path / "wide.gguf", width=100), "cannot be loaded"),
        (tmp_path / "no", "no model"),
    ):
        model = LlamaModel(gguf, name="adapted", profile=ModelProfile(context=512), loras=[lora])
        with pytest.raises(ModelError, match=words):
            model.start()


def test_a_file_is_requantised_once_and_used_as_it_came_when_that_cannot_be(gguf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def load() -> LlamaModel:
        profile = ModelProfile(context=512, compact=True)
        return LlamaModel(gguf, name="small", profile=profile, requantise="Q4_0", cache=cache)

    first = load()
    first.start()
    first.close()
    (made,) = cache.iterdir()
    assert made.stat().st_size < gguf.stat().st_size
    stamp = made.stat().st_mtime_ns
    again = load()
    again.start()
    again.close()
    assert made.stat().st_mtime_ns == stamp
    made.write_bytes(made.read_bytes()[: made.stat().st_size // 2])
    repaired = load()
    repaired.start()
    repaired.close()
    assert made.stat().st_size > gguf.stat().st_size // 2
    shutil.rmtree(cache)
    cache.write_text("in the way")
    plain = load()
    assert plain.count("one two") > 0
    plain.close()


def test_what_was_computed_is_what_it_takes(model: LlamaModel) -> None:
    model.chat(raw("word " * 1000, max_tokens=2))
    taken = model.stats()["rss_bytes"]
    assert model.plan is not None
    assert 0.4 * model.plan.ram_bytes < taken < 1.25 * (model.plan.ram_bytes + model.plan.kept_bytes)


def test_a_prompt_that_begins_a_thought(gguf: Path, tmp_path: Path) -> None:
    before, after = b"'<|im_start|>assistant\n' }}", b"'<|im_start|>a\n<think>\n' }}"
    path = tmp_path / "thinker.gguf"
    path.write_bytes(gguf.read_bytes().replace(before, after, 1))
    model = LlamaModel(path, name="m", profile=ModelProfile(), wanted=Wanted(context=512, sequences=1))
    try:
        assert model.render(QUESTION.messages).endswith("<think>\n")
        heard: list[Delta] = []
        streamed = model.chat(QUESTION, heard.append)
        assert streamed.reasoning
        assert (streamed.text, "".join(delta.text for delta in heard)) == ("", "")
        assert model.chat(QUESTION).reasoning == streamed.reasoning
        assert model.chat(replace(QUESTION, choices=("red", "blue"))).text in ("red", "blue")
    finally:
        model.close()


def test_tokens_and_texts(model: LlamaModel) -> None:
    found = model.tokenize("The capital of France is")
    assert len(found["tokens"]) == len(found["pieces"]) == 5
    assert "".join(found["pieces"]) == "The capital of France is"
    assert model.detokenize(found["tokens"]) == "The capital of France is"
    assert len(model.tokenize("<|im_end|>", controls=True)["tokens"]) == 1
    assert len(model.tokenize("<|im_end|>")["tokens"]) > 1
    prompt = model.render(QUESTION.messages)
    assert "Name three colours." in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


def test_many_conversations_at_once_say_what_each_says_alone(model: LlamaModel) -> None:
    requests = [raw(f"{number}, {number + 1}, {number + 2},", max_tokens=12) for number in range(8)]
    alone = [model.chat(request).text for request in requests]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda request: model.chat(request).text, requests))
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    assert same >= 7, list(zip(alone, together, strict=True))
