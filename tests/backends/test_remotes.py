"""Remote models of a catalog: the home's rules hold for them, and what an entry says is what is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from agentd.backends.catalog import ModelEntry, ServerEntry
from agentd.backends.inspection import inspect
from agentd.backends.openai_http import RemoteModel
from agentd.backends.remotes import Remotes
from agentd.errors import Denied, ModelError, ServerDown
from agentd.policy.engine import PolicyEngine
from agentd.types import Message, ModelProfile, ModelRequest
from tests.backends.openai_server import Good, OpenAiServer, Turn, message

HELLO = ModelRequest(messages=(Message(role="user", content="hello"),), timeout=10.0)
ENTRY = ModelEntry(name="box/small", backend="openai", profile=ModelProfile(), server="box", model="small")


@pytest.fixture
def secrets() -> dict[str, str]:
    return {}


@pytest.fixture
def remotes(policy: PolicyEngine, secrets: dict[str, str]) -> Iterator[Remotes]:
    made = Remotes(secret=secrets.get, policy=policy)
    yield made
    made.close()


def test_the_models_of_a_server_share_its_connections(remotes: Remotes) -> None:
    with OpenAiServer(Good()) as server:
        entry = ServerEntry(name="box", urls=(server.url,))
        for name in ("small", "large", "small"):
            remotes.model(replace(ENTRY, name=f"box/{name}", model=name), entry).chat(HELLO)
        assert [body["model"] for body in server.bodies] == ["small", "large", "small"]
        assert len({request.port for request in server.requests}) == 1


def test_a_changed_entry_makes_a_new_link(remotes: Remotes, secrets: dict[str, str]) -> None:
    secrets["k"] = "right"
    with OpenAiServer(Good(key="right")) as server:
        entry = ServerEntry(name="box", urls=(server.url,), key="k")
        assert remotes.model(ENTRY, entry).chat(HELLO).text == "hello there"
        assert remotes.link(entry) is remotes.link(replace(entry))
        assert remotes.link(entry) is not remotes.link(replace(entry, timeout=5.0))


def test_the_rules_of_the_home_hold(remotes: Remotes) -> None:
    for url in ("http://192.0.2.7:8080/v1", "https://api.example.com/v1"):
        with pytest.raises(Denied):
            remotes.model(ENTRY, ServerEntry(name="box", urls=(url,))).chat(HELLO)
    with OpenAiServer(Good()) as server:
        outside = ServerEntry(name="box", urls=(server.url,), proxy="http://proxy.example.com:3128")
        with pytest.raises(Denied, match=r"proxy\.example\.com:3128"):
            remotes.model(ENTRY, outside).chat(HELLO)
        assert server.requests == []


def test_whether_a_server_answers_at_all(remotes: Remotes) -> None:
    with OpenAiServer(Good(key="k")) as server:
        model = remotes.model(ENTRY, ServerEntry(name="box", urls=(server.url,)))
        remotes.reach(model)  # it refuses, so it is there
    with pytest.raises(ServerDown):
        remotes.reach(model)


def test_a_server_that_is_denied_is_as_good_as_away(policy: PolicyEngine) -> None:
    records: list[str] = []
    remotes = Remotes(secret={}.get, policy=policy, record=lambda kind, task, data: records.append(kind))
    model = remotes.model(ENTRY, ServerEntry(name="box", urls=("http://192.0.2.7:80/v1",)))
    for _ in range(3):
        with pytest.raises(ModelError, match="nothing may be sent"):
            remotes.reach(model)
    assert records == ["model.send"]


def test_what_an_inspection_finds_is_kept(remotes: Remotes) -> None:
    def play(turn: Turn) -> None:
        if turn.body.get("stream"):
            turn.json({"error": {"message": "cannot stream"}}, 400)
        else:
            Good(say=lambda body: '{"city": "Rome", "days": 5}', refuses=("tools", "json_schema"))(turn)

    with OpenAiServer(play) as server:
        link = remotes.link(ServerEntry(name="box", urls=(server.url,)))
        found = inspect(link)
        assert {each.what: each.ok for each in found.findings} == {
            "reached": True, "replies": True, "streams": False, "tools": False, "json_schema": False,
        }  # fmt: skip
        assert (found.ok, found.form, found.model) == (True, "json_object", "small")
        able = link.abilities("small")
        assert (able.streams, able.tools, able.form) == (False, False, "json_object")
        asked = len(server.bodies)
        assert remotes.model(ENTRY, link.server).chat(HELLO).text
        assert [body.get("stream") for body in server.bodies[asked:]] == [None]


def test_a_server_that_lists_nothing_is_asked_by_name(remotes: Remotes) -> None:
    def play(turn: Turn) -> None:
        if turn.path == "/v1/models":
            turn.json({}, 404)
        else:
            turn.json(message("fine"))

    with OpenAiServer(play) as server:
        link = remotes.link(ServerEntry(name="box", urls=(server.url,)))
        assert not inspect(link).ok
        assert inspect(link, "any").ok


def test_a_server_that_is_away_is_a_finding(remotes: Remotes) -> None:
    with OpenAiServer(Good()) as server:
        entry = ServerEntry(name="box", urls=(server.url,))
    found = inspect(remotes.link(entry))
    assert [(each.what, each.ok) for each in found.findings] == [("reached", False)]
    assert not found.ok
    assert isinstance(remotes.model(ENTRY, entry), RemoteModel)
