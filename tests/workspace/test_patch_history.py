"""Real diffs, from this repository's own history where it has one: `git apply` says what is right, nothing is wrong."""

from __future__ import annotations

import difflib
import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DIFFS = 25
COMMITS = 5


def _benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("patches", ROOT / "scripts" / "benchmarks" / "patches.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


benchmark = _benchmark()


def _has_history() -> bool:
    counted = subprocess.run(["git", "-C", str(ROOT), "rev-list", "--count", "HEAD"], capture_output=True, text=True)
    return counted.returncode == 0 and int(counted.stdout) > COMMITS


def _made() -> list[object]:
    """Changes of this repository's own modules, for a copy without history."""
    samples = []
    for number, path in enumerate(sorted((ROOT / "agentd").rglob("*.py"))[:DIFFS]):
        chance = random.Random(number)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or ["x\n"]
        new = list(lines)
        for _ in range(3):
            at = chance.randrange(len(new) + 1)
            new[at : at + chance.randint(0, 2)] = [f"# {chance.random()}\n"] * chance.randint(1, 2)
        diff = "".join(difflib.unified_diff(lines, new, "a/f.py", "b/f.py"))
        samples.append(benchmark.Sample(path="f.py", old="".join(lines), diff=diff, new="".join(new)))
    return samples


@pytest.fixture(scope="module")
def samples() -> list[object]:
    return list(benchmark.found(ROOT, DIFFS)) if _has_history() else _made()


@pytest.mark.parametrize("name", benchmark.VARIANTS)
def test_real_diffs_and_their_damaged_variants(samples: list[object], name: str) -> None:
    ends = {"exact": 0, "refused": 0, "wrong": 0}
    for number, sample in enumerate(samples):
        damaged = benchmark.VARIANTS[name].damage(sample, random.Random(number))
        if damaged is not None:
            ends[benchmark.applied(damaged)[0]] += 1
    assert len(samples) > DIFFS // 2
    assert ends["wrong"] == 0
    if name == "as it is":
        assert ends == {"exact": len(samples), "refused": 0, "wrong": 0}
    elif name in benchmark.MUST_BE_EXACT:
        assert ends["refused"] <= 1  # where the places are alike, and nothing tells them apart
    elif benchmark.VARIANTS[name].refused:
        assert ends["exact"] == 0


@pytest.mark.skipif(not _has_history(), reason="this copy has no history")
@pytest.mark.parametrize("name", benchmark.COMMIT_VARIANTS)
def test_whole_commits(commits: list[object], name: str) -> None:
    for number, commit in enumerate(commits):
        diff = benchmark.COMMIT_VARIANTS[name](commit.diff, random.Random(number))  # type: ignore[attr-defined]
        if diff is None:
            continue
        made = benchmark.Commit(diff=diff, before=commit.before, after=commit.after)  # type: ignore[attr-defined]
        end, reason = benchmark.patched(made)
        assert end == "exact" or (end == "refused" and name != "as it is"), reason


@pytest.fixture(scope="module")
def commits() -> list[object]:
    return list(benchmark.commits_of(ROOT, COMMITS, among=60))
