"""Outputs that a model saw cut are kept whole."""

from __future__ import annotations

import pytest

from agentd.errors import NotFound
from agentd.store.db import Database
from agentd.store.outputs import MAX_BYTES, Outputs
from tests.store.conftest import StillClock


@pytest.fixture
def outputs(db: Database, clock: StillClock) -> Outputs:
    return Outputs(db, clock)


@pytest.mark.parametrize("text", ["", "one\r\ntwo\n", "nul \0 and ä 🐢", "x" * MAX_BYTES])
def test_text_comes_back_as_it_was(outputs: Outputs, text: str) -> None:
    handle = outputs.put("t1", text)
    outputs.put("t1", "another")
    assert handle == "out-1"
    assert outputs.get(handle) == text


def test_a_huge_text_loses_its_middle(outputs: Outputs) -> None:
    text = "first line\n" + "🐢" * (MAX_BYTES // 2) + "\nlast line"
    kept = outputs.get(outputs.put("t1", text))
    assert len(kept.encode()) <= MAX_BYTES
    assert len(kept.encode()) > MAX_BYTES - 200
    assert kept.startswith("first line\n🐢")
    assert kept.endswith("🐢\nlast line")
    assert f"{len(text.encode()) - MAX_BYTES + 100} bytes were left out" in kept


def test_what_has_no_utf8_stays_readable(outputs: Outputs) -> None:
    assert outputs.get(outputs.put("t1", "caf\udce9")) == "caf\\udce9"


@pytest.mark.parametrize(
    "handle", ["out-2", "out-0", "out--1", "out-1 ", "out-01", "1", "", "out-" + "9" * 30, "out-१"]
)
def test_an_unknown_handle(outputs: Outputs, handle: str) -> None:
    outputs.put("t1", "text")
    with pytest.raises(NotFound, match="there is no output") as caught:
        outputs.get(handle)
    assert "out-12" in caught.value.hint


def test_a_task_does_not_get_the_output_of_another(outputs: Outputs) -> None:
    handle = outputs.put("t1", "secret")
    assert outputs.get(handle, "t1") == "secret"
    with pytest.raises(NotFound):
        outputs.get(handle, "t2")
