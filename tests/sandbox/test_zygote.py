"""Lines to real children: what they send is a stranger's, and their end is sure."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentd.errors import BadInput, SandboxUnavailable
from agentd.sandbox.job import Limits
from agentd.sandbox.zygote import (
    MAX_FRAME,
    Line,
    LineClosed,
    LineFull,
    LineSilent,
    Nursery,
    Zygote,
    packed,
    parsed,
)

INSIDE = Path(__file__).parent / "inside"
LIMITS = Limits(seconds=5.0, memory_mb=64)


def nurseries() -> list[psutil.Process]:
    """Zygotes of this process, and what is left of their children: some end while one looks."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [each] if "nursery.py" in " ".join(each.cmdline()) else []
    return found


def have_ended(processes: list[psutil.Process], seconds: float = 2.0) -> bool:
    """Whether they compute no more, by then; whose parent has died may be left as a zombie for longer."""
    deadline = time.monotonic() + seconds
    while any(_lives(each) for each in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = Zygote(Nursery(handler="hostile:serve", paths=[str(INSIDE)]))
    yield made
    made.close()


def said(line: Line, entry: str, seconds: float = 5.0, **args: Any) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    line.send({"nonce": "n", "call": entry, "args": args}, deadline)
    return line.receive(deadline)


def test_children_share_nothing_but_their_birth(zygote: Zygote) -> None:
    first, second = zygote.open(LIMITS), zygote.open(LIMITS)
    assert [said(first, "echo")["result"] for _ in range(2)] == [1, 2]
    assert said(second, "echo")["result"] == 1
    assert first.gone(time.monotonic() + 1)
    first.kill()
    assert said(second, "echo")["result"] == 2
    second.kill()


@pytest.mark.parametrize("entry", ["garbage", "list", "nan", "infinite", "digits", "deep", "abyss", "half", "end"])
def test_what_is_no_frame_ends_the_talk(zygote: Zygote, entry: str) -> None:
    line = zygote.open(LIMITS)
    with pytest.raises(LineClosed):
        said(line, entry)
    line.kill()


def test_a_frame_has_a_size(zygote: Zygote) -> None:
    line = zygote.open(LIMITS)
    with pytest.raises(LineFull, match=str(MAX_FRAME)):
        said(line, "huge")
    line.kill()
    with pytest.raises(BadInput, match="bytes of JSON"):
        packed({"text": "x" * MAX_FRAME})
    for wrong in (float("nan"), object(), {1, 2}):
        with pytest.raises(BadInput, match="has to be JSON"):
            packed({"value": wrong})


def test_what_is_a_frame_is_read_as_it_was_written() -> None:
    frame = {"a": [1, 2.5, None, True, "ä€😀"], "b": {"c": 10**900}}
    assert parsed(packed(frame)[4:]) == frame


@pytest.mark.parametrize("entry", ["sleep", "loop"])
def test_nobody_is_waited_for_past_the_deadline(zygote: Zygote, entry: str) -> None:
    line = zygote.open(LIMITS)
    started = time.monotonic()
    with pytest.raises(LineSilent):
        said(line, entry, seconds=0.1)
    assert time.monotonic() - started < 0.5
    assert line.gone(time.monotonic() + 1)
    line.kill()


def test_who_does_not_listen_is_not_waited_for_either(zygote: Zygote) -> None:
    line = zygote.open(LIMITS)
    with pytest.raises(LineSilent):
        said(line, "sleep", seconds=0.1)
    started = time.monotonic()
    with pytest.raises(LineSilent):
        line.send({"text": "x" * (MAX_FRAME - 100)}, started + 0.2)
    assert time.monotonic() - started < 1.0
    line.kill()


def test_cancelling_is_quick(zygote: Zygote) -> None:
    line, cancel = zygote.open(LIMITS), threading.Event()
    line.send({"nonce": "n", "call": "loop", "args": {}}, time.monotonic() + 5)
    cancelled: list[float] = []
    timer = threading.Timer(0.1, lambda: (cancelled.append(time.monotonic()), cancel.set()))
    timer.start()
    with pytest.raises(LineSilent):
        line.receive(time.monotonic() + 10, cancel)
    assert time.monotonic() - cancelled[0] < 0.25  # 20 ms, on a machine with nothing else to do
    line.kill()


def test_a_zygote_that_died_is_started_again_and_old_lines_harm_no_new_child(zygote: Zygote) -> None:
    old = zygote.open(LIMITS)
    before = zygote.reached()
    living = nurseries()
    for each in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    assert have_ended(living)
    with pytest.raises(LineClosed):
        said(old, "echo")
    new = zygote.open(LIMITS)
    assert zygote.reached() is not before
    old.kill()  # has the number that the new child has
    assert said(new, "echo")["result"] == 1
    new.kill()


def test_closing_leaves_nobody(zygote: Zygote) -> None:
    line = zygote.open(LIMITS)
    family = nurseries()
    assert len(family) >= 2
    zygote.close()
    assert have_ended(family)
    with pytest.raises(LineClosed):
        said(line, "echo")
    line.kill()


def youngest() -> psutil.Process:
    """The child that was forked last."""
    return max(nurseries(), key=lambda each: (each.create_time(), each.pid))


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


LIMITS_OF_THE_KERNEL = {
    "Max cpu time": "100",
    "Max file size": "0",
    "Max core file size": "0",
    "Max processes": "0",
    "Max open files": "4",
}


def test_every_layer_is_there_also_where_another_one_holds_already(zygote: Zygote) -> None:
    """As the kernel tells it from outside, since from inside each of them hides that another is missing."""
    line = zygote.open(LIMITS)
    pid = youngest().pid
    told = status(pid)
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    assert {told[name] for name in ("CapInh", "CapPrm", "CapEff")} == {"0" * 16}
    limits = [re.split(r"\s{2,}", row) for row in Path(f"/proc/{pid}/limits").read_text().splitlines()]
    found = {row[0]: row[1:3] for row in limits}
    assert {name: found[name] for name in LIMITS_OF_THE_KERNEL} == {
        name: [value, value] for name, value in LIMITS_OF_THE_KERNEL.items()
    }
    memory = [int(size) for size in found["Max address space"]]
    assert memory[0] == memory[1] < (LIMITS.memory_mb + 400) << 20
    assert os.getsid(pid) == pid
    line.kill()


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root sees another's files")
def test_all_are_nobody_with_their_memory_hidden_and_one_descriptor(zygote: Zygote) -> None:
    with contextlib.ExitStack() as crowd:
        for _ in range(min(1100, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)):
            # Its sockets get numbers above those that a table of descriptors usually ends with.
            crowd.enter_context(open(os.devnull))
        lines = [zygote.open(LIMITS), zygote.open(LIMITS)]
    first, *children = [each.pid for each in nurseries()][-3:]
    for pid in (first, *children):
        assert sorted(os.listdir(f"/proc/{pid}/fd"), key=int) == ["0", "1", "2", "3"]
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {os.devnull}
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0, "its memory is root's"
        assert set(status(pid)["Uid"].split()) == set(status(pid)["Gid"].split()) == {"65534"}
        assert os.listdir(f"/proc/{pid}/root") == []
    ends = {os.readlink(f"/proc/{pid}/fd/3") for pid in (first, *children)}
    assert len(ends) == 3, "nobody has the line of another, or the daemon's"
    for line in lines:
        line.kill()


@pytest.mark.parametrize("without", [(), ("namespaces",)])
def test_when_the_zygote_dies_its_children_do(without: tuple[str, ...]) -> None:
    made = Zygote(Nursery(handler="hostile:serve", paths=[str(INSIDE)], without=without))
    line = made.open(LIMITS)
    with pytest.raises(LineSilent):
        said(line, "loop", seconds=0.1)
    eldest, *others = sorted(nurseries(), key=lambda each: (each.create_time(), each.pid))
    assert others
    eldest.kill()
    assert have_ended(others)
    line.kill()
    made.close()


def test_a_child_is_killed_with_its_family() -> None:
    made = Zygote(Nursery(handler="hostile:serve", paths=[str(INSIDE)], without=("seccomp", "rlimits", "namespaces")))
    line = made.open(LIMITS)
    child = psutil.Process(said(line, "family")["result"])
    line.kill()
    made.open(LIMITS).kill()  # the zygote does one thing after the other
    assert have_ended([child])
    made.close()


@pytest.mark.slow
def test_who_computes_for_too_long_in_its_life_is_ended_by_the_kernel(zygote: Zygote) -> None:
    line = zygote.open(Limits(seconds=0.05, memory_mb=64))
    with pytest.raises(LineClosed):
        said(line, "loop", seconds=10.0)
    line.kill()


def test_it_does_not_end_with_the_thread_that_began_it(zygote: Zygote) -> None:
    lines: list[Line] = []
    thread = threading.Thread(target=lambda: lines.append(zygote.open(LIMITS)))
    thread.start()
    thread.join()
    assert said(lines[0], "echo")["result"] == 1
    lines[0].kill()


def test_many_threads_at_once(zygote: Zygote) -> None:
    heard: list[int] = []

    def one() -> None:
        for _ in range(5):
            line = zygote.open(LIMITS)
            heard.append(said(line, "echo")["result"])
            line.kill()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [1] * 30


def test_it_says_that_it_cannot_be_started() -> None:
    broken = Zygote(Nursery(handler="no_such_module:serve"))
    with pytest.raises(SandboxUnavailable, match="cannot be started"):
        broken.open(LIMITS)
    broken.close()
    unready = Zygote(Nursery(handler="hostile:none", paths=[str(INSIDE)]))
    with pytest.raises(SandboxUnavailable, match="cannot be started"):
        unready.reached()
    unready.close()
