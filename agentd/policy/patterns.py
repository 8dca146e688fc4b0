"""Path globs and argument-vector patterns, turned into regular expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence

END = "\0"
"""Ends every word of a command in the text that argument patterns are matched against."""

WORD = r"(?!-)[^\0]+"
NUMBER = r"\d{1,9}"
# A path (or a git revision) below the workspace: not absolute, no drive, no `~`, nothing that a program would read
# arguments from (`@file`), no `..` between separators, no character that a shell or a batch file would act on.
PATH = (
    r"(?![-/~@:\\]|[A-Za-z]:[\\/])"
    r"(?!(?:[^\0]*[/\\:])?\.\.(?:[/\\:]|\0))"
    r"[^\0\x01-\x1f\x7f`$;|&<>\"%]+"
)
# As git takes them: also `@`, `@{u}` and `@~1`, which stand for HEAD and its kin and for no file of arguments.
REV = rf"(?:@(?![\w/\\-])(?![^\0]*[/\\:]\.\.(?:[/\\:]|\0))[^\0\x01-\x1f\x7f`$;|&<>\"%]*|{PATH})"
NAME = r"[A-Za-z0-9_-]+"
_VALUES = {"WORD": WORD, "NUMBER": NUMBER, "PATH": PATH, "REV": REV}


class PatternError(ValueError):
    """A pattern that cannot be read."""


def path_pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """Matches a folded path (see `subject.fold`) under one of the globs.

    `*` and `?` stay within a name, `**/` is any folders or none, and `folder/**` the folder and all in it.
    """
    bodies: dict[str, list[str]] = {}
    for glob in globs:
        lead, body = _glob(glob.casefold())
        bodies.setdefault(lead, []).append(body)
    # One lead for all that share it: a path is then walked once and not once per glob.
    return re.compile("|".join(f"{lead}(?:{'|'.join(body)})" for lead, body in bodies.items()), re.DOTALL)


def programs_of(first: str | Sequence[str]) -> frozenset[str] | None:
    """The programs that the first element of an argv pattern names; None when it does not list them."""
    if not isinstance(first, str):
        return frozenset(first)
    words = first.split("|")
    if first in _VALUES or first[:1] == "!" or first[-1:] == "?" or any("*" in word for word in words):
        return None
    return frozenset(words)


def argv_pattern(
    argv: Sequence[str | Sequence[str]], flags: Sequence[str] | None, operands: str | None
) -> re.Pattern[str]:
    """Matches a command written as words that each end with NUL.

    An element is a word in which `*` stands for any characters, alternatives `a|b` (`\\|` is a `|`), `!a|b` for any
    other word, `-!a|b` for any other that starts with `-`, a list of alternatives taken as they are, `a?` for one that
    may be left out, PATH, REV, WORD or NUMBER, `-**` for any words that start with `-`, or `**` for any rest.
    With `flags` or `operands` the last element must be `**`, and the rest may hold nothing else than they say.
    """
    parts = list(argv)
    if flags is None and operands is None:
        return re.compile("".join(_element(part) for part in parts), re.DOTALL)
    if not parts or parts[-1] != "**":
        raise PatternError("flags and operands say what '**' may be, so argv must end with it")
    head = "".join(_element(part) for part in parts[:-1])
    return re.compile(head + _rest(flags or (), operands), re.DOTALL)


def _glob(glob: str) -> tuple[str, str]:
    """The expression for any folders that may lead, and the one for the rest."""
    if glob.startswith("/"):
        raise PatternError(f"{glob!r} starts with '/'; paths are relative to the workspace")
    if glob == "**":
        return "", ".*"
    name = glob.removeprefix("**/")
    inner = name.removesuffix("/**")
    body = "/(?:.*/)?".join(map(_glob_part, inner.split("/**/")))
    return "" if name == glob else "(?:.*/)?", body + ("" if inner == name else "(?:/.*)?")


def _glob_part(part: str) -> str:
    if "**" in part:
        raise PatternError("'**' must be a whole name of a path, as in 'src/**/*.py'")
    pieces = ["[^/]".join(map(re.escape, piece.split("?"))) for piece in part.split("*")]
    return _chain(pieces, "[^/]")


def _chain(pieces: Sequence[str], character: str) -> str:
    """The pieces in their order, with any characters between two.

    What lies between is taken up to the first place of the next piece, and never tried again: a later place cannot fit
    where the first does not, and to try them all would take as long as whoever wrote the pattern likes.
    """
    first, *rest = pieces
    if not rest:
        return first
    middle = "".join(f"(?>{character}*?{piece})" for piece in rest[:-1])
    return f"{first}{middle}{character}*{rest[-1]}"


def _element(part: str | Sequence[str]) -> str:
    if not isinstance(part, str):
        return f"(?:{'|'.join(re.escape(word) for word in part)}){END}"
    if part == "**":
        return f"(?:[^{END}]*{END})*"
    if part == "-**":
        return f"(?:-[^{END}]*{END})*"
    if part in _VALUES:
        return _VALUES[part] + END
    if part.startswith(("!", "-!")):
        dash, _, others = part.partition("!")
        rest = f"{dash}[^{END}]*" if dash else f"[^{END}]+"
        return f"(?!(?:{_words(others)}){END}){rest}{END}"
    if part.endswith("?"):
        return f"(?:(?:{_words(part[:-1])}){END})?"
    return f"(?:{_words(part)}){END}"


def _words(alternatives: str) -> str:
    """`a|b*` as an expression for a word without its end."""
    words = [word.replace("\\|", "|") for word in re.split(r"(?<!\\)\|", alternatives)]
    if not all(words):
        raise PatternError(f"{alternatives!r} has an empty alternative; write '\\|' in words that hold '|'")
    return "|".join(_chain([re.escape(text) for text in word.split("*")], f"[^{END}]") for word in words)


def _rest(flags: Sequence[str], operands: str | None) -> str:
    """Known flags and operands in any order, then perhaps `--` and operands."""
    single = "".join(sorted({flag[1] for flag in flags if re.fullmatch(r"-[A-Za-z]", flag)}))
    words = [_flag(flag) for flag in flags]
    if len(single) > 1:
        words.append(f"-[{single}]{{2,}}{END}")
    operand = f"{_value(operands)}{END}" if operands else ""
    if not words and not operand:
        raise PatternError("flags and operands must not both be empty")
    last = f"(?:--{END}(?:{operand})*)?" if operand else ""
    return f"(?:{'|'.join([*words, operand] if operand else words)})*{last}"


def _flag(flag: str) -> str:
    """`--name`, `--name=VALUE` (attached only) or `--name VALUE` (attached or the next word)."""
    if not flag.startswith("-"):
        raise PatternError(f"the flag {flag!r} must start with '-'")
    name, space, value = flag.partition(" ")
    if space:
        joined = f"[={END}]" if name.startswith("--") else f"{END}?"
        return f"{re.escape(name)}{joined}{_value(value)}{END}"
    name, _, value = flag.partition("=")
    if value:
        return f"{re.escape(name)}={_value(value)}{END}"
    return f"-{NUMBER}{END}" if flag == "-NUMBER" else re.escape(flag) + END


def _value(text: str) -> str:
    """One of the kinds of values, or alternatives, of which each may end with NAME."""
    if text in _VALUES:
        return _VALUES[text]
    return f"(?:{'|'.join(_named(word) for word in text.split('|'))})"


def _named(word: str) -> str:
    lead = word.removesuffix("NAME")
    return _words(word) if lead == word else re.escape(lead) + NAME
