"""States are bytes here; what llama.cpp makes of them is tested with a real worker."""

from __future__ import annotations

from pathlib import Path

from agentd.backends.llama.states import States

IDENTITY = {"model": "m"}


def test_the_best_state_is_found_and_taken() -> None:
    states = States(1000)
    states.keep([1, 2, 3], b"short")
    states.keep([1, 2, 9, 9], b"other")
    assert states.find([1, 2, 9, 9, 5], 4) == 4
    assert states.find([1, 2, 9, 9, 5], 3) == 3
    assert states.take([1, 2, 9, 9, 5], 4) == ([1, 2, 9, 9], b"other")
    assert len(states) == 1
    assert states.take([7], 1) is None


def test_a_longer_state_takes_the_place_of_what_it_goes_on_from() -> None:
    states = States(1000)
    states.keep([1, 2], b"old")
    states.keep([1, 2, 3], b"new")
    states.keep([1], b"older")
    assert len(states) == 1
    assert states.take([1, 2, 3, 4], 3) == ([1, 2, 3], b"new")
    assert states.size == 0


def test_states_that_cannot_be_cut_stand_for_themselves() -> None:
    states = States(1000, whole=True)
    states.keep([1, 2, 3], b"turn")
    states.keep([1, 2, 3, 4, 5], b"later")
    assert len(states) == 2
    assert states.find([1, 2, 9], 2) == 0
    assert states.take([1, 2, 3, 9], 3) == ([1, 2, 3], b"turn")
    states.keep([1, 2, 3], b"again")
    assert len(states) == 2


def test_a_state_of_another_conversation_stays() -> None:
    states = States(1000)
    states.keep(list(range(100)), b"long")
    assert states.take([0, 1, 2, 77], 3) == (list(range(100)), b"long")
    assert len(states) == 1


def test_the_least_recently_used_goes_first() -> None:
    states = States(20)
    for number in range(5):
        states.keep([number, number], bytes(8))
    assert len(states) == 2
    assert states.size == 16
    assert states.find([4, 4], 2) == 2
    assert states.find([0, 0], 2) == 0
    states.keep([9], bytes(100))
    assert states.find([9], 1) == 0, "bigger than everything"


def test_a_file_holds_the_most_valuable(tmp_path: Path) -> None:
    path = tmp_path / "states"
    states = States(20)
    states.keep([1, 1], b"one-----")
    states.keep([2, 2], b"two-----")
    states.write(path, IDENTITY, iter([([3, 3], b"three---")]))
    again = States(20)
    assert again.read(path, IDENTITY) == 2
    assert again.size == 0, "nothing is read before it is wanted"
    assert again.take([3, 3, 4], 2) == ([3, 3], b"three---")
    assert again.take([2, 2, 4], 2) == ([2, 2], b"two-----")
    again.close()
    assert again.read(path, {"model": "other"}) == 0
    again.close()


def test_what_was_read_can_be_written_again_into_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "states"
    states = States(100)
    states.keep([1, 1], b"one-----")
    states.write(path, IDENTITY, iter(()))
    for _ in range(2):
        again = States(100)
        assert again.read(path, IDENTITY) == 1
        again.write(path, IDENTITY, iter(()))
        again.close()
    assert again.read(path, IDENTITY) == 1
    assert again.take([1, 1], 2) == ([1, 1], b"one-----")
    again.close()


def test_a_damaged_file_gives_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "states"
    states = States(100)
    states.keep([1, 1], b"abcdefgh")
    states.write(path, IDENTITY, iter(()))
    whole = path.read_bytes()
    for place in range(len(whole)):
        for broken in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            path.write_bytes(broken)
            again = States(100)
            again.read(path, IDENTITY)
            found = again.take([1, 1, 5], 2)
            again.close()
            assert found is None or found[1] == b"abcdefgh"
    assert States(100).read(tmp_path / "missing", IDENTITY) == 0
