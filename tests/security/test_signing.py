"""Signatures: of this home's key over exactly these bytes, or none."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from agentd.errors import StoreError
from agentd.security.signing import Signer


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "state" / "plugins.key")


def test_it_vouches_for_what_it_signed_and_nothing_else(signer: Signer, tmp_path: Path) -> None:
    signature = signer.sign(b"a plugin", first=True)
    assert signer.vouches(b"a plugin", signature)
    assert not signer.vouches(b"A plugin", signature)
    assert not signer.vouches(b"a plugin", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not signer.vouches(b"a plugin", b"")
    another = Signer(tmp_path / "other.key")
    assert not signer.vouches(b"a plugin", another.sign(b"a plugin", first=True))


def test_the_key_is_the_owner_s_and_made_once(signer: Signer, tmp_path: Path) -> None:
    signature = signer.sign(b"one", first=True)
    assert stat.S_IMODE((tmp_path / "state" / "plugins.key").stat().st_mode) == 0o600
    signer.sign(b"two", first=True)
    assert Signer(tmp_path / "state" / "plugins.key").vouches(b"one", signature)


def test_a_lost_key_is_not_replaced_behind_what_it_signed(signer: Signer, tmp_path: Path) -> None:
    signature = signer.sign(b"one", first=True)
    (tmp_path / "state" / "plugins.key").unlink()
    with pytest.raises(StoreError, match="is gone"):
        signer.vouches(b"one", signature)
    with pytest.raises(StoreError, match="is gone"):
        signer.sign(b"two")
