"""Whether the text of a request may leave for a server, and whether a model may come from one."""

from __future__ import annotations

import json

from agentd.errors import Denied
from agentd.policy.engine import PolicyEngine
from agentd.policy.hosts import host_port
from agentd.types import AccessLevel, Action, Ruling

KIND = "model.send"
PULL = "model.pull"


def check_sending(policy: PolicyEngine, host: str, port: int) -> None:
    """`Denied` unless a rule allows sending there; the hint holds a rule that would."""
    _check(policy, KIND, "nothing may be sent to", _target(host, port))


def check_pulling(policy: PolicyEngine, host: str, port: int) -> None:
    """`Denied` unless a rule allows fetching a model from there; the hint holds a rule that would."""
    _check(policy, PULL, "no model may come from", _target(host, port))


def connecting_rule(host: str, port: int) -> str:
    """How an owner allows plugins to reach a server."""
    return _how_to_allow("net.connect", _target(host, port))


def _check(policy: PolicyEngine, kind: str, words: str, target: str) -> None:
    decision = policy.decide(Action(kind=kind, target=target), level=AccessLevel.READ_ONLY)
    if decision.ruling is not Ruling.ALLOW:
        raise Denied(f"{words} {target}: {decision.because}", hint=_how_to_allow(kind, target))


def _target(host: str, port: int) -> str:
    try:
        return host_port(host, port)
    except ValueError:
        return f"{host}:{port}"  # policy says what is wrong with it


def _how_to_allow(kind: str, target: str) -> str:
    host, _, port = target.rpartition(":")
    elsewhere = json.dumps(f"{host}:{2 if port == '1' else 1}")
    rule = (
        f"- {{match: {{action: {kind}, host: {json.dumps(target)}}}, decision: allow, because: my server, "
        f"examples: {{match: [{json.dumps(target)}], not_match: [{elsewhere}]}}}}"
    )
    return f"to allow it, add this line to policies/default.yaml and start the daemon again: {rule}"
