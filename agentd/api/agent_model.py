"""The agent as a model: a conversation becomes a task, its progress the reasoning, its report the reply.

`agentd` works at the configured level, `agentd/level-N` at level N, `agentd/plan-only` makes a plan and does nothing.
What says how a model should write (temperature, length, stop) says nothing to an agent and is passed over.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from starlette.requests import HTTPConnection

from agentd.api.conversation import Conversation, read
from agentd.api.narration import lines, reply
from agentd.app import App
from agentd.errors import BadInput, Cancelled, Conflict, NotFound, Stopping, StoreError
from agentd.events import Event, EventKind
from agentd.types import (
    AccessLevel,
    Budget,
    Delta,
    ModelProfile,
    ModelReply,
    ModelRequest,
    OnDelta,
    Origin,
    Score,
    Task,
    TaskRequest,
    TaskState,
)

NAME = "agentd"
PLAN_ONLY = f"{NAME}/plan-only"
WORKSPACE = "X-Agentd-Workspace"
"""The header that names the folder to work in."""
DETACH = "X-Agentd-Detach"
"""The header that says whether the task goes on (`true`) when its client has gone away, or is cancelled (`false`)."""

PIECE = 200
"""Characters of one piece of the reply."""
LOOK_SECONDS = 0.25
"""How soon it is noticed that the client has gone away."""
QUIET_SECONDS = 15.0
"""After so long without news a line says that the task goes on, which keeps the connection open."""

_TURNS = frozenset({EventKind.TASK_QUEUED, EventKind.TASK_STARTED, EventKind.TASK_WAITING, EventKind.TASK_FINISHED})
_ANY = 1_000_000


def agent_names(core: App) -> list[str]:
    """The names under which the agent can be asked: no level above the highest that is allowed."""
    return [NAME, PLAN_ONLY, *(_level_name(level) for level in AccessLevel if level <= core.settings.policy.max_level)]


def agent_model(core: App, request: HTTPConnection, name: str) -> AgentModel:
    """The agent as the model `name`, for one request; `NotFound` for a name that is none of its own."""
    levels = {_level_name(level): level for level in AccessLevel}
    if name not in (NAME, PLAN_ONLY, *levels):
        raise NotFound(f"there is no model {name[:60]!r}", hint=f"there are {', '.join(agent_names(core))}")
    return AgentModel(
        core,
        name,
        level=AccessLevel.READ_ONLY if name == PLAN_ONLY else levels.get(name),
        headers=request.headers,
        stopping=request.app.state.stopping,
    )


class AgentModel:
    """A `Model` whose reply is what came of one task; see `types.Model`. It replies once.

    `headers` are those of the client's request; `stopping` is set when the daemon goes down. A task that fails is told
    in the reply's words; `Cancelled`, `Stopping` and what the queue raises are errors.
    """

    def __init__(
        self,
        core: App,
        name: str,
        *,
        level: AccessLevel | None,
        headers: Mapping[str, str],
        stopping: threading.Event,
    ) -> None:
        self._core = core
        self._name = name
        self._level = level
        self._headers = headers
        self._detached = _says_true(headers, DETACH, core.settings.api.detach)
        self._stopping = stopping
        self._once = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ModelProfile:
        return ModelProfile()

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        _refuse_forms(request)
        if not self._once.acquire(blocking=False):
            raise BadInput("the agent gives one reply to a request", hint="leave out n and best_of")
        begun = self._core.clock.now()
        say = on_delta or _unheard
        thought: list[str] = []

        def think(line: str) -> None:
            thought.append(f"{line}\n")
            say(Delta(reasoning=thought[-1]))

        task = self._done(read(request), think, cancel or threading.Event())
        text = reply(task, self._core.approvals.pending().get(task.id))
        for start in range(0, len(text), PIECE):
            say(Delta(text=text[start : start + PIECE]))
        prompt, completion = self._tokens(task)
        return ModelReply(
            text=text,
            model=self._name,
            prompt_tokens=prompt,
            completion_tokens=completion,
            seconds=self._core.clock.now() - begun,
            reasoning="".join(thought),
        )

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        raise BadInput(f"{self._name} is an agent: it cannot score", hint="name a model of the catalog")

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise BadInput(f"{self._name} is an agent: it makes no vectors", hint="name a model of the catalog")

    def count(self, text: str) -> int:
        """About: four characters make a token; which model will read them is not known yet."""
        return (len(text) + 3) // 4

    # the task --------------------------------------------------------------------------------------------------------

    def _done(self, asked: Conversation, think: Callable[[str], None], cancel: threading.Event) -> Task:
        """The task that the conversation became, once it has ended or waits."""
        with self._core.bus.listen() as published:
            task = self._submit(asked)
            try:
                think(f"task {task.id} in {task.workspace}, level {int(task.level)}")
                return self._follow(task.id, published, think, cancel)
            except BaseException:
                # Nobody listens any more: the client has gone, or is about to be told that this went wrong.
                if not self._detached:
                    self._give_up(task.id)
                raise

    def _submit(self, asked: Conversation) -> Task:
        earlier = self._earlier(asked)
        if earlier is None:
            return self._core.queue.submit(self._request(self._goal(asked), self._workspace(asked)))
        goal = asked.goal if self._is_compact() else asked.answering(earlier)
        task = self._core.queue.submit(self._request(goal, self._header_workspace() or earlier.workspace))
        self._give_up(earlier.id)
        return task

    def _goal(self, asked: Conversation) -> str:
        """A compact planner reads every word of a goal as part of the request, so it gets no context."""
        return asked.goal if self._is_compact() else asked.with_context()

    def _is_compact(self) -> bool:
        return self._core.models.for_role("planner").profile.compact

    def _earlier(self, asked: Conversation) -> Task | None:
        """The task whose question the user answers, if it waits still."""
        if asked.waiting is None:
            return None
        with suppress(NotFound):
            task = self._core.queue.get(asked.waiting)
            return task if task.state is TaskState.WAITING and task.origin is Origin.API else None
        return None

    def _request(self, goal: str, workspace: str) -> TaskRequest:
        return TaskRequest(
            goal=goal,
            workspace=workspace,
            level=self._level,
            budget=self._budget(),
            origin=Origin.API,
            idempotency_key=self._headers.get("idempotency-key"),
        )

    def _budget(self) -> Budget | None:
        if self._name != PLAN_ONLY:
            return None
        limits = self._core.settings.agent
        return Budget(steps=0, tokens=limits.tokens, seconds=limits.seconds, retries=limits.retries)

    def _workspace(self, asked: Conversation) -> str:
        return self._header_workspace() or asked.workspace(self._core.settings.api.workspace)

    def _header_workspace(self) -> str:
        return header_text(self._headers, WORKSPACE)

    def _give_up(self, task_id: str) -> None:
        with suppress(Conflict, StoreError):  # it has ended meanwhile, or the daemon has: why must reach the client
            self._core.queue.cancel(task_id)

    # following it ----------------------------------------------------------------------------------------------------

    def _follow(
        self, task_id: str, published: queue.Queue[Event], think: Callable[[str], None], cancel: threading.Event
    ) -> Task:
        last, ahead = 0, -1
        begun = self._core.clock.now()
        while True:
            # Asked before the log is read: what ends the task after this question is read in the next round.
            task = self._core.queue.get(task_id)
            for event in self._news(last, task_id):
                last = event.id
                for line in lines(event):
                    think(line)
            if task.state.ended or task.state is TaskState.WAITING:
                return task
            queued = task.state is TaskState.QUEUED
            if queued and (now := self._core.queue.ahead(task_id)) != ahead:
                ahead = now
                think(f"queued, {ahead or 'no'} task{'' if ahead == 1 else 's'} before it")
            if not self._wait(published, task_id, queued, cancel):
                think(f"… {self._core.clock.now() - begun:.0f} s")

    def _news(self, last: int, task_id: str) -> Iterator[Event]:
        while events := self._core.events.since(last, task_id):
            yield from events
            last = events[-1].id

    def _wait(self, published: queue.Queue[Event], task_id: str, queued: bool, cancel: threading.Event) -> bool:
        """Until an event that concerns the task; False when none came for `QUIET_SECONDS`."""
        until = self._core.clock.now() + QUIET_SECONDS
        while self._core.clock.now() < until:
            self._refuse_end(task_id, cancel)
            with suppress(queue.Empty):
                first = published.get(timeout=LOOK_SECONDS)
                # One look at the log serves all that has come meanwhile.
                if any(_concerns(event, task_id, queued) for event in (first, *_rest(published))):
                    return True
        return False

    def _refuse_end(self, task_id: str, cancel: threading.Event) -> None:
        """Raise when the client has gone away, or the daemon goes down."""
        after = "goes on" if self._detached else "is cancelled"
        if self._stopping.is_set():
            raise Stopping(f"the daemon stops; task {task_id} {after}", hint="ask again when it is back")
        if cancel.is_set():
            raise Cancelled(f"the client has gone away; task {task_id} {after}")

    def _tokens(self, task: Task) -> tuple[int, int]:
        """Of the prompts and of the replies of all models that the task has asked, however it ended."""
        calls = [each.data for each in self._core.audit.tail(_ANY, task.id) if each.kind == "model.called"]
        return sum(call["prompt_tokens"] for call in calls), sum(call["completion_tokens"] for call in calls)


def header_text(headers: Mapping[str, str], name: str) -> str:
    """The value of a header, which may be UTF-8; empty when it is not sent."""
    value = headers.get(name, "").strip()
    try:
        return value.encode("latin-1").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return value


def _says_true(headers: Mapping[str, str], name: str, default: bool) -> bool:
    value = headers.get(name, "").strip().lower()
    if value not in ("", "true", "false"):
        raise BadInput(f"the header {name} is {value[:40]!r}", hint="it is true or false")
    return value == "true" if value else default


def _concerns(event: Event, task_id: str, queued: bool) -> bool:
    """Whether there is something to tell: of the task itself, or, while it is queued, of those before it."""
    return event.task == task_id or (queued and event.kind in _TURNS)


def _rest(published: queue.Queue[Event]) -> Iterator[Event]:
    with suppress(queue.Empty):
        while True:
            yield published.get_nowait()


def _refuse_forms(request: ModelRequest) -> None:
    """`BadInput` for a form of reply that an agent cannot give; better than to pass it over in silence."""
    wanted = {
        "a reply in a given form": request.schema is not None or bool(request.grammar) or bool(request.choices),
        "a call of the client's tools": request.tool_choice == "required",
        "log-probabilities": request.logprobs is not None,
        "text before a suffix": request.suffix is not None,
    }
    for what, asked in wanted.items():
        if asked:
            raise BadInput(f"the agent cannot give {what}", hint="name a model of the catalog; /v1/models lists them")


def _unheard(delta: Delta) -> None:
    return None


def _level_name(level: AccessLevel) -> str:
    return f"{NAME}/level-{int(level)}"
