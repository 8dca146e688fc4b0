"""Brings a model here: chooses the file, fetches it, looks whether it is whole, and writes its entry in the catalog."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentd.backends import gguf_file
from agentd.backends.catalog import Catalog
from agentd.backends.catalog_edit import CatalogFile
from agentd.backends.download import PART, Download, RemoteFile, Tell, Web, with_checksum
from agentd.backends.hub import Choose, Selection, select
from agentd.errors import BadInput, Conflict, DiskFull, ModelError
from agentd.telemetry import get_logger

log = get_logger(__name__)

_SUFFIX = re.compile(r"(?i)(?:-\d{5}-of-\d{5})?\.gguf$")
_UNFIT = re.compile(r"[^a-z0-9._:+-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is wanted: the reference, the checksum and the name if the person gave them."""

    reference: str
    sha256: str | None = None
    name: str | None = None


class Puller:
    """Fetches models into a folder, each once at a time. Safe to use from several threads."""

    def __init__(self, folder: Path, package_default: Path) -> None:
        self._folder = folder
        self._default = package_default
        self._lock = threading.Lock()
        self._active: set[str] = set()

    def pull(self, order: Order, web: Web, *, hub: str, choose: Choose, reserve: int, tell: Tell) -> dict[str, Any]:
        """Fetch what `order` names; its entry, file, size. `tell` hears `chosen`, `progress`, `retry`, `checking`.

        `reserve`: bytes of the disk that stay free. Raises `BadInput`, `NotFound`, `Denied`, `Conflict`, `DiskFull`,
        `DownloadFailed`, `ModelError` for a file that is no model, and `Cancelled`.
        """
        sha256 = _checked(order.sha256)
        selection = select(order.reference, web, hub, choose)
        files = _with_checksum(selection, sha256)
        with self._alone(selection.name):
            name = self._model_name(order.name, selection.name)
            tell({"event": "chosen", "file": selection.name, "parts": len(files), "size": selection.size})
            self._make_room(files, reserve)
            new = [path for file in files if not (path := self._folder / file.name).exists()]
            paths = [Download(web, file, self._folder, tell=tell, reserve=reserve).run() for file in files]
            _look(paths[0], new)
            self._enter(name, selection.name)
        size = sum(path.stat().st_size for path in paths)
        log.info("a model was fetched", model=name, origin=selection.origin, bytes=size)
        return {"model": name, "file": str(paths[0]), "size": size, "origin": selection.origin}

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._lock:
            if name in self._active:
                raise Conflict(f"{name} is being fetched already", hint="wait until it is there")
            self._active.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._active.discard(name)

    def _make_room(self, files: tuple[RemoteFile, ...], reserve: int) -> None:
        """All parts together must fit, before the first begins. Raises `DiskFull`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = reserve - shutil.disk_usage(self._folder).free
        for file in files:
            for there in (self._folder / file.name, self._folder / (file.name + PART)):
                missing -= min(there.stat().st_size, file.size or 0) if there.exists() else 0
            missing += file.size or 0
        if missing > 0:
            raise DiskFull(
                f"there is no room for {files[0].name} in {self._folder}: {missing / 1e9:.2f} GB are missing",
                hint="free some space; a reserve stays free (models.disk_reserve_mb)",
            )

    def _model_name(self, wished: str | None, file: str) -> str:
        """The name of the entry. Raises `Conflict` for a name that another model has."""
        catalog = Catalog.load(self._folder, self._default)
        path = self._folder / file
        known = [entry.name for entry in catalog.models.values() if entry.file == path]
        if wished is None and known:
            return known[0]
        name = wished or _UNFIT.sub("-", _SUFFIX.sub("", file).lower()).strip("-._:+")[:100]
        other = catalog.models.get(name)
        if other is not None and other.file != path:
            raise Conflict(f"there is a model {name!r} already: {other.source}", hint="choose another with --name")
        # The name must be one that the catalog takes, which is better known before some gigabytes have come.
        CatalogFile(self._folder, self._default).check_model(name, {"file": file})
        return name

    def _enter(self, name: str, file: str) -> None:
        if name not in Catalog.load(self._folder, self._default).models:
            CatalogFile(self._folder, self._default).add_model(name, {"file": file})


def _checked(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    folded = sha256.strip().lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(folded):
        raise BadInput(f"{sha256[:80]!r} is no SHA-256", hint="it has 64 digits, 0-9 and a-f")
    return folded


def _with_checksum(selection: Selection, sha256: str | None) -> tuple[RemoteFile, ...]:
    if sha256 is None:
        return selection.files
    if len(selection.files) > 1:
        raise BadInput(
            f"{selection.name} has {len(selection.files)} parts, and one checksum is given",
            hint="leave it out; a hub knows that of each part",
        )
    return (with_checksum(selection.files[0], sha256),)


def _look(path: Path, new: list[Path]) -> None:
    """Raises `ModelError` for what is no GGUF file, and puts what is `new` of it out of the way."""
    try:
        gguf_file.read(path)
    except ModelError as error:
        for path in new:
            path.unlink(missing_ok=True)
        raise ModelError(
            f"what came is no model: {error.message}", hint="it was thrown away; name another file"
        ) from None
