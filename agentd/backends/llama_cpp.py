"""A local model: plans how it is loaded; starts, watches, restarts and ends its process; shares out its places."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from agentd.backends import devices, fit, gguf_file
from agentd.backends.devices import Devices
from agentd.backends.fit import LoadPlan, Wanted
from agentd.backends.llama_process import WORKER, Died, Frame, LlamaProcess, OnFrame, Watch
from agentd.backends.speech import Speech, as_frame, as_message
from agentd.backends.turns import Turns
from agentd.errors import Cancelled, ModelError, OutOfMemory, TooSlow, WorkerDied
from agentd.events import EventKind
from agentd.telemetry import get_logger
from agentd.types import (
    JsonObject,
    Message,
    ModelProfile,
    ModelReply,
    ModelRequest,
    OnDelta,
    Priority,
    Score,
)

CRASHES_IN_A_ROW = 3
"""After so many without a reply in between the model is left alone for `REST` seconds."""
REST = 60.0
LONGEST_STATES = 2_000_000_000
"""Bytes of saved states that are kept over a swap."""
_PATIENCE = 600.0
"""Seconds that a request without a time limit of its own may take."""
_SAVING = 5.0
"""Seconds that a process may take to write down its states."""
_POLL = 0.02
_TRIES = 8
"""How often a load that ran out of memory is tried again, each time with less."""
_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "out of memory", "cannot allocate")
_KILLED = "signal 9"
"""How the system ends a process when memory is gone."""

log = get_logger("agentd.backends")


class LlamaModel:
    """A GGUF model in a process of its own. Safe to use from several threads; clients are served in turn.

    `wanted`: what the plan of loading starts from; `devices`: what is free, asked at each load; `requantise`: a format,
    such as Q4_0, that is made of the file once and kept in the folder `cache`; `states`: a private file in which the
    process keeps its conversations while it is not loaded; `load_timeout`: seconds a load may take; `stall`: seconds
    without a sign of life after which a process is killed; `tell` hears of events. The first request starts it.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        profile: ModelProfile,
        wanted: Wanted | None = None,
        devices: Callable[[], Devices] = devices.here,
        loras: Sequence[Path] = (),
        requantise: str | None = None,
        cache: Path | None = None,
        embedding: bool = False,
        states: Path | None = None,
        load_timeout: float = 600.0,
        stall: float = 300.0,
        tell: Callable[[EventKind, JsonObject], None] | None = None,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self.path = path.absolute()
        self.wanted = wanted or Wanted(context=profile.context)
        self._name = name
        self._profile = profile
        self._devices = devices
        self._loras = [each.absolute() for each in loras]
        self._requantise = requantise
        self._cache = cache and cache.absolute()
        self._embedding = embedding
        self._states = states and states.absolute()
        self._load_timeout = load_timeout
        self._stall = stall
        self._tell = tell
        self._worker = worker
        self._turns = Turns()
        self._starting = threading.Lock()
        self._guard = threading.Lock()
        self._process: LlamaProcess | None = None
        self._crashes = 0
        self._rest_until = 0.0
        self._starts = 0
        self._closed = threading.Event()
        self.plan: LoadPlan | None = None
        """How it was loaded the last time."""
        self.load_seconds = 0.0
        """How long that took."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ModelProfile:
        return self._profile

    @property
    def pid(self) -> int | None:
        """Of the process; None when none runs."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    @property
    def starts(self) -> int:
        """How often a process was started."""
        return self._starts

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return self._turns.waiting

    def start(self) -> Frame:
        """Load the model now, if it is not; returns `stats()`. Clears the memory of earlier crashes."""
        self._crashes, self._rest_until = 0, 0.0
        return self.stats()

    def stop(self) -> None:
        """End the process, which gives all its memory back. Requests that run fail; the next one starts it again."""
        if self._states is None or self._closed.is_set() or self._starting.locked():
            self._discard()
        elif (process := self._take()) is not None:
            process.end(_SAVING)
            _bound(self._states)

    def close(self) -> None:
        """Like `stop`, for ever: later requests are refused, also those that wait now. No states are kept."""
        self._closed.set()
        self.stop()
        if self._states is not None:
            self._states.unlink(missing_ok=True)

    def stats(self) -> Frame:
        """Tokens and seconds spent since the start, `context`, `threads`, `load_seconds`, `pid`, `rss_bytes`."""
        found = self._request({"op": "stats"}, timeout=self._load_timeout)
        pid = self.pid
        try:
            rss = psutil.Process(pid).memory_info().rss if pid else 0
        except psutil.Error:
            rss = 0
        return {**found, "pid": pid, "rss_bytes": rss, "starts": self._starts}

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        """Raises `ModelError` (too long, crashed, timed out, a schema no grammar can hold), `Busy` and `Cancelled`."""
        started = time.monotonic()
        speech = Speech(request, on_delta, dialect=self._profile.dialect)
        try:
            with self._place(request.client, request.timeout, cancel, request.priority):
                frame = as_frame(request, stream=on_delta is not None)
                waited = time.monotonic() - started
                found = self._request(
                    frame, timeout=request.timeout, waited=waited, on_frame=speech.hear, cancel=cancel
                )
        except ModelError as error:
            error.sent = speech.begun
            raise
        return speech.reply(found, model=self._name, seconds=time.monotonic() - started)

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        client: str = "",
        cancel: threading.Event | None = None,
        timeout: float = _PATIENCE,
    ) -> list[Score]:
        """Prefix and continuation are tokenised apart; a prefix scored before is not computed again.

        Control tokens are recognised in prefixes, not in continuations. The scores of a pair do not depend on the
        other pairs.
        """
        if not pairs:
            return []
        frame = {"op": "score", "pairs": [list(pair) for pair in pairs]}
        with self._place(client, timeout, cancel):
            found = self._request(frame, timeout=timeout, cancel=cancel)
        return [Score(logprob=logprob, tokens=tokens) for logprob, tokens in found["scores"]]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 for each text: of an embedding model, or made of the table of token embeddings."""
        if not texts:
            return []
        with self._place("", _PATIENCE, None):
            found: list[list[float]] = self._request({"op": "embed", "texts": list(texts)})["vectors"]
        return found

    def count(self, text: str) -> int:
        """Tokens in `text`. This and what follows waits for nobody's place."""
        return int(self._request({"op": "count", "text": text})["tokens"])

    def tokenize(self, text: str, *, special: bool = False, controls: bool = False) -> Frame:
        """`tokens` (ids) and `pieces`. `special`: begin as a prompt begins; `controls`: recognise control tokens."""
        return self._request({"op": "tokenize", "text": text, "special": special, "controls": controls})

    def detokenize(self, tokens: Sequence[int]) -> str:
        return str(self._request({"op": "detokenize", "tokens": list(tokens)})["text"])

    def render(self, messages: Sequence[Message], *, tools: Sequence[JsonObject] = (), think: bool = False) -> str:
        """The prompt that the model's chat template makes of messages."""
        frame = {"op": "render", "messages": [as_message(each) for each in messages], "tools": list(tools)}
        return str(self._request(frame | {"think": think})["prompt"])

    @contextmanager
    def _place(
        self,
        client: str,
        timeout: float,
        cancel: threading.Event | None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Iterator[None]:
        deadline = time.monotonic() + timeout
        with self._turns.take(client, deadline=deadline, cancel=cancel, priority=priority) as mine:
            if not mine and not (cancel is not None and cancel.is_set()):
                raise TooSlow(
                    f"{self._name} was busy with other requests for {timeout:g} s", hint="allow more time, or try later"
                )
            self._not_cancelled(cancel)
            yield

    def _not_cancelled(self, cancel: threading.Event | None) -> None:
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"the request to {self._name} was cancelled")

    def _request(
        self,
        frame: Frame,
        *,
        timeout: float = _PATIENCE,
        waited: float = 0.0,
        on_frame: OnFrame | None = None,
        cancel: threading.Event | None = None,
    ) -> Frame:
        """`waited`: seconds of `timeout` that are gone already."""
        deadline = time.monotonic() + timeout - waited
        process = self._running(deadline, cancel)
        watch = Watch(timeout=timeout, deadline=deadline, cancel=cancel, stall=self._stall)
        try:
            found = process.ask(frame, watch, on_frame)
        except Died as death:
            raise self._crashed(process, str(death)) from None
        self._crashes = 0
        return found

    def _running(self, deadline: float, cancel: threading.Event | None) -> LlamaProcess:
        """The process, started if need be; one thread starts it and the others wait."""
        process = self._process
        if process is not None and process.ready and not self._starting.locked():
            return process
        while not self._starting.acquire(timeout=_POLL):
            self._not_cancelled(cancel)
            if time.monotonic() >= deadline:
                raise TooSlow(f"{self._name} is still being loaded", hint="allow more time, or try later")
        try:
            return self._started(cancel)
        finally:
            self._starting.release()

    def _started(self, cancel: threading.Event | None) -> LlamaProcess:
        if self._closed.is_set():
            raise ModelError(f"{self._name} is put away", hint="the daemon is stopping")
        process = self._process
        if process is not None and process.ready:
            return process
        if process is not None:
            self._crashed(process, "it ended between two requests")
        if time.monotonic() < self._rest_until:
            raise ModelError(
                f"{self._name} died {CRASHES_IN_A_ROW} times in a row and is not started again for now",
                hint="see the log of the daemon; a smaller context or fewer GPU layers may help",
            )
        header = gguf_file.read(self.path)
        for lora in self._loras:
            gguf_file.read(lora)
        try:
            plan = fit.plan(header.shape, self._devices(), self.wanted)
        except ModelError as error:
            raise type(error)(f"{self._name}: {error.message}", hint=error.hint) from None
        return self._load(plan, cancel)

    def _load(self, plan: LoadPlan, cancel: threading.Event | None) -> LlamaProcess:
        """Load by the plan; where memory runs out all the same, by the next smaller one."""
        for _ in range(_TRIES):
            try:
                return self._load_once(plan, cancel)
            except OutOfMemory as error:
                self._discard()
                less = fit.smaller(plan)
                if less is None:
                    raise
                log.warning("too little memory, loading smaller", model=self._name, why=error.message, plan=less.why)
                if self._tell is not None:
                    self._tell(EventKind.MODEL_SHRUNK, {"model": self._name, "from": plan.why, "to": less.why})
                plan = less
            except (ModelError, Cancelled):
                self._discard()
                raise
        raise OutOfMemory(
            f"{self._name} ran out of memory {_TRIES} times while it was loaded, the last time with {plan.why}",
            hint="free some memory, or choose a smaller model",
        )

    def _load_once(self, plan: LoadPlan, cancel: threading.Event | None) -> LlamaProcess:
        process = LlamaProcess(self._name, self._worker)
        with self._guard:
            self._process = process
        if self._closed.is_set():  # while it was being started
            self.stop()
        self._starts += 1
        patience = self._load_timeout
        until = time.monotonic() + patience
        watch = Watch(timeout=patience, deadline=until, cancel=cancel, stall=2 * patience, at_once=True)
        try:
            loaded = process.ask(self._spec(plan), watch)
        except Died as death:
            raise self._died_loading(process, str(death)) from None
        self.plan, self.load_seconds = plan, float(loaded["load_seconds"])
        self._turns.resize(plan.sequences)
        self._announce(process, plan, loaded)
        return process

    def _spec(self, plan: LoadPlan) -> Frame:
        return {
            "op": "load",
            "path": str(self.path),
            "context": plan.context,
            "sequences": plan.sequences,
            "cells": plan.cells,
            "kept_bytes": plan.kept_bytes,
            "unified": plan.unified,
            "gpu_layers": plan.gpu_layers,
            "kv_type": plan.kv_type,
            "threads": plan.threads,
            "threads_batch": plan.threads_batch,
            "loras": [str(lora) for lora in self._loras],
            "requantise": self._requantise if self._cache else None,
            "cache": str(self._cache),
            "embedding": self._embedding,
            "states": str(self._states) if self._states is not None and plan.sequences > 1 else None,
        }

    def _announce(self, process: LlamaProcess, plan: LoadPlan, loaded: Frame) -> None:
        facts = {
            "model": self._name,
            "pid": process.pid,
            "seconds": round(self.load_seconds, 3),
            "context": loaded["context"],
            "sequences": plan.sequences,
            "plan": plan.why,
        }
        log.info("model loaded", **facts)
        if self._tell is not None:
            self._tell(EventKind.MODEL_LOADED, facts)

    def _take(self) -> LlamaProcess | None:
        with self._guard:
            process, self._process = self._process, None
        return process

    def _discard(self) -> None:
        """End the process without asking what it wants to keep."""
        process = self._take()
        if process is not None:
            process.stopped = True
            process.kill()

    def _died_loading(self, process: LlamaProcess, why: str) -> ModelError:
        """A process that memory ran out under says so in its last words, or is killed without any."""
        process.kill()
        words = process.last_words.lower()
        if not process.stopped and (_KILLED in why or any(each in words for each in _OUT_OF_MEMORY)):
            return OutOfMemory(f"{self._name} ran out of memory while it was loaded: {why}")
        return self._crashed(process, f"{why} while it loaded {self.path}")

    def _crashed(self, process: LlamaProcess, why: str) -> ModelError:
        """The error for one of the requests that a process took with it; the crash itself counts once."""
        with self._guard:
            first = self._process is process
            process.fate = process.fate or why
            if first:
                self._process = None
                self._crashes += 1
                if self._crashes >= CRASHES_IN_A_ROW:
                    self._rest_until, self._crashes = time.monotonic() + REST, 0
        process.kill()
        words = process.last_words
        if process.stopped:
            return WorkerDied(f"{self._name} was stopped", hint="send the request again; the model starts again")
        if first:
            log.error("model process died", model=self._name, pid=process.pid, why=process.fate, llama=words)
        last = words.splitlines()[-1:] or [""]
        detail = f": {last[0]}" if last[0] else ""
        return WorkerDied(
            f"model process died: {self._name} (pid {process.pid}): {process.fate}{detail}",
            hint="send the request again; the model starts again by itself",
        )


def _bound(states: Path) -> None:
    """Saved states are private, and not worth more than so much room."""
    try:
        states.chmod(0o600)
        if states.stat().st_size > LONGEST_STATES:
            states.unlink()
    except FileNotFoundError:
        pass  # nothing was worth keeping
