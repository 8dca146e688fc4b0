"""Many requests at once in one process: what each hears, and what happens to all when the process goes wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest

from agentd.backends import llama_cpp, llama_process
from agentd.backends.devices import Devices
from agentd.backends.fit import Wanted
from agentd.backends.llama_cpp import LlamaModel
from agentd.errors import Busy, Cancelled, ModelError, OutOfMemory, TooSlow, WorkerDied
from agentd.events import EventKind
from agentd.types import Delta, FunctionCall, JsonObject, Message, ModelProfile, ModelRequest

SCRIPT = Path(__file__).parent / "strange_worker.py"
ROOMY = Devices(ram_total=16 * 1024**3, ram_free=12 * 1024**3, cores=1)
Told: TypeAlias = list[tuple[EventKind, JsonObject]]
Make: TypeAlias = Callable[..., LlamaModel]


@pytest.fixture
def make(gguf: Path) -> Iterator[Make]:
    made: list[LlamaModel] = []

    def make(mode: str = "", *, told: Told | None = None, stall: float = 30.0, sequences: int = 8) -> LlamaModel:
        model = LlamaModel(
            gguf,
            name="m",
            profile=ModelProfile(),
            wanted=Wanted(context=1024, sequences=sequences),
            devices=lambda: ROOMY,
            stall=stall,
            tell=None if told is None else lambda kind, facts: told.append((kind, facts)),
            worker=(sys.executable, "-P", str(SCRIPT), mode),
        )
        made.append(model)
        return model

    yield make
    for model in made:
        model.close()


def ask(prompt: str, **more: object) -> ModelRequest:
    return replace(ModelRequest(prompt=prompt, timeout=20.0), **more)  # type: ignore[arg-type]


def outcomes(model: LlamaModel, requests: list[ModelRequest], act: Callable[[], object] = bool) -> list[object]:
    """The reply or the error of each; `act` is done when all have begun to hear something."""
    begun = threading.Barrier(len(requests) + 1, timeout=20)

    def one(request: ModelRequest) -> object:
        heard: list[Delta] = []

        def hear(delta: Delta) -> None:
            heard.append(delta)
            if len(heard) == 1:
                begun.wait()

        try:
            return model.chat(request, hear).text
        except (ModelError, Cancelled) as error:
            return error

    with ThreadPoolExecutor(len(requests)) as threads:
        found = [threads.submit(one, request) for request in requests]
        begun.wait()
        act()
        return [each.result() for each in found]


def end(model: LlamaModel, number: signal.Signals) -> None:
    assert model.pid is not None
    os.kill(model.pid, number)


def test_requests_are_computed_together_and_each_hears_its_own(make: Make) -> None:
    texts = [f"{number} says something of its own" for number in range(8)]
    assert outcomes(make(), [ask(f"together 8 {text}") for text in texts]) == texts


def test_more_requests_than_places_wait_for_one(make: Make) -> None:
    model = make(sequences=2)
    texts = [f"number {number}" for number in range(40)]
    with ThreadPoolExecutor(40) as threads:
        assert list(threads.map(lambda text: model.chat(ask(f"say {text}")).text, texts)) == texts
    assert model.waiting == 0


def test_too_many_are_refused_politely(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(sequences=1)
    model.start()
    monkeypatch.setattr(model._turns, "_longest_line", 3)
    cancel = threading.Event()

    def one(prompt: str) -> object:
        try:
            return model.chat(ask(prompt), None, cancel).text
        except (ModelError, Cancelled) as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(one, "begin") for _ in range(4)]
        while model.waiting < 3:
            time.sleep(0.01)
        refused = [one("say hello") for _ in range(3)]
        cancel.set()
        assert all(isinstance(each.result(), Cancelled) for each in found)
    assert all(isinstance(each, Busy) and (each.retry_after or 0) >= 1 for each in refused)
    assert model.chat(ask("say hello")).text == "hello"


def test_killed_in_the_middle_of_four(make: Make) -> None:
    model = make()
    for starts in (1, 2, 3):
        found = outcomes(model, [ask("begin")] * 4, lambda: end(model, signal.SIGKILL))
        assert [type(each) for each in found] == [WorkerDied] * 4
        assert all("it was ended by signal 9" in str(each) for each in found)
        assert all(isinstance(each, WorkerDied) and each.sent and each.retryable for each in found)
        assert model.starts == starts, "four deaths of one process count once"
        assert model.chat(ask("say again")).text == "again"


def test_one_that_always_dies_is_left_alone_until_it_is_started(make: Make) -> None:
    model = make()
    for _ in range(llama_cpp.CRASHES_IN_A_ROW):
        outcomes(model, [ask("begin")] * 2, lambda: end(model, signal.SIGKILL))
    with pytest.raises(ModelError, match="died 3 times in a row and is not started again for now"):
        model.chat(ask("say no"))
    model.start()
    assert model.chat(ask("say yes")).text == "yes"


def test_stopped_in_the_middle_of_four(make: Make) -> None:
    model = make(stall=0.7)
    model.start()
    pid = model.pid
    found = outcomes(model, [ask("begin")] * 4, lambda: end(model, signal.SIGSTOP))
    assert all(isinstance(each, WorkerDied) and "no sign of life" in each.message for each in found)
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert model.chat(ask("say again")).text == "again"


def test_a_process_that_is_busy_is_not_taken_for_dead(make: Make) -> None:
    model = make(stall=0.5)
    cancel = threading.Event()
    threading.Timer(1.2, cancel.set).start()
    with pytest.raises(Cancelled):
        model.chat(ask("begin"), None, cancel)
    assert model.starts == 1


def test_cancelling_one_disturbs_no_other(make: Make) -> None:
    model = make()
    cancel = threading.Event()
    gone: list[float] = []

    def leave() -> None:
        started = time.monotonic()
        with pytest.raises(Cancelled):
            model.chat(ask("begin"), lambda _: cancel.set(), cancel)
        gone.append(time.monotonic() - started)

    leaving = threading.Thread(target=leave)
    leaving.start()
    texts = [f"text {number}" for number in range(4)]
    assert outcomes(model, [ask(f"together 4 {text}") for text in texts]) == texts
    leaving.join()
    assert gone[0] < 5
    assert model.starts == 1


def test_the_time_of_one_is_over(make: Make) -> None:
    model = make()
    with pytest.raises(TooSlow, match=r"was not done after 0\.3 s") as late:
        model.chat(ask("begin", timeout=0.3))
    assert not late.value.retryable
    assert model.chat(ask("say on")).text == "on"
    assert model.starts == 1


def test_waiting_for_a_place_counts_as_time(make: Make) -> None:
    model = make(sequences=1)
    model.start()
    cancel = threading.Event()

    def hold() -> None:
        with pytest.raises(Cancelled):
            model.chat(ask("begin"), None, cancel)

    first = threading.Thread(target=hold)
    first.start()
    while not model._turns.held:
        time.sleep(0.01)
    with pytest.raises(TooSlow, match=r"was busy with other requests for 0\.2 s"):
        model.chat(ask("say x", timeout=0.2))
    cancel.set()
    first.join()


def test_one_that_does_not_obey_is_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_process, "_CANCEL_LIMIT", 0.5)
    model = make()
    with pytest.raises(WorkerDied, match="did not end a cancelled request"):
        model.chat(ask("deaf", timeout=0.2))
    assert model.chat(ask("say again")).text == "again"


def test_a_listener_that_fails_is_alone_with_it(make: Make) -> None:
    model = make()

    def fail(delta: Delta) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.chat(ask("begin"), fail)
    heard: list[str] = []
    assert model.chat(ask("say mine"), lambda delta: heard.append(delta.text)).text == "mine"
    assert heard == list("mine")
    assert model.starts == 1


@pytest.mark.parametrize(("prompt", "words"), [("garbage", "a frame says that it has"), ("nonsense", "nonsense")])
def test_what_is_no_reply_is_never_given_out_as_one(make: Make, prompt: str, words: str) -> None:
    model = make()
    with pytest.raises(WorkerDied, match=words):
        model.chat(ask(prompt))
    assert model.chat(ask("say again")).text == "again"


def test_closed_in_the_middle_of_four(make: Make) -> None:
    model = make()
    found = outcomes(model, [ask("begin")] * 4, model.close)
    assert all(isinstance(each, WorkerDied) and "was stopped" in each.message for each in found)
    with pytest.raises(ModelError, match="is put away"):
        model.chat(ask("say no"))


@pytest.mark.parametrize("how", ["cells", "bad_alloc", "oom_killer"])
def test_out_of_memory_at_load_takes_the_next_smaller_plan(make: Make, how: str) -> None:
    told: Told = []
    model = make(f"{how}=2048", told=told)
    assert model.chat(ask("say hello")).text == "hello"
    assert model.plan is not None
    assert model.plan.cells == 2048
    assert model.plan.context == 1024, "what was asked for stays"
    assert [kind for kind, _ in told] == [EventKind.MODEL_SHRUNK, EventKind.MODEL_SHRUNK, EventKind.MODEL_LOADED]
    assert "8 at once" in told[0][1]["from"]
    assert "4 at once" in told[0][1]["to"]
    assert told[-1][1]["plan"] == model.plan.why


def test_when_nothing_smaller_is_left_it_says_so_and_the_next_request_tries_again(make: Make) -> None:
    model = make("cells=10")
    for _ in range(2):
        with pytest.raises(OutOfMemory, match="1024 cells do not fit"):
            model.chat(ask("say hello"))
    assert model.pid is None


def test_a_process_that_breaks_at_load_is_not_tried_for_ever(make: Make) -> None:
    model = make("broken")
    for _ in range(llama_cpp.CRASHES_IN_A_ROW):
        with pytest.raises(WorkerDied, match="exit code 3 while it loaded"):
            model.chat(ask("say hello"))
    with pytest.raises(ModelError, match="not started again for now"):
        model.chat(ask("say hello"))
    assert model.starts == llama_cpp.CRASHES_IN_A_ROW


def test_who_loses_patience_with_a_load_need_not_wait_for_it(make: Make) -> None:
    model = make("slow")
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        model.chat(ask("say hello"), None, cancel)
    assert time.monotonic() - started < 5
    assert model.pid is None


def test_one_that_does_not_fit_is_not_even_started(gguf: Path) -> None:
    tiny = Devices(ram_total=1024**3, ram_free=200_000_000, cores=1)
    model = LlamaModel(gguf, name="m", profile=ModelProfile(), devices=lambda: tiny)
    with pytest.raises(OutOfMemory, match=r"m: the model does not fit: .* are missing"):
        model.chat(ask("x"))
    assert model.starts == 0


def test_many_first_requests_load_it_once(make: Make) -> None:
    model = make()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: model.chat(ask("say one")).text, range(8))) == {"one"}
    assert model.starts == 1


def test_the_load_says_what_was_planned(make: Make, tmp_path: Path) -> None:
    model = make(f"log={tmp_path / 'log'}")
    model.start()
    spec = json.loads((tmp_path / "log").read_text())
    assert (spec["context"], spec["sequences"], spec["cells"], spec["unified"]) == (1024, 8, 8192, False)
    assert (spec["gpu_layers"], spec["kv_type"], spec["threads"], spec["threads_batch"]) == (0, "f16", 1, 1)
    assert (spec["loras"], spec["states"], spec["embedding"]) == ([], None, False)
    assert model.load_seconds == 1.5


def test_a_request_goes_over_the_wire_whole(make: Make) -> None:
    call = FunctionCall(id="c1", name="look", arguments='{"at": "x"}')
    request = ModelRequest(
        messages=(
            Message(role="user", content="look", name="ann"),
            Message(role="assistant", content="", tool_calls=(call,)),
            Message(role="tool", content="nothing", tool_call_id="c1"),
        ),
        max_tokens=0,
        top_k=3,
        min_p=0.1,
        logit_bias={5: -100.0},
        ignore_eos=True,
        logprobs=1,
        stop=("x",),
    )
    frame = json.loads(make().chat(request).text)
    assert frame["messages"] == [
        {"role": "user", "content": "look", "name": "ann"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}],
        },
        {"role": "tool", "content": "nothing", "tool_call_id": "c1"},
    ]
    wanted = {"op": "generate", "max_tokens": 1, "top_k": 3, "min_p": 0.1, "logit_bias": {"5": -100.0}, "stop": ["x"]}
    assert wanted.items() <= frame.items()
    assert (frame["ignore_eos"], frame["logprobs"], frame["priority"], frame["stream"]) == (
        True,
        1,
        "interactive",
        False,
    )


def test_log_probabilities_and_what_was_remembered(make: Make) -> None:
    reply = make().chat(ask("say x"))
    (token,) = reply.logprobs
    assert (token.token, token.logprob, token.bytes, token.id) == ("x", -0.5, (120,), 7)
    assert (token.top, token.top_ids) == ((("x", -0.5), ("y", -1.5)), (7, 8))
    assert reply.reused_tokens == 3
