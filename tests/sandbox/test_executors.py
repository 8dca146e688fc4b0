"""What holds for every executor: the same calls, with the same answers."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import BadInput, Cancelled
from agentd.plugins.proof import CheckingExecutor
from agentd.sandbox.job import Limit, Limits, Program, RequestRefused, Sandbox
from agentd.sandbox.os_executor import OsExecutor
from agentd.sandbox.zygote import MAX_FRAME
from agentd.types import JsonObject
from tests.plugins.corpus.language_escapes import ESCAPES, MARK

LIMITS = Limits(seconds=5.0, memory_mb=64, requests=10)
GOOD = sorted((Path(__file__).parents[1] / "plugins" / "corpus" / "good").glob("*.py"))
COUNTING = "def f(n=10 ** 12):\n    total = 0\n    for i in range(n):\n        total += i\n    return total\n"
LEAKS = (MARK, "canary", "<module", "'__builtins__'", "<frame", "<code", "<class 'type'>", "agentd", "site-packages")


@pytest.fixture(scope="module")
def os_executor() -> Iterator[OsExecutor]:
    made = OsExecutor()
    yield made
    made.close()


@pytest.fixture(
    params=[
        pytest.param("os_executor", marks=pytest.mark.skipif(sys.platform != "linux", reason="its walls are Linux's")),
        pytest.param("wasm", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ]
)
def executor(request: pytest.FixtureRequest) -> CheckingExecutor:
    found: CheckingExecutor = request.getfixturevalue(request.param)
    return found


def opened(
    executor: CheckingExecutor, source: str, grants: str = "", limits: Limits = LIMITS, seed: int = 0
) -> Sandbox:
    return executor.open(Program(source=source, grants=frozenset(grants.split()), seed=seed), limits)


def test_it_says_what_it_is(executor: CheckingExecutor) -> None:
    assert executor.name in ("os", "wasm")
    assert executor.level.startswith(f"{executor.name}:")


def test_calls_share_their_memory_until_it_is_closed(executor: CheckingExecutor) -> None:
    source = "seen = []\n\n\ndef note(x):\n    seen.append(x)\n    print('noted', x)\n    return seen\n"
    sandbox = opened(executor, source)
    first, second = sandbox.call("note", {"x": 1}), sandbox.call("note", {"x": "ä\u2028😀"})
    assert (first.ok, first.result, first.printed) == (True, [1], "noted 1\n")
    assert second.result == [1, "ä\u2028😀"]
    assert 0 < second.seconds < 1
    sandbox.close()
    assert sandbox.call("note", {"x": 3}).result == [3]
    sandbox.close()


def test_with_a_seed_a_program_begins_anew(executor: CheckingExecutor) -> None:
    source = """
import random
from decimal import Decimal, getcontext

seen = []
DRAWN = random.random()


def note(x):
    seen.append(x)
    precision, getcontext().prec = getcontext().prec, 3
    return seen, DRAWN, random.random(), precision
"""
    sandbox = opened(executor, source)
    first, second, other = (sandbox.call("note", {"x": 1}, seed=seed).result for seed in (7, 7, 8))
    assert first == second
    assert (first[0], first[3], other[0], other[3]) == ([1], 28, [1], 28)
    assert first[1:3] != other[1:3]
    assert sandbox.call("note", {"x": 2}).result[0] == [1, 2]
    sandbox.close()


def test_what_a_failed_call_left_open_is_not_written_by_the_next(executor: CheckingExecutor) -> None:
    source = "import files\n\n\ndef f(x):\n    files.open('a', 'w').write('half')\n    return 1 // x\n"
    written: list[JsonObject] = []

    def broker(name: str, args: JsonObject) -> Any:
        written.append(args)

    sandbox = opened(executor, source, "files")
    assert not sandbox.call("f", {"x": 0}, broker=broker).ok
    assert sandbox.call("f", {"x": 1}, broker=broker).ok
    assert len(written) == 1
    sandbox.close()


def test_two_sandboxes_share_nothing(executor: CheckingExecutor) -> None:
    source = "seen = []\n\n\ndef note(x):\n    seen.append(x)\n    return seen\n"
    one, other = opened(executor, source), opened(executor, source)
    assert one.call("note", {"x": 1}).result == [1]
    assert other.call("note", {"x": 2}).result == [2]
    assert one.call("note", {"x": 3}).result == [1, 3]
    one.close()
    other.close()


def test_an_error_of_the_program_is_told_and_costs_nothing(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "calls = []\n\n\ndef f(x):\n    calls.append(x)\n    return len(calls) // x\n")
    failed = sandbox.call("f", {"x": 0})
    assert (failed.ok, failed.limit) == (False, None)
    assert "ZeroDivisionError" in failed.error
    assert sandbox.call("f", {"x": 1}).result == 2
    assert "there is no function 'g'" in sandbox.call("g", {}).error
    sandbox.close()


def test_a_program_that_does_not_load_says_so_at_each_call(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "def f():\n    return 1\n\n\nx = 1 // 0\n")
    for _ in range(2):
        assert "ZeroDivisionError" in sandbox.call("f", {}).error
    sandbox.close()


def test_time_ends_a_call_and_the_next_one_starts_anew(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, COUNTING, limits=Limits(seconds=0.3, memory_mb=64))
    ended = sandbox.call("f", {})
    assert (ended.ok, ended.limit) == (False, Limit.TIME)
    assert 0.3 <= ended.seconds < 0.8
    assert "0.3 s" in ended.error
    assert sandbox.call("f", {"n": 3}).result == 3
    sandbox.close()


def test_a_broker_that_takes_long_takes_the_time_of_the_call(executor: CheckingExecutor) -> None:
    source = "import files\n\n\ndef f():\n    files.exists('a')\n    while True:\n        pass\n"
    sandbox = opened(executor, source, "files", Limits(seconds=0.3, memory_mb=64))

    def broker(name: str, args: JsonObject) -> Any:
        time.sleep(0.35)
        return True

    ended = sandbox.call("f", {}, broker=broker)
    assert (ended.ok, ended.limit) == (False, Limit.TIME)
    assert ended.seconds < 0.9
    sandbox.close()


CATASTROPHES = [
    (r"(a|a)*$", "a" * 40 + "b"),
    (r"(a|b|ab)*c", "ab" * 25),
    (r"(.*a){20}$", "a" * 40 + "b"),
    (r"(.*)(.*)(.*)(.*)(.*)(.*)x", "a" * 300),
    (r"^(\w+\s?)*$", "word " * 10 + "!"),
    (r"(([a-z])+.)+[A-Z]([a-z])+$", "a" * 60),
    (r"(a?){30}a{30}", "a" * 30),
    (r"(x+x+)+y", "x" * 40),
]
WAYS = ["re.search(p, t)", "re.compile(p).search(t)", "[m for m in re.finditer(p, t)]", "re.sub(p, '', t)"]


@pytest.mark.parametrize(("pattern", "text"), CATASTROPHES)
def test_a_pattern_that_tries_too_many_ways_is_ended_alone(os_executor: OsExecutor, pattern: str, text: str) -> None:
    way = WAYS[len(pattern) % len(WAYS)]
    sandbox = opened(os_executor, f"import re\n\n\ndef f(p, t):\n    found = {way}\n    return bool(found)\n")
    ended = sandbox.call("f", {"p": pattern, "t": text})
    assert (ended.ok, ended.limit, "takes more than 0.5 s" in ended.error) == (False, Limit.TIME, True), ended
    assert sandbox.call("f", {"p": "a", "t": text}).ok
    sandbox.close()


@pytest.mark.parametrize("way", [*WAYS, "re.compile(p).scanner(t).search()", "list(map(re.compile(p).match, [t]))"])
def test_every_way_to_match_has_a_clock(executor: CheckingExecutor, way: str) -> None:
    sandbox = opened(executor, f"import re\n\n\ndef f(p, t):\n    return bool({way})\n", limits=Limits(seconds=1.0))
    assert sandbox.call("f", {"p": "(a|a)*$", "t": "a" * 40 + "b"}).limit is Limit.TIME
    sandbox.close()


def test_a_match_within_a_match_takes_nobodys_time(os_executor: OsExecutor) -> None:
    source = (
        "import re\n\n\ndef f(p, t):\n"
        "    return re.sub('x', lambda found: str(len(re.findall('b', t))), 'x.x') + str(bool(re.search(p, t)))\n"
    )
    sandbox = opened(os_executor, source)
    assert sandbox.call("f", {"p": "a", "t": "abba"}).result == "2.2True"
    assert "takes more than" in sandbox.call("f", {"p": "(a|a)*$", "t": "a" * 40 + "b"}).error
    sandbox.close()


def test_memory_ends_a_call(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "def f(n):\n    return len([0] * n)\n")
    ended = sandbox.call("f", {"n": 10**8})
    assert (ended.ok, ended.limit) == (False, Limit.MEMORY)
    assert sandbox.call("f", {"n": 10**6}).result == 10**6
    sandbox.close()


def test_memory_is_there_as_far_as_it_is_given(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "def f(n):\n    return len(b'x' * n)\n", limits=Limits(memory_mb=256))
    assert sandbox.call("f", {"n": 150_000_000}).result == 150_000_000
    assert sandbox.call("f", {"n": 500_000_000}).limit is Limit.MEMORY
    sandbox.close()


def test_a_result_that_is_too_large_is_none(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "def f(n):\n    return 'x' * n\n", limits=Limits(memory_mb=64, output_bytes=10_000))
    assert sandbox.call("f", {"n": 20_000}).limit is Limit.OUTPUT
    assert len(sandbox.call("f", {"n": 5_000}).result) == 5_000
    sandbox.close()


def test_a_call_that_is_cancelled_ends_at_once(executor: CheckingExecutor) -> None:
    sandbox, cancel, set_at = opened(executor, COUNTING), threading.Event(), [0.0]

    def stop() -> None:
        set_at[0] = time.monotonic()
        cancel.set()

    threading.Timer(0.2, stop).start()
    with pytest.raises(Cancelled):
        sandbox.call("f", {}, cancel=cancel)
    assert time.monotonic() - set_at[0] < 0.25
    assert sandbox.call("f", {"n": 3}).result == 3
    sandbox.close()


def test_what_it_asks_for_is_answered_by_the_broker_alone(executor: CheckingExecutor) -> None:
    asked: list[tuple[str, JsonObject]] = []

    def broker(name: str, args: JsonObject) -> Any:
        asked.append((name, dict(args)))
        if args["path"] == "secret":
            raise RequestRefused("secret is not declared", kind="PermissionError")
        return f"text of {args['path']}" if args["path"] != "large" else "x" * MAX_FRAME

    source = (
        "import files\n\n\ndef f(path):\n    try:\n        return files.read_text(path)\n"
        "    except PermissionError as error:\n        return 'refused: ' + str(error)\n"
        "    except OSError as error:\n        return 'failed: ' + str(error)[:40]\n"
    )
    sandbox = opened(executor, source, "files")
    assert sandbox.call("f", {"path": "ä"}, broker=broker).result == "text of ä"
    assert sandbox.call("f", {"path": "secret"}, broker=broker).result == "refused: secret is not declared"
    assert sandbox.call("f", {"path": "large"}, broker=broker).result.startswith("failed: what a sandbox is told has")
    assert str(sandbox.call("f", {"path": "a"}).result).startswith("refused")
    assert [args["path"] for _, args in asked] == ["ä", "secret", "large"]
    sandbox.close()


@pytest.mark.parametrize(("count", "limit"), [(10, None), (11, Limit.CALLS)])
def test_requests_are_counted(executor: CheckingExecutor, count: int, limit: Limit | None) -> None:
    answered: list[str] = []

    def broker(name: str, args: JsonObject) -> Any:
        answered.append(name)
        return True

    source = "import files\n\n\ndef f(n):\n    return [files.exists(str(i)) for i in range(n)]\n"
    sandbox = opened(executor, source, "files")
    ended = sandbox.call("f", {"n": count}, broker=broker)
    assert (ended.ok, ended.limit) == (limit is None, limit)
    assert len(answered) == 10
    assert sandbox.call("f", {"n": 1}, broker=broker).ok
    sandbox.close()


def test_a_broker_that_fails_leaves_no_guest_in_the_middle_of_a_call(executor: CheckingExecutor) -> None:
    def broker(name: str, args: JsonObject) -> Any:
        raise LookupError(name)

    source = "import files\n\n\ndef f(path):\n    return files.exists(path) if path else 1\n"
    sandbox = opened(executor, source, "files")
    with pytest.raises(LookupError):
        sandbox.call("f", {"path": "a"}, broker=broker)
    assert sandbox.call("f", {"path": ""}).result == 1
    sandbox.close()


def test_arguments_that_are_no_frame_are_refused_before_anybody_sees_them(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "def f(x):\n    return 1\n")
    for wrong in (float("nan"), "x" * MAX_FRAME, object()):
        with pytest.raises(BadInput):
            sandbox.call("f", {"x": wrong})
    assert sandbox.call("f", {"x": 1}).ok
    sandbox.close()


def test_a_seed_gives_the_same_numbers(executor: CheckingExecutor) -> None:
    source = "import random\n\n\ndef f():\n    return [random.random(), random.randint(1, 10**9)]\n"
    drawn = []
    for seed in (1, 1, 2):
        sandbox = opened(executor, source, seed=seed)
        drawn.append(sandbox.call("f", {}).result)
        sandbox.close()
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_clock_is_that_of_this_machine(executor: CheckingExecutor) -> None:
    sandbox = opened(executor, "import time\n\n\ndef f():\n    return [time.time(), time.gmtime()[0]]\n")
    seconds, year = sandbox.call("f", {}).result
    assert abs(seconds - time.time()) < 60
    assert year == time.gmtime().tm_year
    sandbox.close()


def test_the_gate_answers(executor: CheckingExecutor) -> None:
    assert executor.check(b"def f(x):\n    return x\n", frozenset()) == {
        "violations": [],
        "entries": ["f"],
        "imports": [],
    }
    assert executor.check(b"import os\n", frozenset())["violations"][0]["line"] == 1
    assert executor.check(b"x = 1\n" * 400_000, frozenset())["violations"][0]["rule"] == "checker"
    for source in (b"(" * 60_000, b"x = " + b"-" * 60_000 + b"1", b"\xff\xfe\x00", b"a" + b".a" * 30_000):
        assert executor.check(source, frozenset())["violations"]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_plugin_does_what_it_should(executor: CheckingExecutor, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    first, _, result = source.splitlines()[0].removeprefix("# ").rpartition(" -> ")
    checked = executor.check(source.encode(), frozenset())
    assert not checked["violations"]
    sandbox = opened(executor, source, seed=1)
    ended = sandbox.call(checked["entries"][-1], json.loads(first))
    sandbox.close()
    assert (ended.ok, ended.result) == (True, json.loads(result)), ended.error


@pytest.mark.parametrize("name", ESCAPES)
def test_no_way_leads_out_of_the_language(executor: CheckingExecutor, name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.ini"
    path.write_text(f"[{MARK}]\n")
    sandbox = opened(executor, f"PATH = {str(path)!r}\n{ESCAPES[name]}", "files", Limits(seconds=2.0, memory_mb=64))
    ended = sandbox.call("run", {})
    sandbox.close()
    assert not (ended.ok and any(leak in str(ended.result) for leak in LEAKS)), ended
    assert path.read_text() == f"[{MARK}]\n"
