"""Changes to a text: exact search and replace, and unified diffs; done exactly or refused with the reason."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentd.errors import ToolFailed

MAX_WAYS = 50
"""Ways to place the hunks of a diff that are tried out before it counts as ambiguous."""

_HEADER = re.compile(r"@@ *-(\d+)(?:,(\d+))? +\+(\d+)(?:,(\d+))? *@@")
_FENCE = ("```", "~~~")
_FILE = ("diff --git ", "Index: ", "=====")
_UNSUPPORTED = (
    *("rename ", "copy ", "deleted file mode", "old mode", "new mode"),
    *("Binary files ", "GIT binary patch", "diff --cc ", "diff --combined "),
)
_EXACT = "copy the lines exactly as read_file shows them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """The new text, and the line numbers (from 1, in the old text) where it differs, one per place changed."""

    text: str
    lines: tuple[int, ...]


# search and replace ---------------------------------------------------------------------------------------------------


def replace(text: str, search: str, new: str, *, all: bool = False) -> Patched:
    """Put `new` where `search` stands, once; with `all`, everywhere. `ToolFailed` when it stands nowhere or, without
    `all`, more than once.

    `\\n` in both stands for the line ending that the text has at that place; the rest of the text is kept as it is.
    """
    search, new = _plain(search), _plain(new)
    if not search:
        raise ToolFailed("the text to search for is empty", hint="give the lines that are to change")
    if search == new:
        raise ToolFailed("search and replace are the same text", hint="nothing would change")
    plain = _plain(text)
    starts = list(_occurrences(plain, search))
    lines = tuple(plain.count("\n", 0, start) + 1 for start in starts)
    if not starts:
        raise ToolFailed(f"the text to replace does not stand in the file; {_closest(plain, search)}", hint=_EXACT)
    if len(starts) > 1 and not all:
        where = ", ".join(map(str, lines[:10])) + (", …" if len(lines) > 10 else "")
        raise ToolFailed(
            f"the text to replace stands at {len(starts)} places (lines {where})",
            hint="add lines around it to name one place, or set all=true",
        )
    return Patched(text=_put(text, plain, starts, len(search), new), lines=lines)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n")


def _occurrences(text: str, search: str) -> Iterator[int]:
    at = text.find(search)
    while at >= 0:
        yield at
        at = text.find(search, at + len(search))


def _put(text: str, plain: str, starts: Sequence[int], length: int, new: str) -> str:
    """Replace in `text` at the places given in `plain`, which is `text` with `\\r\\n` as `\\n`."""
    breaks = [match.start() for match in re.finditer("\n", plain)]
    wide = [at for at, match in zip(breaks, re.finditer("\r?\n", text), strict=True) if len(match[0]) == 2]
    parts, done = [], 0
    for start in starts:
        begin = start + bisect_left(wide, start)
        end = start + length + bisect_left(wide, start + length)
        parts += [text[done:begin], new.replace("\n", "\r\n") if _wide_at(start, breaks, wide) else new]
        done = end
    return "".join([*parts, text[done:]])


def _wide_at(start: int, breaks: Sequence[int], wide: Sequence[int]) -> bool:
    """Whether the line at `start` ends with `\\r\\n`; for a last line without an ending, the line before."""
    if not breaks:
        return False
    nearest = breaks[min(bisect_left(breaks, start), len(breaks) - 1)]
    at = bisect_left(wide, nearest)
    return at < len(wide) and wide[at] == nearest


def _closest(text: str, search: str) -> str:
    """Where the first line of what is searched for, or something like it, stands."""
    wanted = next((line for line in search.split("\n") if line.strip()), "")
    lines = text.split("\n")[:20_000] if wanted else []
    for number, line in enumerate(lines, 1):
        if line.strip() == wanted.strip():
            return f"line {number} begins like it: {_quote(line)}"
    near = difflib.get_close_matches(wanted, lines[:2000], n=1, cutoff=0.5)
    return f"closest is line {lines.index(near[0]) + 1}: {_quote(near[0])}" if near else "no line is like it"


def _quote(line: str) -> str:
    return repr(line if len(line) <= 120 else line[:117] + "…")


# unified diffs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str
    """` `, `-` or `+`."""
    text: str
    ended: bool = True
    """False when the diff says that the file has no newline after it."""


@dataclass(slots=True)
class _Hunk:
    number: int
    header: tuple[int, int, int, int] | None
    """Old start and count, new start and count; None when the header does not say."""
    lines: list[_Line] = field(default_factory=list)
    loose: int = 0
    """Empty lines at its end: blank context whose space was lost, or only space between hunks."""

    @property
    def old(self) -> list[_Line]:
        return [line for line in self.lines if line.kind != "+"]

    def size(self, loose: int = 0) -> tuple[int, int]:
        return len(self.old) + loose, sum(line.kind != "-" for line in self.lines) + loose

    def counts_hold(self, loose: int = 0) -> bool:
        return self.header is not None and (self.header[1], self.header[3]) == self.size(loose)


@dataclass(frozen=True, slots=True)
class _FileLine:
    text: str
    ended: bool = True


def apply_diff(text: str, diff: str, path: str = "") -> Patched:
    """Apply a unified diff of one file. `ToolFailed` with the reason when it does not fit or fits in several ways.

    A hunk goes where its context and removed lines stand, exactly; its line numbers only decide between such places
    when all numbers of the diff are right. Line endings are the file's. Code fences and words around are skipped.
    """
    hunks = _parse(diff, path)
    lines = _split(text)
    plain, own_endings = lines, False
    if ("\r" in text or "\r" in diff) and not all(_candidates(hunk, lines) for hunk in hunks):
        # Endings differ between diff and file: compare without them, keep those of the file.
        hunks = [_narrow(hunk) for hunk in hunks]
        plain, own_endings = [_FileLine(line.text.removesuffix("\r"), line.ended) for line in lines], True
    ways = list(_ways(hunks, [_candidates(hunk, plain) for hunk in hunks], MAX_WAYS + 1))
    if not ways:
        raise _does_not_fit(hunks, plain)
    results = {_build(hunks, way, lines, own_endings): way for way in ways}
    if len(results) > 1 or len(ways) > MAX_WAYS:
        way = _by_numbers(hunks, ways)
        results = {_build(hunks, way, lines, own_endings): way}
    result, way = next(iter(results.items()))
    if result == text:
        raise ToolFailed("the diff changes nothing", hint="mark removed lines with - and added lines with +")
    return Patched(text=result, lines=tuple(_first_change(hunk, at) for hunk, at in zip(hunks, way, strict=True)))


def _parse(diff: str, path: str) -> list[_Hunk]:
    lines = diff.split("\n")
    if lines and not lines[-1].strip("\r"):
        lines.pop()
    at = _first_hunk(lines)
    if at is None:
        raise ToolFailed("the diff has no hunk", hint="each hunk begins with a line @@ -line,count +line,count @@")
    _check_head([line.rstrip("\r") for line in lines[:at]], path)
    hunks: list[_Hunk] = []
    while at < len(lines):
        line = lines[at].rstrip("\r")
        if line.startswith("@@"):
            hunks.append(_Hunk(len(hunks) + 1, _header(line)))
        elif _is_end(hunks[-1], lines, at):
            break
        else:
            _take(hunks[-1], lines[at], at + 1)
        at += 1
    for hunk in hunks:
        _settle(hunk)
    return hunks


def _check_head(head: Sequence[str], path: str) -> None:
    """Refuse what more than a change of one file's lines would be, and a diff for another file."""
    for line in head:
        if line.startswith(_UNSUPPORTED):
            raise ToolFailed(f"the diff does more than change lines ({line!r})", hint="use move_path or delete_path")
    names = [line[4:].split("\t")[0].strip() for line in head if line.startswith(("--- ", "+++ "))]
    if len(names) > 2 or sum(line.startswith("diff --git ") for line in head) > 1:
        raise _several_files()
    if len(names) == 2 and names[1] == "/dev/null":
        raise ToolFailed("the diff deletes the whole file", hint="use delete_path")
    bases = {name.rsplit("/", 1)[-1].strip('"') for name in names if name != "/dev/null"}
    if path and bases and path.rsplit("/", 1)[-1] not in bases:
        raise ToolFailed(f"the diff is for {', '.join(sorted(bases))}, not for {path}")


def _several_files() -> ToolFailed:
    return ToolFailed("the diff changes several files", hint="make one call for each file")


def _header(line: str) -> tuple[int, int, int, int] | None:
    if line.startswith("@@@"):
        raise ToolFailed("the diff is a combined diff of a merge", hint="give a plain unified diff")
    match = _HEADER.match(line)
    if match is None:
        return None
    start, count, new_start, new_count = match.groups(default="1")
    return int(start), int(count), int(new_start), int(new_count)


def _is_end(hunk: _Hunk, lines: Sequence[str], at: int) -> bool:
    """Whether the diff ends before line `at`; refuses when another file begins there."""
    line = lines[at].rstrip("\r")
    if line.startswith(_FENCE):
        _check_tail(lines, at)
        return True
    if line.startswith(_FILE):
        raise _several_files()
    following = [later.rstrip("\r") for later in lines[at + 1 : at + 3]]
    if line.startswith("--- ") and len(following) == 2 and following[0].startswith("+++ ") and following[1][:2] == "@@":
        # Two changed lines that begin with "-- " and "++ " look the same: only right counts can tell.
        left = (0, 0) if hunk.header is None else (hunk.header[1] - hunk.size()[0], hunk.header[3] - hunk.size()[1])
        if left != (1, 1):
            raise _several_files()
    return line in ("--", "-- ") and hunk.counts_hold()  # the signature below a patch made for mail


def _check_tail(lines: Sequence[str], at: int) -> None:
    """What follows a code fence must be words: a fence may also be context whose space was lost."""
    fenced = any(line.lstrip().startswith(_FENCE) for line in lines[: _first_hunk(lines)])
    tail = [line for line in lines[at + 1 :] if line.strip()]
    if any(line.startswith(("@@", "diff --git ", *_FENCE)) for line in tail) or (tail and not fenced):
        raise ToolFailed(
            f"line {at + 1} of the diff is a code fence, and more follows", hint="give one diff in one block"
        )


def _first_hunk(lines: Sequence[str]) -> int | None:
    return next((number for number, line in enumerate(lines) if line.startswith("@@")), None)


def _take(hunk: _Hunk, line: str, number: int) -> None:
    if line.rstrip("\r") == "":
        hunk.loose += 1
        return
    if line.startswith("\\"):
        if not hunk.lines or hunk.loose:
            raise ToolFailed(f"line {number} of the diff ({_quote(line)}) follows no line of a hunk")
        last = hunk.lines[-1]
        hunk.lines[-1] = _Line(last.kind, last.text, ended=False)
        return
    if line[0] not in " -+":
        raise ToolFailed(
            f"line {number} of the diff ({_quote(line)}) begins with neither space, - nor +",
            hint="context lines begin with one space",
        )
    hunk.lines += [_Line(" ", "")] * hunk.loose
    hunk.loose = 0
    hunk.lines.append(_Line(line[0], line[1:]))


def _settle(hunk: _Hunk) -> None:
    """Empty lines at the end of a hunk are context when its counts say so; else they only part it from what follows."""
    if hunk.loose and hunk.counts_hold(hunk.loose):
        hunk.lines += [_Line(" ", "")] * hunk.loose
    hunk.loose = 0
    if all(line.kind == " " for line in hunk.lines):
        raise ToolFailed(f"hunk {hunk.number} of the diff changes nothing", hint="mark changed lines with - and +")


def _narrow(hunk: _Hunk) -> _Hunk:
    lines = [_Line(line.kind, line.text.removesuffix("\r"), line.ended) for line in hunk.lines]
    return _Hunk(hunk.number, hunk.header, lines)


def _split(text: str) -> list[_FileLine]:
    *lines, last = text.split("\n")
    return [*map(_FileLine, lines), *([_FileLine(last, ended=False)] if last else [])]


def _candidates(hunk: _Hunk, lines: Sequence[_FileLine]) -> list[int]:
    """Indices at which the old lines of the hunk stand in the file."""
    old = hunk.old
    if not old:
        return [0] if not lines else []
    texts = [line.text for line in old]
    found = []
    for at in range(len(lines) - len(old) + 1):
        if lines[at].text != texts[0] or any(lines[at + k].text != text for k, text in enumerate(texts)):
            continue
        if all(line.ended or not lines[at + k].ended for k, line in enumerate(old)):
            found.append(at)
    return found


def _ways(hunks: Sequence[_Hunk], candidates: Sequence[Sequence[int]], limit: int) -> Iterator[tuple[int, ...]]:
    """At most `limit` ways to place the hunks in their order without overlap."""
    lengths = [len(hunk.old) for hunk in hunks]
    latest = [0] * len(hunks)
    ceiling: float = float("inf")
    for k in reversed(range(len(hunks))):
        fitting = [at for at in candidates[k] if at + lengths[k] <= ceiling]
        if not fitting:
            return
        ceiling = latest[k] = fitting[-1]
    given = 0
    stack: list[tuple[int, ...]] = [()]
    while stack and given < limit:
        way = stack.pop()
        k = len(way)
        if k == len(hunks):
            given += 1
            yield way
            continue
        floor = way[-1] + lengths[k - 1] if way else 0
        stack += [(*way, at) for at in reversed(candidates[k]) if floor <= at <= latest[k]]


def _by_numbers(hunks: Sequence[_Hunk], ways: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The way that the line numbers say, when every number and count of the diff holds; else a refusal.

    A start at line 1 proves nothing: it is what is written when the line is not known.
    """
    shift = 0
    numbers = []
    for hunk in hunks:
        if hunk.header is None or not hunk.counts_hold() or hunk.header[0] <= 1:
            break
        if hunk.header[2] != hunk.header[0] + shift:
            break
        shift += hunk.size()[1] - hunk.size()[0]
        numbers.append(hunk.header[0] - 1)
    if tuple(numbers) in ways:
        return tuple(numbers)
    differing = next(k for k in range(len(hunks)) if len({way[k] for way in ways}) > 1)
    places = sorted({way[differing] + 1 for way in ways})
    raise ToolFailed(
        f"hunk {differing + 1} of the diff fits at {len(places)} places (lines {', '.join(map(str, places[:10]))})",
        hint="give more context lines around the change",
    )


def _build(hunks: Sequence[_Hunk], way: Sequence[int], lines: Sequence[_FileLine], own_endings: bool) -> str:
    result: list[_FileLine] = []
    done = 0
    for hunk, start in zip(hunks, way, strict=True):
        result += lines[done:start]
        done = start
        for k, line in enumerate(hunk.lines):
            if line.kind == "+":
                ending = _ending(lines, done) if own_endings else ""
                result.append(_FileLine(line.text + (ending if line.ended else ""), line.ended))
                continue
            if line.ended and not lines[done].ended and (line.kind == "-" or k + 1 < len(hunk.lines)):
                raise ToolFailed(
                    "the file has no newline at its end, where the diff changes it without saying what becomes of that",
                    hint="replace the last line with search and replace",
                )
            if line.kind == " ":
                result.append(lines[done])
            done += 1
    result += lines[done:]
    if not all(line.ended for line in result[:-1]):
        raise ToolFailed("the diff says 'No newline at end of file' for a line that is not the last")
    return "".join(line.text + "\n" * line.ended for line in result)


def _ending(lines: Sequence[_FileLine], at: int) -> str:
    """The carriage return, or nothing, that the lines around index `at` end with."""
    near = lines[at - 1] if at else lines[0] if lines else _FileLine("")
    if not near.ended and at > 1:
        near = lines[at - 2]
    return "\r" if near.text.endswith("\r") else ""


def _first_change(hunk: _Hunk, at: int) -> int:
    """The line number (from 1) of the first old line that the hunk changes, or after which it adds."""
    same = next(k for k, line in enumerate(hunk.lines) if line.kind != " ")
    return at + same + 1


def _does_not_fit(hunks: Sequence[_Hunk], lines: Sequence[_FileLine]) -> ToolFailed:
    for hunk in hunks:
        if not hunk.old:
            return ToolFailed(f"hunk {hunk.number} only adds lines and names none around", hint="give context lines")
        if _candidates(hunk, lines):
            continue
        after = _Hunk(hunk.number, None, [_Line(" ", line.text) for line in hunk.lines if line.kind != "-"])
        if _candidates(after, lines):
            return ToolFailed(f"hunk {hunk.number} of the diff is in the file already", hint="leave that hunk out")
        at, same = _best(hunk.old, lines)
        there = _quote(lines[at + same].text) if at + same < len(lines) else "the end of the file"
        said = _quote(hunk.old[same].text) if same < len(hunk.old) else "the end of the file"
        where = f"at line {at + same + 1} the file has {there}, the diff {said}"
        return ToolFailed(f"hunk {hunk.number} of the diff does not fit: {where}", hint=_EXACT)
    return ToolFailed(
        "the hunks of the diff do not fit in their order", hint="order them as the lines stand in the file"
    )


def _best(old: Sequence[_Line], lines: Sequence[_FileLine]) -> tuple[int, int]:
    """Where most of the first old lines stand, and how many of them do."""
    best = (0, 0)
    for at in range(len(lines)):
        same = 0
        while same < len(old) and at + same < len(lines) and lines[at + same].text == old[same].text:
            same += 1
        if same > best[1]:
            best = (at, same)
    return best
