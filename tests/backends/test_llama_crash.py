"""What happens when the model's process dies, hangs or loses its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agentd.backends import llama_cpp
from agentd.backends.devices import Devices
from agentd.backends.fit import Wanted
from agentd.backends.llama_cpp import LlamaModel
from agentd.errors import ModelError
from agentd.events import EventKind
from agentd.types import Delta, JsonObject, ModelProfile, ModelReply, ModelRequest, OnDelta

LONG = ModelRequest(prompt="1, 2, 3,", max_tokens=900)
SHORT = ModelRequest(prompt="1, 2, 3,", max_tokens=2)


def at_third_part(action: Callable[[], None]) -> OnDelta:
    heard: list[Delta] = []

    def hear(delta: Delta) -> None:
        heard.append(delta)
        if len(heard) == 3:
            action()

    return hear


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def one_at_a_time(gguf: Path) -> LlamaModel:
    return LlamaModel(gguf, name="m", profile=ModelProfile(), wanted=Wanted(context=1024, sequences=1))


def signal_of(model: LlamaModel, number: signal.Signals) -> Callable[[], None]:
    def act() -> None:
        assert model.pid is not None
        os.kill(model.pid, number)

    return act


def test_killed_in_the_middle_of_a_reply(own_model: LlamaModel) -> None:
    first = own_model.start()["pid"]
    with pytest.raises(ModelError, match=rf"model process died: smollm2 \(pid {first}\): it was ended by signal 9"):
        own_model.chat(LONG, at_third_part(signal_of(own_model, signal.SIGKILL)))
    assert own_model.pid is None
    assert own_model.chat(SHORT).completion_tokens == 2
    assert own_model.pid not in (None, first)


def test_others_who_wait_are_served_by_the_next_process(gguf: Path) -> None:
    own_model = one_at_a_time(gguf)
    own_model.start()
    said: list[str] = []
    waiting = [threading.Thread(target=lambda: said.append(own_model.chat(SHORT).text)) for _ in range(2)]

    def act() -> None:
        for thread in waiting:
            thread.start()
        time.sleep(0.1)
        signal_of(own_model, signal.SIGKILL)()

    with pytest.raises(ModelError, match="died"):
        own_model.chat(LONG, at_third_part(act))
    for thread in waiting:
        thread.join()
    own_model.close()
    assert len(said) == 2


def test_killed_between_two_requests(own_model: LlamaModel) -> None:
    first = own_model.start()["pid"]
    os.kill(first, signal.SIGKILL)
    while own_model.pid is not None:
        time.sleep(0.01)
    assert own_model.chat(SHORT).text
    assert own_model.pid != first


def test_a_process_that_hangs_is_killed(gguf: Path) -> None:
    model = LlamaModel(gguf, name="m", profile=ModelProfile(context=1024), stall=1.0)
    try:
        first = model.start()["pid"]
        started = time.monotonic()
        with pytest.raises(ModelError, match="no sign of life for 1 s and was killed"):
            model.chat(LONG, at_third_part(signal_of(model, signal.SIGSTOP)))
        assert time.monotonic() - started < 6
        assert gone(first)
        assert model.chat(SHORT).text
    finally:
        model.stop()


def test_one_that_always_dies_is_left_alone(own_model: LlamaModel) -> None:
    for _ in range(llama_cpp.CRASHES_IN_A_ROW):
        with pytest.raises(ModelError, match="model process died"):
            own_model.chat(LONG, at_third_part(signal_of(own_model, signal.SIGKILL)))
    with pytest.raises(ModelError, match="died 3 times in a row and is not started again for now"):
        own_model.chat(SHORT)
    own_model.start()
    assert own_model.chat(SHORT).text


def test_stopping_gives_the_memory_back(own_model: LlamaModel) -> None:
    facts = own_model.start()
    assert facts["rss_bytes"] > 100_000_000
    own_model.stop()
    assert gone(facts["pid"])
    assert own_model.pid is None
    own_model.stop()
    assert own_model.chat(SHORT).text, "it starts again when it is needed"


def test_stopping_while_it_speaks(own_model: LlamaModel) -> None:
    with pytest.raises(ModelError, match="was stopped"):
        own_model.chat(LONG, at_third_part(lambda: threading.Thread(target=own_model.stop).start()))
    assert own_model.starts == 1


def test_put_away_for_good_also_for_those_who_wait(gguf: Path) -> None:
    own_model = one_at_a_time(gguf)
    pid = own_model.start()["pid"]
    refused: list[str] = []

    def wait() -> None:
        try:
            own_model.chat(SHORT)
        except ModelError as error:
            refused.append(error.message)

    waiting = threading.Thread(target=wait)

    def act() -> None:
        waiting.start()
        time.sleep(0.05)
        threading.Thread(target=own_model.close).start()

    with pytest.raises(ModelError, match="was stopped"):
        own_model.chat(LONG, at_third_part(act))
    waiting.join()
    assert refused == ["m is put away"]
    assert gone(pid)
    assert own_model.pid is None


def test_the_process_inherits_neither_secrets_nor_files(
    own_model: LlamaModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTD_TEST_TOKEN", "secret-token")
    with (tmp_path / "private").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        process = psutil.Process(own_model.start()["pid"])
    assert "secret-token" not in process.environ().values()
    assert not any(str(tmp_path) in each.path for each in process.open_files())
    sockets = [
        name for fd in Path(f"/proc/{process.pid}/fd").iterdir() if (name := os.readlink(fd)).startswith("socket")
    ]
    assert len(sockets) == 1


def test_the_process_dies_with_its_parent(gguf: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from agentd.backends.llama_cpp import LlamaModel\n"
        "from agentd.types import Delta, JsonObject, ModelProfile, ModelReply, ModelRequest, OnDelta\n"
        "model = LlamaModel(Path(sys.argv[1]), name='m', profile=ModelProfile(context=1024))\n"
        "print(model.start()['pid'], flush=True)\n"
        "model.chat(ModelRequest(prompt='1, 2,', max_tokens=900))\n"
    )
    root = Path(llama_cpp.__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code, str(gguf)], stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def four_at_once(model: LlamaModel, act: Callable[[], None]) -> list[ModelReply | ModelError]:
    """What becomes of four requests when something happens as soon as each of them has begun to speak."""
    begun = threading.Barrier(5, timeout=60)

    def one(number: int) -> ModelReply | ModelError:
        hear = at_third_part(lambda: (begun.wait(), None)[1])
        try:
            return model.chat(replace(LONG, prompt=f"{number}, 1, 2, 3,"), hear)
        except ModelError as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(one, number) for number in range(4)]
        begun.wait()
        act()
        return [each.result() for each in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "signal 9"), (signal.SIGSTOP, "no sign of life"), (signal.SIGSEGV, "signal 11")],
)
def test_four_replies_at_once_and_the_process_goes(gguf: Path, number: signal.Signals, words: str) -> None:
    model = LlamaModel(gguf, name="m", profile=ModelProfile(), wanted=Wanted(context=1024, sequences=4), stall=2.0)
    try:
        before = model.chat(SHORT).text
        pid = model.pid
        found = four_at_once(model, signal_of(model, number))
        assert all(isinstance(each, ModelError) and words in each.message for each in found), found
        assert pid is not None
        assert gone(pid)
        assert model.chat(SHORT).text == before
        assert model.starts == 2
    finally:
        model.close()


@pytest.mark.slow
def test_too_little_memory_for_the_plan_takes_a_smaller_one(gguf: Path, tmp_path: Path) -> None:
    """The address space of the real process is limited, so that its first plans cannot be had."""
    script = tmp_path / "limited.py"
    script.write_text(
        "import resource, runpy, sys\n"
        "import llama_cpp, numpy, llguidance, jinja2\n"
        "from agentd.backends.devices import here\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "most = used + 1_400_000_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "runpy.run_module('agentd.backends.llama.worker', run_name='__main__', alter_sys=True)\n"
    )
    told: list[tuple[EventKind, JsonObject]] = []
    model = LlamaModel(
        gguf,
        name="m",
        profile=ModelProfile(),
        wanted=Wanted(context=8192),
        devices=lambda: Devices(ram_total=64 * 10**9, ram_free=60 * 10**9, cores=1),
        tell=lambda kind, facts: told.append((kind, facts)),
        worker=(sys.executable, "-P", str(script)),
    )
    try:
        assert model.chat(SHORT).completion_tokens == 2
        assert model.plan is not None
        assert model.plan.cells < 8 * 8192
        assert told[0][0] is EventKind.MODEL_SHRUNK
        assert told[-1][0] is EventKind.MODEL_LOADED
    finally:
        model.close()
