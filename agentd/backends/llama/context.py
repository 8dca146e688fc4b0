"""llama.cpp's memory of many sequences, and forward passes over batches that mix them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from agentd.backends.decoding import Floats
from agentd.backends.llama.loading import make_context
from agentd.backends.llama.refusals import Aborted, NoRoom, Refused

CPU_BATCH = 256
GPU_BATCH = 512
MOST_ROWS = 64
"""Positions whose logits are held at once, beside one for each sequence."""

_DONE, _NO_ROOM, _ABORTED = 0, 1, 2
_MANY = 4
"""Tokens of one pass from which all cores take part: six sequences take 26 ms on two cores and 43 on one of them (54
and 50 while somebody else works on the other); a prompt is read at 620 and 350 tokens a second."""
_CHUNK = 512
_BF16 = 30
"""ggml's number for bfloat16, which the bindings do not name."""


class Abort:
    """A flag that llama.cpp itself looks at between the operations of one forward pass."""

    def __init__(self) -> None:
        self._byte = ctypes.create_string_buffer(2)
        # A C function that is false for "\0" and true for "\1": a Python callback would be entered a thousand times
        # for every token and wait for the interpreter's lock each time.
        strlen = ctypes.CDLL(None).strlen
        self.callback = ctypes.cast(strlen, lib.ggml_abort_callback)
        self.data = ctypes.c_void_p(ctypes.addressof(self._byte))

    @property
    def set(self) -> bool:
        return self._byte.raw[0] != 0

    def put(self, on: bool) -> None:
        self._byte[0] = b"\1" if on else b"\0"


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens by which one sequence goes on, and from which of them on logits are wanted."""

    sequence: int
    tokens: Sequence[int]
    rows_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How a context is made. `cells`: tokens of all sequences together."""

    cells: int
    sequences: int
    unified: bool
    kv_type: str
    threads: int
    threads_batch: int
    gpu: bool
    can_cut: bool
    """False for a model with a recurrent state, which cannot go back to a shorter prefix."""


class Context:
    """What stands in the memory of each sequence is in `tokens`; only this class changes either."""

    def __init__(self, model: Any, memory: Memory, abort: Abort, adapters: Sequence[Any] = ()) -> None:
        self.memory = memory
        self.batch_size = GPU_BATCH if memory.gpu else CPU_BATCH
        self._abort = abort
        self._vocabulary: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._pointer = make_context(model, _params(memory, self.batch_size, abort), adapters)
        self._memory = lib.llama_get_memory(self._pointer)
        self.size: int = lib.llama_n_ctx_seq(self._pointer)
        """Tokens that one sequence can have."""
        self.tokens: list[list[int]] = [[] for _ in range(memory.sequences)]
        self._batch = _Batch(self.batch_size)
        self.set_threads(memory.threads, memory.threads_batch)

    def close(self) -> None:
        lib.llama_free(self._pointer)

    def set_threads(self, threads: int, threads_batch: int) -> None:
        """`threads_batch` compute passes of many tokens."""
        self._threads = (threads, threads_batch)
        self._threads_now = 0

    def _take_threads(self, tokens: int) -> None:
        """llama.cpp itself takes a pass of two tokens for one of many."""
        few, many = self._threads
        wanted = many if tokens >= _MANY else few
        if wanted != self._threads_now:
            self._threads_now = wanted
            lib.llama_set_n_threads(self._pointer, few, wanted)

    def compute(self, parts: Sequence[Part]) -> list[Floats]:
        """One forward pass; logits of shape (rows, vocabulary) for each part, valid until the next pass.

        Raises `Aborted`, `NoRoom` and `Refused`; nothing of the batch stands then.
        """
        # A batch is cut into runs of neighbouring sequences when each has a memory of its own.
        order = sorted(range(len(parts)), key=lambda place: parts[place].sequence)
        self._take_threads(sum(len(part.tokens) for part in parts))
        starts = self._batch.fill([(parts[place], len(self.tokens[parts[place].sequence])) for place in order])
        code = _ABORTED if self._abort.set else lib.llama_decode(self._pointer, self._batch.struct)
        if code != _DONE:
            self._undo(parts)
            if code == _ABORTED:
                raise Aborted
            if code == _NO_ROOM:
                raise NoRoom
            raise Refused(f"llama.cpp could not compute {sum(len(part.tokens) for part in parts)} tokens (code {code})")
        rows: list[Floats] = [_NOTHING] * len(parts)
        for start, place in zip(starts, order, strict=True):
            self.tokens[parts[place].sequence] += parts[place].tokens
            rows[place] = self._rows(parts[place], start)
        return rows

    def _undo(self, parts: Sequence[Part]) -> None:
        for part in parts:  # some of their tokens may stand in the memory
            count = len(self.tokens[part.sequence])
            self.tokens[part.sequence] += part.tokens
            self.cut(part.sequence, count)

    def _rows(self, part: Part, start: int) -> Floats:
        count = len(part.tokens) - part.rows_from
        if count <= 0:
            return _NOTHING
        pointer = lib.llama_get_logits_ith(self._pointer, start + part.rows_from)
        if not pointer:
            raise Refused("llama.cpp gave no logits")
        return floats_at(pointer, count * self._vocabulary).reshape(count, self._vocabulary)

    def common(self, sequence: int, tokens: Sequence[int], most: int) -> int:
        """How many of `tokens`, `most` at most, stand in a sequence and could stay there."""
        standing = self.tokens[sequence]
        shared = common(standing, tokens, most)
        return shared if self.memory.can_cut or shared == len(standing) else 0

    def cut(self, sequence: int, count: int) -> int:
        """Forget all but the first `count` tokens; returns how many stand (a recurrent model forgets all or none)."""
        standing = self.tokens[sequence]
        if count < len(standing):
            if not (count and lib.llama_memory_seq_rm(self._memory, sequence, count, -1)):
                lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
                count = 0
            del standing[count:]
        return len(standing)

    def copy(self, source: int, target: int, count: int) -> int:
        """Let `target` stand where the first `count` tokens of `source` end; returns how many stand."""
        if self.memory.unified:
            self.cut(target, 0)
            end = count if self.memory.can_cut else -1
            lib.llama_memory_seq_cp(self._memory, source, target, 0, end)
            self.tokens[target] = self.tokens[source][: count if self.memory.can_cut else None]
        else:
            # Copying between separate memories waits in llama.cpp until the next pass, and takes all cells, used or
            # not; what would be read or written in between would be wrong.
            self.restore(target, self.save(source), self.tokens[source])
        return self.cut(target, count)

    def save(self, sequence: int) -> bytes:
        size = lib.llama_state_seq_get_size(self._pointer, sequence)
        room = bytearray(size)
        view = (ctypes.c_uint8 * size).from_buffer(room)
        written = lib.llama_state_seq_get_data(self._pointer, view, size, sequence)
        del view
        return bytes(memoryview(room)[:written])

    def restore(self, sequence: int, state: bytes, tokens: Sequence[int]) -> None:
        """Raises `Refused` when the state does not fit; the sequence is empty then."""
        self.cut(sequence, 0)
        view = ctypes.cast(ctypes.c_char_p(state), ctypes.POINTER(ctypes.c_uint8))
        if not lib.llama_state_seq_set_data(self._pointer, view, len(state), sequence):
            lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            raise Refused("a saved state could not be read back")
        self.tokens[sequence] = list(tokens)


_NOTHING: Floats = np.empty((0, 0), dtype=np.float32)


def floats_at(pointer: Any, size: int) -> Floats:
    """An array over memory of llama.cpp's, which may change it."""
    numbers: Any = (ctypes.c_float * size).from_address(ctypes.addressof(pointer.contents))
    return np.frombuffer(numbers, dtype=np.float32)


def common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many tokens, `most` at most, two texts share at their beginning."""
    most = min(most, len(one), len(other))
    at = 0
    while at < most and one[at : at + _CHUNK] == other[at : at + _CHUNK]:
        at += _CHUNK
    while at < most and one[at] == other[at]:
        at += 1
    return min(at, most)


def _params(memory: Memory, batch: int, abort: Abort) -> Any:
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = memory.cells, memory.sequences, memory.unified
    params.n_batch = params.n_ubatch = batch
    params.n_outputs_max = min(batch, MOST_ROWS + memory.sequences)
    params.n_threads, params.n_threads_batch = memory.threads, memory.threads_batch
    params.abort_callback, params.abort_callback_data = abort.callback, abort.data
    params.no_perf = True
    exact = memory.kv_type == "f16"
    params.type_k = params.type_v = _half(memory.gpu) if exact else lib.GGML_TYPE_Q8_0
    # On the CPU flash attention gains nothing, and makes a token's logits depend on how the prompt was cut into
    # batches (by up to 0.6); without it the same text always gets the same numbers. Only it can read coarse values.
    plain = exact and not memory.gpu
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if plain else lib.LLAMA_FLASH_ATTN_TYPE_AUTO
    return params


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 by itself, and llama.cpp was built to let it."""
    return "AVX512_BF16 = 1" in lib.llama_print_system_info().decode()


def _half(gpu: bool) -> int:
    """Two bytes a number: bfloat16 where the processor knows it, which goes through a long context a third quicker."""
    found: int = _BF16 if not gpu and has_bf16() else lib.GGML_TYPE_F16
    return found


class _Batch:
    """llama.cpp's batch over arrays of our own, filled with whole slices."""

    def __init__(self, size: int) -> None:
        self._token, self._pos, self._sequence, self._counts = (np.zeros(size, dtype=np.int32) for _ in range(4))
        self._wanted = np.zeros(size, dtype=np.int8)
        self._counts[:] = 1
        whole = ctypes.POINTER(ctypes.c_int32)
        first = self._sequence.ctypes.data
        self._sequences = (whole * size)(
            *[ctypes.cast(first + place * self._sequence.itemsize, whole) for place in range(size)]
        )
        self.struct = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._token, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._pos, ctypes.c_int32),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=self._sequences,
            logits=_pointer(self._wanted, ctypes.c_int8),
        )

    def fill(self, parts: Sequence[tuple[Part, int]]) -> list[int]:
        """Each part with its first position; returns where each begins in the batch."""
        starts = []
        at = 0
        for part, position in parts:
            end = at + len(part.tokens)
            starts.append(at)
            self._token[at:end] = part.tokens
            self._pos[at:end] = range(position, position + end - at)
            self._sequence[at:end] = part.sequence
            self._wanted[at:end] = 0
            self._wanted[at + part.rows_from : end] = 1
            at = end
        self.struct.n_tokens = at
        return starts


def _pointer(array: NDArray[Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
