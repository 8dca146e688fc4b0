"""Who answers: by role, by name, after a failure, against the clock; the servers are small classes that fail on cue."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentd.backends import attempts
from agentd.backends.cache import ReplyCache
from agentd.backends.catalog import FILE, Catalog, ModelEntry, ServerEntry
from agentd.backends.router import Router
from agentd.clock import SystemClock
from agentd.config import CacheSettings, RouterSettings
from agentd.errors import (
    BadReply,
    BrokenReply,
    Busy,
    Cancelled,
    Denied,
    ModelError,
    ModelMissing,
    NoGrammar,
    NotFound,
    OutOfMemory,
    ServerDown,
    ServerFailed,
    ServerRefused,
    TooLong,
    TooSlow,
    WorkerDied,
)
from agentd.store.db import Database
from agentd.types import (
    CallDelta,
    Clock,
    Delta,
    FunctionCall,
    JsonObject,
    Message,
    Model,
    ModelProfile,
    ModelReply,
    ModelRequest,
    OnDelta,
    Score,
    TokenLogprob,
)
from tests.store.conftest import StillClock

CATALOG = """\
[roles]
planner = ["cloud", "box/big", "here"]
coder = ["here", "tiny"]
draft = ["tiny"]
critic = ["missing"]
embed = ["box/vectors", "here"]
rerank = ["checked"]
[servers.cloud]
url = "https://cloud.example"
price = 3.0
[servers.box]
urls = ["http://a.example", "http://b.example"]
weights = [3, 1]
[models.cloud]
backend = "openai"
server = "cloud"
model = "huge"
[models.here]
file = "here.gguf"
[models.tiny]
file = "tiny.gguf"
compact = true
[models.missing]
file = "missing.gguf"
[models.checked]
file = "here.gguf"
draft = "tiny"
[models.script]
backend = "scripted"
replies = "script.yaml"
"""
QUICK = RouterSettings(tries=3, pause=0.02, patience=2.0, failures=3, rest=5.0)
ASK = ModelRequest(messages=(Message(role="user", content="Hello"),), timeout=20.0)

Act = Callable[["Fake", ModelRequest, OnDelta | None, threading.Event | None], Any]


class Fake:
    """A model that does as it is told: `act` is an error to raise, a text, a reply, or what is done for a request."""

    def __init__(self, name: str, act: Any = None, profile: ModelProfile | None = None) -> None:
        self.name = self.says = name
        self.profile = profile or ModelProfile()
        self.act = act
        self.asked: list[ModelRequest] = []

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        self.asked.append(request)
        act = self.act.pop(0) if isinstance(self.act, list) and self.act else self.act
        if callable(act):
            act = act(self, request, on_delta, cancel)
        elif isinstance(act, Exception):
            raise act
        elif on_delta is not None and isinstance(act, str | None):
            on_delta(Delta(text=act or self.says))
        if isinstance(act, ModelReply):
            return act
        text = act if isinstance(act, str) else self.says
        return ModelReply(text=text, model=self.name, prompt_tokens=1, completion_tokens=1, seconds=0.5)

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        if isinstance(self.act, Exception):
            raise self.act
        return [Score(logprob=-1.0, tokens=1) for _ in pairs]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(ASK)
        act = self.act.pop(0) if isinstance(self.act, list) and self.act else self.act
        if isinstance(act, Exception):
            raise act
        return [[1.0] for _ in texts]

    def count(self, text: str) -> int:
        return len(text)


class World:
    """A router with its catalog in a folder; every model in it is a `Fake`, found in `here` and, by URL, `there`."""

    def __init__(self, folder: Path, *, clock: Clock | None = None, cache: ReplyCache | None = None) -> None:
        self.folder = folder
        for name in ("here.gguf", "tiny.gguf"):
            (folder / name).write_text(name)
        (folder / "script.yaml").write_text("[]")
        self.write(CATALOG)
        self.settings = QUICK
        self.clock = StillClock()
        self.here: dict[str, Fake] = {}
        self.there: dict[str, Fake] = {}
        self.reached: list[str] = []
        self.events: list[tuple[str, str, JsonObject]] = []
        self.quality: dict[str, float] = {}
        self.router = Router(
            self,
            lambda: self.catalog,
            clock=clock or self.clock,
            settings=lambda: self.settings,
            remote=self._remote,
            reach=self._reach,
            cache=cache,
            emit=lambda kind, task, data: self.events.append((kind, task, data)),
            quality=lambda entry: self.quality.get(entry.name, 1.0),
        )

    def write(self, text: str) -> None:
        (self.folder / FILE).write_text(text)
        self.catalog = Catalog.load(self.folder, self.folder)

    def server(self, name: str, model: str = "") -> Fake:
        """The model at the server with this host name."""
        url = next(url for server in self.catalog.servers.values() for url in server.urls if f"/{name}." in url)
        return self.there.setdefault(f"{url} {model or 'big'}", Fake(model or name))

    def _remote(self, entry: ModelEntry, server: ServerEntry) -> Model:
        assert len(server.urls) == 1
        host = server.urls[0].split("//")[1].split(".")[0]
        found = self.server(host, "" if entry.model in ("big", "huge") else entry.model or "")
        found.name = entry.name
        return found

    def _reach(self, model: Model) -> None:
        assert isinstance(model, Fake)
        self.reached.append(model.name)
        if isinstance(model.act, Exception):
            raise model.act

    # what a pool does

    def named(self, name: str) -> Model:
        return self.here.setdefault(name, Fake(name, profile=self.catalog.entry(name).profile))

    def load(self, name: str, *, timeout: float = 1.0, cancel: threading.Event | None = None) -> dict[str, Any]:
        return {"name": name}

    def unload(self, name: str) -> None:
        del self.here[name]

    def loaded(self) -> list[dict[str, Any]]:
        return [{"model": "/elsewhere/x.gguf", "pid": 1, "busy": False}]

    def describe(self) -> list[dict[str, Any]]:
        return [{"name": name, "state": "?"} for name in self.catalog.models]

    def close(self) -> None:
        self.here.clear()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def down(where: str = "it") -> ServerDown:
    return ServerDown(f"{where} does not answer", hint="look")


def stream_of(*texts: str, then: Exception | None = None, pause: float = 0.0) -> Act:
    def act(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        for text in texts:
            if on_delta is not None:
                on_delta(Delta(text=text))
            wait(pause, cancel)
        if then is not None:
            then.sent = bool(texts) and on_delta is not None  # type: ignore[attr-defined]
            raise then
        return "".join(texts)

    return act


def hearing(heard: list[str]) -> OnDelta:
    return lambda delta: heard.append(delta.text)


def after(seconds: float, text: str) -> Act:
    return lambda me, request, on_delta, cancel: wait(seconds, cancel) or text


def wait(seconds: float, cancel: threading.Event | None) -> None:
    if (cancel or threading.Event()).wait(seconds):
        raise Cancelled("cancelled")


# names and roles -----------------------------------------------------------------------------------------------------


def test_names_are_those_that_can_be_asked_for(world: World) -> None:
    assert world.router.names() == ["cloud", "here", "tiny", "checked", "script", "box/big", "box/vectors"]
    for name in world.router.names():
        assert world.router.named(name).name == name
    assert isinstance(world.router.named("here"), Model)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("heer", "'here'"),
        ("nowhere/x", ""),
        ("box/", "box/big"),
        ("x.gguf", ""),
        ("", "there are cloud, here"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(world: World, name: str, hint: str) -> None:
    with pytest.raises(NotFound, match="there is no model") as caught:
        world.router.named(name)
    assert hint in caught.value.hint


def test_a_file_by_its_path_only_when_it_is_loaded(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no model"):
        world.router.named(str(tmp_path / "here.gguf.gguf"))


def test_a_name_means_that_model_and_no_other(world: World) -> None:
    world.server("cloud").act = down()
    with pytest.raises(ServerDown, match="it does not answer"):
        world.router.named("cloud").chat(ASK)
    assert world.router.named("box/other").chat(ASK).model == "box/other"


def test_a_role_may_be_named(world: World) -> None:
    assert world.router.named("planner").chat(ASK).model == "cloud"
    with pytest.raises(NotFound):
        world.router.for_role("cook")
    with pytest.raises(ModelMissing, match=r"no model of the role critic is there \(missing: .*missing.gguf\)"):
        world.router.for_role("critic")


def test_the_catalog_is_live(world: World) -> None:
    assert world.router.for_role("planner").name == "cloud"
    world.write(CATALOG.replace('planner = ["cloud", ', 'planner = ["tiny", '))
    assert world.router.for_role("planner").name == "tiny"
    world.write(CATALOG.replace("cloud.example", "sky.example"))
    world.server("sky").act = "from elsewhere"
    assert world.router.for_role("planner").chat(ASK).text == "from elsewhere"


# which candidate ------------------------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_catalog_or_by_price_or_quality(world: World) -> None:
    assert world.router.for_role("planner").name == "cloud"
    world.settings = QUICK.model_copy(update={"prefer": "price"})
    assert world.router.for_role("planner").name == "box/big"
    world.settings = QUICK.model_copy(update={"prefer": "quality"})
    world.quality = {"cloud": 0.8, "box/big": 0.7, "here": 0.95, "tiny": 0.9}
    assert world.router.for_role("planner").name == "here"


def test_a_model_that_gives_nothing_usable_comes_last(world: World) -> None:
    world.quality = {"cloud": 0.05}
    assert world.router.for_role("planner").name == "box/big"


def test_a_crowd_goes_elsewhere(world: World) -> None:
    stop = threading.Event()
    world.server("cloud").act = lambda *_: stop.wait(20) and None
    threads = [threading.Thread(target=lambda: world.router.named("cloud").chat(ASK)) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 10
        while len(world.server("cloud").asked) < 16 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert world.router.for_role("planner").name == "box/big"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert world.router.for_role("planner").name == "cloud"


def test_requests_are_spread_by_weight(world: World) -> None:
    model = world.router.named("box/big")
    for _ in range(40):
        model.chat(ASK)
    assert (len(world.server("a").asked), len(world.server("b").asked)) == (30, 10)


def test_shares_hold_with_many_threads(world: World) -> None:
    def work() -> None:
        for _ in range(25):
            world.router.named("box/big").chat(ASK)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(world.server("a").asked), len(world.server("b").asked)) == (150, 50)
    assert all(server["running"] == 0 for server in world.router.status()["servers"])


# tries and fallback ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [down(), ServerFailed("500"), BrokenReply("half"), TooSlow("late")])
def test_what_may_pass_is_tried_again(world: World, error: ModelError) -> None:
    world.server("cloud").act = [error, error, "at last"]
    assert world.router.named("cloud").chat(ASK).text == "at last"
    assert len(world.server("cloud").asked) == 3


def test_a_model_of_this_machine_that_died_is_tried_again(world: World) -> None:
    world.here["here"] = Fake("here", [WorkerDied("gone"), "again"])
    assert world.router.named("here").chat(ASK).text == "again"


@pytest.mark.parametrize(
    "error", [ServerRefused("no such model", status=404), ModelError("too long"), NoGrammar("no"), BadReply("odd")]
)
def test_what_will_not_pass_is_not(world: World, error: ModelError) -> None:
    world.server("cloud").act = error
    with pytest.raises(type(error), match=str(error)):
        world.router.named("cloud").chat(ASK)
    assert len(world.server("cloud").asked) == 1
    assert world.router.status()["servers"][0]["failed"] == 0


def test_another_address_is_tried_at_once(world: World) -> None:
    world.server("a").act = down("a")
    started = time.monotonic()
    assert world.router.named("box/big").chat(ASK).text == "b"
    assert time.monotonic() - started < 0.2
    assert (len(world.server("a").asked), len(world.server("b").asked)) == (1, 1)


def test_tries_end_with_the_time_of_the_request(world: World) -> None:
    world.server("cloud").act = down()
    started = time.monotonic()
    with pytest.raises(ServerDown):
        world.router.named("cloud").chat(replace(ASK, timeout=0.1))
    assert time.monotonic() - started < 1.0
    assert all(request.timeout <= 0.1 for request in world.server("cloud").asked)


def test_after_the_first_word_nobody_else_is_asked(world: World) -> None:
    heard: list[str] = []
    world.server("cloud").act = stream_of("one ", "two", then=BrokenReply("it broke off"))
    with pytest.raises(BrokenReply, match="it broke off"):
        world.router.for_role("planner").chat(ASK, lambda delta: heard.append(delta.text))
    assert heard == ["one ", "two"]
    assert [len(world.server(name).asked) for name in ("cloud", "a", "b")] == [1, 0, 0]
    assert world.router.status()["servers"][0]["failed"] == 1, "the server is to blame all the same"


def test_nor_when_a_model_of_this_machine_dies_amid_its_words(world: World) -> None:
    heard: list[str] = []

    def dies(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> None:
        assert on_delta is not None
        on_delta(Delta(text="one "))
        raise WorkerDied("killed")

    world.here["here"] = Fake("here", [dies, "one two"])
    with pytest.raises(WorkerDied):
        world.router.named("here").chat(ASK, hearing(heard))
    assert heard == ["one "]


def test_before_the_first_word_the_next_may_speak(world: World) -> None:
    heard: list[str] = []
    world.server("cloud").act = stream_of(then=BrokenReply("it broke off"))
    reply = world.router.for_role("planner").chat(ASK, lambda delta: heard.append(delta.text))
    assert (reply.model, heard) == ("box/big", ["a"])


def test_a_listener_that_fails_is_not_the_servers_fault(world: World) -> None:
    def listen(delta: Delta) -> None:
        raise ConnectionResetError("the client went away")

    for _ in range(5):
        with pytest.raises(ConnectionResetError):
            world.router.for_role("planner").chat(ASK, listen)
    assert world.router.status()["servers"][0]["failed"] == 0
    assert len(world.server("cloud").asked) == 5


def test_remote_then_local(world: World) -> None:
    world.server("cloud").act = world.server("a").act = world.server("b").act = down("the network")
    model = world.router.for_role("planner")
    assert model.name == "cloud"
    assert model.chat(replace(ASK, client="task-1")).model == "here"
    (event,) = world.events
    assert event == (
        "ModelSwitched",
        "task-1",
        {"role": "planner", "model": "here", "instead_of": "cloud", "why": "the network does not answer"},
    )
    assert model.chat(ASK).model == "here"
    assert len(world.events) == 1, "said once"
    (stand_in,) = world.router.status()["stand_ins"]
    assert (stand_in["role"], stand_in["model"], stand_in["instead_of"]) == ("planner", "here", "cloud")


def test_a_server_that_failed_is_left_alone_and_asked_again_later(world: World) -> None:
    cloud = world.server("cloud")
    cloud.act = down()
    planner = world.router.for_role("planner")
    planner.chat(ASK)
    assert len(cloud.asked) == 3
    for _ in range(5):
        assert world.router.for_role("planner").chat(ASK).model == "box/big"
    assert len(cloud.asked) == 3
    assert [row["state"] for row in world.router.describe() if row["name"] == "cloud"] == ["resting"]
    with pytest.raises(ModelError, match="cloud is left alone for 5 s after: it does not answer"):
        world.router.named("cloud").chat(ASK)
    cloud.act = "back"
    assert world.router.for_role("planner").chat(ASK).model == "box/big"
    world.clock.time += 5.0
    assert world.router.for_role("planner").chat(ASK).model == "cloud"
    assert [row["state"] for row in world.router.describe() if row["name"] == "cloud"] == ["remote"]
    assert [data["model"] for _, _, data in world.events] == ["box/big", "cloud"]
    assert world.router.status()["stand_ins"] == []


def test_a_try_after_the_rest_that_fails_costs_one_request(world: World) -> None:
    cloud = world.server("cloud")
    cloud.act = down()
    world.router.for_role("planner").chat(ASK)
    world.clock.time += 5.0
    assert world.router.for_role("planner").chat(ASK).model == "box/big"
    assert len(cloud.asked) == 4
    assert world.router.status()["servers"][0]["resting"] == 10.0


def test_a_long_reply_after_the_rest_keeps_nobody_waiting(world: World) -> None:
    cloud = world.server("cloud")
    cloud.act = down()
    world.router.for_role("planner").chat(ASK)
    world.clock.time += 5.0
    begun, end = threading.Event(), threading.Event()

    def long(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> None:
        assert on_delta is not None, "somebody has to hear that it lives"
        on_delta(Delta(text="once upon"))
        begun.set()
        end.wait(20)

    cloud.act = [long, "short"]
    thread = threading.Thread(target=lambda: world.router.named("cloud").chat(ASK))
    thread.start()
    try:
        assert begun.wait(5)
        assert world.router.named("cloud").chat(ASK).text == "short"
    finally:
        end.set()
        thread.join()


def test_policy_sends_a_request_elsewhere(world: World) -> None:
    world.server("cloud").act = Denied("nothing may leave this machine")
    assert world.router.for_role("planner").chat(ASK).model == "box/big"
    with pytest.raises(Denied):
        world.router.named("cloud").chat(ASK)


@pytest.mark.parametrize("error", [NoGrammar("no grammar holds it"), BadReply("none of the choices")])
def test_the_form_of_a_reply_is_a_matter_of_that_model(world: World, error: ModelError) -> None:
    world.server("cloud").act = error
    with pytest.raises(type(error)):
        world.router.for_role("planner").chat(ASK)
    assert world.server("a").asked == []


def test_nobody_replies(world: World) -> None:
    for name in ("cloud", "a", "b"):
        world.server(name).act = down(name)
    world.here["here"] = Fake("here", ModelError("out of memory"))
    with pytest.raises(ModelError) as caught:
        world.router.for_role("planner").chat(ASK)
    assert "cloud: cloud does not answer; box/big: " in caught.value.message
    assert "here: out of memory" in caught.value.message


def test_all_are_busy(world: World) -> None:
    world.settings = QUICK.model_copy(update={"patience": 0.0})
    world.server("cloud").act = Busy("429", retry_after=9.0)
    world.server("a").act = world.server("b").act = Busy("429", retry_after=4.0)
    world.here["here"] = Fake("here", Busy("the line is too long", retry_after=2.0))
    with pytest.raises(Busy, match="every model of the role planner is busy") as caught:
        world.router.for_role("planner").chat(ASK)
    assert caught.value.retry_after == 2.0


def test_a_busy_server_gets_the_time_it_asks_for(tmp_path: Path) -> None:
    world = World(tmp_path, clock=SystemClock())
    world.server("cloud").act = [Busy("429", retry_after=0.4), "now"]
    started = time.monotonic()
    assert world.router.named("cloud").chat(ASK).text == "now"
    assert 0.4 <= time.monotonic() - started < 5.0
    assert world.router.status()["servers"][0]["failed"] == 0


def test_too_long_a_wait_is_somebody_elses_chance(world: World) -> None:
    world.server("cloud").act = Busy("429", retry_after=60.0)
    started = time.monotonic()
    assert world.router.for_role("planner").chat(ASK).model == "box/big"
    assert time.monotonic() - started < 1.0
    assert world.router.for_role("planner").name == "box/big"


def test_a_request_that_could_not_wait_does_not_count_against_the_server(world: World) -> None:
    world.server("cloud").act = TooSlow("late")
    for _ in range(5):
        with pytest.raises(TooSlow):
            world.router.named("cloud").chat(replace(ASK, timeout=0.02))
    assert world.router.status()["servers"][0]["state"] == "closed"


def test_a_server_that_is_silent_for_long_is_to_blame(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_FAIR", 0.05)
    world.settings = QUICK.model_copy(update={"tries": 1})
    speaks = stream_of("on ", "and ", "on", then=TooSlow("time is over"), pause=0.03)
    world.server("cloud").act = speaks
    for _ in range(4):
        with pytest.raises(TooSlow):
            world.router.named("cloud").chat(ASK)
    assert world.router.status()["servers"][0]["state"] == "closed", "it speaks; the request could not wait"

    def silent(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> None:
        time.sleep(0.06)
        raise TooSlow("no sign of life")

    world.server("cloud").act = silent
    for _ in range(3):
        with pytest.raises(TooSlow):
            world.router.named("cloud").chat(ASK)
    assert world.router.status()["servers"][0]["state"] == "open"


def test_a_cancelled_wait_ends_at_once(world: World) -> None:
    world.server("cloud").act = Busy("429", retry_after=15.0)
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        world.router.named("cloud").chat(ASK, None, cancel)
    assert time.monotonic() - started < 2.0
    with pytest.raises(Cancelled):
        world.router.named("cloud").chat(ASK, None, cancel)
    assert len(world.server("cloud").asked) == 1


# kinds of models -----------------------------------------------------------------------------------------------------


def test_a_role_never_changes_its_kind_in_a_request(world: World) -> None:
    world.write(CATALOG.replace('["cloud", "box/big", "here"]', '["cloud", "tiny"]'))
    model = world.router.for_role("planner")
    assert not model.profile.compact
    world.server("cloud").act = down()
    with pytest.raises(ServerDown):
        model.chat(ASK)
    assert "tiny" not in world.here
    assert world.router.for_role("planner").name == "tiny"


def test_a_kind_may_be_asked_for(world: World) -> None:
    assert world.router.for_role("coder").name == "here"
    assert world.router.for_role("coder", compact=True).name == "tiny"
    assert world.router.for_role("coder", compact=False).name == "here"
    with pytest.raises(ModelMissing, match="no compact model of the role planner is there"):
        world.router.for_role("planner", compact=True)


def test_where_kinds_differ_the_server_is_looked_at_first(world: World) -> None:
    world.write(CATALOG.replace('["cloud", "box/big", "here"]', '["cloud", "tiny"]'))
    world.server("cloud").act = down()
    assert world.router.for_role("planner").profile.compact
    assert world.reached == ["cloud"]
    world.server("cloud").act = None
    world.clock.time += 5
    assert world.router.for_role("planner").name == "cloud"
    assert world.router.for_role("planner").name == "cloud"
    assert world.reached == ["cloud", "cloud"], "what answered just now is not asked again"
    world.clock.time += 60
    world.router.for_role("planner")
    assert len(world.reached) == 3


def test_looks_open_the_breaker_too(world: World) -> None:
    world.write(CATALOG.replace('["cloud", "box/big", "here"]', '["box/big", "tiny"]'))
    world.server("a").act = world.server("b").act = down()
    for _ in range(6):
        assert world.router.for_role("planner").name == "tiny"
    assert len(world.reached) == 2, "what was not there a moment ago is not looked for again"
    for _ in range(2):
        world.clock.time += 5
        assert world.router.for_role("planner").name == "tiny"
    assert [server["state"] for server in world.router.status()["servers"]] == ["closed", "open", "open"]
    world.clock.time += 5
    world.server("b").act = None
    assert world.router.for_role("planner").name == "box/big"


@pytest.mark.parametrize("error", [OutOfMemory("no room"), ModelError("the file is damaged"), WorkerDied("again")])
def test_a_model_that_cannot_run_here_is_passed_over_for_a_while(world: World, error: ModelError) -> None:
    big = world.here["here"] = Fake("here", error)
    with pytest.raises(type(error)):
        world.router.for_role("coder").chat(replace(ASK, client="task-1"))
    assert world.router.for_role("coder").name == "tiny", "of another kind, so only for the next attempt"
    world.router.for_role("coder").chat(ASK)
    assert world.events[-1][2]["why"] == error.message
    big.act = None
    assert world.router.named("here").chat(ASK).model == "here", "by its name it can be asked all the time"
    assert world.router.for_role("coder").name == "here"
    big.act = error
    with pytest.raises(type(error)):
        world.router.for_role("coder").chat(ASK)
    world.clock.time += 121
    assert world.router.for_role("coder").name == "here"


@pytest.mark.parametrize("error", [Busy("a long line"), TooLong("too long"), NoGrammar("none"), TooSlow("late")])
def test_a_request_that_cannot_be_served_drives_no_model_away(world: World, error: ModelError) -> None:
    world.here["here"] = Fake("here", error)
    with pytest.raises(type(error)):
        world.router.for_role("coder").chat(ASK)
    assert world.router.for_role("coder").name == "here"


def test_no_look_where_all_are_of_a_kind(world: World) -> None:
    world.write(CATALOG.replace('["cloud", "box/big", "here"]', '["cloud", "here"]'))
    world.router.for_role("planner")
    assert world.reached == []


def test_what_a_server_serves_is_never_compact(world: World) -> None:
    world.write(CATALOG.replace('model = "huge"', 'model = "huge"\ncompact = true'))
    assert not world.router.named("cloud").profile.compact


# hedged requests -----------------------------------------------------------------------------------------------------

HEDGED = replace(ASK, hedge=True)


def test_the_first_whole_reply_wins_and_the_other_is_cancelled(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.1})
    ended: list[str] = []

    def slow(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        try:
            wait(15.0, cancel)
        except Cancelled:
            ended.append("cancelled")
            raise
        return "too late"

    world.server("a").act, world.server("b").act = slow, "quick"
    started = time.monotonic()
    assert world.router.named("box/big").chat(HEDGED).text == "quick"
    assert 0.1 <= time.monotonic() - started < 3.0
    deadline = time.monotonic() + 5
    while world.router.status()["servers"][1]["running"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == ["cancelled"]
    assert [server["failed"] for server in world.router.status()["servers"]] == [0, 0, 0]


def test_no_second_server_is_asked_while_the_first_is_quick(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 5.0})
    assert world.router.named("box/big").chat(HEDGED).text == "a"
    assert world.server("b").asked == []


def test_only_where_the_request_allows_it(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.01})
    world.server("a").act = after(0.3, "slow")
    assert world.router.named("box/big").chat(ASK).text == "slow"
    assert world.server("b").asked == []


def test_another_servers_model_may_be_the_second(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.05})
    world.server("cloud").act = after(10.0, "slow")
    assert world.router.for_role("planner").chat(HEDGED).model == "box/big"


def test_a_model_of_this_machine_is_never_the_second(world: World) -> None:
    world.write(CATALOG.replace('["cloud", "box/big", "here"]', '["cloud", "here"]'))
    world.settings = QUICK.model_copy(update={"hedge_after": 0.05})
    world.server("cloud").act = after(0.4, "slow")
    assert world.router.for_role("planner").chat(HEDGED).text == "slow"


def test_the_usual_time_decides_when_nothing_else_does(world: World) -> None:
    for _ in range(5):
        world.router.named("cloud").chat(ASK)
    world.server("cloud").act = after(10.0, "slow")
    started = time.monotonic()
    assert world.router.for_role("planner").chat(HEDGED).text == "a"
    assert time.monotonic() - started < 1.5


def test_one_fails_and_the_other_wins(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.05})

    def fails(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        wait(0.2, cancel)
        raise ServerFailed("500")

    world.server("a").act, world.server("b").act = fails, after(0.4, "good")
    assert world.router.named("box/big").chat(HEDGED).text == "good"
    assert (len(world.server("a").asked), len(world.server("b").asked)) == (1, 1)


def test_both_fail_and_it_goes_on(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.02})

    def fails(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        wait(0.1, cancel)
        raise ServerFailed("500")

    for name in ("cloud", "a", "b"):
        world.server(name).act = fails
    assert world.router.for_role("planner").chat(HEDGED).model == "here"


def test_a_race_never_mixes_two_streams(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.1})
    heard: list[str] = []

    def late(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        assert on_delta is not None
        wait(0.2, cancel)
        on_delta(Delta(text="never heard"))
        wait(15.0, cancel)
        return "never heard"

    world.server("a").act, world.server("b").act = late, stream_of("b1 ", "b2 ", "b3", pause=0.1)
    reply = world.router.named("box/big").chat(HEDGED, lambda delta: heard.append(delta.text))
    assert reply.text == "".join(heard) == "b1 b2 b3"


def test_a_first_that_speaks_in_time_is_heard_at_once_and_not_raced_against(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.1})
    heard: list[tuple[float, str]] = []
    started = time.monotonic()
    world.server("a").act = stream_of("one ", "two", pause=0.3)
    reply = world.router.named("box/big").chat(
        HEDGED, lambda delta: heard.append((time.monotonic() - started, delta.text))
    )
    assert reply.text == "one two"
    assert heard[0][0] < 0.2
    assert world.server("b").asked == []


def test_nothing_is_heard_after_a_cancelled_race(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 9.0})
    heard: list[str] = []
    spoke = threading.Event()

    def deaf(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        assert on_delta is not None
        time.sleep(0.5)
        on_delta(Delta(text="too late"))
        spoke.set()
        return "too late"

    world.server("a").act = deaf
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    with pytest.raises(Cancelled):
        world.router.named("box/big").chat(HEDGED, hearing(heard), cancel)
    assert spoke.wait(5)
    assert heard == []


def test_a_race_is_cancelled_as_a_whole(world: World) -> None:
    world.settings = QUICK.model_copy(update={"hedge_after": 0.05})
    world.server("a").act = world.server("b").act = after(15.0, "late")
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        world.router.named("box/big").chat(HEDGED, None, cancel)
    assert time.monotonic() - started < 3.0
    deadline = time.monotonic() + 5
    while any(server["running"] for server in world.router.status()["servers"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(server["running"] for server in world.router.status()["servers"])


# a draft first --------------------------------------------------------------------------------------------------------

WITH_CHOICES = replace(ASK, choices=("yes", "no"))
WITH_SCHEMA = replace(ASK, schema={"type": "object", "properties": {"n": {"maximum": 3}}, "required": ["n"]})


def said(text: str, *logprobs: float, model: str = "tiny", finish: Any = "stop") -> ModelReply:
    tokens = tuple(TokenLogprob(token="x", logprob=each) for each in logprobs)
    return ModelReply(
        text=text, model=model, prompt_tokens=1, completion_tokens=1, seconds=0.1, logprobs=tokens, finish_reason=finish
    )


@pytest.mark.parametrize(
    ("request_", "draft", "taken"),
    [
        (WITH_CHOICES, said("yes"), True),
        (WITH_CHOICES, said("yes", -0.1, -0.1), True),
        (WITH_CHOICES, said("yes", -0.1, -2.0), False),
        (WITH_CHOICES, said("perhaps"), False),
        (WITH_SCHEMA, said('{"n": 3}'), True),
        (WITH_SCHEMA, said('{"n": 4}'), False),
        (WITH_SCHEMA, said('{"n": 3'), False),
        (WITH_SCHEMA, said('{"n": 3}', finish="length"), False),
        (WITH_SCHEMA, ModelError("it broke"), False),
        (WITH_SCHEMA, Busy("too long a line"), False),
    ],
)
def test_a_draft_is_taken_when_it_is_sound(world: World, request_: ModelRequest, draft: Any, taken: bool) -> None:
    world.here["tiny"] = Fake("tiny", draft)
    world.here["checked"] = Fake("checked", said("no", model="checked"))
    reply = world.router.for_role("rerank").chat(request_)
    assert reply.model == ("tiny" if taken else "checked")
    assert reply.logprobs == ()
    assert world.here["tiny"].asked[0].logprobs == 0
    assert (len(world.here["checked"].asked) == 0) == taken
    drafts = world.router.status()["drafts"]
    assert drafts["taken"] == taken
    assert world.events == [], "a draft takes no role"


def test_no_draft_for_what_cannot_be_checked(world: World) -> None:
    world.here["tiny"] = Fake("tiny", "draft")
    assert world.router.for_role("rerank").chat(ASK).model == "checked"
    tool = {"name": "look", "description": "", "parameters": {}}
    assert world.router.for_role("rerank").chat(replace(WITH_SCHEMA, tools=(tool,))).model == "checked"
    assert world.here["tiny"].asked == []


def test_a_listener_hears_a_draft_only_once_it_is_taken(world: World) -> None:
    heard: list[str] = []
    world.here["tiny"] = Fake("tiny", stream_of("perhaps"))
    world.here["checked"] = Fake("checked", stream_of("no"))
    assert world.router.for_role("rerank").chat(WITH_CHOICES, lambda delta: heard.append(delta.text)).text == "no"
    assert heard == ["no"]
    world.here["tiny"].act = stream_of("yes")
    world.router.for_role("rerank").chat(WITH_CHOICES, lambda delta: heard.append(delta.text))
    assert heard == ["no", "yes"]


def test_a_cancelled_draft_cancels_the_request(world: World) -> None:
    world.here["tiny"] = Fake("tiny", Cancelled("now"))
    with pytest.raises(Cancelled):
        world.router.for_role("rerank").chat(WITH_CHOICES)


# not only chat --------------------------------------------------------------------------------------------------------


def test_scores_come_from_whoever_can(world: World) -> None:
    for name in ("cloud", "a", "b"):
        world.server(name).act = ModelError("it cannot score")
    assert len(world.router.for_role("planner").score([("a", "b")])) == 1
    assert world.events == [], "the role is still the first one's"
    with pytest.raises(ModelError, match="it cannot score"):
        world.router.named("cloud").score([("a", "b")])


def test_vectors_are_never_mixed(world: World) -> None:
    model = world.router.for_role("embed")
    assert model.embed(["x"]) == [[1.0]]
    for host in ("a", "b"):
        world.server(host, "vectors").act = [down(), None]
    assert model.embed(["x"]) == [[1.0]], "tried again"
    for host in ("a", "b"):
        world.server(host, "vectors").act = down()
    with pytest.raises(ServerDown):
        model.embed(["x"])
    assert "here" not in world.here


def test_counting_is_the_first_ones(world: World) -> None:
    assert world.router.for_role("coder").count("abc") == 3


# kept replies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[World]:
    db = Database(tmp_path / "agentd.db", clock=StillClock())
    yield World(tmp_path, cache=ReplyCache(db, StillClock(), lambda: CacheSettings()))
    db.close()


def test_the_same_question_costs_nothing(kept: World) -> None:
    kept.server("cloud").act = ["first", "second"]
    model = kept.router.for_role("planner")
    heard: list[Delta] = []
    assert (model.chat(ASK).text, model.chat(ASK).cached) == ("first", True)
    assert model.chat(ASK, heard.append).text == "first"
    assert heard == [Delta(text="first")]
    assert model.chat(replace(ASK, cache=False)).text == "second"
    assert kept.router.status()["cache"]["hits"] == 2


def test_calls_are_played_one_by_one(kept: World) -> None:
    calls = tuple(FunctionCall(id=str(n), name="look", arguments="{}") for n in range(2))
    reply = replace(said("", model="cloud"), tool_calls=calls, finish_reason="tool_calls", reasoning="hm")
    kept.server("cloud").act = reply
    heard: list[Delta] = []
    kept.router.named("cloud").chat(ASK)
    assert kept.router.named("cloud").chat(ASK, heard.append).tool_calls == calls
    assert heard == [
        Delta(reasoning="hm"),
        *(Delta(call=CallDelta(index=n, id=str(n), name="look", arguments="{}")) for n in range(2)),
    ]


def test_a_kept_reply_is_given_while_the_server_is_down(kept: World) -> None:
    model = kept.router.for_role("planner")
    model.chat(ASK)
    kept.server("cloud").act = down()
    assert (model.chat(ASK).model, len(kept.server("cloud").asked)) == ("cloud", 1)


def test_errors_and_wrong_forms_are_not_kept(kept: World) -> None:
    kept.server("cloud").act = [ServerRefused("no"), said("perhaps"), said("yes"), said("no")]
    model = kept.router.named("cloud")
    with pytest.raises(ServerRefused):
        model.chat(WITH_CHOICES)
    assert [model.chat(WITH_CHOICES).text for _ in range(3)] == ["perhaps", "yes", "yes"]


def test_a_changed_file_is_asked_anew(kept: World, tmp_path: Path) -> None:
    model = kept.router.named("here")
    model.chat(ASK)
    (tmp_path / "here.gguf").write_text("another model")
    assert not kept.router.named("here").chat(ASK).cached


def test_scripted_models_are_never_kept(kept: World) -> None:
    for _ in range(2):
        assert not kept.router.named("script").chat(ASK).cached


def test_what_a_stand_in_said_is_not_kept_as_the_others(kept: World) -> None:
    cloud = kept.server("cloud")
    cloud.act = down()
    assert kept.router.for_role("planner").chat(ASK).model == "box/big"
    cloud.act = "mine"
    kept.clock.time += 5
    assert kept.router.for_role("planner").chat(ASK).text == "mine"


def test_a_winner_of_a_race_is_not_kept_as_the_first(kept: World) -> None:
    kept.settings = QUICK.model_copy(update={"hedge_after": 0.05})
    kept.server("cloud").act = [after(10.0, "slow"), "mine"]
    assert kept.router.for_role("planner").chat(HEDGED).model == "box/big"
    assert kept.router.for_role("planner").chat(ASK).text == "mine"


def test_a_draft_is_kept_until_the_draft_model_changes(kept: World, tmp_path: Path) -> None:
    kept.here["tiny"] = Fake("tiny", "yes")
    assert [kept.router.for_role("rerank").chat(WITH_CHOICES).cached for _ in range(2)] == [False, True]
    (tmp_path / "tiny.gguf").write_text("another model")
    assert not kept.router.for_role("rerank").chat(WITH_CHOICES).cached


# what is told ---------------------------------------------------------------------------------------------------------


def test_the_status_names_every_server(world: World) -> None:
    servers = world.router.status()["servers"]
    assert [(each["server"], each["url"], each["weight"], each["state"]) for each in servers] == [
        ("cloud", "https://cloud.example/v1", 1.0, "closed"),
        ("box", "http://a.example/v1", 3.0, "closed"),
        ("box", "http://b.example/v1", 1.0, "closed"),
    ]
    world.write(CATALOG.replace("weights = [3, 1]\n", ""))
    assert [each["weight"] for each in world.router.status()["servers"]] == [1.0, 1.0, 1.0]


def test_what_is_known_of_an_address_outlives_a_change_of_its_server(world: World) -> None:
    world.server("cloud").act = down()
    world.router.for_role("planner").chat(ASK)
    world.write(CATALOG.replace("price = 3.0", "price = 2.0"))
    assert world.router.for_role("planner").name == "box/big"


def test_everybody_at_once(world: World) -> None:
    """Servers that fail at random, many threads: each request gets the reply of a model that did reply."""
    world.settings = QUICK.model_copy(update={"hedge_after": 0.01, "rest": 0.1})
    turn = iter(range(10_000_000))

    def flaky(me: Fake, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None) -> str:
        number = next(turn)
        if number % 3 == 0:
            raise ServerFailed("500")
        if number % 7 == 0:
            wait(0.03, cancel)
        if on_delta is not None:
            on_delta(Delta(text=me.name))
        return me.name

    for name in ("cloud", "a", "b"):
        world.server(name).act = flaky
    wrong: list[str] = []
    counts: Counter[str] = Counter()

    def work(number: int) -> None:
        for round_ in range(12):
            heard: list[str] = []
            ask = replace(ASK, hedge=(number + round_) % 2 == 0)
            reply = world.router.for_role("planner").chat(ask, hearing(heard))
            counts[reply.model] += 1
            if "".join(heard) != reply.text or not reply.text:
                wrong.append(f"{heard} {reply}")
            world.clock.time += 0.01

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert counts.total() == 96
    deadline = time.monotonic() + 5
    while any(each["running"] for each in world.router.status()["servers"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(each["running"] for each in world.router.status()["servers"])
