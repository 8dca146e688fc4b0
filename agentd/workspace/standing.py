"""What stands at a path: a file, a link, a folder or nothing, so that it can be told from what stands there later."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO
from typing import BinaryIO, Literal, Protocol, TypeAlias

from agentd.errors import ToolFailed

Kind: TypeAlias = Literal["absent", "file", "link", "folder", "other"]
Take: TypeAlias = Callable[[BinaryIO, int], bytes]
"""Takes a stream of so many bytes and gives the digest that they go by; may keep them."""

_TRIES = 3


class Place(Protocol):
    """One name in a folder; see `paths.Entry`."""

    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> int | None: ...
    def stat(self) -> os.stat_result | None: ...
    def open(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`digest` of a file's bytes or of a link's target; empty for all else."""

    kind: Kind = "absent"
    mode: int = 0
    size: int = 0
    digest: bytes = b""

    def same(self, other: Standing) -> bool:
        """Whether it is the same thing but for its mode."""
        return (self.kind, self.digest) == (other.kind, other.digest)


ABSENT = Standing()


def standing(place: Place, take: Take) -> Standing:
    """What stands there; `take` is given its bytes. `ToolFailed` for what cannot be read, or is written meanwhile."""
    for _ in range(_TRIES):
        found = place.stat()
        if found is None:
            return ABSENT
        now = ABSENT
        with _explained(place):
            now = _look(place, found, take)
        if mark(place.stat()) == mark(found):
            return now
    raise ToolFailed(f"{place.path} is being written by someone else", hint="try again when it is at rest")


def mark(found: os.stat_result | None) -> tuple[int, ...]:
    """What changes whenever the thing does."""
    if found is None:
        return ()
    if stat.S_ISDIR(found.st_mode):  # its times change with what is in it
        return (found.st_ino, found.st_mode)
    return (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _look(place: Place, found: os.stat_result, take: Take) -> Standing:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return Standing(kind="folder", mode=mode)
    if stat.S_ISLNK(found.st_mode):
        target = os.fsencode(os.readlink(place.name, dir_fd=place.folder))
        return Standing(kind="link", size=len(target), digest=take(BytesIO(target), len(target)))
    if not stat.S_ISREG(found.st_mode):
        return Standing(kind="other", mode=mode)
    with BufferedReader(FileIO(place.open()), 1 << 16) as stream:
        return Standing(kind="file", mode=mode, size=found.st_size, digest=take(stream, found.st_size))


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return  # it went while it was looked at: the marks differ, and it is looked at again
    except OSError as error:
        why = error.strerror or str(error)
        raise ToolFailed(
            f"what stands at {place.path} cannot be kept for an undo: {why}", hint="so it is not changed"
        ) from None
