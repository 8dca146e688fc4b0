from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentd.backends.catalog import FILE, Catalog
from agentd.backends.download import Patience, Web
from agentd.backends.pull import Order, Puller
from agentd.errors import BadInput, Conflict, DiskFull, DownloadFailed, ModelError
from agentd.home import defaults_dir
from tests.backends.file_server import FileServer, serving

DEFAULT = defaults_dir() / "models"


@pytest.fixture
def hub(gguf: Path) -> Iterator[FileServer]:
    server = FileServer()
    model = gguf.read_bytes()
    server.add_repository("org/Smol-GGUF", {"Smol_LM.Q4_1.gguf": model, "Smol_LM.F16.gguf": b"GGUF" + bytes(100)})
    server.add_repository("org/junk", {"junk-Q4_0.gguf": b"<html>not found</html>" * 100})
    server.files["/files/Other.gguf"] = model
    with serving(server):
        yield server


class Home:
    def __init__(self, folder: Path, hub: FileServer) -> None:
        self.folder = folder / "models"
        self.hub = hub
        self.puller = Puller(self.folder, DEFAULT)
        self.told: list[Mapping[str, Any]] = []

    def pull(self, reference: str, *, reserve: int = 0, **order: Any) -> dict[str, Any]:
        web = Web(lambda host, port: None, cancel=threading.Event(), patience=Patience(tries=2, pause=0.01))
        return self.puller.pull(
            Order(reference=reference.replace("HUB", self.hub.url), **order),
            web,
            hub=self.hub.url,
            choose=lambda sizes: max(sizes, key=lambda name: sizes[name]),
            reserve=reserve,
            tell=self.told.append,
        )

    @property
    def catalog(self) -> Catalog:
        return Catalog.load(self.folder, DEFAULT)

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def home(tmp_path: Path, hub: FileServer) -> Home:
    return Home(tmp_path, hub)


def test_a_model_is_fetched_and_entered(home: Home, gguf: Path) -> None:
    home.hub.breaks = [10**9, 40_000_000, 30_000_000]  # the list, then the file
    found = home.pull("org/Smol-GGUF")
    assert found["model"] == "smol_lm.q4_1"
    assert Path(found["file"]).read_bytes() == gguf.read_bytes()
    entry = home.catalog.entry("smol_lm.q4_1")
    assert entry.available == home.folder / "Smol_LM.Q4_1.gguf"
    assert all(entry.name not in names for names in home.catalog.roles.values())
    assert home.files == ["Smol_LM.Q4_1.gguf", FILE]
    kinds = [event["event"] for event in home.told]
    assert kinds[0] == "chosen"
    assert kinds.count("retry") == 2
    text = (home.folder / FILE).read_text()
    assert text.startswith("# Which models there are")  # a home without a catalog got its own, comments and all
    again = home.pull("org/Smol-GGUF")
    assert again["model"] == "smol_lm.q4_1"
    assert (home.folder / FILE).read_text() == text


def test_a_file_that_the_catalog_waits_for_keeps_its_entry(home: Home, gguf: Path) -> None:
    home.hub.files["/files/Qwen2.5-14B-Q5_K_M.gguf"] = gguf.read_bytes()
    assert home.pull("HUB/files/Qwen2.5-14B-Q5_K_M.gguf")["model"] == "qwen2.5-14b"
    assert home.files == ["Qwen2.5-14B-Q5_K_M.gguf"]  # the default catalog has it already


def test_a_name_of_ones_own(home: Home) -> None:
    assert home.pull("HUB/files/Other.gguf", name="mine")["model"] == "mine"
    with pytest.raises(Conflict, match="there is a model 'smollm2-135m' already"):
        home.pull("org/Smol-GGUF", name="smollm2-135m")
    seen = len(home.hub.seen)
    with pytest.raises(BadInput, match=r"^'a/b' is no name for"):
        home.pull("HUB/files/Other.gguf", name="a/b")
    assert len(home.hub.seen) == seen


def test_what_is_no_model_is_thrown_away(home: Home) -> None:
    with pytest.raises(ModelError, match="what came is no model"):
        home.pull("org/junk")
    with pytest.raises(ModelError, match="what came is no model"):
        home.pull("org/Smol-GGUF:F16")
    assert home.files == []


def test_a_file_that_was_there_before_is_not_thrown_away(home: Home) -> None:
    home.folder.mkdir()
    mine = home.folder / "junk-Q4_0.gguf"
    mine.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(ModelError, match="what came is no model"):
        home.pull("org/junk")
    assert mine.exists()


def test_a_checksum_of_ones_own(home: Home, gguf: Path) -> None:
    right = hashlib.sha256(gguf.read_bytes()).hexdigest()
    for wrong in ("12", "x" * 64):
        with pytest.raises(BadInput, match="is no SHA-256"):
            home.pull("HUB/files/Other.gguf", sha256=wrong)
    with pytest.raises(DownloadFailed, match=f"has the SHA-256 {right}"):
        home.pull("HUB/files/Other.gguf", sha256="0" * 64)
    with pytest.raises(DownloadFailed, match="there, not 0000"):
        home.pull("org/Smol-GGUF", sha256="0" * 64)
    assert home.pull("HUB/files/Other.gguf", sha256=f"sha256:{right.upper()}")["model"] == "other"


def test_no_room(home: Home) -> None:
    with pytest.raises(DiskFull, match="there is no room for Smol_LM"):
        home.pull("org/Smol-GGUF", reserve=2**60)
    assert home.files == []
    assert [path for path, _ in home.hub.seen if "resolve" in path] == []


def test_the_same_twice_at_once(home: Home) -> None:
    home.hub.pause = threading.Event()
    home.hub.files = {path: content for path, content in home.hub.files.items() if "api" not in path}
    first = threading.Thread(target=home.pull, args=("HUB/files/Other.gguf",))
    first.start()
    try:
        while first.is_alive() and not any(event["event"] == "chosen" for event in home.told):
            first.join(0.01)
        with pytest.raises(Conflict, match="is being fetched already"):
            home.pull("HUB/files/Other.gguf")
    finally:
        home.hub.pause.set()
        first.join()
    assert home.catalog.entry("other").available
