"""Actions as policy compares them: a typed line becomes an `Action`, an `Action` becomes a `Subject`."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from agentd.errors import BadInput
from agentd.policy.hosts import host_port, split_target
from agentd.policy.patterns import END
from agentd.types import Action


class Shape(Enum):
    """What an action of a kind is about."""

    PATH = "path"
    """A path below the workspace."""
    ARGV = "argv"
    """A command."""
    HOST = "host"
    """A server, as HOST:PORT."""
    NAME = "name"
    """Something that has a name, such as a plugin, a module or a hook."""
    BARE = "bare"
    """Nothing that a rule could tell apart."""


KINDS: dict[str, Shape] = {
    "fs.read": Shape.PATH,
    "fs.write": Shape.PATH,
    "fs.delete": Shape.PATH,
    "git.read": Shape.BARE,
    "git.commit": Shape.BARE,
    "git.hook": Shape.NAME,
    "git.sign": Shape.BARE,
    "output.read": Shape.BARE,
    "test.run": Shape.ARGV,
    "shell.exec": Shape.ARGV,
    "check.exec": Shape.ARGV,
    "model.send": Shape.HOST,
    "model.pull": Shape.HOST,
    "net.connect": Shape.HOST,
    "plugin.install": Shape.NAME,
    "plugin.call": Shape.NAME,
    "plugin.read": Shape.NAME,
    "import": Shape.NAME,
    "mcp.call": Shape.NAME,
}
"""Every kind of action that a rule can name."""

MAX_WORDS = 1000
MAX_CHARACTERS = 100_000
"""The longest command that is judged at all."""

_SUFFIX = re.compile(r"\.(?:exe|cmd|bat|com)$")
_SEPARATORS = re.compile(r"[=:,]|@(?!~\d*(?:\.\.|$))")  # git's `@~1` is no home of somebody
_DRIVE = re.compile(r"[A-Za-z]:")
_UP = re.compile(r"(?:^|[/\\])\.\.(?!\.(?:[/\\]|$))[ .]*(?:[/\\]|$)")
"""Not `...`, which go and bazel take for all that lies below."""
_PLAIN = re.compile(r"[a-z0-9_+-]+(?:[./][a-z0-9_+-]+)*")
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_NAMES = {
    "import": re.compile(r"[A-Za-z_]\w{0,63}(?:\.\w{1,64}){0,9}", re.ASCII),
    "mcp.call": re.compile(f"{_NAME}/{_NAME}"),
}
"""Of kinds whose names have parts."""
_PLAIN_NAME = re.compile(_NAME)
_WITH_VALUE = ("-c", "-C", "--git-dir", "--work-tree", "--namespace", "--config-env", "--attr-source", "--super-prefix")
"""Options of git itself that take the next word."""
_GIT_TEXT = {
    "commit": re.compile(r"(?:-[aqsv]*m|--message(?==|$))(.*)", re.DOTALL),
    "log": re.compile(r"(?:-[SG]|--(?:grep|author|committer|since|until|after|before)(?==|$))(.*)", re.DOTALL),
}
"""Options whose value is a text and no place, in the same word or as the next one."""
_CLUSTER = re.compile(r"-[a-zR]{2,4}(?=[/~\\.])")
"""Short options in one word before a path: `-rt/tmp`, `-rt.git`."""
_PROGRAM = re.compile(r"[A-Za-z0-9_+./\\~:=@,\[\]-]+")
_AWAY = re.compile(r"[/~]|\\\\|[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An action, normalised for comparison."""

    program: str = ""
    """Its name in lower case and without `.exe`."""
    line: str = ""
    """The words of a command, each ended by NUL, the first being `program`."""
    paths: tuple[str, ...] = ()
    """Folded: the path or name, or whatever in a command's words may be a path."""
    git: str = ""
    """The subcommand, where the program is git."""
    host: str = ""
    """HOST:PORT."""
    outside: bool = False
    """Names something outside the workspace."""
    malformed: str = ""
    """Why it cannot be judged."""


def action_of(text: str, kind: str = "shell.exec") -> Action:
    """The action that a line names: `fs.write src/a.py`, `git.commit`, or a command such as `git push --force`.

    A line that starts with no kind is one of `kind`. `BadInput` for an empty line or one with an open quote.
    """
    first, _, rest = text.strip().partition(" ")
    if first in KINDS:
        kind, text = first, rest
    if KINDS[kind] is not Shape.ARGV:
        return Action(kind=kind, target=text.strip())
    try:
        argv = tuple(shlex.split(text))
    except ValueError as error:
        raise BadInput(f"{text!r} is not a command line: {error}", hint="close every quote") from None
    if not argv:
        raise BadInput("an empty command cannot be judged", hint=f"name a command, or one of {', '.join(KINDS)}")
    return Action(kind=kind, argv=argv)


def subject_of(action: Action) -> Subject:
    """What the rules look at."""
    shape = KINDS.get(action.kind, Shape.BARE)
    if shape is Shape.PATH:
        return _path_subject(action.target)
    if shape is Shape.NAME:
        return _name_subject(action.target, _NAMES.get(action.kind, _PLAIN_NAME))
    if shape is Shape.ARGV:
        return _command_subject(action.argv, typed=action.kind == "check.exec")
    if shape is Shape.HOST:
        return _host_subject(action.target)
    return Subject()


def fold(path: str) -> str:
    """One spelling for all that open the same file somewhere: case, doubled slashes, `./`, backslashes, trailing dots
    and spaces, streams (`a:b`), invisible characters, and the short name of .git on Windows."""
    if _PLAIN.fullmatch(path):
        return path
    if not path.isascii():
        path = "".join(c for c in unicodedata.normalize("NFKC", path) if unicodedata.category(c) != "Cf")
    parts = path.replace("\\", "/").casefold().split("/")
    return "/".join(_fold_name(part) for part in parts if part not in ("", ".")) or "."


def _fold_name(name: str) -> str:
    plain = name.partition(":")[0].rstrip(" .") or name
    return ".git" if plain == "git~1" else plain


def _path_subject(path: str) -> Subject:
    if not path or "\0" in path or len(path) > MAX_CHARACTERS:
        return Subject(malformed="A path must not be empty, hold a NUL or be longer than any file system takes.")
    outside = path[0] in "/~\\" or _DRIVE.match(path) is not None or _goes_up(path)
    return Subject(paths=(fold(path),), outside=outside)


def _name_subject(name: str, form: re.Pattern[str]) -> Subject:
    if not form.fullmatch(name):
        return Subject(malformed="A name has letters, digits, dashes and underscores, at most 64.")
    return Subject(paths=(name.casefold(),))


def _host_subject(target: str) -> Subject:
    try:
        return Subject(host=host_port(*split_target(target)))
    except ValueError as error:
        return Subject(malformed=f"Not a server that could be judged: {error}.")


def _command_subject(argv: tuple[str, ...], *, typed: bool) -> Subject:
    """`typed`: by the owner, who may call a program what they like."""
    if not argv or not argv[0] or len(argv) > MAX_WORDS or sum(map(len, argv)) > MAX_CHARACTERS:
        return Subject(malformed=f"A command needs a program, and at most {MAX_WORDS} words.")
    if any(END in word for word in argv):
        return Subject(malformed="No word of a command can hold a NUL.")
    if not typed and not _PROGRAM.fullmatch(argv[0]):
        return Subject(malformed="The name of a program has no spaces, no signs of a shell and ASCII letters only.")
    program = _SUFFIX.sub("", argv[0].casefold())
    git = _subcommand(argv[1:]) if program == "git" else ""
    words = _without_texts(argv[1:], _GIT_TEXT[git]) if git in _GIT_TEXT else argv[1:]
    places = dict.fromkeys(place for word in words for place in _places(word))
    return Subject(
        program=program,
        line=END.join((program, *argv[1:], "")),
        git=git,
        paths=tuple(map(fold, places)),
        outside=any(_AWAY.match(place) or _goes_up(place) for place in places),
    )


def _subcommand(words: tuple[str, ...]) -> str:
    """The first word that is neither an option of git itself nor the value of one."""
    skip = False
    for word in words:
        if not skip and not word.startswith("-"):
            return word
        skip = not skip and word in _WITH_VALUE
    return ""


def _without_texts(words: tuple[str, ...], options: re.Pattern[str]) -> Iterator[str]:
    """The words that may be places. What follows `--` always may."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield from rest
        elif not (found := options.fullmatch(word)):
            yield word
        elif not found[1]:
            next(rest, None)


def _goes_up(path: str) -> bool:
    return ".." in path and _UP.search(path) is not None


def _places(word: str) -> Iterator[str]:
    """The parts of a word that may be paths: itself, what follows `=`, `:`, `,` or `@`, and `-oPATH`."""
    yield word
    if word.startswith("-") and not word.startswith("--") and len(word) > 2:
        yield word[2:]
        if cluster := _CLUSTER.match(word):
            yield word[cluster.end() :]
    parts = _SEPARATORS.split(word)
    if len(parts) > 1:
        yield from filter(None, parts)
