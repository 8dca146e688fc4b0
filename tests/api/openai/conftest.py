"""A daemon's HTTP application whose models say what the test lets them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from agentd.api.http import create_app
from agentd.app import App, build
from agentd.backends.scripted import ScriptedModel
from agentd.config import init_home, load_settings
from agentd.errors import NotFound
from agentd.policy.engine import PolicyEngine

ASKED = [{"role": "user", "content": "Hello"}]


class Talk:
    """A client of an application with one scripted model, `words`, which has every role."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(f"/v1/{path}", json=body)

    def chat(self, **body: Any) -> httpx.Response:
        return self.post("chat/completions", **({"messages": ASKED} | body))

    def said(self, **body: Any) -> dict[str, Any]:
        """The answer of a chat that must succeed."""
        reply = self.chat(**body)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def chunks(self, path: str = "chat/completions", **body: Any) -> list[Any]:
        """The data of a stream's events; `[DONE]` as it is."""
        given = {"stream": True} | ({"messages": ASKED} if path == "chat/completions" else {}) | body
        reply = self.post(path, **given)
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


class Only:
    """Models of which there is one, for every role."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def for_role(self, role: str, *, compact: bool | None = None) -> Any:
        return self._model

    def named(self, name: str) -> Any:
        if name not in (self._model.name, "planner"):
            raise NotFound(f"there is no model {name!r}")
        return self._model

    def names(self) -> list[str]:
        return [self._model.name]


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory, policy: PolicyEngine) -> Iterator[App]:
    """The parts of a daemon, for all tests of this folder; they change nothing in it."""
    home = tmp_path_factory.mktemp("openai") / "home"
    init_home(home)
    app = build(load_settings(home), policy=policy)
    yield app
    app.stop()


@pytest.fixture(scope="session")
def api(core: App) -> FastAPI:
    return create_app(core)


@pytest.fixture
def talk(core: App, api: FastAPI) -> Callable[..., Talk]:
    """Makes the client; each reply given is said once, in this order. Or `model` says what it likes."""

    def make(*replies: Any, model: Any = None) -> Talk:
        only: Any = Only(model or ScriptedModel(list(replies), name="words"))
        api.state.app = replace(core, models=only)
        return Talk(TestClient(api, raise_server_exceptions=False))

    return make


def error_of(reply: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, param and code; the form must be OpenAI's."""
    error = reply.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["message"]
    return reply.status_code, error["param"], error["code"]
