"""The language of plugins: Python without the words that lead out of it.

`_getattr_` stands before every attribute that is read, `_write_` before every object that is changed, `_bases_` before
the bases of a class, `_super_` for `super()`. Attributes that Python itself reads (patterns, augmented assignments)
cannot pass a guard: their names are judged here, by the stricter list.
"""

from __future__ import annotations

import ast
from typing import Any, TypeAlias

from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

_METHODS = """
init new post_init repr str format bytes bool hash len length_hint contains iter next reversed getitem setitem delitem
missing call enter exit eq ne lt le gt ge add sub mul truediv floordiv mod divmod pow lshift rshift and or xor matmul
radd rsub rmul rtruediv rfloordiv rmod rdivmod rpow rlshift rrshift rand ror rxor rmatmul iadd isub imul itruediv
ifloordiv imod ipow ilshift irshift iand ior ixor imatmul neg pos abs invert int float complex index round trunc floor
ceil getattr get set delete set_name init_subclass class_getitem
"""
METHODS = frozenset(f"__{name}__" for name in _METHODS.split())
"""Special methods that a class may define, and that may be called by name."""
READABLE = METHODS - {"__set_name__", "__get__", "__set__", "__delete__", "__getattr__"} | {
    "__name__",
    "__qualname__",
    "__doc__",
    "__class__",
    "__members__",
    "__cause__",
}
NAMED_TUPLE = frozenset({"_asdict", "_replace", "_fields", "_make", "_field_defaults"})
HOOKS = frozenset({"_missing_", "_generate_next_value_"})
"""Of enumerations: a class may define them, nobody reads them."""
UNREADABLE = INSPECT_ATTRIBUTES | {"mro"}
UNGUARDED = UNREADABLE | {"format", "format_map", "obj", "register"}
"""Not to be read where no guard stands: `str.format` walks attributes, `AttributeError.obj` is anything of the host,
`register` of an abstract class makes others its subclasses."""

Visited: TypeAlias = Any


def readable(name: str) -> bool:
    """Whether an attribute of this name may be read, through the guard."""
    if name.startswith("_"):
        return name == "_" or name in READABLE or name in NAMED_TUPLE
    return name not in UNREADABLE


def names_for_patterns(node: ast.Assign) -> bool:
    """Whether it is `__match_args__`, with names that may be read where no guard stands."""
    to, value = node.targets[0], node.value
    if len(node.targets) > 1 or not (isinstance(to, ast.Name) and to.id == "__match_args__"):
        return False
    names = [getattr(each, "value", None) for each in getattr(value, "elts", [])]
    return isinstance(value, ast.Tuple) and all(
        type(name) is str and not name.startswith("_") and name not in UNGUARDED for name in names
    )


class Policy(RestrictingNodeTransformer):
    """Rewrites a module so that guards stand where they have to; says in `refusals` (line, message) what may not be."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.refusals: list[tuple[int, str]] = []
        self._scopes: list[ast.AST] = []

    def error(self, node: ast.AST, info: str) -> None:
        self.refusals.append((getattr(node, "lineno", 1), info))
        super().error(node, info)

    def check_name(self, node: Any, name: str | None, allow_magic_methods: bool = False) -> None:
        in_class = bool(self._scopes) and isinstance(self._scopes[-1], ast.ClassDef)
        if name and name.startswith("_") and name != "_" and not (in_class and (name in METHODS or name in HOOKS)):
            self.error(node, f"the name {name!r} is not available: it starts with an underscore")

    def _plain(self, node: Any) -> Visited:
        """What passes as it is, with its contents judged. Things in a container need no guard: attributes have it."""
        return self.node_contents_visit(node)

    guard_iter = _plain
    visit_With = _plain
    visit_Match = visit_match_case = visit_MatchSingleton = visit_MatchSequence = visit_MatchOr = _plain
    visit_Global = visit_Nonlocal = _plain  # names in them count only when they are assigned, and are judged there

    def visit_Assign(self, node: ast.Assign) -> Visited:
        in_class = bool(self._scopes) and isinstance(self._scopes[-1], ast.ClassDef)
        return node if in_class and names_for_patterns(node) else self._plain(node)

    def visit_Module(self, node: ast.Module) -> Visited:
        return ast.fix_missing_locations(self._plain(node))

    def visit_Subscript(self, node: ast.Subscript) -> Visited:
        return self._plain(node) if isinstance(node.ctx, ast.Load) else super().visit_Subscript(node)

    def visit_Name(self, node: ast.Name) -> Visited:
        if not (node.id == "__name__" and isinstance(node.ctx, ast.Load)):
            self.check_name(node, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> Visited:
        if node.attr == "__setattr__" and isinstance(node.value, ast.Name) and node.value.id == "object":
            return ast.copy_location(ast.Name("_object_setattr_", node.ctx), node)
        changed = not isinstance(node.ctx, ast.Load)
        if node.attr == "__dict__" and not changed:
            return ast.copy_location(_guard("_vars_", self.visit(node.value)), node)
        if not readable(node.attr) or (changed and node.attr.startswith("_")):
            self.error(node, f"the attribute {node.attr!r} is not available")
        node = self.node_contents_visit(node)
        if changed:
            node.value = _guard("_write_", node.value)
            return node
        return ast.copy_location(_guard("_getattr_", node.value, ast.Constant(node.attr)), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Visited:
        if isinstance(node.target, ast.Attribute):
            self._unguarded_names(node, [node.target.attr])
        return self._plain(node)

    def visit_BinOp(self, node: ast.BinOp) -> Visited:
        node = self._plain(node)
        return (
            ast.copy_location(_guard("_power_", node.left, node.right), node) if isinstance(node.op, ast.Pow) else node
        )

    def visit_Call(self, node: ast.Call) -> Visited:
        if not (isinstance(node.func, ast.Name) and node.func.id == "super"):
            return self._plain(node)
        if node.args:
            return ast.copy_location(_guard("_super_", *map(self.visit, node.args)), node)
        function = next((scope for scope in reversed(self._scopes) if isinstance(scope, ast.FunctionDef)), None)
        first = [*function.args.posonlyargs, *function.args.args][:1] if function else []
        if not first:
            self.error(node, "super() works in a method only")
            return node
        of_class = ast.Name("__class__", ast.Load())
        return ast.copy_location(_guard("_super_", of_class, ast.Name(first[0].arg, ast.Load())), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Visited:
        node.returns = None
        self._open_definition(node)
        self.check_function_argument_names(node)
        node.args = self.visit(node.args)
        self._scopes.append(node)
        node.body = self._body(node.body)
        self._scopes.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Visited:
        self._open_definition(node)
        bases = [self.visit(base) for base in node.bases]
        for keyword in node.keywords:
            if keyword.arg == "metaclass" and ast.unparse(keyword.value) in ("ABCMeta", "abc.ABCMeta"):
                bases.append(ast.Name("_abc_", ast.Load()))
            elif keyword.arg in (None, "metaclass"):
                self.error(node, "a class takes no metaclass but ABCMeta")
        node.keywords = [self.visit(keyword) for keyword in node.keywords if keyword.arg != "metaclass"]
        node.bases = [ast.copy_location(ast.Starred(_guard("_bases_", *bases), ast.Load()), node)]
        self._scopes.append(node)
        node.body = self._body(node.body)
        self._scopes.pop()
        return node

    def _open_definition(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        self.check_name(node, node.name)
        if getattr(node, "type_params", ()):
            self.error(node, "type parameters are not available")
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]

    def _body(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        visited: list[ast.stmt] = []
        for statement in statements:
            new = self.visit(statement)
            visited.extend(new if isinstance(new, list) else [new] if new is not None else [])
        return visited

    def visit_arg(self, node: ast.arg) -> Visited:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Visited:
        """An annotation is never evaluated; in a class its name stays, for dataclasses and named tuples."""
        in_class = bool(self._scopes) and isinstance(self._scopes[-1], ast.ClassDef)
        if in_class and isinstance(node.target, ast.Name) and "ClassVar" not in ast.unparse(node.annotation):
            node.annotation = ast.copy_location(ast.Constant(None), node.annotation)
            return self._plain(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self._plain(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Visited:
        if node.module == "__future__":
            return ast.copy_location(ast.Pass(), node)
        return super().visit_ImportFrom(node)

    def visit_MatchValue(self, node: ast.MatchValue) -> Visited:
        self._unguarded(node.value)
        return node

    def visit_MatchMapping(self, node: ast.MatchMapping) -> Visited:
        for key in node.keys:
            self._unguarded(key)
        self.check_name(node, node.rest)
        node.patterns = [self.visit(pattern) for pattern in node.patterns]
        return node

    def visit_MatchClass(self, node: ast.MatchClass) -> Visited:
        self._unguarded(node.cls)
        self._unguarded_names(node, node.kwd_attrs)
        node.patterns = [self.visit(pattern) for pattern in node.patterns]
        node.kwd_patterns = [self.visit(pattern) for pattern in node.kwd_patterns]
        return node

    def visit_MatchStar(self, node: ast.MatchStar) -> Visited:
        self.check_name(node, node.name)
        return node

    def visit_MatchAs(self, node: ast.MatchAs) -> Visited:
        self.check_name(node, node.name)
        return self._plain(node)

    def _unguarded(self, expression: ast.expr) -> None:
        """A value or class in a pattern: a constant or a dotted name, which no call can stand in for."""
        for part in ast.walk(expression):
            if isinstance(part, ast.Name):
                self.check_name(part, part.id)
            elif isinstance(part, ast.Attribute):
                self._unguarded_names(part, [part.attr])

    def _unguarded_names(self, node: ast.AST, names: list[str]) -> None:
        for name in names:
            if name.startswith("_") or name in UNGUARDED:
                self.error(node, f"the attribute {name!r} is not available in a pattern or before `+=`")


def _guard(name: str, *arguments: ast.expr) -> ast.Call:
    """A call of a guard; it stands where its first argument does, its parts get their places at the end."""
    call = ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
    return ast.copy_location(call, arguments[0]) if arguments else call
