"""The process that owns one GGUF model: `python -m agentd.backends.llama.worker FD` serves frames on a socket.

A request is `{"id", "op", ...}`, many at once; replies are `{"id", "delta"}` and `{"id", "tick"}` while it runs, then
`{"id", "ok"}` or `{"id", "error"}`. `{"op": "cancel", "id"}` ends a request within one token, `{"op": "stop"}` the
process, which also ends when its parent's side of the socket closes.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import traceback

from agentd.backends.frames import BrokenWire, FrameReader
from agentd.backends.llama.desk import Desk
from agentd.backends.llama.engine import Engine
from agentd.backends.llama.loading import start_library
from agentd.backends.llama.options import Frame, Load
from agentd.backends.llama.refusals import Refused
from agentd.errors import ModelError, OutOfMemory

_SWITCH = 0.0005
"""Seconds after which a thread that computes in Python lets another one go on: tokens must not wait for clerks."""


class Inbox:
    """Takes frames off the wire in a thread of its own, so that a cancellation is seen while the model computes."""

    def __init__(self, wire: socket.socket, desk: Desk) -> None:
        self.first: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        """Holds the first frame, which says what to load."""
        self._reader = FrameReader(wire)
        self._desk = desk
        self._engine: Engine | None = None
        self._loaded = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def hand_to(self, engine: Engine) -> None:
        self._engine = engine
        self._loaded.set()

    def _read(self) -> None:
        try:
            first = self._reader.receive()
            self.first.put(first or {})
            while not self._desk.stopping:
                frame = self._reader.receive()
                self._loaded.wait()
                if frame is not None and self._engine is not None:
                    self._take(frame, self._engine)
        except BrokenWire:
            os._exit(0)  # the parent is gone, and so is the reason to live
        except BaseException:
            traceback.print_exc()
            os._exit(70)  # nobody would hear the parent any more

    def _take(self, frame: Frame, engine: Engine) -> None:
        number = frame.get("id")
        if frame.get("op") == "stop":
            self._desk.stop()
            engine.wake()
        elif frame.get("op") == "cancel":
            self._desk.cancel(number)
            engine.wake()
        elif isinstance(number, int) and self._desk.open(number):
            engine.accept(number, frame)
        else:
            error = {"kind": "refused", "message": "a request needs a number of its own", "hint": ""}
            self._desk.send({"id": None, "error": error})


def main(descriptor: int) -> None:
    sys.setswitchinterval(_SWITCH)
    start_library()
    wire = socket.socket(fileno=descriptor)
    desk = Desk(wire)
    inbox = Inbox(wire, desk)
    engine = _loaded(inbox.first.get(), desk)
    if engine is None:
        return
    inbox.hand_to(engine)
    threading.Thread(target=desk.tick, args=(lambda: engine.alive,), daemon=True).start()
    engine.run()
    os._exit(0)  # without waiting for a clerk who still computes


def _loaded(frame: Frame, desk: Desk) -> Engine | None:
    """The engine that the first frame asks for; None when it cannot be, and the parent was told why."""
    number = frame.get("id")
    try:
        engine = Engine(Load.of(frame), desk)
    except ModelError as error:
        kind = "memory" if isinstance(error, OutOfMemory) else "load"
        desk.send({"id": number, "error": {"kind": kind, "message": error.message, "hint": error.hint}})
        return None
    except Refused as refusal:
        desk.send({"id": number, "error": {"kind": "load", "message": str(refusal), "hint": ""}})
        return None
    desk.send({"id": number, "ok": engine.stats()})
    return engine


if __name__ == "__main__":
    main(int(sys.argv[1]))
