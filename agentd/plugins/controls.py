"""Wrong versions of a plugin, which its tests have to tell from it: else they prove nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import libcst as cst

from agentd.plugins.spec import Spec

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
    """Versions that do nothing: they give nothing, a constant, or an argument back."""
    values: dict[str, None] = dict.fromkeys(["None", "''", "0", "[]", "{}", "True"])
    values |= dict.fromkeys(repr(example.result) for example in spec.examples)
    for value in values:
        yield Control(f"it always gives {value[:80]}", f"def {spec.name}(**given):\n    return {value}\n")
    for name in spec.input.get("properties", {}):
        source = f"def {spec.name}(**given):\n    return given.get({json.dumps(name)})\n"
        yield Control(f"it gives its argument {name} back", source)


def mutants(source: str) -> list[Control]:
    """The source with one small thing wrong each time; spread over all of it when there are many."""
    tree = cst.parse_module(source)
    counting = _Change(-1)
    tree.visit(counting)
    total = counting.seen
    step = max(1, total / MOST_MUTANTS)
    places = sorted({int(number * step) for number in range(min(total, MOST_MUTANTS))})
    made = []
    for place in places:
        change = _Change(place)
        changed = tree.visit(change).code
        if changed != source:
            made.append(Control(change.what, changed))
    return made


class _Change(cst.CSTTransformer):
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
