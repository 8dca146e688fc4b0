"""Takes back what the agent did to files, by comparing before, after and now; what anyone else did stays."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from agentd.errors import AgentdError, ToolFailed
from agentd.workspace.blobs import Blobs, digest_of
from agentd.workspace.merge import MAX_MERGED, merge
from agentd.workspace.names import MAX_NAME
from agentd.workspace.paths import LEFTOVER, Entry, Keep, Workspace, settle, temporary_of
from agentd.workspace.standing import ABSENT, Standing, mark, standing

BEFORE, AFTER = "agentd-before", "agentd-after"
"""Ends of names under which something is put beside a file."""
_TRIES = 3

Histories = Mapping[str, Sequence["Segment"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One change of a path."""

    before: Standing
    after: Standing
    done: bool = True
    """False when it is not known whether it took place."""
    shared: bool = False
    """Somebody else may have done it: it was found after tests had run for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A path of which not all could be taken back, and where what stood there before can be found."""

    path: str
    reason: str
    beside: tuple[str, ...] = ()
    """Hold what stood there before the agent came, and before it came again after others; empty when nothing did, or
    it could not be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    paths: tuple[str, ...] = ()
    """As they were before the agent, but for what others have changed in them since."""
    merged: tuple[str, ...] = ()
    """Of these, those in which others have changed something since."""
    kept: tuple[str, ...] = ()
    """Files that hold what stood at some of these paths, where it was not certain that it was the agent's."""
    conflicts: tuple[Conflict, ...] = ()
    already: tuple[str, ...] = ()
    """They stood already as they stood before."""

    @property
    def told(self) -> dict[str, Any]:
        """For the audit log."""
        return {
            "paths": list(self.paths[:1000]),
            "merged": list(self.merged[:1000]),
            "kept": list(self.kept[:1000]),
            "conflicts": [[each.path, each.reason, *each.beside] for each in self.conflicts[:1000]],
            "already": len(self.already),
        }


@dataclass(slots=True, kw_only=True)
class _Aim:
    """What is to become of one path."""

    place: str
    now: Standing
    seen: tuple[int, ...]
    wanted: Standing
    merged: bool = False
    keep: tuple[Standing, ...] = ()
    """What may be others' doing, and goes beside it before anything is taken back."""
    clash: str = ""
    """Why not all that the agent did to it can be taken back."""
    lost: tuple[Standing, ...] = ()
    """For a clash: what stood there before, and goes beside it."""


@dataclass(slots=True)
class _Tally:
    paths: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    already: list[str] = field(default_factory=list)

    def all(self) -> Restored:
        return Restored(
            paths=tuple(sorted(self.paths)),
            merged=tuple(sorted(self.merged)),
            kept=tuple(dict.fromkeys(self.kept)),
            conflicts=tuple(sorted(self.conflicts, key=lambda each: each.path)),
            already=tuple(sorted(self.already)),
        )


class _Changed(ToolFailed):
    """Somebody changed the path since it was looked at."""


class Restorer:
    """`keep` is told of each change, so that it can be taken back as well. After a crash it is done again: it comes to
    the same end."""

    def __init__(self, workspace: Workspace, blobs: Blobs, keep: Keep, key: str) -> None:
        self._workspace = Workspace(workspace.root, keep)
        self._unkept = Workspace(workspace.root)
        self._blobs = blobs
        self._keep = keep
        self._key = key
        self._merged: dict[bytes, bytes] = {}
        self._modes: dict[str, int] = {}
        """Those that folders get at the end, which let nobody write in them."""

    def preview(self, histories: Histories) -> Restored:
        """What `restore` would do; changes nothing."""
        tally = _Tally()
        for aim in self._aims(histories).values():
            self._count(aim, tally)
        return tally.all()

    def restore(self, histories: Histories) -> Restored:
        """First what must go, the deepest first, then what must come, so that a file can stand where a folder was."""
        tally, aims = _Tally(), self._aims(histories)
        first = {place: aim.now for place, aim in aims.items()}
        try:
            self._do(histories, tally, aims, first)
        finally:
            for place in sorted(self._modes, key=_depth, reverse=True):
                self._chmod(place, self._modes[place])
        return tally.all()

    def _do(self, histories: Histories, tally: _Tally, aims: dict[str, _Aim], first: Mapping[str, Standing]) -> None:
        for place, aim in aims.items():
            if aim.now.kind == "folder" and _must_go(aim) and aim.now.mode & stat.S_IRWXU != stat.S_IRWXU:
                self._chmod(place, aim.now.mode | stat.S_IRWXU)
                self._modes[place] = aim.now.mode
        for place in sorted(aims, key=_depth, reverse=True):
            aims[place] = self._tried(aims[place], histories[place], tally, _must_go, self._clear)
        for place in sorted(aims, key=_depth):
            aim = self._tried(aims[place], histories[place], tally, _must_change, self._make)
            # Where it stands already as it did before, others may all the same have been there in between.
            aim = self._tried(aim, histories[place], tally, _has_to_keep, lambda _: None)
            beside = dict.fromkeys(self._beside(aim.place, each, BEFORE) for each in aim.lost if aim.clash)
            self._count(replace(aim, now=first[place]), tally, tuple(filter(None, beside)))

    def _chmod(self, place: str, mode: int) -> None:
        """Give a folder that stands there this mode, unless that may not be."""
        with suppress(AgentdError, OSError):
            if self._reachable(place) and stat.S_ISDIR(_mode(self._workspace.root / place)):
                with self._unkept.at(place) as entry:
                    _change_mode(entry, mode)

    # what is to become of a path --------------------------------------------------------------------------------------

    def _aims(self, histories: Histories) -> dict[str, _Aim]:
        aims = {place: self._aim(place, history) for place, history in histories.items()}
        for place in sorted(aims, key=_depth, reverse=True):
            aim = aims[place]
            if aim.now.kind == "folder" and _must_go(aim) and (others := self._others(place, aims)):
                aim.lost = tuple(segment.before for segment in _joined(histories[place]))
                _give_up(aim, f"the folder holds {others[0]}, which is not the task's")
        return aims

    def _others(self, place: str, aims: Mapping[str, _Aim]) -> list[str]:
        """What stays in a folder that should go."""
        with suppress(OSError):
            names = (f"{place}/{name}" for name in sorted(os.listdir(self._workspace.root / place)))
            stay = (name for name in names if name not in aims or not _must_go(aims[name]))
            return [name for name in stay if not _is_leftover(name)]
        return []

    def _aim(self, place: str, history: Sequence[Segment]) -> _Aim:
        """Take the changes back one by one, from the last: what each made, or the same within what others made."""
        now, seen = self._look(place)
        aim = _Aim(place=place, now=now, seen=seen, wanted=now)
        joined = _joined(history)
        for number in reversed(range(len(joined))):
            self._undo(aim, joined[number])
            if aim.clash:
                # What others had made of it, before the agent wrote over that, is nowhere else.
                aim.lost = tuple(segment.before for segment in joined[: number + 1])
                break
        if aim.wanted.kind == "other" and now.kind != "other":
            _give_up(aim, "it was a pipe, socket or device, which cannot be made again")
        return aim

    def _undo(self, aim: _Aim, segment: Segment) -> None:
        stands, before, after = aim.wanted, segment.before, segment.after
        if stands.same(before):
            if stands.mode == after.mode and before.same(after):
                aim.wanted = replace(stands, mode=before.mode)
        elif stands.same(after):
            changed_mode = before.kind == after.kind == "file" and stands.mode != after.mode
            aim.wanted = replace(before, mode=stands.mode) if changed_mode else before
        elif (text := self._together(aim, segment)) is not None:
            aim.wanted, aim.merged = text, True
        else:
            aim.clash = _why(stands, before, after)
            return
        if segment.shared and not before.same(after) and not stands.same(before):
            aim.keep = (*aim.keep, after)

    def _together(self, aim: _Aim, segment: Segment) -> Standing | None:
        """A text that others have changed too, without the agent's change."""
        three = (segment.after, aim.wanted, segment.before)
        if any(each.kind != "file" or each.size > MAX_MERGED for each in three):
            return None
        try:
            text = merge(*(b"".join(self._bytes(aim.place, each)) for each in three))
        except AgentdError:
            return None  # not kept, or not the same any more
        if text is None:
            return None
        mode = segment.before.mode if aim.wanted.mode == segment.after.mode else aim.wanted.mode
        found = Standing(kind="file", mode=mode, size=len(text), digest=digest_of(BytesIO(text)))
        self._merged[found.digest] = text
        return found

    def _bytes(self, place: str, of: Standing) -> Iterable[bytes]:
        """The bytes of a file or link, from wherever they are."""
        if of.digest in self._merged:
            return [self._merged[of.digest]]
        if self._blobs.has(of.digest):
            return self._blobs.read(of.digest)
        with self._workspace.at(place) as entry, open(entry.open(), "rb") as stream:
            data = stream.read(MAX_MERGED + 1)
        if digest_of(BytesIO(data)) != of.digest:
            raise _Changed(f"{place} was changed while it was compared")
        return [data]

    def _look(self, place: str) -> tuple[Standing, tuple[int, ...]]:
        """What stands there, and how a change of it can be noticed."""
        if not self._reachable(place):
            return ABSENT, ()
        with self._workspace.at(place) as entry:
            seen = mark(entry.stat())
            return standing(entry, lambda stream, size: digest_of(stream)), seen

    def _reachable(self, place: str) -> bool:
        """Whether all folders on the way to it are there, and are folders."""
        names = place.split("/")[:-1]
        ways = ("/".join(names[: number + 1]) for number in range(len(names)))
        return all(stat.S_ISDIR(_mode(self._workspace.root / way)) for way in ways)

    # making it so -----------------------------------------------------------------------------------------------------

    def _tried(
        self,
        aim: _Aim,
        history: Sequence[Segment],
        tally: _Tally,
        needed: Callable[[_Aim], bool],
        do: Callable[[_Aim], None],
    ) -> _Aim:
        """`aim` after `do`; aimed anew when somebody was faster, a clash when it cannot be done."""
        for _ in range(_TRIES):
            if not needed(aim):
                return aim
            try:
                tally.kept += self._put_aside(aim)
                do(aim)
                return aim
            except _Changed:
                aim = self._aim(aim.place, history)
            except (AgentdError, OSError) as error:
                aim.lost = tuple(segment.before for segment in _joined(history))
                _give_up(aim, _words(error))
                return aim
        aim.lost = tuple(segment.before for segment in _joined(history))
        _give_up(aim, "it is being written by someone else")
        return aim

    def _put_aside(self, aim: _Aim) -> list[str]:
        """Where what may be others' doing is now. Raises `ToolFailed` when it could be put nowhere."""
        names = []
        for each in aim.keep:
            if each.kind in ("file", "link"):
                names.append(self._beside(aim.place, each, AFTER))
                if not names[-1]:
                    raise ToolFailed("it changed while tests ran, and what stood there then cannot be put beside it")
        aim.keep = ()
        return names

    def _clear(self, aim: _Aim) -> None:
        """Take away what stands there."""
        if aim.now.kind == "folder":
            self._sweep(aim.place)
        with self._workspace.at(aim.place) as entry, self._keep({entry: ABSENT}):
            _must_be(entry, aim)
            if aim.now.kind == "folder":
                os.rmdir(entry.name, dir_fd=entry.folder)
            else:
                os.unlink(entry.name, dir_fd=entry.folder)
        aim.now, aim.seen = ABSENT, ()

    def _sweep(self, folder: str) -> None:
        """Take away what a crash of ours has left in a folder."""
        for name in filter(_is_leftover, os.listdir(self._workspace.root / folder)):
            with self._unkept.at(f"{folder}/{name}") as entry:
                entry.remove()

    def _make(self, aim: _Aim) -> None:
        """Make there what is wanted."""
        with self._workspace.at(aim.place, make=True) as entry:
            if aim.wanted.same(aim.now):
                with self._keep({entry: aim.wanted}):
                    _must_be(entry, aim)
                    _change_mode(entry, aim.wanted.mode)
            elif aim.wanted == ABSENT:
                self._clear(aim)
            elif aim.wanted.kind == "folder":
                with self._keep({entry: aim.wanted}):
                    _must_be(entry, aim)
                    os.mkdir(entry.name, dir_fd=entry.folder)
                    _change_mode(entry, aim.wanted.mode | stat.S_IRWXU)
                    self._modes[aim.place] = aim.wanted.mode
            else:
                self._replace(entry, aim)

    def _replace(self, entry: Entry, aim: _Aim) -> None:
        with temporary_of(entry, self._key) as temporary:
            self._fill(temporary, aim)
            with self._keep({entry: temporary}):
                _must_be(entry, aim)
                temporary.rename(entry)

    def _fill(self, entry: Entry, aim: _Aim) -> None:
        pieces = self._bytes(aim.place, aim.wanted)
        if aim.wanted.kind == "link":
            os.symlink(os.fsdecode(b"".join(pieces)), entry.name, dir_fd=entry.folder)
            return
        with os.fdopen(entry.create(), "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            settle(stream, None)
            os.chmod(stream.fileno(), aim.wanted.mode)

    def _beside(self, place: str, what: Standing, ending: str) -> str:
        """Put a file or link beside the path, under a name that is free; where it is, empty when nothing could be."""
        if what.kind not in ("file", "link"):
            return ""
        folder = f"{PurePosixPath(place).parent}/" if self._reachable(place) and "/" in place else ""
        for number in count(1):
            name = _beside_name(PurePosixPath(place).name, f"{ending}-{number}" if number > 1 else ending)
            try:
                if self._is_or_gets(folder + name, place, what):
                    return folder + name
            except (AgentdError, OSError):
                break
        return ""

    def _is_or_gets(self, name: str, place: str, what: Standing) -> bool:
        """Whether `name` holds `what` now; not when something else has the name."""
        now, _ = self._look(name)
        if now != ABSENT:
            return now.same(what)
        with self._unkept.at(name) as entry, temporary_of(entry, self._key) as temporary:
            self._fill(temporary, _Aim(place=place, now=ABSENT, seen=(), wanted=what))
            temporary.rename(entry)
        return True

    def _count(self, aim: _Aim, tally: _Tally, beside: tuple[str, ...] = ()) -> None:
        if aim.clash:
            tally.conflicts.append(Conflict(path=aim.place, reason=aim.clash, beside=beside))
        if aim.wanted != aim.now:
            tally.paths.append(aim.place)
            tally.merged += [aim.place] * aim.merged
        elif not aim.clash:
            tally.already.append(aim.place)


def _is_leftover(place: str) -> bool:
    name = PurePosixPath(place).name
    return name.startswith(LEFTOVER[0]) and name.endswith(LEFTOVER[1])


def _joined(history: Sequence[Segment]) -> list[Segment]:
    """Changes that follow each other with nothing in between, as one."""
    joined: list[Segment] = []
    for segment in history:
        last = joined[-1] if joined else None
        if last and last.done and segment.done and last.shared == segment.shared and last.after == segment.before:
            joined[-1] = replace(last, after=segment.after)
        else:
            joined.append(segment)
    return joined


def _give_up(aim: _Aim, why: str) -> None:
    """Leave the path as it is now."""
    aim.clash, aim.wanted = why, aim.now


def _must_go(aim: _Aim) -> bool:
    """Whether what stands there has to be away before anything else can come."""
    if aim.now == ABSENT or not _must_change(aim):
        return False
    return aim.wanted == ABSENT or (aim.now.kind == "folder") != (aim.wanted.kind == "folder")


def _must_change(aim: _Aim) -> bool:
    return aim.wanted != aim.now


def _has_to_keep(aim: _Aim) -> bool:
    return bool(aim.keep)


def _must_be(entry: Entry, aim: _Aim) -> None:
    if mark(entry.stat()) != aim.seen:
        raise _Changed(f"{aim.place} was changed while it was restored")


def _change_mode(entry: Entry, mode: int) -> None:
    opened = entry.open()
    try:
        os.chmod(opened, mode)
    finally:
        os.close(opened)


def _why(stands: Standing, before: Standing, after: Standing) -> str:
    if stands == ABSENT:
        return "someone else has deleted it since"
    if before == ABSENT:
        return "the task made it, and someone else has changed it since"
    if after == ABSENT:
        return "the task deleted it, and someone else has made another since"
    return "someone else has changed it since, at the same place or in a form that cannot be compared"


def _words(error: Exception) -> str:
    if isinstance(error, AgentdError):
        return error.message
    if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
        return "the folder holds files that are not the task's"
    return getattr(error, "strerror", None) or str(error)


def _depth(place: str) -> tuple[int, str]:
    return (place.count("/"), place)


def _mode(path: Path) -> int:
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return 0


def _beside_name(name: str, ending: str) -> str:
    """The name with an ending, cut where a name may be no longer."""
    room = MAX_NAME - len(ending) - 1
    return f"{os.fsdecode(os.fsencode(name)[:room])}.{ending}"
