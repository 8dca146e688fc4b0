"""Vectors of a model that was made for them: each text is one sequence, pooled as the model says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp as lib
import numpy as np

from agentd.backends.llama.context import Abort, floats_at
from agentd.backends.llama.loading import make_context
from agentd.backends.llama.options import Load
from agentd.backends.llama.refusals import Aborted, Refused

_MOST_BATCH = 2048
"""Tokens of one text, which a model that looks both ways has to see at once."""


class Embedder:
    """Embeds one text at a time."""

    def __init__(self, model: Any, spec: Load, abort: Abort, adapters: Sequence[Any]) -> None:
        """Raises `OutOfMemory`."""
        self.most = min(spec.context, _MOST_BATCH)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.most
        params.n_seq_max = 1
        params.n_threads, params.n_threads_batch = spec.threads, spec.threads_batch
        params.embeddings, params.no_perf = True, True
        params.abort_callback, params.abort_callback_data = abort.callback, abort.data
        self._pointer = make_context(model, params, adapters)
        if lib.llama_pooling_type(self._pointer) in (lib.LLAMA_POOLING_TYPE_NONE, lib.LLAMA_POOLING_TYPE_RANK):
            lib.llama_free(self._pointer)
            params.pooling_type = lib.LLAMA_POOLING_TYPE_MEAN
            self._pointer = make_context(model, params, adapters)
        self._abort = abort
        self._width: int = lib.llama_model_n_embd_out(model)
        self._batch = lib.llama_batch_init(self.most, 0, 1)

    def vectors(self, texts: Sequence[Sequence[int]]) -> Iterator[list[float]]:
        """A vector of length 1 for each text's tokens. Raises `Refused` and `Aborted`."""
        for tokens in texts:
            yield self._vector(tokens)

    def _vector(self, tokens: Sequence[int]) -> list[float]:
        if len(tokens) > self.most:
            raise Refused(f"a text has {len(tokens)} tokens; this model can embed {self.most} at once")
        if not tokens:
            return [0.0] * self._width
        memory = lib.llama_get_memory(self._pointer)
        if memory:
            lib.llama_memory_clear(memory, False)
        self._batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            self._batch.token[place], self._batch.pos[place] = token, place
            self._batch.n_seq_id[place], self._batch.seq_id[place][0] = 1, 0
            self._batch.logits[place] = 1
        code = 2 if self._abort.set else lib.llama_decode(self._pointer, self._batch)
        if code == 2:
            raise Aborted
        pooled = lib.llama_get_embeddings_seq(self._pointer, 0) if code == 0 else None
        if not pooled:
            raise Refused(f"llama.cpp could not embed {len(tokens)} tokens (code {code})")
        vector = floats_at(pooled, self._width).astype(np.float64)
        length = float(np.linalg.norm(vector))
        return [round(float(each), 7) for each in (vector / length if length else vector)]
