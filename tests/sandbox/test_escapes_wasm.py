"""Plain hostile Python in WebAssembly, with no language layer: what it reaches is nothing, and it ends in time."""

from __future__ import annotations

import ast
import os
import platform
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentd.sandbox.job import Ended, Limit, Limits, Program, Sandbox
from agentd.sandbox.wasm_executor import WasmExecutor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SOURCE = (Path(__file__).parent / "inside" / "wasm_escapes.py").read_text(encoding="utf-8")
ESCAPES = [node.name for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef) and node.decorator_list]
LIMITS = Limits(seconds=1.0, memory_mb=64, requests=10)


@dataclass
class Host:
    """A file, a port and a variable that anybody on this machine could use."""

    folder: Path
    canary: str
    listener: socket.socket

    @property
    def targets(self) -> dict[str, Any]:
        paths = {"folder": str(self.folder), "file": str(self.folder / "file"), "home": str(Path.home())}
        return {
            **paths,
            "component": paths["file"],
            "canary": self.canary,
            "tcp": self.listener.getsockname()[1],
            "pid": os.getpid(),
            "node": platform.node(),
            "memory_mb": LIMITS.memory_mb,
        }

    def untouched(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            names = sorted(path.name for path in self.folder.iterdir())
            return names == ["file", "planted.py"] and (self.folder / "file").read_text() == self.canary
        return False


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    canary = secrets.token_hex(8)
    monkeypatch.setenv("AGENTD_TEST_CANARY", canary)
    (tmp_path / "file").write_text(canary)
    (tmp_path / "planted.py").write_text("SECRET = 'imported'\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Host(tmp_path, canary, listener)


@pytest.fixture
def sandbox(plain: WasmExecutor) -> Iterator[Sandbox]:
    made = plain.open(Program(source=SOURCE), LIMITS)
    yield made
    made.close()


def tried(sandbox: Sandbox, name: str, host: Host) -> Ended:
    return sandbox.call("attempt", {"name": name, "to": host.targets})


def test_there_are_enough() -> None:
    assert len(ESCAPES) >= 60


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out(name: str, sandbox: Sandbox, host: Host) -> None:
    ended = tried(sandbox, name, host)
    assert not ended.result, "it got hold of something"
    assert host.untouched()
    assert ended.seconds < LIMITS.seconds + 0.5
    assert host.canary not in ended.error
    assert sandbox.call("attempt", {"name": "list_root", "to": {}}).ok, "the next guest answers"


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("loop", Limit.TIME, "1 s"),
        ("loop_that_catches", Limit.TIME, "1 s"),
        ("loop_in_c", Limit.TIME, "1 s"),
        ("backtracking", Limit.TIME, "1 s"),
        ("sleep", Limit.CRASH, "wasi:clocks/monotonic-clock"),
        ("end_the_process", Limit.CRASH, "wasi:cli/exit"),
        ("stack_of_c_without_end", Limit.CRASH, "call stack exhausted"),
        ("ask_too_much", Limit.OUTPUT, "too much"),
        ("ask_garbage", Limit.CRASH, "no JSON"),
        ("ask_deeply", Limit.CRASH, "no JSON"),
    ],
)
def test_what_ends_a_guest_is_told(name: str, limit: Limit, words: str, sandbox: Sandbox, host: Host) -> None:
    ended = tried(sandbox, name, host)
    assert (ended.ok, ended.limit) == (False, limit), ended
    assert words in ended.error


def test_it_does_run_python(plain: WasmExecutor) -> None:
    """So that what is held is held by WebAssembly, and not by a language that lacks it."""
    source = "import os\ndef run():\n    return [().__class__.__base__.__subclasses__() != [], os.sep]\n"
    sandbox = plain.open(Program(source=source), LIMITS)
    assert sandbox.call("run", {}).result == [True, "/"]
    sandbox.close()


def test_what_is_built_tells_nothing_of_the_builder(plain: WasmExecutor, wasm: WasmExecutor) -> None:
    for executor in (plain, wasm):
        data = executor._component.path().read_bytes()
        for told in (str(Path(__file__).parents[2]), "building-", "PYTEST_CURRENT_TEST"):
            assert told.encode() not in data


def test_nothing_stays_for_the_next_guest(plain: WasmExecutor) -> None:
    source = (
        "import builtins, os, gc\n"
        "def plant():\n    builtins.planted = os.environ['planted'] = 'here'\n    return 1\n"
        "def found():\n    return [hasattr(builtins, 'planted'), dict(os.environ)]\n"
    )
    for _ in range(3):
        first, second = (plain.open(Program(source=source), LIMITS) for _ in range(2))
        assert first.call("plant", {}).ok
        assert second.call("found", {}).result == [False, {}]
        first.close()
        second.close()
