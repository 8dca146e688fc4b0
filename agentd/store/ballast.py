"""A file that only takes up room, so that there is some to give back when the disk is full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Ballast:
    """`size` bytes at `path`; size 0 means none."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def held(self) -> bool:
        return self._path.exists()

    def make(self) -> bool:
        """Take the room, unless that would leave less than as much again; whether it is held now."""
        if self._size == 0:
            self.release()
        elif not self._is_whole() and shutil.disk_usage(self._path.parent).free >= 2 * self._size:
            self._write()
        return self.held

    def release(self) -> bool:
        """Give the room back; whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def _is_whole(self) -> bool:
        try:
            return self._path.stat().st_size == self._size
        except OSError:
            return False

    def _write(self) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _fill(fd, self._size)
            finally:
                os.close(fd)
        except OSError:
            self.release()  # half of it is of no use, and the daemon lives without


def _fill(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    piece = os.urandom(1 << 16)  # random: a file system that compresses would keep nothing free for zeros
    for start in range(0, size, len(piece)):
        os.write(fd, piece[: size - start])
