"""The component that plugins run in: a CPython with the guest inside, built once and kept as machine code."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from agentd.errors import AlreadyRunning, DiskFull, SandboxUnavailable
from agentd.home import make_private
from agentd.sandbox.launch import run
from agentd.store.lock import DaemonLock

BUILD_SECONDS = 900.0
ROOM_MB = 300
"""That building takes on the disk; what is kept is about 40."""
_HERE = Path(__file__).parent
_CHILD = _HERE / "wasm_child.py"
_KEPT = ("TMPDIR", "TEMP", "TMP")
_SYSTEM = ("SYSTEMROOT", "SYSTEMDRIVE")
"""Without these no program starts on Windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What lies inside: packages, and the module that is called."""

    entrance: Path = _HERE / "wasm_entrance.py"
    packages: Sequence[Path] = field(default_factory=lambda: (_HERE / "guest", package("RestrictedPython")))

    def files(self) -> Iterator[tuple[str, Path]]:
        """Each with the name that it has inside."""
        yield "wasm_entrance.py", self.entrance
        for folder in self.packages:
            for path in sorted(folder.rglob("*.py")):
                yield f"{folder.name}/{path.relative_to(folder).as_posix()}", path


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported. Raises `SandboxUnavailable`."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise _missing(name)
    return Path(found.submodule_search_locations[0])


def _missing(name: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"{name} is not installed", hint="pip install 'agentd-local[wasm]'")


def child_argv(**settings: object) -> list[str]:
    """How the program beside the daemon is started. Raises `SandboxUnavailable` where something is not installed."""
    paths = [str(_HERE), *sorted({str(package(name).parent) for name in ("wasmtime", "componentize_py")})]
    return [sys.executable, "-I", "-S", str(_CHILD), json.dumps({"paths": paths, **settings})]


def child_env() -> dict[str, str]:
    return {name: os.environ[name] for name in _SYSTEM if name in os.environ}


class Component:
    """Kept in `folder`, which belongs to its owner alone: machine code is run as it stands there."""

    def __init__(self, folder: Path, contents: Contents | None = None) -> None:
        self._folder = folder
        self._contents = contents

    def path(self) -> Path:
        """The file, built now (about a minute) when there is none. Raises `SandboxUnavailable` and `DiskFull`."""
        key = self._key()
        self._private()
        found = self._kept(key)
        if found is None:
            lock = self._lock()
            try:
                found = self._kept(key) or self._built(key)
            finally:
                lock.release()
        return found

    def built(self) -> bool:
        """Whether it is there. Raises `SandboxUnavailable` where something is not installed."""
        return self._kept(self._key()) is not None

    def forget(self) -> None:
        """What is kept is of no use here: it is built anew when it is wanted."""
        for path in self._folder.glob("*.cwasm"):
            path.unlink(missing_ok=True)

    def _key(self) -> str:
        """Of everything that it is made of."""
        versions = [f"{name} {version(name)}" for name in ("wasmtime", "componentize-py")]
        digest = hashlib.sha256("\n".join([*versions, sys.platform, platform.machine()]).encode())
        for name, path in [("", _CHILD), *(self._contents or Contents()).files()]:
            digest.update(f"\n{name} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
        return digest.hexdigest()[:16]

    def _private(self) -> None:
        try:
            make_private(self._folder)
        except OSError as error:
            raise _failed(error) from None
        if not _ours(self._folder):
            raise SandboxUnavailable(f"{self._folder} belongs to somebody else", hint="remove it, or give it back")

    def _kept(self, key: str) -> Path | None:
        """Machine code that is what we left there."""
        for path in self._folder.glob(f"{key}-*.cwasm"):
            if _ours(path) and path.stem == f"{key}-{_digest(path)}":
                return path
            path.unlink(missing_ok=True)
        return None

    def _lock(self) -> DaemonLock:
        end = time.monotonic() + BUILD_SECONDS
        while True:
            try:
                return DaemonLock.acquire(self._folder)
            except AlreadyRunning:
                if time.monotonic() > end:
                    raise SandboxUnavailable(f"another process builds in {self._folder} without end") from None
                time.sleep(0.2)

    def _built(self, key: str) -> Path:
        try:
            if (free := shutil.disk_usage(self._folder).free >> 20) < ROOM_MB:
                raise DiskFull(f"to build the sandbox takes {ROOM_MB} MB, {free} are free", hint="free some space")
            with tempfile.TemporaryDirectory(dir=self._folder, prefix="building-") as folder:
                made = self._made(Path(folder))
                kept = self._folder / f"{key}-{_digest(made)}.cwasm"
                os.replace(made, kept)
        except OSError as error:
            raise _failed(error) from None
        for path in self._folder.glob("*.cwasm"):
            if path != kept:
                _remove(path)
        return kept

    def _made(self, folder: Path) -> Path:
        made, inside = folder / "made.cwasm", folder / "inside"
        for name, path in (self._contents or Contents()).files():
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, inside / name)
        env = child_env() | dict.fromkeys(_KEPT, str(folder))
        ended = run(child_argv(build=str(inside), made=str(made)), cwd=folder, env=env, timeout=BUILD_SECONDS)
        if ended.code != 0:
            said = (ended.stderr or ended.stdout).strip()[-500:]
            if "No space left" in said:
                raise OSError(errno.ENOSPC, "No space left on device")
            raise SandboxUnavailable(
                f"the sandbox could not be built: {said or 'it was stopped'}", hint="agentd doctor"
            )
        made.chmod(0o600)
        return made


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise _missing(name) from None


def _ours(path: Path) -> bool:
    """Whether nobody else could have written it. Elsewhere than on POSIX the folder of the user says so."""
    found = path.lstat()
    if os.name != "posix":
        return not stat.S_ISLNK(found.st_mode)
    return not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # on Windows one that is in use stays


def _failed(error: OSError) -> DiskFull | SandboxUnavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("the disk is full, so the sandbox cannot be built", hint="free some space")
    return SandboxUnavailable(f"the sandbox cannot be kept: {error}", hint="see to the rights of the folder")
