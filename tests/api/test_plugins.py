"""Plugins over HTTP: a person adds them, looks at them and decides about them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from agentd.plugins.folder import CODE, CONTENT, TESTS
from agentd.plugins.skeleton import skeleton
from tests.api.conftest import Served
from tests.plugins.conftest import ADD, ADD_TESTS, CONVERT, CONVERT_TESTS, adding, converting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")


def body(code: str = ADD, **more: Any) -> dict[str, Any]:
    spec = adding(**more).model_dump(mode="json")
    tests = CONVERT_TESTS if "csv_to_json" in spec["name"] else ADD_TESTS.replace("NAME", spec["name"])
    files = {CODE: code, TESTS: tests}
    return {"spec": spec, "files": {name: files.get(name, "# text\n") for name in CONTENT}}


def add(served: Served, code: str = ADD, **more: Any) -> dict[str, Any]:
    answer = served.client.post("/api/plugins", json=body(code, **more))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def post(served: Served, path: str, **sent: Any) -> Any:
    return served.client.post(f"/api/plugins/{path}", json=sent).json()


def test_a_person_s_plugin_is_proven_installed_and_called(served: Served) -> None:
    assert add(served)["state"] == "provisional"
    assert "add" in [tool["name"] for tool in served.client.get("/api/tools").json()]
    call = {"args": {"a": 40, "b": 2}, "workspace": str(served.workspace)}
    assert served.client.post("/api/tools/add/call", json=call).json()["text"] == "42"
    found = served.client.get("/api/plugins/add").json()
    assert (found["code"], found["evidence"]["author"], found["problem"]) == (ADD, "person", "")
    assert found["models"] == [{"model": "", "successes": 1, "failures": 0}]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ADD.replace("+", "-"), "example 1 of add: expected 3, got -1"),
        ("import subprocess\n" + ADD, "plugin.py:1"),
        ("def other(a, b=1):\n    return a + b\n", "no function add"),
        ("not python", "plugin.py:1"),
        ("", "plugin.py:1"),
    ],
)
def test_what_does_not_pass_the_gate_is_not_installed(served: Served, code: str, said: str) -> None:
    answer = served.client.post("/api/plugins", json=body(code))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "plugin.refused")
    assert said in answer.json()["error"]["message"]
    assert served.client.get("/api/plugins").json()["plugins"] == []
    assert served.app.plugins.folder.found() == []


def test_the_files_of_an_example_are_compared(served: Served) -> None:
    spec = converting().model_dump(mode="json")
    files = {CODE: CONVERT, TESTS: CONVERT_TESTS}
    sent = {"spec": spec, "files": {name: files.get(name, "# text\n") for name in CONTENT}}
    assert served.client.post("/api/plugins", json=sent).status_code == 201
    spec["examples"][0]["files_after"]["a.json"] = "[]"
    refused = served.client.post("/api/plugins", json=sent).json()["error"]["message"]
    assert "a.json: expected '[]', got '[{" in refused


def test_specs_and_files_of_a_wrong_form(served: Served) -> None:
    for wrong in (
        body(name="read_file"),
        body(name="health"),
        body() | {"files": {CODE: ADD}},
        body(input={"type": "object", "properties": {"copy": {"type": "string"}}}),
    ):
        assert served.client.post("/api/plugins", json=wrong).status_code == 400


def test_the_skeleton_passes_as_it_is(served: Served) -> None:
    import json

    texts = skeleton("word_count")
    spec = json.loads(texts.pop("manifest.json"))["spec"]
    answer = served.client.post("/api/plugins", json={"spec": spec, "files": texts})
    assert answer.status_code == 201, answer.text


def test_a_person_decides(served: Served) -> None:
    add(served)
    add(served)
    assert post(served, "add/rollback")["version"] == 1
    assert post(served, "add/demote")["state"] == "demoted"
    assert [plugin["active"] for plugin in served.client.get("/api/plugins").json()["plugins"]] == [True, False]
    assert post(served, "add/trust", version=1) | {"used": 0} == post(served, "add/trust", version=1) | {"used": 0}
    assert served.client.delete("/api/plugins/add?version=2").json() == {"removed": ["add 2"]}
    assert served.client.delete("/api/plugins/add").json() == {"removed": ["add 1"]}
    assert served.client.get("/api/plugins/add").status_code == 404
    assert "add" not in served.app.tools


def test_what_was_tampered_with_is_told_and_gone(served: Served) -> None:
    add(served)
    assert post(served, "verify") == {"checked": 1, "faults": []}
    assert post(served, "add/test")["ok"] is True
    (served.app.plugins.folder.place("add", 1) / CODE).write_text(ADD.replace("+", "-"))
    (fault,) = post(served, "verify")["faults"]
    assert "add/1/plugin.py was changed" in fault["problem"]
    assert "add" not in served.app.tools
    assert served.client.post("/api/plugins/add/trust", json={}).json()["error"]["code"] == "plugin.refused"
    shown = served.client.get("/api/plugins/add").json()
    assert (shown["state"], shown["code"], "was changed" in shown["problem"]) == ("quarantined", None, True)


def test_health_names_what_is_alike_worse_and_dead(served: Served) -> None:
    add(served)
    add(served, ADD.replace("add", "add_two"), name="add_two")
    add(served)
    post(served, "add/demote", version=2)
    found = served.client.get("/api/plugins/health").json()
    assert (found["plugins"], found["reuse_rate"]) == (2, 0.0)
    assert found["redundant"] == [["add", "add_two"]]
    assert (found["regressions"], found["dead"]) == (["add 2"], [])


def test_skills_are_listed_with_what_is_wrong(served: Served) -> None:
    folder = served.app.settings.plugins_dir / "notes"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("no front matter")
    (skill,) = served.client.get("/api/plugins").json()["skills"]
    assert (skill["name"], bool(skill["problem"])) == ("notes", True)
