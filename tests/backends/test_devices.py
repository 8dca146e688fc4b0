from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agentd.backends import devices
from agentd.backends.devices import Devices, Gpu


def test_this_machine() -> None:
    found = devices.here()
    memory = psutil.virtual_memory()
    assert 0 < found.ram_free <= found.ram_total <= memory.total
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 1e8 < found.bandwidth < 1e13
    assert {gpu.kind for gpu in found.gpus} <= devices.offload(), "a card that llama.cpp cannot use is of no use"


def test_a_machine_without_a_driver_has_no_cards() -> None:
    for gpu in devices.cards(10**10, 10**9):
        assert 0 <= gpu.free <= gpu.total


def test_less_is_free_when_somebody_else_comes_first() -> None:
    cards = (Gpu(name="a", kind="cuda", total=100, free=80), Gpu(name="b", kind="cuda", total=100, free=50))
    machine = Devices(ram_total=1000, ram_free=700, cores=1, gpus=cards)
    less = machine.without(ram=200, vram=100)
    assert (less.ram_free, [gpu.free for gpu in less.gpus]) == (500, [0, 30])
    more = less.without(ram=-10_000, vram=-90)
    assert (more.ram_free, [gpu.free for gpu in more.gpus]) == (1000, [90, 30])
    assert not any(gpu.free for gpu in machine.without(ram=10**9, vram=10**9).gpus)


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [(None, True), ("0,1", True), ("0", False), ("", False), ("-1", False), ("GPU-12ab", True), (" 1 ", True)],
)
def test_only_cards_that_programs_may_see(chosen: str | None, seen: bool) -> None:
    environ = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert devices.visible(1, "GPU-12ab34cd", environ) is seen


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_limit_of_a_container(tmp_path: Path) -> None:
    put(tmp_path / "memory.max", "2000000000\n")
    put(tmp_path / "memory.current", "1500000000\n")
    put(tmp_path / "memory.stat", "anon 1000000000\nactive_file 300000000\ninactive_file 100000000\nodd\n")
    put(tmp_path / "cpu.max", "150000 100000\n")
    assert devices._cgroup(tmp_path) == (2_000_000_000, 1_100_000_000), "files in memory can be given up"
    assert devices._cgroup_cores(tmp_path) == 1
    put(tmp_path / "memory.max", "max\n")
    put(tmp_path / "cpu.max", "max 100000\n")
    assert devices._cgroup(tmp_path) == (sys.maxsize, 0)
    assert devices._cgroup_cores(tmp_path) == 0


def test_the_limit_of_an_older_container(tmp_path: Path) -> None:
    put(tmp_path / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(tmp_path / "memory/memory.usage_in_bytes", "5\n")
    assert devices._cgroup(tmp_path) == (sys.maxsize, 0), "so much means none"
    put(tmp_path / "memory/memory.limit_in_bytes", "1000\n")
    assert devices._cgroup(tmp_path) == (1000, 5)


def test_cards_of_amd(tmp_path: Path) -> None:
    put(tmp_path / "card0/device/mem_info_vram_total", "17163091968\n")
    put(tmp_path / "card0/device/mem_info_vram_used", "1000000000\n")
    put(tmp_path / "card0/device/product_name", "Radeon\n")
    put(tmp_path / "card1/device/vendor", "0x8086\n")
    put(tmp_path / "card2/device/mem_info_vram_total", "8000000000\n")
    put(tmp_path / "card2/device/mem_info_vram_used", "9000000000\n")
    first, second = devices._amd(tmp_path)
    assert (first.name, first.kind, first.total, first.free) == ("Radeon", "rocm", 17_163_091_968, 16_163_091_968)
    assert (second.name, second.free) == ("AMD card2", 0)


def test_files_in_a_processs_memory_are_counted(tmp_path: Path) -> None:
    size = 30_000_000
    (tmp_path / "weights").write_bytes(b"x" * size)
    code = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(data[at] for at in range(0, len(data), 4096))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "weights")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert size <= devices.mapped([child.pid]) <= 3 * size
        assert child.stdin is not None
        child.stdin.close()
    assert devices.mapped([child.pid]) == 0, "one that has gone has none"
