"""How rules come to a decision."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel, Action, Origin, Ruling

Load = Callable[..., PolicyEngine]


def rule(name: str, match: str, decision: str, examples: str = "", others: str = "git.commit") -> str:
    return (
        f"- id: {name}\n  match: {match}\n  decision: {decision}\n  because: because of {name}\n"
        f"  examples: {{match: [{examples}], not_match: ['{others}']}}\n"
    )


def test_the_strictest_rule_wins_whatever_the_order(load: Load) -> None:
    allow = rule("yes", "{action: fs.write, path: ['**']}", "allow")
    ask = rule("perhaps", "{action: fs.write, path: ['docs/**']}", "ask")
    deny = rule("no", "{action: fs.write, path: ['docs/secret/**']}", "deny")
    for text in (allow + ask + deny, deny + ask + allow, ask + deny + allow):
        engine = load(text)
        found = [
            engine.decide(Action(kind="fs.write", target=path), level=AccessLevel.READ_ONLY).rule
            for path in ("a", "docs/a", "docs/secret/a", "docs/secret")
        ]
        assert found == ["yes", "perhaps", "no", "no"]


def test_no_match_is_deny(load: Load) -> None:
    engine = load(rule("yes", "{action: fs.read, path: ['docs/**']}", "allow"))
    for action in (Action(kind="fs.read", target="src/a"), Action(kind="fs.write", target="docs/a")):
        decision = engine.decide(action, level=AccessLevel.EXTENDED_SHELL)
        assert (decision.ruling, decision.rule) == (Ruling.DENY, "default")
        assert "no rule allows" in decision.because
    unknown = engine.decide(Action(kind="net.listen", target="host"), level=AccessLevel.EXTENDED_SHELL)
    assert unknown.ruling is Ruling.DENY
    assert "net.listen" in unknown.because


def test_a_rule_holds_at_its_levels_and_origins(load: Load) -> None:
    engine = load(
        rule("all", "{action: git.read}", "allow")
        + rule("low", "{action: git.read, level: [0, 1]}", "ask")
        + rule("high", "{action: git.read, level: 4}", "deny")
        + rule("timed", "{action: git.read, level: [2, 3], origin: [watch, schedule]}", "deny")
    )
    action = Action(kind="git.read")
    assert [engine.decide(action, level=level).rule for level in AccessLevel] == ["low", "low", "all", "all", "high"]
    assert engine.decide(action, level=AccessLevel.RUN_TESTS, origin=Origin.WATCH).rule == "timed"


def test_nothing_outside_is_touched_even_if_a_rule_allows_it(load: Load) -> None:
    engine = load(
        rule("paths", "{action: fs.read, path: ['**']}", "allow")
        + rule("any", "{action: shell.exec, argv: ['**']}", "allow")
    )
    for text in ("fs.read /etc/passwd", "fs.read ../x", "cat /etc/passwd", "cat x=../y", "cat -I/usr", "cat a:~/b"):
        decision = engine.decide(action_of(text), level=AccessLevel.EXTENDED_SHELL)
        assert (decision.ruling, decision.rule) == (Ruling.DENY, "outside-workspace"), text
    for text in ("fs.read a/b", "cat a..b", "git log HEAD~1", "git diff main..dev", "echo 'a, /b ~c'"):
        assert engine.decide(action_of(text), level=AccessLevel.READ_ONLY).ruling is Ruling.ALLOW, text


def test_the_reason_of_the_rule_is_given(load: Load) -> None:
    engine = load(rule("no", "{action: git.commit}", "deny", others="git.read").replace("deny\n", "deny\n  risk: 42\n"))
    decision = engine.decide(Action(kind="git.commit"), level=AccessLevel.GIT_COMMIT)
    assert (decision.rule, decision.because, decision.risk) == ("no", "because of no", 42)


@pytest.mark.slow
def test_deciding_is_quick_with_many_rules(load: Load) -> None:
    engine = load(
        "".join(
            rule(f"p{n}", f"{{action: fs.read, path: ['z/deny{n}/**', '**/*.x{n}']}}", "deny")
            + rule(f"c{n}", f"{{action: shell.exec, argv: ['prog{n}', '**']}}", "deny")
            for n in range(250)
        )
        + rule("p", "{action: fs.read, path: ['z/last/**']}", "allow")
        + rule("c", "{action: shell.exec, argv: ['last', '**']}", "allow")
    )
    assert len(engine.rules) > 500
    lines = ("shell.exec last --flag a/b c", "shell.exec unknown a b", "fs.read z/last/a/b/c.py", "fs.read none")
    for action in map(action_of, lines):
        engine.decide(action, level=AccessLevel.RUN_TESTS)  # expressions are compiled at the first one
        assert min(_seconds(engine, action) for _ in range(5)) < 0.0002, action


def _seconds(engine: PolicyEngine, action: Action) -> float:
    started = time.process_time()
    for _ in range(50):
        engine.decide(action, level=AccessLevel.RUN_TESTS)
    return (time.process_time() - started) / 50
