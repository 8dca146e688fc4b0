"""Every endpoint, over the real parts of a daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentd.api.limits import MAX_BODY
from agentd.types import Check, CheckResult, Report, TaskState
from tests.api.conftest import Served


def request(served: Served, **changes: Any) -> dict[str, Any]:
    return {"goal": "look around", "workspace": str(served.workspace)} | changes


def error_of(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


# tasks ----------------------------------------------------------------------------------------------------------------


def test_a_task_is_queued_and_comes_back_whole(served: Served) -> None:
    reply = served.client.post("/api/tasks", json=request(served, level=1, checks=[{"target": "true"}], origin="cli"))
    assert reply.status_code == 201
    task = reply.json()
    assert (task["state"], task["level"], task["origin"]) == ("queued", 1, "cli")
    assert task["checks"] == [{"kind": "command", "target": "true", "text": "", "by": "user"}]
    assert served.client.get(f"/api/tasks/{task['id']}").json() == task
    assert served.client.get("/api/tasks").json() == [task]


def test_the_same_key_and_request_give_the_same_task(served: Served) -> None:
    first, second = (
        served.client.post("/api/tasks", json=request(served), headers={"Idempotency-Key": "k1"}).json()["id"]
        for _ in range(2)
    )
    assert first == second
    assert len(served.app.queue.list()) == 1


def test_the_same_key_with_another_request_is_a_conflict(served: Served) -> None:
    headers = {"Idempotency-Key": "k1"}
    served.client.post("/api/tasks", json=request(served), headers=headers)
    reply = served.client.post("/api/tasks", json=request(served, goal="other"), headers=headers)
    assert error_of(reply) == (409, "conflict")


def test_keys_in_header_and_body_must_agree(served: Served) -> None:
    body = request(served, idempotency_key="k2")
    reply = served.client.post("/api/tasks", json=body, headers={"Idempotency-Key": "k1"})
    assert error_of(reply) == (400, "input.invalid")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"goal": ""}, "the goal is empty"),
        ({"goal": "x" * 1_000_000}, "the goal has 1,000,000 bytes"),
        ({"goal": "a\x00b"}, "not plain text"),
        ({"goal": 5}, "goal: Input should be a valid string, got 5"),
        ({"goal": None}, "goal: "),
        ({"workspace": "/does/not/exist"}, "/does/not/exist"),
        ({"workspace": "relative"}, "not an absolute path"),
        ({"level": 7}, "level: "),
        ({"levle": 1}, "unknown field levle"),
        ({"budget": {"step": 1}}, "unknown field budget.step"),
        ({"checks": [{"target": "true", "cmd": "x"}]}, "unknown field checks.0.cmd"),
        ({"checks": [{}]}, "checks.0.target: missing"),
        ({"checks": [{"target": "echo '"}]}, "not a command line"),
    ],
)
def test_a_bad_request_is_refused_and_nothing_is_queued(served: Served, change: dict[str, Any], said: str) -> None:
    reply = served.client.post("/api/tasks", json=request(served, **change))
    assert error_of(reply) == (400, "input.invalid")
    assert said in reply.json()["error"]["message"]
    assert served.app.queue.list() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b"[1]", b'"text"', b"[" * 100_000])
def test_a_body_that_is_no_request(served: Served, body: bytes) -> None:
    reply = served.client.post("/api/tasks", content=body, headers={"Content-Type": "application/json"})
    assert error_of(reply) == (400, "input.invalid")


def test_a_body_beyond_the_limit(served: Served) -> None:
    reply = served.client.post("/api/tasks", json=request(served, goal="x" * MAX_BODY))
    assert error_of(reply) == (413, "input.too_large")


def test_a_level_above_the_highest_is_denied(served: Served) -> None:
    assert error_of(served.client.post("/api/tasks", json=request(served, level=4))) == (403, "policy.denied")


def test_tasks_are_listed_by_state(served: Served) -> None:
    kept, gone = served.submit("one"), served.submit("two")
    served.app.queue.cancel(gone.id)

    def ids(query: str) -> list[str]:
        return [task["id"] for task in served.client.get(f"/api/tasks{query}").json()]

    assert ids("?state=queued") == [kept.id]
    assert ids("?state=queued&state=cancelled") == [gone.id, kept.id]
    assert ids("?limit=1") == [gone.id]
    assert error_of(served.client.get("/api/tasks?state=done")) == (400, "input.invalid")
    assert error_of(served.client.get("/api/tasks?limit=0")) == (400, "input.invalid")


def test_cancel_and_retry(served: Served) -> None:
    task = served.submit()
    assert served.client.post(f"/api/tasks/{task.id}/cancel").json()["state"] == "cancelled"
    again = served.client.post(f"/api/tasks/{task.id}/retry")
    assert (again.status_code, again.json()["retry_of"]) == (201, task.id)
    assert error_of(served.client.post(f"/api/tasks/{task.id}/retry")) == (409, "conflict")


@pytest.mark.parametrize("path", ["/api/tasks/none", "/api/events?task=none", "/api/policy/explain?task=none"])
def test_a_task_that_is_not_there(served: Served, path: str) -> None:
    assert error_of(served.client.get(path)) == (404, "input.not_found")


def test_the_report_keeps_verified_and_claimed_apart(served: Served) -> None:
    passed = CheckResult(check=Check(target="true"), passed=True, detail="exit code 0")
    for state, checks in ((TaskState.VERIFIED, (passed,)), (TaskState.CLAIMED, ()), (TaskState.FAILED, ())):
        served.submit(state.value)
        task = served.app.queue.claim("tests")
        assert task is not None
        served.app.queue.finish(task, Report(state=state, answer="a", reason="r", checks=checks))
    page = served.client.get("/api/report").json()
    assert {key: [task["goal"] for task in page[key]] for key in ("verified", "claimed", "other")} == {
        "verified": ["verified"],
        "claimed": ["claimed"],
        "other": ["failed"],
    }
    assert served.client.get(f"/api/report?since={page['until'] + 1}").json()["verified"] == []


# events ---------------------------------------------------------------------------------------------------------------


def frames(text: str) -> list[dict[str, Any]]:
    """The data of the frames before the end mark, which must be there."""
    parts = text.strip().split("\n\n")
    assert parts[-1] == "event: end\ndata: {}"
    found = []
    for part in parts[:-1]:
        fields = dict(line.split(": ", 1) for line in part.splitlines())
        event = json.loads(fields["data"])
        assert (fields["id"], fields["event"]) == (str(event["id"]), event["kind"])
        found.append(event)
    return found


def test_events_begin_after_the_last_that_was_seen(served: Served) -> None:
    task = served.submit()
    served.app.queue.cancel(task.id)
    events = frames(served.client.get("/api/events?follow=false").text)
    assert [event["kind"] for event in events] == ["TaskQueued", "TaskFinished"]
    rest = served.client.get("/api/events?follow=false", headers={"Last-Event-ID": str(events[0]["id"])})
    assert frames(rest.text) == events[1:]
    assert frames(served.client.get(f"/api/events?follow=false&last_event_id={events[1]['id']}").text) == []


def test_the_events_of_a_task_end_with_it(served: Served) -> None:
    task, other = served.submit("one"), served.submit("two")
    served.app.queue.cancel(task.id)
    reply = served.client.get(f"/api/events?task={task.id}")
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = frames(reply.text)
    assert {event["task"] for event in events} == {task.id}
    assert events[-1]["kind"] == "TaskFinished"
    assert frames(served.client.get(f"/api/events?task={task.id}&last_event_id={events[-1]['id']}").text) == []
    assert other.id not in reply.text


def test_more_events_than_one_batch(served: Served) -> None:
    with served.app.db.transaction():
        for number in range(1201):
            served.app.events.emit("Tick", "", {"number": number})
    events = frames(served.client.get("/api/events?follow=false").text)
    assert [event["data"]["number"] for event in events] == list(range(1201))


@pytest.mark.parametrize("last", ["-1", "x"])
def test_a_last_event_that_is_no_number(served: Served, last: str) -> None:
    reply = served.client.get("/api/events?follow=false", headers={"Last-Event-ID": last})
    assert error_of(reply) == (400, "input.invalid")


# tools, models, policy, audit -----------------------------------------------------------------------------------------


def test_tools_are_listed_and_shown(served: Served) -> None:
    names = {tool["name"] for tool in served.client.get("/api/tools").json()}
    assert {"read_file", "write_file", "run_command", "read_output"} <= names
    shown = served.client.get("/api/tools/read_file").json()
    assert shown["annotations"]["read_only"]
    assert "path" in shown["schema"]["properties"]
    assert error_of(served.client.get("/api/tools/frob")) == (404, "input.not_found")


def called(served: Served, name: str, level: int | None = None, **args: Any) -> Any:
    body = {"args": args, "workspace": str(served.workspace)} | ({} if level is None else {"level": level})
    return served.client.post(f"/api/tools/{name}/call", json=body)


def test_a_tool_is_called_through_the_gate_and_audited(served: Served) -> None:
    result = called(served, "read_file", path="notes.txt").json()
    assert result["ok"]
    assert "milk" in result["text"]
    assert [record.kind for record in served.app.audit.tail()] == ["tool.decided", "tool.finished"]


def test_a_tool_that_changes_something(served: Served) -> None:
    assert called(served, "write_file", path="new.txt", content="x\n").json()["changed"] == ["new.txt"]
    assert (served.workspace / "new.txt").read_text() == "x\n"


def test_a_tool_that_fails_is_a_result(served: Served) -> None:
    assert not called(served, "read_file", path="none.txt").json()["ok"]


@pytest.mark.parametrize(
    ("name", "level", "args", "expected"),
    [
        ("write_file", 0, {"path": "a", "content": "x"}, (403, "policy.denied")),
        ("read_file", None, {"path": "../../etc/passwd"}, (403, "policy.denied")),
        ("read_file", None, {"pth": "a"}, (400, "tool.misused")),
        ("frob", None, {}, (404, "input.not_found")),
        ("run_command", 4, {"command": "ls"}, (403, "policy.denied")),
    ],
)
def test_calls_that_are_refused(
    served: Served, name: str, level: int | None, args: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert error_of(called(served, name, level, **args)) == expected


def test_policy_is_shown_and_asked(served: Served) -> None:
    shown = served.client.get("/api/policy").json()
    assert [level["level"] for level in shown["levels"]] == [0, 1, 2, 3, 4]
    assert all(rule["because"] for rule in shown["rules"])
    for question, ruling in (
        ({"command": "git push --force"}, "deny"),
        ({"action": "fs.read a.txt", "level": 0}, "allow"),
        ({"action": "fs.write a.txt", "level": 0}, "deny"),
    ):
        assert served.client.post("/api/policy/check", json=question).json()["decision"] == ruling
    assert error_of(served.client.post("/api/policy/check", json={})) == (400, "input.invalid")
    assert error_of(served.client.post("/api/policy/check", json={"comand": "x"})) == (400, "input.invalid")


def test_audit_is_read_and_verified(served: Served) -> None:
    task = served.submit()
    served.submit()
    records = served.client.get(f"/api/audit?task={task.id}").json()
    assert [(record["kind"], record["task"]) for record in records] == [("task.queued", task.id)]
    assert served.client.get("/api/audit/verify").json()["ok"]
    served.app.db.execute("DROP TRIGGER audit_keeps_content")
    served.app.db.execute("UPDATE audit SET task = 'x' WHERE seq = 2")
    verdict = served.client.get("/api/audit/verify").json()
    assert (verdict["ok"], verdict["seq"]) == (False, 2)


def test_models_have_roles_and_states(served: Served) -> None:
    found = served.client.get("/api/models").json()
    assert found["loaded"] == []
    assert {"planner", "coder"} <= found["roles"].keys()
    assert all(model["state"] in ("loaded", "available", "missing") for model in found["models"])


# the daemon -----------------------------------------------------------------------------------------------------------


def test_status(served: Served) -> None:
    served.submit()
    status = served.client.get("/api/status").json()
    assert (status["pid"], status["home"]) == (os.getpid(), str(served.app.settings.home))
    assert status["socket"] == str(served.app.settings.socket_path)
    assert status["queue"]["queued"] == 1
    assert status["models"] == []


def test_backup(served: Served, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    assert served.client.post("/api/backup", json={"path": str(target)}).json()["bytes"] == target.stat().st_size
    assert error_of(served.client.post("/api/backup", json={"path": str(target)})) == (409, "conflict")
    assert error_of(served.client.post("/api/backup", json={"path": "copy.db"})) == (400, "input.invalid")


def test_shutdown_is_passed_on(served: Served) -> None:
    assert served.client.post("/api/shutdown").status_code == 202
    assert served.stops == [True]


def test_openapi_describes_every_endpoint(served: Served) -> None:
    paths = served.client.get("/openapi.json").json()["paths"]
    assert {
        "/api/tasks",
        "/api/tasks/{task_id}",
        "/api/events",
        "/api/status",
        "/api/tools/{name}/call",
    } <= paths.keys()


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/nope", (404, "input.not_found")), ("DELETE", "/api/tasks", (405, "input.method"))],
)
def test_what_is_not_there(served: Served, method: str, path: str, expected: tuple[int, str]) -> None:
    assert error_of(served.client.request(method, path)) == expected


def test_an_error_nobody_foresaw_has_the_same_form(served: Served) -> None:
    served.app.db.close()
    status, code = error_of(served.client.get("/api/tasks"))
    assert status in (500, 503)
    assert code in ("error", "store.unusable")


def test_a_project_s_policy_holds_for_calls_outside_tasks(served: Served) -> None:
    (served.workspace / ".agentd").mkdir()
    policy = served.workspace / ".agentd" / "policy.yaml"
    policy.write_text("max_level: 0\n")
    assert error_of(called(served, "write_file", path="a", content="x")) == (403, "policy.denied")
    question = {"action": "fs.write a", "level": 1, "workspace": str(served.workspace)}
    answer = served.client.post("/api/policy/check", json=question).json()
    assert (answer["decision"], answer["level"]) == ("deny", 0)
    policy.write_text("tools: [x]\n")
    assert error_of(called(served, "read_file", path="notes.txt")) == (400, "input.invalid")
    assert not (served.workspace / "a").exists()
