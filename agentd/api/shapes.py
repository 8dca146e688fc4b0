"""The JSON of rules and decisions, the same from the daemon and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentd.policy.engine import PolicyEngine
from agentd.policy.rules import Rule
from agentd.tools.project import project_policy
from agentd.types import AccessLevel, Action, Decision


def rules_json(engine: PolicyEngine) -> dict[str, Any]:
    """The levels, lowest first, and the rules in the order of their files."""
    levels = [{"level": int(level.level), "name": level.name, "about": level.about} for level in engine.levels]
    return {"max_level": int(engine.max_level), "levels": levels, "rules": [_rule_json(rule) for rule in engine.rules]}


def judged_json(
    policy: PolicyEngine, action: Action, level: AccessLevel, *, workspace: str = "", tainted: bool = False
) -> dict[str, Any]:
    """What policy says, at the level that it allows."""
    decision = policy.decide(action, level=level, workspace=workspace, tainted=tainted)
    return _decision_json(action, min(level, policy.max_level), decision)


def policy_of(policy: PolicyEngine, root: Path | None) -> PolicyEngine:
    """The policy as it is in a workspace, whose own counts too."""
    return policy if root is None else policy.narrowed(project_policy(root))


def _decision_json(action: Action, level: AccessLevel, decision: Decision) -> dict[str, Any]:
    return {
        "action": str(action),
        "level": int(level),
        "decision": decision.ruling.value,
        "rule": decision.rule,
        "because": decision.because,
        "risk": decision.risk,
    }


def _rule_json(rule: Rule) -> dict[str, Any]:
    lowest, highest = rule.match.span
    return {
        "id": rule.id,
        "decision": rule.decision.ruling.value,
        "because": rule.decision.because,
        "risk": rule.decision.risk,
        "actions": list(rule.match.kinds),
        "pattern": rule.match.shown,
        "levels": [int(lowest), int(highest)],
        "examples": {"match": list(rule.examples), "not_match": list(rule.counterexamples)},
        "source": rule.source,
    }
