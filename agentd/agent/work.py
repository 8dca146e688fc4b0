"""One task being run: on whose behalf, within which limits, what it has seen and what it has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from agentd.agent.calls import JournalledModel, Record
from agentd.agent.limits import Limits, Repeats
from agentd.agent.verification import Verification
from agentd.errors import Denied, Impossible, QuestionAsked
from agentd.security.scan import Redactor
from agentd.tools.tool import Tool
from agentd.types import (
    Effect,
    FileChange,
    JsonObject,
    Model,
    Models,
    Origin,
    Plan,
    Scope,
    Task,
    ToolCall,
    ToolGate,
    ToolResult,
    Usage,
    Verdict,
)
from agentd.workspace.paths import Workspace

ASKED = "ask"
"""In the place of a tool's name, where the owner was asked."""


def _nobody(key: str, question: str) -> str:
    raise QuestionAsked(question)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A tool call and what came of it."""

    call: ToolCall
    result: ToolResult


@dataclass(slots=True, kw_only=True)
class Work:
    """Keys are numbered in the order of the calls, so a replay after a crash finds each result again."""

    task: Task
    scope: Scope
    workspace: Workspace
    tools: Mapping[str, Tool]
    """What the agent may choose from."""
    models: Models
    gate: ToolGate
    limits: Limits
    repeats: Repeats
    record: Record
    emit: Record
    owner: Callable[[str, str], str] = _nobody
    """`owner(key, question)`: what the owner of the task answers. `QuestionAsked` until they have."""
    changes: Callable[[], Sequence[FileChange]] = tuple
    """What the task has changed so far, and nobody else."""
    redactor: Redactor = field(default_factory=Redactor)
    """Takes secrets out of what a model is shown."""
    plan: Plan | None = None
    verdict: Verdict | None = None
    """Of the council, where it has accepted the plan."""
    heard: dict[str, Verdict | None] = field(default_factory=dict)
    """What the council said to a change, by the hash of it."""
    sittings: Iterator[int] = field(default_factory=lambda: count(1))
    hearing: Callable[[], Verdict | None] = lambda: None
    """What the council says to all that was changed so far; None where it need not be asked."""
    verification: Verification = field(default_factory=lambda: Verification(checks=(), run=lambda checks: ()))
    evidence: list[Evidence] = field(default_factory=list)
    changed: dict[str, None] = field(default_factory=dict)
    """Paths, in the order in which they were first touched."""
    restored: dict[str, None] = field(default_factory=dict)
    """Of these, what was put back."""
    made: dict[str, None] = field(default_factory=dict)
    """Tools that the task has given itself."""
    unkept: dict[str, None] = field(default_factory=dict)
    """Of these, those that an undo will leave as they are: programs changed them, and they were too much to keep."""
    refusals: list[str] = field(default_factory=list)
    """Calls that policy denied, in its words."""
    owner_said: list[str] = field(default_factory=list)
    """The goal and every answer: what a stranger's text is held against. The plan too, if it was made before any."""
    tainted: bool = False
    """The model has been shown what others wrote; the same again after a crash, as it follows from the journal."""
    _speaker: str = ""
    """The model that was spoken to last."""
    _compact: dict[str, bool] = field(default_factory=dict)
    _numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)

    def model(self, role: str, key: Callable[[], str] | None = None) -> Model:
        """The role's model; its calls take the next numbers as keys, or what `key` gives."""
        chosen = self._chosen(role)
        self._speaker = chosen.name
        return JournalledModel(
            chosen,
            role=role,
            scope=self.scope,
            limits=self.limits,
            key=key or self.key,
            record=self.record,
            emit=self.emit,
            redact=self.redactor,
            cache=self.task.cache and self.task.origin is not Origin.EVAL,  # a suite measures models, not memory
        )

    def is_compact(self, role: str) -> bool:
        """Whether the role's model is spoken to as a compact one: the same for the whole task, after a crash too."""
        if role not in self._compact:
            compact = self.models.for_role(role).profile.compact
            kept = self.scope.journal.once(f"compact-{role}", Effect.PURE, lambda: {"compact": compact})
            self._compact[role] = bool(kept["compact"])
        return self._compact[role]

    def _chosen(self, role: str) -> Model:
        """The model that has the role now, if it is of the task's kind; else the best of that kind."""
        model = self.models.for_role(role)
        compact = self.is_compact(role)
        return model if model.profile.compact == compact else self.models.for_role(role, compact=compact)

    def key(self) -> str:
        return f"{self._numbers():05d}"

    def offer(self) -> tuple[Tool, ...]:
        """The tools to choose from now; after a crash those that were chosen from before it, so that a replay makes
        the same choices. Raises `Impossible` when one of them is gone."""
        now = dict(self.tools.items())
        names = self.remember(lambda: {"tools": list(now)})["tools"]
        gone = [name for name in names if name not in now]
        if gone:
            words = f"the tools {', '.join(gone)} went away while the task was interrupted"
            raise Impossible(words, hint="`agentd retry` begins anew with the tools that there are")
        return tuple(now[name] for name in names)

    def remember(self, do: Callable[[], JsonObject]) -> JsonObject:
        """What `do` finds in the world, the same again after a crash."""
        return self.scope.journal.once(self.key(), Effect.PURE, do)

    def ask(self, question: str) -> Evidence:
        """The owner's answer, as something that was seen: their word, not a stranger's."""
        key = self.key()
        kept = self.scope.journal.once(key, Effect.PURE, lambda: {"answer": self.owner(key, question)})
        answer = str(kept["answer"])
        result = ToolResult(ok=True, text=f"The owner of the task answers: {answer}", data={"answer": answer})
        turn = Evidence(call=ToolCall(tool=ASKED, args={"question": question}), result=result)
        self.evidence.append(turn)
        self.owner_said.append(answer)
        return turn

    def run(self, call: ToolCall) -> ToolResult:
        """Run a tool through the gate."""
        self.limits.check()
        said = (self.task.goal, *self.owner_said)
        scope = replace(self.scope, model=self._speaker, owner=said, tainted=self.tainted)
        result = self.gate.call(call, scope, self.key())
        self.limits.spend(Usage(tool_calls=1))
        self.tainted = True
        self.changed.update(dict.fromkeys(map(self.real, result.changed)))
        self.unkept.update(dict.fromkeys(result.data.get("unkept", ())))
        return result

    def real(self, path: str) -> str:
        """The name after links and spelling; of what leads out, which policy denies, the one given."""
        try:
            return self.workspace.real_name(path)
        except Denied:
            return path

    def act(self, call: ToolCall) -> ToolResult:
        """Run a tool that a model chose: what it gives is evidence, and repeats are noticed."""
        result = self.run(call)
        self.evidence.append(Evidence(call=call, result=result))
        self.repeats.saw(call, result)
        return result
