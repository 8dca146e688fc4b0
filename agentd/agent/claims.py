"""What a final answer says was done, held against what is on record; the rest is struck out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from agentd.agent.grounding import looks_like_path, words
from agentd.agent.work import Work
from agentd.types import CheckKind

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'*-])|\n+")
_NOT_DONE = re.compile(
    r"\b(?:not|never|nothing|cannot|unable|fail(?:s|ed)? to|to be|if|please|you)\b|n't\b"
    r"|\b(?:could|would|should|may|might|will|can)\b",
    re.IGNORECASE,
)
_DONE_BY_US = (
    r"(?:^|\b(?:i|we)(?:'ve| have)?|\b(?:is|are|was|were|been|and|then))\s*(?:(?:also|now|all|successfully|just)\s+)*"
)

_CHANGING = (
    "created|wrote|written|added|updated|edited|changed|modified|fixed|renamed|moved|copied|replaced|implemented|"
    "refactored|appended|saved|deleted|removed|inserted|corrected|repaired"
)
_SENDING = "pushed|published|deployed|released|uploaded|downloaded|installed|sent|emailed|posted|restarted|merged"


def _said(verbs: str) -> re.Pattern[str]:
    return re.compile(rf"{_DONE_BY_US}(?P<verb>{verbs})\b", re.IGNORECASE)


_PASSING = re.compile(
    r"\b(?:tests?|suite|pytest)\b[^,;]*?\b(?P<verb>pass(?:es|ed|ing)?|succeed(?:s|ed)?|green)\b"
    r"|\ball\s+green\b|\b(?P<early>pass(?:es|ed|ing))\s+(?:all\s+)?(?:the\s+)?tests\b",
    re.IGNORECASE,
)
_COMMITTED, _CHANGED, _SENT = _said("committed"), _said(_CHANGING), _said(_SENDING)
_RAN = _said("ran|executed|tested")


@dataclass(frozen=True, slots=True)
class _Record:
    """What a task has on record, in the form in which claims ask for it."""

    texts: str
    tools: frozenset[str]
    commands: tuple[str, ...]
    changed: frozenset[str]
    green: bool
    """Tests ran after the last change, and passed."""


def strike(answer: str, work: Work) -> tuple[str, tuple[str, ...]]:
    """The answer with each claim struck out (`~~so~~`) that nothing on record bears out, and those claims.

    Only what is said to have been done is judged, sentence by sentence; what a tool itself has put out stands.
    """
    record = _record(work)
    struck = [
        sentence for sentence in _sentences(answer) if sentence not in record.texts and not _borne(sentence, record)
    ]
    for sentence in struck:
        answer = answer.replace(sentence, f"~~{sentence}~~", 1)
    return answer, tuple(struck)


def _sentences(text: str) -> Iterator[str]:
    for part in _SENTENCE.split(text):
        if sentence := part.strip().lstrip("-*# ").strip():
            yield sentence


def _record(work: Work) -> _Record:
    good = [seen for seen in work.evidence if seen.result.ok]
    last_change = max((n for n, seen in enumerate(good) if seen.result.changed), default=-1)
    passed = any(seen.result.data.get("green") is True for seen in good[last_change + 1 :])
    checked = [r for r in work.verification.latest.values() if r.passed and r.check.kind is CheckKind.COMMAND]
    return _Record(
        texts="\n".join(seen.result.text for seen in good),
        tools=frozenset(seen.call.tool for seen in good),
        commands=(*(str(seen.call.args.get("command", "")) for seen in good), *(r.check.target for r in checked)),
        changed=frozenset(work.changed),
        green=passed or any("test" in result.check.target for result in checked),
    )


def _borne(sentence: str, record: _Record) -> bool:
    """Whether each thing that the sentence says was done is on record."""
    return all(fits for claim, fits in _claims(sentence, record) if not _NOT_DONE.search(sentence[: claim.end()]))


def _claims(sentence: str, record: _Record) -> Iterator[tuple[re.Match[str], bool]]:
    """Each claim, and whether there is a record of it."""
    if claim := _PASSING.search(sentence):
        yield claim, record.green
    if claim := _COMMITTED.search(sentence):
        yield claim, any(tool.startswith("git_") for tool in record.tools) or _ran(record, "commit")
    if claim := _SENT.search(sentence):
        yield claim, _ran(record, claim["verb"].lower()[:5])
    if claim := _RAN.search(sentence):
        yield claim, bool(any(record.commands) or "run_tests" in record.tools or record.green)
    if claim := _CHANGED.search(sentence):
        yield claim, _changed(sentence, record)


def _ran(record: _Record, stem: str) -> bool:
    """Whether a tool or command has a name that the claim could be about."""
    return any(stem in name for name in (*record.tools, *record.commands))


def _changed(sentence: str, record: _Record) -> bool:
    """Whether anything was changed; of the paths that the sentence names, one of them."""
    named = {PurePosixPath(word).name for word in words(sentence) if looks_like_path(word)}
    return bool(record.changed) and (not named or bool(named & {PurePosixPath(path).name for path in record.changed}))
