from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agentd.backends.catalog import FILE, Catalog
from agentd.backends.catalog_edit import CatalogFile
from agentd.errors import BadInput, ConfigError, Conflict, NotFound
from agentd.home import defaults_dir

DEFAULT = defaults_dir() / "models"
OWN = """\
# mine
[roles]
planner = ["small", "far"]  # the best first
coder = [
    "small",  # quick
    "box/abc",
]
draft = ["small"]
critic = ["small"]
embed = ["small"]
rerank = ["small"]

# all there is
[models.small]
file = "small.gguf"  # of last year

[models.far]
backend = "openai"
server = "box"
model = "x/y"

[servers.box]
url = "http://127.0.0.1:8080"
"""


@pytest.fixture
def file(tmp_path: Path) -> CatalogFile:
    (tmp_path / FILE).write_text(OWN)
    return CatalogFile(tmp_path, DEFAULT)


def text(folder: Path) -> str:
    return (folder / FILE).read_text()


def test_what_is_added_leaves_all_else_as_it_was(tmp_path: Path, file: CatalogFile) -> None:
    file.add_model("new.q8", {"file": "new.gguf", "sampling": {"temperature": 0.5}, "context": None})
    file.add_server("other", {"urls": ["https://one.example", "https://two.example/v1"], "weights": [1, 2]})
    assert set(OWN.splitlines()) <= set(text(tmp_path).splitlines())
    catalog = Catalog.load(tmp_path, DEFAULT)
    assert catalog.entry("new.q8").profile.sampling == {"temperature": 0.5}
    assert catalog.server("other").urls == ("https://one.example/v1", "https://two.example/v1")
    file.add_model("new.q8", {"file": "newer.gguf"})
    assert Catalog.load(tmp_path, DEFAULT).entry("new.q8").file == tmp_path / "newer.gguf"


def test_candidates(tmp_path: Path, file: CatalogFile) -> None:
    file.add_candidate("planner", "far", first=True)
    file.add_candidate("coder", "far")
    file.add_candidate("coder", "box/abc", first=True)
    file.add_candidate("draft", "box/new")
    roles = Catalog.load(tmp_path, DEFAULT).roles
    assert roles["planner"] == ("far", "small")
    assert roles["coder"] == ("box/abc", "small", "far")
    assert roles["draft"] == ("small", "box/new")
    assert "# the best first" in text(tmp_path)
    assert "# quick" in text(tmp_path)


def test_what_is_added_must_be_right(tmp_path: Path, file: CatalogFile) -> None:
    for change in (
        lambda: file.add_model("new", {"file": "a", "package": "b"}),
        lambda: file.add_model("a/b", {"file": "a"}),
        lambda: file.add_candidate("planner", "nobody"),
        lambda: file.add_candidate("cook", "small"),
        lambda: file.add_server("s", {"url": "ftp://x"}),
        lambda: file.check_model("new", {"file": "a", "context": 1}),
    ):
        with pytest.raises(BadInput) as caught:
            change()
        assert FILE not in caught.value.message  # nothing is wrong with what stands there
    file.check_model("new", {"file": "a"})
    assert text(tmp_path) == OWN


def test_removed(tmp_path: Path, file: CatalogFile) -> None:
    file.remove_model("far")
    catalog = Catalog.load(tmp_path, DEFAULT)
    assert set(catalog.models) == {"small"}
    assert catalog.roles["planner"] == ("small",)
    assert "# of last year" in text(tmp_path)
    with pytest.raises(Conflict, match="small is the role planner and the role draft"):
        file.remove_model("small")
    with pytest.raises(NotFound):
        file.remove_model("far")


def test_a_server_goes_with_its_models_or_not_at_all(tmp_path: Path, file: CatalogFile) -> None:
    with pytest.raises(Conflict, match=r"box serves box/abc, far"):
        file.remove_server("box")
    file.remove_server("box", with_users=True)
    catalog = Catalog.load(tmp_path, DEFAULT)
    assert catalog.servers == {}
    assert catalog.roles["coder"] == ("small",)
    with pytest.raises(NotFound):
        file.remove_server("box")
    file.add_server("box", {"url": "http://127.0.0.1:1"})
    file.add_candidate("draft", "box/d")
    (tmp_path / FILE).write_text(text(tmp_path).replace('draft = ["small", "box/d"]', 'draft = ["box/d"]'))
    with pytest.raises(Conflict, match="only models of draft"):
        file.remove_server("box", with_users=True)


def test_comments_of_the_tables_around_stay(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    file = CatalogFile(folder, DEFAULT)
    file.add_model("first", {"file": "first.gguf", "sampling": {"top_k": 5}})
    before = text(folder).splitlines()
    for name in ("qwen2.5-14b", "first"):
        file.remove_model(name)
    missing = [line for line in before if line not in text(folder).splitlines() and not line.startswith(('"', "["))]
    assert not any("#" in line for line in missing), missing
    assert "# Comes with the extra" in text(folder)
    last = text(folder).index("# Comes with the extra")
    assert text(folder)[last:].splitlines()[1] == '[models."smollm2-135m"]'


def test_a_comment_right_above_goes_with_its_table(tmp_path: Path, file: CatalogFile) -> None:
    (tmp_path / FILE).write_text(OWN.replace("[models.far]", "# away\n[models.far]"))
    file.remove_model("far")
    assert "# away" not in text(tmp_path)
    assert "# all there is" in text(tmp_path)


@pytest.mark.parametrize(
    "spelling",
    [
        OWN.replace("[models.small]", "[ models . small ]"),
        OWN.replace('[models.far]\nbackend = "openai"\nserver = "box"\nmodel = "x/y"\n', "")
        + '[models."far"]\nmodel = """\n[models.small]\n"""\nbackend = "openai"\nserver = "box"\n',
    ],
)
def test_unusual_spellings_are_changed_rightly_or_not_at_all(tmp_path: Path, file: CatalogFile, spelling: str) -> None:
    (tmp_path / FILE).write_text(spelling)
    try:
        expected = {name for name in Catalog.load(tmp_path, DEFAULT).models if name != "far"}
        file.remove_model("far")
    except ConfigError:
        assert text(tmp_path) == spelling
    else:
        assert set(Catalog.load(tmp_path, DEFAULT).models) == expected


def test_a_draft_is_needed_by_its_model(tmp_path: Path, file: CatalogFile) -> None:
    file.add_model("quick", {"file": "q.gguf"})
    file.add_model("small", {"file": "small.gguf", "draft": "quick"})
    with pytest.raises(Conflict, match="the draft of small"):
        file.remove_model("quick")


def test_a_home_with_the_default_catalog_gets_its_own(tmp_path: Path) -> None:
    before = (DEFAULT / FILE).read_text()
    folder = tmp_path / "models"
    CatalogFile(folder, DEFAULT).add_model("new", {"file": "new.gguf"})
    assert text(folder).startswith(before)
    assert (DEFAULT / FILE).read_text() == before


def test_a_broken_file_is_not_touched(tmp_path: Path, file: CatalogFile) -> None:
    (tmp_path / FILE).write_text(broken := OWN.replace("[roles]", "[rolls]"))
    with pytest.raises(ConfigError, match="rolls"):
        file.add_model("new", {"file": "new.gguf"})
    assert text(tmp_path) == broken
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.skipif(os.name != "posix", reason="rights and links are those of POSIX")
def test_rights_and_links_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text(OWN)
    real.chmod(0o600)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / FILE).symlink_to(real)
    CatalogFile(folder, DEFAULT).add_model("new", {"file": "new.gguf"})
    assert (folder / FILE).is_symlink()
    assert "new.gguf" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o600


def test_changes_at_once_all_stand(tmp_path: Path, file: CatalogFile) -> None:
    names = [f"m{number}" for number in range(8)]
    threads = [threading.Thread(target=file.add_model, args=(name, {"file": f"{name}.gguf"})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(names) <= set(Catalog.load(tmp_path, DEFAULT).models)
