"""A plugin sits its exam: the tests in one sandbox, the plugin in another, and what counts is told by neither."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from agentd.errors import Denied
from agentd.plugins.broker import Broker, MemoryPlace
from agentd.plugins.exam import GRANTS, Exam
from agentd.plugins.spec import Permissions, Spec
from agentd.sandbox.job import Ended, Executor, Limits, Program, RequestRefused, Sandbox
from agentd.types import Action, JsonObject

Pulse: TypeAlias = Callable[[], None]
"""Is called between the parts of what takes long; may raise to end it."""

_ANYWHERE = Permissions(read=("**",), write=("**",))


def nothing() -> None:
    return None


class TrialPlace(MemoryPlace):
    """Files in memory, and no network."""

    def allow(self, action: Action) -> None:
        if action.kind == "net.connect":
            raise Denied("there is no network in a trial")


@dataclass(slots=True, kw_only=True)
class Used:
    """What a plugin was seen to ask for. `beyond`: paths that it may not touch and that nobody gave it."""

    read: dict[str, None] = field(default_factory=dict)
    write: dict[str, None] = field(default_factory=dict)
    beyond: dict[str, None] = field(default_factory=dict)
    seconds: float = 0.0

    def saw(self, broker: Broker, args: JsonObject) -> None:
        self.read.update(dict.fromkeys(broker.read))
        self.write.update(dict.fromkeys(broker.staged))
        named = {PurePosixPath(text) for text in _texts(args)}
        self.beyond.update(dict.fromkeys(path for path in broker.forbidden if PurePosixPath(path) not in named))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`failed`: the tests that did not pass, each with why, in words."""

    passed: int
    failed: Mapping[str, str]
    used: Used


class Trial:
    """Computed here alone, from how each call ended: what tests or plugin print, and how their processes end, is no
    verdict."""

    def __init__(self, executor: Callable[[], Executor], limits: Callable[[], Limits] = Limits) -> None:
        self._executor = executor
        self._limits = limits

    def sit(self, spec: Spec, code: str, exam: Exam, *, whole: bool = True, pulse: Pulse = nothing) -> Verdict:
        """Each test with a plugin of its own; without `whole` only until the first that fails."""
        used, failed, passed = Used(), dict[str, str](), 0
        for case in exam.cases:
            pulse()
            why = self._case(spec, code, exam, case, used)
            if why:
                failed[case] = why
                if not whole:
                    break
            else:
                passed += 1
        return Verdict(passed=passed, failed=failed, used=used)

    def _case(self, spec: Spec, code: str, exam: Exam, case: str, used: Used) -> str:
        executor, limits = self._executor(), self._limits()
        plugin = executor.open(Program(source=code, grants=spec.permissions.grants), limits)
        tests = executor.open(Program(source=exam.source, grants=GRANTS), limits)
        desk = _Desk(spec, plugin, used)
        try:
            ended = tests.call(case, {}, broker=desk)
        finally:
            plugin.close()
            tests.close()
        if not ended.ok:
            return f"{ended.error}{desk.last}"
        return "" if desk.calls else "it never called the plugin"


class _Desk:
    """Answers the tests: their files, and their calls of the plugin."""

    def __init__(self, spec: Spec, plugin: Sandbox, used: Used) -> None:
        self.calls = 0
        self.last = ""
        self._spec = spec
        self._plugin = plugin
        self._used = used
        self._place = TrialPlace()

    def __call__(self, name: str, args: JsonObject) -> object:
        if name == "plugin.call":
            return self._call(str(args.get("entry")), args.get("args"))
        own = Broker(_ANYWHERE, self._place)
        answer = own(name, args)
        own.commit()
        return answer

    def _call(self, entry: str, args: object) -> object:
        if entry != self._spec.name or not isinstance(args, dict):
            raise RequestRefused(f"the plugin has one function, {self._spec.name}", kind="AttributeError")
        self.calls += 1
        broker = Broker(self._spec.permissions, self._place)
        ended = self._plugin.call(entry, args, broker=broker)
        self._used.saw(broker, args)
        self._used.seconds += ended.seconds
        self.last = f" (its last call: {args!r:.300} gave {_shown(ended)})"
        if not ended.ok:
            kind = ended.error.partition(":")[0]
            known = kind if isinstance(getattr(builtins, kind, None), type) else "RuntimeError"
            raise RequestRefused(ended.error, kind=known)
        broker.commit()
        return ended.result


def _shown(ended: Ended) -> str:
    return f"{ended.result!r:.300}" if ended.ok else f"the error {ended.error[:300]}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
