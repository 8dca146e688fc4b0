"""Files that make programs run by standing where they stand, and a watch over them while a stranger's program runs.

The rule `start-files` in the policies asks a person about the same names when a tool writes them; a program of the
project asks nobody, so it finds them read-only, and what it adds or changes all the same is taken back.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agentd.errors import AgentdError
from agentd.policy.places import GIT, makes_programs_run
from agentd.workspace.paths import Workspace

_INSTALLED = "node_modules"
"""What lies there is programs already, thousands of them; it is not looked at."""
_ENVIRONMENT = "pyvenv.cfg"
MOST_KEPT = 1_000_000
"""Bytes of a file that can be put back."""


@dataclass(frozen=True, slots=True)
class _State:
    """What stands at a path, so that a change shows; `data` of a file that is small enough to be put back."""

    mode: int
    mark: str
    data: bytes | None = None


class Watch:
    """Over the start files of a workspace, from now on until `settle`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._before = _look(workspace.root)

    @property
    def still(self) -> tuple[Path, ...]:
        """What a program may only read: folders of git, and the files themselves where they are no links."""
        names = [name for name, state in self._before.items() if not stat.S_ISLNK(state.mode)]
        inside = [name for name in names if GIT in PurePosixPath(name).parts[:-1]]
        return tuple(self._workspace.root / name for name in names if name not in inside)

    def settle(self) -> list[str]:
        """Take back what was done to them; says what that was."""
        after = _look(self._workspace.root)
        told = []
        for name in sorted({*self._before, *after}):
            before, now = self._before.get(name), after.get(name)
            if before != now:
                done = "added" if before is None else "deleted" if now is None else "changed"
                undone = "" if self._undo(name, before) else " and could not be put back"
                told.append(f"{name} was {done}{undone}")
        return told

    def _undo(self, name: str, before: _State | None) -> bool:
        path = self._workspace.root / name
        try:
            # No folder on the way to it is a link: what is added was found without following any.
            if before is None:
                _remove(path)
                return True
            if before.data is None:
                return False
            if path.is_symlink():
                path.unlink()
            self._workspace.write_atomic(name, before.data)
            self._workspace.resolve(name).chmod(stat.S_IMODE(before.mode))
        except (OSError, AgentdError):
            return False
        return True


def _look(root: Path) -> dict[str, _State]:
    found = {}
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        if makes_programs_run(name):
            with suppress(FileNotFoundError, NotADirectoryError):
                found[name] = _state(path)
    return found


def _walk(root: Path) -> Iterator[Path]:
    """Everything that may count; of folders of git their programs only, no link is followed."""
    for base, folders, names in os.walk(root):
        here = Path(base)
        yield from (here / name for name in names)
        if GIT in folders:
            yield from (here / GIT, here / GIT / "config")
            if (here / GIT / "hooks").is_dir():
                yield from (here / GIT / "hooks").iterdir()
        links = [name for name in folders if (here / name).is_symlink()]
        yield from (here / name for name in links)
        kept = [name for name in folders if name not in (GIT, _INSTALLED, *links)]
        folders[:] = [name for name in kept if not (here / name / _ENVIRONMENT).exists()]


def _state(path: Path) -> _State:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return _State(found.st_mode, os.readlink(path))
    if not stat.S_ISREG(found.st_mode):
        return _State(stat.S_IFMT(found.st_mode), "")
    if found.st_size > MOST_KEPT or not os.access(path, os.R_OK):
        return _State(found.st_mode, f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return _State(found.st_mode, "", path.read_bytes())


def _remove(path: Path) -> None:
    """Nothing when it has gone with the folder that it lay in."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
