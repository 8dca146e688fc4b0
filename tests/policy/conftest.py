"""Policy folders made in a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.policy.engine import PolicyEngine

EMPTY_LEVELS = "".join(f"- {{level: {n}, name: name {n}, about: about, rules: []}}\n" for n in range(5))

Load = Callable[..., PolicyEngine]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """An engine of these two files."""

    def make(rules: str, levels: str = EMPTY_LEVELS) -> PolicyEngine:
        (tmp_path / "default.yaml").write_text(rules, encoding="utf-8")
        (tmp_path / "levels.yaml").write_text(levels, encoding="utf-8")
        return PolicyEngine.load(tmp_path)

    return make
