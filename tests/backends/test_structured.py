from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from agentd.backends.llama_cpp import LlamaModel
from agentd.backends.scripted import ScriptedModel
from agentd.backends.structured import ask, choose, values_in
from agentd.errors import BadReply, NoGrammar
from agentd.types import Message, ModelReply, ModelRequest

ASKED = [Message(role="user", content="Which city?")]


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    name: str
    size: Literal["small", "big"]
    people: int = 0


SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "lines": {"type": "integer", "minimum": 1}},
    "required": ["path"],
}


class Listener(ScriptedModel):
    """A script that remembers what it was asked."""

    def __init__(self, *replies: object) -> None:
        super().__init__(list(replies))
        self.asked: list[ModelRequest] = []

    def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
        self.asked.append(request)
        return super().chat(request)


def test_a_dataclass() -> None:
    model = Listener({"name": "Ulm", "size": "small"})
    assert ask(model, ASKED, City, client="t1") == City(name="Ulm", size="small")
    (request,) = model.asked
    assert request.client == "t1"
    assert request.schema is not None
    assert request.schema["properties"]["size"]["enum"] == ["small", "big"]


def test_a_schema() -> None:
    assert ask(Listener({"path": "a", "lines": 2}), ASKED, SCHEMA) == {"path": "a", "lines": 2}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ulm", "size": "small"}',
        'Here it is:\n```json\n{"name": "Ulm", "size": "small"}\n```\nGood?',
        '<think>{"name": "no"} or {a}?</think> {"name": "Ulm", "size": "small"} is it',
        'thinking without a start... </think>\n{"name": "Ulm", "size": "small"}',
        'The set {x} and [1] then {"name": "Ulm", "size": "small"}',
        '~~~\n{"name": "Ulm",\n "size": "small"}\n~~~',
    ],
)
def test_what_stands_around_does_not_matter(text: str) -> None:
    model = Listener(text)
    assert ask(model, ASKED, City) == City(name="Ulm", size="small")
    assert len(model.asked) == 1


def test_one_retry_that_says_which_field() -> None:
    model = Listener({"name": "Ulm", "size": "tiny"}, {"name": "Ulm", "size": "small"})
    assert ask(model, ASKED, City).size == "small"
    said, advice = model.asked[1].messages[-2:]
    assert (said.role, said.content) == ("assistant", '{"name": "Ulm", "size": "tiny"}')
    assert "size: Input should be 'small' or 'big', got 'tiny'" in advice.content
    assert '"enum":["small","big"]' in advice.content


def test_after_the_second_it_is_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="lines: expected at least 1, got 0"):
        ask(Listener("no idea", {"path": "x", "lines": 0}), ASKED, SCHEMA)
    with pytest.raises(BadReply, match="reply: expected JSON, got 'neither'"):
        ask(Listener("no idea", "neither"), ASKED, City)
    with pytest.raises(BadReply, match="name: expected a value, got nothing"):
        ask(Listener({}, {"size": "big"}), ASKED, City)


def test_a_check_of_ones_own() -> None:
    def big_enough(city: City) -> str:
        return "" if city.people > 10 else f"people: expected more than 10, got {city.people}"

    model = Listener({"name": "A", "size": "big", "people": 3}, {"name": "A", "size": "big", "people": 30})
    assert ask(model, ASKED, City, check=big_enough).people == 30
    assert "people: expected more than 10, got 3" in model.asked[1].messages[-1].content


def test_a_model_that_cannot_hold_the_schema_is_asked_without_it() -> None:
    class Fussy(Listener):
        def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
            if request.schema is not None:
                raise NoGrammar("too hard")
            return super().chat(request)

    assert ask(Fussy({"path": "a"}), ASKED, SCHEMA) == {"path": "a"}


def test_values_in_odd_texts() -> None:
    assert list(values_in("")) == []
    assert list(values_in("[" * 100_000)) == []
    assert list(values_in("NaN")) == []
    assert {"a": 1} in list(values_in('x {"a": 1} y'))


def test_choosing() -> None:
    assert choose(Listener("a"), ASKED, ["a", "b"]) == "a"
    with pytest.raises(BadReply):
        choose(Listener("c"), ASKED, ["a", "b"])


def test_with_a_real_model(model: LlamaModel) -> None:
    city = ask(model, [Message(role="user", content="A city: its name, size, people.")], City, max_tokens=120)
    assert city.size in ("small", "big")
    assert choose(model, ASKED, ["Ulm", "Rome"]) in ("Ulm", "Rome")
