"""One daemon per home: a lock that the operating system gives back however its holder ends."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

from agentd.errors import AlreadyRunning, StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NAME = "agentd.lock"
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_PID_SECONDS = 0.5
_ASKING_SECONDS = 0.2
_PID_WIDTH = 20
_LOCKED_BYTE = 1 << 20  # Windows keeps others from reading what is locked, and the pid is for them


class DaemonLock:
    """Held from `acquire` to `release` or the end of the process."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, state_dir: Path) -> DaemonLock:
        """Become the daemon of `state_dir`; `AlreadyRunning` names the pid of the one that is, and writes nothing."""
        path = state_dir / _NAME
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise StoreError(
                f"the lock {path} cannot be opened: {error}",
                hint=f"the user who runs agentd must be able to write the folder {state_dir}",
            ) from error
        try:
            if not _lock(fd):
                raise AlreadyRunning(
                    f"agentd runs already in {state_dir} (pid {_read_pid(fd) or 'unknown'})",
                    hint="stop it with: agentd down",
                )
            _write_pid(fd, str(os.getpid()))
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd)

    @classmethod
    def holder(cls, state_dir: Path) -> int | None:
        """The pid of the daemon of `state_dir`, or None when none runs."""
        try:
            fd = os.open(state_dir / _NAME, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        try:
            pid = "" if _try_lock(fd) else _read_pid(fd)
        finally:
            os.close(fd)
        return int(pid) if pid.isdecimal() else None

    def release(self) -> None:
        """Let another daemon start. The file stays: removing it could remove one that another holds already."""
        if self._fd is None:
            return
        _write_pid(self._fd, "")
        _unlock(self._fd)  # a child that is just being started may have a copy of the descriptor
        os.close(self._fd)
        self._fd = None


def _lock(fd: int) -> bool:
    """Lock, with some patience: whoever asks for the holder has it for a moment."""
    end = time.monotonic() + _ASKING_SECONDS
    while not _try_lock(fd):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def _try_lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise StoreError(
            f"the lock cannot be taken: {error}", hint="keep the home on a local file system, which knows locks"
        ) from error
    return True


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _write_pid(fd: int, pid: str) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, f"{pid:<{_PID_WIDTH}}\n".encode())


def _read_pid(fd: int) -> str:
    end = time.monotonic() + _PID_SECONDS
    while True:
        os.lseek(fd, 0, os.SEEK_SET)
        pid = os.read(fd, _PID_WIDTH).decode("ascii", "replace").strip()
        if pid or time.monotonic() > end:  # the holder may be between locking and writing
            return pid
        time.sleep(0.01)
