"""A stand-in for a model's process that speaks its frames and behaves as its first argument says.

A request's prompt says what to do with it: `say TEXT`, `together N TEXT` (when N such requests are there), `begin` (a
first part and no end), `mute` (nothing, not even a sign of life), `echo` (the request itself), `garbage`, `nonsense`,
`deaf` (signs of life for ever, cancelled or not).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from agentd.backends.frames import FrameReader, send

Frame = dict[str, Any]


class Worker:
    def __init__(self, wire: socket.socket, mode: str) -> None:
        self.wire = wire
        self.mode = mode
        self.lock = threading.Lock()
        self.together: list[tuple[int, str]] = []
        self.open: set[int] = set()
        self.deaf: set[int] = set()
        self.muted = False

    def tell(self, frame: Frame) -> None:
        with self.lock:
            send(self.wire, frame, 10.0)

    def load(self, frame: Frame) -> None:
        name, _, value = self.mode.partition("=")
        if name == "log":
            with Path(value).open("a") as file:
                file.write(json.dumps(frame) + "\n")
        if name == "cells" and frame["cells"] > int(value):
            error = {"kind": "memory", "message": f"{frame['cells']} cells do not fit", "hint": ""}
            return self.tell({"id": frame["id"], "error": error})
        if name == "bad_alloc" and frame["cells"] > int(value):
            sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
            os._exit(134)
        if name == "oom_killer" and frame["cells"] > int(value):
            os.kill(os.getpid(), 9)
        if name == "broken":
            os._exit(3)
        if name == "slow":
            time.sleep(60.0)
        return self.tell({"id": frame["id"], "ok": {"load_seconds": 1.5, "context": frame["context"]}})

    def serve(self, frame: Frame) -> None:
        number, op = frame.get("id", 0), frame["op"]
        if op == "load":
            self.load(frame)
        elif op == "cancel":
            if number in self.open - self.deaf:
                self.end(number, {"error": {"kind": "cancelled", "message": "cancelled", "hint": ""}})
        elif op == "stop":
            os._exit(0)
        elif op == "stats":
            self.tell({"id": number, "ok": {"context": 0}})
        else:
            self.generate(number, frame)

    def generate(self, number: int, frame: Frame) -> None:
        self.open.add(number)
        word, _, rest = (frame["prompt"] or "echo").partition(" ")
        if word == "say":
            self.say(number, rest)
        elif word == "together":
            count, _, text = rest.partition(" ")
            self.together.append((number, text))
            self.tell({"id": number, "delta": text[:1]})
            if len(self.together) == int(count):
                for each, said in self.together:
                    self.say(each, said, begun=1)
                self.together.clear()
        elif word in ("begin", "mute", "deaf"):
            self.muted |= word == "mute"
            self.deaf |= {number} if word == "deaf" else set()
            self.tell({"id": number, "delta": "be"})
        elif word == "echo":
            self.say(number, json.dumps(frame))
        elif word == "garbage":
            with self.lock:
                self.wire.sendall(b"\xff\xff\xff\xff garbage")
        elif word == "nonsense":
            self.end(number, {"ok": 5})

    def say(self, number: int, text: str, begun: int = 0) -> None:
        for character in text[begun:]:
            self.tell({"id": number, "delta": character})
        one = [["x", -0.5, [120], 7, [["x", -0.5, 7], ["y", -1.5, 8]]]]
        reply = {"text": text, "prompt_tokens": 1, "completion_tokens": len(text), "finish_reason": "stop"}
        self.end(number, {"ok": reply | {"reused_tokens": 3, "logprobs": one}})

    def end(self, number: int, answer: Frame) -> None:
        self.open.discard(number)
        self.tell({"id": number, **answer})

    def tick(self) -> None:
        while True:
            time.sleep(0.1)
            for number in list(self.open):
                if not self.muted:
                    self.tell({"id": number, "tick": True})


def main(mode: str, descriptor: int) -> None:
    wire = socket.socket(fileno=descriptor)
    worker = Worker(wire, mode)
    threading.Thread(target=worker.tick, daemon=True).start()
    reader = FrameReader(wire.dup())
    try:
        while True:
            frame = reader.receive(3600.0)
            if frame is not None:
                worker.serve(frame)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
