"""Components of WebAssembly take a quarter of a minute and more to build: one for all tests, kept from run to run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.sandbox.wasm_component import Contents
from agentd.sandbox.wasm_executor import WasmExecutor

INSIDE = Path(__file__).parent / "inside"


@pytest.fixture(scope="session")
def wasm(kept: Path) -> Iterator[WasmExecutor]:
    executor = WasmExecutor(kept / "guest")
    executor._component.path()
    yield executor
    executor.close()


@pytest.fixture(scope="session")
def plain(kept: Path) -> Iterator[WasmExecutor]:
    """With no language layer inside: a program is plain Python there."""
    executor = WasmExecutor(kept / "plain", Contents(entrance=INSIDE / "plain_wasm.py", packages=()))
    executor._component.path()
    yield executor
    executor.close()
