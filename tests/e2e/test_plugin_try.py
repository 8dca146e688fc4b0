"""`agentd plugin try`: one source through the gate and into the sandbox of the real daemon."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Agentd, alive

pytestmark = pytest.mark.e2e


def tried(agentd: Agentd, source: str, *more: str) -> tuple[int, dict[str, Any]]:
    file = agentd.workspace / "tool.py"
    file.write_text(source, encoding="utf-8")
    done = agentd.run("plugin", "try", str(file), "--json", *more)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) == {"check", "result", "error", "limit", "seconds", "executor", "level"}
    return done.returncode, found


def test_a_result_its_arguments_and_what_was_told_of_it(fresh: Agentd) -> None:
    source = "import statistics\n\ndef mean(numbers):\n    return statistics.mean(numbers)\n"
    code, found = tried(fresh, source, "--args", '{"numbers": [1, 2, 6]}')
    assert (code, found["check"], found["result"], found["limit"]) == (0, {"ok": True, "violations": []}, 3, None)
    assert found["executor"] == "os"
    assert "seccomp" in found["level"]
    (record,) = [each for each in fresh.json("audit", "tail") if each["kind"] == "plugin.tried"]
    assert record["data"]["level"] == found["level"]
    assert fresh.ok("plugin", "try", str(fresh.workspace / "tool.py"), "--args", '{"numbers": [2]}') == "2"


def test_what_the_gate_refuses_is_not_run(fresh: Agentd) -> None:
    code, found = tried(fresh, "import socket\n\ndef run():\n    return eval('1')\n")
    assert (code, found["check"]["ok"], found["result"]) == (5, False, None)
    assert [(each["line"], each["rule"]) for each in found["check"]["violations"]] == [(1, "import"), (4, "name")]
    assert all(each["hint"] for each in found["check"]["violations"])


def test_limits_and_refusals_end_a_call_and_nothing_else(fresh: Agentd) -> None:
    loop = "def run():\n    return sum(range(10 ** 12))\n"
    started = time.monotonic()
    code, found = tried(fresh, loop)
    assert (code, found["limit"]) == (5, "time")
    assert time.monotonic() - started < 20
    assert tried(fresh, "def run():\n    return 'x' * 10 ** 10\n")[1]["limit"] == "memory"
    assert tried(fresh, "def run():\n    return 'x' * 5_000_000\n")[1]["limit"] == "output"
    code, found = tried(fresh, "def run():\n    return open('/etc/hostname').read()\n")
    assert (code, found["limit"], found["result"]) == (5, "refused", None)
    code, found = tried(fresh, "def run(x=0):\n    return 1 / x\n")
    assert (code, found["error"], found["limit"]) == (1, "ZeroDivisionError: division by zero", None)
    assert alive(fresh.pid)


def test_a_mistake_of_the_caller_is_told(fresh: Agentd) -> None:
    file = fresh.workspace / "tool.py"
    file.write_text("def run():\n    return 1\n", encoding="utf-8")
    assert fresh.error("plugin", "try", str(file), "--args", "[1]", code=2)["code"] == "input.invalid"
    assert fresh.error("plugin", "try", str(file), "--entry", "rum", code=2)["hint"] == "did you mean 'run'?"
    assert "No such file" in fresh.error("plugin", "try", "none.py", code=2)["message"]
    (fresh.workspace / "empty.py").write_text("X = 1\n")
    done = fresh.run("plugin", "try", "empty.py")
    assert (done.returncode, "no public function" in done.stdout) == (5, True)


@pytest.mark.slow
def test_the_other_executor_gives_the_same(fresh: Agentd, kept: Path) -> None:
    source = "import json\n\ndef run(n=3):\n    return json.loads(json.dumps({'n': n * 14}))\n"
    fresh.home.config_path.write_text('[sandbox]\nexecutor = "wasm"\n')
    looked = {each["name"]: each["text"] for each in json.loads(fresh.run("doctor", "--json").stdout)}
    assert "not built yet" in looked["wasm"]
    assert looked["plugins"] == "they run in WebAssembly"
    (fresh.workspace / "first.py").write_text(source)
    first = fresh.run("plugin", "try", "first.py")
    assert first.returncode == 0, first.stderr
    assert "is built, once" in first.stderr
    (kept / "guest").mkdir(exist_ok=True)
    for component in (fresh.home.state_dir / "wasm").glob("*.cwasm"):
        shutil.copy2(component, kept / "guest")  # the tests of the sandbox need not build it once more
    looked = {each["name"]: each["text"] for each in json.loads(fresh.run("doctor", "--json").stdout)}
    assert "its component is built and reaches wasm:" in looked["wasm"]
    assert "is built, once" not in fresh.run("plugin", "try", "first.py").stderr
    code, found = tried(fresh, source, "--executor", "wasm")
    assert (code, found["result"], found["executor"]) == (0, {"n": 42}, "wasm")
    assert found["level"].startswith("wasm:")
    assert tried(fresh, "def run():\n    return sum(range(10 ** 12))\n", "--executor", "wasm")[1]["limit"] == "time"
    assert tried(fresh, "def run():\n    return open('/etc/hostname').read()\n", "--executor", "wasm")[0] == 5
