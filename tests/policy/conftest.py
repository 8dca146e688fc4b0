"""Policy folders made in a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.policy.engine import PolicyEngine

RULE = """
- id: {id}
  match: {match}
  decision: {decision}
  because: "because"
  examples: {{match: {examples}, not_match: {others}}}
"""

EMPTY_LEVELS = "".join(f"- {{level: {n}, name: l{n}, about: about, rules: []}}\n" for n in range(5))

Load = Callable[..., PolicyEngine]


def rule(
    id: str, match: str, decision: str = "allow", examples: str = "[a]", others: str = "[b]"
) -> str:
    """One rule as YAML."""
    return RULE.format(id=id, match=match, decision=decision, examples=examples, others=others)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """An engine of these two files."""

    def make(rules: str, levels: str = EMPTY_LEVELS) -> PolicyEngine:
        (tmp_path / "default.yaml").write_text(rules, encoding="utf-8")
        (tmp_path / "levels.yaml").write_text(levels, encoding="utf-8")
        return PolicyEngine.load(tmp_path)

    return make
