"""What a plugin may ask for: what its manifest declares, as far as policy allows it, and no more."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentd.backends.http_lines import Lines, is_public
from agentd.errors import Denied, ServerDown, ToolFailed
from agentd.plugins.broker import MAX_ANSWER, MAX_STAGED, Broker, MemoryPlace, WorkspacePlace, permission_flaw
from agentd.plugins.fetch import MAX_BYTES, server_of
from agentd.plugins.spec import Permissions
from agentd.sandbox.job import RequestRefused
from agentd.tools.tool import ToolContext
from agentd.types import Action
from agentd.workspace.paths import Workspace


class Desk:
    """A broker over a real folder; `denied` are the actions that policy does not allow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.denied: set[str] = set()
        self.asked: list[str] = []
        self.noted: list[dict[str, Any]] = []

    def broker(self, **permissions: tuple[str, ...]) -> Broker:
        ctx = ToolContext(workspace=Workspace(self.folder), key="k", require=self.judge, ask=self.judge)
        note = lambda told: self.noted.append(dict(told))  # noqa: E731
        return Broker(Permissions(**permissions), WorkspacePlace(ctx), note=note)

    def judge(self, action: Action) -> None:
        self.asked.append(str(action))
        if str(action) in self.denied:
            raise Denied(f"{action} is denied")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "work"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.csv").write_text("n\n1\n")
    (folder / "in" / "b.txt").write_text("b")
    (tmp_path / "outside.csv").write_text("secret")
    return Desk(folder)


def refusal(broker: Broker, name: str, **args: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        broker(name, args)
    return caught.value


# reading --------------------------------------------------------------------------------------------------------------


def test_a_declared_file_is_read_and_the_request_noted(desk: Desk) -> None:
    broker = desk.broker(read=("**/*.csv",))
    assert broker("files.read_text", {"path": "in/a.csv"}) == "n\n1\n"
    assert base64.b64decode(broker("files.read_bytes", {"path": "./in//a.csv"})) == b"n\n1\n"
    assert desk.asked == ["fs.read in/a.csv"] * 2
    assert desk.noted[0] == {"request": "files.read_text", "about": "in/a.csv", "ok": True}
    assert list(broker.read) == ["in/a.csv"]


@pytest.mark.parametrize(
    "path", ["in/b.txt", "in", ".", "../outside.csv", "/etc/passwd", "in/../../outside.csv", "~/a.csv"]
)
def test_what_is_not_declared_is_not_read(desk: Desk, path: str) -> None:
    broker = desk.broker(read=("**/*.csv",))
    refused = refusal(broker, "files.read_text", path=path)
    assert refused.kind == "PermissionError"
    assert desk.noted[-1]["ok"] is False
    assert broker.refused == [path]


def test_a_link_is_judged_by_where_it_leads(desk: Desk, tmp_path: Path) -> None:
    os.symlink(tmp_path / "outside.csv", desk.folder / "link.csv")
    os.symlink("in/b.txt", desk.folder / "b.csv")
    broker = desk.broker(read=("**/*.csv",))
    for path in ("link.csv", "b.csv"):
        assert refusal(broker, "files.read_text", path=path).kind == "PermissionError"


def test_policy_has_the_last_word(desk: Desk) -> None:
    desk.denied.add("fs.read in/a.csv")
    refused = refusal(desk.broker(read=("**",)), "files.read_text", path="in/a.csv")
    assert (refused.kind, "denied" in refused.message) == ("PermissionError", True)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("gone.csv", "FileNotFoundError"), ("in", "IsADirectoryError"), ("in/a.csv/x", "FileNotFoundError")],
)
def test_what_cannot_be_read_is_said_as_python_says_it(desk: Desk, path: str, kind: str) -> None:
    assert refusal(desk.broker(read=("**",)), "files.read_text", path=path).kind == kind


def test_what_is_too_large_or_no_text_is_refused(desk: Desk) -> None:
    (desk.folder / "big").write_bytes(b"x" * (MAX_ANSWER + 1))
    (desk.folder / "escaped").write_bytes(b"\0" * (MAX_ANSWER // 2))
    (desk.folder / "raw").write_bytes(b"\xff\xfe")
    broker = desk.broker(read=("**",))
    for path in ("big", "escaped"):
        assert refusal(broker, "files.read_text", path=path).kind == "OSError"
    assert refusal(broker, "files.read_text", path="raw").kind == "ValueError"
    assert refusal(broker, "files.read_text", path="raw", encoding="idna").kind == "LookupError"
    assert broker("files.read_text", {"path": "raw", "encoding": "latin-1"}) == "ÿþ"


def test_names_are_shown_as_far_as_they_may_be_read(desk: Desk) -> None:
    assert desk.broker(read=("**/*.csv",))("files.list", {"path": "in"}) == ["a.csv"]
    assert desk.broker(read=("in/**",))("files.list", {"path": "in"}) == ["a.csv", "b.txt"]
    assert desk.broker(read=("**/*.csv",))("files.exists", {"path": "in/a.csv"}) is True
    assert desk.broker(read=("**/*.csv",))("files.exists", {"path": "in/z.csv"}) is False
    assert refusal(desk.broker(read=("**/*.csv",)), "files.exists", path="in/b.txt").kind == "PermissionError"
    assert refusal(desk.broker(read=("**",)), "files.list", path="gone").kind == "FileNotFoundError"
    assert refusal(desk.broker(read=("**",)), "files.list", path="in/a.csv").kind == "NotADirectoryError"


# writing --------------------------------------------------------------------------------------------------------------


def test_writes_wait_for_the_end_and_are_read_back_meanwhile(desk: Desk) -> None:
    broker = desk.broker(write=("out/**",))
    broker("files.write_text", {"path": "out/x.txt", "text": "one"})
    broker("files.write_text", {"path": "out/x.txt", "text": " two", "append": True})
    broker("files.write_bytes", {"path": "out/y", "data": base64.b64encode(b"\xff").decode()})
    assert broker("files.read_text", {"path": "out/x.txt"}) == "one two"
    assert broker("files.list", {"path": "out"}) == ["x.txt", "y"]
    assert broker("files.exists", {"path": "out"}) is True
    assert not (desk.folder / "out").exists()
    assert broker.commit() == ["out/x.txt", "out/y"]
    assert (desk.folder / "out" / "x.txt").read_text() == "one two"
    assert (desk.folder / "out" / "y").read_bytes() == b"\xff"


def test_an_appended_file_keeps_what_it_had(desk: Desk) -> None:
    broker = desk.broker(write=("in/b.txt",))
    broker("files.write_text", {"path": "in/b.txt", "text": "c", "append": True})
    broker.commit()
    assert (desk.folder / "in" / "b.txt").read_text() == "bc"


@pytest.mark.parametrize("path", ["in/a.csv", "../outside.csv", "/tmp/x.txt", ".git/hooks/x.txt"])
def test_what_is_not_declared_is_not_written(desk: Desk, path: str) -> None:
    broker = desk.broker(read=("**",), write=("out/**",))
    assert refusal(broker, "files.write_text", path=path, text="x").kind == "PermissionError"
    assert broker.commit() == []


def test_a_write_is_judged_before_it_waits(desk: Desk) -> None:
    desk.denied.add("fs.write out/x")
    broker = desk.broker(write=("out/**",))
    assert refusal(broker, "files.write_text", path="out/x", text="x").kind == "PermissionError"
    assert broker.commit() == []


def test_a_call_writes_no_more_than_so_much(desk: Desk) -> None:
    broker = desk.broker(write=("**",))
    piece = "x" * (MAX_STAGED // 4)
    for number in range(4):
        broker("files.write_text", {"path": str(number), "text": piece})
    assert refusal(broker, "files.write_text", path="5", text="x").kind == "OSError"
    broker("files.write_text", {"path": "0", "text": ""})
    broker("files.write_text", {"path": "5", "text": "x"})


def test_a_write_that_fails_at_the_end_says_what_was_written(desk: Desk) -> None:
    (desk.folder / "b").write_text("locked")
    (desk.folder / "b").chmod(0o444)
    broker = desk.broker(write=("**",))
    for name in ("a", "b"):
        broker("files.write_text", {"path": name, "text": "x"})
    with pytest.raises(ToolFailed, match="written before it: a"):
        broker.commit()


@pytest.mark.parametrize(
    ("name", "args", "kind"),
    [
        ("files.write_text", {"path": "x"}, "TypeError"),
        ("files.write_text", {"path": 1, "text": "x"}, "TypeError"),
        ("files.write_text", {"path": "x", "text": "ü", "encoding": "ascii"}, "ValueError"),
        ("files.write_bytes", {"path": "x", "data": "%"}, "ValueError"),
        ("files.delete", {"path": "x"}, "ValueError"),
        ("plugin.call", {"entry": "x", "args": {}}, "ValueError"),
        ("files.read_text", {}, "TypeError"),
    ],
)
def test_requests_of_a_wrong_form(desk: Desk, name: str, args: dict[str, Any], kind: str) -> None:
    assert refusal(desk.broker(read=("**",), write=("**",)), name, **args).kind == kind


def test_files_in_memory_behave_like_those_on_disk() -> None:
    place = MemoryPlace({"in/a.csv": b"n"})
    broker = Broker(Permissions(read=("in/**",), write=("out/**",)), place)
    assert broker("files.read_text", {"path": "./in/a.csv"}) == "n"
    assert broker("files.list", {"path": "in"}) == ["a.csv"]
    broker("files.write_text", {"path": "out/b", "text": "x"})
    assert "out/b" not in place.files
    broker.commit()
    assert place.files["out/b"] == b"x"
    assert refusal(broker, "files.read_text", path="in/gone").kind == "FileNotFoundError"
    for path in ("../x", "/x", "in/../../x"):
        assert refusal(broker, "files.read_text", path=path).kind == "PermissionError"


@pytest.mark.parametrize(
    "permissions",
    [
        {"read": ("/etc/**",)},
        {"write": ("../x",)},
        {"read": ("",)},
        {"http": ("*",)},
        {"http": ("a b",)},
        {"http": ("loopback",)},
    ],
)
def test_permissions_that_are_none(permissions: dict[str, tuple[str, ...]]) -> None:
    assert permission_flaw(Permissions(**permissions))


# network --------------------------------------------------------------------------------------------------------------


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        size = int(self.path.partition("size=")[2] or 0)
        body = b"x" * size if size else f"{self.path} {self.headers.get('X-Ask')}".encode()
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://example.com/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_page_is_fetched_from_where_manifest_and_policy_say(desk: Desk, port: int) -> None:
    broker = desk.broker(http=("127.0.0.1",))
    url = f"http://127.0.0.1:{port}"
    found = broker("http.get", {"url": f"{url}/a?b=c", "headers": {"X-Ask": "me"}})
    assert (found["status"], found["text"]) == (200, "/a?b=c me")
    assert desk.asked == [f"net.connect 127.0.0.1:{port}"]
    assert broker("http.get", {"url": f"{url}/away", "headers": {}})["status"] == 302
    assert refusal(broker, "http.get", url=f"{url}/?size={MAX_BYTES + 1}", headers={}).kind == "ConnectionError"


def test_no_server_is_reached_that_either_does_not_name(desk: Desk, port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    assert "manifest" in refusal(desk.broker(http=("localhost",)), "http.get", url=url).message
    assert "manifest" in refusal(desk.broker(read=("**",)), "http.get", url=url).message
    desk.denied.add(f"net.connect 127.0.0.1:{port}")
    refused = refusal(desk.broker(http=("127.0.0.1",)), "http.get", url=url)
    assert "policies/default.yaml" in refused.message


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:x@example.com/",
        "https:///x",
        "https://exa mple.com/",
        "https://example.com/\r\nX: y",
        "https://[::1",
        "",
    ],
)
def test_addresses_that_are_not_fetched(url: str) -> None:
    with pytest.raises(RequestRefused):
        server_of(url)


@pytest.mark.parametrize(
    "headers", [{"Host": "x"}, {"X": "a\r\nY: b"}, {"X Y": "z"}, {"X": 1}, {"Proxy-X": "y"}, ["X"]]
)
def test_headers_that_are_not_sent(desk: Desk, port: int, headers: Any) -> None:
    broker = desk.broker(http=("127.0.0.1",))
    assert refusal(broker, "http.get", url=f"http://127.0.0.1:{port}/", headers=headers).kind == "ValueError"


def test_which_addresses_are_of_the_open_network() -> None:
    inside = [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
    ]
    inside += ["fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "ff02::1"]
    assert [address for address in inside if is_public(address)] == []
    assert all(map(is_public, ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"]))


def test_a_name_that_leads_inside_is_not_talked_to(port: int) -> None:
    """What a name server says is a stranger's word: the address counts that the connection has."""
    lines = Lines(f"https://rebind.example:{port}", public=True)
    with socket.create_connection(("127.0.0.1", port)) as found, pytest.raises(ServerDown, match="inside of this"):
        lines.check_peer(found)
