"""Contents of files in the database: cut into pieces, kept once, never whole in memory."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias

from agentd.errors import NotFound
from agentd.store.db import Database

PIECE = 256 * 1024
"""Bytes."""
BATCH = 8
"""Pieces that are written in one transaction."""
SMALL = 1024 * 1024
"""Bytes of a content that is compressed at once; compressing a larger one would hold up who writes it."""

AS_IT_IS, PACKED, DENSE = 0, 1, 2

Room: TypeAlias = Callable[[int], None]
"""Is asked before so many more bytes are kept; raises when there is no room."""

_Piece = tuple[bytes, bytes]

_ADD_PIECE = "INSERT INTO pieces (digest, stored, packed, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PIECES = """
    SELECT pieces.packed, pieces.data FROM content_pieces JOIN pieces ON pieces.digest = content_pieces.piece
    WHERE content_pieces.content = ? AND content_pieces.position = ?"""

# Nobody speaks of them any more: neither a change nor, for pieces, a content.
_LOOSE_CONTENTS = """
    SELECT digest FROM contents
    WHERE digest > ?1
        AND NOT EXISTS (SELECT 1 FROM changes WHERE before_digest = contents.digest AND before_digest <> x'')
        AND NOT EXISTS (SELECT 1 FROM changes WHERE after_digest = contents.digest AND after_digest <> x'')
        AND NOT EXISTS (SELECT 1 FROM surveyed WHERE digest = contents.digest AND digest <> x'')
    ORDER BY digest LIMIT 500"""
_LOOSE_PIECES = """
    SELECT digest FROM pieces
    WHERE digest > ?1 AND NOT EXISTS (SELECT 1 FROM content_pieces WHERE piece = pieces.digest)
    ORDER BY digest LIMIT 64"""


class Blobs:
    """Contents by their digest. What is put must be named by a change while `keeping` is held, or it may be dropped."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keeping = threading.RLock()
        self._depth = 0
        self._fresh: set[bytes] = set()
        self._stored: int | None = None
        self._since = 0
        self.grown = threading.Event()
        """Much was kept: the log should be moved into the file, by whoever has the time."""

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Nothing is dropped meanwhile."""
        with self._keeping:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    self._left()

    def _left(self) -> None:
        self._fresh.clear()
        if self._since > SMALL:
            self._since = 0
            self.grown.set()

    def move_log(self) -> None:
        """Do what `grown` asks for."""
        self.grown.clear()
        self._db.move_log()

    def put(self, stream: BinaryIO, room: Room) -> bytes:
        """Keep what `stream` gives; its digest. It is safe on the disk when the change that names it is."""
        with self._db.leaving_log(), self._db.relaxed():
            return self._put(stream, room)

    def _put(self, stream: BinaryIO, room: Room) -> bytes:
        digests: list[bytes] = []
        batch: list[_Piece] = []
        size = 0
        for digest, data in _ahead(_cut(stream)):
            size += len(data)
            digests.append(digest)
            batch.append((digest, data))
            if len(batch) == BATCH:
                self._write(batch, room, large=True)
                batch = []
        content = hashlib.sha256(b"".join(digests)).digest()
        self._fresh.add(content)
        with self._db.transaction():
            self._write(batch, room, large=size > SMALL)
            if not self.has(content):
                self._db.execute("INSERT INTO contents VALUES (?, ?)", (content, size))
                for position, digest in enumerate(digests):
                    self._db.execute("INSERT INTO content_pieces VALUES (?, ?, ?)", (content, position, digest))
        return content

    def has(self, digest: bytes) -> bool:
        return self._db.row("SELECT 1 FROM contents WHERE digest = ?", (digest,)) is not None

    def read(self, digest: bytes) -> Iterator[bytes]:
        """The bytes, piece by piece; `NotFound` when they are not kept."""
        if not self.has(digest):
            raise NotFound("these bytes are not kept any more", hint="agentd config get snapshots says for how long")
        position = 0
        while row := self._db.row(_PIECES, (digest, position)):
            yield zlib.decompress(row["data"]) if row["packed"] == PACKED else row["data"]
            position += 1

    def whole(self, digest: bytes) -> bytes:
        """All the bytes at once: for what is known to be small."""
        return b"".join(self.read(digest))

    def stored(self) -> int:
        """Bytes that the pieces take."""
        with self._keeping:
            if self._stored is None:
                row = self._db.row("SELECT coalesce(sum(stored), 0) AS stored FROM pieces")
                self._stored = int(row["stored"]) if row else 0
            return self._stored

    def drop_loose(self) -> None:
        """Forget every content that no change names."""
        for table, loose in (("contents", _LOOSE_CONTENTS), ("pieces", _LOOSE_PIECES)):
            last: bytes | None = b""
            while last is not None:
                last = self._dropped(table, loose, last)
        self._stored = None

    def pack(self, most: int = 32) -> int:
        """Compress up to `most` pieces that were kept as they are; how many were looked at."""
        rows = self._db.rows("SELECT digest, data FROM pieces WHERE packed = 0 LIMIT ?", (most,))
        done = [(*_packed(row["data"]), row["digest"]) for row in rows]
        with self._db.transaction():
            for packed, data, digest in done:
                self._db.execute(
                    "UPDATE pieces SET packed = ?, data = ?, stored = ? WHERE digest = ?",
                    (packed, data, len(data), digest),
                )
        self._stored = None
        return len(rows)

    def _dropped(self, table: str, loose: str, after: bytes) -> bytes | None:
        """Drop some of those whose digest comes after this; the last of them, None when there were none."""
        with self._keeping, self._db.transaction():
            rows = self._db.rows(loose, (after,))
            for row in rows:
                if row["digest"] not in self._fresh:
                    self._db.execute(f"DELETE FROM {table} WHERE digest = ?", (row["digest"],))
        return rows[-1]["digest"] if rows else None

    def _write(self, batch: list[_Piece], room: Room, *, large: bool) -> None:
        """Those pieces that are not kept yet; of a large content as they are."""
        self._fresh.update(digest for digest, _ in batch)
        new = {digest: data for digest, data in batch if not self._known(digest)}
        if not new:
            return
        rows = [(digest, *((AS_IT_IS, data) if large else _packed(data))) for digest, data in new.items()]
        room(sum(len(data) for _, _, data in rows))
        with self._db.transaction():
            for digest, packed, data in rows:
                self._db.execute(_ADD_PIECE, (digest, len(data), packed, data))
        size = sum(len(data) for _, _, data in rows)
        self._since += size
        if self._stored is not None:
            self._stored += size

    def _known(self, digest: bytes) -> bool:
        return self._db.row("SELECT 1 FROM pieces WHERE digest = ?", (digest,)) is not None


def digest_of(stream: BinaryIO) -> bytes:
    """The digest under which `Blobs.put` would keep what `stream` gives."""
    whole = hashlib.sha256()
    for data in _cut(stream):
        whole.update(hashlib.sha256(data).digest())
    return whole.digest()


def _ahead(pieces: Iterator[bytes]) -> Iterator[_Piece]:
    """Each with its digest, which is computed aside while the pieces before it are written."""
    with ThreadPoolExecutor(1) as aside:
        waiting: deque[tuple[Future[bytes], bytes]] = deque()
        for data in pieces:
            waiting.append((aside.submit(_digest, data), data))
            if len(waiting) > BATCH:
                digest, first = waiting.popleft()
                yield digest.result(), first
        for digest, data in waiting:
            yield digest.result(), data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _cut(stream: BinaryIO) -> Iterator[bytes]:
    while data := stream.read(PIECE):
        yield data


def _packed(data: bytes) -> tuple[int, bytes]:
    packed = zlib.compress(data, 1)
    return (PACKED, packed) if len(packed) < len(data) * 9 // 10 else (DENSE, data)
