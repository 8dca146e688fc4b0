"""Files that make programs run by standing where they stand, and a watch over them while a stranger's program runs.

The rule `start-files` in the policies asks a person about the same names when a tool writes them; a program of the
project asks nobody, so it finds them read-only, and what it adds or changes all the same is taken back.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agentd.errors import AgentdError
from agentd.home import make_private
from agentd.policy.places import GIT, makes_programs_run
from agentd.workspace.paths import Workspace

_INSTALLED = "node_modules"
"""What lies there is programs already, thousands of them; it is not looked at."""
_ENVIRONMENT = "pyvenv.cfg"
WATCHES = "watches"
"""The folder below `state/`."""
MOST_KEPT = 1_000_000
"""Bytes of a file that can be put back."""
MOST_ASIDE = 100
"""Files that are put aside after one run: a program may make any number of them, a person does not."""


@dataclass(frozen=True, slots=True)
class _State:
    """What stands at a path, so that a change shows; `data` of a file that is small enough to be put back."""

    mode: int
    mark: str
    data: bytes | None = None


class Watch:
    """Over the start files of a workspace, from now on until `settle`.

    What is seen now is kept in `folder` until then, for the next start of a daemon that is killed in between. What is
    taken back goes to `aside`, below it, before: a person may have written it.
    """

    def __init__(self, workspace: Workspace, folder: Path | None = None) -> None:
        self._workspace = workspace
        self._before = _look(workspace.root)
        self._kept = _keep(folder, workspace.root, self._before) if folder else None

    @classmethod
    def resumed(cls, path: Path) -> Watch:
        """One that was cut off. Raises `ValueError`, `KeyError` or `TypeError` for a file of another form, and what a
        workspace raises that is not there."""
        kept = json.loads(path.read_text("utf-8"))
        watch = cls.__new__(cls)
        watch._workspace = Workspace(Path(kept["workspace"]))
        watch._before = {
            name: _State(mode, mark, None if data is None else base64.b64decode(data))
            for name, (mode, mark, data) in kept["before"].items()
        }
        watch._kept = path
        return watch

    @property
    def root(self) -> Path:
        return self._workspace.root

    @property
    def aside(self) -> Path | None:
        """The folder for what is taken back; None where nothing is kept."""
        return self._kept and self._kept.parent / "aside" / self._kept.stem

    @property
    def still(self) -> tuple[Path, ...]:
        """What a program may only read: folders of git, and the files themselves where they are no links."""
        names = [name for name, state in self._before.items() if not stat.S_ISLNK(state.mode)]
        inside = [name for name in names if GIT in PurePosixPath(name).parts[:-1]]
        return tuple(self._workspace.root / name for name in names if name not in inside)

    def settle(self, *, late: bool = False) -> list[str]:
        """Take back what was done to them; says what that was. `late`, when others had much time to do it, nothing is
        taken back that could not be put aside."""
        after = _look(self._workspace.root)
        told: list[str] = []
        for name in sorted({*self._before, *after}, key=lambda name: (name not in self._before, name)):
            before, now = self._before.get(name), after.get(name)
            if before != now:
                done = "added" if before is None else "deleted" if now is None else "changed"
                most = None if late else MOST_KEPT if len(told) < MOST_ASIDE else 0
                safe = now is None or self._put_aside(name, most) or not late
                undone = "" if safe and self._undo(name, before) else " and could not be put back"
                told.append(f"{name} was {done}{undone}")
        if self._kept is not None:
            self._kept.unlink(missing_ok=True)
        return sorted(told)

    def _put_aside(self, name: str, most: int | None) -> bool:
        """Whether it is kept, if it has no more bytes than `most`; a link or a folder is told by its name alone."""
        path = self.root / name
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                return True
            if self.aside is None or (most is not None and found.st_size > most):
                return False
            to = self.aside / name
            to.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(stat.S_IMODE(found.st_mode) | stat.S_IRUSR)
            shutil.copyfile(path, to, follow_symlinks=False)
        except OSError:
            return False
        return True

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a program left in a workspace that was cut off with its daemon; `aside`: where it lies now."""

    workspace: str
    told: tuple[str, ...]
    aside: str


def settle_all(folder: Path) -> Iterator[Restored]:
    """At the start of a daemon: the watches that the last one could not settle. Who edited such a file meanwhile finds
    the text put aside, not lost."""
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            watch = Watch.resumed(path)
            told = watch.settle(late=True)
        except (AgentdError, OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)  # such as that of a folder which has gone
            continue
        if told:
            yield Restored(workspace=str(watch.root), told=tuple(told), aside=str(watch.aside))


def _keep(folder: Path, root: Path, before: Mapping[str, _State]) -> Path:
    make_private(folder)
    path = folder / f"{uuid.uuid4().hex}.json"
    states = {
        name: [state.mode, state.mark, None if state.data is None else base64.b64encode(state.data).decode()]
        for name, state in before.items()
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"workspace": str(root), "before": states}), encoding="utf-8")
    os.replace(part, path)
    return path


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
