"""The words of agentd: frozen values and the protocols through which its parts meet; imports nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

JsonObject: TypeAlias = Mapping[str, Any]


# work -----------------------------------------------------------------------------------------------------------------


class TaskState(StrEnum):
    """Where a task stands; everything after `waiting` is an end."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    VERIFIED = "verified"
    CLAIMED = "claimed"
    FAILED = "failed"
    LOOPED = "looped"
    BUDGET = "budget"
    DENIED = "denied"
    IMPOSSIBLE = "impossible"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"

    @property
    def ended(self) -> bool:
        return self not in (TaskState.QUEUED, TaskState.RUNNING, TaskState.WAITING)

    @property
    def good(self) -> bool:
        return self in (TaskState.VERIFIED, TaskState.CLAIMED)


Mode: TypeAlias = Literal["real", "dry_run", "shadow"]
"""On the workspace itself; or on a copy, to show what would change: with files only, or with programs as well."""


class Origin(StrEnum):
    """Which door a task came through."""

    CLI = "cli"
    API = "api"
    EVAL = "eval"
    WATCH = "watch"
    SCHEDULE = "schedule"

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for what comes of it."""
        return self in (Origin.CLI, Origin.API)


class AccessLevel(IntEnum):
    """How much a task may do; each level includes the ones below."""

    READ_ONLY = 0
    SAFE_WRITE = 1
    RUN_TESTS = 2
    GIT_COMMIT = 3
    EXTENDED_SHELL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most a task may use: model turns, tokens, seconds of wall clock, and retries of one step.

    Without any turn (`steps` 0) a task is planned, and its plan is its result.
    """

    steps: int = 40
    tokens: int = 200_000
    seconds: float = 1800.0
    retries: int = 2


class CheckKind(StrEnum):
    COMMAND = "command"
    FILE_EXISTS = "file_exists"
    FILE_ABSENT = "file_absent"
    FILE_CONTAINS = "file_contains"
    BOUNDARIES = "boundaries"
    """Nothing was changed outside the globs that are the target, separated by line ends."""
    SECRETS = "secrets"
    """What was changed holds no keys or passwords."""
    DOCS = "docs"
    """What the documentation says of changed public names was looked at too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Something executed that decides whether work is done: a command that must exit 0, or a fact about files."""

    kind: CheckKind = CheckKind.COMMAND
    target: str
    """The command line, or the path inside the workspace."""
    text: str = ""
    """For `file_contains`: what must stand in the file."""
    by: Literal["user", "project", "plan", "council", "agentd"] = "user"
    """Who asked for it. Those of `agentd` can make a result worse, but never verify it."""

    def __str__(self) -> str:
        match self.kind:
            case CheckKind.FILE_CONTAINS:
                return f"{self.target} contains {self.text!r}"
            case CheckKind.FILE_EXISTS:
                return f"{self.target} is there"
            case CheckKind.FILE_ABSENT:
                return f"{self.target} is gone"
            case CheckKind.BOUNDARIES:
                return f"only {', '.join(self.target.splitlines())} changed"
            case CheckKind.SECRETS:
                return "no secrets in what was changed"
            case CheckKind.DOCS:
                return "no page speaks of what is gone"
            case CheckKind.COMMAND:
                return self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    check: Check
    passed: bool
    detail: str
    code: int | None = None
    """How a command exited."""
    sha256: str = ""
    """Of the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan; `after` names the steps (from 1) that must be done first."""

    intent: str
    expect: str = ""
    after: tuple[int, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps, and the contract: when their task counts as done. Frozen before work begins."""

    steps: tuple[Step, ...]
    note: str = ""
    outcome: str = ""
    """What is to be true at the end."""
    checks: tuple[Check, ...] = ()
    """That it is true, for the whole task; of everyone who asks for one."""
    constraints: tuple[str, ...] = ()
    """What must stay as it is, in words."""
    boundaries: tuple[str, ...] = ()
    """Globs of the only paths that this plan will change; none for any."""
    stop_when: Literal["steps_done", "checks_pass"] = "steps_done"
    """`checks_pass`: as soon as checks that were red have all passed, whatever steps are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was spent: model calls, prompt and completion tokens, tool calls, wall seconds inside models."""

    model_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tool_calls: int = 0
    model_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            model_calls=self.model_calls + other.model_calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            tool_calls=self.tool_calls + other.tool_calls,
            model_seconds=self.model_seconds + other.model_seconds,
        )


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one step ended, and the tool results it rests on (`evidence`, shortened)."""

    state: StepState
    text: str
    evidence: tuple[str, ...] = ()
    checks: tuple[CheckResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a task ended: the answer in words, what was verified and what is only claimed."""

    state: TaskState
    answer: str
    reason: str = ""
    """Why it ended so, for every state but `verified` and `claimed`; names what was missing."""
    verified: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Paths inside the workspace that the task wrote, moved or deleted."""
    unkept: tuple[str, ...] = ()
    """Of these, those that an undo leaves: programs changed them, and they were too much to be kept before."""
    made: tuple[str, ...] = ()
    """Tools that the task gave itself, and used."""
    checks: tuple[CheckResult, ...] = ()
    bent: tuple[str, ...] = ()
    """Tests, build files and scripts of checks that the task itself changed: what passed may have passed because of
    it."""
    struck: tuple[str, ...] = ()
    """What the answer said with nothing on record to show for it."""
    restored: tuple[str, ...] = ()
    """Paths that were put back to what they were before."""
    would_run: tuple[str, ...] = ()
    """What a dry run left out: programs, commits, and other things that are not done in a copy."""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """What a front end submits. Times are Unix seconds; `level` None takes the configured default."""

    goal: str
    workspace: str
    level: AccessLevel | None = None
    checks: tuple[Check, ...] = ()
    boundaries: tuple[str, ...] = ()
    """Globs of the only paths that may change; none for any."""
    budget: Budget | None = None
    origin: Origin = Origin.API
    priority: int = 0
    after: tuple[str, ...] = ()
    not_before: float | None = None
    deadline: float | None = None
    cache: bool | None = None
    """False: no kept replies of models, see `ModelRequest.cache`."""
    tool: bool | None = None
    """True: make a tool for the goal, and do nothing else."""
    mode: Mode = "real"
    applies: str | None = None
    """Make the changes that this task has shown, and nothing else."""
    council: bool | None = None
    """True: the council sits on plan and change, however little the risk."""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request that the queue has taken; `fence` grows with each claim, so a stale worker can be told apart."""

    id: str
    goal: str
    workspace: str
    level: AccessLevel
    checks: tuple[Check, ...] = ()
    boundaries: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
    origin: Origin = Origin.API
    priority: int = 0
    after: tuple[str, ...] = ()
    not_before: float | None = None
    deadline: float | None = None
    cache: bool = True
    tool: bool = False
    mode: Mode = "real"
    applies: str | None = None
    council: bool = False
    state: TaskState = TaskState.QUEUED
    created: float = 0.0
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    fence: int = 0
    question: str = ""
    """For `waiting`: what a person has to answer."""
    retry_of: str | None = None
    """The earlier task of which this one is a fresh attempt."""
    plan: Plan | None = None
    outcomes: tuple[Outcome, ...] = ()
    """One for each step of the plan, in its order; `pending` and `running` ones have no text yet."""
    verdicts: tuple[Verdict, ...] = ()
    """What the council said, in the order in which it sat."""
    report: Report | None = None


# chat (OpenAI's words) ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """A call that a model asks its client to make; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: str = ""
    tool_calls: tuple[FunctionCall, ...] = ()
    """For an assistant's message."""
    tool_call_id: str = ""
    """For a tool's message: the call that it answers."""


class Priority(StrEnum):
    """Somebody waits for the reply, or nobody does before the morning."""

    INTERACTIVE = "interactive"
    NIGHT = "night"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One request to a model. At most one of `schema`, `grammar` and `choices` constrains the reply."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    """Raw completion instead of chat; excludes `messages`."""
    suffix: str | None = None
    """With `prompt`: the text that follows the hole which the model is to fill."""
    tools: tuple[JsonObject, ...] = ()
    """Functions that the model may call: `name`, `description`, `parameters` (JSON Schema)."""
    tool_choice: Literal["none", "auto", "required"] = "auto"
    max_tokens: int | None = 512
    """None for what the context has room for."""
    temperature: float = 0.0
    top_p: float = 0.95
    top_k: int = 40
    """0 for no limit."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logit of a token; -100 or less forbids it."""
    logprobs: int | None = None
    """How many alternatives to give for each token; 0 gives the token's own only."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    schema: JsonObject | None = None
    """JSON Schema."""
    grammar: str | None = None
    """A grammar in Lark's notation, or in GBNF."""
    choices: tuple[str, ...] | None = None
    think: bool = False
    """Let a model that can think do so before it replies."""
    client: str = ""
    """Whose request it is (a task id); clients are served in turn."""
    priority: Priority = Priority.INTERACTIVE
    cache: bool = True
    """An earlier reply to exactly this request may be given; only at temperature 0."""
    hedge: bool = False
    """A second server may be asked when the first is slow."""
    timeout: float = 600.0
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token of a reply. `bytes` are its own, as numbers; `top` has (text, log-probability), the likeliest first."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    id: int = -1
    top: tuple[tuple[str, float], ...] = ()
    top_ids: tuple[int, ...] = ()
    """The numbers of the tokens in `top`, where they are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDelta:
    """A piece of call number `index`; `id` and `name` come with its first piece."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a reply grows by."""

    text: str = ""
    reasoning: str = ""
    call: CallDelta | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


OnDelta: TypeAlias = Callable[[Delta], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"] = "stop"
    reasoning: str = ""
    """What the model thought before; no part of `text`."""
    tool_calls: tuple[FunctionCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reused_tokens: int = 0
    """Tokens of the prompt that stood in the model's memory already."""
    cached: bool = False
    """An earlier reply to exactly this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Log-probability (natural log) of a continuation given its prefix, summed over `tokens` tokens."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What the step protocol must know of a model. `compact`: short prompts, choices scored, arguments grounded."""

    context: int = 8192
    compact: bool = False
    think: bool = False
    dialect: str | None = None
    """How it writes calls of tools; None for what its chat template and a probe say."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """What a request that says nothing of it takes: temperature, top_p, top_k, min_p, repeat_penalty."""
    edit_format: str | None = None
    """`whole` for a model that had better write whole files, `patch` for one that had better say what changes."""


@runtime_checkable
class Model(Protocol):
    """A language model, wherever it runs. Failures are `ModelError`; a set `cancel` is `Cancelled`."""

    @property
    def name(self) -> str: ...
    @property
    def profile(self) -> ModelProfile: ...
    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply: ...
    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        """Score each (prefix, continuation) as raw text; order kept. Common prefixes are computed once."""
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]: ...
    def count(self, text: str) -> int:
        """Tokens in `text`."""
        ...


class Models(Protocol):
    """A role's model: the first of its candidates that is there and well. Or one by its name."""

    def for_role(self, role: str, *, compact: bool | None = None) -> Model:
        """`compact`: only a model whose profile says so, or says not so."""
        ...

    def named(self, name: str) -> Model: ...


# tools (MCP's words) --------------------------------------------------------------------------------------------------


class Effect(StrEnum):
    """What a crash between intent and result leaves to do: run again; run again with the same key; look, then
    skip or do; or ask a person."""

    PURE = "pure"
    IDEMPOTENT = "idempotent"
    PROBEABLE = "probeable"
    UNSAFE = "unsafe"


class Grounding(StrEnum):
    """Where the value of a tool's parameter comes from; narrows the choices of a model and checks them after."""

    FILE = "file"
    """An existing file of the workspace."""
    FOLDER = "folder"
    """An existing folder of the workspace; "." is the root."""
    PATH = "path"
    """An existing file or folder."""
    NEW_PATH = "new_path"
    """A path that need not exist yet."""
    TEXT = "text"
    """Words that stand in the task, or content made for it."""
    PATTERN = "pattern"
    """Something to look for, standing in the task."""
    COMMAND = "command"
    """A command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    tool: str
    args: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool gave back. `text` is what a model sees, shortened; `handle` names the whole output when cut."""

    ok: bool
    text: str
    data: JsonObject = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    handle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing a tool call would touch, in the words that policy judges (`fs.write src/a.py`)."""

    kind: str
    target: str = ""
    argv: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.argv) or self.target}".rstrip()


class ToolGate(Protocol):
    """The only way to run a tool. `key` is the call's place in the journal of the task."""

    def call(self, call: ToolCall, scope: Scope, key: str) -> ToolResult: ...


# policy ---------------------------------------------------------------------------------------------------------------


class Ruling(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What policy says to one action: the rule that decided, why, and the risk 0..100."""

    ruling: Ruling
    rule: str
    because: str
    risk: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """How much can go wrong, 0..100, and each reason that the number has."""

    score: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """What became of one file; a rename is a deletion and an addition."""

    path: str
    """Inside the workspace."""
    kind: Literal["added", "changed", "deleted", "mode"]
    diff: str = ""
    """Unified; empty for what is no text, or too large to compare."""
    added: int = 0
    removed: int = 0
    """Lines."""


# council --------------------------------------------------------------------------------------------------------------


class Stance(StrEnum):
    ACCEPT = "accept"
    REVISE = "revise"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one role says to a plan or a change; `confidence` 0..10 is its own word and no gate."""

    role: str
    decision: Stance
    because: str
    risks: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    confidence: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the opinions come to, by rule: `checklist` is to be done on the way, `checks` become the task's own."""

    decision: Stance
    because: str
    checklist: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    vetoed: bool = False
    absent: tuple[str, ...] = ()
    """The roles that gave no usable opinion."""
    about: Literal["plan", "change", "question", "plugin"] = "question"


# durability -----------------------------------------------------------------------------------------------------------


class Journal(Protocol):
    """What a task has done, so that after a crash it goes on and nothing runs twice."""

    def once(
        self,
        key: str,
        effect: Effect,
        do: Callable[[], JsonObject],
        *,
        before: Callable[[], JsonObject] | None = None,
        probe: Callable[[JsonObject], JsonObject | None] | None = None,
        intent: Callable[[], None] | None = None,
        record: Callable[[JsonObject], None] | None = None,
    ) -> JsonObject:
        """The result stored under `key`; else `do()`, journalled.

        `before()` is stored with the intent (a probeable effect's state of the world). When an intent stands open
        after a crash: pure and idempotent effects run again; `probe(before)` returns the result if the effect took
        place, None if not; an unsafe one raises `InDoubt`.

        `intent()` runs in the transaction that writes the intent, `record(result)` in the one that writes the result,
        so that their own rows (audit, events) stand exactly when the journal's do. A pure effect has no intent of its
        own: for it both run, in this order, in the transaction of the result. Neither runs for a replayed result.
        """
        ...

    def plan_made(self, plan: Plan) -> None: ...
    def step_started(self, number: int) -> None: ...
    def step_ended(self, number: int, outcome: Outcome) -> None: ...
    def verdict_given(self, key: str, verdict: Verdict) -> None: ...
    def atomic(self) -> AbstractContextManager[None]:
        """Writes inside commit together."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who makes a call by hand and can be asked about it; `approved`: the digests of what they have said yes to."""

    name: str
    approved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """On whose behalf a tool or a model is called."""

    task: str
    workspace: str
    level: AccessLevel
    journal: Journal
    origin: Origin = Origin.API
    cancel: threading.Event = field(default_factory=threading.Event)
    deadline: float | None = None
    """Unix seconds after which nothing may run on."""
    model: str = ""
    """The model that asks for it; empty for a person."""
    mode: Mode = "real"
    owner: tuple[str, ...] = ()
    """What the owner of the task has said; only that can ask for what cannot be undone."""
    tainted: bool = False
    """The model has been shown what others wrote: names of files, their text, output of tools, pages."""
    step: int = 0
    """Of the plan, from 1; 0 outside any."""
    project: str = ""
    """The policy of the workspace itself, as its file says it; it only takes away."""
    person: Person | None = None
    """Of a call outside tasks: who is asked at once. None where nobody is there."""


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds."""
        ...

    def sleep(self, seconds: float) -> None: ...


Emit: TypeAlias = Callable[[str, str, JsonObject], None]
"""`emit(kind, task, data)`: tell listeners that something happened."""
