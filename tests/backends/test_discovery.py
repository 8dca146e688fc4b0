"""Servers on this machine: told apart by what they say, and nothing else is taken for one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agentd.backends.discovery import look_around
from tests.backends.openai_server import Good, OpenAiServer, Play, Turn


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def hang(turn: Turn) -> None:
    turn.connection.recv(1)


def drip(turn: Turn) -> None:
    turn.head(kind="application/json")
    while True:
        turn.wfile.write(b" ")
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("owner", "kind"),
    [("llamacpp", "llama-server"), ("library", "ollama"), ("vllm", "vllm"), ("organization_owner", "lm-studio"),
     ("me", "llama-cpp-python"), ("koboldcpp", "koboldcpp"), ("agentd", "agentd"), ("somebody", "server")],
)  # fmt: skip
def test_who_it_is(stack: ExitStack, owner: str, kind: str) -> None:
    server = stack.enter_context(OpenAiServer(Good(owner=owner)))
    (found,) = look_around([server.port])
    assert (found.kind, found.url, found.models) == (kind, server.url, ("small", "large"))


def test_one_that_wants_a_key(stack: ExitStack) -> None:
    server = stack.enter_context(OpenAiServer(Good(key="k")))
    (found,) = look_around([server.port])
    assert (found.locked, found.models) == (True, ())


@pytest.mark.parametrize(
    "play",
    [
        hang,
        drip,
        lambda turn: turn.whole("<html>", kind="text/html"),
        lambda turn: turn.whole("[]"),
        lambda turn: turn.json({"data": "none"}),
        lambda turn: turn.json({"models": []}),
        lambda turn: turn.json({}, 404),
        lambda turn: turn.json({}, 500),
        lambda turn: turn.json({}, 302, Location="http://example.com"),
        lambda turn: turn.whole(b"x" * 20_000_000),
        lambda turn: turn.cut(),
    ],
)
def test_what_is_none(stack: ExitStack, play: Play) -> None:
    server = stack.enter_context(OpenAiServer(play))
    started = time.monotonic()
    assert look_around([server.port], seconds=0.5) == []
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("row", [5, {}, {"id": 7}, {"id": ""}, None])
def test_rows_that_are_no_models(stack: ExitStack, row: object) -> None:
    server = stack.enter_context(OpenAiServer(lambda turn: turn.json({"data": [row, {"id": "a\x1b[2Jb"}]})))
    (found,) = look_around([server.port])
    assert found.models == ("a [2Jb",)


def test_many_that_hang_take_no_longer_than_one(stack: ExitStack) -> None:
    servers = [stack.enter_context(OpenAiServer(hang)) for _ in range(8)]
    good = stack.enter_context(OpenAiServer(Good()))
    started = time.monotonic()
    found = look_around([*(server.port for server in servers), good.port], seconds=0.5)
    assert [each.port for each in found] == [good.port]
    assert time.monotonic() - started < 2


def test_nobody_and_no_http(stack: ExitStack) -> None:
    silent = stack.enter_context(socket.socket())
    silent.bind(("127.0.0.1", 0))
    rude = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def answer() -> None:
        connection, _ = rude.accept()
        with connection:
            connection.sendall(b"220 mail.example ESMTP\r\n")

    threading.Thread(target=answer, daemon=True).start()
    assert look_around([silent.getsockname()[1], rude.getsockname()[1]], seconds=0.5) == []
