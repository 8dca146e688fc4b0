"""What the installed llama.cpp was built for, what this machine has, and the line that brings the two together."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentd.backends.devices import Gpu
from agentd.cli.findings import Finding, fail, ok, warn
from agentd.sandbox import launch

_SECONDS = 60.0
# In a process of its own: a build for another processor ends with a signal.
_ASK = (
    "import json, llama_cpp;"
    "print(json.dumps([llama_cpp.__version__, llama_cpp.llama_print_system_info().decode('utf-8', 'replace')]))"
)
_FEATURE = re.compile(r"(?:(\w+) : )?(\w+) = (\S+)")
_SHOWN = ("AVX", "AVX2", "AVX512", "AVX512_BF16", "AMX_INT8", "FMA", "F16C", "NEON", "DOTPROD", "MATMUL_INT8", "SVE")
_GAINED = {"avx2": "AVX2", "avx512f": "AVX512", "fma": "FMA", "f16c": "F16C", "asimddp": "DOTPROD", "sve": "SVE"}
"""What the processor calls it, and what llama.cpp does."""
_FLAGS = {"cuda": "-DGGML_CUDA=on", "rocm": "-DGGML_HIP=on", "metal": "-DGGML_METAL=on", "vulkan": "-DGGML_VULKAN=on"}
_NAMES = {"cuda": ("CUDA",), "rocm": ("ROCm", "ROCM", "HIP"), "metal": ("Metal", "METAL", "MTL"), "vulkan": ("Vulkan",)}
_TOOLS = {"cuda": ("nvcc", "/usr/local/cuda/bin/nvcc"), "rocm": ("hipcc", "/opt/rocm/bin/hipcc")}
_NEEDS = {"cuda": "NVIDIA's CUDA toolkit (nvcc)", "rocm": "AMD's ROCm (hipcc)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The installed llama.cpp: what it uses of the processor, and which graphics it computes on."""

    version: str
    processor: frozenset[str]
    others: tuple[str, ...] = ()
    """Such as CUDA, Vulkan, BLAS."""

    def computes_on(self, kind: str) -> bool:
        """Whether it was built for cards of a kind, or for all through Vulkan."""
        names = {*_NAMES[kind], *_NAMES["vulkan"]}
        return any(each.startswith(tuple(names)) for each in self.others)


def installed() -> Build | Finding:
    """The build, or what is wrong with it."""
    done = launch.run([sys.executable, "-c", _ASK], cwd=Path(sys.prefix), timeout=_SECONDS)
    try:
        version, told = json.loads(done.stdout.strip().splitlines()[-1])
        return parse(version, told)
    except (ValueError, IndexError, TypeError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return fail(
            "llama.cpp",
            f"does not load (exit code {done.code}): {said}",
            f"build it for this machine: {pip_line('')}",
        )


def parse(version: str, told: str) -> Build:
    """The build that `llama_print_system_info` speaks of: `CPU : AVX2 = 1 | FMA = 1 | ...`, a part for each library."""
    section, processor, others = "", set(), list[str]()
    for part, name, value in _FEATURE.findall(told):
        section = part or section
        if section == "CPU":
            if value != "0":
                processor.add(name)
        elif section and section not in others:
            others.append(section)
    return Build(version=version, processor=frozenset(processor), others=tuple(others))


def processor_finding(build: Build, flags: Collection[str]) -> Finding:
    """What the build uses of the processor. `flags`: what the processor can, in its own words."""
    used = [name for name in _SHOWN if name in build.processor]
    extras = ["OpenMP"] if "OPENMP" in build.processor else []
    text = f"{build.version}; processor: {', '.join(used + extras) or 'nothing special'}"
    text += f"; also {', '.join(build.others)}" if build.others else "; no graphics"
    unused = [name for flag, name in _GAINED.items() if flag in flags and name not in build.processor]
    if unused:
        return warn(
            "llama.cpp",
            f"{text}; this processor has {', '.join(unused)} too, which the build does not use",
            f"build it here: {pip_line('-DGGML_NATIVE=on')}",
        )
    return ok("llama.cpp", text)


def card_findings(build: Build | None, cards: Sequence[Gpu]) -> Finding:
    """The graphics cards, and whether llama.cpp computes on them."""
    if not cards:
        return ok("graphics", "no card that models could use")
    text = "; ".join(f"{gpu.name}, {gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB free" for gpu in cards)
    idle = [gpu.kind for gpu in cards if build is None or not build.computes_on(gpu.kind)]
    if not idle:
        return ok("graphics", f"{text}; llama.cpp computes on it")
    kind = idle[0]
    if kind in _TOOLS and not any(map(shutil.which, _TOOLS[kind])):
        need = f"install {_NEEDS[kind]} first, or build with {_FLAGS['vulkan']} and the Vulkan SDK; then "
    else:
        need = ""
    return warn("graphics", f"{text}; llama.cpp was built without it", f"{need}{pip_line(_FLAGS[kind])}")


def pip_line(flag: str, *, checkout: Path | None = None, version: str = "") -> str:
    """The command that builds llama.cpp with a flag; in a checkout its set-up, which keeps to it from then on."""
    checkout = checkout or _checkout()
    pinned = f"llama-cpp-python=={version}" if version else "llama-cpp-python"
    pip = f"{shlex.quote(sys.executable)} -m pip install --force-reinstall --no-cache-dir --no-deps {pinned}"
    if os.name == "nt":
        return f'$env:CMAKE_ARGS="{flag}"; ' + ("python scripts/setup run" if checkout else pip)
    line = f'CMAKE_ARGS="{flag}" {pip}'
    return f'CMAKE_ARGS="{flag}" ./scripts/setup run (elsewhere {line})' if checkout else line


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What this processor can do, in the system's words; nothing where the system does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(_words(lines))


def _words(lines: Iterable[str]) -> list[str]:
    """Of the first processor."""
    wanted = "Features" if platform.machine().lower() in ("aarch64", "arm64") else "flags"
    return next((line.partition(":")[2].split() for line in lines if line.startswith(wanted)), [])


def _checkout() -> Path | None:
    """The checkout whose environment this runs in."""
    root = Path(sys.prefix).parent
    return root if (root / "scripts" / "setup").is_file() else None
