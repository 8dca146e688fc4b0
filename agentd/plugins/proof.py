"""Whether a plugin does what the examples of its spec say, in a sandbox, with files that are nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from agentd.errors import PluginRefused
from agentd.plugins.broker import Broker, MemoryPlace
from agentd.plugins.folder import CODE, Package
from agentd.plugins.spec import Example, Spec
from agentd.sandbox.job import Executor, Limits, Program, Sandbox

_SHOWN = 300


class CheckingExecutor(Executor, Protocol):
    """An executor that has the static gate as well."""

    def check(self, source: bytes, grants: frozenset[str]) -> dict[str, Any]:
        """`violations` (line, rule, message, hint), `entries`, the public functions in their order, and `imports`."""
        ...


class Proof:
    """The static gate, then every example; `executor()` may raise `SandboxUnavailable`."""

    def __init__(self, executor: Callable[[], CheckingExecutor], limits: Callable[[], Limits] = Limits) -> None:
        self._executor = executor
        self._limits = limits

    @property
    def level(self) -> str:
        """What holds a plugin while it is proven."""
        return self._executor().level

    def __call__(self, package: Package) -> None:
        """Raises `PluginRefused` for the first thing that is wrong."""
        self.hold(package.manifest.spec, package.files[CODE])

    def hold(self, spec: Spec, code: bytes) -> list[str]:
        """The same; gives the modules that the code imports."""
        executor = self._executor()
        found = executor.check(code, spec.permissions.grants)
        if found["violations"]:
            first = found["violations"][0]
            raise PluginRefused(f"{CODE}:{first['line']}: {first['message']} ({first['rule']})", hint=first["hint"])
        if spec.name not in found["entries"]:
            raise PluginRefused(
                f"{CODE} has no function {spec.name}",
                hint=f"it has {', '.join(found['entries']) or 'no public function'}",
            )
        program = Program(source=code.decode("utf-8-sig"), grants=spec.permissions.grants)
        for number, example in enumerate(spec.examples, 1):
            sandbox = executor.open(program, self._limits())
            try:
                wrong = _differs(spec, example, sandbox)
            finally:
                sandbox.close()
            if wrong:
                raise PluginRefused(f"example {number} of {spec.name}: {wrong}", hint="mend the code, or the example")
        return list(found["imports"])


def _differs(spec: Spec, example: Example, sandbox: Sandbox) -> str:
    place = MemoryPlace({name: text.encode() for name, text in example.files.items()})
    broker = Broker(spec.permissions, place)
    ended = sandbox.call(spec.name, example.args, broker=broker)
    if not ended.ok:
        return f"it failed: {ended.error}" + (f" ({ended.limit})" if ended.limit else "")
    if ended.result != example.result:
        return f"expected {json.dumps(example.result):.{_SHOWN}}, got {json.dumps(ended.result):.{_SHOWN}}"
    broker.commit()
    for name, text in example.files_after.items():
        found = place.files.get(name)
        if found != text.encode():
            got = "no such file" if found is None else repr(found.decode("utf-8", "replace"))[:_SHOWN]
            return f"{name}: expected {text!r:.{_SHOWN}}, got {got}"
    return ""
