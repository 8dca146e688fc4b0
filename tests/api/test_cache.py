"""The kept replies over HTTP."""

from __future__ import annotations

from agentd.types import ModelReply, ModelRequest
from tests.api.conftest import Served


def keep(served: Served, text: str, model: str = "one") -> str:
    request = ModelRequest(prompt=text)
    key = served.app.replies.key(request, {"entry": model})
    assert key is not None
    reply = ModelReply(text=text, model=model, prompt_tokens=1, completion_tokens=1, seconds=1.0)
    served.app.replies.put(key, request, reply)
    return key


def test_list_show_and_forget(served: Served) -> None:
    key = keep(served, "first")
    keep(served, "second", "two")
    found = served.client.get("/api/cache", params={"limit": 1}).json()
    assert found["stats"]["replies"] == 2
    assert found["stats"]["bytes"] > 0
    assert len(found["replies"]) == 1
    assert "reply" not in found["replies"][0]
    assert served.client.get(f"/api/cache/{key[:16]}").json()["reply"]["text"] == "first"
    assert served.client.delete("/api/cache", params={"model": "two"}).json() == {"forgotten": 1}
    assert served.client.delete("/api/cache").json() == {"forgotten": 1}
    assert served.client.get("/api/cache").json()["replies"] == []


def test_wrong_keys(served: Served) -> None:
    for key in ("x", "0" * 64, "%", "..", "0" * 5000, "\ud7ff"):
        assert served.client.get(f"/api/cache/{key}").status_code == 404, key
    assert served.client.get("/api/cache", params={"limit": -1}).status_code == 400


def test_the_status_tells_of_it(served: Served) -> None:
    keep(served, "first")
    status = served.client.get("/api/status").json()
    assert status["cache"]["replies"] == 1
    assert (status["servers"], status["stand_ins"]) == ([], [])


def test_it_can_be_turned_off_while_the_daemon_runs(served: Served) -> None:
    served.client.patch("/v1/config", json={"cache.enabled": False})
    assert served.app.replies.key(ModelRequest(prompt="x"), {"entry": "one"}) is None
    assert not served.client.get("/api/status").json()["cache"]["enabled"]
