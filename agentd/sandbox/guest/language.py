"""Ordinary Python, made over into the language of plugins and compiled."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from .guards import FILE
from .policy import HOOKS, METHODS, NAMED_TUPLE, Policy, names_for_patterns

_DUNDER = re.compile(r"__\w+__")
_SCRIPT_TOOLS = frozenset({"argparse", "cProfile", "doctest", "getopt", "optparse", "timeit", "unittest"})
_BY_NAME = ("getattr", "setattr", "hasattr", "delattr")


class Violation(NamedTuple):
    line: int
    rule: str
    message: str
    hint: str = ""


def is_dunder(name: str) -> bool:
    return bool(_DUNDER.fullmatch(name))


def is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")


def without_script(tree: ast.Module) -> ast.Module:
    """The module without what runs only when it is a script, and without the imports that nothing else uses."""
    guards = [node for node in tree.body if is_main_guard(node)]
    rest = [node for node in tree.body if not is_main_guard(node)]
    rest = _without_tools(rest) if guards else rest
    scripts = _loaded([node for node in tree.body if node not in rest]) - _loaded(rest)
    body = [node for node in rest if not (isinstance(node, ast.Import | ast.ImportFrom) and _binds(node) <= scripts)]
    return ast.Module(body, tree.type_ignores)


def _without_tools(nodes: list[ast.stmt]) -> list[ast.stmt]:
    """Without functions and classes that only the script uses, for what only scripts need: arguments, tests."""
    tools = {
        name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom) and _is_tool(node)
        for name in _binds(node)
    }
    while True:
        kept = [node for node in nodes if not (_defines(node) and _loaded([node]) & tools and _unused(node, nodes))]
        if len(kept) == len(nodes) or not any(map(_defines, kept)):
            return nodes
        nodes = kept


def _is_tool(node: ast.Import | ast.ImportFrom) -> bool:
    named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return all(name in _SCRIPT_TOOLS for name in named)


def _defines(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def _unused(node: Any, nodes: list[ast.stmt]) -> bool:
    return node.name not in _loaded([each for each in nodes if each is not node])


def _loaded(nodes: list[ast.stmt]) -> set[str]:
    return {part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)}


def _binds(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names}


def compiled(tree: ast.Module) -> tuple[CodeType | None, list[Violation]]:
    """The code of a source that was parsed, or None and what its language refuses. The tree is changed."""
    policy = Policy()
    try:
        made = policy.visit(_Plain(_prefix(tree), _dispatched(tree)).visit(without_script(tree)))
        if not policy.refusals:
            # Else this module's own `from __future__` would hold in there.
            return compile(made, FILE, "exec", dont_inherit=True), []
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, [Violation(getattr(error, "lineno", None) or 1, "syntax", str(error))]
    hint = "use plain functions, classes, and the modules that are offered"
    return None, [Violation(line, "language", message, hint) for line, message in policy.refusals]


def _prefix(tree: ast.AST) -> str:
    """With which no name of the source begins."""
    used = {value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, str)}
    prefix = "private"
    while any(name.startswith(prefix) for name in used):
        prefix += "0"
    return prefix


def _dispatched(tree: ast.AST) -> frozenset[str]:
    """Functions that are decorated with `singledispatch` or `singledispatchmethod`."""
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if (getattr(decorator, "id", "") or getattr(decorator, "attr", "")).startswith("singledispatch")
    )


class _Plain(ast.NodeTransformer):
    """Gives private names a public form: those with an underscore are the guards'.

    `dispatched`: functions whose `register` reads the annotation of what is registered, and gets it as an argument.
    """

    def __init__(self, prefix: str, dispatched: frozenset[str]) -> None:
        self._prefix = prefix
        self._dispatched = dispatched

    def _public(self, name: str) -> str:
        if not name.startswith("_") or name == "_" or is_dunder(name) or name in NAMED_TUPLE or name in HOOKS:
            return name
        return self._prefix + name

    def visit(self, node: ast.AST) -> Any:
        for field in ("id", "attr", "arg", "name", "asname", "rest"):
            value = getattr(node, field, None)
            if isinstance(value, str) and not (field == "name" and isinstance(node, ast.alias)):
                setattr(node, field, self._public(value))
        for field in ("names", "kwd_attrs"):
            values = getattr(node, field, [])
            if values and isinstance(values[0], str):
                setattr(node, field, [self._public(value) for value in values])
        return super().visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        annotated = next((each.annotation for each in node.args.args if each.annotation is not None), None)
        if annotated is not None:
            node.decorator_list = [self._registering(each, annotated) for each in node.decorator_list]
        return self.generic_visit(node)

    def _registering(self, decorator: ast.expr, kind: ast.expr) -> ast.expr:
        found = isinstance(decorator, ast.Attribute) and decorator.attr == "register"
        if not (found and isinstance(decorator.value, ast.Name) and decorator.value.id in self._dispatched):  # type: ignore[attr-defined]
            return decorator
        return ast.copy_location(ast.Call(decorator, [copy.deepcopy(kind)], []), decorator)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        by_name = isinstance(node.func, ast.Name) and node.func.id in _BY_NAME and len(node.args) > 1
        if by_name and isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str):
            node.args[1].value = self._public(node.args[1].value)
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """`__all__`, `__version__`, `__slots__` are read by nobody here."""
        if names_for_patterns(node):
            return node
        if all(isinstance(to, ast.Name) and is_dunder(to.id) and to.id not in METHODS for to in node.targets):
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line and module of each import, with the name that is taken from it (empty for the module itself)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, module, alias.name) for alias in node.names)
