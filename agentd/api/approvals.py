"""Endpoints of what waits for a person. Only the home's own token and its unix socket reach them, no named key."""

from __future__ import annotations

from fastapi import APIRouter

from agentd.api.deps import Body, Core
from agentd.policy.approvals import Approval
from agentd.tasks.apply import apply as apply_changes
from agentd.tasks.inbox import Waiting
from agentd.types import Origin, Task

router = APIRouter(prefix="/api", tags=["approvals"])


class _Answer(Body):
    """`by`: who answers; `step` and `request`, when given, must be those that the task waits for."""

    by: str = "api"
    step: int | None = None
    request: int | None = None


class ApproveBody(_Answer):
    """`hunks`: numbers, from 1, of the parts of the shown diff that are approved; all without it."""

    hunks: list[int] | None = None


class RejectBody(_Answer):
    because: str


class AnswerBody(_Answer):
    text: str


@router.get("/inbox")
def inbox(core: Core) -> list[Waiting]:
    """What waits for a person, the oldest first."""
    return core.inbox.waiting()


@router.get("/tasks/{task_id}/approvals")
def approvals(core: Core, task_id: str) -> list[Approval]:
    """All that a task has asked, with what became of it."""
    core.queue.get(task_id)
    return core.approvals.of(task_id)


@router.post("/tasks/{task_id}/approve")
def approve(core: Core, task_id: str, body: ApproveBody) -> Task:
    """Say yes to exactly what was shown; the task goes on at that step."""
    return core.inbox.approve(task_id, by=body.by, step=body.step, request=body.request, hunks=body.hunks)


@router.post("/tasks/{task_id}/reject")
def reject(core: Core, task_id: str, body: RejectBody) -> Task:
    """Say no; the model reads why, and the task goes on."""
    return core.inbox.reject(task_id, by=body.by, because=body.because, step=body.step, request=body.request)


@router.post("/tasks/{task_id}/answer")
def answer(core: Core, task_id: str, body: AnswerBody) -> Task:
    """Answer a question of the model; the task goes on with it."""
    return core.inbox.answer(task_id, body.text, by=body.by, step=body.step, request=body.request)


class ApplyBody(Body):
    origin: Origin = Origin.API


@router.post("/tasks/{task_id}/apply", status_code=201)
def apply(core: Core, task_id: str, body: ApplyBody) -> Task:
    """A new task that makes exactly the changes that this one has shown, if the files are as they were."""
    return apply_changes(core.queue, core.previews, task_id, body.origin)
