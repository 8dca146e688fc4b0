"""What a sandbox is asked and what it answers, whichever executor does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from agentd.errors import AgentdError
from agentd.types import JsonObject


class Limit(StrEnum):
    """What a call ran into."""

    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    CALLS = "calls"
    """More requests for capabilities than it may make."""
    REFUSED = "refused"
    """It reached for what the sandbox does not give."""
    CRASH = "crash"
    """Its process ended in a way that the guest did not announce."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one call: wall seconds, megabytes of memory, bytes of its result and of what it prints, requests."""

    seconds: float = 5.0
    memory_mb: int = 256
    output_bytes: int = 1_000_000
    requests: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Source that has passed the static gate, and the capability façades that it may import."""

    source: str
    grants: frozenset[str] = frozenset()
    """Of `files`, `http`, and (for tests of a plugin) `plugin`."""
    seed: int = 0
    """Of the random numbers that it draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one call ended. Exactly one of a result (any JSON value, `ok`) and an `error` in words counts."""

    ok: bool
    result: Any = None
    error: str = ""
    limit: Limit | None = None
    printed: str = ""
    """What it printed: data of a stranger, shown to nobody as fact."""
    seconds: float = 0.0


class RequestRefused(AgentdError):
    """What a broker raises; the guest sees the Python exception named `kind` (`FileNotFoundError`, `OSError` ...)."""

    code = "sandbox.request_refused"

    def __init__(self, message: str, *, kind: str = "PermissionError", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


Broker: TypeAlias = Callable[[str, JsonObject], Any]
"""Answers one request of a guest, such as `files.read_text` with `{"path": ...}`, with a JSON value."""


class Sandbox(Protocol):
    """One program, loaded apart from everything; calls of it share its memory. Not safe for several threads."""

    def call(
        self,
        entry: str,
        args: JsonObject,
        *,
        broker: Broker | None = None,
        cancel: threading.Event | None = None,
        seed: int | None = None,
    ) -> Ended:
        """Call the function `entry`; after a limit was met the sandbox is gone and the next call starts it anew.

        With a `seed` the program begins anew inside the sandbox, and draws from it: nothing of earlier calls is left.
        """
        ...

    def close(self) -> None: ...


class Executor(Protocol):
    """Opens sandboxes of one kind. Raises `SandboxUnavailable` where less than the configured level is reached."""

    @property
    def name(self) -> str:
        """`os` or `wasm`."""
        ...

    @property
    def level(self) -> str:
        """What holds a guest here, as the self-test has shown it; stands on every audit record of a call."""
        ...

    @property
    def ready(self) -> bool:
        """Whether nothing has to be built before it can be used."""
        ...

    def open(self, program: Program, limits: Limits) -> Sandbox: ...
    def close(self) -> None: ...
