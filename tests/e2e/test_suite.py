"""Every kind of task through the real daemon, with a model whose words are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Agentd

pytestmark = pytest.mark.e2e
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    made = Agentd(tmp_path_factory.mktemp("suite"))
    made.speak(HERE / "words.yaml")
    made.ok("up")
    yield made
    made.stop()


@pytest.mark.slow
def test_every_task_comes_out_as_its_suite_expects(spoken: Agentd) -> None:
    found = spoken.json("eval", str(HERE / "suite.yaml"))
    assert {task["id"]: task["why"] for task in found["tasks"] if not task["passed"]} == {}
    assert {task["kind"] for task in found["tasks"]} == {"read", "write", "steps", "git", "refuse"}
    assert spoken.json("audit", "verify")["ok"] is True
