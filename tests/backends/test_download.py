from __future__ import annotations

import gzip
import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentd.backends.download import Download, Patience, RemoteFile, Web, redirected
from agentd.errors import Cancelled, Conflict, Denied, DiskFull, DownloadFailed, NotFound
from tests.backends.file_server import FileServer, serving

CONTENT = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(tries=3, pause=0.01, silence=2.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(files={"/m.gguf": CONTENT})) as server:
        yield server


class Fetch:
    """One file of a server into a folder, with what was told."""

    def __init__(self, server: FileServer, folder: Path, **known: Any) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.cancel = threading.Event()
        self.asked: list[tuple[str, int]] = []
        self.folder = folder
        self.wanted = RemoteFile(**({"url": f"{server.url}/m.gguf", "name": "m.gguf"} | known))
        self.web = Web(lambda host, port: self.asked.append((host, port)), cancel=self.cancel, patience=QUICK)

    def run(self, **more: Any) -> bytes:
        path = Download(self.web, self.wanted, self.folder, tell=self.told.append, **more).run()
        assert sorted(each.name for each in self.folder.iterdir()) == ["m.gguf"]
        return path.read_bytes()

    @property
    def part(self) -> Path:
        return self.folder / "m.gguf.part"

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        return [event for event in self.told if event["event"] == kind]


def test_a_file_comes_whole(server: FileServer, tmp_path: Path) -> None:
    fetch = Fetch(server, tmp_path, size=len(CONTENT), sha256=SHA256)
    assert fetch.run() == CONTENT
    assert fetch.events("progress")[-1]["done"] == len(CONTENT)
    assert fetch.events("checking")
    assert fetch.asked[0][0] == "127.0.0.1"


def test_what_broke_off_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 50_000, 70_000]
    fetch = Fetch(server, tmp_path, sha256=SHA256)
    assert fetch.run() == CONTENT
    assert server.ranges_asked == [None, "bytes=100000-", "bytes=150000-", "bytes=220000-"]
    assert [headers.get("if-range") for _, headers in server.seen] == [None, '"one"', '"one"', '"one"']
    assert len(fetch.events("retry")) == 3


def test_a_connection_that_brings_a_little_each_time_is_not_given_up(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [30_000] * 9
    assert Fetch(server, tmp_path).run() == CONTENT
    assert len(server.seen) == 10


def test_one_that_brings_nothing_is_given_up_and_the_part_kept(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    fetch = Fetch(server, tmp_path)
    with pytest.raises(DownloadFailed, match="3 tries brought nothing") as error:
        fetch.run()
    assert "goes on from there" in error.value.hint
    assert fetch.part.read_bytes() == CONTENT[:100_000]
    again = Fetch(server, tmp_path)
    assert again.run() == CONTENT
    assert server.ranges_asked[-1] == "bytes=100000-"


def test_a_part_of_another_file_is_not_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        Fetch(server, tmp_path).run()
    other = bytes(reversed(CONTENT))
    server.files = {"/m.gguf": other, "/n.gguf": other}
    moved = Fetch(server, tmp_path, url=f"{server.url}/n.gguf")
    assert moved.run() == other
    assert server.ranges_asked[-1] is None


def test_a_file_that_changed_meanwhile_begins_anew(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        Fetch(server, tmp_path).run()
    server.files["/m.gguf"] = other = bytes(reversed(CONTENT))
    server.etag = '"two"'
    assert Fetch(server, tmp_path).run() == other
    assert server.ranges_asked[-1] == "bytes=100000-"


def test_a_server_that_overlooks_if_range_is_found_out_by_its_etag(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        Fetch(server, tmp_path).run()
    server.files["/m.gguf"] = other = bytes(reversed(CONTENT))
    server.etag, server.obeys_if_range = '"two"', False
    assert Fetch(server, tmp_path).run() == other
    assert server.ranges_asked[-2:] == ["bytes=100000-", None]


def test_a_server_without_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, [200_000]
    assert Fetch(server, tmp_path, sha256=SHA256).run() == CONTENT


def test_without_etag_and_checksum_nothing_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    server.etag, server.breaks = None, [200_000]
    assert Fetch(server, tmp_path).run() == CONTENT
    assert server.ranges_asked == [None, None]


def test_without_an_etag_the_checksum_makes_it_safe_to_go_on(server: FileServer, tmp_path: Path) -> None:
    server.etag, server.breaks = None, [200_000]
    assert Fetch(server, tmp_path, sha256=SHA256).run() == CONTENT
    assert server.ranges_asked == [None, "bytes=200000-"]


def test_a_part_that_is_spoilt_is_fetched_once_more(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    fetch = Fetch(server, tmp_path, sha256=SHA256)
    with pytest.raises(DownloadFailed):
        fetch.run()
    fetch.part.write_bytes(bytes(100_000))
    assert Fetch(server, tmp_path, sha256=SHA256).run() == CONTENT
    assert server.ranges_asked[-2:] == ["bytes=100000-", None]


def test_a_part_that_is_all_needs_its_end_only(server: FileServer, tmp_path: Path) -> None:
    server.breaks = [100_000, 0, 0, 0]
    fetch = Fetch(server, tmp_path)
    with pytest.raises(DownloadFailed):
        fetch.run()
    fetch.part.write_bytes(CONTENT)
    assert Fetch(server, tmp_path).run() == CONTENT
    assert server.ranges_asked[-1] == f"bytes={len(CONTENT)}-"  # answered with 416
    mark = tmp_path / "m.gguf.part.json"
    (tmp_path / "m.gguf").rename(fetch.part)
    mark.write_text(json.dumps({"url": fetch.wanted.url, "validator": '"one"'}))
    fetch.part.write_bytes(CONTENT + b"more")
    assert Fetch(server, tmp_path).run() == CONTENT


def test_a_wrong_checksum_is_never_kept(server: FileServer, tmp_path: Path) -> None:
    fetch = Fetch(server, tmp_path, sha256="0" * 64)
    with pytest.raises(DownloadFailed, match=f"has the SHA-256 {SHA256}, not 0000"):
        fetch.run()
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_a_lie(server: FileServer, tmp_path: Path) -> None:
    server.tells_length = 1000
    assert Fetch(server, tmp_path).run() == CONTENT  # asked for the rest, the server knows of none
    (tmp_path / "m.gguf").unlink()
    server.tells_length = -1000
    with pytest.raises(DownloadFailed, match="300,000 were announced"):
        Fetch(server, tmp_path, size=len(CONTENT)).run()
    server.tells_length = None
    with pytest.raises(DownloadFailed, match="more than the 1,000 bytes"):
        Fetch(server, tmp_path, size=1000).run()
    assert not (tmp_path / "m.gguf").exists()


def test_a_file_of_unknown_length_ends_with_the_connection(server: FileServer, tmp_path: Path) -> None:
    server.tells_length = None
    assert Fetch(server, tmp_path).run() == CONTENT


@pytest.mark.parametrize("status", [429, 503, 500, 408])
def test_a_server_without_time_is_asked_again(server: FileServer, tmp_path: Path, status: int) -> None:
    server.answers = [(status, {"Retry-After": "0"}), (status, {})]
    fetch = Fetch(server, tmp_path)
    assert fetch.run() == CONTENT
    assert [event["seconds"] for event in fetch.events("retry")] == [0.0, 0.02]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, NotFound, "is not there"),
        (401, DownloadFailed, "not given to everybody"),
        (403, DownloadFailed, "HF_TOKEN"),
        (400, DownloadFailed, "answers 400"),
    ],
)
def test_a_refusal_is_said_at_once(
    server: FileServer, tmp_path: Path, status: int, error: type[Exception], words: str
) -> None:
    server.answers = [(status, {})]
    with pytest.raises(error) as caught:
        Fetch(server, tmp_path).run()
    assert words in str(caught.value)
    assert len(server.seen) == 1


def test_redirects_are_followed(server: FileServer, tmp_path: Path) -> None:
    server.answers = [(302, {"Location": "/m.gguf"}), (307, {"Location": f"{server.url}/m.gguf"})]
    assert Fetch(server, tmp_path, url=f"{server.url}/elsewhere").run() == CONTENT
    assert [path for path, _ in server.seen] == ["/elsewhere", "/m.gguf", "/m.gguf"]


@pytest.mark.parametrize("there", ["http://example.com/m.gguf", "ftp://127.0.0.1/m.gguf", "file:///etc/passwd"])
def test_redirects_to_what_is_not_safe_are_not(server: FileServer, tmp_path: Path, there: str) -> None:
    server.answers = [(302, {"Location": there})]
    with pytest.raises(Denied, match="only https"):
        Fetch(server, tmp_path).run()


@pytest.mark.parametrize(
    "there",
    [
        *("http://localhost:8080/x", "https://127.0.0.1/x", "//[::1]/x", "http://127.1.2.3", ""),
        *("https://LOCALHOST.:8443/x", "https://[::ffff:127.0.0.1]/x", "//0.0.0.0/x", "//[::]/x", "//[::ffff:0:0]/x"),
    ],
)
def test_a_host_elsewhere_does_not_lead_to_this_machine(there: str) -> None:
    with pytest.raises(DownloadFailed, match="not followed"):
        redirected(httpx2.URL("https://hub.example/m.gguf"), there)


def test_a_host_leads_to_another() -> None:
    assert str(redirected(httpx2.URL("https://hub.example/a/m"), "../b")) == "https://hub.example/b"
    assert str(redirected(httpx2.URL("https://hub.example/a"), "//cdn.example/b")) == "https://cdn.example/b"
    assert str(redirected(httpx2.URL("http://127.0.0.1/a"), "http://localhost/b")) == "http://localhost/b"


def test_redirects_end(server: FileServer, tmp_path: Path) -> None:
    server.answers = [(302, {"Location": "/again"})] * 20
    with pytest.raises(DownloadFailed, match="more than 10 times"):
        Fetch(server, tmp_path).run()


def test_a_token_is_shown_to_its_own_host_alone(server: FileServer, tmp_path: Path) -> None:
    with serving(FileServer(files={"/m.gguf": CONTENT})) as other:
        server.answers = [(302, {"Location": f"{other.url}/m.gguf"})]
        fetch = Fetch(server, tmp_path)
        fetch.web = Web(lambda host, port: None, cancel=fetch.cancel, tokens={server.url: "secret"}, patience=QUICK)
        assert fetch.run() == CONTENT
        assert server.seen[0][1]["authorization"] == "Bearer secret"
        assert "authorization" not in other.seen[0][1]


def test_policy_hears_the_host_that_is_looked_up(tmp_path: Path) -> None:
    asked: list[str] = []

    def refuse(host: str, port: int) -> None:
        asked.append(host)
        raise Denied("no")

    web = Web(refuse, cancel=threading.Event(), patience=QUICK)
    with pytest.raises(Denied, match="no"):
        web.json("https://xn--strae-oqa.example/x")  # another host than strasse.example, which is what it shows
    assert asked == ["xn--strae-oqa.example"]


def test_each_host_is_asked_for(server: FileServer, tmp_path: Path) -> None:
    def only_this(host: str, port: int) -> None:
        if f"{host}:{port}" not in server.url:
            raise Denied(f"no model may come from {host}:{port}")

    with serving(FileServer(files={"/m.gguf": CONTENT})) as other:
        server.answers = [(302, {"Location": f"{other.url}/m.gguf"})]
        fetch = Fetch(server, tmp_path)
        fetch.web = Web(only_this, cancel=fetch.cancel, patience=QUICK)
        with pytest.raises(Denied, match="no model may come from"):
            fetch.run()
        assert other.seen == []


def test_http_beyond_this_machine_is_not_spoken(server: FileServer, tmp_path: Path) -> None:
    fetch = Fetch(server, tmp_path, url="http://models.example.com/m.gguf")
    with pytest.raises(Denied, match="only https is spoken"):
        fetch.run()
    assert fetch.asked == []


def test_what_is_packed_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.headers, server.files["/m.gguf"] = {"Content-Encoding": "gzip"}, gzip.compress(CONTENT)
    with pytest.raises(DownloadFailed, match="is sent as 'gzip'"):
        Fetch(server, tmp_path).run()


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": '"\u00e9"'},
        {"ETag": 'W/"weak"'},
        {"ETag": "bare"},
        {"Last-Modified": "yesterday\u00e9"},
        {"Retry-After": "9" * 5000},
    ],
)
def test_odd_headers_do_no_harm(server: FileServer, tmp_path: Path, headers: dict[str, str]) -> None:
    server.etag, server.headers, server.breaks = None, headers, [100_000]
    server.answers = [(503, {"Retry-After": "soon"}), (302, {"Location": "/m.gguf"})]
    fetch = Fetch(server, tmp_path, sha256=SHA256)
    assert fetch.run() == CONTENT
    assert server.seen[-1][1].get("if-range") is None


def test_cancelled_while_it_comes(server: FileServer, tmp_path: Path) -> None:
    server.pause = threading.Event()
    fetch = Fetch(server, tmp_path)
    fetch.told = told = Cancelling(fetch.cancel, server.pause)
    with pytest.raises(Cancelled, match="not fetched to its end"):
        fetch.run()
    assert told
    assert 0 < fetch.part.stat().st_size < len(CONTENT)


class Cancelling(list[Mapping[str, Any]]):
    """Cancels at the first progress, and lets the server go on."""

    def __init__(self, cancel: threading.Event, go_on: threading.Event) -> None:
        super().__init__()
        self._cancel = cancel
        self._go_on = go_on

    def append(self, event: Mapping[str, Any]) -> None:
        super().append(event)
        self._cancel.set()
        self._go_on.set()


def test_cancelled_while_it_waits(server: FileServer, tmp_path: Path) -> None:
    server.answers = [(503, {"Retry-After": "300"})]
    fetch = Fetch(server, tmp_path)
    fetch.told = Cancelling(fetch.cancel, threading.Event())
    with pytest.raises(Cancelled):
        fetch.run()


def test_a_server_that_falls_silent(server: FileServer, tmp_path: Path) -> None:
    server.pause, server.etag = threading.Event(), None
    fetch = Fetch(server, tmp_path)
    fetch.web = Web(lambda host, port: None, cancel=fetch.cancel, patience=Patience(tries=2, pause=0.01, silence=0.2))
    with pytest.raises(DownloadFailed, match="tries brought nothing"):
        fetch.run()
    server.pause.set()


def test_what_is_there_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(CONTENT)
    assert Fetch(server, tmp_path, size=len(CONTENT), sha256=SHA256).run() == CONTENT
    assert server.seen == []
    with pytest.raises(Conflict, match="is another file"):
        Fetch(server, tmp_path, size=5).run()
    with pytest.raises(Conflict, match="is another file"):
        Fetch(server, tmp_path, sha256="0" * 64).run()


def test_room_is_looked_for_first(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="there is no room"):
        Fetch(server, tmp_path).run(reserve=2**60)
    assert not (tmp_path / "m.gguf.part").exists()


def test_a_full_disk_keeps_what_came(server: FileServer, tmp_path: Path) -> None:
    """A limit on the size of files gives the same kind of error as a full disk, without needing root."""
    code = f"""
import resource, signal, sys, threading
from pathlib import Path
from agentd.backends.download import Download, RemoteFile, Web
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
web = Web(lambda host, port: None, cancel=threading.Event())
wanted = RemoteFile(url={server.url + "/m.gguf"!r}, name="m.gguf")
try:
    Download(web, wanted, Path(sys.argv[1]), tell=lambda event: None).run()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DiskFull the disk is full"), done.stdout + done.stderr
    assert "goes on from there" in done.stdout
    assert (tmp_path / "m.gguf.part").stat().st_size == 120_000
    assert Fetch(server, tmp_path, sha256=SHA256).run() == CONTENT


def test_json_of_a_hub(server: FileServer, tmp_path: Path) -> None:
    server.files |= {"/list": b'[{"a": 1}]', "/bad": b"<html>"}
    fetch = Fetch(server, tmp_path)
    server.headers = {"Link": '</list?page=2>; rel="next"'}
    assert fetch.web.json(f"{server.url}/list") == ([{"a": 1}], f"{server.url}/list?page=2")
    server.headers = {}
    with pytest.raises(DownloadFailed, match="no JSON"):
        fetch.web.json(f"{server.url}/bad")
    with pytest.raises(NotFound):
        fetch.web.json(f"{server.url}/nothing")
    server.answers = [(503, {})]
    assert fetch.web.json(f"{server.url}/list") == ([{"a": 1}], None)
    server.answers = [(503, {})] * 5
    with pytest.raises(DownloadFailed, match="answers 503"):
        fetch.web.json(f"{server.url}/list")
