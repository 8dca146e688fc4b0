"""What is wrong in a policy file is refused with its place, what is wrong, and what was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.errors import PolicyError
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel, Action, Origin, Ruling

Load = Callable[..., PolicyEngine]

GOOD = """# a comment
- match: {action: shell.exec, argv: ["git", "push", "**"]}
  decision: deny
  because: "Publishing is the owner's act. Commit locally and report."
  examples: {match: ["git push origin main"], not_match: ["git status"]}
"""


def test_a_rule_is_read(load: Load) -> None:
    (rule,) = load(GOOD).rules
    assert rule.id == "default.yaml:2"
    assert rule.source == "default.yaml:2"
    assert rule.decision.ruling is Ruling.DENY
    assert rule.decision.because.startswith("Publishing")
    assert rule.decision.risk == 90
    assert rule.match.kinds == ("shell.exec",)
    assert rule.match.shown == "git push **"
    assert rule.match.origins == frozenset(Origin)
    assert rule.examples == ("git push origin main",)


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "hint"),
    [
        ("git push origin main", "git pull", 5, "example 'git pull' must match, but does not", "correct"),
        ("git status", "git push", 5, "example 'git push' must not match, but does", ""),
        ("git status", "git 'push", 5, "is not a command line", ""),
        ("decision: deny", "decision: forbid", 3, "'forbid'", "allow, ask, deny"),
        ("decision: deny", "decision: alow", 3, "'alow'", "'allow'"),
        ("  decision: deny\n", "", 2, "lacks decision", ""),
        ("  decision: deny\n", "  decision: deny\n  decision: allow\n", 4, "'decision' twice", ""),
        ("because", "becuase", 4, "unknown key 'becuase'", "'because'"),
        ("Publishing is the owner's act. Commit locally and report.", " ", 4, "must not be empty", ""),
        ("shell.exec", "shell.exce", 2, "action 'shell.exce' does not exist", "'shell.exec'"),
        ("shell.exec", "git.read", 2, "argv is for actions that run a command", ""),
        (', argv: ["git", "push", "**"]', "", 2, "lacks a pattern", "'**'"),
        ('argv: ["git", "push", "**"]', "argv: []", 2, "argv must not be empty", ""),
        ('argv: ["git", "push", "**"]', "path: ['/etc/**']", 2, "relative to the workspace", ""),
        ('argv: ["git", "push", "**"]', "path: ['a**b']", 2, "whole name", ""),
        ('"push"', '"push||pull"', 2, "empty alternative", ""),
        ('"push"', "7", 2, "must be a text", "quotes"),
        ('"**"]', '"**"], level: 5', 2, "level must be a whole number from 0 to 4, not '5'", ""),
        ('"**"]', '"**"], level: [3, 1]', 2, "lowest and the highest", ""),
        ('"**"]', '"**"], origin: web', 2, "'web'", "cli"),
        ('"**"]', '"x"], operands: PATH', 2, "must end with it", ""),
        ('"**"]', '"**"], flags: "q"', 2, "must start with '-'", ""),
        ('"**"]', '"**"], not_path: [a]', 2, "not_path needs path", ""),
        ("  decision", "  risk: 101\n  decision", 3, "risk must be a whole number from 0 to 100", ""),
        ("  decision", "  risk: high\n  decision", 3, "not 'high'", ""),
        ("  decision", "  id: default\n  decision", 2, "used by the engine itself", ""),
        ("examples: {match", "examples: [match", 5, "not YAML", ""),
        ("  decision", "\tdecision", 3, "not YAML", ""),
        ("examples: {match: [\"git push origin main\"], not_match", "examples: {not_match", 5, "lacks match", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_hint(
    load: Load, old: str, new: str, line: int, message: str, hint: str
) -> None:
    assert old in GOOD
    with pytest.raises(PolicyError) as caught:
        load(GOOD.replace(old, new, 1))
    assert f"default.yaml:{line}: " in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_contradicting_example_names_the_rule(load: Load) -> None:
    named = GOOD.replace("- match", "- id: no-push\n  match").replace("git push origin main", "git log")
    with pytest.raises(
        PolicyError, match=r"default.yaml:6: rule no-push \(git push \*\*\): the example 'git log' must"
    ):
        load(named)


def test_two_rules_cannot_have_one_id(load: Load) -> None:
    named = GOOD.replace("- match", "- id: same\n  match")
    with pytest.raises(PolicyError, match=r"default.yaml:8: the id 'same' is taken by the rule at default.yaml:2"):
        load(named + named)


@pytest.mark.parametrize("text", ["", "# nothing\n", "rules: []\n", "just words\n"])
def test_a_file_that_is_no_list_is_refused(load: Load, text: str) -> None:
    with pytest.raises(PolicyError, match=r"default.yaml"):
        load(text)


def test_a_missing_and_an_unreadable_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"default.yaml does not exist"):
        PolicyEngine.load(tmp_path)
    (tmp_path / "default.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match=r"default.yaml:1: cannot be read"):
        PolicyEngine.load(tmp_path)


def test_yaml_1_2_words_stay_words(load: Load) -> None:
    """In YAML 1.1 an unquoted `no` is False."""
    (rule,) = load(GOOD.replace('"push"', "no").replace("git push origin main", "git no")).rules
    assert rule.match.shown == "git no **"


def test_levels_must_all_be_there_in_order(load: Load) -> None:
    levels = [f"- {{level: {n}, name: name, about: about, rules: []}}\n" for n in range(5)]
    with pytest.raises(PolicyError, match=r"levels.yaml:1: there are 4 levels"):
        load(GOOD, "".join(levels[:4]))
    with pytest.raises(PolicyError, match=r"levels.yaml:2: level 2 stands where 1 is expected"):
        load(GOOD, levels[0] + levels[2] + levels[1] + levels[3] + levels[4])
    with pytest.raises(PolicyError, match=r"levels.yaml:1: a level lacks about"):
        load(GOOD, levels[0].replace("about: about, ", "") + "".join(levels[1:]))


def test_a_rule_of_a_level_has_no_level_of_its_own(load: Load) -> None:
    examples = "{match: [git.read], not_match: [git.commit]}"
    rule = f"{{match: {{action: git.read, level: 2}}, decision: allow, because: b, examples: {examples}}}"
    levels = "".join(f"- {{level: {n}, name: name, about: about, rules: [{rule * (n == 1)}]}}\n" for n in range(5))
    with pytest.raises(PolicyError, match=r"levels.yaml:2: the rule stands under level 1"):
        load(GOOD, levels)


def test_a_command_is_not_allowed_by_a_path(load: Load) -> None:
    with pytest.raises(PolicyError, match="not allowed by one path"):
        load(
            "- match: {action: shell.exec, path: ['**']}\n  decision: allow\n  because: b\n"
            "  examples: {match: [ls a], not_match: [fs.read a]}\n"
        )


def test_names_have_patterns_of_their_own(load: Load) -> None:
    rule = (
        "- {{match: {{action: plugin.call, {pattern}}}, decision: allow, because: b, "
        "examples: {{match: [csv_a], not_match: [x]}}}}"
    )
    engine = load(rule.format(pattern="name: ['csv_*']"))
    for name, ruling in (
        ("csv_b", Ruling.ALLOW),
        ("CSV_B", Ruling.ALLOW),
        ("b", Ruling.DENY),
        ("csv_a/../b", Ruling.DENY),
    ):
        assert engine.decide(Action(kind="plugin.call", target=name), level=AccessLevel.READ_ONLY).ruling is ruling
    for wrong in ("path: ['csv_*']", "host: 'csv:1'", "argv: ['csv_*']"):
        with pytest.raises(PolicyError):
            load(rule.format(pattern=wrong))


def test_modules_tools_of_servers_and_hooks_have_names_with_parts(load: Load) -> None:
    engine = load(
        "- {match: {action: import, name: ['os.*', socket]}, decision: deny, because: b, "
        "examples: {match: [os.path], not_match: [os]}}\n"
        "- {match: {action: mcp.call, name: ['files/*']}, decision: allow, because: b, "
        "examples: {match: [files/read], not_match: [mail/send]}}\n"
        "- {match: {action: git.hook, name: [pre-commit], workspace: ['/srv/mine']}, decision: allow, because: b, "
        "examples: {match: [pre-commit], not_match: [git.sign]}}\n"
    )
    for line, workspace, ruling in (
        ("mcp.call files/write", "", Ruling.ALLOW),
        ("mcp.call mail/send", "", Ruling.DENY),
        ("git.hook pre-commit", "/srv/mine", Ruling.ALLOW),
        ("git.hook pre-commit", "/srv/other", Ruling.DENY),
        ("git.hook commit-msg", "/srv/mine", Ruling.DENY),
    ):
        decision = engine.decide(action_of(line), level=AccessLevel.READ_ONLY, workspace=workspace)
        assert decision.ruling is ruling, line
    denied = engine.decide(action_of("import os.path"), level=AccessLevel.READ_ONLY)
    assert denied.rule == "default.yaml:1"


@pytest.mark.parametrize("line", ["plugin.call x", "import a.b", "mcp.call files/read", "git.hook pre-commit"])
def test_a_home_without_rules_for_a_kind_is_told_which_to_add(load: Load, line: str) -> None:
    action = action_of(line)
    decision = load("[]").decide(action, level=AccessLevel.READ_ONLY)
    rule = decision.because.partition("allows it: ")[2]
    assert load(rule).decide(action, level=AccessLevel.READ_ONLY).ruling is Ruling.ALLOW
