"""Wrong versions of a plugin, which its tests have to tell from it: else they prove nothing."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import NamedTuple

import libcst as cst

from agentd.plugins.spec import Spec

LEAST_MUTANTS = 8
MOST_MUTANTS = 24
_SWAPS: dict[type[cst.CSTNode], type[cst.CSTNode]] = {
    cst.Equal: cst.NotEqual,
    cst.NotEqual: cst.Equal,
    cst.LessThan: cst.LessThanEqual,
    cst.LessThanEqual: cst.LessThan,
    cst.GreaterThan: cst.GreaterThanEqual,
    cst.GreaterThanEqual: cst.GreaterThan,
    cst.In: cst.NotIn,
    cst.NotIn: cst.In,
    cst.Is: cst.IsNot,
    cst.IsNot: cst.Is,
    cst.Add: cst.Subtract,
    cst.Subtract: cst.Add,
    cst.Multiply: cst.Add,
    cst.Divide: cst.Multiply,
    cst.FloorDivide: cst.Multiply,
    cst.Modulo: cst.Add,
    cst.And: cst.Or,
    cst.Or: cst.And,
    cst.AddAssign: cst.SubtractAssign,
    cst.SubtractAssign: cst.AddAssign,
}


class Control(NamedTuple):
    """`what` says in words how it is wrong, without showing the code."""

    what: str
    source: str


def stubs(spec: Spec) -> Iterator[Control]:
    """Versions that do nothing: they fail, give nothing, a constant, or an argument back, or know only the examples."""
    yield Control("it always fails", f"def {spec.name}(**given):\n    raise ValueError('it cannot be done')\n")
    values: dict[str, None] = dict.fromkeys(["None", "''", "0", "[]", "{}", "True"])
    values |= dict.fromkeys(repr(example.result) for example in spec.examples)
    for value in values:
        yield Control(f"it always gives {value[:80]}", f"def {spec.name}(**given):\n    return {value}\n")
    for name in spec.input.get("properties", {}):
        source = f"def {spec.name}(**given):\n    return given.get({json.dumps(name)})\n"
        yield Control(f"it gives its argument {name} back", source)
    yield Control("it knows the examples and nothing else", _by_heart(spec))


def _by_heart(spec: Spec) -> str:
    known = [(example.args, example.result, example.files_after) for example in spec.examples]
    return (
        f"def {spec.name}(**given):\n"
        f"    for args, result, after in {known!r}:\n"
        "        if given == args:\n"
        "            for path, text in after.items():\n"
        "                open(path, 'w').write(text)\n"
        "            return result\n"
        "    raise ValueError('it was in no example')\n"
    )


def mutants(source: str) -> list[Control]:
    """The source with one small thing wrong each time; spread over all of it when there are many, and cruder ones where
    it is so short that there are few."""
    tree = cst.parse_module(source)
    found = {each.source: each for each in _changed(tree, _Change)}
    cruder = _changed(tree, _Twist)
    while len(found) < LEAST_MUTANTS and (each := next(cruder, None)) is not None:
        found.setdefault(each.source, each)
    return list(found.values())


def _changed(tree: cst.Module, kind: type[_Places]) -> Iterator[Control]:
    counting = kind(-1)
    tree.visit(counting)
    step = max(1, counting.seen / MOST_MUTANTS)
    for place in sorted({int(number * step) for number in range(min(counting.seen, MOST_MUTANTS))}):
        change = kind(place)
        source = tree.visit(change).code
        if source != tree.code and _is_python(source):
            yield Control(change.what, source)


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class _Places(cst.CSTTransformer):
    """Changes the place of this number; counts them all."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._wanted = wanted
        self.seen = 0
        self.what = ""

    def _here(self, what: str) -> bool:
        here = self.seen == self._wanted
        self.seen += 1
        if here:
            self.what = what
        return here


class _Change(_Places):
    def on_leave(  # type: ignore[override]
        self, original_node: cst.CSTNode, updated_node: cst.CSTNode
    ) -> cst.CSTNode | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNode]:
        found = super().on_leave(original_node, updated_node)
        swapped = _SWAPS.get(type(original_node))
        if swapped is not None and self._here(f"{type(original_node).__name__} is {swapped.__name__}"):
            return swapped()
        return found

    def leave_Integer(self, original_node: cst.Integer, updated_node: cst.Integer) -> cst.BaseExpression:
        if self._here(f"the number {original_node.value} is another"):
            return cst.Integer(str(original_node.evaluated_value + 1))
        return updated_node

    def visit_Expr(self, node: cst.Expr) -> bool:
        return not isinstance(node.value, cst.SimpleString)  # what documents changes nothing

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.BaseExpression:
        text = original_node.evaluated_value
        if self._here("a text is another"):
            return cst.SimpleString(repr(text + "_" if isinstance(text, str) else text + b"_"))
        return updated_node

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        if self._here("a variable has no value"):
            return updated_node.with_changes(value=cst.Name("None"))
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        named = [each for each in updated_node.args if each.keyword is not None]
        if named and self._here("an argument is left out"):
            kept = [each for each in updated_node.args if each is not named[-1]]
            return updated_node.with_changes(args=kept)
        return updated_node

    def leave_Return(self, original_node: cst.Return, updated_node: cst.Return) -> cst.Return:
        if original_node.value is not None and self._here("it returns nothing where it should return something"):
            return cst.Return(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))
        return updated_node

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
        other = {"True": "False", "False": "True"}.get(original_node.value)
        if other and self._here(f"{original_node.value} is {other}"):
            return updated_node.with_changes(value=other)
        return updated_node

    def leave_If(self, original_node: cst.If, updated_node: cst.If) -> cst.If:
        if self._here("a condition is turned round"):
            inner = updated_node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
            return updated_node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=inner))
        return updated_node

    def leave_Expr(self, original_node: cst.Expr, updated_node: cst.Expr) -> cst.BaseSmallStatement:
        if isinstance(original_node.value, cst.Call) and self._here("a call is left out"):
            return cst.Pass()
        return updated_node


class _Twist(_Places):
    """Cruder changes, of what a short function consists of."""

    def leave_Return(self, original_node: cst.Return, updated_node: cst.Return) -> cst.Return:
        value = updated_node.value
        if value is None:
            return updated_node
        inner = value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        twice = cst.BinaryOperation(left=inner, operator=cst.Multiply(), right=cst.Integer("2"))
        for what, other in (
            ("it returns twice of what it should", twice),
            ("it returns a list of what it should", cst.List([cst.Element(inner)])),
            ("it returns what it should two times over", cst.List([cst.Element(inner), cst.Element(inner)])),
            ("it returns what it should under a name", cst.Dict([cst.DictElement(cst.SimpleString("'it'"), inner)])),
            ("it returns whether there is nothing", cst.UnaryOperation(operator=cst.Not(), expression=inner)),
        ):
            if self._here(what):
                return cst.Return(value=other, whitespace_after_return=cst.SimpleWhitespace(" "))
        return updated_node

    def leave_BinaryOperation(
        self, original_node: cst.BinaryOperation, updated_node: cst.BinaryOperation
    ) -> cst.BaseExpression:
        for side in (updated_node.left, updated_node.right):
            if self._here("half of a calculation is left out"):
                return side
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        inner = updated_node.args[0].value if updated_node.args else None
        if isinstance(updated_node.func, cst.Attribute):
            inner = updated_node.func.value
        if inner is not None and self._here("a step is left out"):
            return inner
        return updated_node

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        if not updated_node.star and self._here("an argument is nothing"):
            return updated_node.with_changes(value=cst.Name("None"))
        return updated_node
