"""What a diff says: unified, git's or `*** Begin Patch`, as models write them: read into files and hunks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agentd.errors import ToolFailed
from agentd.workspace.text import MARK

_HEADER = re.compile(r"@@ *-(\d+)(?:,(\d+))? +\+(\d+)(?:,(\d+))? *@@")
_FENCES = ("```", "~~~")
_STARTS = ("diff ", "--- ", "Index: ", "*** ")
_STAMP = re.compile(r"\s+\d{4}-\d\d-\d\d \d\d:\d\d.*$")
_ESCAPE = re.compile(r'\\([0-7]{3}|["\\abfnrtv])')
_ESCAPED = {'"': 34, "\\": 92, "a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_PREFIXES = (
    *(("a", "b"), ("b", "a"), ("i", "w"), ("c", "i"), ("c", "w"), ("o", "w"), ("old", "new")),
    *(("w", "i"), ("i", "c"), ("w", "c"), ("w", "o")),
)
"""What git and others put before the names of the two sides, also of a diff the other way round."""
_HEAD = (
    *("index ", "old mode ", "new mode ", "new file mode ", "deleted file mode ", "similarity index "),
    *("dissimilarity index ", "rename from ", "rename to ", "copy from ", "copy to ", "--- ", "+++ ", "====="),
    *("Binary files ", "GIT binary patch"),
)
_MODES = {"100644": False, "100755": True, "100664": False, "100775": True}
_GIT_NAMES = re.compile(r'("(?:[^"\\]|\\.)*"|\S+) ("(?:[^"\\]|\\.)*"|\S+)')
_ENVELOPE = re.compile(r"\*\*\* (Add|Update|Delete) File: *(.*\S)")
_NOTHING = "/dev/null"


class Act(StrEnum):
    """What becomes of a file."""

    ADD = "add"
    CHANGE = "change"
    DELETE = "delete"
    RENAME = "rename"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    """` `, `-` or `+`."""
    text: str
    ended: bool = True
    """False when the diff says that the file has no newline after it."""


@dataclass(slots=True)
class Hunk:
    number: int
    header: tuple[int, int, int, int] | None
    """Old start and count, new start and count; None when the header does not say."""
    lines: list[Line] = field(default_factory=list)
    loose: int = 0
    """Empty lines at its end: blank context whose space was lost, or only space between hunks."""
    counted: bool = False
    """Whether the header gives counts; where it gives a line alone, 1 is meant or nothing is known."""
    anchors: tuple[str, ...] = ()
    """Lines that stand somewhere before it in the file."""
    at_end: bool = False
    """Whether its last old line is the last of the file."""
    last: bool = False
    """Whether nothing more of the diff follows: what was cut off is missing here."""

    @property
    def old(self) -> list[Line]:
        return [line for line in self.lines if line.kind != "+"]

    def size(self, loose: int = 0) -> tuple[int, int]:
        return len(self.old) + loose, sum(line.kind != "-" for line in self.lines) + loose

    def missing(self) -> tuple[int, int]:
        """How many old and new lines the header counts that do not stand in the hunk."""
        if self.header is None or not self.counted:
            return 0, 0
        old, new = self.size()
        return self.header[1] - old, self.header[3] - new

    def counts_hold(self, loose: int = 0) -> bool:
        return self.header is not None and (self.header[1], self.header[3]) == self.size(loose)

    def context(self) -> tuple[int, int]:
        """Lines of context before the first change, and after the last."""
        changed = [number for number, line in enumerate(self.lines) if line.kind != " "]
        return (changed[0], len(self.lines) - 1 - changed[-1]) if changed else (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDiff:
    """What a diff says of one file."""

    act: Act
    path: str
    """Its name afterwards; of a deleted file, before. Empty when the diff has hunks alone."""
    source: str = ""
    """Of a renamed or copied file, its name before."""
    hunks: tuple[Hunk, ...] = ()
    executable: bool | None = None
    """None: as it was."""
    whole: bool = False
    """Whether a deletion says nothing of what is deleted."""


def parse(diff: str) -> tuple[FileDiff, ...]:
    """Every file that the diff speaks of, in its order. `ToolFailed` for what cannot be read for certain.

    Code fences and words around are skipped. A hunk keeps the carriage returns of its lines, unless every line of the
    diff has one: then the diff was converted as a whole.
    """
    lines = diff.removeprefix(MARK).split("\n")
    if lines and not lines[-1].strip("\r"):
        lines.pop()
    if lines and all(line.endswith("\r") for line in lines[:-1] or lines):
        lines = [line.removesuffix("\r") for line in lines]
    return _Reader(lines).files()


@dataclass(slots=True)
class _Head:
    """The lines above the hunks of a file."""

    git: tuple[str, str] | None = None
    old: str = ""
    new: str = ""
    source: str = ""
    target: str = ""
    copied: bool = False
    added: bool = False
    deleted: bool = False
    executable: bool | None = None


@dataclass(slots=True)
class _Reader:
    lines: Sequence[str]
    at: int = 0
    fence: bool = False
    """Whether a code fence is open."""
    words: bool = True
    """Whether lines that are no part of a diff may stand here."""
    read: list[FileDiff] = field(default_factory=list)

    def files(self) -> tuple[FileDiff, ...]:
        while self.at < len(self.lines):
            line = self._line()
            if line.startswith(_FENCES):
                self._fence()
            elif line.startswith("*** Begin Patch") or _ENVELOPE.fullmatch(line):
                self._envelope()
            elif self._begins_file():
                self._file()
            elif line.startswith("@@"):
                self._bare()
            elif line.strip() and not self.words:
                raise self._stray()
            else:
                self.at += 1
        if self.read and self.read[-1].hunks:
            self.read[-1].hunks[-1].last = True
        return tuple(self.read)

    def _line(self, ahead: int = 0) -> str:
        """The line `ahead`, without a carriage return; empty after the end."""
        at = self.at + ahead
        return self.lines[at].rstrip("\r") if at < len(self.lines) else ""

    def _stray(self) -> ToolFailed:
        return ToolFailed(
            f"line {self.at + 1} of the diff ({quote(self._line())}) belongs to no hunk",
            hint="begin each file with --- and +++ lines and each hunk with @@",
        )

    # fences ----------------------------------------------------------------------------------------------------------

    def _fence(self) -> None:
        """A fence outside hunks: one that opens after a first file must open another."""
        self.at += 1
        self.fence = not self.fence
        self.words = not (self.fence and self.read)
        if self.fence and self.read:
            while self.at < len(self.lines) and not self._line().strip():
                self.at += 1
            if not self._line().startswith(_STARTS):
                self.at -= 1
                raise self._fenced()

    def _closes(self) -> None:
        """Refuse a fence met in a hunk that may also be context whose space was lost."""
        bare = not self._line().strip("`~ ")
        if not (self.fence and bare) and any(line.strip() for line in self.lines[self.at + 1 :]):
            raise self._fenced()

    def _fenced(self) -> ToolFailed:
        return ToolFailed(
            f"line {self.at + 1} of the diff is a code fence, and more follows",
            hint="give one diff in one block; context lines begin with one space",
        )

    # heads -----------------------------------------------------------------------------------------------------------

    def _begins_file(self) -> bool:
        line, following = self._line(), self._line(1)
        if line.startswith(("diff --git ", "diff --cc ", "diff --combined ")):
            return True
        if line.startswith("--- "):
            return following.startswith(("+++ ", "@@"))
        if line.startswith("diff -"):
            return following.startswith("--- ")
        if line.startswith("Index: "):
            return following.startswith("=====")
        return line.startswith(("rename from ", "copy from ")) and following.startswith(("rename to ", "copy to "))

    def _file(self) -> None:
        head, began = _Head(), self.at
        while self.at < len(self.lines) and (self.at == began or self._continues(head)):
            _head_line(head, self._line())
            self.at += 1
        while self._blank_before_hunk():
            self.at += 1
        self.words = False
        self.read.append(_named(head, self._hunks() if self._line().startswith("@@") else ()))

    def _continues(self, head: _Head) -> bool:
        line = self._line()
        if line.startswith(("--- ", "+++ ")) and (head.old if line.startswith("---") else head.new):
            return False  # of the next file
        return line.startswith(_HEAD)

    def _blank_before_hunk(self) -> bool:
        ahead = next((line for line in self.lines[self.at :] if line.strip()), "")
        return not self._line().strip() and ahead.startswith("@@")

    def _bare(self) -> None:
        """Hunks without the names of a file."""
        if self.read:
            raise self._fenced() if self.words else self._stray()
        self.words = False
        self.read.append(FileDiff(act=Act.CHANGE, path="", hunks=self._hunks()))

    # hunks -----------------------------------------------------------------------------------------------------------

    def _hunks(self) -> tuple[Hunk, ...]:
        hunks: list[Hunk] = []
        while self.at < len(self.lines):
            line = self._line()
            if line.startswith("@@"):
                hunks.append(_hunk(len(hunks) + 1, line))
            elif self._ends(hunks[-1]):
                break
            else:
                _take(hunks[-1], self.lines[self.at], self.at + 1)
            self.at += 1
        for hunk in hunks:
            _settle(hunk)
        return tuple(hunks)

    def _ends(self, hunk: Hunk) -> bool:
        """Whether the hunk ends before this line: a fence, another file or the signature of a mail is there."""
        line = self._line()
        if line.startswith(_FENCES):
            self._closes()
            return True
        if line.startswith("--- ") and self._line(1).startswith("+++ ") and self._line(2).startswith("@@"):
            # Two changed lines that begin with "-- " and "++ " look the same: only right counts can tell, and names
            # with the prefixes of a diff are none.
            left = (hunk.header[1] - hunk.size()[0], hunk.header[3] - hunk.size()[1]) if hunk.header else (0, 0)
            return left != (1, 1) or _prefixed(_name(line[4:]), _name(self._line(1)[4:]))
        if line in ("--", "-- ") and hunk.counts_hold():  # below a patch that was made for mail
            following = next((later for later in self.lines[self.at + 1 :] if later.strip()), "")
            self.words = not following.startswith((" ", "+", "-", "@"))
            return self.words
        return not line.startswith("--- ") and (self._begins_file() or line.startswith(("*** Begin", "*** End Patch")))

    # *** Begin Patch -------------------------------------------------------------------------------------------------

    def _envelope(self) -> None:
        """The form that some agents write: `*** Update File: NAME`, and hunks whose headers are lines of the file."""
        while self.at < len(self.lines):
            line = self._line()
            found = _ENVELOPE.fullmatch(line)
            if line.startswith(("*** End Patch", *_FENCES)):
                break
            self.at += 1
            if found is not None:
                self.read.append(self._envelope_file(found[1], found[2]))
            elif line.strip() and not line.startswith("*** Begin Patch"):
                self.at -= 1
                raise self._stray()
        self.at += self._line().startswith("***")
        self.words = True

    def _envelope_file(self, what: str, name: str) -> FileDiff:
        if what == "Delete":
            return FileDiff(act=Act.DELETE, path=name, whole=True)
        target = ""
        if self._line().startswith("*** Move to:"):
            target = self._line().removeprefix("*** Move to:").strip()
            self.at += 1
        hunks = self._envelope_hunks(what == "Add")
        if what == "Add":
            return FileDiff(act=Act.ADD, path=name, hunks=hunks)
        if target:
            return FileDiff(act=Act.RENAME, path=target, source=name, hunks=hunks)
        return FileDiff(act=Act.CHANGE, path=name, hunks=hunks)

    def _envelope_hunks(self, adds: bool) -> tuple[Hunk, ...]:
        hunks: list[Hunk] = []
        header: Hunk | None = Hunk(1, None)
        while self.at < len(self.lines):
            line = self._line()
            if line.startswith("*** End of File") and hunks:
                hunks[-1].at_end = True
            elif line.startswith(("*** ", *_FENCES)):
                break
            elif line.startswith("@@"):
                above = header.anchors if header is not None else ()
                header = _hunk(0, line)
                header.anchors = (*above, *header.anchors)
            else:
                if adds and not line.startswith("+"):
                    raise self._stray()
                if header is not None and (line.strip() or adds):
                    hunks.append(header)
                    header = None
                if header is None:
                    _take(hunks[-1], self.lines[self.at], self.at + 1)
            self.at += 1
        for number, hunk in enumerate(hunks, 1):
            hunk.number = number
            _settle(hunk)
        return tuple(hunks)


# lines of a head ------------------------------------------------------------------------------------------------------


def _head_line(head: _Head, line: str) -> None:
    if line.startswith(("diff --cc ", "diff --combined ")):
        raise _combined()
    if line.startswith(("GIT binary patch", "Binary files ")):
        raise ToolFailed(f"the diff changes a binary file ({quote(line)})", hint="only text can be changed")
    if line.startswith("diff --git "):
        head.git = _git_names(line.removeprefix("diff --git "))
    elif line.startswith("--- "):
        head.old = _name(line[4:])
    elif line.startswith("+++ "):
        head.new = _name(line[4:])
    elif line.startswith(("rename from ", "copy from ")):
        head.copied = line.startswith("copy")
        head.source = _unquoted(line.split(" from ", 1)[1])
    elif line.startswith(("rename to ", "copy to ")):
        head.target = _unquoted(line.split(" to ", 1)[1])
    elif line.startswith(("old mode ", "new mode ", "new file mode ", "deleted file mode ")):
        executable = _executable(line.rsplit(" ", 1)[-1])
        head.added |= line.startswith("new file")
        head.deleted |= line.startswith("deleted")
        head.executable = executable if line.startswith("new") else head.executable
    elif line.startswith("index ") and line.count(" ") == 2:
        _executable(line.rsplit(" ", 1)[-1])


def _executable(mode: str) -> bool:
    if mode not in _MODES:
        what = {"120000": "a link", "160000": "a submodule"}.get(mode, f"a file of the mode {mode[:20]!r}")
        raise ToolFailed(f"the diff changes {what}", hint="only regular files can be changed")
    return _MODES[mode]


def _named(head: _Head, hunks: tuple[Hunk, ...]) -> FileDiff:
    """The file that a head and its hunks speak of."""
    old, new = _sides(head.old, head.new)
    if head.git is not None and head.git[0] == head.git[1] and _base(head.git[0]) in (_base(old), _base(new), ""):
        old, new = (side if side == _NOTHING else head.git[0] for side in (old, new))
    old, new = old or new, new or old
    if not old and head.git is not None:
        old, new = head.git
    if head.source and head.target:
        act = Act.COPY if head.copied else Act.RENAME
        return FileDiff(act=act, path=head.target, source=head.source, hunks=hunks, executable=head.executable)
    added, deleted = head.added or old == _NOTHING, head.deleted or new == _NOTHING
    path = old if deleted else new
    if (added and deleted) or not path or path == _NOTHING:
        raise ToolFailed(
            "the diff does not say which file it changes", hint="name it in lines --- a/NAME and +++ b/NAME"
        )
    if added or deleted:
        act = Act.ADD if added else Act.DELETE
        return FileDiff(act=act, path=path, hunks=hunks, executable=head.executable)
    other = "" if old == new else old
    return FileDiff(act=Act.CHANGE, path=new, source=other, hunks=hunks, executable=head.executable)


def _sides(old: str, new: str) -> tuple[str, str]:
    """The names of the two sides without what a diff puts before them."""
    if old == new or not (old or new):
        return old, new
    if _NOTHING in (old, new) or not (old and new):
        return old.removeprefix("a/"), new.removeprefix("b/")
    for first, second in _PREFIXES:
        if old.startswith(first + "/") and new.startswith(second + "/"):
            pair = old[len(first) + 1 :], new[len(second) + 1 :]
            if pair[0] == pair[1] or first == "a":
                return pair
    if old == "a/" + new or new == "b/" + old:
        return min(old, new, key=len), min(old, new, key=len)
    return old, new


def _prefixed(old: str, new: str) -> bool:
    """Whether these are the names of a file as the head of a diff has them."""
    pairs = ((old, new), (old, "b/" if new == _NOTHING else new), ("a/" if old == _NOTHING else old, new))
    return any(first.startswith("a/") and second.startswith("b/") for first, second in pairs)


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _git_names(text: str) -> tuple[str, str] | None:
    """The two names behind `diff --git`; None where spaces leave open which they are."""
    middle = len(text) // 2
    if '"' not in text and text[middle : middle + 1] == " ":
        pair = _sides(text[:middle], text[middle + 1 :])
        if pair[0] == pair[1]:
            return pair
    match = _GIT_NAMES.fullmatch(text)
    return _sides(_unquoted(match[1]), _unquoted(match[2])) if match else None


def _name(text: str) -> str:
    """A name behind `---` or `+++`, without a time after it."""
    if text.startswith('"'):
        return _unquoted(text)
    name, tab, _ = text.partition("\t")
    return name if tab else _STAMP.sub("", text).rstrip()


def _unquoted(text: str) -> str:
    """A name as it is; git quotes what is not plain ASCII, as C does."""
    if not text.startswith('"'):
        return text
    inner = text[1:].partition('"')[0] if "\\" not in text else text[1:].rsplit('"', 1)[0]
    raw = _ESCAPE.sub(lambda match: f"\0{_code(match[1]):03d}", inner)
    head, *coded = raw.split("\0")
    data = head.encode() + b"".join(bytes([int(part[:3])]) + part[3:].encode() for part in coded)
    return data.decode("utf-8", "surrogateescape")


def _code(escape: str) -> int:
    return int(escape, 8) & 255 if len(escape) == 3 else _ESCAPED[escape]


# lines of a hunk ------------------------------------------------------------------------------------------------------


def _combined() -> ToolFailed:
    return ToolFailed("the diff is a combined diff of a merge", hint="give a plain unified diff")


def _hunk(number: int, line: str) -> Hunk:
    if line.startswith("@@@"):
        raise _combined()
    match = _HEADER.match(line)
    heading = line[match.end() if match else 2 :].strip().removesuffix("@@").strip()
    anchors = (heading,) if len(heading) > 2 and heading != "..." else ()
    if match is None:
        return Hunk(number, None, anchors=anchors)
    start, count, new_start, new_count = match.groups(default="1")
    header = int(start), int(count), int(new_start), int(new_count)
    return Hunk(number, header, counted=bool(match[2] or match[4]), anchors=anchors)


def _take(hunk: Hunk, line: str, number: int) -> None:
    if line.rstrip("\r") == "":
        hunk.loose += 1
        return
    if line.startswith("\\"):
        if not hunk.lines or hunk.loose:
            raise ToolFailed(f"line {number} of the diff ({quote(line)}) follows no line of a hunk")
        last = hunk.lines[-1]
        hunk.lines[-1] = Line(last.kind, last.text, ended=False)
        return
    if line[0] not in " -+":
        raise ToolFailed(
            f"line {number} of the diff ({quote(line)}) begins with neither space, - nor +",
            hint="context lines begin with one space",
        )
    hunk.lines += [Line(" ", "")] * hunk.loose
    hunk.loose = 0
    hunk.lines.append(Line(line[0], line[1:]))


def _settle(hunk: Hunk) -> None:
    """Empty lines at the end of a hunk are context when its counts say so; else they only part it from what follows."""
    held = next((loose for loose in range(1, hunk.loose + 1) if hunk.counts_hold(loose)), 0)
    hunk.lines += [Line(" ", "")] * held
    hunk.loose -= held
    if all(line.kind == " " for line in hunk.lines):
        raise ToolFailed(f"hunk {hunk.number} of the diff changes nothing", hint="mark changed lines with - and +")


def quote(line: str) -> str:
    return repr(line if len(line) <= 120 else line[:117] + "…")
