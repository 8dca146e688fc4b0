"""Secrets: kept, opened only with their key, and nowhere to be read."""

from __future__ import annotations

import signal
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from agentd.clock import SystemClock
from agentd.errors import BadInput, NotFound, StoreError
from agentd.security.vault import MAX_BYTES, Vault
from agentd.store.db import Database

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agentd.db"


@pytest.fixture
def vault(path: Path) -> Vault:
    return Vault(Database(path, clock=SystemClock()), SystemClock(), path.with_name("vault.key"))


def change(path: Path, sql: str) -> None:
    """As somebody would who has the file."""
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def test_what_is_kept_comes_back(vault: Vault) -> None:
    vault.set("openai", SECRET)
    vault.set("other", "ü\n\x00 ∞")
    assert (vault.get("openai"), vault.get("other"), vault.get("none")) == (SECRET, "ü\n\x00 ∞", None)
    assert [secret.name for secret in vault.names()] == ["openai", "other"]


def test_a_secret_is_replaced_and_removed(vault: Vault) -> None:
    vault.set("a", "one")
    vault.set("a", "two")
    assert vault.get("a") == "two"
    vault.remove("a")
    assert vault.get("a") is None
    with pytest.raises(NotFound):
        vault.remove("a")


def test_nothing_of_it_lies_on_the_disk(vault: Vault, path: Path) -> None:
    vault.set("openai", SECRET)
    for file in path.parent.iterdir():
        assert SECRET.encode() not in file.read_bytes(), file
    assert stat.S_IMODE(path.with_name("vault.key").stat().st_mode) == 0o600


def test_a_second_vault_opens_it(vault: Vault, path: Path) -> None:
    vault.set("openai", SECRET)
    again = Vault(Database(path, clock=SystemClock()), SystemClock(), path.with_name("vault.key"))
    assert again.get("openai") == SECRET


def _another_key(path: Path) -> None:
    path.with_name("vault.key").write_text("00" * 32)


def _short_key(path: Path) -> None:
    path.with_name("vault.key").write_text("00" * 16)


def _no_hex(path: Path) -> None:
    path.with_name("vault.key").write_text("ü")


def _no_key(path: Path) -> None:
    path.with_name("vault.key").unlink()


def _open_key(path: Path) -> None:
    path.with_name("vault.key").chmod(0o644)


def _changed_row(path: Path) -> None:
    change(path, "UPDATE secrets SET sealed = zeroblob(length(sealed))")


def _short_row(path: Path) -> None:
    change(path, "UPDATE secrets SET sealed = x'00', nonce = x'00'")


def _swapped_rows(path: Path) -> None:
    change(path, "UPDATE secrets SET name = 'c' WHERE name = 'a'")
    change(path, "UPDATE secrets SET name = 'a' WHERE name = 'b'")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_another_key, "is not its key"),
        (_short_key, "no key of the vault"),
        (_no_hex, "cannot be read"),
        (_no_key, "is gone"),
        (_open_key, "others can read"),
        (_changed_row, "it was changed"),
        (_short_row, "it was changed"),
        (_swapped_rows, "it was changed"),
    ],
)
def test_what_cannot_be_opened_is_said(vault: Vault, path: Path, harm: Callable[[Path], None], said: str) -> None:
    vault.set("a", SECRET)
    vault.set("b", "another")
    harm(path)
    with pytest.raises(StoreError, match=said) as caught:
        vault.get("a")
    assert SECRET not in str(caught.value)


def test_a_lost_key_is_not_replaced_while_secrets_hang_on_it(vault: Vault, path: Path) -> None:
    vault.set("a", SECRET)
    _no_key(path)
    with pytest.raises(StoreError, match="is gone"):
        vault.set("b", "more")
    vault.remove("a")
    vault.set("b", "more")
    assert vault.get("b") == "more"


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "ä", "-a", "a" * 101, "a\n", "a/b"])
def test_names_that_are_none(vault: Vault, name: str) -> None:
    with pytest.raises(BadInput):
        vault.set(name, "x")


@pytest.mark.parametrize("value", ["", "x" * (MAX_BYTES + 1)])
def test_values_that_are_none(vault: Vault, value: str) -> None:
    with pytest.raises(BadInput) as caught:
        vault.set("a", value)
    assert "xxx" not in str(caught.value)


def test_a_full_disk_leaves_no_half_key(vault: Vault, path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    vault.names()  # the database has its files by now
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # no file may grow beyond ten bytes
        with pytest.raises(StoreError):
            vault._file.make()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [each.name for each in path.parent.glob("*vault*")] == []
    vault.set("a", SECRET)
    assert vault.get("a") == SECRET


def test_what_is_looked_for_is_what_is_kept_now_in_every_form(vault: Vault) -> None:
    vault.set("short", "pw")
    vault.set("long", f'{{\n  "ü": "{SECRET}"\n}}')
    quoted = f'"ü": "{SECRET}"'
    assert set(vault.values()) >= {quoted, *(f'{{\\n  \\"{u}\\": \\"{SECRET}\\"\\n}}' for u in ("ü", "\\u00fc"))}
    assert "pw" not in vault.values()
    vault.set("long", "another one")
    assert vault.values() == ("another one",)
    vault.remove("long")
    assert vault.values() == ()


def test_the_key_of_the_vault_is_not_needed_for_each_look(vault: Vault, path: Path) -> None:
    vault.set("a", SECRET)
    assert vault.values() == (SECRET,)
    path.with_name("vault.key").unlink()
    assert vault.values() == (SECRET,)
