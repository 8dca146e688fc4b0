"""What a request names (paths, quoted text, runs of words), so that values come from it and not from a model."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from agentd.agent.context import prompt_data
from agentd.agent.work import Work

LONGEST_SPAN = 8
"""Words."""

_QUOTED = re.compile(r"(?<!\w)(?:(['\"`])(?P<straight>[^\n]+?)\1|[“«](?P<curly>[^\n]+?)[”»])(?!\w)")
_TOKEN = re.compile(r"\S+")
_PATHLIKE = re.compile(
    r"(?:~|\.{0,2})/\S*|[\w.+\-]+(?:/[\w.+\-]*)+|[\w+\-]*\.?[\w+\-]+\.[A-Za-z]\w{0,9}|\.[A-Za-z][\w\-.]+"
)
_CODE = re.compile(r"\w+\(\)|\w*_\w*[A-Za-z]\w*|[A-Z][A-Z0-9]{2,}|[a-z]+(?:[A-Z][a-z0-9]*)+|(?:[A-Z][a-z0-9]+){2,}")
_BARE = re.compile(r"[(\[{'\"`“«]*(.*?\(\)|.*?)[.,;:!?)\]}'\"`”»]*", re.DOTALL)
_WORD = re.compile(r"[^\s,;:!?\"“”«»()]+")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)*(?![\w])")
_NAMED = re.compile(r"`([^`\n]+)`|(?<![\w/.])([\w\-./]*\w\.[A-Za-z]\w{0,9})(?!\w)")

_ENGLISH = tomllib.loads(prompt_data("english.toml"))
_FUNCTION_WORDS = frozenset(_ENGLISH["function_words"])
_PRONOUNS = frozenset(_ENGLISH["pronouns"])
_BACK_REFERENCE = re.compile(rf"\b(?:{'|'.join(_ENGLISH['back_references'])})\s+[a-z]+\b")


class Kind(StrEnum):
    PATH = "path"
    QUOTED = "quoted"
    NAME = "name"
    """A bare word that is also the name of something in the folder."""
    CODE = "code"
    """A word that only code writes so: `parse_config`, `MAX_SIZE`, `HttpClient`."""
    PRONOUN = "pronoun"
    """Stands for what the step before was about."""
    RESULT = "result"
    """Stands for what came out of the step before."""
    SPAN = "span"


@dataclass(frozen=True, slots=True)
class Mention:
    """Characters `start` to `end` of a request, and the value they stand for."""

    start: int
    end: int
    value: str
    kind: Kind

    def overlaps(self, other: Mention) -> bool:
        return self.start < other.end and other.start < self.end


def mentions(text: str, names: Iterable[str], before: str = "") -> list[Mention]:
    """Everything that `text` names, in order. `names` exist in the folder; `before` is what a pronoun stands for."""
    found = [Mention(m.start(), m.end(), m["straight"] or m["curly"], Kind.QUOTED) for m in _QUOTED.finditer(text)]
    known = frozenset(names)
    for token in _TOKEN.finditer(text):
        word = _bare(token[0])
        start = token.start() + token[0].find(word) if word else token.start()
        mention = _word(word, start, known, before)
        if mention and not any(mention.overlaps(other) for other in found):
            found.append(mention)
    if before:
        results = [Mention(m.start(), m.end(), m[0], Kind.RESULT) for m in _BACK_REFERENCE.finditer(text)]
        found += [result for result in results if not any(result.overlaps(other) for other in found)]
    return sorted(found, key=lambda mention: mention.start)


def _bare(token: str) -> str:
    found = _BARE.fullmatch(token)
    return found[1] if found else token


def _word(word: str, start: int, known: frozenset[str], before: str) -> Mention | None:
    end = start + len(word)
    if looks_like_path(word):
        return Mention(start, end, word, Kind.PATH)
    if word in known:
        return Mention(start, end, word, Kind.NAME)
    if _CODE.fullmatch(word):
        return Mention(start, end, word.removesuffix("()"), Kind.CODE)
    if before and word.lower() in _PRONOUNS:
        return Mention(start, end, before, Kind.PRONOUN)
    return None


def words(text: str) -> list[str]:
    """Every word of `text` that could be a name, without the punctuation around it."""
    found = {m["straight"] or m["curly"] for m in _QUOTED.finditer(text)}
    found |= {_bare(token) for token in text.split()}
    return sorted(found - {""})


def looks_like_path(word: str) -> bool:
    return "@" not in word and "://" not in word and _PATHLIKE.fullmatch(word) is not None


def spans(text: str, taken: Iterable[Mention], longest: int = LONGEST_SPAN) -> Iterator[Mention]:
    """Runs of words that may be a value: after the first word, outside `taken`, no function word at either end."""
    taken = list(taken)
    words = [Mention(m.start(), m.end(), m[0].rstrip("."), Kind.SPAN) for m in _WORD.finditer(text)]
    for first in range(min(1, len(words) - 1), len(words)):
        for last in range(first, min(len(words), first + longest)):
            start, end = words[first].start, words[last].start + len(words[last].value)
            span = Mention(start, end, text[start:end], Kind.SPAN)
            if any(span.overlaps(mention) for mention in taken):
                break
            if words[first].value.lower() in _FUNCTION_WORDS or words[last].value.lower() in _FUNCTION_WORDS:
                continue
            yield span


def unsupported(text: str, work: Work) -> list[str]:
    """Numbers and names of files or code in `text` that stand neither in the task nor in any result."""
    known = "\n".join([work.task.goal, *(f"{seen.call.args}\n{seen.result.text}" for seen in work.evidence)])
    numbers = set(_NUMBER.findall(known)) | {str(len(work.evidence)), str(len(work.changed))}
    numbers |= {str(len(seen.result.text.splitlines())) for seen in work.evidence}
    folded = known.casefold()
    wrong = [number for number in _NUMBER.findall(text) if number not in numbers]
    names = (quoted or path for quoted, path in _NAMED.findall(text))
    wrong += [name for name in names if name.casefold() not in folded]
    return list(dict.fromkeys(wrong))
