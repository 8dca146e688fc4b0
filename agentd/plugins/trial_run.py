"""One call of a source in the sandbox, without keeping anything: what the gate says, and how the call ends."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from agentd.errors import BadInput, DiskFull, SandboxUnavailable, nearest
from agentd.plugins.proof import CheckingExecutor
from agentd.sandbox.job import Ended, Limits, Program
from agentd.types import JsonObject

_LIKELY = ("run", "main")
"""Functions that are taken when none is named."""


class TrialRuns:
    """`executors` by name. Safe to use from several threads."""

    def __init__(
        self,
        executors: Mapping[str, CheckingExecutor],
        record: Callable[[str, str, JsonObject], object],
        limits: Callable[[], Limits] = Limits,
        *,
        preferred: str = "os",
    ) -> None:
        self._executors = executors
        self._record = record
        self._limits = limits
        self._preferred = preferred

    def run(self, source: bytes, *, entry: str = "", args: JsonObject, executor: str = "") -> JsonObject:
        """`check` (`ok`, `violations`), `result`, `error`, `limit`, `seconds`, `executor`, `level`.

        No file, host or variable is granted. Raises `BadInput` for a function that is not there, and
        `SandboxUnavailable`.
        """
        chosen = self._executor(executor or self._preferred)
        checked = chosen.check(source, frozenset())
        report = {"ok": not checked["violations"], "violations": checked["violations"]}
        ended = Ended(ok=False)
        if report["ok"]:
            program = Program(source=source.decode("utf-8-sig"))
            ended = self._call(chosen, program, _entry(entry, checked["entries"]), args)
        found = {
            "check": report,
            "result": ended.result,
            "error": ended.error or None,
            "limit": ended.limit,
            "seconds": round(ended.seconds, 6),
            "executor": chosen.name,
            "level": chosen.level,
        }
        self._tell(source, found)
        return found

    def ready(self, executor: str = "") -> JsonObject:
        """`executor`, and `ready`: whether it can be used at once; else it is built by who uses it first."""
        chosen = self._executor(executor or self._preferred)
        return {"executor": chosen.name, "ready": chosen.ready}

    def get_ready(self) -> None:
        """Build what is preferred, beside everything else; what goes wrong is told to who uses it."""
        chosen = self._executor(self._preferred)
        if not chosen.ready:
            threading.Thread(target=_built, args=(chosen,), name="sandbox-build", daemon=True).start()

    def close(self) -> None:
        for executor in self._executors.values():
            executor.close()

    def _executor(self, name: str) -> CheckingExecutor:
        if name not in self._executors:
            raise SandboxUnavailable(
                f"there is no executor {name!r:.40} here", hint=f"there are {', '.join(self._executors)}"
            )
        return self._executors[name]

    def _call(self, executor: CheckingExecutor, program: Program, entry: str, args: JsonObject) -> Ended:
        sandbox = executor.open(program, self._limits())
        try:
            return sandbox.call(entry, args)
        finally:
            sandbox.close()

    def _tell(self, source: bytes, found: Mapping[str, Any]) -> None:
        told = {"sha256": hashlib.sha256(source).hexdigest(), "violations": len(found["check"]["violations"])}
        shown = {name: found[name] for name in ("limit", "seconds", "executor", "level")}
        self._record("plugin.tried", "", told | shown | {"ok": found["check"]["ok"] and found["error"] is None})


def _built(executor: CheckingExecutor) -> None:
    with contextlib.suppress(SandboxUnavailable, DiskFull):
        executor.check(b"def f():\n    return 1\n", frozenset())


def _entry(wanted: str, entries: list[str]) -> str:
    """The function to call: the one that was named, `run`, `main`, the only one, or the last."""
    if wanted:
        if wanted not in entries:
            raise BadInput(f"there is no function {wanted!r:.100}", hint=nearest(wanted, entries))
        return wanted
    return next((name for name in _LIKELY if name in entries), entries[-1])
