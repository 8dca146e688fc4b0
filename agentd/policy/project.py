"""A project's own policy: rules that only take away, and the highest level that a task gets there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agentd.policy.commands import KINDS, Shape
from agentd.policy.document import Document
from agentd.policy.rules import Rule, read_rule
from agentd.types import AccessLevel, Ruling

FILE = ".agentd/policy.yaml"
"""Below the workspace. It comes with the project, so it may have been written by a stranger."""
MAX_BYTES = 64 * 1024
_FORM = "a project's policy has rules that ask or deny, and max_level"
# What a pattern of a stranger may cost: it is tried on whatever a model names.
_FOLDERS = 1
_RESTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project takes away."""

    rules: tuple[Rule, ...] = ()
    max_level: AccessLevel = AccessLevel.EXTENDED_SHELL


def load_project(text: str) -> Project:
    """The policy in a project's file; `PolicyError` names the line of what is wrong or would give anything."""
    document = Document(Path(FILE), text)
    document.refuse_anchors()
    root = document.root
    if isinstance(root, SequenceNode):
        return Project(rules=_rules(document, root))
    parts = document.entries(root, "the file", (), ("rules", "max_level"))
    if not parts:
        document.fail(root, "the file says nothing", _FORM)
    rules = _rules(document, parts["rules"]) if "rules" in parts else ()
    if "max_level" not in parts:
        return Project(rules=rules)
    most = document.number(parts["max_level"], "max_level", 0, max(AccessLevel))
    return Project(rules=rules, max_level=AccessLevel(most))


def _rules(document: Document, node: Node) -> tuple[Rule, ...]:
    rules = tuple(_rule(document, each) for each in document.items(node, "rules"))
    if len({rule.id for rule in rules}) < len(rules):
        document.fail(node, "two rules have the same id")
    return rules


def _rule(document: Document, node: Node) -> Rule:
    rule = read_rule(document, node)
    parts = _parts(node)
    if rule.decision.ruling is Ruling.ALLOW:
        document.fail(parts["decision"], "a project allows nothing", _FORM)
    match = _parts(parts["match"])
    if any(KINDS[kind] is Shape.HOST for kind in rule.match.kinds):
        document.fail(match["action"], "servers are no matter of a project", "only the rules of the home speak of them")
    for key in ("flags", "operands", "not_argv", "workspace"):
        if key in match:
            document.fail(match[key], f"{key} is not for the rules of a project", "leave it out")
    for key, much, most in (("path", "**/", _FOLDERS), ("not_path", "**/", _FOLDERS), ("argv", "**", _RESTS)):
        if key in match:
            _refuse_costly(document, match[key], much, most, whole=key == "argv")
    name = f"{FILE}:{node.start_mark.line + 1}"
    named = f"project:{rule.id}" if "id" in parts else name
    return replace(rule, decision=replace(rule.decision, rule=named), source=name)


def _refuse_costly(document: Document, node: Node, much: str, most: int, *, whole: bool) -> None:
    """Each glob by itself, and all words of a command together."""
    texts = list(_texts(node))
    for text in ["\0".join(texts)] if whole else texts:
        if text.count(much) > most:
            times = "once" if most == 1 else f"{most} times"
            document.fail(node, f"{much!r} may stand {times} in a pattern of a project", "write it in several rules")


def _texts(node: Node) -> list[str]:
    if isinstance(node, SequenceNode):
        return [text for each in node.value for text in _texts(each)]
    return [str(node.value)]


def _parts(node: Node) -> dict[str, Node]:
    """Of a mapping that was read already."""
    assert isinstance(node, MappingNode)
    return {key.value: value for key, value in node.value if isinstance(key, ScalarNode)}
