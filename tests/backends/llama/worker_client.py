"""A worker, really started, and the test's side of its wire."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import psutil

from agentd.backends.frames import BrokenWire, FrameReader, send

Frame: TypeAlias = dict[str, Any]

_ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 60.0


class Refusal(Exception):
    """The worker answered with an error."""

    def __init__(self, error: Frame) -> None:
        super().__init__(error["message"])
        self.kind: str = error["kind"]


class Call:
    """One request and everything that came back."""

    def __init__(self, client: WorkerClient, number: int) -> None:
        self.number = number
        self.deltas: list[Frame] = []
        self.ticks = 0
        self.first = self.ended = 0.0
        """Seconds of the monotonic clock; 0 before the first delta, and before the end."""
        self._client = client
        self._frames: queue.SimpleQueue[tuple[float, Frame]] = queue.SimpleQueue()

    def put(self, frame: Frame) -> None:
        self._frames.put((time.monotonic(), frame))

    def hear(self, deltas: int) -> None:
        """Wait until so many pieces have come."""
        while len(self.deltas) < deltas:
            assert self._next() is None, "it ended before"

    def result(self) -> Frame:
        while (found := self._next()) is None:
            pass
        if "error" in found:
            raise Refusal(found["error"])
        assert isinstance(found["ok"], dict)
        return found["ok"]

    def refusal(self) -> Refusal:
        try:
            found = self.result()
        except Refusal as refusal:
            return refusal
        raise AssertionError(f"it was not refused: {found}")

    def _next(self) -> Frame | None:
        """The end, if it is the next that comes."""
        when, frame = self._frames.get(timeout=_PATIENCE)
        if "tick" in frame:
            self.ticks += 1
        elif "delta" in frame:
            self.first = self.first or when
            self.deltas.append(frame)
        else:
            self.ended = when
            return frame
        return None


class WorkerClient:
    """Starts a worker; `load` is what its first frame says, `memory` bounds its address space (bytes)."""

    def __init__(self, load: Frame, *, memory: int | None = None) -> None:
        self._wire, other = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        with other:
            argv = [sys.executable, "-s", "-m", "agentd.backends.llama.worker", str(other.fileno())]
            env = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}
            self.process = subprocess.Popen(argv, pass_fds=[other.fileno()], env=env, stderr=self._log)
        if memory is not None:
            psutil.Process(self.process.pid).rlimit(psutil.RLIMIT_AS, (memory, memory))
        self._calls: dict[int | None, Call] = {}
        self._numbers = count(1)
        self._ear = self._wire.dup()
        self._gone = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.loaded = self.ask("load", **load)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        reader = FrameReader(self._ear)
        try:
            while True:
                frame = reader.receive()
                if frame is not None and frame.get("id") in self._calls:
                    self._calls[frame["id"]].put(frame)
        except BrokenWire:
            self._gone.set()
            for call in list(self._calls.values()):
                call.put({"error": {"kind": "gone", "message": "the worker is gone", "hint": ""}})

    def start(self, op: str, **frame: object) -> Call:
        number = next(self._numbers)
        call = self._calls[number] = Call(self, number)
        send(self._wire, {**frame, "op": op, "id": number})
        return call

    def write(self, prompt: str, max_tokens: int = 8, **more: object) -> Call:
        return self.start(
            "generate", prompt=prompt, max_tokens=max_tokens, **{"temperature": 0.0, "stream": True, **more}
        )

    def ask(self, op: str, **frame: object) -> Frame:
        return self.start(op, **frame).result()

    def raw(self, frame: object) -> None:
        """Anything that is JSON."""
        send(self._wire, frame)  # type: ignore[arg-type]

    def hear_nobody(self) -> Call:
        """Where answers without a number arrive."""
        call = self._calls[None] = Call(self, -1)
        return call

    def cancel(self, call: Call) -> None:
        send(self._wire, {"op": "cancel", "id": call.number})

    def stats(self) -> Frame:
        return self.ask("stats")

    def stop(self, patience: float = 20.0) -> str:
        """Ask it to end; returns what it wrote to stderr."""
        send(self._wire, {"op": "stop"})
        self.process.wait(patience)
        self._log.seek(0)
        words = self._log.read().decode("utf-8", "replace")
        self.close()
        return words

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self._wire.close()
        self._ear.close()
        self._log.close()
