from __future__ import annotations

from pathlib import Path

import pytest

from agentd.backends.catalog import CACHE, Catalog
from agentd.backends.catalog_edit import CatalogFile
from agentd.backends.removal import remove
from agentd.errors import BadInput, Conflict, NotFound
from agentd.home import defaults_dir

DEFAULT = defaults_dir() / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / CACHE).mkdir(parents=True)
    return folder


def add(folder: Path, name: str, file: Path | str) -> None:
    CatalogFile(folder, DEFAULT).add_model(name, {"file": str(file)})


def gone(folder: Path, name: str) -> list[str]:
    removed = remove(name, Catalog.load(folder, DEFAULT), folder, DEFAULT)
    assert name not in Catalog.load(folder, DEFAULT).models
    return sorted(Path(file).name for file in removed["files"])


def test_file_entry_and_what_was_made_of_it(folder: Path) -> None:
    (folder / "a.gguf").write_bytes(b"GGUF" * 10)
    (folder / "ab.gguf").write_bytes(b"GGUF" * 10)
    for name in ("a.Q4_0.40.gguf", "a.Q4_0.41.gguf", "ab.Q4_0.40.gguf"):
        (folder / CACHE / name).write_bytes(b"GGUF")
    add(folder, "a", "a.gguf")
    assert gone(folder, "a") == ["a.Q4_0.40.gguf", "a.gguf"]
    assert (folder / "ab.gguf").exists()
    assert sorted(path.name for path in (folder / CACHE).iterdir()) == ["a.Q4_0.41.gguf", "ab.Q4_0.40.gguf"]


def test_all_parts(folder: Path) -> None:
    for number in (1, 2):
        (folder / f"big-0000{number}-of-00002.gguf").write_bytes(b"GGUF")
    add(folder, "big", "big-00001-of-00002.gguf")
    assert gone(folder, "big") == ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]


def test_a_file_elsewhere_stays(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mine.gguf"
    elsewhere.write_bytes(b"GGUF")
    (folder / "link.gguf").symlink_to(elsewhere)
    add(folder, "mine", elsewhere)
    add(folder, "linked", "link.gguf")
    add(folder, "up", "../mine.gguf")
    for name in ("mine", "linked", "up"):
        assert gone(folder, name) == []
    assert elsewhere.exists()


def test_a_missing_file_is_no_hindrance(folder: Path) -> None:
    add(folder, "none", "none.gguf")
    assert gone(folder, "none") == []


def test_what_is_not_ours_or_needed_stays(folder: Path) -> None:
    (folder / "a.gguf").write_bytes(b"GGUF")
    add(folder, "a", "a.gguf")
    add(folder, "b", "a.gguf")
    for name, error in (("smollm2-135m", BadInput), ("nobody", NotFound), ("a", Conflict)):
        with pytest.raises(error):
            remove(name, Catalog.load(folder, DEFAULT), folder, DEFAULT)
    CatalogFile(folder, DEFAULT).add_model("smollm2-135m", {"file": "own.gguf"})
    (folder / "own.gguf").write_bytes(b"GGUF")
    with pytest.raises(Conflict, match="the role embed and the role rerank"):
        remove("smollm2-135m", Catalog.load(folder, DEFAULT), folder, DEFAULT)
    assert (folder / "own.gguf").exists()
