"""A model on a server: what it says arrives as it was meant, and whatever goes wrong is an error that says so."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agentd.backends.catalog import ServerEntry
from agentd.backends.openai_http import Link, RemoteModel
from agentd.backends.structured import ask
from agentd.errors import (
    BadReply,
    BrokenReply,
    Busy,
    Cancelled,
    Denied,
    ModelError,
    NoGrammar,
    ServerDown,
    ServerFailed,
    ServerRefused,
    TooSlow,
)
from agentd.types import CallDelta, Delta, FunctionCall, JsonObject, Message, ModelProfile, ModelRequest
from tests.backends.openai_server import Good, OpenAiServer, Play, Turn, call_delta, delta, message

HELLO = ModelRequest(messages=(Message(role="user", content="hello"),), timeout=10.0)
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


OPEN: list[Link] = []


def model_at(url: str, model: str = "small", *, secret: str | None = None, **fields: Any) -> RemoteModel:
    entry = ServerEntry(name="box", urls=(url,), key="box-key" if secret else None, **fields)
    return model_of(entry, model, key=lambda: secret)


def model_of(entry: ServerEntry, model: str = "small", **more: Any) -> RemoteModel:
    asked: dict[str, Any] = {"key": lambda: None, "may_send": lambda host, port: None}
    OPEN.append(Link(entry, **asked | more))
    return RemoteModel(OPEN[-1], model, name="box/small", profile=ModelProfile(context=4096, compact=True))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Lets go of every connection that a test leaves."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture
def serve() -> Iterator[Callable[..., OpenAiServer]]:
    """Starts servers, and stops them at the end."""
    running: list[OpenAiServer] = []

    def start(play: Play, **more: Any) -> OpenAiServer:
        running.append(OpenAiServer(play, **more).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


Serve = Callable[..., OpenAiServer]


# what goes well -------------------------------------------------------------------------------------------------------


def test_a_streamed_reply(serve: Serve) -> None:
    server = serve(Good(say=lambda body: "one two three"))
    deltas: list[Delta] = []
    reply = model_at(server.url).chat(HELLO, deltas.append)
    assert [each.text for each in deltas] == ["one", " two", " three"]
    assert (reply.text, reply.finish_reason, reply.model) == ("one two three", "stop", "box/small")
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 3)
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert server.bodies[0]["stream"] is True
    assert server.requests[0].headers["Authorization"] is None


def test_a_reply_in_one_piece(serve: Serve) -> None:
    server = serve(lambda turn: turn.json(message("whole", reasoning_content="hm")))
    reply = model_at(server.url).chat(HELLO)
    assert (reply.text, reply.reasoning, reply.prompt_tokens) == ("whole", "hm", 7)


def test_figures_are_estimated_where_none_come(serve: Serve) -> None:
    server = serve(Good(say=lambda body: "x" * 40, usage=False))
    reply = model_at(server.url).chat(HELLO)
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 10)


def test_calls_count_as_words(serve: Serve) -> None:
    server = serve(stream(call_delta(0, "weather", '{"city": "%s"}' % ("x" * 21), "a"), delta(finish="tool_calls")))
    assert model_at(server.url).chat(replace(HELLO, tools=(WEATHER,))).completion_tokens == 10


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1, "completion_tokens": "9"}, {"prompt_tokens": 1e99}, [], "x"])
def test_figures_that_are_none_are_not_believed(serve: Serve, usage: Any) -> None:
    server = serve(lambda turn: turn.events([delta("x" * 40), delta(finish="stop") | {"usage": usage}]))
    reply = model_at(server.url).chat(HELLO)
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 10)


def test_one_connection_serves_request_after_request(serve: Serve) -> None:
    server = serve(Good())
    model = model_at(server.url)
    for _ in range(5):
        model.chat(HELLO)
    assert len({request.port for request in server.requests}) == 1


def test_many_at_once_have_a_connection_each(serve: Serve) -> None:
    gate = threading.Barrier(4, timeout=10)

    def play(turn: Turn) -> None:
        gate.wait()
        turn.events([delta(turn.body["messages"][0]["content"]), delta(finish="stop")])

    model, said = model_at(serve(play).url), dict[str, str]()

    def work(word: str) -> None:
        said[word] = model.chat(replace(HELLO, messages=(Message(role="user", content=word),))).text

    threads = [threading.Thread(target=work, args=(word,)) for word in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {word: word for word in "abcd"}


def test_a_kept_connection_that_the_server_dropped_is_no_error(serve: Serve) -> None:
    def play(turn: Turn) -> None:
        turn.events([delta("fine"), delta(finish="stop")])
        turn.cut()

    server = serve(play)
    model = model_at(server.url)
    assert [model.chat(HELLO).text for _ in range(3)] == ["fine"] * 3


def test_a_kept_connection_that_dies_with_the_next_request_is_no_error(serve: Serve) -> None:
    seen: list[int] = []

    def play(turn: Turn) -> None:
        port = turn.request_seen.port
        if port in seen:
            turn.cut()
            return
        seen.append(port)
        turn.events([delta("fine"), delta(finish="stop")])

    model = model_at(serve(play).url)
    assert [model.chat(HELLO).text for _ in range(3)] == ["fine"] * 3
    assert len(seen) == 3


def test_calls_of_tools(serve: Serve) -> None:
    server = serve(Good())
    deltas: list[Delta] = []
    request = replace(HELLO, tools=(WEATHER,), tool_choice="required")
    reply = model_at(server.url).chat(request, deltas.append)
    assert reply.tool_calls == (FunctionCall(id="call_1", name="weather", arguments='{"city": "Paris"}'),)
    assert reply.finish_reason == "tool_calls"
    assert [each.call for each in deltas] == [
        CallDelta(index=0, id="call_1", name="weather", arguments='{"ci'),
        CallDelta(index=0, arguments='ty": "Paris"}'),
    ]
    assert server.bodies[0]["tools"] == [{"type": "function", "function": WEATHER}]
    assert server.bodies[0]["tool_choice"] == "required"


@pytest.mark.parametrize(
    "events",
    [
        [call_delta(0, "weather", '{"a":1}', "x"), call_delta(1, "weather", '{"b":2}', "y")],
        [call_delta(None, "weather", '{"a":1}', "x"), call_delta(None, "weather", '{"b":2}', "y")],
        [call_delta(0, "weather", '{"a":1}', "x"), call_delta(0, "weather", '{"b":2}', "y")],
        [call_delta(0, "weather", "", "x"), call_delta(0, "", '{"a":'), call_delta(0, "", "1}"),
         call_delta(1, "weather", '{"b"', "y"), call_delta(1, "", ":2}")],
    ],
    ids=["by index", "without index", "all index 0", "in pieces"],
)  # fmt: skip
@pytest.mark.parametrize("finish", ["tool_calls", "stop", "function_call"])
def test_several_calls_as_servers_send_them(serve: Serve, events: list[Any], finish: str) -> None:
    server = serve(lambda turn: turn.events([*events, delta(finish=finish)]))
    reply = model_at(server.url).chat(replace(HELLO, tools=(WEATHER,)))
    assert [(call.id, call.arguments) for call in reply.tool_calls] == [("x", '{"a":1}'), ("y", '{"b":2}')]
    assert reply.finish_reason == "tool_calls"


def test_arguments_that_are_an_object_already(serve: Serve) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Rom"}}}
    server = serve(lambda turn: turn.json(message("", "tool_calls", tool_calls=[call])))
    reply = model_at(server.url).chat(replace(HELLO, tools=(WEATHER,)))
    assert [(each.name, each.arguments) for each in reply.tool_calls] == [("weather", '{"city": "Rom"}')]


def test_a_conversation_with_tools_is_sent_whole(serve: Serve) -> None:
    server = serve(Good())
    call = FunctionCall(id="c1", name="weather", arguments="{}")
    messages = (
        Message(role="system", content="be brief"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="sunny", tool_call_id="c1"),
    )
    model_at(server.url).chat(replace(HELLO, messages=messages, tools=(WEATHER,)))
    sent = server.bodies[0]["messages"]
    assert sent[1]["tool_calls"][0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": "{}"},
    }
    assert sent[2] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "weather", "arguments": {"city": "Rom"}}</tool_call>',
        "<function=weather><parameter=city>Rom</parameter></function>",
        '<think>hm</think>{"name": "weather", "arguments": {"city": "Rom"}}',
    ],
)
@pytest.mark.parametrize("refuses", [(), ("tools",)], ids=["knows tools", "knows none"])
def test_calls_that_the_model_writes_as_text(serve: Serve, text: str, refuses: tuple[str, ...]) -> None:
    server, deltas = serve(Good(say=lambda body: text, refuses=refuses)), list[Delta]()
    model = model_at(server.url)
    earlier = FunctionCall(id="c1", name="weather", arguments='{"city": "Oslo"}')
    messages = (
        *HELLO.messages,
        Message(role="assistant", content="", tool_calls=(earlier,)),
        Message(role="tool", content="snow", tool_call_id="c1"),
    )
    request = replace(HELLO, messages=messages, tools=(WEATHER,))
    reply = model.chat(request, deltas.append)
    ((name, arguments),) = [(call.name, json.loads(call.arguments)) for call in reply.tool_calls]
    assert (name, arguments, reply.text.strip(), reply.finish_reason) == ("weather", {"city": "Rom"}, "", "tool_calls")
    assert [each.call.name for each in deltas if each.call] == ["weather"]
    if refuses:
        told = json.dumps(server.bodies[-1]["messages"])
        assert "tools" not in server.bodies[-1]
        assert all(word in told for word in ("weather", "Oslo", "snow", "<tool_call>"))
        asked = len(server.bodies)
        model.chat(request)
        assert len(server.bodies) == asked + 1


def test_a_call_that_had_to_come(serve: Serve) -> None:
    server = serve(lambda turn: turn.events([delta("I would rather not."), delta(finish="stop")]))
    with pytest.raises(BadReply, match="had to"):
        model_at(server.url).chat(replace(HELLO, tools=(WEATHER,), tool_choice="required"))


def test_tools_that_may_not_be_called_are_not_sent(serve: Serve) -> None:
    text = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    server = serve(Good(say=lambda body: text))
    reply = model_at(server.url).chat(replace(HELLO, tools=(WEATHER,), tool_choice="none"))
    assert (reply.text, reply.tool_calls) == (text, ())
    assert "tools" not in server.bodies[0]


def test_thoughts_between_tags(serve: Serve) -> None:
    server, deltas = serve(Good(say=lambda body: "<think>let me see</think> four")), list[Delta]()
    reply = model_at(server.url).chat(HELLO, deltas.append)
    assert (reply.reasoning, reply.text.strip()) == ("let me see", "four")
    assert "".join(each.reasoning for each in deltas) == "let me see"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_what_it_thinks_is_kept_apart(serve: Serve, key: str) -> None:
    server = serve(lambda turn: turn.events([delta(**{key: "hm"}), delta("yes"), delta(finish="stop")]))
    deltas: list[Delta] = []
    reply = model_at(server.url).chat(HELLO, deltas.append)
    assert (reply.reasoning, reply.text) == ("hm", "yes")
    assert [(each.reasoning, each.text) for each in deltas] == [("hm", ""), ("", "yes")]


def test_log_probabilities(serve: Serve) -> None:
    token = {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169], "id": 5}
    token["top_logprobs"] = [{"token": "Hé", "logprob": -0.5}, {"token": "No", "logprob": -1.5}]
    event = delta("Hé")
    event["choices"][0]["logprobs"] = {"content": [token]}
    server = serve(lambda turn: turn.events([event, delta(finish="stop")]))
    (found,) = model_at(server.url).chat(replace(HELLO, logprobs=2)).logprobs
    assert (found.token, found.logprob, found.bytes, found.id) == ("Hé", -0.5, (72, 195, 169), 5)
    assert found.top == (("Hé", -0.5), ("No", -1.5))
    assert (server.bodies[0]["logprobs"], server.bodies[0]["top_logprobs"]) == (True, 2)


def test_a_completion_of_raw_text(serve: Serve) -> None:
    server = serve(Good())
    reply = model_at(server.url).chat(ModelRequest(prompt="def f(", suffix="return", max_tokens=9, timeout=10))
    assert reply.text == "<def f(>"
    assert server.requests[0].path == "/v1/completions"
    assert (server.bodies[0]["suffix"], server.bodies[0]["max_tokens"]) == ("return", 9)


@pytest.mark.parametrize("request_", [replace(HELLO, max_tokens=None), ModelRequest(prompt="a", max_tokens=None)])
def test_a_server_decides_where_the_request_does_not_say_how_long(serve: Serve, request_: ModelRequest) -> None:
    server = serve(Good())
    assert model_at(server.url).chat(request_).text
    assert not {"max_tokens", "max_completion_tokens"} & set(server.bodies[0])


def test_half_characters_between_events_become_whole(serve: Serve) -> None:
    def play(turn: Turn) -> None:
        turn.head()
        for text in ("a\\ud83d", "\\ude00b", "\\ud83d"):
            turn.wfile.write(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text.encode())
        turn.wfile.write(b"data: [DONE]\n\n")

    deltas: list[Delta] = []
    reply = model_at(serve(play).url).chat(HELLO, deltas.append)
    assert reply.text == "a😀b�"
    "".join(each.text for each in deltas).encode()  # what a listener gets can be written


def test_events_cut_anywhere(serve: Serve) -> None:
    stream = "".join(f"data: {json.dumps(event)}\r\n\r\n" for event in [delta("gr"), delta("üß"), delta(finish="stop")])

    def play(turn: Turn) -> None:
        turn.head()
        turn.wfile.write(b": a comment\n\nevent: message\nid: 7\nretry: 5\n")
        for byte in stream.encode():
            turn.wfile.write(bytes([byte]))
        turn.wfile.write(b"data: [DONE]")

    assert model_at(serve(play).url).chat(HELLO).text == "grüß"


def test_only_the_first_of_several_choices_counts(serve: Serve) -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    server = serve(lambda turn: turn.events([delta("yes"), other, delta(finish="stop"), other]))
    reply = model_at(server.url).chat(HELLO)
    assert (reply.text, reply.finish_reason) == ("yes", "stop")


def test_the_end_of_the_reply_is_enough(serve: Serve) -> None:
    def play(turn: Turn) -> None:
        turn.head(Transfer_Encoding="chunked")
        turn.event(delta("all"))
        turn.event(delta(finish="stop"))
        turn.cut()

    assert model_at(serve(play).url).chat(HELLO).text == "all"


def test_a_server_that_never_hangs_up_is_not_waited_for(serve: Serve) -> None:
    over = threading.Event()

    def play(turn: Turn) -> None:
        turn.head(Transfer_Encoding="chunked")
        turn.event(delta("all", finish="stop"))
        turn.event("[DONE]")
        over.wait(20)

    started = time.monotonic()
    try:
        assert model_at(serve(play).url).chat(HELLO).text == "all"
    finally:
        over.set()
    assert time.monotonic() - started < 3


def test_vectors_come_in_the_order_of_the_texts(serve: Serve) -> None:
    model = model_at(serve(Good()).url)
    assert model.embed(["a", "bbb", "cc"]) == [[1.0, 1.0], [3.0, 1.0], [2.0, 1.0]]
    assert model.embed([]) == []


def test_it_cannot_score_and_so_is_never_compact(serve: Serve) -> None:
    model = model_at(serve(Good()).url)
    assert not model.profile.compact
    assert model.count("x" * 10) == 3
    with pytest.raises(ModelError, match="cannot score"):
        model.score([("a", "b")])


# constraints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refuses", "form"),
    [((), "json_schema"), (("json_schema",), "json_object"), (("response_format",), "tools")],
)
def test_a_schema_is_held_by_what_the_server_can_do(serve: Serve, refuses: tuple[str, ...], form: str) -> None:
    server = serve(Good(say=lambda body: '{"n": 5}', refuses=refuses))
    model, deltas = model_at(server.url), list[Delta]()
    reply = model.chat(replace(HELLO, schema=SCHEMA), deltas.append)
    assert (reply.text, reply.tool_calls, reply.finish_reason) == ('{"n": 5}', (), "stop")
    assert "".join(each.text for each in deltas) == '{"n": 5}'
    assert model.link.abilities("small").form == form
    asked = len(server.bodies)
    model.chat(replace(HELLO, schema=SCHEMA))
    assert len(server.bodies) == asked + 1  # what was learned is not asked again


def test_a_server_that_holds_nothing_says_so_and_is_repaired(serve: Serve) -> None:
    replies = iter(["five", 'It is ```json\n{"n": 5}\n```'])
    server = serve(Good(say=lambda body: next(replies), refuses=("response_format", "tools")))
    model = model_at(server.url)
    with pytest.raises(NoGrammar):
        model.chat(replace(HELLO, schema=SCHEMA))
    assert ask(model, HELLO.messages, SCHEMA) == {"n": 5}


@pytest.mark.parametrize("text", ['{"n": "five"}', "Sure! Here it is.", '{"n": 5', "[]"])
def test_a_server_that_ignores_the_schema_is_noticed(serve: Serve, text: str) -> None:
    server = serve(Good(say=lambda body: text))
    with pytest.raises(NoGrammar, match="did not keep"):
        model_at(server.url).chat(replace(HELLO, schema=SCHEMA))


def test_another_refusal_is_not_taken_for_one_of_the_form(serve: Serve) -> None:
    server = serve(lambda turn: turn.json({"error": {"message": "the prompt is too long: 9000 tokens"}}, 400))
    model = model_at(server.url)
    with pytest.raises(ServerRefused, match="too long"):
        model.chat(replace(HELLO, schema=SCHEMA))
    assert model.link.abilities("small").form == "json_schema"


def test_choices_by_schema(serve: Serve) -> None:
    server, deltas = serve(Good(say=lambda body: '{"choice": "blue sky"}')), list[Delta]()
    reply = model_at(server.url).chat(replace(HELLO, choices=("red", "blue sky")), deltas.append)
    assert (reply.text, [each.text for each in deltas]) == ("blue sky", ["blue sky"])


@pytest.mark.parametrize(
    ("said", "chosen"), [("red", "red"), (' "blue"\n', "blue"), ("Blue.", None), ("red blue", None)]
)
def test_choices_in_words(serve: Serve, said: str, chosen: str | None) -> None:
    model = model_at(serve(Good(say=lambda body: said, refuses=("response_format", "tools"))).url)
    if chosen is not None:
        assert model.chat(replace(HELLO, choices=("red", "blue"))).text == chosen
        return
    with pytest.raises(BadReply):
        model.chat(replace(HELLO, choices=("red", "blue")))


def test_a_grammar_is_not_for_servers(serve: Serve) -> None:
    with pytest.raises(NoGrammar):
        model_at(serve(Good()).url).chat(replace(HELLO, grammar="root ::= 'a'"))


@pytest.mark.parametrize("name", ["stream_options", "seed", "top_k", "min_p", "repeat_penalty"])
def test_parameters_that_a_server_does_not_take_are_left_out(serve: Serve, name: str) -> None:
    server = serve(Good(refuses=(name,)))
    model = model_at(server.url)
    request = replace(HELLO, temperature=0.5, seed=7, top_k=5, min_p=0.1, repeat_penalty=1.5)
    assert model.chat(request).text == "hello there"
    model.chat(request)
    assert [name in body for body in server.bodies] == [True, False, False]


def test_a_server_that_calls_the_limit_otherwise(serve: Serve) -> None:
    def play(turn: Turn) -> None:
        if "max_tokens" in turn.body:
            turn.json({"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}, 400)
        else:
            Good()(turn)

    server = serve(play)
    model_at(server.url).chat(HELLO)
    assert server.bodies[-1]["max_completion_tokens"] == HELLO.max_tokens


# what goes wrong -----------------------------------------------------------------------------------------------------


def never(turn: Turn) -> None:
    turn.connection.recv(1)


def half(turn: Turn) -> None:
    turn.head(Transfer_Encoding="chunked")
    turn.event(delta("half of"))
    turn.cut()


def ends_early(turn: Turn) -> None:
    turn.events([delta("half of")], done=False)


def endless(turn: Turn) -> None:
    turn.head()
    while True:
        turn.wfile.write(b"data: " + json.dumps(delta("x" * 5000)).encode() + b"\n\n")


def endless_comments(turn: Turn) -> None:
    turn.head()
    while True:
        turn.wfile.write(b": still here\n" * 1000)


def endless_line(turn: Turn) -> None:
    turn.head()
    while True:
        turn.wfile.write(b"x" * 65536)


def cut_before_head(turn: Turn) -> None:
    turn.cut()


def short_of_its_length(turn: Turn) -> None:
    turn.head(kind="application/json", Content_Length="1000")
    turn.wfile.write(json.dumps(message("x")).encode())
    turn.cut()


def zipped(turn: Turn) -> None:
    turn.whole(b"\x1f\x8b\x08", Content_Encoding="gzip")


def no_http(turn: Turn) -> None:
    turn.wfile.write(b"\x00\x01\x02 not HTTP at all\r\n\r\n")
    turn.close_connection = True


def stream(*events: Any, done: bool = True) -> Play:
    return lambda turn: turn.events(events, done=done)


def answer(value: Any, status: int = 200, **headers: str) -> Play:
    return lambda turn: turn.json(value, status, **headers)


HTML = "<html><title>It works!</title></html>"
LONE = {"choices": [{"delta": {"content": 5}}]}

FAULTS: dict[str, tuple[Play, type[ModelError], bool]] = {
    "half a stream": (half, BrokenReply, True),
    "an end without a reason": (ends_early, BrokenReply, True),
    "an empty stream": (stream(done=False), BrokenReply, True),
    "nothing said": (stream(), BrokenReply, True),
    "an end without content": (stream(delta(finish="stop")), BrokenReply, True),
    "no choices": (stream({"choices": []}, {"choices": []}, done=False), BrokenReply, True),
    "garbage": (stream(delta("good"), "{gar\x00bage"), BrokenReply, True),
    "an event that is a list": (stream([1, 2]), BrokenReply, True),
    "an event without choices": (stream({"id": 1}), BrokenReply, True),
    "choices that are no list": (stream({"choices": {"0": 1}}), BrokenReply, True),
    "a choice that is no object": (stream({"choices": [5]}), BrokenReply, True),
    "text that is a number": (stream(LONE), BrokenReply, True),
    "an end that is unknown": (stream(delta("x"), delta(finish="abort")), BrokenReply, True),
    "an end that is a number": (stream(delta("x"), delta(finish=5)), BrokenReply, True),  # type: ignore[arg-type]
    "NaN": (stream('{"choices": [], "x": NaN}'), BrokenReply, True),
    "deep nesting": (stream("[" * 100_000), BrokenReply, True),
    "no UTF-8": (lambda turn: turn.whole(b"data: \xff\xfe\n\n", kind="text/event-stream"), BrokenReply, True),
    "lines that are no events": (lambda turn: turn.whole(HTML, kind="text/event-stream"), BrokenReply, True),
    "HTML": (lambda turn: turn.whole(HTML, kind="text/html"), BrokenReply, True),
    "HTML as JSON": (lambda turn: turn.whole(HTML), BrokenReply, True),
    "no type": (lambda turn: turn.whole("hello", kind=""), BrokenReply, True),
    "other JSON": (answer({"hello": "world"}), BrokenReply, True),
    "a JSON list": (answer([]), BrokenReply, True),
    "no choices in one piece": (answer({"choices": []}), BrokenReply, True),
    "half JSON": (lambda turn: turn.whole('{"choices": [{"mess'), BrokenReply, True),
    "less than announced": (short_of_its_length, BrokenReply, True),
    "packed": (zipped, BrokenReply, True),
    "nothing at all": (cut_before_head, BrokenReply, True),
    "no HTTP": (no_http, BrokenReply, True),
    "204": (answer(None, 206), BrokenReply, True),
    "an endless stream": (endless, BrokenReply, True),
    "endless comments": (endless_comments, BrokenReply, True),
    "an endless line": (endless_line, BrokenReply, True),
    "an error in the stream": (stream(delta("a"), {"error": {"message": "CUDA out of memory"}}), ServerFailed, True),
    "an error as text": (stream({"error": "it broke"}), ServerFailed, True),
    "an error object": (answer({"object": "error", "message": "no"}), ServerFailed, True),
    "too many, in the stream": (stream({"error": {"message": "slow down", "code": 429}}), Busy, True),
    "refused in the stream": (
        stream({"error": {"message": "no", "type": "invalid_request_error"}}),
        ServerRefused,
        False,
    ),
    "filtered": (stream(delta("x"), delta(finish="content_filter")), ServerRefused, False),
    "500": (answer({"error": {"message": "it broke"}}, 500), ServerFailed, True),
    "502 with HTML": (lambda turn: turn.whole(HTML, 502, "text/html"), ServerFailed, True),
    "503": (answer({"detail": "overloaded"}, 503), ServerFailed, True),
    "503 while loading": (answer({"error": {"message": "Loading model"}}, 503), Busy, True),
    "429": (answer({"error": "later"}, 429, Retry_After="7"), Busy, True),
    "400": (answer({"error": {"message": "bad"}}, 400), ServerRefused, False),
    "401": (answer({}, 401), ServerRefused, False),
    "403": (answer({}, 403), ServerRefused, False),
    "404": (answer({"error": {"message": "model not found"}}, 404), ServerRefused, False),
    "501": (answer({}, 501), ServerRefused, False),
    "a redirect": (answer({}, 307, Location="http://elsewhere.example/v1"), ServerRefused, False),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_an_error(serve: Serve, fault: str) -> None:
    play, kind, retryable = FAULTS[fault]
    server, deltas = serve(play), list[Delta]()
    with pytest.raises(ModelError) as caught:
        model_at(server.url).chat(HELLO, deltas.append)
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert caught.value.sent is bool(deltas)
    assert "box" in caught.value.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_recovers_is_used_again(serve: Serve, fault: str) -> None:
    plays = iter([FAULTS[fault][0]])
    model = model_at(serve(lambda turn: next(plays, Good())(turn)).url)
    with pytest.raises(ModelError):
        model.chat(HELLO)
    assert model.chat(HELLO).text == "hello there"


@pytest.mark.parametrize(
    "events",
    [
        [call_delta(0, "weather", '{"city":')],
        [call_delta(0, "weather", "[]")],
        [call_delta(0, "delete_all", "{}")],
    ],
)
def test_calls_that_cannot_be_made(serve: Serve, events: list[Any]) -> None:
    server = serve(stream(*events, delta(finish="tool_calls")))
    with pytest.raises(BadReply):
        model_at(server.url).chat(replace(HELLO, tools=(WEATHER,)))


@pytest.mark.parametrize(
    "events",
    [
        [delta(finish="tool_calls")],
        [delta("I call the weather."), delta(finish="tool_calls")],
        [call_delta(0, "", "{}")],
        [delta(tool_calls={"a": 1})],
        [delta(tool_calls=[7])],
        [call_delta(n, "weather", "{}", f"c{n}") for n in range(200)],
    ],
)
def test_calls_that_are_none(serve: Serve, events: list[Any]) -> None:
    server = serve(stream(*events, delta(finish="tool_calls")))
    with pytest.raises(BrokenReply):
        model_at(server.url).chat(replace(HELLO, tools=(WEATHER,)))


def test_a_call_that_was_cut_off_is_not_made(serve: Serve) -> None:
    events = [call_delta(0, "weather", "{}", "a"), call_delta(1, "weather", '{"ci', "b"), delta(finish="length")]
    reply = model_at(serve(stream(*events)).url).chat(replace(HELLO, tools=(WEATHER,)))
    assert ([call.id for call in reply.tool_calls], reply.finish_reason) == (["a"], "length")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 1.0), ("99999999", 3600.0), ("nan", 1.0), ("soon", 1.0), ("", 1.0)],
)
def test_how_long_to_wait(serve: Serve, header: str, seconds: float) -> None:
    server = serve(answer({}, 429, Retry_After=header))
    with pytest.raises(Busy) as caught:
        model_at(server.url).chat(HELLO)
    assert caught.value.retry_after == seconds


def test_a_date_to_wait_for(serve: Serve) -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    server = serve(answer({}, 429, Retry_After=at.strftime("%a, %d %b %Y %H:%M:%S GMT")))
    with pytest.raises(Busy) as caught:
        model_at(server.url).chat(HELLO)
    assert 25 < caught.value.retry_after < 31


def test_what_a_server_says_is_shortened_and_harmless(serve: Serve) -> None:
    said = "\x1b[2J\x00bad\r\nthing\u202e " + "x" * 5000
    server = serve(answer({"error": {"message": said}}, 400))
    with pytest.raises(ServerRefused) as caught:
        model_at(server.url).chat(HELLO)
    assert "bad thing" in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


# time -----------------------------------------------------------------------------------------------------------------


def drip(turn: Turn) -> None:
    turn.head(Transfer_Encoding="chunked")
    while True:
        turn.event(delta("x"))
        time.sleep(0.05)


def drip_head(turn: Turn) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Slow: " + b"x" * 1000:
        turn.wfile.write(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("play", [never, drip, drip_head])
def test_the_time_limit_holds_whatever_the_server_does(serve: Serve, play: Play) -> None:
    server = serve(play)
    started = time.monotonic()
    with pytest.raises(TooSlow):
        model_at(server.url).chat(replace(HELLO, timeout=0.4))
    assert 0.3 < time.monotonic() - started < 1.5


def test_the_server_may_have_a_limit_of_its_own(serve: Serve) -> None:
    started = time.monotonic()
    with pytest.raises(TooSlow):
        model_at(serve(never).url, timeout=0.3).chat(HELLO)
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("play", [never, drip, drip_head, endless])
def test_a_cancelled_request_ends_at_once_and_the_server_is_cut_off(serve: Serve, play: Play) -> None:
    gone = threading.Event()

    def watched(turn: Turn) -> None:
        try:
            play(turn)
        finally:
            gone.set()

    server, cancel = serve(watched), threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    request = replace(HELLO, max_tokens=1_000_000)
    with pytest.raises(Cancelled):
        model_at(server.url).chat(request, None, cancel)
    timer.join()
    assert gone.wait(0.5)


def test_cancelled_before_it_began(serve: Serve) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        model_at(serve(Good()).url).chat(HELLO, None, cancel)


def test_a_listener_that_fails_cuts_the_connection(serve: Serve) -> None:
    gone = threading.Event()

    def watched(turn: Turn) -> None:
        try:
            drip(turn)
        finally:
            gone.set()

    def fail(delta: Delta) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        model_at(serve(watched).url).chat(HELLO, fail)
    assert gone.wait(1)


# reaching it ----------------------------------------------------------------------------------------------------------


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets this port meanwhile
        with pytest.raises(ServerDown) as caught:
            model_at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1").chat(HELLO)
    assert caught.value.retryable
    assert not caught.value.sent


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ServerDown):
        model_at("http://nobody.invalid:80/v1").chat(replace(HELLO, timeout=5.0))


def test_connecting_has_a_limit() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        crowd = []
        for _ in range(4):  # its queue is full after the first of them
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            crowd.append(one)
        started = time.monotonic()
        with pytest.raises(ServerDown):
            model_at(f"http://127.0.0.1:{address[1]}/v1", connect_timeout=0.3).chat(HELLO)
        assert time.monotonic() - started < 2
        for one in crowd:
            one.close()


def test_policy_is_asked_before_anything_is_sent(serve: Serve) -> None:
    server, records = serve(Good()), list[tuple[str, JsonObject]]()

    def refuse(host: str, port: int) -> None:
        raise Denied(f"not to {host}:{port}")

    entry = ServerEntry(name="box", urls=(server.url,))
    model = model_of(entry, may_send=refuse, record=lambda kind, task, data: records.append((kind, data)))
    for use in (lambda: model.chat(HELLO), lambda: model.embed(["hello"]), lambda: model.link.models()):
        with pytest.raises(Denied, match=str(server.port)):
            use()
    assert server.requests == []
    told = [(kind, data["decision"], data["port"]) for kind, data in records]
    assert told == [("model.send", "deny", server.port)] * 2  # the question without a text is told but once
    assert "hello" not in json.dumps(records)


def test_the_first_sending_to_a_server_is_recorded(serve: Serve) -> None:
    server, records = serve(Good()), list[tuple[str, str, JsonObject]]()
    entry = ServerEntry(name="box", urls=(server.url,))
    model = model_of(entry, record=lambda kind, task, data: records.append((kind, task, data)))
    model.chat(replace(HELLO, client="t1"))
    model.chat(replace(HELLO, client="t2"))
    ((kind, task, data),) = records
    size = int(server.requests[0].headers["Content-Length"])
    assert (kind, task) == ("model.send", "t1")
    assert data == {
        "decision": "allow", "server": "box", "host": "127.0.0.1", "port": server.port, "model": "small", "bytes": size,
    }  # fmt: skip


def test_the_key_is_sent_and_nowhere_to_be_read(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server = serve(Good(key="sk-right"))
    assert model_at(server.url, secret="sk-right").chat(HELLO).text == "hello there"
    with pytest.raises(ServerRefused) as caught:
        model_at(server.url, secret="sk-wrong-key").chat(HELLO)
    assert caught.value.status == 401
    assert "sk-wrong-key" not in str(caught.value) + caplog.text


def test_a_key_that_is_not_in_the_vault(serve: Serve) -> None:
    server = serve(Good())
    entry = ServerEntry(name="box", urls=(server.url,), key="box-key")
    model = model_of(entry)
    with pytest.raises(ServerRefused) as caught:
        model.chat(HELLO)
    assert caught.value.hint == "agentd secret set box-key"
    assert server.requests == []


@pytest.mark.parametrize("secret", ["a\r\nX-Evil: 1", "ключ", "a b", "\x00"])
def test_a_key_that_no_header_can_carry(serve: Serve, secret: str) -> None:
    server = serve(Good())
    with pytest.raises(ServerRefused) as caught:
        model_at(server.url, secret=secret).chat(HELLO)
    assert secret not in str(caught.value)
    assert server.requests == []


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS with a certificate that it signed itself, and the file with that certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / "box.pem", folder / "box.key"
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_file)
    return context, pem


def test_tls_with_a_certificate_of_its_own(serve: Serve, tmp_path: Path) -> None:
    tls, pem = certificate(tmp_path, "127.0.0.1")
    server = serve(Good(), tls=tls)
    assert model_at(server.url, verify=pem).chat(HELLO).text == "hello there"
    with pytest.raises(ServerDown, match="vouches") as caught:
        model_at(server.url).chat(HELLO)
    assert "--ca" in caught.value.hint
    assert len(server.requests) == 1


def test_tls_of_another_host(serve: Serve, tmp_path: Path) -> None:
    tls, pem = certificate(tmp_path, "192.0.2.1")
    with pytest.raises(ServerDown, match="vouches"):
        model_at(serve(Good(), tls=tls).url, verify=pem).chat(HELLO)


def test_a_certificate_that_is_none(serve: Serve, tmp_path: Path) -> None:
    for path, text in ((tmp_path / "none.pem", None), (tmp_path / "bad.pem", "hello")):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ModelError, match="cannot be used"):
            model_at("https://127.0.0.1:9/v1", verify=path).chat(HELLO)


def test_a_long_stream_over_tls_can_be_cancelled(serve: Serve, tmp_path: Path) -> None:
    tls, pem = certificate(tmp_path, "127.0.0.1")
    gone, cancel = threading.Event(), threading.Event()

    def watched(turn: Turn) -> None:
        try:
            drip(turn)
        finally:
            gone.set()

    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Cancelled):
        model_at(serve(watched, tls=tls).url, verify=pem).chat(HELLO, None, cancel)
    assert gone.wait(1)


class Proxy(BaseHTTPRequestHandler):
    """Takes whole URLs, as proxies do, and fetches them."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        body = json.dumps(message("through the proxy")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_proxy_that_was_named(proxy: ThreadingHTTPServer) -> None:
    asked: list[tuple[str, int]] = []
    url = f"http://127.0.0.1:{proxy.server_port}"
    entry = ServerEntry(name="box", urls=("http://models.example:80/v1",), proxy=url)
    model = model_of(entry, may_send=lambda host, port: asked.append((host, port)))
    assert model.chat(HELLO).text == "through the proxy"
    assert proxy.seen == ["http://models.example/v1/chat/completions"]  # type: ignore[attr-defined]
    assert asked == [("models.example", 80), ("127.0.0.1", proxy.server_port)]


def test_proxies_of_the_environment_are_not_taken(
    serve: Serve, proxy: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert model_at(serve(Good()).url).chat(HELLO).text == "hello there"
    assert proxy.seen == []  # type: ignore[attr-defined]


def test_a_proxy_of_a_kind_that_cannot_be_used() -> None:
    with pytest.raises(ModelError, match="SOCKS"):
        model_at("http://127.0.0.1:9/v1", proxy="socks5://127.0.0.1:1080").chat(HELLO)


def test_a_proxy_that_is_down(serve: Serve) -> None:
    server = serve(Good())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ServerDown):
            model_at(server.url, proxy=f"http://127.0.0.1:{taken.getsockname()[1]}").chat(HELLO)
    assert server.requests == []


def test_a_localhost_that_is_elsewhere_is_not_spoken_to(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    """A hosts file may map `localhost` to another machine, where policy has not allowed to send."""
    server = serve(Good())
    peers = iter(["192.0.2.7", "127.0.0.1"])
    real = socket.socket.getpeername
    monkeypatch.setattr(socket.socket, "getpeername", lambda self: (next(peers), real(self)[1]))
    model = model_at(server.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(ServerDown, match=r"192\.0\.2\.7"):
        model.chat(HELLO)
    assert server.requests == []
    assert model.chat(HELLO).text == "hello there"
