"""What safety costs: a change of a large file with the ledger beside the same change without it, and a decision."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agentd.clock import SystemClock
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.store.db import Database
from agentd.types import AccessLevel
from agentd.workspace.paths import Workspace
from agentd.workspace.retention import Housekeeper
from agentd.workspace.snapshots import Ledger

SNAPSHOT_LIMIT = 50.0
"""Milliseconds that keeping what a file of 10 MB was may add to writing it anew."""
SIZE = 10_000_000
DECISION_LIMIT = 1.0
"""Milliseconds that one decision may take by `RULES` rules."""
RULES = 500
POLICIES = Path(__file__).resolve().parents[2] / "policies"
_EXAMPLES = "because: made for this, examples: {match: [MATCH], not_match: [output.read]}}\n"
_KINDS = (
    ("fs.write|fs.delete", 'path: ["**/made-N/*.py", "gen-N/**"]', "gen-N/a"),
    ("fs.read", 'path: ["private-N/**", "**/*.secret-N"], not_path: ["**/README.md"]', "private-N/a"),
    ("shell.exec", 'argv: ["tool-N|other-N", "-**", "run*", "**"]', "tool-N -v runs a"),
    ("shell.exec|test.run", 'path: ["**/data-N/**"]', "cat data-N/x"),
    ("shell.exec", "git: sub-N", "git -C x sub-N"),
    ("net.connect", 'host: ["*.host-N.example:443", "host-N.example:*"]', "'host-N.example:80'"),
    ("plugin.call", "name: [plugin-N]", "plugin-N"),
)
_ACTIONS = (
    *("fs.read src/agentd/policy/engine.py", "fs.read .env", "fs.write docs/guides/a.md", "fs.delete gen-7/x/y.py"),
    *("fs.write ../x", "fs.read private-8/deep/down/README.md", "git.commit", "git.read", "plugin.call plugin-41"),
    *("git push --force origin main", "git log --oneline -5", "python -m pytest -q tests/unit", "ruff check src"),
    *("make test", "tool-9 -v --all running a b c", "cp -r data-10/a b/c", "curl -o x http://host-12.example/y"),
    *("net.connect a.host-12.example:443", "net.connect 10.0.0.1:80", f"git commit -m '{'many words ' * 50}'"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    return max(decision(rounds), *(snapshot(kind, rounds) for kind in ("random", "text")))


def decision(rounds: int) -> int:
    """What the gate asks for each action: rules of all kinds, those that ship, the owner's and a project's."""
    shipped = len(PolicyEngine.load(POLICIES).rules)
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as name:
        folder = Path(name)
        (folder / "levels.yaml").write_bytes((POLICIES / "levels.yaml").read_bytes())
        more = RULES - shipped
        made = [rule(number) for number in range(more)]
        project = [text for text in made[: more // 2] if "net.connect" not in text]
        own = [text for text in made if text not in project]
        (folder / "default.yaml").write_text((POLICIES / "default.yaml").read_text() + "".join(own))
        policy = PolicyEngine.load(folder).narrowed("".join(project))
    assert len(policy.rules) == RULES
    actions = [action_of(text) for text in _ACTIONS]
    times: list[float] = []
    for number in range(max(rounds, 2) * 20):
        for action in actions:
            level, tainted = AccessLevel(number % len(AccessLevel)), number % 2 > 0
            begun = time.perf_counter()
            policy.decide(action, level=level, workspace=f"/srv/project-{number % 10}", tainted=tainted)
            times.append(time.perf_counter() - begun)
    median, slowest = statistics.median(times) * 1000, statistics.quantiles(times, n=100)[98] * 1000
    ok = median <= DECISION_LIMIT
    print(
        f"decision by {RULES} rules: {median:.3f} ms, limit {DECISION_LIMIT:g}; {slowest:.3f} ms in 1 of 100; "
        f"median of {len(times)}{'' if ok else '  TOO SLOW'}"
    )
    return 0 if ok else 1


def rule(number: int) -> str:
    """One that denies or asks, about something that no other rule speaks of."""
    kinds, pattern, example = (part.replace("-N", f"-{number}") for part in _KINDS[number % len(_KINDS)])
    more = ", taint: true" if number % 5 == 0 and kinds != "net.connect" else ""
    ruling = "deny" if number % 3 else "ask"
    head = f"- {{match: {{action: {kinds}, {pattern}{more}}}, decision: {ruling}, "
    return head + _EXAMPLES.replace("MATCH", example)


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
