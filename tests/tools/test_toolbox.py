"""A table of tools that changes while others read it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from agentd.tools.catalog import builtin
from agentd.tools.tool import Tool
from agentd.tools.toolbox import Toolbox


def named(*names: str) -> dict[str, Tool]:
    any_tool = next(iter(builtin().values()))
    return {name: replace(any_tool, name=name) for name in names}


def test_what_is_put_replaces_what_was_put_before() -> None:
    box = Toolbox(named("a"))
    box.put(named("b", "c"))
    assert list(box) == ["a", "b", "c"]
    box.put(named("d"))
    assert (list(box), len(box), "b" in box) == (["a", "d"], 2, False)
    with pytest.raises(KeyError):
        box["b"]


def test_a_built_in_tool_stays_what_it_is() -> None:
    box = Toolbox(fixed := named("a"))
    box.put(named("a") | named("b"))
    assert box["a"] is fixed["a"]


def test_a_box_shows_what_lies_under_it_as_that_changes() -> None:
    under = Toolbox(named("a"))
    over = Toolbox(named("hidden"), under)
    under.put(named("b"))
    assert set(over) == {"a", "b", "hidden"}
    assert over["b"] is under["b"]
    assert "hidden" not in under


def test_readers_meet_whole_tables_only() -> None:
    box = Toolbox(named("a"))
    one, two = named("b", "c"), named("d", "e")
    seen: set[tuple[str, ...]] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(tuple(dict(box.items())))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2_000):
        box.put(one)
        box.put(two)
    stop.set()
    reader.join()
    assert seen <= {("a",), ("a", "b", "c"), ("a", "d", "e")}
