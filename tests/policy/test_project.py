"""A project's own policy: it takes away and never gives, and what is wrong with it has a line."""

from __future__ import annotations

import time

import pytest

from agentd.errors import PolicyError
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.policy.project import load_project
from agentd.types import AccessLevel, Action, Origin, Ruling
from tests.policy.test_shipped_policies import ORDINARY, POLICIES

RULE = """\
- match: {action: fs.write, path: ["docs/**"]}
  decision: deny
  because: The pages are made.
  examples: {match: [docs/a.md], not_match: [src/a.py]}
"""
EXCEPTED = (
    "- {match: {action: shell.exec, argv: ['**'], not_argv: [ls, '**']}, decision: deny, because: b, "
    "examples: {match: [cat a], not_match: [ls a]}}"
)
HOST = """\
- match: {action: net.connect, host: "x:1"}
  decision: ask
  because: b
  examples: {match: ["x:1"], not_match: ["y:1"]}
"""
ASK_ALL = """\
- match: {action: shell.exec|test.run, argv: ["**"]}
  decision: ask
  because: Everybody asks.
  examples: {match: [make], not_match: [git.read]}
- match: {action: fs.read|fs.write|fs.delete, path: ["**"]}
  decision: ask
  because: Everybody asks.
  examples: {match: [fs.read a], not_match: [git.read]}
"""


@pytest.fixture(scope="module")
def engine() -> PolicyEngine:
    return PolicyEngine.load(POLICIES)


def ruling(engine: PolicyEngine, text: str, level: int = 4) -> Ruling:
    return engine.decide(action_of(text), level=AccessLevel(level)).ruling


def test_a_project_takes_away(engine: PolicyEngine) -> None:
    narrowed = engine.narrowed(RULE)
    denied = narrowed.decide(action_of("fs.write docs/a.md"), level=AccessLevel.SAFE_WRITE)
    assert (denied.ruling, denied.rule, denied.because) == (
        Ruling.DENY,
        ".agentd/policy.yaml:1",
        "The pages are made.",
    )
    assert ruling(narrowed, "fs.write src/a.py") is Ruling.ALLOW
    assert ruling(engine, "fs.write docs/a.md") is Ruling.ALLOW


def test_its_id_cannot_be_taken_for_one_of_the_home(engine: PolicyEngine) -> None:
    narrowed = engine.narrowed(RULE.replace("- match", "- id: secrets\n  match"))
    decision = narrowed.decide(action_of("fs.write docs/a.md"), level=AccessLevel.SAFE_WRITE)
    assert decision.rule == "project:secrets"


@pytest.mark.parametrize("project", [ASK_ALL, RULE, "max_level: 4\n", f"max_level: 2\nrules:\n{RULE}"])
def test_nothing_that_is_denied_is_less_than_denied_with_a_project(engine: PolicyEngine, project: str) -> None:
    """A project that asks about what no rule allows does not offer it to a person."""
    strictness = [Ruling.ALLOW, Ruling.ASK, Ruling.DENY]
    narrowed = engine.narrowed(project)
    others = [
        "git push --force",
        "curl x",
        "fs.write .git/config",
        "fs.read .env",
        "fs.delete a",
        "rm -rf /",
        "git.commit",
    ]
    for line in [*(line for line, _ in ORDINARY), *others]:
        for level in AccessLevel:
            home = engine.decide(action_of(line), level=level).ruling
            own = narrowed.decide(action_of(line), level=level).ruling
            assert strictness.index(own) >= strictness.index(home), (line, level)


def test_a_project_lowers_the_level(engine: PolicyEngine) -> None:
    narrowed = engine.narrowed("max_level: 1\n")
    assert ruling(narrowed, "fs.write a", 4) is Ruling.ALLOW
    assert ruling(narrowed, "pytest", 4) is Ruling.DENY
    assert ruling(narrowed, "fs.write a", 0) is Ruling.DENY


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("{}", 1, "says nothing"),
        ("just words", 1, "must be a mapping"),
        ("max_level: 5\n", 1, "from 0 to 4"),
        ("max_level: yes\n", 1, "not 'yes'"),
        ("max_level: 1\nmax_level: 2\n", 2, "twice"),
        ("max_level: 1\ntools: [x]\n", 2, "unknown key 'tools'"),
        ("servers: {}\n", 1, "unknown key 'servers'"),
        (RULE.replace("decision: deny", "decision: allow"), 2, "a project allows nothing"),
        (RULE.replace("  decision", "  level: 4\n  decision"), 2, "unknown key 'level'"),
        (HOST, 1, "servers are no matter of a project"),
        (EXCEPTED, 1, "not_argv is not for the rules of a project"),
        (RULE.replace('path: ["docs/**"]', 'path: ["**/a/**/b"]').replace("docs/a.md", "a/b"), 1, "may stand once"),
        (RULE.replace('path: ["docs/**"]', 'path: ["docs/**"], workspace: "/**"'), 1, "workspace is not for"),
        (RULE + RULE.replace("- match", "- id: x\n  match") * 2, 1, "the same id"),
        (RULE.replace("because: The", "because: &a The"), 3, "the anchor &a"),
        ("<<: {max_level: 1}\n", 1, "key"),
        (RULE.replace("  decision", "\tdecision"), 2, "not YAML"),
        (RULE + "\x00", 5, "not YAML"),
        (RULE + "---\n" + RULE, 5, "not YAML"),
        ("%YAML 1.1\n---\nmax_level: on\n", 3, "not 'on'"),
        ("[" * 3000, 1, "too deep"),
        ("- " * 3000 + "a", 1, "too deep"),
        ("!!python/object/apply:os.system [ls]\n", 1, "a rule must be a mapping"),
        ("max_level: !!int '1'\nrules: *x\n", 2, "undefined alias"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_line(text: str, line: int, told: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_project(text)
    assert f".agentd/policy.yaml:{line}: " in caught.value.message
    assert told in caught.value.message


def test_no_pattern_of_a_stranger_takes_long(engine: PolicyEngine) -> None:
    """Each star that is tried again at every place would be a power of the length."""
    globs = ["*a" * 30 + "c", "**/" + "*a" * 30 + "c", "?*" * 30 + "c"]
    rules = "".join(
        f"- match: {{action: fs.write, path: ['{glob}']}}\n  decision: deny\n  because: b\n"
        f"  examples: {{match: ['{glob.replace('**/', '').replace('*', 'x').replace('?', 'x')}'], not_match: [x]}}\n"
        for glob in globs
    )
    words = "- match: {action: shell.exec, argv: ['**', '" + "*a" * 30 + "c']}\n  decision: deny\n  because: b\n"
    narrowed = engine.narrowed(rules + words + f"  examples: {{match: [x {'a' * 30}c], not_match: [x]}}\n")
    begun = time.process_time()
    assert ruling(narrowed, "fs.write " + "a" * 3000 + "b") is Ruling.ALLOW
    assert ruling(narrowed, "fs.write " + "a/" * 3000 + "b") is Ruling.ALLOW
    narrowed.decide(Action(kind="shell.exec", argv=("cat", "a" * 3000)), level=AccessLevel.EXTENDED_SHELL)
    assert time.process_time() - begun < 20


# keys of a rule -------------------------------------------------------------------------------------------------------


def test_a_question_that_nobody_answers_can_be_a_no(engine: PolicyEngine) -> None:
    text = RULE.replace("decision: deny", "decision: ask\n  unattended: deny")
    narrowed = engine.narrowed(text)
    found = {
        origin: narrowed.decide(action_of("fs.write docs/a.md"), level=AccessLevel.SAFE_WRITE, origin=origin).ruling
        for origin in Origin
    }
    denied = {origin for origin, said in found.items() if said is Ruling.DENY}
    assert denied == {Origin.WATCH, Origin.SCHEDULE}
    assert set(found.values()) == {Ruling.ASK, Ruling.DENY}
    with pytest.raises(PolicyError, match="unattended goes with the decision ask"):
        load_project(RULE.replace("decision: deny", "decision: deny\n  unattended: park"))
    parked = engine.narrowed(text.replace("unattended: deny", "unattended: park"))
    decision = parked.decide(action_of("fs.write docs/a.md"), level=AccessLevel.SAFE_WRITE, origin=Origin.WATCH)
    assert decision.ruling is Ruling.ASK


def test_a_rule_for_what_strangers_may_have_asked(engine: PolicyEngine) -> None:
    narrowed = engine.narrowed(RULE.replace('["docs/**"]', '["docs/**"], taint: true'))
    action = action_of("fs.write docs/a.md")
    for tainted, expected in ((False, Ruling.ALLOW), (True, Ruling.DENY)):
        assert narrowed.decide(action, level=AccessLevel.SAFE_WRITE, tainted=tainted).ruling is expected
    with pytest.raises(PolicyError, match=r"policy.yaml:1: taint must be true or false, not 'yes'"):
        load_project(RULE.replace('["docs/**"]', '["docs/**"], taint: yes'))


GIT = """\
- match: {action: shell.exec, git: log|diff}
  decision: deny
  because: The history is private.
  examples:
    match: [git log, "git -C x --no-pager log -p", "git --git-dir x diff", "GIT log"]
    not_match: [git status, "git -c log status", "grep log", git]
"""


def test_a_rule_for_a_subcommand_of_git(engine: PolicyEngine) -> None:
    narrowed = engine.narrowed(GIT)
    assert (ruling(narrowed, "git log --oneline", 2), ruling(narrowed, "git status", 2)) == (Ruling.DENY, Ruling.ALLOW)
    with pytest.raises(PolicyError, match=r"policy.yaml:1: 'lo\*' is no subcommand"):
        load_project(GIT.replace("log|diff", '"lo*"'))
    with pytest.raises(PolicyError, match=r"policy.yaml:1: git is for actions that run a command"):
        load_project(GIT.replace("shell.exec", "git.commit"))


def test_a_rule_for_some_workspaces(load) -> None:  # type: ignore[no-untyped-def]
    rule = RULE.replace("path:", 'workspace: ["/srv/*", "**/secret/**"], path:')
    engine = load(rule + RULE.replace("deny", "allow").replace("docs", "src").replace("[src/a.py]", "[x]"))
    action = Action(kind="fs.write", target="docs/a.md")
    rules = {
        place: engine.decide(action, level=AccessLevel.SAFE_WRITE, workspace=place).rule
        for place in ("/srv/a", "/srv/a/b", "/home/secret", "/home/secret/x", "/home/x", "")
    }
    assert {place for place, rule in rules.items() if rule != "default"} == {"/srv/a", "/home/secret", "/home/secret/x"}
    with pytest.raises(PolicyError, match=r"default.yaml:1: 'srv' is no absolute path"):
        load(RULE.replace("path:", "workspace: srv, path:"))
    with pytest.raises(PolicyError, match=r"default.yaml:1: a command is not allowed by its subcommand alone"):
        load(GIT.replace("deny", "allow"))
