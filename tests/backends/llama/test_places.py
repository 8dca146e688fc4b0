"""Which place a request gets, with a context that only keeps books."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentd.backends.llama.context import common
from agentd.backends.llama.places import Place, Places
from agentd.backends.llama.states import States


@dataclass
class Books:
    """What `Context` does, without a model."""

    count: int
    can_cut: bool = True
    size: int = 10_000
    tokens: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = [[] for _ in range(self.count)]

    @property
    def memory(self) -> Books:
        return self

    def common(self, sequence: int, tokens: list[int], most: int) -> int:
        shared = common(self.tokens[sequence], tokens, most)
        return shared if self.can_cut or shared == len(self.tokens[sequence]) else 0

    def cut(self, sequence: int, count: int) -> int:
        if count < len(self.tokens[sequence]) and not self.can_cut:
            count = 0
        del self.tokens[sequence][count:]
        return len(self.tokens[sequence])

    def copy(self, source: int, target: int, count: int) -> int:
        self.tokens[target] = list(self.tokens[source])
        return self.cut(target, count)

    def save(self, sequence: int) -> bytes:
        return bytes(len(self.tokens[sequence]))

    def restore(self, sequence: int, state: bytes, tokens: list[int]) -> None:
        self.tokens[sequence] = list(tokens)


@dataclass
class Request:
    tokens: list[int]
    reading: bool = True


def places(count: int, *, kept: int = 100_000, can_cut: bool = True) -> tuple[Places, Any]:
    books: Any = Books(count, can_cut)
    return Places(books, States(kept, whole=not can_cut), count), books


def serve(among: Places, books: Any, tokens: list[int], reply: int = 0) -> tuple[Place, int]:
    """A whole request; where it was served and how much of it stood there."""
    place = among.take(Request(tokens))
    assert place is not None
    stood = len(books.tokens[place.number])
    books.tokens[place.number] = [*tokens, *[-1] * reply]
    among.give_back(place)
    return place, stood


def talk(number: int, length: int = 1000) -> list[int]:
    return [number, *range(100, 99 + length)]


def test_a_conversation_stays_in_its_place() -> None:
    among, books = places(2)
    first, _ = serve(among, books, talk(1), reply=20)
    serve(among, books, talk(2))
    again, stood = serve(among, books, [*talk(1), *[-1] * 20, 7, 8, 9])
    assert again is first
    assert stood == 1020


def test_two_tokens_are_always_computed_anew() -> None:
    among, books = places(1)
    serve(among, books, talk(1))
    assert serve(among, books, talk(1))[1] == 998


def test_a_prefix_is_copied_where_the_rest_is_worth_keeping() -> None:
    among, books = places(2)
    first, _ = serve(among, books, talk(1))
    other, stood = serve(among, books, [*talk(1)[:500], 7, 8, 9])
    assert other is not first
    assert stood == 500
    assert books.tokens[first.number] == talk(1)
    assert among.counts.prefix_copies == 1


def test_the_prefix_of_one_who_is_served_is_copied() -> None:
    among, books = places(2)
    busy = among.take(Request(talk(1), reading=False))
    assert busy is not None
    books.tokens[busy.number] = talk(1)
    assert serve(among, books, [*talk(1), 7, 8])[1] == 1000


def test_a_prefix_that_is_being_read_is_waited_for() -> None:
    among, books = places(3)
    reader = Request(talk(1))
    place = among.take(reader)
    assert place is not None
    assert among.take(Request([*talk(1)[:500], 7, 8])) is None
    assert among.take(Request(talk(2))) is not None, "others need not wait"
    books.tokens[place.number], reader.reading = talk(1), False
    later = among.take(Request([*talk(1)[:500], 7, 8]))
    assert later is not None
    assert len(books.tokens[later.number]) == 500


def test_what_has_to_go_is_kept_and_comes_back() -> None:
    among, books = places(1)
    serve(among, books, talk(1))
    serve(among, books, talk(2))
    assert serve(among, books, talk(1))[1] == 998
    assert among.counts.prefix_restores == 1
    forgetful, books = places(1, kept=0)
    serve(forgetful, books, talk(1))
    serve(forgetful, books, talk(2))
    assert serve(forgetful, books, talk(1))[1] == 0


def test_short_talk_gives_way_to_long() -> None:
    among, books = places(2, kept=0)
    long, _ = serve(among, books, talk(1))
    short, _ = serve(among, books, talk(2, 50))
    assert serve(among, books, talk(3))[0] is short
    assert books.tokens[long.number] == talk(1)


def test_nobody_gets_a_place_when_all_are_taken() -> None:
    among, _ = places(1)
    assert among.take(Request(talk(1))) is not None
    assert among.take(Request(talk(2))) is None


def test_a_model_that_cannot_go_back_reads_again_or_goes_on_from_a_kept_state() -> None:
    among, books = places(1, can_cut=False)
    serve(among, books, talk(1), reply=20)
    assert serve(among, books, [*talk(1), 7, 8, 9])[1] == 0
    among, books = places(1, can_cut=False)
    serve(among, books, talk(1), reply=20)
    among.states.keep(talk(1)[:-2], b"the state before the end of the prompt")
    assert serve(among, books, [*talk(1), 7, 8, 9])[1] == 998


def test_room_is_made_by_what_is_worth_least() -> None:
    among, books = places(2)
    serve(among, books, talk(1))
    short, _ = serve(among, books, talk(2, 50))
    assert among.free_one()
    assert books.tokens[short.number] == []
    assert among.free_one()
    assert not among.free_one()
    assert among.states.find(talk(1), 900) == 900
