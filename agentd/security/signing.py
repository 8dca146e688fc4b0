"""What this home vouches for: signatures (Ed25519) with a key that never leaves it."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agentd.security.key_file import KeyFile


class Signer:
    """Signs and checks with the key in `path`, which is made with the first signature."""

    def __init__(self, path: Path) -> None:
        self._file = KeyFile(
            path, "the plugins", hint="bring it back from a backup; else `agentd plugin rm` what it has signed"
        )

    def sign(self, data: bytes, *, first: bool = False) -> bytes:
        """64 bytes. A key that is not there is made when this is the `first` signature, else that is a `StoreError`."""
        key = self._file.read()
        if key is None and not first:
            raise self._file.gone()
        return Ed25519PrivateKey.from_private_bytes(key or self._file.make()).sign(data)

    def vouches(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this home's over exactly `data`. Raises `StoreError` without a usable key."""
        key = self._file.read()
        if key is None:
            raise self._file.gone()
        try:
            Ed25519PrivateKey.from_private_bytes(key).public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True
