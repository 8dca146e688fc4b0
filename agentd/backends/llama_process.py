"""One process of a local model and the wire to it: many requests at once, each with its own time, cancel and answer."""

from __future__ import annotations

import importlib.util
import os
import queue
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from agentd.backends.frames import BrokenWire, FrameReader, send
from agentd.errors import Cancelled, ModelError, NoGrammar, NotServed, OutOfMemory, TooLong, TooSlow
from agentd.sandbox.launch import clean_env, kill_group, spawn

Frame: TypeAlias = dict[str, Any]
OnFrame: TypeAlias = Callable[[Frame], None]

WORKER = (sys.executable, "-s", "-P", "-m", "agentd.backends.llama.worker")
_POLL = 0.02
_RECEIVE = 60.0
_SEND_TIMEOUT = 30.0
_CANCEL_GRACE = 10.0
"""Seconds of silence after a cancellation before the process is killed."""
_CANCEL_LIMIT = 60.0
"""Seconds after which a process that does not end a cancelled request is killed, whatever else it says."""
_LOG_TAIL = 4000
_ERRORS = {"no_grammar": NoGrammar, "memory": OutOfMemory, "refused": NotServed}


class Died(Exception):
    """The process is gone, hangs, or talks nonsense."""


class Watch:
    """When a request must end: `deadline` (of `time.monotonic`), `cancel`, or `stall` seconds of silence.

    `at_once`: the process need not agree, because it is not worth anything without this request.
    """

    def __init__(
        self,
        *,
        timeout: float,
        deadline: float,
        cancel: threading.Event | None,
        stall: float,
        at_once: bool = False,
    ) -> None:
        self.timeout = timeout
        self.at_once = at_once
        self.patience = stall
        self._deadline = deadline
        self._cancel = cancel
        self._told = 0.0
        self.ending = ""
        """`cancelled` or `late` once the process was told to end the request."""

    def must_end(self) -> bool:
        """True once, when the request has to be cancelled."""
        if self.ending:
            return False
        if self._cancel is not None and self._cancel.is_set():
            self.ending = "cancelled"
        elif time.monotonic() >= self._deadline:
            self.ending = "late"
        if self.ending:
            self.patience = min(self.patience, _CANCEL_GRACE)
            self._told = time.monotonic()
        return bool(self.ending)

    def overdue(self) -> bool:
        return bool(self.ending) and time.monotonic() - self._told > _CANCEL_LIMIT

    def silent(self, last: float) -> float:
        """Seconds since the last sign of life, of which there was one at `last`."""
        return time.monotonic() - max(last, self._told)


class LlamaProcess:
    """A worker, started at once. Every method may be called from any thread.

    `worker`: what to run; the number of its socket is put behind. Raises `ModelError` when llama.cpp is not installed.
    """

    def __init__(self, name: str, worker: Sequence[str] = WORKER) -> None:
        if importlib.util.find_spec("llama_cpp") is None:
            raise ModelError(
                "llama-cpp-python is not installed, so no local model can run", hint="install the extra `embedded`"
            )
        self._name = name
        self._guard = threading.Lock()
        self._calls: dict[int, queue.SimpleQueue[Frame | None]] = {}
        self._number = 0
        self._last = time.monotonic()
        self._broken = ""
        self._sending = threading.Lock()
        self._ending = threading.Lock()
        self._ended = False
        self.stopped = False
        """Whether somebody wanted its end; set before it."""
        self.fate = ""
        """Why it ended, as the first request said that noticed; set before it is killed."""
        self.last_words = ""
        """The end of what it wrote to stderr, where llama.cpp's warnings go; known when it was killed."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._wire, other = socket.socketpair()
        with other:
            number = other.fileno()
            root = Path(os.path.abspath(os.sep))
            argv = [*worker, str(number)]
            self._child = spawn(argv, cwd=root, env=_environment(), stderr=self._stderr, pass_fds=(number,))
        # A socket has one time limit for both directions: the reader has a copy of its own.
        self._ear = self._wire.dup()
        self._reader = threading.Thread(target=self._read, name=f"{name}: replies", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it can take a request. The wire closes before the process is gone."""
        return not self._broken and self.alive

    def ask(self, frame: Frame, watch: Watch, on_frame: OnFrame | None = None) -> Frame:
        """Send one request and wait for its end; `on_frame` hears what comes before it, in this thread.

        Raises `ModelError`, `Cancelled`, `Died`, and whatever `on_frame` raises, which ends the request.
        """
        number, answers = self._open()
        try:
            self._send({**frame, "id": number})
            return self._wait(number, answers, watch, on_frame)
        finally:
            with self._guard:
                self._calls.pop(number, None)

    def end(self, grace: float) -> None:
        """Ask it to end, which gives it `grace` seconds to write down what it wants to keep; then like `kill`."""
        self.stopped = True
        try:
            self._send({"op": "stop"})
            deadline = time.monotonic() + grace
            while self.alive and time.monotonic() < deadline:
                time.sleep(_POLL)
        except Died:
            pass  # it has ended
        self.kill()

    def kill(self) -> None:
        """End it at once; returns when it is gone. Fine on one that has ended."""
        with self._ending:
            if self._ended:
                return
            kill_group(self._child, grace=0.0)
            try:
                self._wire.shutdown(socket.SHUT_RDWR)  # wakes whoever reads or writes
            except OSError:
                pass  # nobody is connected any more
            self._reader.join()
            with self._sending:
                self._wire.close()
            self._ear.close()
            self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, self._stderr.tell() - _LOG_TAIL))
            self.last_words = self._stderr.read().decode("utf-8", "replace").strip()
            self._stderr.close()
            self._ended = True

    def _open(self) -> tuple[int, queue.SimpleQueue[Frame | None]]:
        answers: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        with self._guard:
            if self._broken:
                answers.put(None)
            if not self._calls:
                self._last = time.monotonic()  # nobody expected a sign of life before
            self._number += 1
            self._calls[self._number] = answers
            return self._number, answers

    def _send(self, frame: Frame) -> None:
        if not self._sending.acquire(timeout=_SEND_TIMEOUT):
            raise Died(f"it took no request for {_SEND_TIMEOUT:.0f} s and was killed")
        try:
            send(self._wire, frame, _SEND_TIMEOUT)
        except BrokenWire as error:
            raise Died(self._how(str(error))) from None
        except ValueError as error:
            raise ModelError(f"the request to {self._name} is too big: {error}", hint="send less text") from None
        finally:
            self._sending.release()

    def _wait(
        self, number: int, answers: queue.SimpleQueue[Frame | None], watch: Watch, on_frame: OnFrame | None
    ) -> Frame:
        while True:
            answer = self._next(answers)
            if answer is not None:
                if "ok" in answer or "error" in answer:
                    return self._settle(answer, watch)
                if on_frame is not None and not watch.ending:
                    self._pass_on(on_frame, answer, number)
            if watch.must_end():
                if watch.at_once:
                    raise _given_up(self._name, watch)
                self._send({"op": "cancel", "id": number})
            if (silence := watch.silent(self._last)) > watch.patience:
                raise Died(f"it gave no sign of life for {silence:.0f} s and was killed")
            if watch.overdue():
                raise Died(f"it did not end a cancelled request within {_CANCEL_LIMIT:.0f} s and was killed")

    def _next(self, answers: queue.SimpleQueue[Frame | None]) -> Frame | None:
        try:
            answer = answers.get(timeout=_POLL)
        except queue.Empty:
            return None
        if answer is None:
            raise Died(self._how(self._broken))
        return answer

    def _pass_on(self, on_frame: OnFrame, answer: Frame, number: int) -> None:
        try:
            on_frame(answer)
        except BaseException:
            self._send({"op": "cancel", "id": number})  # the listener failed; nobody hears what is still sent
            raise

    def _settle(self, answer: Frame, watch: Watch) -> Frame:
        if watch.ending == "cancelled":
            raise _given_up(self._name, watch)
        found, error = answer.get("ok"), answer.get("error")
        if isinstance(found, dict):
            return found
        if watch.ending == "late":
            raise _given_up(self._name, watch)
        if not isinstance(error, dict):
            raise Died("it answered with nonsense and was killed")
        raise _error(self._name, error)

    def _read(self) -> None:
        """The reader's thread: hands every frame to the request it belongs to, until the wire is broken."""
        reader = FrameReader(self._ear)
        try:
            while True:
                frame = reader.receive(_RECEIVE)
                if frame is not None:
                    self._deliver(frame)
        except BrokenWire as error:
            with self._guard:
                self._broken = str(error)
                for answers in self._calls.values():
                    answers.put(None)

    def _deliver(self, frame: Frame) -> None:
        number = frame.get("id")
        with self._guard:
            self._last = time.monotonic()
            answers = self._calls.get(number) if isinstance(number, int) else None
        if answers is not None and "tick" not in frame:
            answers.put(frame)

    def _how(self, why: str) -> str:
        deadline = time.monotonic() + 1.0
        while (code := self._child.poll()) is None:
            if time.monotonic() >= deadline:
                return why
            time.sleep(_POLL)
        return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _error(name: str, error: Frame) -> ModelError:
    message, hint = f"{name}: {error.get('message')}", str(error.get("hint", ""))
    tokens, context = error.get("tokens"), error.get("context")
    if isinstance(tokens, int) and isinstance(context, int):
        return TooLong(message, hint=hint or "send less text", tokens=tokens, context=context)
    return _ERRORS.get(str(error.get("kind")), ModelError)(message, hint=hint)


def _given_up(name: str, watch: Watch) -> Cancelled | TooSlow:
    if watch.ending == "cancelled":
        return Cancelled(f"the request to {name} was cancelled")
    late = TooSlow(f"{name} was not done after {watch.timeout:g} s", hint="allow more time, or ask for less")
    late.retryable = False  # its time is over
    return late


def _environment() -> dict[str, str]:
    package_root = Path(__file__).resolve().parents[2]
    env = {**clean_env(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")), "PYTHONPATH": str(package_root)}
    # A waiting thread spins for some microseconds and then sleeps: to spin on takes the core from whoever needs it, to
    # sleep at once makes each of the hundreds of hand-overs in a pass as dear as a call of the kernel.
    return env | {"GOMP_SPINCOUNT": "300", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1"}
