"""Servers: one spelling for each, patterns that match what they show, and what the shipped rules say."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.errors import Denied, PolicyError
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.policy.hosts import host_pattern, host_port, is_loopback, split_target
from agentd.policy.patterns import PatternError
from agentd.policy.sending import check_sending
from agentd.types import AccessLevel, Action, Ruling
from tests.policy.conftest import Load

POLICIES = Path(__file__).parents[2] / "policies"

HERE = [
    "localhost",
    "LocalHost",
    "localhost.",
    "127.0.0.1",
    "127.255.0.9",
    "::1",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
]
ELSEWHERE = [
    "example.com",
    "localhost.example.com",
    "notlocalhost",
    "127.0.0.1.nip.example",
    "127-0-0-1.example",
    "0.0.0.0",
    "::",
    "::ffff:10.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "fe80::1",
    "my.localhost",
]
MALFORMED = [
    "",
    "127.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.1%eth0",
    "::1%lo",
    "a b",
    "a/b",
    "user@host",
    "a..b",
    "-a",
    "a\nb",
    "a\0b",
    "x" * 300,
    # Two standards read these differently: policy must not be asked about one host while another is called.
    "stra\u00dfe.example",
    "\u03c2.example",
    "a\u200db.example",
    "\uff11\uff12\uff17.0.0.1",
    "\uff4cocalhost",
    "127\u30020\u30020\u30021",
    "ｌocalhost..",
]


@pytest.fixture(scope="module")
def engine() -> PolicyEngine:
    return PolicyEngine.load(POLICIES)


@pytest.mark.parametrize("host", HERE)
def test_this_machine_is_allowed(engine: PolicyEngine, host: str) -> None:
    assert is_loopback(host)
    check_sending(engine, host, 8080)


@pytest.mark.parametrize("host", [*ELSEWHERE, *MALFORMED])
def test_everything_else_is_denied(engine: PolicyEngine, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(Denied):
        check_sending(engine, host, 8080)


@pytest.mark.parametrize("host", MALFORMED)
def test_what_is_no_host_has_no_spelling(host: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        host_port(host, 80)


def test_a_name_in_other_letters_is_spelt_as_it_is_looked_up() -> None:
    assert host_port("BÜCHER.example", 443) == "xn--bcher-kva.example:443"
    assert host_port("bücher.example", 443) == "xn--bcher-kva.example:443"


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port(port: int) -> None:
    with pytest.raises(ValueError, match="no port"):
        host_port("example.com", port)


@pytest.mark.parametrize(
    ("glob", "inside", "outside"),
    [
        ("api.a.example:443", "api.a.example:443", "api.a.example:80 xapi.a.example:443 apixa.example:443"),
        ("*.a.example:443", "b.a.example:443 c.b.a.example:443", "a.example:443 bada.example:443 b.a.example:44"),
        ("A.Example:*", "a.example:1 a.example:65535", "b.a.example:1 a.example.evil.org:1"),
        ("192.0.2.7:8000", "192.0.2.7:8000", "192.0.2.70:8000 192.0.2.7:80000"),
        ("[2001:db8::1]:8000", "[2001:db8::1]:8000", "[2001:db8::11]:8000"),
        ("loopback:*", "localhost:80 127.0.0.1:1 [::1]:9", "localhost.example:80 128.0.0.1:1"),
        ("*:*", "a.example:443 [::1]:80", ""),
    ],
)
def test_patterns(glob: str, inside: str, outside: str) -> None:
    pattern = host_pattern([glob])
    assert [host for host in inside.split() if not pattern.fullmatch(host)] == []
    assert [host for host in outside.split() if pattern.fullmatch(host)] == []


@pytest.mark.parametrize(
    "glob",
    [
        "a.example",
        "a.example:",
        "a.example:0",
        "api.*.com:443",
        "exam*ple.com:443",
        "*.com:443",
        "*.*:443",
        "*a.example:443",
        "10.0.0.0/8:80",
        "*.0.0.1:80",
        "127.1:80",
        ":80",
        "http://a.example:80",
        "*.[::1]:80",
    ],
)
def test_patterns_that_would_match_more_than_they_show(glob: str) -> None:
    with pytest.raises(PatternError):
        host_pattern([glob])


@pytest.mark.parametrize("target", ["host", "host:", "host:x", "::1:80:", "2001:db8::1:80", "host:１"])
def test_targets_without_a_clear_port(target: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        split_target(target)


@pytest.mark.parametrize("target", ["api.example.com:443", "10.0.0.7:8080", "[2001:db8::1]:1"])
def test_the_hint_is_a_rule_that_allows(load: Load, target: str) -> None:
    host, port = split_target(target)
    with pytest.raises(Denied) as caught:
        check_sending(PolicyEngine.load(POLICIES), host, port)
    line = caught.value.hint.partition("again: ")[2]
    check_sending(load(line + "\n"), host, port)


def rule(match: str, decision: str = "allow") -> str:
    examples = "{match: ['b.a.example:1'], not_match: ['c.b.example:1']}"
    return f"{{match: {{{match}}}, decision: {decision}, because: {decision} it, examples: {examples}}}"


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ("action: model.send|fs.read, host: 'b.a.example:1'", "host is for actions on servers"),
        ("action: model.send, host: 'b.a.example:1', level: 2", "leave it out"),
        ("action: model.send, host: 'b.a.example:1', origin: cli", "leave it out"),
        ("action: model.send, path: ['**']", "path is for actions on files"),
        ("action: model.send, argv: ['**']", "argv is for actions that run"),
        ("action: model.send", "lacks a pattern"),
        ("action: fs.read, host: 'b.a.example:1'", "host is for actions on servers"),
        ("action: model.send, host: 'b.a.example'", "lacks its port"),
        ("action: model.send, host: '*:*'", "must not match, but does"),
    ],
)
def test_rules_that_are_refused(load: Load, match: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(f"- {rule(match)}")
    assert said in str(caught.value)


def test_a_rule_for_servers_holds_at_every_level(load: Load) -> None:
    one = rule("action: model.send, host: 'b.a.example:1'")
    engine, action = load(f"- {one}"), action_of("model.send b.a.example:1")
    assert {engine.decide(action, level=level).ruling for level in AccessLevel} == {Ruling.ALLOW}
    levels = "".join(f"- {{level: {n}, name: n, about: a, rules: [{one if n == 3 else ''}]}}\n" for n in range(5))
    with pytest.raises(PolicyError, match=r"default\.yaml"):
        load("[]", levels)


def test_deny_wins_over_allow(load: Load) -> None:
    allow = rule("action: model.send, host: '*.a.example:*'")
    deny = rule("action: model.send, host: 'b.a.example:*'", "deny")
    engine = load(f"- {allow}\n- {deny}\n")
    check_sending(engine, "c.a.example", 443)
    with pytest.raises(Denied, match="deny it"):
        check_sending(engine, "b.a.example", 443)


def test_the_reason_names_the_way(engine: PolicyEngine) -> None:
    decision = engine.decide(Action(kind="model.send", target="api.example.com:443"), level=AccessLevel.EXTENDED_SHELL)
    assert (decision.ruling, decision.rule) == (Ruling.DENY, "default")
    assert "model.send in policies/default.yaml can allow it" in decision.because
