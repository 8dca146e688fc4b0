"""Calls as the daemon makes them: with the real guest, and with a child that lies."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentd.errors import BadInput, Cancelled, SandboxUnavailable
from agentd.sandbox.job import Limit, Limits, Program, RequestRefused
from agentd.sandbox.os_executor import OsExecutor, OsSandbox
from agentd.sandbox.zygote import MAX_FRAME, Nursery
from agentd.types import JsonObject

INSIDE = Path(__file__).parent / "inside"
LIMITS = Limits(seconds=5.0, memory_mb=64, requests=10)


def nurseries() -> list[psutil.Process]:
    """Zygotes of this process, and what is left of their children: some end while one looks."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found += [each] if "nursery.py" in " ".join(each.cmdline()) else []
    return found


@pytest.fixture(scope="module")
def executor() -> Iterator[OsExecutor]:
    made = OsExecutor()
    yield made
    made.close()


@pytest.fixture(scope="module")
def lying() -> Iterator[OsExecutor]:
    made = OsExecutor(Nursery(handler="hostile:serve", paths=[str(INSIDE)]))
    yield made
    made.close()


@pytest.fixture
def liar(lying: OsExecutor) -> Iterator[OsSandbox]:
    sandbox = lying.open(Program(source=""), LIMITS)
    yield sandbox
    sandbox.close()


def opened(executor: OsExecutor, source: str, grants: str = "", limits: Limits = LIMITS) -> OsSandbox:
    return executor.open(Program(source=source, grants=frozenset(grants.split())), limits)


def test_a_call_and_the_next_one_share_their_memory(executor: OsExecutor) -> None:
    source = "seen = []\n\n\ndef note(x):\n    seen.append(x)\n    print('noted', x)\n    return seen\n"
    sandbox = opened(executor, source)
    first, second = sandbox.call("note", {"x": 1}), sandbox.call("note", {"x": "ä"})
    assert (first.ok, first.result, first.printed) == (True, [1], "noted 1\n")
    assert second.result == [1, "ä"]
    assert 0 < second.seconds < 1
    sandbox.close()
    assert sandbox.call("note", {"x": 3}).result == [3]
    sandbox.close()


def test_an_error_of_the_program_is_told_and_costs_no_child(executor: OsExecutor) -> None:
    sandbox = opened(executor, "calls = []\n\n\ndef f(x):\n    calls.append(x)\n    return len(calls) // x\n")
    failed = sandbox.call("f", {"x": 0})
    assert (failed.ok, failed.limit) == (False, None)
    assert "ZeroDivisionError" in failed.error
    assert sandbox.call("f", {"x": 1}).result == 2
    sandbox.close()


def test_time_ends_a_call_and_the_next_one_starts_anew(executor: OsExecutor) -> None:
    source = "def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return total\n"
    sandbox = opened(executor, source, limits=Limits(seconds=0.3, memory_mb=64))
    ended = sandbox.call("f", {"n": 10**12})
    assert (ended.ok, ended.limit) == (False, Limit.TIME)
    assert 0.3 <= ended.seconds < 0.8
    assert "0.3 s" in ended.error
    assert sandbox.call("f", {"n": 3}).result == 3
    sandbox.close()


def test_memory_ends_a_call(executor: OsExecutor) -> None:
    sandbox = opened(executor, "def f(n):\n    return len([0] * n)\n")
    ended = sandbox.call("f", {"n": 10**8})
    assert (ended.ok, ended.limit) == (False, Limit.MEMORY)
    sandbox.close()


def test_a_call_that_is_cancelled_ends_at_once(executor: OsExecutor) -> None:
    source = "def f():\n    total = 0\n    for i in range(10**12):\n        total += i\n    return total\n"
    sandbox, cancel, set_at = opened(executor, source), threading.Event(), [0.0]

    def stop() -> None:
        set_at[0] = time.monotonic()
        cancel.set()

    threading.Timer(0.2, stop).start()
    with pytest.raises(Cancelled):
        sandbox.call("f", {}, cancel=cancel)
    assert time.monotonic() - set_at[0] < 0.25
    sandbox.close()


def test_what_it_asks_for_is_answered_by_the_broker_alone(executor: OsExecutor) -> None:
    asked: list[tuple[str, JsonObject]] = []

    def broker(name: str, args: JsonObject) -> Any:
        asked.append((name, dict(args)))
        if args["path"] == "secret":
            raise RequestRefused("secret is not declared", kind="PermissionError")
        if args["path"] == "large":
            return "x" * MAX_FRAME
        return f"text of {args['path']}"

    source = (
        "import files\n\n\ndef f(path):\n    try:\n        return files.read_text(path)\n"
        "    except PermissionError as error:\n        return 'refused: ' + str(error)\n"
        "    except OSError as error:\n        return 'failed: ' + str(error)[:40]\n"
    )
    sandbox = opened(executor, source, "files")
    assert sandbox.call("f", {"path": "a"}, broker=broker).result == "text of a"
    assert sandbox.call("f", {"path": "secret"}, broker=broker).result == "refused: secret is not declared"
    assert sandbox.call("f", {"path": "large"}, broker=broker).result.startswith("failed: what a sandbox is told has")
    assert str(sandbox.call("f", {"path": "a"}).result).startswith("refused")
    assert [args["path"] for _, args in asked] == ["a", "secret", "large"]
    sandbox.close()


def test_a_broker_that_fails_leaves_no_child_in_the_middle_of_a_call(liar: OsSandbox) -> None:
    def broker(name: str, args: JsonObject) -> Any:
        raise LookupError(name)

    assert liar.call("echo", {}).result == 1
    with pytest.raises(LookupError):
        liar.call("many", {"count": 1}, broker=broker)
    assert liar.call("echo", {}).result == 1


@pytest.mark.parametrize(("count", "limit"), [(10, None), (11, Limit.CALLS)])
def test_requests_are_counted(liar: OsSandbox, count: int, limit: Limit | None) -> None:
    answered: list[str] = []

    def broker(name: str, args: JsonObject) -> Any:
        answered.append(name)
        return None

    ended = liar.call("many", {"count": count}, broker=broker)
    assert (ended.ok, ended.limit) == (limit is None, limit)
    assert len(answered) == 10


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ("garbage", Limit.CRASH),
        ("deep", Limit.CRASH),
        ("half", Limit.CRASH),
        ("forged", Limit.CRASH),
        ("end", Limit.CRASH),
        ("huge", Limit.OUTPUT),
        ("flood", Limit.CALLS),
    ],
)
def test_a_child_that_lies_is_ended(liar: OsSandbox, entry: str, limit: Limit) -> None:
    ended = liar.call(entry, {})
    assert (ended.ok, ended.limit) == (False, limit)
    assert ended.result is None
    assert liar.call("echo", {}).result == 1, "another child answers"


@pytest.mark.parametrize(("room", "limit"), [(2010, None), (2000, Limit.OUTPUT)])
def test_how_much_it_says_is_measured_outside(lying: OsExecutor, room: int, limit: Limit | None) -> None:
    sandbox = opened(lying, "", limits=Limits(seconds=5.0, memory_mb=64, output_bytes=room))
    ended = sandbox.call("much", {})
    assert (ended.ok, ended.limit) == (limit is None, limit)
    assert len(ended.printed) == (1000 if limit is None else 0)
    sandbox.close()


def test_an_answer_that_was_prepared_is_no_answer(liar: OsSandbox) -> None:
    assert liar.call("twice", {}).ok
    assert liar.call("echo", {}).limit is Limit.CRASH


def test_arguments_that_are_no_frame_are_refused_before_anybody_sees_them(executor: OsExecutor) -> None:
    sandbox = opened(executor, "calls = []\n\n\ndef f(x):\n    calls.append(x)\n    return calls\n")
    assert sandbox.call("f", {"x": 1}).result == [1]
    for wrong in (float("nan"), "x" * MAX_FRAME, object()):
        with pytest.raises(BadInput):
            sandbox.call("f", {"x": wrong})
    assert sandbox.call("f", {"x": 2}).result == [1, 2]
    sandbox.close()


@pytest.mark.slow
def test_a_warm_child_is_not_ended_for_what_earlier_calls_computed(executor: OsExecutor) -> None:
    source = "def f():\n    total = 0\n    for i in range(300_000):\n        total += i\n    return total\n"
    sandbox = opened(executor, source, limits=Limits(seconds=1.0, memory_mb=64))
    started = time.monotonic()
    while time.monotonic() - started < 4:
        assert sandbox.call("f", {}).ok
    sandbox.close()


@pytest.mark.slow
def test_who_is_ended_for_computing_met_a_limit_of_time(executor: OsExecutor) -> None:
    source = "def f():\n    total = 0\n    for i in range(100_000):\n        total += i\n    return total\n"
    sandbox = opened(executor, source, limits=Limits(seconds=0.1, memory_mb=64))
    until = time.monotonic() + 20
    while (ended := sandbox.call("f", {})).ok:
        assert time.monotonic() < until
    assert ended.limit is Limit.TIME
    sandbox.close()


def test_a_verdict_of_the_gate_is_under_its_nonce(lying: OsExecutor) -> None:
    assert lying.check(b"echo", frozenset()) == {"violations": [], "entries": ["f"], "imports": []}
    assert lying.check(b"forged", frozenset())["violations"][0]["rule"] == "checker"


def test_the_gate_answers(executor: OsExecutor) -> None:
    good = executor.check(b"def f(x):\n    return x\n", frozenset())
    assert good == {"violations": [], "entries": ["f"], "imports": []}
    bad = executor.check(b"import os\n", frozenset())
    assert bad["violations"][0]["line"] == 1
    large = executor.check(b"x = 1\n" * 400_000, frozenset())
    assert large["violations"][0]["rule"] == "checker"


def test_where_children_are_not_held_nothing_runs() -> None:
    executor = OsExecutor(Nursery(without=["seccomp"]))
    with pytest.raises(SandboxUnavailable, match="does not hold"):
        opened(executor, "def f():\n    return 1\n")
    with pytest.raises(SandboxUnavailable):
        executor.check(b"", frozenset())
    assert executor.level == "none"
    executor.close()


def test_each_zygote_is_tested_once(executor: OsExecutor) -> None:
    first = executor.self_test()
    assert executor.self_test() is first
    assert executor.self_test(anew=True) is not first
    executor.close()
    assert executor.self_test().reached is not first.reached


def test_the_child_of_another_zygote_is_not_used_before_that_one_was_tested() -> None:
    executor = OsExecutor()
    sandbox = opened(executor, "def f():\n    return 1\n")
    before = executor.self_test()
    living = nurseries()
    for each in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(living, 2)
    line = executor.line(LIMITS)
    assert before.reached.control is not line.control
    assert executor._tested is not None
    assert executor._tested.reached.control is line.control
    line.kill()
    sandbox.close()
    executor.close()
