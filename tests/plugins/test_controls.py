"""Wrong versions of a plugin: each is Python, each is wrong in one way, and there are enough of them."""

from __future__ import annotations

from typing import Any

import pytest

from agentd.plugins.controls import LEAST_MUTANTS, MOST_MUTANTS, mutants, stubs
from tests.plugins.conftest import CONVERT, adding, converting


def test_each_mutant_differs_in_one_place_and_is_python() -> None:
    source = (
        "def f(a, b):\n    '''Doc.'''\n    if a > 1 and not b:\n        b += a * 2\n    return g(a, k=True) or 'x'\n"
    )
    made = mutants(source)
    assert len({each.source for each in made}) == len(made) >= 9
    for each in made:
        compile(each.source, each.what, "exec")
        assert "Doc." in each.source


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, b=1):\n    return a + b\n",
        "def f(text):\n    return len(text.split())\n",
        "def f(text):\n    return text[::-1].upper()\n",
        CONVERT,
    ],
)
def test_short_code_has_enough_of_them(source: str) -> None:
    made = {each.source for each in mutants(source)}
    assert LEAST_MUTANTS <= len(made) <= MOST_MUTANTS
    assert source not in made


def test_long_code_has_not_too_many_and_they_are_spread_over_it() -> None:
    source = "".join(f"def f{number}(a):\n    return a + {number} > 3 and a != 7\n" for number in range(40))
    made = mutants(source)
    assert LEAST_MUTANTS <= len(made) <= MOST_MUTANTS
    changed = [
        next(at for at, (old, new) in enumerate(zip(source, each.source, strict=False)) if old != new) for each in made
    ]
    assert min(changed) < len(source) / 8
    assert max(changed) > len(source) * 7 / 8


def test_stubs_give_nothing_a_constant_an_argument_or_what_stands_in_the_examples() -> None:
    given: dict[str, Any] = {"a": 1, "b": 2}
    results: dict[str, Any] = {}
    for stub in stubs(adding()):
        names: dict[str, Any] = {}
        exec(stub.source, names)
        try:
            results[stub.what] = names["add"](**given)
        except ValueError as error:
            results[stub.what] = error
    assert {None, "", 0, 3, 6, 1, 2} <= {each for each in results.values() if not isinstance(each, list | dict)}
    assert isinstance(results["it always fails"], ValueError)
    assert results["it gives its argument b back"] == 2
    assert results["it knows the examples and nothing else"] == 3
    assert len({stub.what for stub in stubs(converting())}) == len(list(stubs(converting())))
