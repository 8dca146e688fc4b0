"""The set-up scripts, run for real in a small checkout whose `.venv/bin/python` plays pip and the compiler."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = """#!/bin/sh
# Notes each call; fails, pauses or hangs as the files `fail`, `pause` and `slow` beside .venv say.
root=$(dirname "$(dirname "$(dirname "$0")")")
case "$*" in "-c "*"import sys, pip"*) exit 0;; esac
echo "$*" >> "$root/calls"
case "$*" in *"$(cat "$root/slow" 2>/dev/null || echo never)"*) sleep 60 & echo $! > "$root/child"; wait;; esac
case "$*" in *"$(cat "$root/fail" 2>/dev/null || echo never)"*) echo "c++: $(cat "$root/why")"; exit 1;; esac
case "$*" in
  *" wheel "*)
    echo "  [1/2] /usr/bin/c++ a.cpp"; echo "  [2/2] /usr/bin/c++ b.cpp"
    [ -e "$root/pause" ] && sleep 0.6
    while [ "$1" != "-w" ]; do shift; done
    echo "$CMAKE_ARGS" > "$2/llama_cpp_python-1-py3-none-any.whl";;
esac
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in for pip is a shell script")


class Checkout:
    """A copy of scripts/ and the lock files, with the stand-in for pip."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
            shutil.copy(ROOT / name, self.root)
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PIP)
        python.chmod(0o755)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.root / "scripts" / "setup"), *arguments]
        env = self.environ | environ
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def setup(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """Exit code and stderr of scripts/setup."""
        process = self.start(*arguments, **environ)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def calls(self) -> list[str]:
        """What pip was asked to do since the last time: `wheel`, or the last word."""
        notes = self.root / "calls"
        if not notes.exists():
            return []
        calls = [line.split() for line in notes.read_text().splitlines()]
        notes.unlink()
        return ["wheel" if "wheel" in call else Path(call[-1]).name for call in calls]


WHEEL = "llama_cpp_python-1-py3-none-any.whl"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_second_start_does_nothing(checkout: Checkout) -> None:
    (checkout.root / "pause").touch()
    code, said = checkout.setup("run")
    assert code == 0, said
    assert checkout.calls() == ["wheel", WHEEL, "requirements.lock", "checkout", "agentd"]
    assert "compiling, only this once" in said
    assert checkout.setup("run") == (0, "")
    assert checkout.calls() == []


def test_dev_adds_to_run_and_serves_it(checkout: Checkout) -> None:
    checkout.setup("run")
    checkout.calls()
    checkout.setup("dev")
    assert checkout.calls() == ["requirements-dev.lock", "checkout", "agentd"]
    assert checkout.setup("run") == (0, "")
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    checkout.setup("run")
    assert checkout.calls() == ["requirements-dev.lock", "checkout", "agentd"]


def test_a_checkout_that_moved_is_set_up_again(checkout: Checkout) -> None:
    checkout.setup("run")
    checkout.calls()
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    assert checkout.setup("run")[0] == 0
    assert checkout.calls()[-2] == "elsewhere"


def test_failure_shows_the_end_of_the_log_and_a_hint(checkout: Checkout) -> None:
    (checkout.root / "fail").write_text(" wheel ")
    (checkout.root / "why").write_text("CMAKE_CXX_COMPILER is not set")
    code, said = checkout.setup("run")
    assert code == 1
    assert "c++: CMAKE_CXX_COMPILER is not set" in said
    assert "hint: a C++ compiler is missing: apt install build-essential" in said
    assert str(checkout.root / "state" / "setup.log") in said


def test_goes_on_after_a_failure_without_compiling_again(checkout: Checkout) -> None:
    (checkout.root / "fail").write_text("requirements.lock")
    (checkout.root / "why").write_text("Temporary failure in name resolution")
    code, said = checkout.setup("run")
    assert code == 1
    assert "is there a network?" in said
    (checkout.root / "fail").unlink()
    checkout.calls()
    assert checkout.setup("run")[0] == 0
    assert checkout.calls() == ["requirements.lock", "checkout", "agentd"]


def test_other_cmake_args_compile_again_and_stay(checkout: Checkout) -> None:
    checkout.setup("run")
    checkout.calls()
    code, said = checkout.setup("run", CMAKE_ARGS="-DGGML_CUDA=on")
    assert code == 0, said
    assert checkout.calls()[:2] == ["wheel", WHEEL]
    assert checkout.setup("run") == (0, "")
    checkout.setup("run", CMAKE_ARGS="")
    assert checkout.calls()[0] == WHEEL, "the first wheel is still in the cache"


def test_cmake_args_that_fail_are_not_kept(checkout: Checkout) -> None:
    checkout.setup("run")
    (checkout.root / "fail").write_text(" wheel ")
    (checkout.root / "why").write_text("no such option")
    code, said = checkout.setup("run", CMAKE_ARGS="-DNONSENSE=on")
    assert code == 1
    assert "hint: CMAKE_ARGS='-DNONSENSE=on' was given" in said
    (checkout.root / "fail").unlink()
    assert checkout.setup("run")[0] == 0
    assert (checkout.root / ".venv" / "agentd-setup").read_text().splitlines()[1:] == ["run", ""]


def test_interrupt_ends_the_children_too(checkout: Checkout) -> None:
    (checkout.root / "slow").write_text(" wheel ")
    process = checkout.start("run")
    child = checkout.root / "child"
    _wait_for(lambda: child.exists() and child.read_text().strip() != "")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the next call goes on from here" in said
    _wait_for(lambda: not _alive(int(child.read_text())))
    (checkout.root / "slow").unlink()
    assert checkout.setup("run")[0] == 0


def test_two_at_once_set_up_once(checkout: Checkout) -> None:
    (checkout.root / "pause").touch()
    both = [checkout.start("run"), checkout.start("run")]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert checkout.calls() == ["wheel", WHEEL, "requirements.lock", "checkout", "agentd"]


def test_an_old_python_is_told_what_to_do(checkout: Checkout) -> None:
    code = "import sys; sys.version_info = (3, 8, 1); import _setup; _setup.need_python()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout.root / "scripts",
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "agentd needs Python 3.11 or newer" in done.stderr
    assert "hint: apt install python3.11" in done.stderr


def test_run_without_a_goal_explains_itself(checkout: Checkout) -> None:
    script = checkout.root / "scripts" / "run"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "scripts/run GOAL" in done.stderr
    assert checkout.calls() == []


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or ") Z " not in Path(f"/proc/{pid}/stat").read_text()
