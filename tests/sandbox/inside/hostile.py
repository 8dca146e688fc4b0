"""A child with no language layer at all: what it is called with decides what it does to its line."""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

frames: Any = importlib.import_module("frames")


def serve(line: int) -> None:
    frames.write(line, {"ready": True})
    calls = 0
    while (asked := frames.read(line)) is not None:
        if "load" in asked:
            frames.write(line, {"nonce": asked["nonce"], "loaded": True})
        else:
            calls += 1
            _answer(line, asked.get("call") or asked["check"], asked, calls)


def _answer(line: int, entry: str, asked: dict[str, Any], calls: int) -> None:
    good = {"nonce": asked["nonce"], "ok": True, "result": calls, "violations": [], "entries": ["f"], "imports": []}
    if entry in RAW:
        data = RAW[entry]
        os.write(line, len(data).to_bytes(4, "big") + data)
    elif entry == "twice":
        frames.write(line, good)
        frames.write(line, good | {"result": "prepared"})
    elif entry == "forged":
        frames.write(line, good | {"nonce": "0" * 16})
    elif entry == "flood":
        while True:
            frames.write(line, {"nonce": asked["nonce"], "ask": "files.exists", "args": {}})
            frames.read(line)
    elif entry == "many":
        for _ in range(asked["args"]["count"]):
            frames.write(line, {"nonce": asked["nonce"], "ask": "count", "args": {}})
            frames.read(line)
        frames.write(line, good)
    elif entry == "much":
        frames.write(line, good | {"result": "x" * 1000, "printed": "y" * 1000})
    elif entry == "family":
        pid = os.fork() or time.sleep(60)
        frames.write(line, good | {"result": pid})
    elif entry == "huge":
        frames.write(line, good | {"result": "x" * (1 << 20)})
    elif entry == "end":
        os._exit(0)
    elif entry == "sleep":
        time.sleep(60)
    elif entry == "loop":
        while True:
            pass
    else:
        frames.write(line, good)


RAW = {
    "garbage": b"\xff\xfe no JSON",
    "list": b"[]",
    "nan": b'{"result": NaN}',
    "infinite": b'{"result": 1e999}',
    "digits": b'{"result": ' + b"9" * 2000 + b"}",
    "deep": b'{"result": ' + b"[" * 300 + b"]" * 300 + b"}",
    "abyss": b'{"result": ' + b"[" * 100_000,
    "half": b'{"result": "\\ud800"}',
}
