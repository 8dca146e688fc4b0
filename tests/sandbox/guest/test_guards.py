"""Each guard alone: they stand behind each other, so that no whole escape shows that one of them is gone."""

from __future__ import annotations

import ast
import difflib
import types
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from agentd.sandbox.guest import guards, replacements
from agentd.sandbox.guest.guards import Kind, Unavailable, checked_bases, class_of, expose, get_attribute, safe_super
from agentd.sandbox.guest.language import compiled


def traceback() -> Any:
    try:
        raise ValueError
    except ValueError as error:
        return error.__traceback__


NOT_GIVEN: dict[str, Callable[[], Any]] = {
    "what leads on": lambda: get_attribute(traceback, "__globals__"),
    "a special name by its text": lambda: guards.named_attribute(1, "__class__"),
    "anything of a traceback": lambda: get_attribute(traceback(), "tb_lineno"),
    "anything of a frame": lambda: get_attribute(traceback().tb_frame, "clear"),
    "a traceback": lambda: expose(traceback()),
    "a module": lambda: expose(types),
    "what could not be read": lambda: get_attribute(AttributeError(obj=types), "obj"),
    "a virtual subclass": lambda: get_attribute(replacements._TYPING["Mapping"], "register"),
    "a special name to be set": lambda: guards.set_attribute({}, "__class__", dict),
}
WRONG: dict[str, Callable[[], Any]] = {
    "a name that is no plain str": lambda: get_attribute(1, type("S", (str,), {})("real")),
    "a metaclass as a base": lambda: checked_bases(type),
    "a function as a base": lambda: checked_bases(expose(difflib.ndiff)),
    "super() from a class of the host": lambda: safe_super(dict, {}),
    "a change of a class of the host": lambda: guards.writable(dict),
    "an enumeration by a call": lambda: replacements.Enum("E", {"__reduce_ex__": 1}),
    "a dataclass of the host": lambda: replacements.dataclass(Enum),
}


@pytest.mark.parametrize("case", NOT_GIVEN)
def test_it_is_not_given(case: str) -> None:
    with pytest.raises(Unavailable):
        NOT_GIVEN[case]()


@pytest.mark.parametrize("case", WRONG)
def test_it_is_refused(case: str) -> None:
    with pytest.raises(TypeError):
        WRONG[case]()


def test_a_class_of_the_host_is_given_by_its_name_alone() -> None:
    assert type(expose(types.FunctionType)) is Kind
    assert type(class_of(test_it_is_refused)) is Kind
    assert expose(int) is int


def test_a_generator_of_the_host_is_given_without_its_frame() -> None:
    given = expose(difflib.ndiff("a", "a"))
    assert not isinstance(given, types.GeneratorType)
    assert list(given) == ["  a"]


def test_a_namespace_has_no_special_names() -> None:
    with pytest.raises(AttributeError):
        replacements.SimpleNamespace(__reduce_ex__=1)


REFUSED_BY_THE_LANGUAGE = {
    "a pattern's value": "match 1:\n    case x.format: pass",
    "a pattern's class": "match 1:\n    case x.__class__(): pass",
    "a pattern's attribute": "match 1:\n    case str(format_map=f): pass",
    "a pattern's key": "match 1:\n    case {x.mro: 1}: pass",
    "an attribute that is added to": "x.format += 1",
    "an attribute that is set": "x.__class__ = 1",
    "an attribute that is deleted": "del x.__doc__",
    "a hook called by its name": "x.__set_name__(1, 2)",
    "a hook that is defined": "class C:\n    def __reduce__(self): pass",
    "a special name outside a class": "def __getattr__(name): pass",
    "a metaclass": "class C(metaclass=x): pass",
    "a metaclass in a dict": "class C(**x): pass",
    "exceptions in groups": "try:\n    pass\nexcept* ValueError:\n    pass",
    "a coroutine": "async def f(): pass",
    "a star": "from json import *",
    "super() outside": "super()",
}


@pytest.mark.parametrize("case", REFUSED_BY_THE_LANGUAGE)
def test_the_language_has_no(case: str) -> None:
    code, violations = compiled(ast.parse(REFUSED_BY_THE_LANGUAGE[case]))
    assert code is None
    assert violations[0].rule == "language"
