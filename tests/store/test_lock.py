"""One daemon per home, however the one before ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from agentd.errors import AlreadyRunning, StoreError
from agentd.store.lock import DaemonLock
from tests.store.conftest import ROOT

HOLD = """
import pathlib, sys
from agentd.store.lock import DaemonLock
lock = DaemonLock.acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_the_pid_of_the_first(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    file = tmp_path / "agentd.lock"
    before = (file.read_bytes(), file.stat().st_mtime_ns, os.listdir(tmp_path))
    with pytest.raises(AlreadyRunning, match=rf"runs already in {tmp_path} \(pid {holder.pid}\)") as caught:
        DaemonLock.acquire(tmp_path)
    assert "agentd down" in caught.value.hint
    assert (file.read_bytes(), file.stat().st_mtime_ns, os.listdir(tmp_path)) == before


def test_a_killed_holder_lets_go(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    lock = DaemonLock.acquire(tmp_path)
    assert lock.path.read_text().strip() == str(os.getpid())
    lock.release()


def test_released_can_be_taken_again(tmp_path: Path) -> None:
    lock = DaemonLock.acquire(tmp_path / "state")
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        DaemonLock.acquire(tmp_path / "state")
    lock.release()
    lock.release()
    assert lock.path.read_text().strip() == ""
    DaemonLock.acquire(tmp_path / "state").release()


def test_children_do_not_inherit_it(tmp_path: Path) -> None:
    lock = DaemonLock.acquire(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "print(); input()"], stdin=PIPE, stdout=PIPE, close_fds=False)
    assert child.stdout
    child.stdout.readline()
    os.close(lock._fd or -1)  # as at the end of the process
    DaemonLock.acquire(tmp_path).release()
    child.communicate(b"\n")


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "agentd.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="cannot be opened"):
        DaemonLock.acquire(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        DaemonLock.acquire(tmp_path / "file" / "state")


def test_released_is_free_even_when_a_child_has_a_copy(tmp_path: Path) -> None:
    lock = DaemonLock.acquire(tmp_path)
    copy = os.dup(lock._fd or -1)
    lock.release()
    DaemonLock.acquire(tmp_path).release()
    os.close(copy)


def test_who_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert DaemonLock.holder(tmp_path) == holder.pid
    holder.kill()
    holder.wait()
    assert DaemonLock.holder(tmp_path) is None
    assert DaemonLock.holder(tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()


def test_asking_who_holds_it_keeps_nobody_out(tmp_path: Path) -> None:
    asking = DaemonLock.acquire(tmp_path)  # what `holder` does for a moment
    threading.Timer(0.05, asking.release).start()
    DaemonLock.acquire(tmp_path).release()
