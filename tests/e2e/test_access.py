"""Keys, live settings and the WebSocket of a real daemon, over TCP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from agentd.config import load_settings
from tests.e2e.harness import Agentd

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    made = Agentd(tmp_path_factory.mktemp("access"))
    words: Path = made.workspace / "words.yaml"
    words.write_text("- replies: [Hello there]\n", encoding="utf-8")
    made.speak(words)
    made.ok("config", "set", "api.tcp=true", "api.port=0")
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def url(served: Agentd) -> str:
    return load_settings(served.home.home).url_path.read_text().strip()


def status(url: str, key: str) -> int:
    return httpx2.get(url, headers={"Authorization": f"Bearer {key}"}).status_code


def test_a_key_opens_models_until_it_is_taken_back(served: Agentd, url: str) -> None:
    key = served.ok("key", "add", "editor")
    assert [status(f"{url}/{path}", key) for path in ("v1/models", "api/status", "v1/config")] == [200, 403, 403]
    assert [each["name"] for each in served.json("key", "ls")] == ["editor"]
    assert served.error("key", "add", "editor", code=9)["hint"]
    served.ok("key", "rm", "editor")
    assert status(f"{url}/v1/models", key) == 401


def test_settings_change_while_it_runs(served: Agentd) -> None:
    assert served.json("config", "set", "agent.steps=7", "tasks.workers=2") == {
        "changed": {"agent.steps": 7},
        "waiting": ["tasks.workers"],
    }
    task = served.json("submit", "look")["id"]
    assert served.json("show", task)["budget"]["steps"] == 7
    assert "at least 1" in served.error("config", "set", "agent.steps=0", code=2)["hint"]


def test_a_websocket_needs_a_key_and_answers(served: Agentd, url: str) -> None:
    address = url.replace("http", "ws", 1) + "/ws/completions"
    with pytest.raises(InvalidStatus), connect(address):
        pass
    headers = {"Authorization": f"Bearer {served.ok('token')}"}
    with connect(address, additional_headers=headers) as socket:
        socket.send(json.dumps({"prompt": "say it"}))
        found = [json.loads(socket.recv())]
        while "done" not in found[-1] and "error" not in found[-1]:
            found.append(json.loads(socket.recv()))
    assert "".join(each["choices"][0]["text"] for each in found[:-1]) == "Hello there"
