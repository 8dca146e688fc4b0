"""Copies of workspaces to try work in: nothing in them leads back to the original, and nothing of them is left."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentd.errors import Cancelled, StoreError, ToolFailed
from agentd.home import make_private
from agentd.workspace.hunks import NOTHING, Content
from agentd.workspace.paths import Workspace

if sys.platform == "linux":
    import fcntl

MAX_FILES = 200_000
MAX_COUNTED = 1_000_000
"""Files that are compared; those that .gitignore names are not."""
SPARE = 256 * 1024 * 1024
"""Bytes that a copy leaves free on its disk."""

_CLONE = 0x40049409  # FICLONE of linux/fs.h: the copy shares its blocks with the original until one of them changes
_GIT = ".git"
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One file that is not as it was."""

    path: str
    before: Content
    after: Content


class Shadows:
    """One copy for each task, below `folder`: what is worked in, and beside it what it was at first.

    `spare`: places that are never copied. `active`: the tasks that may need theirs still.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_mb: Callable[[], int],
        spare: Collection[Path] = (),
        active: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._folder = folder
        self._max_mb = max_mb
        self._spare = {path.resolve() for path in (*spare, folder)}
        self._active = active

    def open(self, task: str, root: Path, cancel: threading.Event) -> Path:
        """The copy of `root` that this task works in: the one it has already, else a new one.

        `ToolFailed` for what is too large to be copied, `Cancelled` when told so.
        """
        here = self._folder / task
        work = here / "work" / root.name
        if (here / "ready").exists():
            return work
        self.sweep()
        make_private(self._folder)
        shutil.rmtree(here, ignore_errors=True)
        copying = _Copying(root, self._max_mb() * 1024 * 1024, self._spare, cancel)
        try:
            for name in ("work", "first"):
                (here / name).mkdir(mode=0o700, parents=True)
            copying.copy(work)
            # What it was at first is copied from the copy: the original may change meanwhile.
            _Copying(work, copying.most, set(), cancel, git=False).copy(here / "first" / root.name)
            (here / "ready").touch()
        except BaseException as error:
            shutil.rmtree(here, ignore_errors=True)
            if isinstance(error, OSError):
                raise ToolFailed(f"{root} could not be copied: {error.strerror or error}") from None
            raise
        return work

    def changes(self, task: str, root: Path, also: Collection[str] = ()) -> list[Changed]:
        """What is not as it was at first, by path, outside .git: files that count, and those at the paths in `also`."""
        first, work = (self._folder / task / name / root.name for name in ("first", "work"))
        if not (self._folder / task / "ready").exists():
            return []
        paths = {path for side in (first, work) for path in Workspace(side).files(MAX_COUNTED)}
        paths |= {path for named in also for side in (first, work) for path in _below(side, named)}
        found = []
        for path in sorted(paths):
            before, after = content(first / path), content(work / path)
            if before != after:
                found.append(Changed(path=path, before=before, after=after))
        return found

    def close(self, task: str) -> None:
        """Remove the task's copy."""
        shutil.rmtree(self._folder / task, ignore_errors=True)

    def sweep(self) -> None:
        """Remove the copies of tasks that are over."""
        if not self._folder.is_dir():
            return
        active = set(self._active())
        for entry in self._folder.iterdir():
            if entry.name not in active:
                shutil.rmtree(entry, ignore_errors=True)


class _Copying:
    """Copies one folder; counts what it has copied."""

    def __init__(
        self, root: Path, most: int, spare: Collection[Path], cancel: threading.Event, *, git: bool = True
    ) -> None:
        self.most = most
        self._root = root.resolve()
        self._spare = spare
        self._cancel = cancel
        self._git = git
        self._bytes = self._files = 0

    def copy(self, target: Path) -> None:
        free = shutil.disk_usage(target.parent).free - SPARE
        self._room = min(self.most, free)
        self._folder(self._root, target)

    def _folder(self, source: Path, target: Path) -> None:
        target.mkdir(mode=0o700)
        for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
            if self._cancel.is_set():
                raise Cancelled("cancelled while the workspace was copied")
            here = Path(entry.path)
            if here in self._spare or (entry.name == _GIT and not (self._git and self._leads_inside(here))):
                continue
            if entry.is_symlink():
                self._link(here, target / entry.name)
            elif entry.is_dir():
                self._folder(here, target / entry.name)
            elif entry.is_file():
                self._file(here, target / entry.name)
        shutil.copystat(source, target)
        target.chmod(stat.S_IMODE(target.stat().st_mode) | 0o700)

    def _file(self, source: Path, target: Path) -> None:
        self._files += 1
        self._bytes += source.stat().st_size
        if self._files > MAX_FILES or self._bytes > self._room:
            raise ToolFailed(
                f"{self._root} is too large to work in a copy of it: more than {MAX_FILES:,} files or "
                f"{self._room // 1024 // 1024} MiB",
                hint="name a smaller folder with --workspace, or raise tasks.copy_mb in agentd.toml",
            )
        with os.fdopen(os.open(source, _READ), "rb") as reading, target.open("xb") as writing:
            if not _cloned(reading.fileno(), writing.fileno()):
                shutil.copyfileobj(reading, writing, 1 << 20)
        shutil.copystat(source, target)

    def _link(self, source: Path, target: Path) -> None:
        """A link that leads out of the original and into it again, as one with a whole path does, leads to the same
        thing in the copy."""
        named, depth = Path(os.readlink(source)), len(source.relative_to(self._root).parent.parts)
        leads = Path(os.path.realpath(source.parent / named.parent), named.name)
        if leads.is_relative_to(self._root) and (named.is_absolute() or _leaves(named, depth)):
            named = Path(*[".."] * depth) / leads.relative_to(self._root)
        target.symlink_to(named)

    def _leads_inside(self, git: Path) -> bool:
        """Not a link or file that has the repository elsewhere: there git would work on the original."""
        return not git.is_symlink() and git.is_dir()


def _leaves(named: Path, depth: int) -> bool:
    """Whether a link so many folders below the root goes above it on its way."""
    for part in named.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def _cloned(source: int, target: int) -> bool:
    """Whether the file system gave the target the blocks of the source."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError:
        return False
    return True


def content(path: Path) -> Content:
    """A file or link as it stands; nothing for a folder and for what is not there. Raises `StoreError`."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return Content(data=os.fsencode(os.readlink(path)), link=True)
        if not stat.S_ISREG(found.st_mode):
            return NOTHING
        return Content(data=path.read_bytes(), mode=stat.S_IMODE(found.st_mode))
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


def _below(side: Path, name: str) -> Iterator[str]:
    """The path itself, or those of the files in it."""
    if not (side / name).is_dir() or (side / name).is_symlink():
        yield name
        return
    for base, folders, names in os.walk(side / name):
        links = [each for each in folders if os.path.islink(os.path.join(base, each))]
        folders[:] = [each for each in folders if each not in (_GIT, *links)]
        yield from (Path(base, each).relative_to(side).as_posix() for each in (*names, *links))
