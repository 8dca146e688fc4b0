"""Takes a model away: its entry in the catalog, and its file when that lies among our models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentd.backends.catalog import CACHE, Catalog, ModelEntry
from agentd.backends.catalog_edit import CatalogFile
from agentd.backends.gguf_file import parts_of
from agentd.errors import BadInput, ConfigError, Conflict, ModelError, NotFound


def remove(name: str, catalog: Catalog, folder: Path, package_default: Path) -> dict[str, Any]:
    """Remove the model's files below `folder`, then its entry; what was removed: `model`, `files`, `bytes`.

    Raises `NotFound`, `BadInput` for a model that is not ours to remove, and `Conflict` when a role or another model
    needs it.
    """
    entry = catalog.models.get(name)
    if entry is None:
        raise NotFound(f"the catalog has no model {name[:200]!r}", hint="`agentd model ls` lists the models")
    if entry.package is not None:
        raise BadInput(f"{name} came with the package {entry.package}", hint="uninstall that package instead")
    files = _files(entry, catalog, folder) if entry.backend == "llama_cpp" else []
    size = sum(file.stat().st_size for file in files)
    CatalogFile(folder, package_default).remove_model(name)
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{file} cannot be removed: {error.strerror}", hint="remove it by hand") from None
    return {"model": name, "files": [str(file) for file in files], "bytes": size}


def _files(entry: ModelEntry, catalog: Catalog, folder: Path) -> list[Path]:
    """The model's own files, with what was made of them; none outside `folder`, and none through a link out of it."""
    if entry.file is None or not entry.file.exists():
        return []
    others = [each.name for each in catalog.models.values() if each.file == entry.file and each.name != entry.name]
    if others:
        raise Conflict(f"{entry.file} is the file of {', '.join(others)} too", hint="remove the entry by hand")
    root = folder.resolve()
    try:
        parts = list(parts_of(entry.file))
    except ModelError:
        parts = [entry.file]  # of a split one that is not whole
    made = [
        each
        for part in parts
        for each in (folder / CACHE).glob("*.gguf")
        if each.name.startswith(f"{part.stem}.") and each.name.endswith(f".{part.stat().st_size}.gguf")
    ]
    return [file for file in (*parts, *made) if file.resolve().is_relative_to(root)]
