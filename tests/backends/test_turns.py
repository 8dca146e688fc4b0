from __future__ import annotations

import threading
import time

from agentd.backends.turns import Turns


def soon(condition: object, seconds: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_clients_are_served_in_turn() -> None:
    turns = Turns()
    served: list[str] = []
    threads = []

    def work(client: str, label: str) -> None:
        with turns.take(client, deadline=time.monotonic() + 10) as mine:
            assert mine
            served.append(label)

    with turns.take("first", deadline=time.monotonic() + 10):
        for number, (client, label) in enumerate(
            [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")], start=1
        ):
            threads.append(threading.Thread(target=work, args=(client, label)))
            threads[-1].start()
            soon(lambda wanted=number: turns.waiting == wanted)
    for thread in threads:
        thread.join()
    assert served == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_gives_up_waiting_does_not_block_the_others() -> None:
    turns = Turns()
    cancel = threading.Event()
    got: list[bool] = []

    def work(deadline: float, cancel: threading.Event | None) -> None:
        with turns.take("", deadline=time.monotonic() + deadline, cancel=cancel) as mine:
            got.append(mine)

    with turns.take("", deadline=time.monotonic() + 10):
        late = threading.Thread(target=work, args=(0.05, None))
        cancelled = threading.Thread(target=work, args=(10.0, cancel))
        late.start()
        cancelled.start()
        late.join()
        cancel.set()
        cancelled.join()
        assert got == [False, False]
    work(0.0, None)
    assert got[-1], "the turn is free again"


def test_an_error_of_the_holder_passes_the_turn_on() -> None:
    turns = Turns()
    try:
        with turns.take("", deadline=time.monotonic() + 1):
            raise RuntimeError
    except RuntimeError:
        pass
    with turns.take("", deadline=time.monotonic() + 1) as mine:
        assert mine
