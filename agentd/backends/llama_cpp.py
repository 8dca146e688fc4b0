"""A local model: the parent's side of a `llama_worker` process, which it starts, watches, restarts and ends."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from agentd.backends import gguf_file
from agentd.backends.frames import BrokenWire, FrameReader, send
from agentd.backends.turns import Turns
from agentd.errors import Cancelled, ModelError, NoGrammar
from agentd.sandbox.launch import clean_env, kill_group, spawn
from agentd.telemetry import get_logger
from agentd.types import Delta, JsonObject, ModelProfile, ModelReply, ModelRequest, OnDelta, Score

Frame: TypeAlias = dict[str, Any]

CRASHES_IN_A_ROW = 3
"""After so many without a reply in between the model is left alone for `REST` seconds."""
REST = 60.0
_POLL = 0.01
_SEND_TIMEOUT = 30.0
_CANCEL_GRACE = 10.0
"""Seconds that the process has to obey a cancellation before it is killed."""
_LOG_TAIL = 4000

log = get_logger("agentd.backends")


class LlamaModel:
    """A GGUF model in a process of its own. Safe to use from several threads; clients are served in turn.

    `requantise`: a format, such as Q4_0, that is made of the file once and kept in the folder `cache`.
    `gpu_layers`: -1 for all; `threads`: 0 leaves one core free; `load_timeout`: seconds a load may take; `stall`:
    seconds without a sign of life after which a process is killed; `on_load` hears of each load (model, pid, seconds,
    context). The first request starts the process.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        profile: ModelProfile,
        context: int | None = None,
        gpu_layers: int = 0,
        threads: int = 0,
        lora: Path | None = None,
        requantise: str | None = None,
        cache: Path | None = None,
        load_timeout: float = 600.0,
        stall: float = 300.0,
        on_load: Callable[[JsonObject], None] | None = None,
    ) -> None:
        self.path = path.absolute()
        self._name = name
        self._profile = profile
        self._context = context or profile.context
        self._gpu_layers = gpu_layers
        self._threads = threads or free_threads()
        self._lora = lora and lora.absolute()
        self._requantise = requantise
        self._cache = cache and cache.absolute()
        self._load_timeout = load_timeout
        self._stall = stall
        self._on_load = on_load
        self._turns = Turns()
        self._worker: _Worker | None = None
        self._crashes = 0
        self._rest_until = 0.0
        self._starts = 0
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ModelProfile:
        return self._profile

    @property
    def pid(self) -> int | None:
        """Of the process; None when none runs."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive else None

    @property
    def healthy(self) -> bool:
        return self.pid is not None

    @property
    def starts(self) -> int:
        """How often a process was started."""
        return self._starts

    def start(self) -> Frame:
        """Load the model now, if it is not; returns `stats()`. Clears the memory of earlier crashes."""
        self._crashes, self._rest_until = 0, 0.0
        return self.stats()

    def stop(self) -> None:
        """End the process, which gives all its memory back. A request that runs fails; the next one starts it again."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """Like `stop`, for ever: later requests are refused, also those that wait now."""
        self._closed.set()
        self.stop()

    def stats(self) -> Frame:
        """Tokens and seconds spent since the start, `context`, `threads`, `load_seconds`, `pid`, `rss_bytes`."""
        found = self._request({"op": "stats"}, client="", timeout=self._load_timeout)
        pid = self.pid
        try:
            rss = psutil.Process(pid).memory_info().rss if pid else 0
        except psutil.Error:
            rss = 0
        return {**found, "pid": pid, "rss_bytes": rss, "starts": self._starts}

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply:
        """Raises `ModelError` (too long, crashed, timed out, a schema no grammar can hold) and `Cancelled`."""
        started = time.monotonic()
        frame = {
            "op": "generate",
            "prompt": request.prompt,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": max(1, request.max_tokens),
            "temperature": request.temperature,
            "seed": request.seed,
            "stop": list(request.stop),
            "schema": request.schema,
            "choices": None if request.choices is None else list(request.choices),
            "stream": on_delta is not None,
        }
        found = self._request(frame, client=request.client, timeout=request.timeout, on_delta=on_delta, cancel=cancel)
        return ModelReply(
            text=found["text"],
            model=self._name,
            prompt_tokens=found["prompt_tokens"],
            completion_tokens=found["completion_tokens"],
            seconds=time.monotonic() - started,
            finish_reason=found["finish_reason"],
        )

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        client: str = "",
        cancel: threading.Event | None = None,
        timeout: float = 600.0,
    ) -> list[Score]:
        """Prefix and continuation are tokenised apart; a prefix scored before is not computed again.

        Control tokens are recognised in prefixes, not in continuations. The scores of a pair do not depend on the
        other pairs.
        """
        if not pairs:
            return []
        frame = {"op": "score", "pairs": [list(pair) for pair in pairs]}
        found = self._request(frame, client=client, timeout=timeout, cancel=cancel)
        return [Score(logprob=logprob, tokens=tokens) for logprob, tokens in found["scores"]]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of 256 numbers and length 1 for each text, made of the model's token embeddings."""
        if not texts:
            return []
        found: list[list[float]] = self._request({"op": "embed", "texts": list(texts)}, client="", timeout=600.0)[
            "vectors"
        ]
        return found

    def count(self, text: str) -> int:
        return int(self._request({"op": "count", "text": text}, client="", timeout=600.0)["tokens"])

    def _request(
        self,
        frame: Frame,
        *,
        client: str,
        timeout: float,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> Frame:
        deadline = time.monotonic() + timeout
        with self._turns.take(client, deadline=deadline, cancel=cancel) as mine:
            if cancel is not None and cancel.is_set():
                raise Cancelled(f"the request to {self._name} was cancelled")
            if not mine:
                raise ModelError(
                    f"{self._name} was busy with other requests for {timeout:g} s", hint="allow more time, or try later"
                )
            worker = self._running(deadline, cancel)
            try:
                found = worker.ask(
                    frame, deadline=deadline, timeout=timeout, stall=self._stall, on_delta=on_delta, cancel=cancel
                )
            except _Died as death:
                raise self._crashed(worker, str(death)) from None
            self._crashes = 0
            return found

    def _running(self, deadline: float, cancel: threading.Event | None) -> _Worker:
        """The process, started if need be. Called by the holder of the turn only."""
        if self._closed.is_set():
            raise ModelError(f"{self._name} is put away", hint="the daemon is stopping")
        if self._worker is not None and self._worker.ready:
            return self._worker
        if self._worker is not None:
            self._crashed(self._worker, "it ended between two requests")
        if time.monotonic() < self._rest_until:
            raise ModelError(
                f"{self._name} died {CRASHES_IN_A_ROW} times in a row and is not started again for now",
                hint="see the log of the daemon; a smaller context or fewer GPU layers may help",
            )
        gguf_file.read(self.path)
        if self._lora is not None:
            gguf_file.read(self._lora)
        worker = self._worker = _Worker(self._name)
        if self._closed.is_set():  # while it was being started
            self.stop()
        self._starts += 1
        spec = {
            "op": "load",
            "path": str(self.path),
            "context": self._context,
            "gpu_layers": self._gpu_layers,
            "threads": self._threads,
            "lora": None if self._lora is None else str(self._lora),
            "requantise": self._requantise if self._cache else None,
            "cache": str(self._cache),
        }
        try:
            patience = self._load_timeout
            loaded = worker.ask(
                spec, deadline=time.monotonic() + patience, timeout=patience, stall=patience, cancel=cancel
            )
        except _Died as death:
            raise self._crashed(worker, f"{death} while it loaded {self.path}") from None
        except (ModelError, Cancelled):
            self.stop()
            raise
        facts = {
            "model": self._name,
            "pid": worker.pid,
            "seconds": round(loaded["load_seconds"], 3),
            "context": loaded["context"],
        }
        log.info("model loaded", **facts)
        if self._on_load is not None:
            self._on_load(facts)
        return worker

    def _crashed(self, worker: _Worker, why: str) -> ModelError:
        stopped = self._worker is not worker
        if not stopped:
            self._worker = None
        worker.kill()
        words = worker.last_words
        if stopped:
            return ModelError(f"{self._name} was stopped", hint="send the request again; the model starts again")
        self._crashes += 1
        if self._crashes >= CRASHES_IN_A_ROW:
            self._rest_until, self._crashes = time.monotonic() + REST, 0
        log.error("model process died", model=self._name, pid=worker.pid, why=why, llama=words)
        last = words.splitlines()[-1:] or [""]
        detail = f": {last[0]}" if last[0] else ""
        return ModelError(
            f"model process died: {self._name} (pid {worker.pid}): {why}{detail}",
            hint="send the request again; the model starts again by itself",
        )


def free_threads() -> int:
    """All usable cores but one, for two threads on two cores stand still when anything else runs."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    return max(1, min(usable, physical) - 1)


class _Died(Exception):
    """The process is gone, hangs, or talks nonsense."""


class _Worker:
    """One process and the wire to it. Used by one thread at a time; only `kill` may come from another."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._in_use = threading.RLock()
        self.last_words = ""
        """The end of what it wrote to stderr, where llama.cpp's warnings go; known when it was killed."""
        if importlib.util.find_spec("llama_cpp") is None:
            raise ModelError(
                "llama-cpp-python is not installed, so no local model can run", hint="install the extra `embedded`"
            )
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._wire, other = socket.socketpair()
        with other:
            number = other.fileno()
            argv = [sys.executable, "-s", "-P", "-m", "agentd.backends.llama_worker", str(number)]
            root = Path(os.path.abspath(os.sep))
            self._child = spawn(argv, cwd=root, env=_environment(), stderr=self._stderr, pass_fds=(number,))
        self._reader = FrameReader(self._wire)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it can take a request; for the holder of the turn. The wire closes before the process is gone."""
        if not self.alive:
            return False
        try:
            self._wire.settimeout(0.0)
            return self._wire.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def ask(
        self,
        frame: Frame,
        *,
        deadline: float,
        timeout: float,
        stall: float,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> Frame:
        """Send one request and wait for its end. Raises `ModelError`, `Cancelled`, and `_Died`."""
        with self._in_use:
            return self._ask(frame, _Watch(deadline, cancel, stall), timeout, on_delta)

    def _ask(self, frame: Frame, watch: _Watch, timeout: float, on_delta: OnDelta | None) -> Frame:
        self._number += 1
        try:
            send(self._wire, {**frame, "id": self._number}, _SEND_TIMEOUT)
        except BrokenWire as error:
            raise _Died(self._how(str(error))) from None
        except ValueError as error:
            raise ModelError(f"the request to {self._name} is too big: {error}", hint="send less text") from None
        while True:
            answer = self._receive()
            if answer is not None and answer.get("id") == self._number:
                watch.alive()
                if "ok" in answer or "error" in answer:
                    return self._settle(answer, watch, timeout)
                if on_delta is not None and "delta" in answer and not watch.ending:
                    self._pass_on(on_delta, answer["delta"])
            if watch.must_end():
                self._cancel()
            if watch.hangs():
                raise _Died(f"it gave no sign of life for {watch.silence:.0f} s and was killed")

    def _pass_on(self, on_delta: OnDelta, text: str) -> None:
        try:
            on_delta(Delta(text=text))
        except BaseException:
            self._cancel()  # the listener failed; what the process still sends has an old number
            raise

    def _receive(self) -> Frame | None:
        try:
            return self._reader.receive(_POLL)
        except BrokenWire as error:
            raise _Died(self._how(str(error))) from None

    def _settle(self, answer: Frame, watch: _Watch, timeout: float) -> Frame:
        if watch.ending == "cancelled":
            raise Cancelled(f"the request to {self._name} was cancelled")
        if "ok" in answer:
            found = answer["ok"]
            if not isinstance(found, dict):
                raise _Died("it answered with nonsense")
            return found
        if watch.ending == "late":
            raise ModelError(f"{self._name} was not done after {timeout:g} s", hint="allow more time, or ask for less")
        error = answer["error"]
        kind = NoGrammar if error.get("kind") == "no_grammar" else ModelError
        raise kind(f"{self._name}: {error['message']}", hint=error["hint"])

    def _cancel(self) -> None:
        try:
            send(self._wire, {"op": "cancel", "id": self._number}, _SEND_TIMEOUT)
        except BrokenWire as error:
            raise _Died(self._how(str(error))) from None

    def kill(self) -> None:
        """End it at once; returns when it is gone. Fine on one that has ended."""
        kill_group(self._child, grace=0.0)
        try:
            self._wire.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        except OSError:
            pass  # nobody is connected any more
        with self._in_use:
            self._wire.close()
            if not self._stderr.closed:
                self._stderr.seek(0, os.SEEK_END)
                self._stderr.seek(max(0, self._stderr.tell() - _LOG_TAIL))
                self.last_words = self._stderr.read().decode("utf-8", "replace").strip()
                self._stderr.close()

    def _how(self, why: str) -> str:
        deadline = time.monotonic() + 1.0
        while (code := self._child.poll()) is None:
            if time.monotonic() >= deadline:
                return why
            time.sleep(_POLL)
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _environment() -> dict[str, str]:
    package_root = Path(__file__).resolve().parents[2]
    env = {**clean_env(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")), "PYTHONPATH": str(package_root)}
    # Waiting threads that spin would take the core that is left free.
    return env | {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}


class _Watch:
    """When a request must end: cancelled, late, or its process hangs."""

    def __init__(self, deadline: float, cancel: threading.Event | None, stall: float) -> None:
        self._deadline = deadline
        self._cancel = cancel
        self._patience = stall
        self._last = time.monotonic()
        self.ending = ""
        """`cancelled` or `late` once the process was told to end the request."""

    @property
    def silence(self) -> float:
        return time.monotonic() - self._last

    def alive(self) -> None:
        self._last = time.monotonic()

    def must_end(self) -> bool:
        """True once, when the request has to be cancelled."""
        if self.ending:
            return False
        if self._cancel is not None and self._cancel.is_set():
            self.ending = "cancelled"
        elif time.monotonic() >= self._deadline:
            self.ending = "late"
        if self.ending:
            self._patience = min(self._patience, _CANCEL_GRACE)
            self.alive()
        return bool(self.ending)

    def hangs(self) -> bool:
        return self.silence > self._patience
