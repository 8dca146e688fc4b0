"""Models by commands, with a real daemon and a hub that breaks off."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.backends.catalog import FILE, Catalog
from agentd.home import defaults_dir
from tests.backends.file_server import FileServer, serving
from tests.e2e.harness import Agentd, Terminal, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def gguf() -> Path:
    folder = defaults_dir() / "models"
    path = Catalog.load(folder, folder).entry("smollm2-135m").available
    assert path is not None
    return path


@pytest.fixture
def hub(gguf: Path) -> Iterator[FileServer]:
    server = FileServer()
    server.add_repository("org/Smol-GGUF", {"Smol.Q4_K_M.gguf": gguf.read_bytes()})
    with serving(server):
        yield server


def test_from_the_hub_to_the_bin(daemon: Agentd, hub: FileServer) -> None:
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret"}
    hub.breaks = [10**9, 50_000_000]
    pulled = daemon.run("model", "pull", "org/Smol-GGUF", env=env)
    assert (pulled.returncode, pulled.stdout) == (0, "smol.q4_k_m\n"), pulled.stderr
    assert "50,000,000 of" in pulled.stderr or "again in" in pulled.stderr
    assert "it fits" in pulled.stderr
    assert hub.seen[-1][1]["range"] == "bytes=50000000-"
    assert hub.seen[-1][1]["authorization"] == "Bearer hf_secret"

    rows = {row["name"]: row for row in daemon.json("model", "ls")["models"]}
    assert rows["smol.q4_k_m"]["state"] == "available"
    assert rows["smol.q4_k_m"]["plan"]["expected"] > 1
    assert "smol.q4_k_m" in daemon.ok("model", "ls")
    shown = daemon.ok("model", "show", "smol.q4_k_m")
    assert "134,515,008" in shown
    assert "would load as" in shown

    assert daemon.ok("model", "load", "smol.q4_k_m") == "smol.q4_k_m"
    assert [each["model"] for each in daemon.json("status")["models"]] == ["smol.q4_k_m"]
    measured = daemon.json("model", "bench", "smol.q4_k_m", "--prompt", "50", "--tokens", "16")
    assert measured["load_seconds"] is None
    assert measured["decode_rate"] > 1
    daemon.ok("model", "unload", "smol.q4_k_m")
    daemon.ok("model", "load", "smol.q4_k_m")
    wait_for(lambda: daemon.json("status")["models"][0]["busy"])  # the probe that nobody asked for gives way
    held = daemon.error("model", "rm", "smol.q4_k_m", "--yes", code=9)
    assert held["hint"] == "agentd model unload smol.q4_k_m"
    daemon.ok("model", "unload", "smol.q4_k_m")
    assert daemon.json("status")["models"] == []
    cold = daemon.json("model", "bench", "smol.q4_k_m", "--cold", "--prompt", "20", "--tokens", "8")
    assert cold["load_seconds"] > 0
    daemon.ok("model", "unload", "smol.q4_k_m")

    assert "--yes" in daemon.error("model", "rm", "smol.q4_k_m", code=2)["hint"]
    file = daemon.home.models_dir / "Smol.Q4_K_M.gguf"
    assert file.exists()
    assert str(file) in daemon.ok("model", "rm", "smol.q4_k_m", "--yes")
    assert not file.exists()
    assert "smol.q4_k_m" not in daemon.ok("model", "ls")
    kinds = [record["kind"] for record in daemon.json("audit", "tail")]
    assert [kind for kind in kinds if kind.startswith("model.pull") or kind == "model.removed"] == [
        "model.pull",
        "model.pulled",
        "model.removed",
    ]
    assert "hf_secret" not in daemon.ok("audit", "tail", "--json")


def test_who_goes_away_stops_the_fetch(daemon: Agentd, hub: FileServer) -> None:
    hub.pause = threading.Event()
    hub.files["/m/Direct.gguf"] = hub.files["/org/Smol-GGUF/resolve/main/Smol.Q4_K_M.gguf"]
    part = daemon.home.models_dir / "Direct.gguf.part"
    asking = daemon.start("model", "pull", f"{hub.url}/m/Direct.gguf")
    try:
        wait_for(lambda: part.exists() and part.stat().st_size > 1_000_000)
        asking.send_signal(signal.SIGINT)
        assert asking.wait(20) == 130
        hub.pause.set()
        wait_for(lambda: "model.pull_failed" in daemon.ok("audit", "tail"))
    finally:
        hub.pause.set()
        asking.kill()
        asking.communicate()
    kept = part.stat().st_size
    assert 0 < kept < len(hub.files["/m/Direct.gguf"])
    hub.pause = None
    assert daemon.ok("model", "pull", f"{hub.url}/m/Direct.gguf") == "direct"
    assert hub.ranges_asked[-1] == f"bytes={kept}-"


def test_what_cannot_be_fetched(fresh: Agentd, hub: FileServer) -> None:
    env = {"HF_ENDPOINT": hub.url}
    assert "org/none" in fresh.error("model", "pull", "org/none", code=1, env=env)["message"]
    assert "names no model" in fresh.error("model", "pull", "none", code=2, env=env)["message"]
    away = fresh.error("model", "pull", "http://models.example.com/a.gguf", code=5, env=env)
    assert "only https" in away["message"]
    text = (fresh.home.home / "policies" / "default.yaml").read_text()
    assert "- id: pull-from-anywhere" in text
    (fresh.home.home / "policies" / "default.yaml").write_text(text.partition("- id: pull-from-anywhere")[0])
    fresh.ok("down")
    denied = fresh.error("model", "pull", "org/Smol-GGUF", code=5, env=env)
    assert "no model may come from 127.0.0.1" in denied["message"]
    assert "model.pull" in denied["hint"]


def test_a_file_by_its_path(daemon: Agentd, gguf: Path) -> None:
    file = daemon.workspace / "loose.gguf"
    shutil.copyfile(gguf, file)
    assert daemon.ok("model", "load", "./loose.gguf", "-q") == str(file)
    assert [each["model"] for each in daemon.json("status")["models"]] == [str(file)]
    assert daemon.json("model", "show", "loose.gguf")["state"] == "loaded"
    daemon.ok("model", "unload", "loose.gguf")
    assert "no model file" in daemon.error("model", "load", str(daemon.workspace / "x.gguf"), code=1)["message"]
    daemon.error("model", "rm", str(file), "--yes", code=1)
    assert file.exists()


def test_the_catalog_is_read_again_while_the_daemon_runs(daemon: Agentd) -> None:
    file = daemon.home.models_dir / FILE
    good = file.read_text()
    file.write_text(good + '\n[models.another]\nfile = "another.gguf"\n')
    assert "another" in daemon.ok("model", "ls")
    file.write_text(good.replace("[roles]", "[rolls]"))
    done = daemon.run("model", "ls")
    assert (done.returncode, "another" in done.stdout) == (0, True)
    assert "did you mean" in daemon.json("model", "ls")["problem"]["hint"]
    assert "rolls: unknown key" in done.stderr
    assert "rolls: unknown key" in daemon.ok("status")
    file.write_text(good)
    assert daemon.json("model", "ls")["problem"] is None
    assert "another" not in daemon.ok("model", "ls")


def test_a_terminal_is_asked_before_a_model_goes(daemon: Agentd, gguf: Path) -> None:
    shutil.copyfile(gguf, daemon.home.models_dir / "a.gguf")
    with (daemon.home.models_dir / FILE).open("a") as catalog:
        catalog.write('\n[models.a]\nfile = "a.gguf"\n')
    for keys, code, stays in (("n\n", 130, True), ("y\n", 0, False)):
        terminal = Terminal(daemon, "model", "rm", "a")
        terminal.wait_for("Delete the model a")
        terminal.type(keys)
        assert terminal.end() == code
        assert os.path.exists(daemon.home.models_dir / "a.gguf") == stays


def test_progress_on_a_terminal(daemon: Agentd, hub: FileServer) -> None:
    hub.files["/m/Shown.gguf"] = hub.files["/org/Smol-GGUF/resolve/main/Smol.Q4_K_M.gguf"]
    terminal = Terminal(daemon, "model", "pull", f"{hub.url}/m/Shown.gguf")
    assert terminal.end() == 0
    assert "MB/s" in terminal.screen
    assert "100%" in terminal.screen
