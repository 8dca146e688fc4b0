"""Calls in the sandbox and the static gate, in both executors; beside them, in the same run, a start of Python."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agentd.plugins.proof import CheckingExecutor
from agentd.sandbox.job import Limits, Program, Sandbox
from agentd.sandbox.os_executor import OsExecutor
from agentd.sandbox.wasm_executor import WasmExecutor

LIMITS_MS = {"fresh call": 10.0, "warm call": 1.0, "static check of 200 lines": 300.0}
PROGRAM = Program(source="def add(a, b):\n    return a + b\n")
FUNCTION = '''
def step_{n}(values):
    """Sum the even ones, and say how many were odd."""
    total = 0
    odd = 0
    for value in values:
        if value % 2 == 0:
            total += value
        else:
            odd += 1
    return {{"total": total, "odd": odd, "step": {n}}}
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="of each; a tenth of it for the check and the start")
    parser.add_argument("--no-wasm", action="store_true", help="leave WebAssembly out, whose component takes a while")
    options = parser.parse_args()
    slow = os_figures(options.rounds)
    if not options.no_wasm:
        wasm_figures(options.rounds)
    if slow:
        sys.exit(1)


def os_figures(rounds: int) -> bool:
    """Print them; whether one is beyond its limit."""
    executor = OsExecutor()
    try:
        tested = executor.self_test()
        print(f"level {tested.level}; self-test of {len(tested.probes)} probes in {1000 * tested.seconds:.0f} ms")
        found = measured(executor, rounds)
    finally:
        executor.close()
    start = _median(_started, max(5, rounds // 10))
    print(f"{'plain python -I -S -c pass':28}{start:9.2f} ms")
    for name, ms in found.items():
        verdict = "ok" if ms <= LIMITS_MS[name] else "TOO SLOW"
        print(f"{name:28}{ms:9.2f} ms   {ms / start:6.3f} of a start   limit {LIMITS_MS[name]:g} ms: {verdict}")
    return any(ms > LIMITS_MS[name] for name, ms in found.items())


def wasm_figures(rounds: int) -> None:
    """There is no limit for these: they are what a machine without Linux's walls has."""
    with tempfile.TemporaryDirectory() as folder:
        executor = WasmExecutor(Path(folder) / "wasm")
        try:
            started = time.perf_counter()
            level = executor.level
            print(f"level {level}; built once in {time.perf_counter() - started:.1f} s")
            for name, ms in measured(executor, rounds).items():
                print(f"{name:28}{ms:9.2f} ms")
        finally:
            executor.close()


def measured(executor: CheckingExecutor, rounds: int) -> dict[str, float]:
    """Medians in milliseconds."""
    warm = executor.open(PROGRAM, Limits())
    few = max(5, rounds // 10)
    try:
        _called(warm)
        return {
            "fresh call": _median(lambda: _fresh(executor), rounds),
            "warm call": _median(lambda: _called(warm), rounds * 10),
            "static check of 200 lines": _median(lambda: _checked(executor), few),
        }
    finally:
        warm.close()


def _median(do: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        do()
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


def _started() -> None:
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)


def _fresh(executor: CheckingExecutor) -> None:
    sandbox = executor.open(PROGRAM, Limits())
    _called(sandbox)
    sandbox.close()


def _called(sandbox: Sandbox) -> None:
    ended = sandbox.call("add", {"a": 1, "b": 2})
    assert ended.result == 3, ended


def _checked(executor: CheckingExecutor) -> None:
    source = "".join(FUNCTION.format(n=n) for n in range(18))
    assert 195 <= source.count("\n") <= 210
    found = executor.check(source.encode(), frozenset())
    assert found["violations"] == [], found


if __name__ == "__main__":
    main()
