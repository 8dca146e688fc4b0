"""`diff` and `undo` over HTTP: what a task changed, and taking it back."""

from __future__ import annotations

import os
from typing import Any

import pytest

from agentd.types import Report, TaskState
from agentd.workspace.paths import Workspace
from tests.api.conftest import Served


def finished(served: Served, *, end: bool = True) -> str:
    """A task that has changed notes.txt and made new.txt."""
    task = served.app.queue.claim("worker") if served.submit() else None
    assert task is not None
    files = Workspace(served.workspace, served.app.ledger.keeper(task.id, "1", served.workspace))
    files.write_atomic("notes.txt", b"milk\nbread\neggs\n")
    files.write_atomic("new.txt", b"new\n")
    served.app.ledger.finish(task.id, "1")
    if end:
        served.app.queue.finish(task, Report(state=TaskState.CLAIMED, answer=""))
    return task.id


def post(served: Served, task: str, **body: Any) -> Any:
    return served.client.post(f"/api/tasks/{task}/undo", json=body)


def test_the_diff_of_a_task(served: Served) -> None:
    found = served.client.get(f"/api/tasks/{finished(served)}/diff").json()
    assert {change["path"]: change["kind"] for change in found["changes"]} == {
        "new.txt": "added",
        "notes.txt": "changed",
    }
    assert "+eggs" in found["diff"]
    assert found["undone"] is False


def test_undo_and_back(served: Served) -> None:
    task = finished(served)
    said = post(served, task, dry_run=True).json()
    assert (served.workspace / "new.txt").exists()
    done = post(served, task).json()
    assert done["restored"] == said["restored"]
    assert done["restored"]["paths"] == ["new.txt", "notes.txt"]
    assert (served.workspace / "notes.txt").read_text() == "milk\nbread\n"
    assert served.client.get(f"/api/tasks/{task}/diff").json()["undone"] is True
    post(served, task, back=True)
    assert (served.workspace / "new.txt").read_text() == "new\n"


def test_undo_of_some_paths(served: Served) -> None:
    task = finished(served)
    assert post(served, task, paths=["new.txt"]).json()["restored"]["paths"] == ["new.txt"]
    assert "eggs" in (served.workspace / "notes.txt").read_text()
    assert post(served, task, paths=["../out"]).status_code == 403
    assert post(served, task, paths=["."]).json()["restored"]["paths"] == ["notes.txt"]


def test_a_task_that_runs_cannot_be_undone(served: Served) -> None:
    reply = post(served, finished(served, end=False))
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
    assert "running" in reply.json()["error"]["message"]


def test_nothing_to_take_back(served: Served) -> None:
    task = finished(served)
    assert post(served, task, back=True).status_code == 409
    assert post(served, "nope").status_code == 404
    assert served.client.get("/api/tasks/nope/diff").status_code == 404
    assert post(served, task, path=["a"]).status_code == 400


def test_what_is_forgotten_is_said(served: Served) -> None:
    task = finished(served)
    served.app.db.execute("DELETE FROM changes")
    served.app.db.execute("INSERT INTO changes_pruned VALUES (?, 0, 'it lies back more than 30 days')", (task,))
    reply = post(served, task)
    assert reply.status_code == 409
    assert "30 days" in reply.json()["error"]["message"]


def test_a_call_of_a_tool_can_be_undone_by_its_key(served: Served) -> None:
    body = {"args": {"path": "made.txt", "content": "x"}, "workspace": str(served.workspace), "level": 1}
    assert served.client.post("/api/tools/write_file/call", json=body).json()["ok"]
    key = served.app.audit.tail(1)[0].data["key"]
    assert post(served, key).json()["restored"]["paths"] == ["made.txt"]
    assert not (served.workspace / "made.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="names of bytes")
def test_a_name_that_is_no_text_is_told(served: Served) -> None:
    (served.workspace / "d").mkdir()
    (served.workspace / "d" / os.fsdecode(b"odd\xff")).write_text("x")
    task = served.app.queue.claim("worker") if served.submit() else None
    assert task is not None
    Workspace(served.workspace, served.app.ledger.keeper(task.id, "1", served.workspace)).delete("d")
    served.app.queue.finish(task, Report(state=TaskState.CLAIMED, answer=""))
    assert served.client.get(f"/api/tasks/{task.id}/diff").status_code == 200
    assert post(served, task.id).json()["restored"]["paths"] == ["d", "d/odd?"]
    assert (served.workspace / "d" / os.fsdecode(b"odd\xff")).read_text() == "x"
