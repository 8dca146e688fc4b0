"""Who waits for an answer: takes cancellations, gives signs of life, and sends each answer once."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from agentd.backends.frames import BrokenWire, send
from agentd.backends.llama.context import Abort
from agentd.backends.llama.options import Frame

_TICK = 0.2
"""Seconds."""


class Desk:
    """Every method may be called from any thread. When the parent is gone, so is the reason to live."""

    def __init__(self, wire: socket.socket) -> None:
        self.abort = Abort()
        self.stopping = False
        self._wire = wire
        self._sending = threading.Lock()
        self._guard = threading.Lock()
        self._cancelled: dict[int, bool] = {}
        """Of every request that has no answer yet."""
        self._served: Collection[int] = ()
        """The requests that the forward pass at hand is for."""

    def open(self, number: int) -> bool:
        """False when a request of this number is being served."""
        with self._guard:
            if number in self._cancelled:
                return False
            self._cancelled[number] = False
            return True

    def answer(self, number: int, found: Frame) -> None:
        """`found` has `ok` or `error`."""
        with self._guard:
            self._cancelled.pop(number, None)
        self.send({"id": number, **found})

    def tell(self, number: int, found: Frame) -> None:
        self.send({"id": number, **found})

    def send(self, frame: Frame) -> None:
        try:
            with self._sending:
                send(self._wire, frame)
        except BrokenWire:
            os._exit(0)

    def cancel(self, number: object) -> None:
        with self._guard:
            if isinstance(number, int) and number in self._cancelled:
                self._cancelled[number] = True
                self._set_abort()

    def cancelled(self, number: int) -> bool:
        with self._guard:
            return self._cancelled.get(number, True)

    def stop(self) -> None:
        """End the forward pass at hand, and begin no other."""
        with self._guard:
            self.stopping = True
            self._set_abort()

    @contextmanager
    def serving(self, numbers: Collection[int]) -> Iterator[None]:
        """A forward pass for these requests; it is broken off as soon as all of them are cancelled."""
        self._serve(numbers)
        try:
            yield
        finally:
            self._serve(())

    def _serve(self, numbers: Collection[int]) -> None:
        with self._guard:
            self._served = numbers
            self._set_abort()

    def _set_abort(self) -> None:
        nobody = bool(self._served) and all(self._cancelled.get(number, True) for number in self._served)
        self.abort.put(nobody or self.stopping)

    def tick(self, alive: Callable[[], bool]) -> None:
        """Give a sign of life to everybody who waits, for ever, while the engine is `alive`."""
        while True:
            time.sleep(_TICK)
            if not alive():
                continue
            with self._guard:
                waiting = list(self._cancelled)
            for number in waiting:
                self.tell(number, {"tick": True})
