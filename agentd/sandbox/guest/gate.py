"""The static gate: what a source may not contain, whatever it would do; each refusal names line, rule and a way out."""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import NamedTuple

from . import facades
from .language import Violation, compiled, imports, is_dunder
from .policy import METHODS
from .policy import UNREADABLE as UNSAFE

MAX_BYTES = 64 * 1024
MAX_DEPTH = 60
MAX_NODES = 20_000
MAX_BRANCHES = 40
"""Of one function."""
CAPABILITIES = frozenset({"files", "http", "plugin"})
_FORBIDDEN = """
eval exec compile globals locals vars dir input breakpoint memoryview help exit quit copyright credits license
__import__ __builtins__ __loader__ __spec__ __file__ __debug__
"""
_FORBIDDEN_NAMES = frozenset(_FORBIDDEN.split())
_NAMED = ("getattr", "setattr", "delattr", "hasattr")
_PURE = frozenset(
    {"compile", "frozenset", "set", "dict", "list", "tuple", "namedtuple", "TypeVar", "NewType", "Decimal"}
)
"""Functions that a module may call while it is loaded."""


class Report(NamedTuple):
    """`entries`: the public functions in their order; the code is there when nothing is wrong."""

    violations: list[Violation]
    entries: list[str]
    code: CodeType | None


def check(source: bytes, grants: Iterable[str]) -> Report:
    """Look at a source, and compile it when it may run."""
    found = list(_text(source))
    if found:
        return Report(found, [], None)
    try:
        tree = ast.parse(source.decode("utf-8-sig"), "plugin")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "write one Python file, complete and without anything around it"
        return Report([Violation(getattr(error, "lineno", None) or 1, "syntax", str(error), hint)], [], None)
    found = list(_size(tree)) or [
        *_imports(tree, frozenset(grants)),
        *_names(tree),
        *_effects(tree),
        *_complexity(tree),
    ]
    entries = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    code = None
    if not found:
        code, found = compiled(tree)
    return Report(sorted(set(found)), entries, code)


def _text(source: bytes) -> Iterator[Violation]:
    if len(source) > MAX_BYTES:
        yield Violation(1, "size", f"it has {len(source)} bytes, {MAX_BYTES} are allowed", "do less in one plugin")
        return
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Violation(1, "encoding", f"it is not UTF-8: {error}", "save it as UTF-8")
        return
    if not text.strip():
        yield Violation(1, "empty", "there is no code", "define a function")
    for number, line in enumerate(text.splitlines(), 1):
        for character in line:
            if character not in "\t\f" and unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs"):
                yield Violation(
                    number,
                    "invisible",
                    f"it contains the invisible character U+{ord(character):04X}",
                    "write it as an escape",
                )
                return
    yield from _brackets(text)


def _brackets(text: str) -> Iterator[Violation]:
    """Bounded before the parser sees it; brackets in strings count, which costs nobody anything."""
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        for character in line:
            depth += (character in "([{") - (character in ")]}")
            if depth > MAX_DEPTH:
                yield Violation(number, "depth", f"brackets are nested more than {MAX_DEPTH} deep", "use variables")
                return
        depth = max(depth, 0)


def _size(tree: ast.AST) -> Iterator[Violation]:
    level, nodes = [tree], 0
    for depth in range(200):
        nodes += len(level)
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if nodes > MAX_NODES:
            yield Violation(1, "size", f"it has more than {MAX_NODES} parts", "do less in one plugin")
            return
        if not level:
            return
        if depth == 150:
            line = getattr(level[0], "lineno", 1)
            yield Violation(line, "depth", "it is nested too deeply, or a chain is too long", "use variables")
            return


def _imports(tree: ast.AST, grants: frozenset[str]) -> Iterator[Violation]:
    allowed = {"__future__", *facades.FACADES} | (grants & CAPABILITIES)
    for line, module, name in imports(tree):
        if module not in allowed:
            granted = "ask for the permission in the spec" if module in CAPABILITIES else ""
            yield Violation(
                line,
                "import",
                f"the module {module!r} is not offered",
                granted or f"there are {', '.join(sorted(allowed - {'__future__'}))}",
            )
        elif name == "*":
            yield Violation(line, "import", f"a star takes what nobody named from {module!r}", "name what you import")


def _names(tree: ast.AST) -> Iterator[Violation]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        for name in _identifiers(node):
            if not name.isascii():
                yield Violation(line, "identifier", f"the name {name!r} is not ASCII", "use English letters")
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _FORBIDDEN_NAMES:
            yield Violation(line, "name", f"{node.id!r} is not offered", "say it with plain functions and values")
        elif isinstance(node, ast.Attribute):
            yield from _attribute(node, line)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NAMED:
            yield from _computed(node, line)
        elif isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            yield Violation(line, "async", "there is no event loop", "write a plain function")


def _identifiers(node: ast.AST) -> Iterator[str]:
    for field in ("id", "attr", "arg", "name", "asname"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield value


_OFFERED_DUNDERS = METHODS | {"__name__", "__qualname__", "__class__", "__doc__"}


def _attribute(node: ast.Attribute, line: int) -> Iterator[Violation]:
    if (is_dunder(node.attr) and node.attr not in _OFFERED_DUNDERS) or node.attr in UNSAFE:
        yield Violation(line, "attribute", f"{node.attr!r} leads into the interpreter", "use what the object is for")


def _computed(node: ast.Call, line: int) -> Iterator[Violation]:
    name = node.args[1] if len(node.args) > 1 else None
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        yield Violation(
            line, "attribute", "the name of the attribute is computed", "write the name, or keep the values in a dict"
        )
    elif is_dunder(name.value) or name.value in UNSAFE:
        yield Violation(line, "attribute", f"{name.value!r} leads into the interpreter", "use what the object is for")


def _effects(tree: ast.Module) -> Iterator[Violation]:
    for node in tree.body:
        if not _quiet(node):
            hint = "put it into a function; constants, functions and classes may stand at the top"
            yield Violation(node.lineno, "effect", "this runs while the plugin is loaded", hint)


def _quiet(node: ast.stmt) -> bool:
    """Whether a statement at the top only defines something."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return ast.unparse(node.test).replace('"', "'") == "__name__ == '__main__'"
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        plain = all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
        return plain and (node.value is None or all(map(_harmless, ast.walk(node.value))))
    return False


def _harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in _PURE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift | ast.Mult):
        return all(_small(side) for side in (node.left, node.right))
    return not isinstance(node, ast.comprehension | ast.NamedExpr | ast.Yield | ast.YieldFrom | ast.Await)


def _small(node: ast.expr) -> bool:
    return not isinstance(node, ast.Constant) or not isinstance(node.value, int) or abs(node.value) <= 10_000


_BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.BoolOp, ast.comprehension, ast.match_case)


def _complexity(tree: ast.AST) -> Iterator[Violation]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            branches = sum(isinstance(each, _BRANCHES) for each in ast.walk(node))
            if branches > MAX_BRANCHES:
                yield Violation(
                    node.lineno,
                    "complexity",
                    f"{node.name} has {branches} branches",
                    f"split it; {MAX_BRANCHES} are allowed",
                )
