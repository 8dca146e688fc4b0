"""The process that owns one GGUF model: `python -m agentd.backends.llama_worker FD` serves frames on a socket.

The only module that touches llama.cpp. A request is `{"id", "op", ...}`; replies are `{"id", "delta"}` and
`{"id", "tick"}` while it runs, then `{"id", "ok"}` or `{"id", "error"}`. `{"op": "cancel", "id"}` ends a request within
one token. The process ends when its parent's side of the socket closes.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import llama_cpp as lib
import numpy as np
from llama_cpp.llama_grammar import json_schema_to_gbnf

from agentd.backends import decoding, gguf_file
from agentd.backends.chat_template import ChatTemplate, Piece
from agentd.backends.decoding import Floats, TextStream
from agentd.backends.frames import BrokenWire, FrameReader, send
from agentd.backends.static_embedding import StaticEmbedding
from agentd.errors import ModelError

Frame: TypeAlias = dict[str, Any]

_CPU_BATCH = 256
_GPU_BATCH = 512
_MOST_ROWS = 64
"""Positions whose logits are held at once while scoring."""
_SCORING_CONTEXT = 4096
_PREFIX_BYTES = 128 * 1024 * 1024
"""Memory for the states of prefixes that were scored before."""
_SHORTEST_KEPT = 8
_TICK = 0.25
_BOUNDS = ("minLength", "maxLength", "minItems", "maxItems")
_BIGGEST_BOUND = 64
_LONGEST_GRAMMAR = 200_000
_DEEPEST_GRAMMAR = 1000
_WARNINGS = (3, 4)


class Aborted(Exception):
    """The request was cancelled."""


class Refused(Exception):
    """The request cannot be served; the model is fine."""


class NoGrammar(Refused):
    """The schema cannot hold a reply."""


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


class Vocabulary:
    """Text to tokens and back."""

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self.size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.bos: int = lib.llama_vocab_bos(self._vocab)
        self.adds_bos: bool = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self.ends = [token for token in range(self.size) if lib.llama_vocab_is_eog(self._vocab, token)]
        self.controls = [token for token in range(self.size) if lib.llama_vocab_is_control(self._vocab, token)]
        self.pointer = self._vocab

    def tokens(self, text: str, *, controls: bool) -> list[int]:
        """Without BOS; control tokens are recognised in the text only when asked."""
        raw = text.encode("utf-8", "replace")
        room = (lib.llama_token * (len(raw) + 16))()
        count = lib.llama_tokenize(self._vocab, raw, len(raw), room, len(room), False, controls)
        if count < 0:
            raise Refused(f"the model's tokenizer cannot read a text of {len(text)} characters")
        return list(room[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        room = ctypes.create_string_buffer(64)
        count = lib.llama_token_to_piece(self._vocab, token, room, len(room), 0, special)
        if count < 0:
            room = ctypes.create_string_buffer(-count)
            count = lib.llama_token_to_piece(self._vocab, token, room, len(room), 0, special)
        return room.raw[:count]

    def name(self, token: int) -> str:
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def prompt(self, pieces: Sequence[Piece]) -> list[int]:
        found = [token for text, controls in pieces for token in self.tokens(text, controls=controls)]
        if self.adds_bos and found[:1] != [self.bos]:
            return [self.bos, *found]
        return found


class Context:
    """One sequence in llama.cpp's memory; a prefix that stands there already is not computed again."""

    def __init__(
        self,
        model: Any,
        *,
        size: int,
        batch: int,
        threads: int,
        gpu: bool,
        abort: Abort,
        alive: Callable[[], None],
    ) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = size, batch, batch, 1
        params.n_threads = params.n_threads_batch = threads
        params.abort_callback, params.abort_callback_data = abort.callback, abort.data
        params.no_perf = True
        # On the CPU flash attention gains nothing, and makes a token's logits depend on how the prompt was cut into
        # batches (by up to 0.6); without it the same text always gets the same numbers.
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO if gpu else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.pointer = lib.llama_init_from_model(model, params)
        if not self.pointer:
            raise ModelError(
                f"there is not enough memory for a context of {size} tokens",
                hint="lower `context` or `gpu_layers` of this model in models/catalog.toml",
            )
        self.size: int = lib.llama_n_ctx(self.pointer)
        self.tokens: list[int] = []
        self._batch_size = batch
        self._vocabulary: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._memory = lib.llama_get_memory(self.pointer)
        self._abort = abort
        self._alive = alive
        self._batch = lib.llama_batch_init(batch, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, shape=(batch,))
        self._pos = np.ctypeslib.as_array(self._batch.pos, shape=(batch,))
        self._wanted = np.ctypeslib.as_array(self._batch.logits, shape=(batch,))
        for place in range(batch):
            self._batch.n_seq_id[place] = 1
            self._batch.seq_id[place][0] = 0

    def common(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` stand here already."""
        for place, (old, new) in enumerate(zip(self.tokens, tokens, strict=False)):
            if old != new:
                return place
        return min(len(self.tokens), len(tokens))

    def cut(self, count: int) -> int:
        """Forget all but the first `count` tokens; returns how many stand (a recurrent model forgets all or none)."""
        if count < len(self.tokens):
            if not (count and lib.llama_memory_seq_rm(self._memory, 0, count, -1)):
                lib.llama_memory_clear(self._memory, False)
                count = 0
            del self.tokens[count:]
        return len(self.tokens)

    def feed(self, tokens: Sequence[int], *, rows_from: int) -> Iterator[tuple[int, Floats]]:
        """Go on by `tokens`; gives (place in `tokens`, logits of shape (n, vocabulary)) for those from `rows_from` on.

        The rows are valid until the next step. Raises `Aborted`; nothing of the batch at hand stands then.
        """
        if len(self.tokens) + len(tokens) > self.size:
            raise Refused(f"{len(self.tokens) + len(tokens)} tokens do not fit into a context of {self.size}")
        at = 0
        while at < len(tokens):
            end = min(at + self._batch_size, len(tokens))
            if end > rows_from:
                end = min(end, max(at, rows_from) + _MOST_ROWS)
            self._step(tokens[at:end], rows_from - at)
            if end > rows_from:
                first = max(at, rows_from)
                rows = lib.llama_get_logits(self.pointer)
                yield first, np.ctypeslib.as_array(rows, shape=(end - first, self._vocabulary))
            at = end

    def _step(self, tokens: Sequence[int], rows_from: int) -> None:
        count, start = len(tokens), len(self.tokens)
        self._batch.n_tokens = count
        self._token[:count] = tokens
        self._pos[:count] = np.arange(start, start + count)
        self._wanted[:count] = np.arange(count) >= rows_from
        code = 2 if self._abort.set else lib.llama_decode(self.pointer, self._batch)
        if code == 0:
            self.tokens += tokens
            self._alive()
            return
        self.tokens += tokens  # some of them may stand in the memory: cut them all
        self.cut(start)
        if code == 2:
            raise Aborted
        raise Refused(f"llama.cpp could not compute {count} tokens (code {code})")

    def save(self) -> bytes:
        size = lib.llama_state_seq_get_size(self.pointer, 0)
        room = (ctypes.c_uint8 * size)()
        written = lib.llama_state_seq_get_data(self.pointer, room, size, 0)
        return memoryview(room)[:written].tobytes()

    def restore(self, state: bytes, tokens: Sequence[int]) -> None:
        lib.llama_memory_clear(self._memory, False)
        room = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if not lib.llama_state_seq_set_data(self.pointer, room, len(state), 0):
            raise Refused("a saved state could not be read back")
        self.tokens = list(tokens)


class Grammar:
    """Holds a reply to a JSON schema, token by token."""

    def __init__(self, vocabulary: Vocabulary, schema: Any) -> None:
        try:
            text = json_schema_to_gbnf(json.dumps(_without_big_bounds(schema)))
        except (
            Exception
        ) as error:  # the converter asserts, indexes and recurses; whatever it raises means: not this one
            raise NoGrammar(f"no grammar can be made of this JSON schema: {type(error).__name__}: {error}") from None
        if len(text) > _LONGEST_GRAMMAR or _depth(text) > _DEEPEST_GRAMMAR:
            raise NoGrammar("the grammar of this JSON schema would be too big")
        self._sampler = lib.llama_sampler_init_grammar(vocabulary.pointer, text.encode(), b"root")
        if not self._sampler:
            raise NoGrammar("llama.cpp cannot read the grammar made of this JSON schema")
        self._all = (lib.llama_token_data * vocabulary.size)()
        self._one = (lib.llama_token_data * 1)()
        kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._view = np.frombuffer(self._all, dtype=kind)
        self._ids = np.arange(vocabulary.size, dtype=np.int32)

    def allows(self, token: int) -> bool:
        self._one[0].id, self._one[0].logit = token, 1.0
        self._apply(self._one)
        return bool(self._one[0].logit > -np.inf)

    def restrict(self, logits: Floats) -> Floats:
        """The logits with everything that the grammar forbids at minus infinity."""
        self._view["id"], self._view["logit"] = self._ids, logits
        self._apply(self._all)
        return np.array(self._view["logit"])

    def accept(self, token: int) -> None:
        lib.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        lib.llama_sampler_free(self._sampler)

    def _apply(self, data: Any) -> None:
        array = lib.llama_token_data_array(data=data, size=len(data), selected=-1, sorted=False)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))


def _without_big_bounds(schema: Any) -> Any:
    """A bound of n becomes n nested groups, and thousands of them crash llama.cpp: only small ones are kept."""
    if isinstance(schema, list):
        return [_without_big_bounds(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in _BOUNDS and isinstance(value, int) and value > _BIGGEST_BOUND:
            if key.startswith("min"):
                kept[key] = _BIGGEST_BOUND
            continue
        kept[key] = _without_big_bounds(value)
    return kept


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest


@dataclass
class Prefixes:
    """States of prefixes that were scored, the least recently used one going first."""

    limit: int = _PREFIX_BYTES
    size: int = 0
    """Bytes."""
    _kept: OrderedDict[tuple[int, ...], tuple[bytes, Floats]] = field(default_factory=OrderedDict)

    def find(self, tokens: Sequence[int]) -> tuple[bytes, Floats] | None:
        """The state after `tokens`, and the logits of their last."""
        found = self._kept.get(key := tuple(tokens))
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, tokens: Sequence[int], state: bytes, row: Floats) -> None:
        added = len(state) + row.nbytes
        if added > self.limit // 2 or tuple(tokens) in self._kept:
            return
        self._kept[tuple(tokens)] = (state, row)
        self.size += added
        while self.size > self.limit:
            _, (old, old_row) = self._kept.popitem(last=False)
            self.size -= len(old) + old_row.nbytes


class Scorer:
    """Scores continuations; what consecutive pairs have in common is computed once, and prefixes are remembered."""

    def __init__(self, context: Context, vocabulary: Vocabulary) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._prefixes = Prefixes()
        self._rows: dict[int, Floats] = {}
        """Place in the context -> logits of the token there."""

    def score(self, pairs: Sequence[Sequence[str]]) -> list[tuple[float, int]]:
        """(summed natural log-probability, tokens) of each continuation given its prefix; order kept."""
        split = [self._tokens(prefix, text) for prefix, text in pairs]
        found: list[tuple[float, int]] = [(0.0, 0)] * len(pairs)
        for number in sorted(range(len(pairs)), key=lambda number: split[number]):
            prefix, text = split[number]
            if text:
                rows = self._logits(prefix, text)
                found[number] = (float(decoding.logprobs(rows, text).sum()), len(text))
        return found

    def _tokens(self, prefix: str, text: str) -> tuple[list[int], list[int]]:
        before = self._vocabulary.tokens(prefix, controls=True)
        if (self._vocabulary.adds_bos or not before) and before[:1] != [self._vocabulary.bos]:
            before = [max(self._vocabulary.bos, 0), *before]
        return before, self._vocabulary.tokens(text, controls=False)

    def _logits(self, prefix: list[int], text: list[int]) -> Floats:
        """A row for each token of `text`: the logits of the token before it."""
        whole = [*prefix, *text[:-1]]
        if len(whole) >= self._context.size:
            raise Refused(f"a pair of {len(whole)} tokens does not fit into a context of {self._context.size}")
        last = len(prefix) - 1
        common = self._context.common(whole)
        if common < len(prefix) and (kept := self._prefixes.find(prefix)):
            self._context.restore(kept[0], prefix)
            self._rows = {last: kept[1]}
            common = len(prefix)
        while common > 0 and any(place not in self._rows for place in range(last, common)):
            common -= 1
        if common < len(prefix):
            self._extend(prefix, common, last)
            if len(prefix) >= _SHORTEST_KEPT:
                self._prefixes.keep(prefix, self._context.save(), self._rows[last])
            common = len(prefix)
        self._extend(whole, common, last)
        return np.stack([self._rows[place] for place in range(last, len(whole))])

    def _extend(self, tokens: Sequence[int], common: int, rows_from: int) -> None:
        """Make the context hold `tokens`, of which the first `common` stand there."""
        if len(tokens) - common == 1:
            # A batch of one token is computed by other code, with slightly other numbers: take one more.
            common = max(0, common - 1)
        start = self._context.cut(common)
        self._rows = {place: row for place, row in self._rows.items() if place < start}
        for at, rows in self._context.feed(tokens[start:], rows_from=max(0, rows_from - start)):
            for place, row in enumerate(rows, start + at):
                self._rows[place] = row.copy()


class Engine:
    """A loaded model and everything that can be asked of it."""

    def __init__(self, spec: Frame, tell: Callable[[Frame], None]) -> None:
        started = time.monotonic()
        self.abort = Abort()
        self._tell = tell
        self._said = 0.0
        self._serving = 0
        self._file = gguf_file.read(Path(spec["path"]))
        self._gpu = spec["gpu_layers"] != 0 and lib.llama_supports_gpu_offload()
        self._model = _load(spec)
        _check_context(self._model, spec)
        self._vocabulary = Vocabulary(self._model)
        self._recurrent = lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(self._model)
        self._threads = spec["threads"]
        self._adapter = self._load_adapter(spec["lora"]) if spec.get("lora") else None
        self._context = self._new_context(spec["context"])
        self._scorer: Scorer | None = None
        self._embedding: StaticEmbedding | None = None
        self._template = self._chat_template()
        self._spent = {"prompt_tokens": 0, "reused_tokens": 0, "prompt_seconds": 0.0}
        self._spent |= {"completion_tokens": 0, "completion_seconds": 0.0, "scored_tokens": 0, "score_seconds": 0.0}
        self._load_seconds = time.monotonic() - started

    def serve(self, frame: Frame) -> Frame:
        operations = {
            "generate": self.generate,
            "score": self.score,
            "embed": self.embed,
            "count": self.count,
            "stats": self.stats,
        }
        if frame.get("op") not in operations:
            raise Refused(f"unknown operation {frame.get('op')!r}")
        self._said, self._serving = time.monotonic(), frame["id"]
        return operations[frame["op"]](frame)

    def generate(self, frame: Frame) -> Frame:
        prompt = self._vocabulary.prompt(self._pieces(frame))
        room = self._context.size - len(prompt)
        if room < 1:
            raise Refused(f"the prompt has {len(prompt)} tokens; the model's context has room for {self._context.size}")
        self._spent["prompt_tokens"] += len(prompt)
        reply = self._choose(frame, prompt) if frame.get("choices") is not None else self._write(frame, prompt, room)
        if not self._recurrent and not self._gpu:
            # Tokens that were computed one by one have slightly other numbers than those of a prompt: forgetting them
            # makes the next reply the same whatever was asked before.
            self._context.cut(len(prompt))
        return reply | {"prompt_tokens": len(prompt)}

    def score(self, frame: Frame) -> Frame:
        started = time.monotonic()
        if self._scorer is None:
            own = not self._gpu and not self._recurrent
            context = self._new_context(min(self._context.size, _SCORING_CONTEXT)) if own else self._context
            self._scorer = Scorer(context, self._vocabulary)
        found = self._scorer.score(frame["pairs"])
        self._spent["scored_tokens"] += sum(tokens for _, tokens in found)
        self._spent["score_seconds"] += time.monotonic() - started
        return {"scores": found}

    def embed(self, frame: Frame) -> Frame:
        if self._embedding is None:
            try:
                self._embedding = StaticEmbedding(self._file)
            except (KeyError, ValueError, NotImplementedError, ImportError) as error:
                raise Refused(f"no embedding can be made of this model: {type(error).__name__}: {error}") from None
        vectors = []
        for text in frame["texts"]:
            tokens = self._vocabulary.tokens(text, controls=False)
            tokens += self._vocabulary.tokens(text.lower(), controls=False)
            vectors.append(self._embedding.vector(tokens))
        return {"vectors": vectors}

    def count(self, frame: Frame) -> Frame:
        return {"tokens": len(self._vocabulary.tokens(frame["text"], controls=False))}

    def stats(self, frame: Frame) -> Frame:
        return {
            **self._spent,
            "context": self._context.size,
            "trained_context": lib.llama_model_n_ctx_train(self._model),
            "load_seconds": self._load_seconds,
            "threads": self._threads,
            "parameters": lib.llama_model_n_params(self._model),
        }

    def _pieces(self, frame: Frame) -> list[Piece]:
        if frame.get("prompt") is not None:
            return [(frame["prompt"], True)]
        try:
            # Thinking is a capped turn of its own, so that it cannot eat up the tokens of a reply.
            return self._template.render(frame["messages"], think=False)
        except ValueError as error:
            raise Refused(str(error)) from None

    def _write(self, frame: Frame, prompt: list[int], room: int) -> Frame:
        grammar = Grammar(self._vocabulary, frame["schema"]) if frame.get("schema") is not None else None
        stream = TextStream(frame.get("stop", ()))
        parts: list[str] = []
        written = 0
        reason = "length"
        try:
            logits = self._read(prompt)
            started = time.monotonic()
            chance = np.random.default_rng(frame.get("seed", 0))
            for written in range(1, min(frame["max_tokens"], room) + 1):
                token = _next(logits, grammar, frame["temperature"], chance)
                if token in self._vocabulary.ends:
                    reason = "stop"
                    break
                self._say(frame, parts, stream.add(self._vocabulary.piece(token)))
                if stream.stopped:
                    reason = "stop"
                    break
                if written < min(frame["max_tokens"], room):
                    logits = self._go_on([token])
            self._say(frame, parts, stream.add(b"", last=True))
            self._spent["completion_seconds"] += time.monotonic() - started
        finally:
            self._spent["completion_tokens"] += written
            if grammar is not None:
                grammar.close()
        return {"text": "".join(parts), "completion_tokens": written, "finish_reason": reason}

    def _choose(self, frame: Frame, prompt: list[int]) -> Frame:
        choices = frame["choices"]
        if not choices:
            raise Refused("there are no choices to choose from")
        first = self._read(prompt)
        number, asked = decoding.choose(
            [self._vocabulary.tokens(choice, controls=False) for choice in choices],
            self._vocabulary.ends,
            lambda tokens: self._go_on(tokens) if tokens else first,
            temperature=frame["temperature"],
            chance=np.random.default_rng(frame.get("seed", 0)),
        )
        self._say(frame, [], choices[number])
        self._spent["completion_tokens"] += asked
        return {"text": choices[number], "completion_tokens": asked, "finish_reason": "stop"}

    def _read(self, prompt: list[int]) -> Floats:
        """The logits after the prompt."""
        started = time.monotonic()
        # Two tokens at least are computed anew: a batch of one is computed by other code, with slightly other numbers.
        kept = self._context.cut(min(self._context.common(prompt), max(0, len(prompt) - 2)))
        self._spent["reused_tokens"] += kept
        logits = self._go_on(prompt[kept:])
        self._spent["prompt_seconds"] += time.monotonic() - started
        return logits

    def _go_on(self, tokens: Sequence[int]) -> Floats:
        last = np.empty(0, dtype=np.float32)
        for _, rows in self._context.feed(tokens, rows_from=len(tokens) - 1):
            last = rows[-1]
        return last

    def _say(self, frame: Frame, parts: list[str], text: str) -> None:
        if self.abort.set:
            raise Aborted
        if text:
            parts.append(text)
        if text and frame.get("stream"):
            self._said = time.monotonic()
            self._tell({"id": frame["id"], "delta": text})

    def _alive(self) -> None:
        """A sign of life, now and then."""
        if time.monotonic() - self._said > _TICK:
            self._said = time.monotonic()
            self._tell({"id": self._serving, "tick": True})

    def _new_context(self, size: int) -> Context:
        context = Context(
            self._model,
            size=size,
            batch=_GPU_BATCH if self._gpu else _CPU_BATCH,
            threads=self._threads,
            gpu=self._gpu,
            abort=self.abort,
            alive=self._alive,
        )
        if context.size < size:
            raise ModelError(
                f"the model gives a context of {context.size} tokens; {size} are configured",
                hint="lower `context` in models/catalog.toml",
            )
        if self._adapter:
            adapters, scales = (lib.llama_adapter_lora_p_ctypes * 1)(self._adapter), (ctypes.c_float * 1)(1.0)
            if lib.llama_set_adapters_lora(context.pointer, adapters, 1, scales) != 0:
                raise ModelError("the LoRA adapter does not fit this model", hint="train or convert it for this model")
        return context

    def _load_adapter(self, path: str) -> Any:
        gguf_file.read(Path(path))
        adapter = lib.llama_adapter_lora_init(self._model, path.encode())
        if not adapter:
            raise ModelError(f"LoRA adapter {path} cannot be loaded", hint="it must be a GGUF made for this model")
        return adapter

    def _chat_template(self) -> ChatTemplate:
        source = lib.llama_model_chat_template(self._model, None)
        vocabulary = self._vocabulary
        try:
            return ChatTemplate(
                source.decode("utf-8", "replace") if source else None,
                bos=vocabulary.name(vocabulary.bos),
                eos=vocabulary.name(lib.llama_vocab_eos(vocabulary.pointer)),
                controls=[vocabulary.name(token) for token in vocabulary.controls],
            )
        except ValueError as error:
            raise ModelError(str(error), hint="the GGUF file is damaged or too new") from None


def _next(logits: Floats, grammar: Grammar | None, temperature: float, chance: np.random.Generator) -> int:
    token = decoding.pick(logits, temperature, chance)
    if grammar is None:
        return token
    # Going through the whole vocabulary costs as much as a small model's forward pass: only when it must be.
    if not grammar.allows(token):
        allowed = grammar.restrict(logits)
        if not np.isfinite(allowed).any():
            raise NoGrammar("the grammar of this JSON schema leaves no way on")
        token = decoding.pick(allowed, temperature, chance)
    grammar.accept(token)
    return token


def _load(spec: Frame) -> Any:
    params = lib.llama_model_default_params()
    params.n_gpu_layers = spec["gpu_layers"]
    path = _requantised(spec) if spec["requantise"] else spec["path"]
    model = lib.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise ModelError(
            f"llama.cpp cannot load {spec['path']}: {_LAST_WORDS[-1] if _LAST_WORDS else 'no reason given'}",
            hint="download it again, or install a newer llama-cpp-python",
        )
    return model


def _requantised(spec: Frame) -> str:
    """The file in the wanted format, made now when there is none; the file as it came when that cannot be done."""
    source = Path(spec["path"])
    target = Path(spec["cache"]) / f"{source.stem}.{spec['requantise']}.{source.stat().st_size}.gguf"
    try:
        if not _is_whole(target):
            _requantise(source, target, spec)
        return str(target)
    except OSError as error:
        sys.stderr.write(f"{source.name} is used as it came: it cannot be requantised to {target}: {error}\n")
        return str(source)


def _is_whole(path: Path) -> bool:
    try:
        gguf_file.read(path)
    except ModelError:
        return False
    return True


def _requantise(source: Path, target: Path, spec: Frame) -> None:
    """Through a temporary file, so that a crash leaves no half model. Raises `OSError`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_suffix(f".{os.getpid()}.part")
    params = lib.llama_model_quantize_default_params()
    params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{spec['requantise']}")
    params.allow_requantize = True
    params.nthread = spec["threads"]
    try:
        if lib.llama_model_quantize(str(source).encode(), str(made).encode(), params) != 0 or not _is_whole(made):
            raise OSError(_LAST_WORDS[-1] if _LAST_WORDS else "llama.cpp gives no reason")
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


def _check_context(model: Any, spec: Frame) -> None:
    trained = lib.llama_model_n_ctx_train(model)
    if 0 < trained < spec["context"]:
        raise ModelError(
            f"{spec['path']} was trained for a context of {trained} tokens; {spec['context']} are configured",
            hint="lower `context` in models/catalog.toml",
        )


_LAST_WORDS: list[str] = []


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: Any) -> None:
    """Warnings and errors of llama.cpp go to stderr, which the parent reads; the rest is dropped."""
    line = text.decode("utf-8", "replace").strip()
    if level in _WARNINGS and line:
        _LAST_WORDS[:] = [*_LAST_WORDS[-4:], line]
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class Inbox:
    """Takes frames off the wire in a thread of its own, so that a cancellation is seen while the model computes."""

    def __init__(self, wire: socket.socket) -> None:
        self._reader = FrameReader(wire)
        self._frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._current: int | None = None
        self._cancelled: int | None = None
        self.abort: Abort | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> Frame:
        frame = self._frames.get()
        with self._guard:
            self._current = frame.get("id")
            if self.abort is not None:
                self.abort.put(self._cancelled == self._current)
        return frame

    def _read(self) -> None:
        try:
            while True:
                frame = self._reader.receive()
                if frame is None or frame.get("op") == "stop":
                    break
                if frame.get("op") == "cancel":
                    self._cancel(frame.get("id"))
                else:
                    self._frames.put(frame)
        except BrokenWire:
            pass  # the parent is gone, and so is the reason to live
        os._exit(0)

    def _cancel(self, number: int | None) -> None:
        with self._guard:
            self._cancelled = number
            if self._current == number and self.abort is not None:
                self.abort.put(True)


def main(descriptor: int) -> None:
    lib.llama_log_set(_log, ctypes.c_void_p(0))
    lib.llama_backend_init()
    wire = socket.socket(fileno=descriptor)
    inbox = Inbox(wire)

    def tell(frame: Frame) -> None:
        try:
            send(wire, frame)
        except BrokenWire:
            os._exit(0)

    frame = inbox.take()
    try:
        engine = Engine(frame, tell)
    except ModelError as error:
        tell({"id": frame["id"], "error": {"kind": "load", "message": error.message, "hint": error.hint}})
        return
    inbox.abort = engine.abort
    tell({"id": frame["id"], "ok": engine.stats({})})
    while True:
        frame = inbox.take()
        tell({"id": frame.get("id"), **_answer(engine, frame)})


def _answer(engine: Engine, frame: Frame) -> Frame:
    try:
        return {"ok": engine.serve(frame)}
    except Aborted:
        return {"error": {"kind": "cancelled", "message": "cancelled", "hint": ""}}
    except NoGrammar as error:
        return {"error": {"kind": "no_grammar", "message": str(error), "hint": "use a simpler schema"}}
    except Refused as error:
        return {"error": {"kind": "refused", "message": str(error), "hint": ""}}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        return {"error": {"kind": "refused", "message": f"{type(error).__name__}: {error}", "hint": ""}}


if __name__ == "__main__":
    main(int(sys.argv[1]))
