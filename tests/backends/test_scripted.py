from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agentd.backends.scripted import ScriptedModel
from agentd.errors import BadReply, Cancelled, ModelError, ModelMissing
from agentd.types import Delta, Message, Model, ModelRequest


def ask(model: ScriptedModel, text: str, **more: object) -> str:
    return model.chat(ModelRequest(messages=(Message(role="user", content=text),), **more)).text  # type: ignore[arg-type]


def test_replies_in_order_then_no_more() -> None:
    model = ScriptedModel(["one", {"two": [2, None]}, "drei ü"])
    assert isinstance(model, Model)
    assert [ask(model, "?") for _ in range(3)] == ["one", '{"two": [2, null]}', "drei ü"]
    with pytest.raises(ModelError, match="has no replies left for a request that ends 'again'"):
        ask(model, "again")


def test_each_client_has_its_own_place() -> None:
    model = ScriptedModel(["one", "two"])
    assert [ask(model, "?", client=client) for client in ("a", "b", "a", "b")] == ["one", "one", "two", "two"]


def test_replies_by_what_stands_in_the_messages() -> None:
    model = ScriptedModel({"lines": ["l1", "l2"], "": ["other"]})
    assert [ask(model, text) for text in ("lines?", "words?", "lines?")] == ["l1", "other", "l2"]


def test_a_function() -> None:
    model = ScriptedModel(lambda request: {"asked": request.messages[-1].content})
    assert ask(model, "x") == '{"asked": "x"}'


def test_a_choice_must_be_one() -> None:
    model = ScriptedModel(["a", "c"])
    assert ask(model, "?", choices=("a", "b")) == "a"
    with pytest.raises(BadReply, match="replied 'c'; the choices are a, b"):
        ask(model, "?", choices=("a", "b"))


def test_streaming_and_cancelling() -> None:
    model = ScriptedModel(["a", "b"])
    heard: list[Delta] = []
    reply = model.chat(ModelRequest(prompt="12345678"), heard.append)
    assert [delta.text for delta in heard] == ["a"]
    assert (reply.prompt_tokens, reply.completion_tokens, reply.model) == (2, 1, "scripted")
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        model.chat(ModelRequest(prompt="x"), None, cancel)
    with pytest.raises(Cancelled):
        model.score([("a", "b")], cancel=cancel)
    assert model.chat(ModelRequest(prompt="x")).text == "b", "a cancelled request takes no reply"


def test_a_file_of_replies(tmp_path: Path) -> None:
    path = tmp_path / "replies.yaml"
    path.write_text(
        "- when: [count, notes]\n  replies:\n    - file_info\n    - {path: notes.txt, yes: no}\n    - 4\n"
        "- when: count\n  replies: [other]\n- replies: ['no']\n",
        encoding="utf-8",
    )
    model = ScriptedModel.from_file(path, name="suite")
    assert model.name == "suite"
    said = [ask(model, text) for text in ("count notes", "count", "count notes", "count notes", "hello")]
    assert said == ["file_info", "other", '{"path": "notes.txt", "yes": "no"}', "4", "no"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "replies.yaml:1"),
        ("just text", "is no list"),
        ("- when: x", "entry 1"),
        ("- replies: [a]\n- {replies: [a], wen: x}", "entry 2"),
        ("- {replies: [a], when: [1]}", "entry 1"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "replies.yaml"
    path.write_text(text)
    with pytest.raises(ModelError) as error:
        ScriptedModel.from_file(path)
    assert words in error.value.message


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing):
        ScriptedModel.from_file(tmp_path / "none.yaml")


def test_a_reply_in_pieces_with_thoughts_and_calls() -> None:
    said = {"reasoning": ["It is ", "Paris."], "text": "I look.", "calls": [{"name": "w", "arguments": {"c": "Paris"}}]}
    heard: list[Delta] = []
    reply = ScriptedModel([{"say": said}]).chat(ModelRequest(prompt="?"), heard.append)
    assert (reply.reasoning, reply.text, reply.finish_reason) == ("It is Paris.", "I look.", "tool_calls")
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("w", '{"c": "Paris"}')]
    assert [delta.reasoning for delta in heard if delta.reasoning] == ["It is ", "Paris."]
    calls = [delta.call for delta in heard if delta.call]
    assert calls[0].name == "w"
    assert "".join(call.arguments for call in calls) == '{"c": "Paris"}'


def test_a_reply_that_breaks_off() -> None:
    heard: list[Delta] = []
    with pytest.raises(ModelError, match="the power is gone") as error:
        ScriptedModel([{"say": {"text": ["a", "b"], "fail": "the power is gone"}}]).chat(
            ModelRequest(prompt="?"), heard.append
        )
    assert [delta.text for delta in heard] == ["a", "b"]
    assert error.value.sent


def test_a_slow_reply_is_cancelled_between_pieces() -> None:
    cancel, heard = threading.Event(), []

    def listen(delta: Delta) -> None:
        heard.append(delta.text)
        cancel.set()

    model = ScriptedModel([{"say": {"text": ["a", "b"], "wait": 0.01}}])
    with pytest.raises(Cancelled):
        model.chat(ModelRequest(prompt="?"), listen, cancel)
    assert heard == ["a"]


def test_what_is_said_wrongly() -> None:
    with pytest.raises(ModelError, match=r"say\.txt"):
        ScriptedModel([{"say": {"txt": "a"}}]).chat(ModelRequest(prompt="?"))
