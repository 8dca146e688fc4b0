"""Ordinary Python, made over so that each attribute, change and import passes a guard; the rest is refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

from RestrictedPython.transformer import INSPECT_ATTRIBUTES, IOPERATOR_TO_STR, RestrictingNodeTransformer

NAME = "plugin"
"""What the source is called, in tracebacks and as the module of its classes."""
RECORD_NAMES = frozenset({"_asdict", "_fields", "_make", "_replace"})
"""Public in spite of their names: of named tuples."""
_METHODS = """
init post_init repr str bytes format hash bool len length_hint iter next reversed contains getitem setitem delitem
missing call enter exit eq ne lt le gt ge add radd iadd sub rsub isub mul rmul imul truediv rtruediv floordiv
rfloordiv mod rmod divmod pow rpow neg pos abs invert and rand or ror xor rxor lshift rshift matmul int float index
round trunc floor ceil
"""
METHODS = frozenset(f"__{name}__" for name in _METHODS.split())
"""Special methods that a class of a plugin may define and call by name."""
UNSAFE = INSPECT_ATTRIBUTES | {"mro", "with_traceback", "func_globals", "func_code"}
"""Names without an underscore that lead to frames, code or types."""
RAW = frozenset({"format", "format_map", "obj"})
"""Attributes that only the guard may hand out, since the real ones lead further."""
_DUNDER = re.compile(r"__\w+__")
_LINE = re.compile(r"Line (\d+): (.*)", re.DOTALL)


class Violation(NamedTuple):
    line: int
    rule: str
    message: str
    hint: str = ""


def is_dunder(name: str) -> bool:
    return bool(_DUNDER.fullmatch(name))


def public(name: str, prefix: str) -> str:
    """The name that stands for a private one, so that names with an underscore are the guards' alone."""
    if not name.startswith("_") or name == "_" or is_dunder(name) or name in RECORD_NAMES:
        return name
    return prefix + name


def prefix_for(tree: ast.AST) -> str:
    """With which no name of the source begins."""
    used = {value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, str)}
    prefix = "private"
    while any(name.startswith(prefix) for name in used):
        prefix += "0"
    return prefix


def compiled(tree: ast.Module, prefix: str) -> tuple[CodeType | None, list[Violation]]:
    """The code of a source that was parsed; None beside what is wrong with it. The tree is changed."""
    errors: list[str] = []
    made: Any = _Plain(prefix).visit(tree)
    try:
        Language(errors, [], {}).visit(made)
        if errors:
            return None, [_violation(error) for error in errors]
        return compile(ast.fix_missing_locations(made), NAME, "exec", dont_inherit=True), []
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return None, [Violation(getattr(error, "lineno", None) or 1, "syntax", str(error))]


def _violation(error: str) -> Violation:
    found = _LINE.match(error)
    line, message = (int(found[1]), found[2]) if found else (1, error)
    return Violation(line, "language", message, "use plain functions, classes and the modules that are offered")


class _Plain(ast.NodeTransformer):
    """Takes out what only tools read, and gives private names a public form."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def visit(self, node: ast.AST) -> Any:
        node = super().visit(node)
        for field in ("id", "attr", "arg", "name", "asname", "rest"):
            value = getattr(node, field, None)
            if isinstance(value, str) and not isinstance(node, ast.alias):
                setattr(node, field, public(value, self._prefix))
        if isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [public(name, self._prefix) for name in node.names]
        if isinstance(node, ast.MatchClass):
            node.kwd_attrs = [public(name, self._prefix) for name in node.kwd_attrs]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if isinstance(node.target, ast.Name):
            # Fields of a dataclass are found by their annotations; what those say is looked at by nobody.
            node.annotation = ast.copy_location(ast.Constant(None), node)
            return self.generic_visit(node)
        if node.value is None:
            return None
        return self.generic_visit(ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node))

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if all(isinstance(target, ast.Name) and is_dunder(target.id) for target in node.targets):
            return ast.copy_location(ast.Pass(), node)  # __all__, __version__, __slots__
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if ast.unparse(node.test).replace('"', "'") == "__name__ == '__main__'":
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = node.value
        if node.attr in ("__name__", "__qualname__") and isinstance(node.ctx, ast.Load):
            if isinstance(value, ast.Attribute) and value.attr == "__class__":
                return _call("_name_", self.visit(value.value), ast.Constant(True), at=node)
            return _call("_name_", self.visit(value), ast.Constant(False), at=node)
        if node.attr == "__class__" and isinstance(node.ctx, ast.Load):
            return _call("_type_", self.visit(value), at=node)
        if node.attr == "__doc__" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(None), node)
        return self.generic_visit(node)


def _call(guard: str, *args: Any, at: ast.AST) -> ast.Call:
    """A call of a guard; marked, since names with an underscore are refused in a source."""
    name = ast.Name(guard, ast.Load())
    name.guard = True  # type: ignore[attr-defined]
    return ast.fix_missing_locations(ast.copy_location(ast.Call(name, list(args), []), at))


class Language(RestrictingNodeTransformer):
    """RestrictedPython's policy, wider where guards make it safe."""

    def check_name(self, node: Any, name: str | None, allow_magic_methods: bool = False) -> None:
        if name is None or (allow_magic_methods and name in METHODS and node.col_offset):
            return
        if name.startswith("_") and name != "_":
            self.error(node, f"{name!r} is not offered here")

    def visit_Name(self, node: ast.Name) -> Any:
        if not getattr(node, "guard", False):
            self.check_name(node, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        allowed = node.attr in RECORD_NAMES or (node.attr in METHODS and isinstance(node.ctx, ast.Load))
        if node.attr in UNSAFE or (node.attr.startswith("_") and not allowed):
            self.error(node, f"the attribute {node.attr!r} is not offered here")
            return node
        node.value = self.visit(node.value)
        if isinstance(node.ctx, ast.Load):
            return _call("_getattr_", node.value, ast.Constant(node.attr), at=node)
        node.value = _call("_write_", node.value, at=node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        """`a[k] += v` and `a.k += v` evaluate `a` and `k` once, as Python does."""
        sign, target = ast.Constant(IOPERATOR_TO_STR[type(node.op)]), node.target
        value = self.visit(node.value)
        if isinstance(target, ast.Name):
            self.check_name(node, target.id)
            new = _call("_inplacevar_", sign, ast.Name(target.id, ast.Load()), value, at=node)
            return ast.fix_missing_locations(ast.copy_location(ast.Assign([target], new), node))
        owner = self.visit(target.value)
        if isinstance(target, ast.Attribute):
            if target.attr in UNSAFE or target.attr.startswith("_"):
                self.error(node, f"the attribute {target.attr!r} is not offered here")
            call = _call("_change_attribute_", sign, owner, ast.Constant(target.attr), value, at=node)
        else:
            call = _call("_change_item_", sign, owner, self.visit(_index(target.slice)), value, at=node)
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))

    def visit_Import(self, node: ast.Import) -> Any:
        return [
            self._imported(node, alias.asname or alias.name.partition(".")[0], _bound(alias)) for alias in node.names
        ]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if node.module == "__future__":
            return ast.copy_location(ast.Pass(), node)
        names = [(alias.asname or alias.name, alias.name) for alias in node.names]
        return [self._imported(node, name, (node.module or "", attribute)) for name, attribute in names]

    def _imported(self, node: ast.AST, name: str, what: tuple[str, ...]) -> ast.stmt:
        self.check_name(node, name)
        call = _call("_import_", *(ast.Constant(part) for part in what), at=node)
        return ast.fix_missing_locations(ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], call), node))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        self.check_name(node, getattr(node.target, "id", None))
        node.value = node.value and self.visit(node.value)
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> Any:
        return node

    def visit_Module(self, node: ast.Module) -> Any:
        return self.node_contents_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        self.check_name(node, node.name, allow_magic_methods=True)
        self.check_function_argument_names(node)
        return self.node_contents_visit(node)

    # match ------------------------------------------------------------------------------------------------------------

    def visit_Match(self, node: Any) -> Any:
        return self.node_contents_visit(node)

    visit_match_case = visit_MatchValue = visit_MatchSingleton = visit_MatchSequence = visit_MatchOr = visit_Match

    def visit_MatchAs(self, node: Any) -> Any:
        self.check_name(node, getattr(node, "name", None))
        self.check_name(node, getattr(node, "rest", None))
        return self.node_contents_visit(node)

    visit_MatchStar = visit_MatchMapping = visit_MatchAs

    def visit_MatchClass(self, node: ast.MatchClass) -> Any:
        """Its attributes are read past all guards."""
        for name in node.kwd_attrs:
            if name.startswith("_") or name in UNSAFE | RAW:
                self.error(node, f"the attribute {name!r} cannot be matched here")
        return self.node_contents_visit(node)


def _index(index: ast.expr) -> ast.expr:
    """What stands between brackets, as a value of its own."""
    if isinstance(index, ast.Slice):
        parts = [part or ast.Constant(None) for part in (index.lower, index.upper, index.step)]
        return ast.copy_location(ast.Call(ast.Name("slice", ast.Load()), parts, []), index)
    return index


def _bound(alias: ast.alias) -> tuple[str, ...]:
    """`import a.b as c` gives a.b, `import a.b` gives a."""
    return (alias.name,) if alias.asname else (alias.name.partition(".")[0],)


def imports(tree: ast.AST) -> Iterator[tuple[ast.AST, str, str]]:
    """Each imported module, with the name taken from it (empty for the module itself)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            module = "." * node.level + (node.module or "")
            yield from ((node, module, alias.name) for alias in node.names)
