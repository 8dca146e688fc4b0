"""The tests of a plugin, written from its spec before there is code: what they must have, and their digest."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
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
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    cases = [node for name, node in functions.items() if name.startswith("test_")]
    names = [node.name for node in cases]
    if len(names) < MIN_CASES:
        raise PluginRefused(f"there are {len(names)} functions test_..., {MIN_CASES} are needed")
    for case in cases:
        if case.args.args or case.args.kwonlyargs or case.args.vararg:
            raise PluginRefused(f"{case.name} takes arguments", hint="a test takes none")
        reached = _reached(case, functions)
        if not any(map(_asserts, reached)):
            raise PluginRefused(f"{case.name} asserts nothing", hint=f"assert what plugin.{spec.name}(...) gives")
        if not any(_calls(function, spec.name) for function in reached):
            raise PluginRefused(f"{case.name} does not call plugin.{spec.name}")
    return Exam(source=source, cases=tuple(names))


def _reached(case: ast.FunctionDef, functions: Mapping[str, ast.FunctionDef]) -> list[ast.FunctionDef]:
    """A test and the functions of its file that it may come to call."""
    found, waiting = {case.name: case}, [case]
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id in functions and node.id not in found:
                found[node.id] = functions[node.id]
                waiting.append(functions[node.id])
    return list(found.values())


def _asserts(case: ast.FunctionDef) -> bool:
    """Whether it could fail: an assertion is not about constants alone, or stands behind a call that should raise."""
    facts = [node.test for node in ast.walk(case) if isinstance(node, ast.Assert)]
    raises = any(isinstance(node, ast.Try) for node in ast.walk(case))
    return bool(facts) and (raises or any(isinstance(node, ast.Name) for fact in facts for node in ast.walk(fact)))


def _calls(case: ast.FunctionDef, name: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id == "plugin"
        for node in ast.walk(case)
    )
