from __future__ import annotations

from agentd.backends.llama.pace import Pace


def pace(given: int, speeds: dict[int, float]) -> tuple[Pace, list[str]]:
    """A pace whose passes are as fast as `speeds` says for the threads of the moment (tokens a second)."""
    said: list[str] = []
    return Pace(given, 100.0, lambda threads: None, said.append), said


def run(watched: Pace, seconds: float, speeds: dict[int, float]) -> None:
    spent = 0.0
    while spent < seconds:
        watched.passed(1, 1 / speeds[watched.threads])
        spent += 1 / speeds[watched.threads]


def test_fewer_threads_are_taken_when_they_are_quicker() -> None:
    watched, said = pace(4, {})
    run(watched, 10, {4: 100.0})
    assert said == []
    run(watched, 10, {4: 5.0, 2: 80.0, 1: 50.0})
    assert watched.threads == 2
    assert said == ["2 threads decode 80.0 tokens a second, 4 5.0: going on with 2; 100.0 at load"]


def test_all_threads_come_back_when_they_are_quicker_again() -> None:
    watched, said = pace(2, {})
    run(watched, 10, {2: 2.0, 1: 90.0})
    assert watched.threads == 1
    run(watched, 40, {2: 180.0, 1: 90.0})
    assert watched.threads == 2
    assert len(said) == 2


def test_what_is_slow_anyway_stays_as_it_is() -> None:
    watched, said = pace(4, {})
    run(watched, 10, {4: 20.0, 2: 12.0})
    assert watched.threads == 4
    assert said[-1].endswith("going on with 4; 100.0 at load")
    lonely, nothing = pace(1, {})
    run(lonely, 20, {1: 1.0})
    assert nothing == []
