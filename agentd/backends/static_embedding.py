"""Vectors for texts out of the table of token embeddings that every model carries: no forward pass, no other model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agentd.backends.gguf_file import GgufFile

DIMENSIONS = 256
_ROWS_AT_ONCE = 4096
_SAMPLE = 16_384
_WIDEST = 2048
"""A wider table is first projected at random: its principal axes would take minutes."""


class StaticEmbedding:
    """Token vectors, centred and reduced to 256 dimensions; a later token id is rarer and weighs more."""

    def __init__(self, file: GgufFile) -> None:
        """Raises `KeyError` when the file has no such table, `ValueError` or `NotImplementedError` for its type."""
        table = _reduced(file)
        table -= table.mean(axis=0)
        table *= np.log1p(np.arange(len(table), dtype=np.float32))[:, None]
        self._table: NDArray[np.float16] = table.astype(np.float16)

    def vector(self, tokens: Sequence[int]) -> list[float]:
        """Unit length; all zeros for no tokens."""
        total = self._table[np.asarray(tokens, dtype=np.int64)].astype(np.float32).sum(axis=0)
        length = float(np.linalg.norm(total))
        return [round(float(number), 6) for number in (total / length if length else total)]


def _reduced(file: GgufFile) -> NDArray[np.float32]:
    tensor = file.tensors["token_embd.weight"]
    width, count = tensor.shape
    raw = np.memmap(file.path, np.uint8, "r", tensor.start, (count, tensor.size // count))
    narrow = _axes(raw, tensor.kind, width)
    parts = []
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = _numbers(raw[start : start + _ROWS_AT_ONCE], tensor.kind)
        parts.append(rows @ narrow)
    return np.concatenate(parts)


def _axes(raw: NDArray[np.uint8], kind: int, width: int) -> NDArray[np.float32]:
    """Shape (width, 256): the principal axes of a sample of rows."""
    if width > _WIDEST:
        random = np.random.default_rng(0).standard_normal((width, DIMENSIONS)) / np.sqrt(DIMENSIONS)
        return np.asarray(random, dtype=np.float32)
    step = max(1, len(raw) // _SAMPLE)
    sample = _numbers(np.ascontiguousarray(raw[::step]), kind)
    sample -= sample.mean(axis=0)
    _, axes = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(axes[:, ::-1][:, :DIMENSIONS], dtype=np.float32)


def _numbers(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    # Imported here because only embedding needs it, and it takes longer than loading a small model.
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return np.asarray(dequantize(raw, GGMLQuantizationType(kind)), dtype=np.float32)
