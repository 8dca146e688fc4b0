"""Changes to a text: exact search and replace, and unified diffs; done exactly or refused with the reason."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from itertools import pairwise, takewhile
from typing import TypeAlias

from agentd.errors import ToolFailed
from agentd.workspace.diff import Act, FileDiff, Hunk, Line, parse, quote

MAX_WAYS = 50
"""Ways to place the hunks of a diff that are tried out before it counts as ambiguous."""

_EXACT = "copy the lines exactly as read_file shows them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """The new text, and the line numbers (from 1, in the old text) where it differs, one per place changed."""

    text: str
    lines: tuple[int, ...]
    executable: bool | None = None
    """What a diff makes of the file's mode; None: as it was."""


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
            return f"line {number} begins like it: {quote(line)}"
    near = difflib.get_close_matches(wanted, lines[:2000], n=1, cutoff=0.5)
    return f"closest is line {lines.index(near[0]) + 1}: {quote(near[0])}" if near else "no line is like it"


# unified diffs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _FileLine:
    text: str
    ended: bool = True


_Build: TypeAlias = Callable[[Sequence[Hunk], Sequence[int]], str]


def apply_diff(text: str, diff: str, path: str = "") -> Patched:
    """Apply a unified diff of one file. `ToolFailed` with the reason when it does not fit or fits in several ways."""
    files = parse(diff)
    if len(files) > 1:
        raise ToolFailed("the diff changes several files", hint="apply_patch takes it")
    if files:
        _must_change_lines(files[0], path)
    done = apply_hunks(text, files[0].hunks if files else ())
    return replace_fields(done, executable=files[0].executable)


def _must_change_lines(file: FileDiff, path: str) -> None:
    """Refuse what more than a change of one file's lines would be, and a diff for another file."""
    if file.act is Act.DELETE:
        raise ToolFailed("the diff deletes the whole file", hint="use delete_path or apply_patch")
    if file.act in (Act.RENAME, Act.COPY) or not file.hunks:
        raise ToolFailed("the diff does more than change lines", hint="apply_patch takes it")
    bases = {name.rsplit("/", 1)[-1] for name in (file.path, file.source) if name}
    if path and bases and path.rsplit("/", 1)[-1] not in bases:
        raise ToolFailed(f"the diff is for {', '.join(sorted(bases))}, not for {path}")


def apply_hunks(text: str, hunks: Sequence[Hunk]) -> Patched:
    """Apply the hunks of one file.

    A hunk goes where its context and removed lines stand, exactly; its line numbers, and the heading behind them, only
    decide between such places. Line endings are the file's.
    """
    if not hunks:
        raise ToolFailed("the diff has no hunk", hint="each hunk begins with a line @@ -line,count +line,count @@")
    _refuse_repeated(hunks)
    lines = _split(text)
    plain, own_endings = lines, False
    if ("\r" in text or any("\r" in line.text for hunk in hunks for line in hunk.lines)) and not all(
        _candidates(hunk, lines) for hunk in hunks
    ):
        # Endings differ between diff and file: compare without them, keep those of the file.
        _refuse_two_endings(hunks)
        hunks = [_narrow(hunk) for hunk in hunks]
        plain, own_endings = [_FileLine(line.text.removesuffix("\r"), line.ended) for line in lines], True
    _refuse_unseen(hunks)
    placed = _placed(hunks, plain, lambda order, way: _build(order, way, lines, own_endings))
    _refuse_cut(placed, plain)
    _refuse_lost(placed, plain)
    ordered, way = [hunk for hunk, _ in placed], [at for _, at in placed]
    result = _build(ordered, way, lines, own_endings)
    if result == text:
        raise ToolFailed("the diff changes nothing", hint="mark removed lines with - and added lines with +")
    return Patched(text=result, lines=tuple(_first_change(hunk, at) for hunk, at in placed))


def _refuse_repeated(hunks: Sequence[Hunk]) -> None:
    """A hunk that stands twice in a diff was written twice; the second may fit somewhere all the same."""
    seen: dict[object, int] = {}
    for hunk in hunks:
        known = hunk.header is not None and (hunk.header[0] == 0 or _says_where(hunk))
        first = seen.setdefault((hunk.header, tuple(hunk.lines)), hunk.number) if known else hunk.number
        if first != hunk.number:
            raise ToolFailed(f"hunk {hunk.number} of the diff is hunk {first} once more", hint="leave it out")


def _refuse_two_endings(hunks: Sequence[Hunk]) -> None:
    """Where endings are not compared, those that a diff means for its lines must be beyond doubt."""
    said = [line.text for hunk in hunks for line in hunk.lines if line.ended and line.text]
    if len({text.endswith("\r") for text in said[:-1]}) > 1:  # the last may have been trimmed
        raise ToolFailed(
            "some lines of the diff end with a carriage return and others do not, and not as those of the file do",
            hint="write all of them without",
        )


def _refuse_unseen(hunks: Sequence[Hunk]) -> None:
    """Lines that are replaced by the very same lines: a space or the marker of a last line was lost on the way."""
    for hunk in hunks:
        for gone, come in _replaced(hunk):
            if gone and [(line.text, line.ended) for line in gone] == [(line.text, line.ended) for line in come]:
                raise ToolFailed(
                    f"hunk {hunk.number} of the diff changes nothing where it replaces {quote(gone[0].text)} by the "
                    "same: what was meant was lost on the way",
                    hint="leave out what stays as it is; for ends of lines, replace the lines with search and replace",
                )


def _replaced(hunk: Hunk) -> Iterator[tuple[list[Line], list[Line]]]:
    """The lines that go and those that come in their place, one pair for each place."""
    gone: list[Line] = []
    come: list[Line] = []
    for line in (*hunk.lines, Line(" ", "")):
        if line.kind == " " or (line.kind == "-" and come):
            yield gone, come
            gone, come = [], []
        if line.kind != " ":
            (gone if line.kind == "-" else come).append(line)


def _refuse_lost(placed: Sequence[tuple[Hunk, int]], lines: Sequence[_FileLine]) -> None:
    """Refuse a hunk that lacks a line of context, by its counts, where that may have stood before what the hunk adds
    as well as after it: at its beginning, when the first line of the file is meant, and at the end of the diff."""
    for hunk, at in placed:
        lacks = hunk.missing() == (1 + hunk.loose, 1 + hunk.loose)
        first = {line.kind for line in takewhile(lambda line: line.kind != " ", hunk.lines)}
        begins = hunk.header is not None and hunk.header[0] == 1 and "+" in first and at > 0
        ends = hunk.last and hunk.lines[-1].kind == "+" and at + len(hunk.old) < len(lines)
        if lacks and (begins or ends):
            raise ToolFailed(
                f"hunk {hunk.number} of the diff lacks a line of context that its counts have",
                hint="give the lines around what is added",
            )


def _says_where(hunk: Hunk) -> bool:
    """Whether the number of its line means something.

    A start at line 1 proves nothing, it is what is written when the line is not known; unless less context stands
    before the change than after it, as at the beginning of a file.
    """
    if hunk.header is None:
        return False
    before, after = hunk.context()
    return hunk.header[0] > 1 or (hunk.header[0] == 1 and before < min(after, 3))


def _refuse_cut(placed: Sequence[tuple[Hunk, int]], lines: Sequence[_FileLine]) -> None:
    """Refuse a last hunk that ends before its counts do: what is missing was to change something.

    One line may as well be miscounted, and blank ones may have lost their spaces.
    """
    for hunk, at in placed:
        end = at + len(hunk.old)
        old, new = (max(0, count - hunk.loose) for count in hunk.missing())
        if not hunk.last or min(hunk.missing()) < 0 or not (old or new):
            continue
        if old > len(lines) - end:  # the file has no such lines: the counts are wrong
            continue
        blank = old == new and end + old <= len(lines) and not any(line.text for line in lines[end : end + old])
        before, after = hunk.context()
        bare = end < len(lines) and after < min(3, max(1, before))
        if not blank and (max(old, new) > 1 or bare):
            raise ToolFailed(
                f"hunk {hunk.number} of the diff ends before its counts say: it may be cut off",
                hint="give the whole diff, or write @@ @@ without numbers",
            )


def _placed(hunks: Sequence[Hunk], lines: Sequence[_FileLine], build: _Build) -> list[tuple[Hunk, int]]:
    """The hunks in the order of the file, each with the index where it goes; `ToolFailed` unless one way is certain."""
    candidates = [_candidates(hunk, lines) for hunk in hunks]
    if not all(candidates):
        raise _does_not_fit(hunks, lines)
    single = all(len(places) == 1 for places in candidates)
    if single or not _in_order(hunks):
        return _by_itself(hunks, candidates)
    ways = list(_ways(hunks, candidates, MAX_WAYS + 1))
    if not ways:
        raise _does_not_fit(hunks, lines)
    if len(ways) > MAX_WAYS or len({_built(build, hunks, way) for way in ways}) > 1:
        return list(zip(hunks, _chosen(hunks, candidates, ways, lines), strict=True))
    return list(zip(hunks, ways[0], strict=True))


def _built(build: _Build, hunks: Sequence[Hunk], way: Sequence[int]) -> str | None:
    """None for a way that ends in a refusal, which says nothing about the others."""
    try:
        return build(hunks, way)
    except ToolFailed:
        return None


def _in_order(hunks: Sequence[Hunk]) -> bool:
    """False when the line numbers say that a later hunk belongs before an earlier one."""
    starts = [hunk.header[0] for hunk in hunks if hunk.header is not None and _says_where(hunk)]
    return len(starts) < len(hunks) or starts == sorted(starts)


def _by_itself(hunks: Sequence[Hunk], candidates: Sequence[Sequence[int]]) -> list[tuple[Hunk, int]]:
    """Hunks that may stand in any order: each at its only place, or at the one that its number says."""
    placed = []
    for hunk, places in zip(hunks, candidates, strict=True):
        at = hunk.header[0] - 1 if hunk.header is not None else -1
        if len(places) > 1 and (at not in places or not _says_where(hunk)):
            raise ToolFailed(
                f"hunk {hunk.number} of the diff fits at {len(places)} places ({_listed(places)}), and the hunks are "
                "not in their order",
                hint="order them as the lines stand in the file, with more context lines around the change",
            )
        placed.append((hunk, places[0] if len(places) == 1 else at))
    placed.sort(key=lambda pair: pair[1])
    for (hunk, at), (other, later) in pairwise(placed):
        if at + len(hunk.old) > later:
            raise ToolFailed(
                f"hunks {hunk.number} and {other.number} of the diff overlap: they do not fit in their order",
                hint="give each line once",
            )
    return placed


def _narrow(hunk: Hunk) -> Hunk:
    lines = [Line(line.kind, line.text.removesuffix("\r"), line.ended) for line in hunk.lines]
    return replace_fields(hunk, lines=lines)


def _split(text: str) -> list[_FileLine]:
    *lines, last = text.split("\n")
    return [*map(_FileLine, lines), *([_FileLine(last, ended=False)] if last else [])]


def _candidates(hunk: Hunk, lines: Sequence[_FileLine]) -> list[int]:
    """Indices at which the old lines of the hunk stand in the file."""
    old = hunk.old
    latest = len(lines) - len(old)
    if not old:
        return [latest] if not lines or hunk.at_end or _appends(hunk, lines) else []
    texts = [line.text for line in old]
    at_end = hunk.at_end or not all(line.ended for line in hunk.lines)
    found = []
    for at in range(max(0, latest) if at_end else 0, latest + 1):
        if lines[at].text != texts[0] or any(lines[at + k].text != text for k, text in enumerate(texts)):
            continue
        if all(line.ended or not lines[at + k].ended for k, line in enumerate(old)):
            found.append(at)
    return found


def _appends(hunk: Hunk, lines: Sequence[_FileLine]) -> bool:
    """Whether its numbers say that it adds below the last line, as a diff without context does."""
    return hunk.header is not None and hunk.header[:2] == (len(lines), 0) and len(lines) > 1 and lines[-1].ended


def _ways(hunks: Sequence[Hunk], candidates: Sequence[Sequence[int]], limit: int) -> Iterator[tuple[int, ...]]:
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


def _chosen(
    hunks: Sequence[Hunk],
    candidates: Sequence[Sequence[int]],
    ways: Sequence[tuple[int, ...]],
    lines: Sequence[_FileLine],
) -> tuple[int, ...]:
    """Of several ways the one that the line numbers say, else the headings; else a refusal."""
    kept = [_inside(hunk, places, lines) for hunk, places in zip(hunks, candidates, strict=True)]
    numbered = _by_numbers(hunks)
    if len(numbered) == len(hunks) and all(at in places for at, places in zip(numbered, kept, strict=True)):
        return numbered
    narrowed = list(_ways(hunks, kept, 2))
    if len(narrowed) == 1:
        return narrowed[0]
    differing = next(k for k in range(len(hunks)) if len({way[k] for way in ways}) > 1)
    places = sorted({way[differing] for way in ways})
    raise ToolFailed(
        f"hunk {hunks[differing].number} of the diff fits at {len(places)} places ({_listed(places)})",
        hint="give more context lines around the change",
    )


def _listed(places: Sequence[int]) -> str:
    return f"lines {', '.join(str(at + 1) for at in places[:10])}{', …' if len(places) > 10 else ''}"


def _by_numbers(hunks: Sequence[Hunk]) -> tuple[int, ...]:
    """Where the line numbers say that the hunks go, as far as these agree with each other and with the counts."""
    shift = 0
    numbers: list[int] = []
    somewhere = any(hunk.header is not None and hunk.header[0] > 1 for hunk in hunks)  # so a first line is meant, too
    for hunk in hunks:
        if hunk.header is None or not (somewhere or _says_where(hunk)):
            break
        if hunk.header[2] + (not hunk.header[3]) != hunk.header[0] + shift:  # of nothing the line before it is named
            break
        if not (hunk.counts_hold() or (hunk.counted and _nearly_counted(hunk))):
            break
        if numbers and hunk.header[0] - 1 < numbers[-1] + len(hunks[len(numbers) - 1].old):
            break
        shift += hunk.size()[1] - hunk.size()[0]
        numbers.append(hunk.header[0] - 1)
    return tuple(numbers)


def _nearly_counted(hunk: Hunk) -> bool:
    """Whether the counts are off by one at most."""
    old, new = hunk.missing()
    return any(abs(old - loose) <= 1 and abs(new - loose) <= 1 for loose in range(hunk.loose + 1))


def _inside(hunk: Hunk, places: Sequence[int], lines: Sequence[_FileLine]) -> Sequence[int]:
    """Of the places those in a block that a line like the heading opens, and so on inwards; all when none is."""
    spans = [(0, len(lines))]
    for anchor in hunk.anchors:
        spans = [
            (number + 1, _block_end(lines, number))
            for begin, end in spans
            for number in range(begin, end)
            if lines[number].text.strip().startswith(anchor)
        ]
    return [at for at in places if any(begin <= at < end for begin, end in spans)] or places


def _block_end(lines: Sequence[_FileLine], opened: int) -> int:
    """The next line that begins a block as far left as the one at `opened`."""
    depth = _indent(lines[opened].text)
    for number in range(opened + 1, len(lines)):
        text = lines[number].text.strip()
        if text and (text[0].isalpha() or text[0] in "_$") and _indent(lines[number].text) <= depth:
            return number
    return len(lines)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _build(hunks: Sequence[Hunk], way: Sequence[int], lines: Sequence[_FileLine], own_endings: bool) -> str:
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


def _first_change(hunk: Hunk, at: int) -> int:
    """The line number (from 1) of the first old line that the hunk changes, or after which it adds."""
    same = next(k for k, line in enumerate(hunk.lines) if line.kind != " ")
    return at + same + 1


def _does_not_fit(hunks: Sequence[Hunk], lines: Sequence[_FileLine]) -> ToolFailed:
    for hunk in hunks:
        if not hunk.old:
            return ToolFailed(f"hunk {hunk.number} only adds lines and names none around", hint="give context lines")
        if _candidates(hunk, lines):
            continue
        after = Hunk(hunk.number, None, [Line(" ", line.text) for line in hunk.lines if line.kind != "-"])
        if _candidates(after, lines):
            return ToolFailed(f"hunk {hunk.number} of the diff is in the file already", hint="leave that hunk out")
        at, same = _best(hunk.old, lines)
        there = quote(lines[at + same].text) if at + same < len(lines) else "the end of the file"
        said = quote(hunk.old[same].text) if same < len(hunk.old) else "the end of the file"
        where = f"at line {at + same + 1} the file has {there}, the diff {said}"
        return ToolFailed(f"hunk {hunk.number} of the diff does not fit: {where}", hint=_EXACT)
    return ToolFailed(
        "the hunks of the diff do not fit in their order", hint="order them as the lines stand in the file"
    )


def _best(old: Sequence[Line], lines: Sequence[_FileLine]) -> tuple[int, int]:
    """Where most of the first old lines stand, and how many of them do."""
    best = (0, 0)
    for at in range(len(lines)):
        same = 0
        while same < len(old) and at + same < len(lines) and lines[at + same].text == old[same].text:
            same += 1
        if same > best[1]:
            best = (at, same)
    return best
