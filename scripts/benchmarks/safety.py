"""What safety costs: a change of a large file with the ledger beside the same change without it, in the same run."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agentd.clock import SystemClock
from agentd.store.db import Database
from agentd.workspace.paths import Workspace
from agentd.workspace.retention import Housekeeper
from agentd.workspace.snapshots import Ledger

SNAPSHOT_LIMIT = 50.0
"""Milliseconds that keeping what a file of 10 MB was may add to writing it anew."""
SIZE = 10_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    return max(snapshot(kind, rounds) for kind in ("random", "text"))


def snapshot(kind: str, rounds: int) -> int:
    """A file of 10 MB is written over, in turn without and with the ledger; what was there is new to it each time."""
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as folder:
        root = Path(folder) / "work"
        root.mkdir()
        db = Database(Path(folder) / "agentd.db", clock=SystemClock())
        ledger = Ledger(db, SystemClock())
        housekeeper = Housekeeper(ledger.retention, ledger.blobs)
        housekeeper.start()
        seconds: dict[str, list[float]] = {"raw": [], "kept": []}
        cpu: dict[str, list[float]] = {"raw": [], "kept": []}
        for number in range(rounds):
            for how, times in seconds.items():
                (root / "file").write_bytes(content(kind))
                keep = ledger.keeper("bench", str(number), root)
                files = Workspace(root) if how == "raw" else Workspace(root, keep)
                after = content(kind)
                os.sync()
                begun, used = time.perf_counter(), time.process_time()
                files.write_atomic("file", after)
                times.append(time.perf_counter() - begun)
                cpu[how].append(time.process_time() - used)
            assert ledger.changes("bench")
        housekeeper.stop()
        db.close()
    raw, kept = (statistics.median(times) * 1000 for times in seconds.values())
    work = [statistics.median(times) * 1000 for times in cpu.values()]
    more = kept - raw
    ok = more <= SNAPSHOT_LIMIT
    print(
        f"snapshot of 10 MB ({kind}): {more:.1f} ms beyond the raw write of {raw:.1f} ms, limit {SNAPSHOT_LIMIT:g}; "
        f"{work[1] - work[0]:.1f} ms of the processor; median of {rounds}{'' if ok else '  TOO SLOW'}"
    )
    return 0 if ok else 1


def content(kind: str) -> bytes:
    """Bytes that were never seen before: without any form, or lines of text."""
    if kind == "random":
        return os.urandom(SIZE)
    mark = os.urandom(8).hex()
    line = "{:>9} {} the quick brown fox jumps over the lazy dog\n"
    text = "".join(line.format(number, mark) for number in range(SIZE // 70 + 1))
    return text.encode()[:SIZE].ljust(SIZE, b"x")


if __name__ == "__main__":
    sys.exit(main())
