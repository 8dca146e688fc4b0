"""The settings over HTTP."""

from __future__ import annotations

from agentd.types import TaskRequest
from tests.api.conftest import Served


def test_all_settings_with_what_they_mean(served: Served) -> None:
    found = served.client.get("/v1/config").json()
    assert found["agent.steps"]["value"] == 40
    assert found["agent.steps"]["live"] is True
    assert found["api.port"]["live"] is False


def test_a_change_takes_effect_at_once(served: Served) -> None:
    reply = served.client.patch("/v1/config", json={"agent.steps": 7, "tasks": {"workers": 2}})
    assert reply.json() == {"changed": {"agent.steps": 7}, "waiting": ["tasks.workers"]}
    task = served.app.queue.submit(TaskRequest(goal="look", workspace=str(served.workspace)))
    assert task.budget.steps == 7
    assert served.app.audit.tail(5)[-2].kind == "settings.changed"


def test_wrong_changes(served: Served) -> None:
    for body, status in (
        ({}, 400),
        ({"agent.steps": 0}, 400),
        ({"agent.stepz": 1}, 404),
        ({"agent": []}, 404),
        ([], 400),
        ("x", 400),
        (None, 400),
    ):
        reply = served.client.patch("/v1/config", json=body)
        assert (reply.status_code, "error" in reply.json()) == (status, True), body
    assert served.app.settings.agent.steps == 40


def test_status_has_a_second_address(served: Served) -> None:
    assert served.client.get("/v1/status").json()["pid"] == served.client.get("/api/status").json()["pid"]
