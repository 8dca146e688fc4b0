"""Endpoints of tasks and of what happened to them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from agentd.api.deps import Body, Core
from agentd.api.sse import stream
from agentd.errors import BadInput
from agentd.tasks.records import storable
from agentd.types import Budget, Check, JsonObject, Task, TaskRequest, TaskState

router = APIRouter(prefix="/api", tags=["tasks"])

MAX_LISTED = 1000


async def _known_fields(request: Request) -> None:
    """Refuse misspelt fields, which would otherwise be dropped without a word."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise BadInput("the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        return  # what else is wrong with it is found by its type
    _refuse_unknown(body, TaskRequest, "")
    if isinstance(body.get("budget"), dict):
        _refuse_unknown(body["budget"], Budget, "budget.")
    if isinstance(body.get("checks"), list):
        for index, check in enumerate(body["checks"]):
            if isinstance(check, dict):
                _refuse_unknown(check, Check, f"checks.{index}.")


def _refuse_unknown(given: dict[str, Any], kind: type[Any], where: str) -> None:
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            raise BadInput(f"unknown field {where}{name}", hint=f"there are {', '.join(known)}")


@router.post("/tasks", status_code=201, dependencies=[Depends(_known_fields)])
def submit(core: Core, request: TaskRequest, idempotency_key: Annotated[str | None, Header()] = None) -> Task:
    """Queue a task. The same `Idempotency-Key` with the same request gives the task that stands already."""
    if idempotency_key is not None:
        if request.idempotency_key not in (None, idempotency_key):
            raise BadInput("the idempotency keys in header and body differ", hint="send one of them")
        request = replace(request, idempotency_key=idempotency_key)
    return core.queue.submit(request)


@router.get("/tasks")
def list_tasks(
    core: Core,
    state: Annotated[list[TaskState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
) -> list[Task]:
    """The newest tasks first; `state` may be given several times."""
    return core.queue.list(state, limit)


@router.get("/tasks/{task_id}")
def get_task(core: Core, task_id: str) -> Task:
    """One task with its plan, the outcomes of its steps, and its report."""
    return core.queue.get(task_id)


@router.post("/tasks/{task_id}/cancel")
def cancel(core: Core, task_id: str) -> Task:
    """Stop a task; a running one stops soon after."""
    return core.queue.cancel(task_id)


@router.post("/tasks/{task_id}/retry", status_code=201)
def retry(core: Core, task_id: str) -> Task:
    """A fresh attempt at a task that has ended or waits: a new task."""
    return core.queue.retry(task_id)


class UndoBody(Body):
    paths: list[str] = Field(default_factory=list, max_length=1000)
    """Files and folders; empty for all."""
    dry_run: bool = False
    back: bool = False
    """Take the last undo back instead."""


@router.get("/tasks/{task_id}/diff")
def diff(core: Core, task_id: str) -> JsonObject:
    """What a task did to files: each change, and all as one unified diff, with marks in the place of secrets."""
    found: JsonObject = core.redactor.clean(_plain(asdict(core.undo.changes(task_id))))
    return found


@router.post("/tasks/{task_id}/undo")
def undo(core: Core, task_id: str, body: UndoBody) -> JsonObject:
    """Take back what an ended task did to files; what others have changed since stays."""
    return _plain(asdict(core.undo.undo(task_id, body.paths, dry_run=body.dry_run, back=body.back)))


def _plain(answer: JsonObject) -> JsonObject:
    """Names and texts of files may hold bytes that are no text, and an answer cannot carry them."""
    plain: JsonObject = json.loads(storable(json.dumps(answer, ensure_ascii=False)))
    return plain


@router.get("/report")
def report(core: Core, since: float = 0.0) -> dict[str, Any]:
    """What ended since (Unix seconds): verified, claimed and the others apart; and what waits."""
    return core.queue.report(since)


@router.get("/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    request: Request,
    core: Core,
    task: str | None = None,
    follow: bool = True,
    last_event_id: Annotated[int | None, Query(ge=0)] = None,
    header_id: Annotated[int | None, Header(alias="Last-Event-ID", ge=0)] = None,
) -> StreamingResponse:
    """Server-sent events after `Last-Event-ID`, each with the JSON of an event. With `task` that task's, until it has
    ended; with `follow=false` only those that are there. The last thing sent is then `event: end`."""
    last = header_id if header_id is not None else last_event_id or 0
    if task is not None:
        await run_in_threadpool(core.queue.get, task)
    frames = stream(core, request.app.state.ticker, last=last, task=task, follow=follow)
    return StreamingResponse(frames, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
