"""A plugin on disk: `NAME/VERSION/` with five files, written whole or not at all, and believed only when signed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from agentd.errors import BadInput, PluginRefused
from agentd.plugins.spec import NAME, Manifest
from agentd.security.signing import Signer

CODE, TESTS, GUIDE, MANIFEST, SIGNATURE = "plugin.py", "test_plugin.py", "GUIDE.md", "manifest.json", "signature"
CONTENT = (CODE, TESTS, GUIDE)
"""The files whose digests stand in the manifest."""
MOST_BYTES = {CODE: 64 * 1024, TESTS: 256 * 1024, GUIDE: 64 * 1024, MANIFEST: 512 * 1024, SIGNATURE: 200}
_SIGNATURE_BYTES = 64
_NEW = ".new-"
_READING = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A plugin as it was signed; `digest` is the SHA-256 of its manifest, `files` are those of `CONTENT`."""

    manifest: Manifest
    files: Mapping[str, bytes]
    digest: str

    @property
    def code(self) -> str:
        return self.files[CODE].decode("utf-8")


class PluginFolder:
    """All plugins below `root`."""

    def __init__(self, root: Path, signer: Signer) -> None:
        self.root = root
        self._signer = signer

    def place(self, name: str, version: int) -> Path:
        return self.root / name / str(version)

    def write(self, manifest: Manifest, files: Mapping[str, bytes], *, first: bool = False) -> Package:
        """Put a plugin there, on the disk when this returns; what lay in its place is replaced.

        The manifest gets the digests of `files`. `first`: no other was ever signed here. Raises `BadInput`, `OSError`.
        """
        _check_content(files)
        manifest = manifest.model_copy(update={"digests": {name: _sha256(files[name]) for name in CONTENT}})
        data = (manifest.model_dump_json(indent=2) + "\n").encode()
        signature = (self._signer.sign(data, first=first).hex() + "\n").encode()
        name, version = manifest.spec.name, manifest.version
        made, place = self.root / f"{_NEW}{name}-{version}", self.place(name, version)
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o755)
        for each, content in {**files, MANIFEST: data, SIGNATURE: signature}.items():
            _write(made / each, content)
        _settle(made)
        self.remove(name, version)
        place.parent.mkdir(exist_ok=True)
        os.rename(made, place)
        _settle(place.parent)
        _settle(self.root)
        return Package(manifest=manifest, files=dict(files), digest=_sha256(data))

    def read(self, name: str, version: int) -> Package:
        """A plugin that is exactly as it was signed. Raises `PluginRefused` naming the file that is not."""
        place = self.place(name, version)
        self._refuse_strangers(name, version)
        data = _read(place / MANIFEST)
        self._check_signature(place, data)
        manifest = _manifest(place, data)
        if (manifest.spec.name, manifest.version) != (name, version):
            raise _refused(place / MANIFEST, f"is that of {manifest.spec.name} {manifest.version}")
        files = {each: _read(place / each) for each in CONTENT}
        for each, content in files.items():
            if manifest.digests.get(each) != _sha256(content):
                raise _refused(place / each, "was changed after it was signed")
        return Package(manifest=manifest, files=files, digest=_sha256(data))

    def remove(self, name: str, version: int) -> None:
        """Take a version away; fine when it is not there."""
        place = self.place(name, version)
        if place.is_symlink() or place.is_file():
            place.unlink()
        elif place.exists():
            gone = self.root / f"{_NEW}gone-{name}-{version}"
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(place, gone)
            shutil.rmtree(gone)
        if place.parent.is_dir() and not any(place.parent.iterdir()):
            place.parent.rmdir()

    def found(self) -> list[tuple[str, int]]:
        """Names and versions that lie there, whatever is in them."""
        if not self.root.is_dir():
            return []
        named = [each for each in self.root.iterdir() if re.fullmatch(NAME, each.name) and each.is_dir()]
        versions = [(each.name, entry.name) for each in named for entry in each.iterdir()]
        return sorted((name, int(version)) for name, version in versions if re.fullmatch(r"[1-9][0-9]{0,8}", version))

    def sweep(self) -> None:
        """Take away what a crash has left half written or half removed."""
        if self.root.is_dir():
            for each in self.root.glob(f"{_NEW}*"):
                shutil.rmtree(each, ignore_errors=True)

    def _refuse_strangers(self, name: str, version: int) -> None:
        place = self.place(name, version)
        for folder in (place.parent, place):
            if not _is(stat.S_ISDIR, folder):
                raise _refused(folder, "is a link or no folder" if os.path.lexists(folder) else "is gone")
        known = {*CONTENT, MANIFEST, SIGNATURE}
        there = {entry.name for entry in place.iterdir()}
        for each in sorted(known - there):
            raise _refused(place / each, "is missing")
        for each in sorted(there - known):
            raise _refused(place / each, "is no file of a plugin")
        for each in sorted(known):
            if not _is(stat.S_ISREG, place / each):
                raise _refused(place / each, "is a link or no file")

    def _check_signature(self, place: Path, manifest: bytes) -> None:
        try:
            signature = bytes.fromhex(_read(place / SIGNATURE).decode("ascii").strip())
        except ValueError:  # no ASCII, no hex
            signature = b""
        if len(signature) != _SIGNATURE_BYTES:
            raise _refused(place / SIGNATURE, "is no signature")
        if not self._signer.vouches(manifest, signature):
            raise _refused(place / MANIFEST, "is not what this home has signed")


def _manifest(place: Path, data: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise _refused(place / MANIFEST, f"has another form than it should: {error.errors()[0]['msg']}") from None


def _check_content(files: Mapping[str, bytes]) -> None:
    if set(files) != set(CONTENT):
        raise BadInput(f"a plugin consists of {', '.join(CONTENT)}; there are {', '.join(sorted(files)) or 'none'}")
    for name, content in files.items():
        if len(content) > MOST_BYTES[name]:
            raise BadInput(f"{name} has {len(content)} bytes; {MOST_BYTES[name]} are allowed")


def _refused(path: Path, words: str) -> PluginRefused:
    name = "/".join(path.parts[-3:])
    return PluginRefused(f"{name} {words}", hint="nothing of it is run; `agentd plugin rm` takes it away")


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False


def _read(path: Path) -> bytes:
    most = MOST_BYTES[path.name]
    try:
        with open(os.open(path, _READING), "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise _refused(path, f"has more than {most} bytes")
    return data


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """See the names in a folder on the disk; Windows has no way to."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
