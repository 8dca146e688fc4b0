"""The way to the daemon, where the daemon is not as it should be."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd.cli.client import Client, Endpoint, TimedOut, endpoint, error_of
from agentd.cli.options import Invocation
from agentd.errors import AgentdError, BadInput, Denied, Unauthorised, Unreachable


@contextmanager
def server(*replies: bytes, hold: float = 0.0) -> Iterator[Endpoint]:
    """Gives each connection the next of `replies`, `hold` seconds later closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)
                    time.sleep(hold)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Endpoint(host="127.0.0.1", port=listener.getsockname()[1])
        thread.join(5)


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def events(*numbers: int, end: bool = False) -> bytes:
    """A stream as the daemon sends it, cut off after these events unless it has an end."""
    frames = [b'id: %d\nevent: Tick\ndata: {"id": %d}\n\n' % (number, number) for number in numbers]
    return (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        + b"".join(frames)
        + (b"event: end\ndata: {}\n\n" if end else b"")
    )


def test_an_error_comes_back_as_what_it_was() -> None:
    body = b'{"error": {"code": "policy.denied", "message": "no", "hint": "ask"}}'
    with server(answer(body, "403 Forbidden")) as where, pytest.raises(Denied, match="no\nhint: ask"):
        Client(where).get("/x")


def test_an_error_of_a_newer_daemon_keeps_its_code() -> None:
    error = error_of({"error": {"code": "moon.full", "message": "m", "hint": ""}})
    assert (type(error), error.code) == (AgentdError, "moon.full")


@pytest.mark.parametrize(
    "reply", [answer(b"<html>"), answer(b"<html>", "500 Oops"), answer(b'{"error": 5}', "500 Oops")]
)
def test_something_else_that_answers(reply: bytes) -> None:
    with server(reply) as where, pytest.raises(AgentdError, match=r"no agentd|answered 500"):
        Client(where).get("/x")


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"])
def test_an_answer_that_breaks_off(reply: bytes) -> None:
    with server(reply) as where, pytest.raises(Unreachable):
        Client(where).get("/x")


def test_no_answer_in_time() -> None:
    with server(b"", hold=0.5) as where, pytest.raises(Unreachable, match="no answer within"):
        Client(where).post("/x", timeout=0.1)


def test_events_go_on_after_the_connection_broke() -> None:
    with server(events(1, 2), events(3, end=True)) as where:
        assert [event["id"] for event in Client(where).events()] == [1, 2, 3]


def test_a_backlog_that_breaks_off_is_an_error() -> None:
    with server(events(1)) as where, pytest.raises(Unreachable):
        list(Client(where).events(follow=False))


def test_a_deadline_ends_the_wait_for_events() -> None:
    with server(events(1), hold=0.6) as where:
        seen = Client(where).events(deadline=time.monotonic() + 0.2)
        assert next(seen)["id"] == 1
        with pytest.raises(TimedOut):
            next(seen)


def test_the_token_of_the_home_is_told_to_this_machine_alone(home: Path) -> None:
    (home / "state" / "token").write_text("secret\n")

    def to(url: str) -> Endpoint:
        return endpoint(Invocation(home=str(home), host=url))

    assert to("http://127.0.0.1:1234") == Endpoint(host="127.0.0.1", port=1234, token="secret")
    assert to("localhost:1234").token == "secret"
    with pytest.raises(Unauthorised, match=r"no token for example\.org"):
        to("http://example.org:1234")


@pytest.mark.parametrize("url", ["ftp://x", "http://:99", "http://a:port", "unix://"])
def test_an_address_that_is_none(home: Path, url: str) -> None:
    with pytest.raises(BadInput):
        endpoint(Invocation(home=str(home), host=url))


@pytest.mark.skipif(os.name != "posix", reason="unix sockets")
def test_the_socket_of_the_home_is_the_usual_way(home: Path) -> None:
    assert endpoint(Invocation(home=str(home))) == Endpoint(path=home / "state" / "agentd.sock")
