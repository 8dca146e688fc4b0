"""What this machine has for models: memory, graphics cards, cores; and how quick its memory is."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

_ASSUMED_GPU = 300e9
"""Bytes a second of a graphics card that does not say."""
_METAL_SHARE = 0.75
"""Of a Mac's memory the GPU may use about so much."""
_BYTES_MEASURED = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One graphics card. Memory in bytes, `bandwidth` in bytes a second."""

    name: str
    kind: str
    """`cuda`, `rocm` or `metal`."""
    total: int
    free: int
    bandwidth: float = _ASSUMED_GPU
    shared: bool = False
    """Its memory is the machine's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """What models may use: memory in bytes, `bandwidth` of the memory in bytes a second, `cores` to compute on."""

    ram_total: int
    ram_free: int
    cores: int
    gpus: tuple[Gpu, ...] = ()
    """Those that the installed llama.cpp can compute on."""
    bandwidth: float = 20e9

    def without(self, *, ram: int = 0, vram: int = 0) -> Devices:
        """With so much less free memory; the cards give it in their order. Negative numbers give memory back."""
        gpus = []
        for gpu in self.gpus:
            free = min(gpu.total, max(0, gpu.free - vram))
            vram -= gpu.free - free
            gpus.append(replace(gpu, free=free))
        ram_free = min(self.ram_total, max(0, self.ram_free - ram))
        return replace(self, ram_free=ram_free, gpus=tuple(gpus))


def here() -> Devices:
    """This machine, now. Costs some milliseconds; the first time some more."""
    memory = psutil.virtual_memory()
    limit, used = _cgroup()
    kinds = offload()
    gpus = tuple(gpu for gpu in cards(memory.total, memory.available) if gpu.kind in kinds)
    return Devices(
        ram_total=min(memory.total, limit),
        ram_free=max(0, min(memory.available, limit - used)),
        cores=usable_cores(),
        gpus=gpus,
        bandwidth=_bandwidth(),
    )


def usable_cores() -> int:
    """Cores of the machine that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    return max(1, min(usable, physical, _cgroup_cores() or usable))


@functools.cache
def offload() -> frozenset[str]:
    """The kinds of cards that the installed llama.cpp was built for, told by the names of its libraries."""
    spec = importlib.util.find_spec("llama_cpp")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    names = [file.name for folder in folders for file in Path(folder, "lib").glob("*ggml-*")]
    known = {"cuda": "ggml-cuda", "rocm": "ggml-hip", "metal": "ggml-metal"}
    return frozenset(kind for kind, part in known.items() if any(part in name for name in names))


def cards(ram_total: int, ram_free: int) -> tuple[Gpu, ...]:
    """Every card of this machine, whether llama.cpp can use it or not."""
    return (*_nvidia(), *_amd(), *_metal(ram_total, ram_free))


def _nvidia() -> Iterator[Gpu]:
    import pynvml  # 15 ms, and only where models are loaded

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return  # no driver, no card
    try:
        for number in range(pynvml.nvmlDeviceGetCount()):
            gpu = _nvidia_card(pynvml, number)
            if gpu is not None:
                yield gpu
    except pynvml.NVMLError:
        return  # lost while it was asked: as good as none
    finally:
        pynvml.nvmlShutdown()


def _nvidia_card(nvml: Any, number: int) -> Gpu | None:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    if not visible(number, _text(nvml.nvmlDeviceGetUUID(handle)), os.environ):
        return None
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        clock = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM) * 1e6
        bandwidth = 2 * clock * nvml.nvmlDeviceGetMemoryBusWidth(handle) / 8
    except nvml.NVMLError:
        bandwidth = _ASSUMED_GPU
    name = _text(nvml.nvmlDeviceGetName(handle))
    return Gpu(name=name, kind="cuda", total=int(memory.total), free=int(memory.free), bandwidth=bandwidth)


def visible(number: int, uuid: str, environ: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves a card to this user's programs."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return True
    names = [each.strip() for each in chosen.split(",") if each.strip()]
    return any(each == str(number) or (len(each) > 4 and uuid.startswith(each)) for each in names)


def _text(found: str | bytes) -> str:
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def _amd(root: Path = Path("/sys/class/drm")) -> Iterator[Gpu]:
    for folder in sorted(root.glob("card*/device")):
        total, used = _number(folder / "mem_info_vram_total"), _number(folder / "mem_info_vram_used")
        if total is not None and used is not None:
            name = _line(folder / "product_name") or f"AMD {folder.parent.name}"
            yield Gpu(name=name, kind="rocm", total=total, free=max(0, total - used))


def _metal(ram_total: int, ram_free: int) -> Iterator[Gpu]:
    if psutil.MACOS:
        total = int(ram_total * _METAL_SHARE)
        yield Gpu(name="Metal", kind="metal", total=total, free=min(total, ram_free), bandwidth=100e9, shared=True)


def _cgroup(root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """(most bytes this group of processes may use, bytes it uses and cannot give back)."""
    unlimited = sys.maxsize
    for most, used, stat in (
        (root / "memory.max", root / "memory.current", root / "memory.stat"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes", root / "memory/memory.stat"),
    ):
        limit, current = _number(most), _number(used)
        if limit is not None and current is not None and limit < 2**60:
            return limit, max(0, current - _cache(stat))
    return unlimited, 0


def _cache(stat: Path) -> int:
    """Bytes of files in memory, which the kernel gives up when others need them."""
    found = dict(line.split(" ", 1) for line in _lines(stat) if " " in line)
    return sum(int(found[name]) for name in ("active_file", "inactive_file") if found.get(name, "").isdigit())


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """0 when there is no limit."""
    quota, _, period = _line(root / "cpu.max").partition(" ")
    return max(1, int(quota) // int(period)) if quota.isdigit() and period.isdigit() and int(period) else 0


@functools.cache
def _bandwidth() -> float:
    """Bytes a second that one core reads and writes, measured once."""
    source, target = bytearray(b"x") * _BYTES_MEASURED, memoryview(bytearray(_BYTES_MEASURED))
    target[:] = source  # the first touch of the pages is no measure
    best = min(_seconds_to_copy(target, source) for _ in range(3))
    return 2 * _BYTES_MEASURED / max(best, 1e-6)


def _seconds_to_copy(target: memoryview, source: bytearray) -> float:
    started = time.perf_counter()
    target[:] = source
    return time.perf_counter() - started


def mapped(pids: Iterable[int]) -> int:
    """Bytes of files that these processes have in memory: the system counts them as free, and they are in use."""
    total = 0
    for pid in pids:
        try:
            total += int(psutil.Process(pid).memory_info()._asdict().get("shared", 0))
        except psutil.Error:
            continue
    return total


def _number(path: Path) -> int | None:
    text = _line(path)
    return int(text) if text.isdigit() else None


def _line(path: Path) -> str:
    return next(iter(_lines(path)), "").strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
