"""What the executor of WebAssembly does beside its calls: what it builds and keeps, and its processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentd.errors import DiskFull, SandboxUnavailable
from agentd.sandbox.job import Limit, Limits, Program, RequestRefused
from agentd.sandbox.wasm_component import Component, Contents, _failed, package
from agentd.sandbox.wasm_executor import GRACE, SPARE, WasmExecutor
from agentd.store.lock import DaemonLock
from agentd.types import JsonObject

LIMITS = Limits(seconds=1.0, memory_mb=64)
ONE = "def f():\n    return 1\n"
ENDLESS = "import files\n\n\ndef f(x):\n    files.exists('started')\n    while x:\n        pass\n    return 1\n"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the second wall is Linux's")


@pytest.fixture
def folder(wasm: WasmExecutor, tmp_path: Path) -> Path:
    """With the component in it, as it was left there."""
    made = tmp_path / "wasm"
    made.mkdir(mode=0o700)
    shutil.copy2(wasm._component.path(), made)
    return made


def kept(folder: Path) -> Path:
    return next(folder.glob("*.cwasm"))


def children() -> list[psutil.Process]:
    found = psutil.Process().children()
    return [each for each in found if any("wasm_child.py" in word for word in each.cmdline())]


# the component --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestComponent:
    def test_what_is_kept_is_used(self, folder: Path) -> None:
        before = kept(folder)
        assert Component(folder).path() == before

    @pytest.mark.parametrize("harm", ["another byte", "cut", "writable", "a link"])
    def test_what_is_not_as_we_left_it_is_not_run(self, folder: Path, tmp_path: Path, harm: str) -> None:
        path = kept(folder)
        if harm == "another byte":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        elif harm == "cut":
            os.truncate(path, 1000)
        elif harm == "writable":
            path.chmod(0o666)
        else:
            shutil.move(path, tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        component = Component(folder)
        assert component._kept(component._key()) is None
        assert not os.path.lexists(path)

    def test_another_source_is_another_component(self, folder: Path, tmp_path: Path) -> None:
        component = Component(folder)
        assert component._key() in kept(folder).name
        entrance = tmp_path / "entrance.py"
        entrance.write_text("x = 1\n")
        assert Component(folder, Contents(entrance=entrance))._key() != component._key()

    def test_the_folder_is_its_owners_alone(self, folder: Path) -> None:
        folder.chmod(0o777)
        Component(folder).path()
        assert folder.stat().st_mode & 0o077 == 0

    def test_who_comes_while_it_is_built_waits(self, folder: Path) -> None:
        path = kept(folder)
        away = path.rename(path.with_suffix(".away"))
        lock = DaemonLock.acquire(folder)
        found: list[Path] = []
        waiting = threading.Thread(target=lambda: found.append(Component(folder).path()))
        waiting.start()
        waiting.join(0.5)
        assert not found
        away.rename(path)
        lock.release()
        waiting.join(60)
        assert found == [path]

    def test_what_cannot_be_loaded_is_forgotten(self, folder: Path) -> None:
        path = kept(folder)
        key = path.name.partition("-")[0]
        path.unlink()
        wrong = b"\x7fELF of another machine"
        (folder / f"{key}-{hashlib.sha256(wrong).hexdigest()}.cwasm").write_bytes(wrong)
        kept(folder).chmod(0o600)
        executor = WasmExecutor(folder)
        with pytest.raises(SandboxUnavailable, match="does not start"):
            executor.open(Program(source=ONE), LIMITS)
        assert not list(folder.glob("*.cwasm"))
        executor.close()

    def test_what_cannot_be_built_is_told(self, tmp_path: Path) -> None:
        entrance = tmp_path / "entrance.py"
        entrance.write_text("raise LookupError('a wrong entrance')\n")
        executor = WasmExecutor(tmp_path / "wasm", Contents(entrance=entrance, packages=()))
        with pytest.raises(SandboxUnavailable, match="could not be built"):
            executor.open(Program(source=ONE), LIMITS)
        left = {path.name for path in (tmp_path / "wasm").iterdir()}
        assert left <= {"agentd.lock"}
        executor.close()


def test_a_full_disk_is_told_as_such() -> None:
    assert isinstance(_failed(OSError(28, "No space left on device")), DiskFull)
    assert isinstance(_failed(OSError(13, "Permission denied")), SandboxUnavailable)


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(SandboxUnavailable, match="no_such_engine is not installed") as told:
        package("no_such_engine")
    assert "agentd-local[wasm]" in told.value.hint


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SandboxUnavailable, match="cannot be kept"):
        Component(tmp_path / "file" / "wasm").path()


# processes ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestProcesses:
    @pytest.fixture
    def executor(self, kept: Path) -> Iterator[WasmExecutor]:
        before = {each.pid for each in children()}
        made = WasmExecutor(kept / "guest")
        yield made
        made.close()
        assert {each.pid for each in children()} <= before, "none is left"

    def test_one_process_serves_sandbox_after_sandbox(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}
        for _ in range(5):
            sandbox = executor.open(Program(source=ONE), LIMITS)
            assert sandbox.call("f", {}).result == 1
            sandbox.close()
        assert len({each.pid for each in children()} - before) == 1

    def test_only_a_few_wait_for_work(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}
        sandboxes = [executor.open(Program(source=ONE), LIMITS) for _ in range(SPARE + 1)]
        assert [each.call("f", {}).result for each in sandboxes] == [1] * len(sandboxes)
        assert len({each.pid for each in children()} - before) == SPARE + 1
        for sandbox in sandboxes:
            sandbox.close()
        assert len({each.pid for each in children()} - before) == SPARE

    def test_one_that_has_died_is_replaced(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}
        sandbox = executor.open(Program(source=ONE), LIMITS)
        for each in children():
            if each.pid not in before:
                each.kill()
        assert sandbox.call("f", {}).result == 1
        sandbox.close()

    def test_one_that_dies_in_a_call_is_told(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}

        def broker(name: str, args: JsonObject) -> bool:
            for each in children():
                if each.pid not in before:
                    each.kill()
            return True

        sandbox = executor.open(Program(source=ENDLESS, grants=frozenset(["files"])), LIMITS)
        ended = sandbox.call("f", {"x": 1}, broker=broker)
        assert (ended.ok, ended.limit) == (False, Limit.CRASH)
        assert sandbox.call("f", {"x": 0}, broker=lambda name, args: True).result == 1
        sandbox.close()

    @pytest.mark.skipif(os.name != "posix", reason="there is no such signal")
    def test_one_that_does_not_keep_time_is_killed(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}

        def broker(name: str, args: JsonObject) -> bool:
            for each in children():
                if each.pid not in before:
                    each.send_signal(signal.SIGSTOP)
            raise RequestRefused("stopped")

        sandbox = executor.open(Program(source=ENDLESS, grants=frozenset(["files"])), LIMITS)
        ended = sandbox.call("f", {"x": 1}, broker=broker)
        assert (ended.ok, ended.limit) == (False, Limit.TIME)
        assert LIMITS.seconds <= ended.seconds < LIMITS.seconds + GRACE + 0.5
        sandbox.close()

    def test_time_costs_the_guest_and_not_its_process(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}
        sandbox = executor.open(Program(source=ENDLESS, grants=frozenset(["files"])), LIMITS)
        pids = {each.pid for each in children()} - before
        assert sandbox.call("f", {"x": 1}, broker=lambda name, args: True).limit is Limit.TIME
        assert sandbox.call("f", {"x": 0}, broker=lambda name, args: True).ok
        assert {each.pid for each in children()} - before == pids
        sandbox.close()

    def test_memory_is_given_back_when_a_sandbox_is_closed(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}
        source = "kept = []\n\n\ndef f():\n    kept.append(b'x' * 150_000_000)\n    return 1\n"
        sandbox = executor.open(Program(source=source), Limits(memory_mb=256))
        child = next(each for each in children() if each.pid not in before)
        assert sandbox.call("f", {}).result == 1
        filled = child.memory_info().rss
        sandbox.close()
        end = time.monotonic() + 5
        while child.memory_info().rss > filled - 140_000_000 and time.monotonic() < end:
            pass
        assert child.memory_info().rss < filled - 140_000_000

    def test_several_threads_are_served(self, executor: WasmExecutor) -> None:
        results: list[object] = []

        def work(number: int) -> None:
            sandbox = executor.open(Program(source="def f(x):\n    return [x] * 3\n"), LIMITS)
            results.extend(sandbox.call("f", {"x": number}).result or ["failed"] for _ in range(10))
            sandbox.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [[number] * 3 for number in range(4) for _ in range(10)]

    @on_linux
    def test_the_process_has_a_wall_of_its_own(self, executor: WasmExecutor) -> None:
        before = {each.pid for each in children()}
        assert "+seccomp" in executor.level
        assert "+landlock" in executor.level
        child = next(each.pid for each in children() if each.pid not in before)
        for task in Path(f"/proc/{child}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        assert len(list(Path(f"/proc/{child}/task").iterdir())) == 2
