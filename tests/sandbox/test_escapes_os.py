"""Plain hostile Python against the operating system alone; then again with each layer away, to see what others hold."""

from __future__ import annotations

import ast
import json
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.sandbox import zygote as zygote_module
from agentd.sandbox.job import Limits
from agentd.sandbox.launch import kill_group, spawn
from agentd.sandbox.self_test import Bait
from agentd.sandbox.zygote import LineClosed, LineSilent, Nursery, Zygote

INSIDE = Path(__file__).parent / "inside"
LIMITS = Limits(seconds=3.0, memory_mb=64)


def _names() -> list[str]:
    tree = ast.parse((INSIDE / "escapes.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]


ESCAPES = _names()
ENDLESS = {"sleep", "loop"}
"""These have to be ended from outside, which has to work."""


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[Bait]:
    with Bait(tmp_path) as made:
        yield made


def zygote(*without: str) -> Zygote:
    return Zygote(Nursery(handler="escapes:serve", paths=[str(INSIDE)], without=without))


def tried(zygote: Zygote, name: str, bait: Bait) -> str:
    """What it got hold of; nothing where it was held."""
    line = zygote.open(LIMITS)
    started = time.monotonic()
    patience = 0.1 if name in ENDLESS else LIMITS.seconds
    nonce = secrets.token_hex(8)
    try:
        to = bait.targets | {"memory_mb": LIMITS.memory_mb}
        line.send({"nonce": nonce, "escape": name, "to": to}, started + patience)
        got = str(line.receive(started + patience)["got"])
    except LineClosed as error:
        got = "a program of its own" if "execute" in name and "has ended" in str(error) else ""
    except LineSilent:
        got = "" if line.gone(time.monotonic() + 1.0) else "it lives on"
    finally:
        line.kill()
    return got or ", ".join(bait.taken())


@pytest.fixture(scope="module")
def whole() -> Iterator[Zygote]:
    made = zygote()
    yield made
    made.close()


def test_there_are_enough() -> None:
    assert len(ESCAPES) >= 60


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_gets_out(name: str, whole: Zygote, bait: Bait) -> None:
    assert tried(whole, name, bait) == ""


WHAT_COMES_THROUGH = {
    "landlock": set(),
    "namespaces": set(),
    "seccomp": {"machine_code", "machine_code_later", "keys_that_stay"},
    "rlimits": {"memory_at_once", "memory_in_pieces", "memory_without_a_file"},
}
"""With one layer away. Without a filter of system calls a child can make machine code and leave a key in the kernel,
but still reaches no file, network, process or program of the host; without limits memory alone is unbounded."""


@pytest.mark.slow
@pytest.mark.parametrize("layer", WHAT_COMES_THROUGH)
def test_what_the_others_hold(layer: str, tmp_path: Path) -> None:
    if "namespaces" not in (reached := _layers()) or "landlock" not in reached:
        pytest.skip("this kernel does not have every layer")
    one_less = zygote(layer)
    try:
        assert layer not in one_less.reached().layers
        found = set()
        for name in ESCAPES:
            folder = tmp_path / name
            folder.mkdir()
            with Bait(folder) as bait:
                found |= {name} if tried(one_less, name, bait) else set()
    finally:
        one_less.close()
    assert found == WHAT_COMES_THROUGH[layer]


def _layers() -> tuple[str, ...]:
    made = zygote()
    try:
        return made.reached().layers
    finally:
        made.close()


HARMLESS = (
    *(
        "read_canary",
        "read_passwords",
        "read_raw",
        "read_through_root",
        "read_through_proc",
        "list_folder",
        "list_root",
    ),
    *("stat_canary", "import_from_disk", "append", "create", "make_folder", "make_node", "make_link", "rename"),
    *("unlink", "change_mode", "change_time", "truncate", "execute_memory", "machine_code", "machine_code_later"),
    *("tcp", "tcp_fast_open", "udp", "control_socket", "abstract_socket", "serve_others", "fork", "clone", "thread"),
    *("execute", "execute_at", "spawn", "signal_the_daemon", "signal_the_zygote", "environment_of_the_parent"),
    *("arguments_of_the_daemon", "memory_at_once", "memory_in_pieces"),
)
"""What does no harm on a machine that does not hold it."""
BARE = """
import os, sys
sys.path[:0] = sys.argv[1:3]
os.dup2(int(sys.argv[3]), 3)
import escapes
escapes.serve(3)
"""


@pytest.mark.slow
def test_they_are_ways_out_where_nothing_is_held(tmp_path: Path) -> None:
    closed = set()
    for name in HARMLESS:
        folder = tmp_path / name
        folder.mkdir()
        with Bait(folder) as bait:
            closed |= set() if _tried_bare(name, bait) else {name}
    assert closed == set()


def _tried_bare(name: str, bait: Bait) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [sys.executable, "-I", "-S", "-c", BARE, str(INSIDE), str(Path(zygote_module.__file__).parent)]
        child = spawn([*argv, str(theirs.fileno())], cwd=INSIDE, env={}, pass_fds=[theirs.fileno()])
        theirs.close()
        ours.settimeout(20)
        try:
            frame = zygote_module.packed({"nonce": "", "escape": name, "to": bait.targets})
            ours.sendall(frame)
            stream = ours.makefile("rb")
            answers = [json.loads(stream.read(int.from_bytes(stream.read(4), "big")) or b"null") for _ in range(2)]
            # Who has become another program answers no more.
            return answers[1] is None or bool(answers[1]["got"])
        finally:
            kill_group(child, grace=0.0)
