"""States of conversations that have no sequence at the moment: in memory within a bound, and in a file over a swap."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agentd.backends.llama.context import common

_MAGIC = b"agentd-states-1\n"
_LENGTH = struct.Struct("<Q")
_LONGEST_INDEX = 256 * 1024 * 1024
_DIGEST = 16


@dataclass(slots=True)
class _Entry:
    tokens: list[int]
    state: bytes | _Stored

    @property
    def size(self) -> int:
        return len(self.state) if isinstance(self.state, bytes) else self.state.size


@dataclass(frozen=True, slots=True)
class _Stored:
    """A state that still lies in the file."""

    file: BinaryIO
    at: int
    size: int
    digest: bytes

    def read(self) -> bytes | None:
        """None when the file does not hold any more what was written."""
        try:
            found = os.pread(self.file.fileno(), self.size, self.at)
        except (OSError, ValueError):
            return None
        return found if _digest(found) == self.digest else None


class States:
    """The least recently used state goes first when there are more than `limit` bytes.

    `whole`: states cannot be cut back to a shorter prefix.
    """

    def __init__(self, limit: int, *, whole: bool = False) -> None:
        self.limit = limit
        self.whole = whole
        self.size = 0
        """Bytes in memory."""
        self._entries: list[_Entry] = []
        self._file: BinaryIO | None = None

    def close(self) -> None:
        """The file that was read; what still lies in it cannot be taken any more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, tokens: Sequence[int], state: bytes) -> None:
        """A state that goes on where another one ended takes its place, unless states are only good as a whole."""
        if len(state) > self.limit:
            return
        tokens = list(tokens)
        for entry in list(self._entries):
            shared = common(entry.tokens, tokens, len(tokens))
            same = shared == len(tokens) == len(entry.tokens)
            if same or (not self.whole and shared in (len(tokens), len(entry.tokens))):
                self._drop(entry)
                longer = _bytes_of(entry) if shared == len(tokens) and not same else None
                if longer is not None:
                    tokens, state = entry.tokens, longer
        self._entries.append(_Entry(tokens, state))
        self.size += len(state)
        while self.size > self.limit:
            self._drop(self._entries[0])

    def find(self, tokens: Sequence[int], most: int) -> int:
        """How many of `tokens`, `most` at most, the best state has."""
        return max((self._usable(entry, tokens, most) for entry in self._entries), default=0)

    def take(self, tokens: Sequence[int], most: int) -> tuple[list[int], bytes] | None:
        """The best state for `tokens`. One that goes on far beyond them, as another conversation, is kept as well."""
        entry = max(self._entries, key=lambda entry: self._usable(entry, tokens, most), default=None)
        if entry is None or (shared := self._usable(entry, tokens, most)) < 1:
            return None
        state = _bytes_of(entry)
        self._drop(entry)
        if state is None:
            return None
        if self.whole or len(entry.tokens) - shared > len(entry.tokens) // 4:
            self.keep(entry.tokens, state)
        return entry.tokens, state

    def _usable(self, entry: _Entry, tokens: Sequence[int], most: int) -> int:
        shared = common(entry.tokens, tokens, most)
        return 0 if self.whole and shared < len(entry.tokens) else shared

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        if isinstance(entry.state, bytes):
            self.size -= len(entry.state)

    def write(self, path: Path, identity: dict[str, Any], first: Iterator[tuple[list[int], bytes]]) -> None:
        """The states of `first`, which are worth the most, then those kept, the latest first; within the bound.

        Raises `OSError`.
        """
        chosen: list[tuple[list[int], bytes]] = []
        room = self.limit
        for tokens, state in _all(first, reversed(self._entries)):
            if len(state) <= room:
                chosen.append((tokens, state))
                room -= len(state)
        entries = [{"tokens": tokens, "bytes": len(s), "digest": _digest(s).hex()} for tokens, s in chosen]
        index = json.dumps({"identity": identity, "entries": entries}, separators=(",", ":")).encode()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MAGIC + _LENGTH.pack(len(index)) + index)
            for _, state in chosen:
                file.write(state)

    def read(self, path: Path, identity: dict[str, Any]) -> int:
        """Know of the states in a file, which are read when they are wanted; returns how many there are.

        A file of another model, or one that is damaged, has none.
        """
        self.close()
        try:
            self._file = path.open("rb")
            entries = list(_stored(self._file, identity))
        except (OSError, ValueError, KeyError, TypeError, struct.error, AttributeError, OverflowError):
            return 0
        self._entries[:0] = reversed(entries)
        return len(entries)


def _all(first: Iterator[tuple[list[int], bytes]], kept: Iterator[_Entry]) -> Iterator[tuple[list[int], bytes]]:
    yield from first
    for entry in kept:
        state = _bytes_of(entry)
        if state is not None:
            yield entry.tokens, state


def _bytes_of(entry: _Entry) -> bytes | None:
    return entry.state if isinstance(entry.state, bytes) else entry.state.read()


def _stored(file: BinaryIO, identity: dict[str, Any]) -> Iterator[_Entry]:
    size = os.fstat(file.fileno()).st_size
    if file.read(len(_MAGIC)) != _MAGIC:
        return
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    if length > min(size, _LONGEST_INDEX):
        return
    index = json.loads(file.read(length))
    if index["identity"] != identity:
        return
    at = file.tell()
    for each in index["entries"]:
        tokens = [int(token) for token in each["tokens"]]
        stored = _Stored(file, at, int(each["bytes"]), bytes.fromhex(each["digest"]))
        at += stored.size
        if at <= size and stored.size >= 0:
            yield _Entry(tokens, stored)


def _digest(state: bytes) -> bytes:
    return hashlib.blake2b(state, digest_size=_DIGEST).digest()
