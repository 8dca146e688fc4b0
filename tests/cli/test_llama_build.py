from __future__ import annotations

from pathlib import Path

import pytest

from agentd.backends.devices import Gpu
from agentd.cli.llama_build import Build, card_findings, installed, parse, pip_line, processor_finding, processor_flags

PLAIN = (
    "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 0 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1 | "
)
CUDA = f"CUDA : ARCHS = 890 | USE_GRAPHS = 1 | PEER_MAX_BATCH_SIZE = 128 | {PLAIN}"
H200 = Gpu(name="NVIDIA H200", kind="cuda", total=141_000_000_000, free=140_000_000_000)
RADEON = Gpu(name="Radeon", kind="rocm", total=24_000_000_000, free=23_000_000_000)


def test_the_installed_build_tells_what_it_was_built_for() -> None:
    build = installed()
    assert isinstance(build, Build)
    assert build.version[0].isdigit()
    assert build.processor & {"AVX2", "NEON", "SSE3"}


def test_what_llama_cpp_says() -> None:
    build = parse("0.3", CUDA)
    assert build.processor == {"SSE3", "AVX", "AVX2", "F16C", "FMA", "LLAMAFILE", "OPENMP", "REPACK"}
    assert build.others == ("CUDA",)
    assert parse("0.3", "").processor == frozenset()


def test_a_processor_that_is_used_to_the_full() -> None:
    found = processor_finding(parse("0.3", PLAIN), {"avx2", "fma", "f16c", "sse2"})
    assert (found.state, found.text) == ("ok", "0.3; processor: AVX, AVX2, FMA, F16C, OpenMP; no graphics")


def test_a_build_from_an_older_processor() -> None:
    found = processor_finding(parse("0.3", PLAIN), {"avx2", "fma", "f16c", "avx512f"})
    assert found.state == "warn"
    assert "has AVX512 too" in found.text
    assert "CMAKE_ARGS=" in found.hint


def test_cards() -> None:
    with_cuda, without = parse("0.3", CUDA), parse("0.3", PLAIN)
    assert card_findings(without, ()).state == "ok"
    assert card_findings(with_cuda, [H200]).text == "NVIDIA H200, 140.0 of 141.0 GB free; llama.cpp computes on it"
    assert card_findings(parse("0.3", f"Vulkan : X = 1 | {PLAIN}"), [RADEON]).state == "ok"
    assert card_findings(with_cuda, [H200, RADEON]).state == "warn"


@pytest.mark.parametrize(
    ("card", "flag", "tool"), [(H200, "-DGGML_CUDA=on", "nvcc"), (RADEON, "-DGGML_HIP=on", "hipcc")]
)
def test_a_card_that_lies_idle_gets_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: Gpu, flag: str, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for build in (parse("0.3", PLAIN), None):
        found = card_findings(build, [card])
        assert found.state == "warn"
        assert flag in found.hint
    if "first" in found.hint:  # this machine does not have it in its usual place
        assert f"({tool}) first" in found.hint
        (tmp_path / tool).write_text("#!/bin/sh\n")
        (tmp_path / tool).chmod(0o755)
        assert "first" not in card_findings(None, [card]).hint


def test_the_line(tmp_path: Path) -> None:
    own = pip_line("-DX=on", checkout=tmp_path)
    assert own.startswith('CMAKE_ARGS="-DX=on" ./scripts/setup run')
    assert "-m pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python" in own


def test_what_the_processor_can(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx2 fma\nFeatures\t: fp asimddp\n\nflags : other\n")
    assert processor_flags(info) in ({"fpu", "avx2", "fma"}, {"fp", "asimddp"})
    assert processor_flags(tmp_path / "none") == frozenset()
