"""The tests of a plugin, written from its spec before there is code: what they must have, and their digest."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

from agentd.errors import PluginRefused
from agentd.plugins.proof import CheckingExecutor
from agentd.plugins.spec import Spec

MIN_CASES = 5
GRANTS = frozenset({"files", "plugin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """Tests that will not change any more. `cases`: names of the test functions, in their order."""

    source: str
    cases: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()


def freeze(source: str, spec: Spec, executor: CheckingExecutor) -> Exam:
    """The tests, if they pass the static gate and each of at least five asserts something about a call of the plugin.

    Raises `PluginRefused` naming the first thing that is wrong.
    """
    found = executor.check(source.encode(), GRANTS)
    if found["violations"]:
        first = found["violations"][0]
        raise PluginRefused(f"the tests, line {first['line']}: {first['message']}", hint=first["hint"])
    # What has passed the gate is small and shallow enough to be parsed here.
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    cases = [node for node in functions if node.name.startswith("test_")]
    names = [node.name for node in cases]
    if len(set(names)) < MIN_CASES:
        raise PluginRefused(f"there are {len(set(names))} functions test_..., {MIN_CASES} are needed")
    if len(set(names)) < len(names):
        raise PluginRefused("two tests have the same name")
    for case in cases:
        if case.args.args or case.args.kwonlyargs or case.args.vararg:
            raise PluginRefused(f"{case.name} takes arguments", hint="a test takes none")
        if not _asserts(case):
            raise PluginRefused(f"{case.name} asserts nothing", hint=f"assert what plugin.{spec.name}(...) gives")
        if not _calls(case, spec.name):
            raise PluginRefused(f"{case.name} does not call plugin.{spec.name}")
    return Exam(source=source, cases=tuple(names))


def _asserts(case: ast.FunctionDef) -> bool:
    """Whether there is an assertion that is not about constants alone."""
    facts = [node.test for node in ast.walk(case) if isinstance(node, ast.Assert)]
    raised = any(isinstance(node, ast.Try) for node in ast.walk(case))
    return raised or any(isinstance(node, ast.Name) for fact in facts for node in ast.walk(fact))


def _calls(case: ast.FunctionDef, name: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id == "plugin"
        for node in ast.walk(case)
    )
