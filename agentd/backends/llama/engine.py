"""A loaded model and everything that can be asked of it; what needs no forward pass is done by clerks beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeAlias

import llama_cpp as lib

from agentd.backends import gguf_file
from agentd.backends.chat_template import ChatTemplate, Piece, opens_thought
from agentd.backends.llama.context import has_bf16
from agentd.backends.llama.decoder import Decoder
from agentd.backends.llama.desk import Desk
from agentd.backends.llama.embedding import Embedder
from agentd.backends.llama.grammar import Grammar
from agentd.backends.llama.loading import load_adapters, load_model
from agentd.backends.llama.options import Frame, Load, Wish, text, texts
from agentd.backends.llama.refusals import Aborted, Refused, TooLong
from agentd.backends.llama.replies import Choice, Reply, Text
from agentd.backends.llama.schedule import Errand, Generation
from agentd.backends.llama.vocabulary import Vocabulary
from agentd.backends.static_embedding import StaticEmbedding
from agentd.errors import ModelError, NoGrammar

Arrival: TypeAlias = Generation | tuple[int, Errand] | None
Operation: TypeAlias = Callable[[int, Frame], Frame | None]
"""Gives the result; None when the schedule will answer."""

_CLERKS = 2
_MOST_ENDS = 16
_LONGEST_PASS = 300.0
"""Seconds; a loop that is silent for longer is taken for hung."""
_BAD_VALUES = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, MemoryError)


class Engine:
    """Raises `ModelError` when the model cannot be loaded, `OutOfMemory` when a smaller plan may fit.

    `accept` and `wake` may be called from any thread; `run` serves in the thread that loaded.
    """

    def __init__(self, spec: Load, desk: Desk) -> None:
        started = time.monotonic()
        self._spec = spec
        self._desk = desk
        self._file = gguf_file.read(spec.path)
        self._model, self._source = load_model(spec)
        self._vocabulary = Vocabulary(self._model)
        self._template = self._chat_template()
        self._adapters = load_adapters(self._model, spec.loras)
        self._gpu = spec.gpu_layers != 0 and bool(lib.llama_supports_gpu_offload())
        self._embedder = Embedder(self._model, spec, desk.abort, self._adapters) if spec.embedding else None
        self._decoder = None if spec.embedding else self._new_decoder()
        self._arrivals: SimpleQueue[Arrival] = SimpleQueue()
        self._clerks = ThreadPoolExecutor(_CLERKS, "clerk")
        self._vectors = threading.Lock()
        self._table: StaticEmbedding | None = None
        self._busy_since: float | None = None
        self._load_seconds = time.monotonic() - started
        self._operations: Mapping[str, Operation] = {
            "generate": self._generate,
            "score": self._score,
            "embed": self._embed,
            "count": self._count,
            "tokenize": self._tokenize,
            "detokenize": self._detokenize,
            "render": self._render,
            "stats": lambda number, frame: self.stats(),
        }

    def _new_decoder(self) -> Decoder:
        recurrent = lib.llama_model_is_recurrent(self._model) or lib.llama_model_is_hybrid(self._model)
        decoder = Decoder(
            self._model,
            self._vocabulary,
            self._spec,
            self._desk,
            self._adapters,
            gpu=self._gpu,
            can_cut=not recurrent,
        )
        if self._spec.states is not None:
            decoder.read_states(self._spec.states, self._identity())
        return decoder

    def _identity(self) -> Frame:
        """What must be the same so that saved states can be read back."""
        files = [(file.name, file.stat()) for file in (self._source, *self._spec.loras)]
        facts = [[name, status.st_size, status.st_mtime_ns] for name, status in files]
        held = {"kv_type": self._spec.kv_type, "bf16": has_bf16(), "gpu": self._gpu}
        return {"files": facts, **held, "library": lib.__version__}

    # requests, in the threads of clerks -------------------------------------------------------------------------------

    def accept(self, number: int, frame: Frame) -> None:
        operation = self._operations.get(str(frame.get("op")))
        if operation is None:
            self._refuse(number, f"unknown operation {frame.get('op')!r:.60}")
        else:
            self._clerks.submit(self._work, operation, number, frame)

    def _work(self, operation: Operation, number: int, frame: Frame) -> None:
        try:
            if self._desk.cancelled(number):
                raise Aborted
            found = operation(number, frame)
        except NoGrammar as error:
            self._refuse(number, error.message, kind="no_grammar", hint=error.hint)
        except Aborted:
            self._refuse(number, "cancelled", kind="cancelled")
        except TooLong as refusal:
            why = {"kind": "refused", "message": str(refusal), "hint": ""}
            self._desk.answer(number, {"error": why | {"tokens": refusal.tokens, "context": refusal.context}})
        except Refused as refusal:
            self._refuse(number, str(refusal))
        except _BAD_VALUES as error:
            self._refuse(number, f"{type(error).__name__}: {error}")
        except BaseException as error:  # a clerk ends without a word, and somebody would wait for ever
            self._refuse(number, f"{type(error).__name__}: {error}", kind="failed")
        else:
            if found is not None:
                self._desk.answer(number, {"ok": found})

    def _refuse(self, number: int, message: str, *, kind: str = "refused", hint: str = "") -> None:
        self._desk.answer(number, {"error": {"kind": kind, "message": message, "hint": hint}})

    def _generate(self, number: int, frame: Frame) -> None:
        decoder = self._writing()
        wish = Wish.of(frame)
        tokens = self._prompt(number, frame)
        room = decoder.context.size - len(tokens)
        if room < 1:
            raise TooLong(len(tokens), decoder.context.size)
        reply = self._reply(number, frame, wish, tokens, room)
        self._arrivals.put(Generation(number=number, tokens=tokens, reply=reply, night=wish.night))

    def _reply(self, number: int, frame: Frame, wish: Wish, tokens: list[int], room: int) -> Reply:
        def tell(found: Frame) -> None:
            self._desk.tell(number, found)

        if wish.choices is not None:
            return Choice(self._vocabulary, wish, tell)
        held = frame.get("schema") is not None or frame.get("grammar") is not None
        grammar = None
        if held:
            grammar = Grammar(self._vocabulary, schema=frame.get("schema"), grammar=frame.get("grammar"))
        return Text(self._vocabulary, wish, tokens, room, grammar, tell)

    def _prompt(self, number: int, frame: Frame) -> list[int]:
        if frame.get("prompt") is None:
            pieces = self._pieces(frame)
            if opens_thought(pieces):
                self._desk.tell(number, {"thinking": True})
            tokens = self._vocabulary.prompt(pieces)
        elif frame.get("suffix") is not None:
            tokens = self._vocabulary.hole(text(frame, "prompt"), text(frame, "suffix"))
        else:
            tokens = self._vocabulary.prompt([(text(frame, "prompt"), True)])
        if not tokens:
            raise Refused("the prompt is empty, and this model has no token that begins a text")
        return tokens

    def _pieces(self, frame: Frame) -> list[Piece]:
        # Thinking is a capped turn of its own where it is not asked for, so that it cannot eat up a reply's tokens.
        think, tools = bool(frame.get("think", False)), frame.get("tools") or ()
        try:
            return self._template.render(frame["messages"], think=think, tools=tools)
        except ValueError as error:
            raise Refused(str(error)) from None

    def _score(self, number: int, frame: Frame) -> None:
        pairs = [(prefix, ending) for prefix, ending in frame["pairs"]]
        if not all(isinstance(each, str) for pair in pairs for each in pair):
            raise Refused("pairs must be two texts each")
        self._arrivals.put((number, self._writing().score(pairs)))

    def _writing(self) -> Decoder:
        if self._decoder is None:
            raise Refused("this model was loaded for embeddings; it cannot write or score")
        return self._decoder

    def _embed(self, number: int, frame: Frame) -> Frame:
        wanted = texts(frame, "texts")
        with self._vectors:
            if self._embedder is None:
                return {"vectors": [self._static(each) for each in wanted]}
            tokens = [self._vocabulary.prompt([(each, False)]) for each in wanted]
            with self._desk.serving([number]):
                return {"vectors": list(self._embedder.vectors(tokens))}

    def _static(self, text: str) -> list[float]:
        if self._table is None:
            try:
                self._table = StaticEmbedding(self._file)
            except (KeyError, ValueError, NotImplementedError, ImportError) as error:
                raise Refused(f"no embedding can be made of this model: {type(error).__name__}: {error}") from None
        tokens = self._vocabulary.tokens(text, controls=False)
        return self._table.vector(tokens + self._vocabulary.tokens(text.lower(), controls=False))

    def _count(self, number: int, frame: Frame) -> Frame:
        return {"tokens": len(self._vocabulary.tokens(text(frame, "text"), controls=False))}

    def _tokenize(self, number: int, frame: Frame) -> Frame:
        tokens = self._vocabulary.tokens(text(frame, "text"), controls=bool(frame.get("controls", False)))
        if frame.get("special") and self._vocabulary.adds_bos:
            tokens = [self._vocabulary.bos, *tokens]
        return {
            "tokens": tokens,
            "pieces": [_readable(self._vocabulary.piece(token, special=True)) for token in tokens],
        }

    def _detokenize(self, number: int, frame: Frame) -> Frame:
        tokens = frame["tokens"]
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise Refused("tokens must be a list of whole numbers")
        return {"text": self._vocabulary.text(tokens, special=True)}

    def _render(self, number: int, frame: Frame) -> Frame:
        return {"prompt": "".join(piece for piece, _ in self._pieces(frame))}

    def stats(self) -> Frame:
        facts = {
            "context": self._spec.context,
            "threads": self._spec.threads,
            "trained_context": lib.llama_model_n_ctx_train(self._model),
            "parameters": lib.llama_model_n_params(self._model),
            "load_seconds": self._load_seconds,
            "stop_tokens": [self._vocabulary.name(token) for token in self._vocabulary.ends[:_MOST_ENDS]],
        }
        return facts if self._decoder is None else facts | self._decoder.stats(self._file)

    # the loop ---------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the loop waits for work, or began its latest step not too long ago."""
        since = self._busy_since
        return since is None or time.monotonic() - since < _LONGEST_PASS

    def wake(self) -> None:
        """Somebody cancelled, or it is time to stop."""
        self._arrivals.put(None)

    def run(self) -> None:
        """Serve until the desk stops."""
        while True:
            self._admit()
            if self._desk.stopping:
                break
            self._busy_since = time.monotonic()
            if self._decoder is not None:
                self._decoder.schedule.step()
        if self._decoder is not None and self._spec.states is not None:
            self._decoder.write_states(self._spec.states, self._identity())

    def _admit(self) -> None:
        """Everybody who has arrived; waits for somebody when there is nothing else to do."""
        wait = self._decoder is None or self._decoder.schedule.idle
        if wait:
            self._busy_since = None
        try:
            while True:
                arrival = self._arrivals.get(block=wait)
                wait = False
                if isinstance(arrival, Generation):
                    self._writing().schedule.waiting.append(arrival)
                elif arrival is not None:
                    self._writing().schedule.errands.append(arrival)
        except Empty:
            return

    def _chat_template(self) -> ChatTemplate:
        source = lib.llama_model_chat_template(self._model, None)
        vocabulary = self._vocabulary
        try:
            return ChatTemplate(
                source.decode("utf-8", "replace") if source else None,
                bos=vocabulary.name(vocabulary.bos),
                eos=vocabulary.name(vocabulary.eos),
                controls=[vocabulary.name(token) for token in vocabulary.controls],
            )
        except ValueError as error:
            raise ModelError(str(error), hint="the GGUF file is damaged or too new") from None


def _readable(piece: bytes) -> str | Sequence[int]:
    """The text of a token; its bytes where they are only a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
