"""What waits for a person, and what becomes of the answer: the task goes on at that very step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from agentd.errors import AgentdError, BadInput, Conflict, NotFound
from agentd.policy.approvals import Approval, Approvals, Kind, State
from agentd.store.db import Database
from agentd.tasks.queue import Queue
from agentd.types import Task, TaskState

Waits: TypeAlias = Literal["call", "plan", "question", "doubt"]

MAX_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task that waits. Of a `doubt` (was it done before a crash?) there is no request: retry or cancel the task."""

    task: str
    goal: str
    workspace: str
    kind: Waits
    question: str
    intent: str = ""
    """Of the step that it waits in."""
    expired: bool = False
    """A yes comes too late; to answer has it asked again."""
    request: Approval | None = None


class Inbox:
    """Answers to what tasks ask, each in one transaction with the task's way back into the queue."""

    def __init__(self, db: Database, queue: Queue, approvals: Approvals) -> None:
        self._db = db
        self._queue = queue
        self._approvals = approvals

    def waiting(self) -> list[Waiting]:
        """The oldest first."""
        pending = self._approvals.pending()
        tasks = self._queue.list([TaskState.WAITING], limit=MAX_LISTED)
        return [self._entry(task, pending.get(task.id)) for task in reversed(tasks)]

    def approve(
        self,
        task_id: str,
        *,
        by: str,
        step: int | None = None,
        request: int | None = None,
        hunks: Sequence[int] | None = None,
    ) -> Task:
        """Say yes to what was shown, or to these hunks of it (from 1). `request` names it where that could be unclear.

        `Conflict` when somebody has answered already, and when it has expired, which has it asked anew.
        """

        def say(waiting: Approval) -> None:
            if waiting.kind is Kind.QUESTION:
                raise BadInput(f"task {task_id} asks: {waiting.shown[:500]}", hint=f"agentd answer {task_id} TEXT")
            self._approvals.answer(waiting, State.APPROVED, by=by, chosen=hunks)

        return self._answer(task_id, say, step=step, request=request, reason=f"approved by {by}")

    def reject(
        self, task_id: str, *, by: str, because: str, step: int | None = None, request: int | None = None
    ) -> Task:
        """Say no: the model reads why, and may find another way."""
        if not because.strip():
            raise BadInput("no reason is given", hint="say why, so that the task can find another way")

        def say(waiting: Approval) -> None:
            self._approvals.answer(waiting, State.REJECTED, by=by, words=because)

        return self._answer(task_id, say, step=step, request=request, reason=f"rejected by {by}")

    def answer(self, task_id: str, text: str, *, by: str, step: int | None = None, request: int | None = None) -> Task:
        """Answer a question of the model; it reads the answer as its owner's word."""
        if not text.strip():
            raise BadInput("the answer is empty")

        def say(waiting: Approval) -> None:
            if waiting.kind is not Kind.QUESTION:
                raise BadInput(f"task {task_id} waits for a yes or no", hint=f"agentd approve {task_id}")
            self._approvals.answer(waiting, State.APPROVED, by=by, words=text)

        return self._answer(task_id, say, step=step, request=request, reason=f"answered by {by}")

    def _answer(
        self, task_id: str, say: Callable[[Approval], None], *, step: int | None, request: int | None, reason: str
    ) -> Task:
        late: AgentdError | None = None
        with self._db.transaction():
            waiting = self._open(task_id, request)
            if step not in (None, waiting.step):
                raise NotFound(f"task {task_id} waits in step {waiting.step}, not in step {step}")
            if self._approvals.expired(waiting):
                late = Conflict(
                    f"request {waiting.id} of task {task_id} had expired; it is asked anew",
                    hint="look at it again: agentd inbox",
                )
                reason = "what it asked had expired"
            else:
                say(waiting)
            if self._queue.get(task_id).state is TaskState.WAITING:  # else its worker notices before it waits
                self._queue.resume(task_id, reason)
        if late is not None:
            raise late
        return self._queue.get(task_id)

    def _open(self, task_id: str, request: int | None) -> Approval:
        """The request that the task waits for. `Conflict` when it was answered, or when there is another one now."""
        task = self._queue.get(task_id)
        every = self._approvals.of(task_id)
        found = next((each for each in every if each.state is State.OPEN), None)
        if found is not None and request in (None, found.id) and not task.state.ended:
            return found
        earlier = next((each for each in every if each.id == request), None) if request else None
        last = earlier or (every[-1] if every else None)
        if request is not None and earlier is None:
            raise NotFound(f"task {task_id} has asked no request {request}", hint="`agentd inbox` lists what waits")
        if task.state is TaskState.WAITING and found is None:
            hint = f"look whether it is done, then: agentd retry {task_id}, or agentd cancel {task_id}"
            raise Conflict(f"task {task_id} asks for no yes or no: {task.question[:500]}", hint=hint)
        if last is not None:
            raise self._approvals.taken(last)
        raise Conflict(f"task {task_id} is {task.state} and waits for nobody", hint="`agentd inbox` lists what waits")

    def _entry(self, task: Task, request: Approval | None) -> Waiting:
        steps = task.plan.steps if task.plan else ()
        number = request.step if request and request.step else 0
        return Waiting(
            task=task.id,
            goal=task.goal,
            workspace=task.workspace,
            kind=request.kind.value if request else "doubt",
            question=task.question,
            intent=steps[number - 1].intent if 0 < number <= len(steps) else "",
            expired=request is not None and self._approvals.expired(request),
            request=request,
        )
