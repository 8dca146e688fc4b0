"""Daemons to test with: one for a module, or one for a test that harms it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Agentd


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    """A home whose daemon runs, for all tests of a module."""
    made = Agentd(tmp_path_factory.mktemp("e2e"))
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Agentd]:
    """A home of this test alone, with no daemon yet."""
    made = Agentd(tmp_path)
    yield made
    made.stop()
