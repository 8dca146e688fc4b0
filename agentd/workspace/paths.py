"""A user's folder: the only door to the files in it; every path is inside its root or refused."""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import BufferedReader, FileIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias

from agentd.errors import BadInput, Denied, ToolFailed
from agentd.workspace import ignore
from agentd.workspace.names import parts_of
from agentd.workspace.standing import ABSENT, Standing

CHUNK = 1 << 20
GUARDED = (".git", ".agentd")
"""Folders that no link may lead into: policy judges a path by its name."""

LEFTOVER = (".agentd-", ".tmp")
"""How the name of a file begins and ends that is not finished: a crash may leave it."""

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_OPEN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | _NO_FOLLOW
_OPEN_FOLDER = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_DIRECTORY", 0) | _NO_FOLLOW
_HAS_DIR_FD = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in an opened folder: a link swapped into the way to it cannot redirect what is done through it."""

    path: str
    """As the caller gave it, for messages."""
    name: str
    """Relative to `folder`; the whole path where the platform has no folder descriptors."""
    folder: int | None
    place: str = ""
    """Below the root of the workspace, after links."""

    def stat(self) -> os.stat_result | None:
        """Of the entry itself, links not followed; None when there is none."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self) -> int:
        """A descriptor to read from; a link is refused, a pipe not waited on."""
        return os.open(self.name, os.O_RDONLY | _OPEN, dir_fd=self.folder)

    def create(self) -> int:
        """A descriptor of a new file to write to."""
        return os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o666, dir_fd=self.folder)

    def beside(self, name: str) -> Entry:
        """Another name in the same folder."""
        whole = name if self.folder is not None else str(Path(self.name).with_name(name))
        place = str(PurePosixPath(self.place).with_name(name)) if self.place else ""
        return Entry(path=self.path, name=whole, folder=self.folder, place=place)

    def inside(self, name: str, folder: int | None) -> Entry:
        """A name in the folder that this is, opened as `folder`."""
        whole = name if folder is not None else f"{self.name}/{name}"
        return Entry(path=f"{self.path}/{name}", name=whole, folder=folder, place=f"{self.place}/{name}")

    def held(self) -> Iterator[tuple[str, Entry]]:
        """This and all in it, a folder before what it holds, by the path below this one; each while it is its turn."""
        yield "", self
        found = self.stat()
        if found is None or not stat.S_ISDIR(found.st_mode):
            return
        with _inside(self) as folder:
            for name in sorted(os.listdir(self.name if folder is None else folder)):
                for below, entry in self.inside(name, folder).held():
                    yield f"{name}/{below}".rstrip("/"), entry

    def remove(self) -> None:
        """Remove a file, a link, or a folder with all that is in it; nothing when it is not there."""
        found = self.stat()
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(self.name, dir_fd=self.folder)
        else:
            os.unlink(self.name, dir_fd=self.folder)

    def rename(self, target: Entry) -> None:
        os.replace(self.name, target.name, src_dir_fd=self.folder, dst_dir_fd=target.folder)
        for folder in (self.folder, target.folder):
            if folder is not None:
                with suppress(OSError):  # some network file systems cannot; the rename stands all the same
                    os.fsync(folder)


Keep: TypeAlias = Callable[[Mapping[Entry, Entry | Standing]], AbstractContextManager[None]]
"""Is told of each change before it is made: at which entry, and what will stand there. Raises what stops the change;
inside the block the change takes place."""


MADE = Standing(kind="folder", mode=0o755)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileData:
    """What a file holds; `mode`: its permissions, None for those that a new file gets."""

    data: bytes
    executable: bool
    mode: int | None = None

    @property
    def state(self) -> str:
        """Tells this content from another."""
        return _state(hashlib.sha256(self.data).hexdigest(), self.executable)


class Workspace:
    """The files below `root`. Paths are texts relative to it with `/`; absolute ones inside it are taken too.

    `Denied` for a path that may lead out, `ToolFailed` for what the file system does not allow.
    """

    def __init__(self, root: Path, keep: Keep = lambda changes: nullcontext()) -> None:
        self._keep = keep
        try:
            self.root = root.resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"workspace {str(root)!r} does not exist ({error})", hint="name an existing folder"
            ) from None
        if not self.root.is_dir():
            raise BadInput(f"workspace {str(root)!r} is not a folder", hint="name the folder that holds the files")
        if self.root == Path(self.root.anchor):
            raise BadInput(f"workspace {str(root)!r} is the whole file system", hint="name the folder of one project")
        self._roots = (self.root.as_posix(), Path(os.path.abspath(root)).as_posix())

    def resolve(self, path: str) -> Path:
        """Where `path` is, with every link followed. It need not exist."""
        return self._follow(parts_of(path, self._roots), path)

    def relative(self, path: Path) -> str:
        """The posix path below the root; "." for the root itself."""
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            raise Denied(f"{path} is outside the workspace {self.root}") from None

    def real_name(self, path: str) -> str:
        """The relative path after links and spelling (`./a//b`): what policy should judge. `Denied` like `resolve`."""
        return self.relative(self.resolve(path))

    def stat(self, path: str) -> os.stat_result | None:
        """Of the file or folder, links inside the workspace followed; None when there is none."""
        with _told(path):
            return _stat(self.resolve(path))

    def identity(self, path: str) -> str | None:
        """What tells this very file, link or folder from another that stands at `path` later; a rename keeps it."""
        if self.stat(path) is None:
            return None
        with self._entry(path, follow=False) as entry, _told(path):
            found = entry.stat()
            return None if found is None else f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"

    def entries(self, path: str, limit: int = 1000) -> list[str]:
        """Names in a folder, sorted, folders with a `/` at the end; at most `limit` are looked at."""
        with _told(path), self._folder(path) as folder, os.scandir(folder) as found:
            return sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in islice(found, limit))

    def files(self, limit: int = 20_000) -> Iterator[str]:
        """Relative paths of the files that count: outside .git, not ignored; shallow folders first, names sorted."""
        return ignore.walk(self.root, self._small_text, self._leads_to_file, limit, visits=10 * limit)

    def open(self, path: str) -> BufferedReader[FileIO]:
        """Open a regular file to read. Anything else (folder, pipe, device, socket) is refused and never waited on."""
        with self._entry(path) as entry, _told(path):
            found = entry.stat()
            if found is None:
                raise self.missing(path)
            _must_be_file(path, found)
            stream = BufferedReader(FileIO(entry.open()))
            _must_be_file(path, os.fstat(stream.fileno()))
            return stream

    def read_bytes(self, path: str, limit: int = 20_000_000) -> bytes:
        """The whole file; `ToolFailed` when it has more than `limit` bytes."""
        with self.open(path) as stream, _told(path):
            data = stream.read(limit + 1)
            if len(data) > limit:
                size = os.fstat(stream.fileno()).st_size
                raise ToolFailed(f"{path} has {size} bytes, more than {limit}", hint="work on a part of it")
            return data

    def sha256(self, path: str) -> str | None:
        """Of a file's bytes, in hex; None when there is no such file."""
        found = self.stat(path)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        with self.open(path) as stream, _told(path):
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def same(self, one: str, other: str) -> bool:
        """Whether two files have the same bytes, or two folders the same names and sizes in them."""
        first, second = self.stat(one), self.stat(other)
        if first is None or second is None or stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
            return False
        if stat.S_ISDIR(first.st_mode):
            return _sizes(self.resolve(one)) == _sizes(self.resolve(other))
        return first.st_size == second.st_size and self.sha256(one) == self.sha256(other)

    def write_atomic(self, path: str, data: bytes, key: str = "", *, mode: int | None = None) -> None:
        """Make `data` the content of `path`: all of it or, on any failure, what stood there before.

        Missing folders are made; the mode is kept, or becomes `mode`. The temporary file's name follows from `key`: a
        run after a crash with the same key takes its own leftover away.
        """
        with self._entry(path, make=True) as entry, _told(path):
            found = entry.stat()
            if found is not None:
                _must_be_file(path, found)
                _must_be_writable(path, found)
            with temporary_of(entry, key) as temporary:
                with os.fdopen(temporary.create(), "wb") as stream:
                    stream.write(data)
                    settle(stream, found)
                    if mode is not None and hasattr(os, "fchmod"):
                        os.fchmod(stream.fileno(), mode & 0o777)
                with self._keep({entry: temporary}):
                    temporary.rename(entry)

    def content(self, path: str, limit: int = 20_000_000) -> FileData:
        """As `read_bytes`, with the permissions."""
        with self.open(path) as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        return FileData(data=self.read_bytes(path, limit), mode=mode, executable=bool(mode & 0o100))

    def state(self, path: str) -> str | None:
        """As `FileData.state`, of the file that is at `path`; None when there is none."""
        digest, found = self.sha256(path), self.stat(path)
        return None if digest is None or found is None else _state(digest, bool(found.st_mode & 0o100))

    def is_link(self, path: str) -> bool:
        """Whether the last name of `path` is a link."""
        parts = parts_of(path, self._roots)
        return bool(parts) and os.path.islink(self._follow(parts[:-1], path) / parts[-1])

    def lay(self, path: str, content: FileData, key: str) -> None:
        """Lay a content beside `path`, for `put` with the same key; missing folders are made."""
        with self._entry(path, make=True) as entry, _told(path):
            found = entry.stat()
            if found is not None:
                _must_be_file(path, found)
                _must_be_writable(path, found)
            with temporary_of(entry, key) as temporary, os.fdopen(temporary.create(), "wb") as stream:
                stream.write(content.data)
                settle(stream, found)
                _permit(stream, content)

    def put(self, path: str, key: str) -> None:
        """Put in place what `lay` laid beside `path`."""
        with self._entry(path) as entry, _told(path):
            laid = _laid(entry, key)
            with self._keep({entry: laid}):
                laid.rename(entry)

    def laid(self, path: str, key: str) -> str | None:
        """The state of what `lay` laid beside `path`; None for nothing."""
        if self.stat(str(PurePosixPath(path).parent)) is None:
            return None
        with self._entry(path) as entry, _told(path):
            laid = _laid(entry, key)
            if laid.stat() is None:
                return None
            with BufferedReader(FileIO(laid.open())) as stream:
                executable = bool(os.fstat(stream.fileno()).st_mode & 0o100)
                return _state(hashlib.file_digest(stream, "sha256").hexdigest(), executable)

    def copy(self, source: str, target: str, key: str = "", spare: Callable[[str], bool] | None = None) -> int:
        """Copy a file, or a folder with all in it, to a path where nothing stands; returns the bytes copied.

        `Denied` for a folder that holds a file (by its path) that is to be spared.
        """
        self._refuse_into_itself(source, target)
        found = self._must_exist(source)
        if spare is not None and stat.S_ISDIR(found.st_mode):
            self._refuse_spared(source, spare)
        with self._entry(target, make=True) as entry, _told(target):
            _must_be_free(target, entry)
            with temporary_of(entry, key) as temporary:
                if stat.S_ISDIR(found.st_mode):
                    copied = self._copy_folder(self.relative(self.resolve(source)), temporary)
                else:
                    copied = self._copy_file(source, temporary)
                with self._keep({entry: temporary}):
                    temporary.rename(entry)
        return copied

    def move(self, source: str, target: str) -> None:
        """Rename a file, link or folder to a path where nothing stands."""
        self._refuse_into_itself(source, target)
        self._must_exist(source)
        with self._entry(source, follow=False) as old, self._entry(target, make=True) as new, _told(source):
            _must_be_free(target, new)
            with self._keep({old: ABSENT, new: old}):
                old.rename(new)

    def delete(self, path: str, key: str = "", spare: Callable[[str], bool] | None = None) -> None:
        """Remove a file, a link (not what it names) or a folder with all in it.

        `Denied` for a folder that holds a git repository, or a file (by its path) that is to be spared. All is gone at
        once: a crash can only leave what `sweep` with the same key takes away.
        """
        found = self._must_exist(path)
        if stat.S_ISDIR(found.st_mode):
            self._refuse_precious(path, spare or _nothing)
        with self._entry(path, follow=False) as entry, _told(path):
            _must_be_writable(path, found)
            with temporary_of(entry, key) as temporary, self._keep({entry: ABSENT}):
                entry.rename(temporary)
                try:
                    temporary.remove()
                except OSError:
                    temporary.rename(entry)
                    raise

    def held(self, path: str) -> Iterator[str]:
        """The path itself and, of a folder, those of all files and links in it, relative to it: "." and "a/b"."""
        yield "."
        here = self.resolve(path)
        for base, folders, names in os.walk(here):
            links = [name for name in folders if os.path.islink(os.path.join(base, name))]
            yield from (Path(base, name).relative_to(here).as_posix() for name in (*names, *links))

    def sweep(self, path: str, key: str) -> None:
        """Take away what a call with this key, broken off by a crash, left beside `path`."""
        if self.stat(str(PurePosixPath(path).parent)) is None:
            return
        with self._entry(path, follow=False) as entry, _told(path), temporary_of(entry, key):
            pass

    @contextmanager
    def at(self, place: str, *, make: bool = False) -> Iterator[Entry]:
        """The entry at a path that was found in the workspace before, whatever its names are like; no link is followed.

        `ToolFailed` or `Denied` where there is no folder on the way to it; `make` missing ones.
        """
        names = place.split("/")
        if not place or "\0" in place or {"", ".", ".."} & set(names):
            raise Denied(f"path {place!r} names nothing in the workspace")
        with self._opened(self.root.joinpath(*names), place, make=make) as entry:
            yield entry

    def missing(self, path: str) -> ToolFailed:
        """The error for a path that does not exist: names what comes near."""
        files = list(self.files(2000))
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
        names = [*files, *sorted(folders)]
        base = path.rsplit("/", 1)[-1]
        near = [name for name in names if name.rsplit("/", 1)[-1] == base] or difflib.get_close_matches(path, names)
        hint = f"did you mean {', '.join(near[:3])}?" if near else f"there are: {', '.join(files[:8]) or 'no files'}"
        return ToolFailed(f"there is no {path} in the workspace", hint=hint)

    def _follow(self, parts: tuple[str, ...], path: str) -> Path:
        here = self.root
        for part in parts:
            here = here / part
            if os.path.islink(here):
                here = self._link(here, path)
        if not _real(here, path).is_relative_to(self.root):  # junctions on Windows are no symlinks
            raise Denied(f"path {path!r} leads out of the workspace {self.root}")
        return here

    def _link(self, link: Path, path: str) -> Path:
        """Where a link leads, if that is inside, exists and is nothing guarded."""
        real = _real(link, path)
        hint = "name the file itself"
        if not real.is_relative_to(self.root):
            raise Denied(f"path {path!r} is a link that leads out of the workspace {self.root}", hint=hint)
        if os.path.islink(real) or not os.path.exists(real):
            raise Denied(f"path {path!r} is a link that leads nowhere", hint=hint)
        if any(name in GUARDED for name in real.relative_to(self.root).parts):
            raise Denied(f"path {path!r} is a link into {self.relative(real)}", hint=hint)
        return real

    @contextmanager
    def _entry(self, path: str, *, follow: bool = True, make: bool = False) -> Iterator[Entry]:
        """The entry that `path` names, in its opened folder; `follow` its link, `make` missing folders."""
        real = self.resolve(path)
        if not follow:
            parts = parts_of(path, self._roots)
            real = self._follow(parts[:-1], path).joinpath(*parts[-1:])
        if real == self.root:
            raise ToolFailed(f"{path!r} is the workspace itself", hint="name something in it")
        with self._opened(real, path, make=make) as entry:
            yield entry

    @contextmanager
    def _opened(self, real: Path, path: str, *, make: bool) -> Iterator[Entry]:
        place = self.relative(real)
        missing = self._missing_folders(real, path) if make else {}
        with self._keep(missing) if missing else nullcontext():
            if not _HAS_DIR_FD:
                if make:
                    with _told(path):
                        real.parent.mkdir(parents=True, exist_ok=True)
                folder = None
            else:
                with _told(path):
                    folder = self._open_folder(real.parent, path, make)
        try:
            yield Entry(path=path, name=str(real) if folder is None else real.name, folder=folder, place=place)
        finally:
            if folder is not None:
                os.close(folder)

    def _missing_folders(self, real: Path, path: str) -> dict[Entry, Entry | Standing]:
        """The folders on the way to `real` that have to be made."""
        missing = [
            folder for folder in real.parents if folder.is_relative_to(self.root) and not os.path.lexists(folder)
        ]
        return {
            Entry(path=path, name=str(folder), folder=None, place=self.relative(folder)): MADE
            for folder in reversed(missing)
        }

    @contextmanager
    def _folder(self, path: str) -> Iterator[int | str]:
        """The folder that `path` names, opened; its path where the platform has no folder descriptors."""
        real = self.resolve(path)
        if not _HAS_DIR_FD:
            yield str(real)
            return
        with _told(path):
            folder = self._open_folder(real, path, make=False)
        try:
            yield folder
        finally:
            os.close(folder)

    def _open_folder(self, real: Path, path: str, make: bool) -> int:
        """Open a folder name by name, never through a link: `real` had none, one there now was swapped in."""
        here = os.open(self.root, _OPEN_FOLDER)
        for part in real.relative_to(self.root).parts:
            try:
                deeper = _descend(here, part, make)
            except FileNotFoundError:
                raise self.missing(path) from None
            except NotADirectoryError:
                if stat.S_ISLNK(os.stat(part, dir_fd=here, follow_symlinks=False).st_mode):
                    raise Denied(f"path {path!r} became a link while it was used") from None
                raise ToolFailed(f"{path}: {part!r} is a file, not a folder", hint="name a folder") from None
            finally:
                os.close(here)
            here = deeper
        return here

    def _must_exist(self, path: str) -> os.stat_result:
        found = self.stat(path)
        if found is None:
            raise self.missing(path)
        return found

    def _refuse_into_itself(self, source: str, target: str) -> None:
        if self.resolve(target).is_relative_to(self.resolve(source)):
            raise ToolFailed(f"{target} is {source} itself or lies in it", hint="choose another target")

    def _refuse_precious(self, path: str, spare: Callable[[str], bool]) -> None:
        for _, folders, names in os.walk(self.resolve(path)):
            if ".git" in folders or ".git" in names:
                raise Denied(f"{path} holds a git repository", hint="delete the files in it one by one")
        self._refuse_spared(path, spare)

    def _refuse_spared(self, path: str, spare: Callable[[str], bool]) -> None:
        for base, _, names in os.walk(self.resolve(path)):
            for name in names:
                held = self.relative(Path(base) / name)
                if spare(held):
                    raise Denied(f"{path} holds {held}, which is not to be touched", hint="name the other files")

    def _copy_file(self, source: str, target: Entry) -> int:
        with self.open(source) as reading, os.fdopen(target.create(), "wb") as writing:
            shutil.copyfileobj(reading, writing, CHUNK)
            settle(writing, os.fstat(reading.fileno()))
            return writing.tell()

    def _copy_folder(self, source: str, target: Entry) -> int:
        os.mkdir(target.name, dir_fd=target.folder)
        copied = 0
        with _inside(target) as folder:
            for name in sorted(os.listdir(self.root / source)):
                path = f"{source}/{name}"
                into = Entry(path=path, name=name if folder is not None else f"{target.name}/{name}", folder=folder)
                found = os.lstat(self.root / path)
                if stat.S_ISLNK(found.st_mode):
                    os.symlink(os.readlink(self.root / path), into.name, dir_fd=folder)
                elif stat.S_ISDIR(found.st_mode):
                    copied += self._copy_folder(path, into)
                else:
                    copied += self._copy_file(path, into)
        return copied

    def _leads_to_file(self, path: str) -> bool:
        try:
            return self.resolve(path).is_file()
        except Denied:
            return False

    def _small_text(self, path: str) -> str:
        try:
            if self.stat(path) is None:
                return ""
            return self.read_bytes(path, 1_000_000).decode("utf-8", "replace")
        except (ToolFailed, Denied):
            return ""


def _nothing(path: str) -> bool:
    return False


def _real(place: Path, path: str) -> Path:
    try:
        return Path(os.path.realpath(place))
    except OSError:  # a link that was there a moment ago cannot be read any more
        raise Denied(f"path {path!r} changed while it was followed") from None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sizes(folder: Path) -> dict[str, int]:
    """Every file below `folder`, by its path in it, with its size in bytes."""
    found = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            found[os.path.relpath(path, folder)] = os.lstat(path).st_size
    return found


def _descend(folder: int, name: str, make: bool) -> int:
    try:
        return os.open(name, _OPEN_FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        return os.open(name, _OPEN_FOLDER, dir_fd=folder)


@contextmanager
def _inside(entry: Entry) -> Iterator[int | None]:
    """The opened folder that `entry` is; None where the platform has no folder descriptors."""
    if entry.folder is None:
        yield None
        return
    folder = os.open(entry.name, _OPEN_FOLDER, dir_fd=entry.folder)
    try:
        yield folder
    finally:
        os.close(folder)


def _laid(entry: Entry, key: str) -> Entry:
    """The name beside `entry` that follows from `key`."""
    tag = hashlib.sha256(f"{key}\0{entry.name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return entry.beside(f"{LEFTOVER[0]}{tag}{LEFTOVER[1]}")


@contextmanager
def temporary_of(entry: Entry, key: str) -> Iterator[Entry]:
    """A free name beside `entry` that follows from `key`; nothing is left under it on a failure."""
    temporary = _laid(entry, key)
    temporary.remove()
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):
            temporary.remove()
        raise


def settle(stream: BinaryIO, like: os.stat_result | None) -> None:
    """Give a written file the mode and owner of `like`, and see it on the disk."""
    stream.flush()
    if like is not None and hasattr(os, "fchown"):
        with suppress(PermissionError):  # the owner can only be kept by root
            os.fchown(stream.fileno(), like.st_uid, like.st_gid)
        os.fchmod(stream.fileno(), like.st_mode & 0o777)
    os.fsync(stream.fileno())


def _permit(stream: BinaryIO, content: FileData) -> None:
    """Give a written file the permissions of its content."""
    if not hasattr(os, "fchmod"):
        return
    mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode) if content.mode is None else content.mode
    readers = (mode & 0o444) >> 2
    os.fchmod(stream.fileno(), (mode | readers if content.executable else mode & ~0o111) & 0o777)
    os.fsync(stream.fileno())


def _state(digest: str, executable: bool) -> str:
    return f"{digest}x" if executable and os.name != "nt" else digest


def _must_be_file(path: str, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise ToolFailed(f"{path} is a folder", hint="name a file in it")
    if stat.S_ISLNK(found.st_mode):
        raise Denied(f"path {path!r} became a link while it was used")
    if not stat.S_ISREG(found.st_mode):
        raise ToolFailed(f"{path} is no regular file (a pipe, socket or device)")


def _must_be_writable(path: str, found: os.stat_result) -> None:
    # Renaming over a read-only file succeeds; its owner said that it shall not change.
    if stat.S_ISREG(found.st_mode) and not found.st_mode & 0o222:
        raise ToolFailed(f"{path} is read-only", hint="its owner can change the mode")


def _must_be_free(path: str, entry: Entry) -> None:
    if entry.stat() is not None:
        raise ToolFailed(f"{path} exists already", hint="choose another name, or delete it first")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Failures of the file system in words."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ToolFailed(
                f"no space left to write {path}", hint="what stood there is unchanged; free some space"
            ) from None
        if error.errno == errno.ELOOP:
            raise Denied(f"path {path!r} became a link while it was used") from None
        if isinstance(error, PermissionError):
            raise ToolFailed(f"no permission for {path}", hint="its owner can change the mode") from None
        raise ToolFailed(f"{path}: {error.strerror or error}") from None
