"""The breaker of a server, its usual time, and turns by weight."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from agentd.backends.health import Balance, Health, Site
from agentd.config import RouterSettings
from tests.store.conftest import StillClock

SETTINGS = RouterSettings(failures=3, rest=5.0, longest_rest=30.0)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def health(clock: StillClock) -> Health:
    return Health(clock, lambda: SETTINGS)


def fail(health: Health, times: int = 1) -> None:
    for _ in range(times):
        assert health.enter()
        health.failed("no answer")


def test_it_rests_after_failures_in_a_row_only(health: Health, clock: StillClock) -> None:
    fail(health, 2)
    assert health.enter()
    health.succeeded(0.1)
    fail(health, 2)
    assert health.ready
    fail(health)
    assert (health.ready, health.resting, health.broken) == (False, 5.0, True)
    assert not health.enter()
    clock.time += 4.0
    assert health.resting == pytest.approx(1.0)
    assert health.describe()["state"] == "open"
    assert health.describe()["problem"] == "no answer"


def test_one_request_tries_after_the_rest_and_its_success_ends_it(health: Health, clock: StillClock) -> None:
    fail(health, 3)
    clock.time += 5.0
    assert health.enter()
    assert health.describe()["state"] == "half-open"
    assert not health.enter(), "a second one has to wait for the first"
    health.succeeded(0.1)
    assert health.describe()["state"] == "closed"
    assert health.enter()
    assert health.enter()
    fail(health, 2)
    assert health.ready, "the failures of before are forgotten"


def test_the_rest_grows_to_its_limit_and_begins_small_again(health: Health, clock: StillClock) -> None:
    fail(health, 3)
    rests = [health.resting]
    for _ in range(4):
        clock.time += health.resting
        fail(health)
        rests.append(health.resting)
    assert rests == [5.0, 10.0, 20.0, 30.0, 30.0]
    clock.time += 30.0
    assert health.enter()
    health.succeeded()
    fail(health, 3)
    assert health.resting == 5.0


def test_a_try_that_says_nothing_lets_the_next_one_try(health: Health, clock: StillClock) -> None:
    fail(health, 3)
    clock.time += 5.0
    assert health.enter()
    health.left()
    assert health.enter()
    health.failed("still nothing")
    assert health.resting == 10.0


def test_a_try_that_is_being_answered_lets_the_others_in(health: Health, clock: StillClock) -> None:
    fail(health, 3)
    clock.time += 5.0
    assert health.enter()
    assert health.on_trial
    health.lives()
    assert health.enter()
    assert not health.on_trial
    health.failed("it broke off")
    health.succeeded()
    assert (health.running, health.ready) == (0, True)


def test_a_server_that_asks_for_time_gets_it_and_has_not_failed(health: Health, clock: StillClock) -> None:
    fail(health, 2)
    assert health.enter()
    health.paused(7.0, "too many requests")
    assert (health.ready, health.resting, health.broken) == (False, 7.0, False)
    clock.time += 7.0
    fail(health, 2)
    assert health.ready, "whoever asks for time is there"
    assert health.enter()
    health.paused(9999.0, "come back tomorrow")
    assert health.resting == 30.0


def test_a_clock_that_is_put_back_keeps_nobody_out(health: Health, clock: StillClock) -> None:
    fail(health, 3)
    clock.time -= 3600.0
    assert health.ready


def test_what_is_usual_is_known_after_some_answers(health: Health) -> None:
    for number in range(1, 5):
        assert health.enter()
        health.succeeded(number / 10)
    assert health.usual is None
    for number in range(5, 101):
        assert health.enter()
        health.succeeded(number / 10)
    assert health.usual == 9.5
    assert health.describe()["answered"] == 100
    assert health.running == 0


def test_seen_lately(health: Health, clock: StillClock) -> None:
    assert not health.seen_within(30)
    assert health.enter()
    health.succeeded()
    assert health.seen_within(30)
    fail(health)
    assert not health.seen_within(30)
    assert health.enter()
    health.succeeded()
    clock.time += 31
    assert not health.seen_within(30)


def test_many_threads_get_one_try(health: Health, clock: StillClock) -> None:
    fail(health, 3)
    clock.time += 5.0
    entered: list[bool] = []
    start = threading.Barrier(16)

    def enter() -> None:
        start.wait()
        entered.append(health.enter())

    threads = [threading.Thread(target=enter) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(entered) == {True: 1, False: 15}


def sites(clock: StillClock, **weights: float) -> list[Site]:
    return [Site(name, Health(clock, lambda: SETTINGS), weight) for name, weight in weights.items()]


def take(balance: Balance, avoid: tuple[Site, ...] = ()) -> str:
    site = balance.take(avoid)
    if site is None:
        return "-"
    site.health.left()
    return site.url


def test_turns_go_by_weight_and_are_mixed(clock: StillClock) -> None:
    balance = Balance(sites(clock, a=5, b=1, c=1))
    assert "".join(take(balance) for _ in range(14)) == "aabacaa" * 2


def test_a_site_that_rests_is_passed_over_and_gets_no_turns_on_account(clock: StillClock) -> None:
    a, b = sites(clock, a=1, b=1)
    balance = Balance([a, b])
    fail(a.health, 3)
    assert "".join(take(balance) for _ in range(6)) == "bbbbbb"
    clock.time += 5.0
    assert a.health.enter()
    a.health.succeeded()
    assert sorted(take(balance) for _ in range(4)) == ["a", "a", "b", "b"]
    fail(a.health, 3)
    assert not balance.broken
    fail(b.health, 3)
    assert (take(balance), balance.broken, balance.resting) == ("-", True, 5.0)


def test_a_site_that_was_used_is_avoided_while_another_is_ready(clock: StillClock) -> None:
    a, b = sites(clock, a=9, b=1)
    balance = Balance([a, b])
    assert balance.spare([a])
    assert take(balance, (a,)) == "b"
    fail(b.health, 3)
    assert not balance.spare([a])
    assert take(balance, (a,)) == "a"
