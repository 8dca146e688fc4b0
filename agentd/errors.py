"""Every error that agentd raises on purpose: a code, what failed, and a hint; imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_LISTED = 20


class AgentdError(Exception):
    """Something failed that a person can understand: `message` (what, with the value, and what exists) and `hint`."""

    code = "error"
    retry_after: float | None = None
    """Seconds after which another try may succeed, where that is known."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def as_json(self) -> dict[str, Any]:
        """As programs are told of it."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class BadInput(AgentdError):
    """A request, an argument or a file that does not have the right form."""

    code = "input.invalid"


class NotFound(AgentdError):
    code = "input.not_found"


class Conflict(AgentdError):
    """The request contradicts what stands already (idempotency key reused, task already ended)."""

    code = "conflict"


class ConfigError(AgentdError):
    code = "config.invalid"


class PolicyError(AgentdError):
    """A policy file that cannot be used."""

    code = "policy.invalid"


class StoreError(AgentdError):
    """The database cannot be used: corrupt, newer, read-only."""

    code = "store.unusable"


class DiskFull(StoreError):
    code = "store.disk_full"


class AlreadyRunning(AgentdError):
    code = "daemon.already_running"


class Unreachable(AgentdError):
    """No daemon answers."""

    code = "daemon.unreachable"


class Unauthorised(AgentdError):
    code = "auth.required"


class ModelError(AgentdError):
    """A model could not be loaded, crashed, or gave nothing usable."""

    code = "model.failed"
    retryable = False
    """The same request may succeed a moment later, or elsewhere."""
    sent = False
    """Part of the reply has reached the listener already, so that asking again would repeat it."""


class ModelMissing(ModelError):
    code = "model.missing"


class Busy(ModelError):
    """More requests wait already than may; after `retry_after` seconds there may be room."""

    code = "model.busy"
    retryable = True

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class OutOfMemory(ModelError):
    """There is not enough memory to load a model; a smaller plan may fit."""

    code = "model.memory"


class WorkerDied(ModelError):
    """A local model's process ended, was killed or hung while it served the request; the next one starts it again."""

    code = "model.died"
    retryable = True


class ServerDown(ModelError):
    """A model's server cannot be reached: nobody listens, its name is unknown, its certificate is wrong."""

    code = "model.unreachable"
    retryable = True


class ServerFailed(ModelError):
    """A model's server says that something went wrong on its side."""

    code = "model.server_failed"
    retryable = True


class ServerRefused(ModelError):
    """A model's server does not take the request: wrong key, unknown model, a form that it does not know."""

    code = "model.refused"

    def __init__(self, message: str, *, hint: str = "", status: int = 400) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class BrokenReply(ModelError):
    """A server's reply broke off, or is not what such a server sends; a part of it is never given out as the whole."""

    code = "model.broken_reply"
    retryable = True


class TooSlow(ModelError):
    """A model's server gave no sign of life for too long, or the time of the request is over."""

    code = "model.too_slow"
    retryable = True


class NoGrammar(ModelError):
    """The model cannot hold its reply to this JSON schema; without the schema it can reply."""

    code = "model.no_grammar"


class NotServed(ModelError):
    """The model cannot serve this very request, however often it is asked; the message says why."""

    code = "model.not_served"


class TooLong(NotServed):
    """The prompt has more `tokens` than the model's `context` has room for."""

    code = "model.too_long"

    def __init__(self, message: str, *, hint: str = "", tokens: int = 0, context: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.tokens = tokens
        self.context = context


class BadReply(ModelError):
    """A model's reply has the wrong form, also after a structured retry."""

    code = "model.bad_reply"


class DownloadFailed(AgentdError):
    """A file could not be fetched, or is not what it should be."""

    code = "download.failed"


class ToolFailed(AgentdError):
    """A tool could not do what it was asked; the model sees message and hint."""

    code = "tool.failed"


class ToolMisused(ToolFailed):
    """A tool call with an unknown name or wrong arguments; nothing was run."""

    code = "tool.misused"


class SandboxUnavailable(AgentdError):
    """This machine does not hold untrusted code as far as is configured, so none is run."""

    code = "sandbox.unavailable"


class PluginRefused(AgentdError):
    """A plugin did not pass the gate, or is not what was signed; the message names the evidence."""

    code = "plugin.refused"


class Denied(AgentdError):
    """Policy says no."""

    code = "policy.denied"


class RolledBack(AgentdError):
    """What was green is red, repair has failed, and the changes of the step were put back."""

    code = "task.rolled_back"


class NeedsApproval(AgentdError):
    """Policy says: ask a person, and nobody is there."""

    code = "policy.needs_approval"
    request: int | None = None
    """The number of what waits for an answer, when it can be answered."""
    asked: Mapping[str, Any] | None = None
    """What is to be answered at once, by who made the call: its `digest` with the call again says yes to it."""

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | ({"asked": dict(self.asked)} if self.asked is not None else {})


class InDoubt(AgentdError):
    """An unsafe effect was begun and not recorded as done; only a person can tell."""

    code = "task.in_doubt"


class Interrupted(AgentdError):
    """The flow of a task ends here; each subclass is one way to end."""

    code = "task.interrupted"


class BudgetExceeded(Interrupted):
    code = "task.budget"


class Looping(Interrupted):
    code = "task.looped"


class Cancelled(Interrupted):
    code = "task.cancelled"


class CapabilityMissing(Interrupted):
    """No tool can do it; the message names what was missing."""

    code = "task.capability_missing"


class Impossible(Interrupted):
    code = "task.impossible"


class QuestionAsked(Interrupted):
    """The agent cannot go on without an answer from a person."""

    code = "task.question"
    request: int | None = None


class LeaseLost(AgentdError):
    """Another worker owns the task now; this one must stop without writing."""

    code = "task.lease_lost"


class Stopping(AgentdError):
    """The daemon is going down; the task goes on at its next start."""

    code = "daemon.stopping"


def nearest(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """A hint for a name that nothing has: the one that comes closest, else `otherwise`, else those that there are."""
    import difflib  # only where something is wrong: every command imports this module

    names = list(known)
    close = difflib.get_close_matches(name[:200], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    more = " …" if len(names) > _LISTED else ""
    return otherwise or f"there are {', '.join(names[:_LISTED]) or 'none'}{more}"
