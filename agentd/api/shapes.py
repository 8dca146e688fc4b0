"""The JSON of rules and decisions, the same from the daemon and from the command line."""

from __future__ import annotations

from typing import Any

from agentd.policy.engine import PolicyEngine
from agentd.policy.rules import Rule
from agentd.types import AccessLevel, Action, Decision


def rules_json(engine: PolicyEngine) -> dict[str, Any]:
    """The levels, lowest first, and the rules in the order of their files."""
    levels = [{"level": int(level.level), "name": level.name, "about": level.about} for level in engine.levels]
    return {"levels": levels, "rules": [_rule_json(rule) for rule in engine.rules]}


def decision_json(action: Action, level: AccessLevel, decision: Decision) -> dict[str, Any]:
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
