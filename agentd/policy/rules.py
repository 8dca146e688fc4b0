"""Rules and levels as data: read from YAML, compiled, and checked against their own examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from agentd.errors import BadInput
from agentd.policy.commands import KINDS, Shape, Subject, action_of, subject_of
from agentd.policy.document import Document, nearest
from agentd.policy.hosts import host_pattern
from agentd.policy.patterns import PatternError, argv_pattern, path_pattern, programs_of
from agentd.types import AccessLevel, Action, Decision, Origin, Ruling

_RISKS = {Ruling.ALLOW: 10, Ruling.ASK: 50, Ruling.DENY: 90}
"""Where a rule names none."""

_SHOWN = 200
"""Characters of a pattern that stand in an error."""
_PATTERNS = ("argv", "path", "host", "name", "git")

Span = tuple[AccessLevel, AccessLevel]
_ALL: Span = (min(AccessLevel), max(AccessLevel))


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a rule is about; every part that is there must fit."""

    kinds: tuple[str, ...]
    span: Span = _ALL
    """The lowest and the highest level at which the rule holds."""
    origins: frozenset[Origin] = frozenset(Origin)
    programs: frozenset[str] | None = None
    """The only programs that `argv` can match; None when it does not list them."""
    argv: re.Pattern[str] | None = None
    not_argv: re.Pattern[str] | None = None
    path: re.Pattern[str] | None = None
    """Of a path, or of the name that an action is about."""
    not_path: re.Pattern[str] | None = None
    host: re.Pattern[str] | None = None
    git: frozenset[str] | None = None
    """Subcommands of git."""
    workspace: re.Pattern[str] | None = None
    """Of the folded path of the workspace."""
    taint: bool | None = None
    """Whether the task has read what others wrote; None when that does not matter."""
    shown: str = ""
    """The pattern as it was written."""

    def covers(self, subject: Subject) -> bool:
        """Whether an action of one of `kinds` fits."""
        if self.argv is not None and not self.argv.fullmatch(subject.line):
            return False
        if self.not_argv is not None and self.not_argv.fullmatch(subject.line):
            return False
        if self.git is not None and subject.git not in self.git:
            return False
        if self.host is not None:
            return self.host.fullmatch(subject.host) is not None
        if self.path is None:
            return True
        for path in subject.paths:
            if self.path.fullmatch(path) and not (self.not_path and self.not_path.fullmatch(path)):
                return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; `source` is the file and line it stands in."""

    match: Match
    decision: Decision
    examples: tuple[str, ...]
    counterexamples: tuple[str, ...]
    source: str
    unattended: Decision | None = None
    """In place of `decision` where nobody waits for the task."""

    @property
    def id(self) -> str:
        return self.decision.rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What an access level is called, what it is for, and the rules that it adds to the levels below."""

    level: AccessLevel
    name: str
    about: str
    rules: tuple[Rule, ...]


def load_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a file that hold at every level unless they say otherwise."""
    document = Document(path)
    return tuple(read_rule(document, node) for node in document.items(document.root, "the file"))


def load_levels(path: Path) -> tuple[Level, ...]:
    """The levels of a file, lowest first; each must be there once."""
    document = Document(path)
    nodes = document.items(document.root, "the file")
    levels = tuple(_level(document, node, number) for number, node in enumerate(nodes))
    if len(levels) != len(AccessLevel):
        document.fail(document.root, f"there are {len(levels)} levels; all of 0 to {max(AccessLevel)} are needed")
    return levels


def _level(document: Document, node: Node, number: int) -> Level:
    parts = document.entries(node, "a level", ("level", "name", "about", "rules"), ())
    found = document.number(parts["level"], "level", 0, max(AccessLevel))
    if found != number:
        document.fail(parts["level"], f"level {found} stands where {number} is expected", "list the levels from 0 up")
    level = AccessLevel(found)
    return Level(
        level=level,
        name=document.text(parts["name"], "name"),
        about=document.text(parts["about"], "about"),
        rules=tuple(read_rule(document, rule, level) for rule in document.items(parts["rules"], "rules")),
    )


def read_rule(document: Document, node: Node, level: AccessLevel | None = None) -> Rule:
    """One rule; `level`: the one that it stands under."""
    optional = ("id", "risk", "unattended")
    parts = document.entries(node, "a rule", ("match", "decision", "because", "examples"), optional)
    ruling = Ruling(document.choice(parts["decision"], "decision", list(Ruling)))
    risk = document.number(parts["risk"], "risk", 0, 100) if "risk" in parts else _RISKS[ruling]
    examples = document.entries(parts["examples"], "examples", ("match", "not_match"), ())
    source = document.where(node)
    decision = Decision(
        ruling=ruling,
        rule=document.text(parts["id"], "id") if "id" in parts else source,
        because=document.text(parts["because"], "because"),
        risk=risk,
    )
    match = _match(document, parts["match"], ruling, level)
    rule = Rule(
        match=match,
        decision=decision,
        unattended=_unattended(document, parts["unattended"], decision, match) if "unattended" in parts else None,
        examples=tuple(document.texts(examples["match"], "match")),
        counterexamples=tuple(document.texts(examples["not_match"], "not_match")),
        source=source,
    )
    _check(document, rule, examples["match"], True)
    _check(document, rule, examples["not_match"], False)
    return rule


def _match(document: Document, node: Node, ruling: Ruling, level: AccessLevel | None) -> Match:
    optional = (*_PATTERNS, "flags", "operands", "not_argv", "not_path", "level", "origin", "workspace", "taint")
    parts = document.entries(node, "match", ("action",), optional)
    kinds = _kinds(document, parts["action"])
    shapes = {KINDS[kind] for kind in kinds}
    _check_shape(document, node, parts, shapes, ruling)
    if Shape.HOST in shapes:
        _check_host(document, node, parts, level)
    return Match(
        kinds=kinds,
        span=_span(document, parts.get("level"), level),
        origins=_origins(document, parts.get("origin")),
        programs=_programs(document, parts),
        argv=_argv(document, parts) if "argv" in parts else None,
        not_argv=_plain_argv(document, parts["not_argv"]) if "not_argv" in parts else None,
        path=_globs(document, places) if (places := parts.get("path") or parts.get("name")) else None,
        not_path=_globs(document, parts["not_path"]) if "not_path" in parts else None,
        host=_hosts(document, parts["host"]) if "host" in parts else None,
        git=frozenset(_subcommands(document, parts["git"])) if "git" in parts else None,
        workspace=_workspaces(document, parts["workspace"]) if "workspace" in parts else None,
        taint=document.truth(parts["taint"], "taint") if "taint" in parts else None,
        shown=_shown(next((parts[key] for key in _PATTERNS if key in parts), None)),
    )


def _kinds(document: Document, node: Node) -> tuple[str, ...]:
    kinds = tuple(document.text(node, "action").split("|"))
    for kind in kinds:
        if kind not in KINDS:
            document.fail(node, f"action {kind!r} does not exist", nearest(kind, KINDS))
    return kinds


def _check_shape(document: Document, node: Node, parts: dict[str, Node], shapes: set[Shape], ruling: Ruling) -> None:
    """Each kind of action has its own pattern; one that could never fit, or would fit too much, is a mistake."""
    if "argv" in parts and shapes != {Shape.ARGV}:
        document.fail(parts["argv"], "argv is for actions that run a command")
    if "path" in parts and shapes & {Shape.BARE, Shape.HOST, Shape.NAME}:
        document.fail(parts["path"], "path is for actions on files and commands")
    if "name" in parts and shapes != {Shape.NAME}:
        document.fail(parts["name"], "name is for actions on what has a name, such as plugins")
    if "host" in parts and shapes != {Shape.HOST}:
        document.fail(parts["host"], "host is for actions on servers")
    if "git" in parts and shapes != {Shape.ARGV}:
        document.fail(parts["git"], "git is for actions that run a command")
    if "git" in parts and "argv" not in parts and ruling is Ruling.ALLOW:
        document.fail(parts["git"], "a command is not allowed by its subcommand alone", "allow it by argv")
    if "path" in parts and Shape.ARGV in shapes and ruling is Ruling.ALLOW:
        document.fail(parts["path"], "a command is not allowed by one path that it names", "allow it by argv")
    if shapes != {Shape.BARE} and not parts.keys() & set(_PATTERNS):
        document.fail(
            node, "match lacks a pattern", "add path, argv ('**' means any), git, host (servers) or name (plugins)"
        )
    for key, needed in (("flags", "argv"), ("operands", "argv"), ("not_argv", "argv"), ("not_path", "path")):
        if key in parts and needed not in parts:
            document.fail(parts[key], f"{key} needs {needed}")


def _check_host(document: Document, node: Node, parts: dict[str, Node], level: AccessLevel | None) -> None:
    """What leaves the machine is no matter of a single task: such a rule would look narrower than it is."""
    if level is not None:
        document.fail(node, "a rule for servers holds at every level", "move it to default.yaml")
    for key in ("level", "origin", "workspace", "taint"):
        if key in parts:
            document.fail(parts[key], f"{key} does not go with servers", "leave it out")


def _span(document: Document, node: Node | None, level: AccessLevel | None) -> Span:
    if node is None:
        return _ALL if level is None else (level, _ALL[1])
    if level is not None:
        document.fail(node, f"the rule stands under level {int(level)} and holds from there", "remove this level")
    numbers = document.items(node, "level") if isinstance(node, SequenceNode) else [node]
    found = [AccessLevel(document.number(number, "level", 0, max(AccessLevel))) for number in numbers]
    if len(found) not in (1, 2) or found != sorted(found):
        document.fail(node, "level must be a number (from there up) or a list of the lowest and the highest")
    return found[0], found[1] if len(found) == 2 else _ALL[1]


def _origins(document: Document, node: Node | None) -> frozenset[Origin]:
    if node is None:
        return frozenset(Origin)
    nodes = document.items(node, "origin") if isinstance(node, SequenceNode) else [node]
    return frozenset(Origin(document.choice(item, "origin", list(Origin))) for item in nodes)


def _unattended(document: Document, node: Node, decision: Decision, match: Match) -> Decision:
    """What becomes of a question that nobody is there to answer."""
    told = document.choice(node, "unattended", ("park", "deny"))
    if decision.ruling is not Ruling.ASK:
        document.fail(node, "unattended goes with the decision ask", "leave it out")
    if any(KINDS[kind] is Shape.HOST for kind in match.kinds):
        document.fail(node, "unattended does not go with servers", "leave it out")
    if told == "park":
        return decision
    because = f"{decision.because} A person would be asked, but nobody waits for this task."
    return replace(decision, ruling=Ruling.DENY, because=because)


def _programs(document: Document, parts: dict[str, Node]) -> frozenset[str] | None:
    if "argv" in parts:
        return programs_of(_words(document, parts["argv"])[0])
    return frozenset({"git"}) if "git" in parts else None


def _subcommands(document: Document, node: Node) -> list[str]:
    found = [name for text in document.texts(node, "git") for name in text.split("|")]
    for name in found:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            document.fail(node, f"{name!r} is no subcommand of git", "one name, or several as 'push|fetch'")
    return found


def _workspaces(document: Document, node: Node) -> re.Pattern[str]:
    globs = document.texts(node, "workspace")
    for glob in globs:
        if not glob.startswith(("/", "**/")):
            document.fail(node, f"{glob!r} is no absolute path", "begin it with '/' or '**/'")
    return _compiled(document, node, lambda: path_pattern([glob.removeprefix("/") for glob in globs]))


def _argv(document: Document, parts: dict[str, Node]) -> re.Pattern[str]:
    words = _words(document, parts["argv"])
    flags = _listed(document.text(parts["flags"], "flags")) if "flags" in parts else None
    operands = document.text(parts["operands"], "operands") if "operands" in parts else None
    return _compiled(document, parts["argv"], lambda: argv_pattern(words, flags, operands))


def _plain_argv(document: Document, node: Node) -> re.Pattern[str]:
    words = _words(document, node)
    return _compiled(document, node, lambda: argv_pattern(words, None, None))


def _words(document: Document, node: Node) -> list[str | Sequence[str]]:
    words: list[str | Sequence[str]] = []
    for item in document.items(node, "argv"):
        is_list = isinstance(item, SequenceNode)
        words.append(document.texts(item, "argv") if is_list else document.text(item, "a word of argv"))
    if not words:
        document.fail(node, "argv must not be empty", "'**' means any command")
    return words


def _listed(text: str) -> list[str]:
    """`-q, --quiet, -k WORD` taken apart."""
    return [flag.strip() for flag in text.split(",")]


def _globs(document: Document, node: Node) -> re.Pattern[str]:
    globs = document.texts(node, "path")
    return _compiled(document, node, lambda: path_pattern(globs))


def _hosts(document: Document, node: Node) -> re.Pattern[str]:
    globs = document.texts(node, "host")
    return _compiled(document, node, lambda: host_pattern(globs))


def _compiled(document: Document, node: Node, compile_it: Callable[[], re.Pattern[str]]) -> re.Pattern[str]:
    try:
        return compile_it()
    except PatternError as error:
        document.fail(node, str(error))


def _shown(node: Node | None) -> str:
    if node is None:
        return ""
    if not isinstance(node, SequenceNode):
        return str(node.value)
    words = (
        word.value if isinstance(word, ScalarNode) else "|".join(item.value for item in word.value)
        for word in node.value
    )
    return " ".join(words)


def _check(document: Document, rule: Rule, node: Node, expected: bool) -> None:
    """Every example must do what it says."""
    for item in document.items(node, "examples") if isinstance(node, SequenceNode) else [node]:
        example = document.text(item, "an example")
        try:
            action = action_of(example, rule.match.kinds[0])
        except BadInput as error:
            document.fail(item, f"rule {rule.id}: example {error.message}")
        if _fits(rule, action) is not expected:
            contradiction = "must match, but does not" if expected else "must not match, but does"
            told = f"rule {rule.id} ({rule.match.shown[:_SHOWN]}): the example {example!r} {contradiction}"
            document.fail(item, told, "correct the pattern or the example")


def _fits(rule: Rule, action: Action) -> bool:
    subject = subject_of(action)
    return action.kind in rule.match.kinds and not subject.malformed and rule.match.covers(subject)
