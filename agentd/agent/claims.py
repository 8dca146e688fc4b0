"""What a final answer says was done, held against what is on record; the rest is struck out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from agentd.agent.grounding import looks_like_path, words
from agentd.agent.work import Evidence, Work
from agentd.types import CheckKind, CheckResult

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'*-])|\n+")
_CLAUSE = re.compile(r"[,;:—]|\b(?:but|however)\b", re.IGNORECASE)
_NOT_DONE = re.compile(
    r"\b(?:not|never|no|none|neither|nor|nothing|without|cannot|unable|fail(?:s|ed)? to|to be|please|you)\b|n['’]t\b"
    r"|\b(?:could|would|should|may|might|will|can)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|unless|once)\b", re.IGNORECASE)
_VOUCHING = re.compile(
    r"\b(?:(?:i|we|you)\s+)?(?:can|could|may|will)\s+(?:now\s+)?(?:confirm|see|say|report|verify|(?:assure|tell)\s+you)\b",
    re.IGNORECASE,
)
"""`I can confirm that` is no `can` of what is only possible."""

_ADVERBS = r"(?:(?:also|now|all|both|just|since|finally|then|already|fully|successfully)\s+)*"
_WE = rf"\b(?:i|we)(?:['’]ve|\s+have)?\s+{_ADVERBS}"
_DONE = (
    rf"(?:{_WE}|(?:^\W*(?:\[x\]\W*)?|:\s+){_ADVERBS}|\b(?:been|was|were|and|then)\s+{_ADVERBS}"
    r"|\b(?:is|are)\s+(?:(?:now|all|both|just|already|successfully)\s+)+)"
)
_BY_OTHERS = (
    r"(?!\s+by\s+(?!me\b|us\b)|\s+(?:in|on|at|since|with|before|after)\s+(?:(?:the\s+)?(?:commit|version|release)\b|v?\d"
    r"|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)[a-z]*\b))"
)
_MENDED = r"fixed|corrected|repaired|resolved|patched|committed|pushed|deployed"
_ENDS = r"(?=\s*(?:[.!;,)]|$))"
"""`The file is written.` says that it was done; `is written to a log` says how something works."""
_AS_A_RULE = r"(?!\s+(?:by|with|when|whenever|each|every|if|via|using|through|from|at|automatically)\b)"
_CARRIED_ON = re.compile(r"(?:and|then)\b", re.IGNORECASE)
_BEGUN = re.compile(r"\b(?:i|we|was|were|been)\b|^\W*(?:\w+ed|wrote|ran|sent)\b", re.IGNORECASE)
"""Before `and committed`: that somebody did something, and not how something works."""


def _said(verbs: str, *others: str) -> re.Pattern[str]:
    """That something was done; `others`: further ways to say it."""
    mended = "|".join(verb for verb in _MENDED.split("|") if verb in verbs.split("|"))
    ways = [
        rf"{_DONE}(?:{verbs})\b{_BY_OTHERS}",
        rf"\b(?:is|are)\s+(?:{verbs})\b{_ENDS}",
        *([rf"\b(?:is|are)\s+(?:{mended})\b{_AS_A_RULE}"] if mended else ()),
        *others,
    ]
    return re.compile("|".join(ways), re.IGNORECASE)


_GREEN = (
    r"(?:pass(?:es|ed|ing)?|succeed(?:s|ed)?|green|clean)\b"
    r"(?!\s+(?:an?|the|its?|them|through|data|arguments?|values?)\b)"
)
_PASSING = re.compile(
    rf"\b(?:tests?|suite|pytest)\b[^,;]*?\b{_GREEN}|\ball\s+green\b|\bpass(?:es|ed|ing)\s+(?:all\s+)?(?:the\s+)?tests\b"
    r"|\btests?\s*(?:[:=]|are|is)\s*(?:all\s+)?(?:ok|fine|pass)\b|\bpytest\s+exit(?:s|ed)\s+with\s+0\b",
    re.IGNORECASE,
)
_NONE_FAILS = re.compile(r"\bno\s+(?:\w+\s+)?tests?\s+fail|\b(?:no|0|zero)\s+(?:test\s+)?failures?\b", re.IGNORECASE)
_NO_FAULTS = re.compile(rf"(?:{_NONE_FAILS.pattern}|\bno\s+\w+)$", re.IGNORECASE)
_LINTED = re.compile(
    rf"\b(?:lint(?:er|ing)?|ruff|mypy|black|flake8|eslint|type\s+checks?)\b[^,;]*?\b(?:{_GREEN}|no\s+\w+)",
    re.IGNORECASE,
)
_CHECKED = re.compile(
    r"\b(?:all|every|the)\s+checks?\b[^,;]*?\b(?:pass(?:es|ed|ing)?|green|succeed(?:s|ed)?)\b", re.IGNORECASE
)
_COMMITTED = _said(
    "committed",
    r"\b(?:i|we)\s+did\s+(?:also\s+)?commit\b",
    rf"{_WE}(?:made|created)\s+(?:an?|the|one)\s+(?:\w+\s+)?commit\b",
    r"\bcommit\s+(?:was|has\s+been)\s+(?:made|created)\b",
)
_SENT = _said(
    "pushed|published|deployed|released|uploaded|downloaded|installed|sent|emailed|posted|restarted|merged|tagged",
    r"\bopened\s+(?:an?|the)\s+(?:pull\s+request|pr|merge\s+request|issue|ticket)\b",
)
_RAN = _said("ran|executed|tested|built|compiled", rf"\b(?:i|we)(?:['’]ve|\s+have|\s+did)\s+{_ADVERBS}run\b")
_LOOKED = _said("verified|validated|double-checked")
_CHANGED = _said(
    "created|wrote|written|rewrote|rewritten|added|updated|edited|changed|modified|renamed|moved|copied|replaced|"
    "implemented|refactored|appended|applied|saved|deleted|removed|inserted|reverted|reformatted|formatted|upgraded|"
    "cleaned up|backed up|set up|configured|fixed|corrected|repaired|resolved|patched",
    rf"{_WE}made\s+(?:an?|the|all|both|some|these|this|\d+)\s+(?:\w+\s+)?(?:changes?|edits?|fix(?:es)?|corrections?|backups?)\b",
)
_TESTS = re.compile(r"\s+(?:the\s+|all\s+|full\s+|whole\s+)*`?(?:\w+\s+)?(?:tests?|suite|pytest)\b", re.IGNORECASE)

_LINTERS = frozenset(("ruff", "mypy", "black", "flake8", "eslint", "pylint", "tsc", "lint"))
_NO_TESTS = _LINTERS | {"git", "ls", "cat", "grep", "rg", "find", "stat", "test", "["}
"""Programs that run none, whatever files they are given."""
_ONLY_TELLS = frozenset(["--co", "--collect-only", "--version", "-V", "--help", "-h", "--fixtures", "--markers"])
_LINKS = frozenset(("and", "&", "file", "files", "the", "both"))


@dataclass(frozen=True, slots=True)
class _Record:
    """What a task has on record, in the form in which claims ask for it."""

    texts: str
    tools: frozenset[str]
    commands: tuple[tuple[str, ...], ...]
    """That ran and exited with 0, as words."""
    ran: bool
    """A command ran, however it ended."""
    changed: frozenset[str]
    green: bool
    """Tests ran after the last change, and passed."""
    tested: bool
    checks: tuple[CheckResult, ...]


def strike(answer: str, work: Work, checks: Sequence[CheckResult] = ()) -> tuple[str, tuple[str, ...]]:
    """The answer with each claim struck out (`~~so~~`) that nothing on record bears out, and those claims.

    Only what is said to have been done is judged, sentence by sentence; what a tool itself has put out stands.
    """
    record = _record(work, checks)
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


def _record(work: Work, checks: Sequence[CheckResult]) -> _Record:
    good = [seen for seen in work.evidence if seen.result.ok]
    last_change = max((n for n, seen in enumerate(good) if seen.result.changed), default=-1)
    ran = [(_words(seen.call.args.get("command", "")), seen.result.data.get("code", 0) == 0) for seen in good]
    ran += [(_words(each.check.target), each.passed) for each in checks if each.check.kind is CheckKind.COMMAND]
    after = [_green(seen) for seen in good[last_change + 1 :]]
    after += [well for argv, well in ran[len(good) :] if _runs_tests(argv)]
    return _Record(
        texts="\n".join(seen.result.text for seen in good if not _own_words(seen, work)),
        tools=frozenset(seen.call.tool for seen in good),
        commands=tuple(argv for argv, well in ran if argv and well),
        ran=any(argv for argv, _ in ran),
        changed=frozenset(PurePosixPath(path).name for path in work.changed),
        green=True in after and False not in after,
        tested="run_tests" in {seen.call.tool for seen in good} or any(_runs_tests(argv) for argv, _ in ran),
        checks=tuple(checks),
    )


def _own_words(seen: Evidence, work: Work) -> bool:
    """Whether a tool put out what the model itself has written."""
    return bool(seen.result.changed) or any(path in work.changed for path in map(str, seen.call.args.values()))


def _green(seen: Evidence) -> bool | None:
    """Whether all tests passed; None when none ran."""
    if _runs_tests(_words(seen.call.args.get("command", ""))):
        return bool(seen.result.data.get("code") == 0)
    green = seen.result.data.get("green")
    return green if isinstance(green, bool) else None


def _words(line: object) -> tuple[str, ...]:
    try:
        argv = shlex.split(str(line))
    except ValueError:
        return ()
    return tuple(argv[2:] if argv[1:2] == ["-m"] else argv)


def _runs_tests(argv: Sequence[str]) -> bool:
    if not argv or PurePosixPath(argv[0]).name in _NO_TESTS or _ONLY_TELLS & {*argv}:
        return False
    return any("test" in word or word in ("tox", "nox") for word in argv if not word.startswith("-"))


def _borne(sentence: str, record: _Record) -> bool:
    """Whether each thing that the sentence says was done is on record."""
    return sentence.endswith("?") or all(
        fits for claim, fits in _claims(sentence, record) if _is_meant(sentence, claim)
    )


def _is_meant(sentence: str, claim: re.Match[str]) -> bool:
    """Whether it is said to be so, in its part of the sentence."""
    before = sentence[: claim.start()]
    if _CARRIED_ON.match(claim[0]) and not _BEGUN.search(before):
        return False
    clause = max((found.end() for found in _CLAUSE.finditer(before)), default=0)
    said = _VOUCHING.sub("", sentence[clause : claim.end()])
    said = _NO_FAULTS.sub("", said)
    return not (_NOT_DONE.search(said) or _CONDITION.search(before))


def _claims(sentence: str, record: _Record) -> Iterator[tuple[re.Match[str], bool]]:
    """Each claim, and whether there is a record of it."""
    for pattern in (_PASSING, _NONE_FAILS):
        if claim := pattern.search(sentence):
            yield claim, record.green
    if claim := _LINTED.search(sentence):
        yield claim, any(_LINTERS & {*argv} for argv in record.commands)
    if claim := _CHECKED.search(sentence):
        yield claim, bool(record.checks) and all(each.passed for each in record.checks)
    if claim := _COMMITTED.search(sentence):
        yield claim, _committed(claim, record)
    if claim := _SENT.search(sentence):
        yield claim, _ran(record, claim[0].lower().split()[-1][:5])
    if claim := _RAN.search(sentence):
        yield claim, record.tested if _TESTS.match(sentence, claim.end()) else record.ran or record.tested
    if claim := _LOOKED.search(sentence):
        yield claim, bool(record.tools or record.checks)
    if claim := _CHANGED.search(sentence):
        yield claim, _changed(sentence, claim, record)


def _committed(claim: re.Match[str], record: _Record) -> bool:
    """A commit of this task; who has changed nothing may speak of what others have committed, having looked."""
    ours = record.changed or re.match(r"\W*(?:i|we|committed)\b", claim[0], re.IGNORECASE)
    return _ran(record, "commit") or (not ours and any(tool.startswith("git_") for tool in record.tools))


def _ran(record: _Record, stem: str) -> bool:
    """Whether a tool or command has a name that the claim could be about; names of files are none."""
    spoken = [word for argv in record.commands for word in argv if not looks_like_path(word) and word[:1] != "-"]
    return any(stem in name for name in (*record.tools, *spoken))


def _changed(sentence: str, claim: re.Match[str], record: _Record) -> bool:
    """Whether anything was changed; of the paths that the sentence names, one of them, and all that it lists first."""
    named = {PurePosixPath(word).name for word in words(sentence) if looks_like_path(word)}
    listed = {PurePosixPath(word).name for word in _listed(sentence[claim.end() :])}
    if named & record.changed and not claim[0].lower().endswith("copied"):
        return listed <= record.changed
    return bool(record.changed) and (not named or bool(named & record.changed))


def _listed(text: str) -> Iterator[str]:
    """`a.py, b.py and c.py` at its beginning."""
    for token in text.split():
        word = token.strip("`'\"(),;:*").rstrip(".")
        if looks_like_path(word):
            yield word
        elif word not in _LINKS:
            return
