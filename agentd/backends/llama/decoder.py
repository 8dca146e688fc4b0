"""What a model needs to write and to score: its context, its sequences, what is kept of them, who is served when."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agentd.backends.gguf_file import GgufFile
from agentd.backends.llama.context import Context, Memory, Part
from agentd.backends.llama.desk import Desk
from agentd.backends.llama.loading import say
from agentd.backends.llama.options import Frame, Load
from agentd.backends.llama.pace import Pace
from agentd.backends.llama.places import Places
from agentd.backends.llama.schedule import Errand, Schedule
from agentd.backends.llama.scoring import CONTEXT, Scorer
from agentd.backends.llama.states import States
from agentd.backends.llama.vocabulary import Vocabulary
from agentd.errors import ModelError

_MEASURED = 0.15
"""Seconds of decoding that tell at load how fast the model is."""
_LEAST_MEASURED = 3


class Decoder:
    """Raises `OutOfMemory` when the context does not fit, `ModelError` for adapters that do not."""

    def __init__(
        self,
        model: Any,
        vocabulary: Vocabulary,
        spec: Load,
        desk: Desk,
        adapters: Sequence[Any],
        *,
        gpu: bool,
        can_cut: bool,
    ) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._spec = spec
        self._desk = desk
        self._adapters = adapters
        # On a GPU a second context would need memory that nobody has planned for: there, and where the numbers depend
        # on how a prompt was cut anyway, scoring has one more sequence instead.
        self._apart = not gpu and can_cut
        extra = 0 if self._apart else 1
        self._memory = Memory(
            cells=spec.cells + (0 if spec.unified else extra * spec.context),
            sequences=spec.sequences + extra,
            unified=spec.unified,
            kv_type=spec.kv_type,
            threads=spec.threads,
            threads_batch=spec.threads_batch,
            gpu=gpu,
            can_cut=can_cut,
        )
        self.context = Context(model, self._memory, desk.abort, adapters)
        if self.context.size < spec.context:
            raise ModelError(
                f"the model gives a context of {self.context.size} tokens; {spec.context} are configured",
                hint="lower `context` in models/catalog.toml",
            )
        self._pace = Pace(spec.threads, self._measured(), self._set_threads, say)
        self.states = States(spec.kept_bytes, whole=not can_cut)
        self.places = Places(self.context, self.states, spec.sequences)
        self.schedule = Schedule(self.context, self.places, desk, self._pace.passed)
        self._scorer: Scorer | None = None
        self._scored_tokens = 0
        self._score_seconds = 0.0

    def _measured(self) -> float:
        """Tokens a second when one reply is written; also touches all weights once."""
        token = max(self._vocabulary.bos, 0)
        self.context.compute([Part(0, [token], 0)])
        started, tokens = time.monotonic(), 0
        most = self.context.size - 2
        while tokens < min(_LEAST_MEASURED, most) or (time.monotonic() - started < _MEASURED and tokens < most):
            self.context.compute([Part(0, [token], 0)])
            tokens += 1
        self.context.cut(0, 0)
        return tokens / max(1e-6, time.monotonic() - started)

    def _set_threads(self, threads: int) -> None:
        self.context.set_threads(threads, max(threads, self._spec.threads_batch * threads // self._spec.threads))

    def score(self, pairs: Sequence[tuple[str, str]]) -> Errand:
        started = time.monotonic()
        if self._scorer is None:
            self._scorer = self._new_scorer()
        found = yield from self._scorer.score(pairs)
        self._scored_tokens += sum(tokens for _, tokens in found)
        self._score_seconds += time.monotonic() - started
        return {"scores": found}

    def _new_scorer(self) -> Scorer:
        context, sequence = self.context, self._spec.sequences
        if self._apart:
            size = min(self._spec.context, CONTEXT)
            own = replace(self._memory, cells=size, sequences=1, unified=False)
            context, sequence = Context(self._model, own, self._desk.abort, self._adapters), 0
        schedule = self.schedule
        return Scorer(context, sequence, self._vocabulary, lambda part: schedule.compute_beside(context, part))

    def stats(self, file: GgufFile) -> Frame:
        spent, counts = self.schedule.spent, self.places.counts
        return {
            **asdict(counts),
            "prompt_tokens": spent.prompt_tokens,
            "prompt_seconds": spent.prompt_seconds,
            "read_tokens": spent.read_tokens,
            "completion_tokens": spent.completion_tokens,
            "completion_seconds": spent.completion_seconds,
            "scored_tokens": self._scored_tokens,
            "score_seconds": self._score_seconds,
            "context": self._spec.context,
            "sequences": self._spec.sequences,
            "sequences_in_use": self.places.in_use,
            "waiting": len(self.schedule.waiting),
            "unified": self._spec.unified,
            "kv_bytes": kv_bytes(file, self._memory),
            "kept_states": len(self.states),
            "kept_bytes": self.states.size,
            "threads": self._pace.threads,
            "threads_batch": self._spec.threads_batch,
            "load_speed": self._pace.normal,
            "decode_speed": spent.decoded_tokens / spent.completion_seconds if spent.completion_seconds else None,
            "prompt_speed": spent.read_tokens / spent.prompt_seconds if spent.prompt_seconds else None,
        }

    def read_states(self, path: Path, identity: Frame) -> None:
        if found := self.states.read(path, identity):
            say(f"{found} conversations can go on where they stood before the model was unloaded")

    def write_states(self, path: Path, identity: Frame) -> None:
        try:
            self.states.write(path, identity, self.places.worth_keeping())
        except OSError as error:
            say(f"the states of conversations cannot be kept: {error}")


def kv_bytes(file: GgufFile, memory: Memory) -> int:
    """Bytes that llama.cpp keeps of what it has read."""
    shape = file.shape
    each = 2.0 if memory.kv_type == "f16" else 34 / 32
    width = sum(shape.kv_heads) * (shape.key_length + shape.value_length)
    return int(memory.cells * width * each) + sum(shape.state_bytes) * memory.sequences
