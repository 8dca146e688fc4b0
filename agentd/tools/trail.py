"""What the audit log and listeners hear of a call: what was decided, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentd.events import EventKind
from agentd.sandbox.confine import Walls
from agentd.store.audit import Audit
from agentd.tools.books import starts_a_program
from agentd.tools.consent import Consent
from agentd.tools.judgement import Judged
from agentd.tools.order import MAX_SHOWN, Order, sha256
from agentd.types import Emit, JsonObject, Ruling


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Of one call. What is written belongs to the caller's transaction."""

    audit: Audit
    emit: Emit
    walls: Walls
    order: Order

    def decided(self, judged: Judged, consent: Consent) -> None:
        order, decision = self.order, judged.decision
        told = {
            "tool": order.tool.name,
            "key": order.key,
            "args": order.shown,
            "actions": [order.shown_action(action) for action in judged.actions],
            "decision": decision.ruling.value,
            "rule": decision.rule,
            "because": decision.because,
            "risk": decision.risk,
            "level": int(order.scope.level),
        }
        extra: dict[str, Any] = {
            "args_sha256": order.digest,
            "origin": order.scope.origin.value,
            "effect": order.tool.effect.value,
        }
        if order.scope.step:
            extra["step"] = order.scope.step
        extra |= consent.facts
        runs = decision.ruling is Ruling.ALLOW or consent.settled
        if runs and any(map(starts_a_program, judged.actions)):
            extra["confined"] = self.walls.told
        self.audit.record("tool.decided", order.scope.task, told | extra)
        self.emit(EventKind.TOOL_DECIDED, order.scope.task, told)

    def interrupted(self, error: Exception) -> None:
        told = {"tool": self.order.tool.name, "key": self.order.key, "ok": False, "error": type(error).__name__}
        self.audit.record("tool.finished", self.order.scope.task, told)

    def finished(self, stored: JsonObject, notes: Mapping[str, Any]) -> None:
        text = str(stored["text"])
        told = {
            "tool": self.order.tool.name,
            "key": self.order.key,
            "ok": stored["ok"],
            "changed": stored["changed"],
            "seconds": notes.get("seconds", 0.0),
        }
        digest = {"sha256": sha256(text), "characters": len(text)}
        self.audit.record("tool.finished", self.order.scope.task, told | digest | dict(notes))
        shown = {} if stored["ok"] else {"problem": text.split("\n", 1)[0][:MAX_SHOWN]}
        self.emit(EventKind.TOOL_FINISHED, self.order.scope.task, told | shown)
