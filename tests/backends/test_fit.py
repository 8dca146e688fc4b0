from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.backends import fit, gguf_file
from agentd.backends.devices import Devices, Gpu
from agentd.backends.fit import Wanted
from agentd.backends.shape import Shape
from agentd.errors import ModelError, OutOfMemory
from tests.backends.shapes import hybrid_27b, llama3_8b, qwen2_7b, qwen2_14b, qwen2_32b

GIB = 1024**3
LAPTOP = Devices(ram_total=16 * GIB, ram_free=int(12.5e9), cores=8)
CARD = Gpu(name="24 GB", kind="cuda", total=24 * GIB, free=int(25.2e9), bandwidth=936e9)
WORKSTATION = Devices(ram_total=64 * GIB, ram_free=int(55e9), cores=11, gpus=(CARD,))


def ram(free: float) -> Devices:
    return Devices(ram_total=16 * GIB, ram_free=int(free), cores=7)


def vram(free: float) -> Devices:
    return WORKSTATION.without(vram=CARD.free - int(free))


@pytest.mark.parametrize("model", [qwen2_7b, llama3_8b])
def test_a_7b_is_comfortable_on_16_gb_without_a_card(model: Callable[[], Shape]) -> None:
    plan = fit.plan(model(), LAPTOP, Wanted(context=8192))
    assert (plan.context, plan.kv_type, plan.gpu_layers, plan.vram_bytes) == (8192, "f16", 0, 0)
    assert plan.sequences >= 2
    assert not plan.unified, "on a CPU each conversation has a buffer of its own"
    assert plan.ram_bytes < 0.7 * LAPTOP.ram_free, "room is left for everything else"
    assert fit.plan(model(), LAPTOP).context == 16_384, "and nobody has to say how long it may be"


def test_what_a_card_of_24_gb_holds() -> None:
    big = fit.plan(hybrid_27b(), WORKSTATION, Wanted(context=32_768))
    coder = fit.plan(qwen2_32b(), WORKSTATION, Wanted(context=8192))
    small = fit.plan(qwen2_14b(), WORKSTATION, Wanted(context=16_384))
    for plan, layers in ((big, 65), (coder, 65), (small, 49)):
        assert plan.gpu_layers == layers, "every layer and the output"
        assert plan.vram_bytes <= fit.vram_budget(WORKSTATION)
        assert plan.ram_bytes < 1.5e9
        assert plan.unified
    assert (big.context, coder.context, small.context) == (32_768, 8192, 16_384)
    assert small.cells >= 2 * small.context, "room for more than one conversation"
    assert coder.cells == coder.context
    assert coder.sequences == 8, "which several still share"


def test_keys_and_values_as_the_formula_says() -> None:
    assert fit.kv_bytes_per_token(llama3_8b(), "f16") == 32 * 8 * (128 + 128) * 2
    assert fit.kv_bytes_per_token(llama3_8b(), "q8_0") == 32 * 8 * (128 + 128) * 34 / 32
    assert fit.kv_bytes_per_token(hybrid_27b(), "f16") == 16 * 4 * (256 + 256) * 2, "recurrent layers keep none"
    plan = fit.plan(hybrid_27b(), WORKSTATION, Wanted(context=4096, sequences=1))
    state = 4 * (3 * (6144 + 2 * 16 * 128) + 128 * 6144)
    assert plan.kv_bytes == 4096 * 16 * 4 * 512 * 2 + 48 * state


def test_the_order_in_which_things_give_way() -> None:
    """With ever less room first conversations go, then exactness, then layers; the context that was asked for stays."""
    seen: list[tuple[int, str, int]] = []
    for gigabytes in range(250, 30, -2):
        plan = fit.plan(qwen2_14b(), vram(gigabytes * 1e8), Wanted(context=16_384))
        assert plan.context == 16_384
        seen.append((plan.cells, plan.kv_type, plan.gpu_layers))
    order = [key for key, _ in itertools.groupby(seen)]
    full = [each for each in order if each[2] == 49]
    assert [each[1] for each in full] == sorted([each[1] for each in full]), "f16 before q8_0"
    exact = [cells for cells, kv_type, _ in full if kv_type == "f16"]
    assert exact == sorted(exact, reverse=True)
    assert exact[-1] == 16_384
    assert full[-1][1] == "q8_0"
    layers = [each[2] for each in order]
    assert layers == sorted(layers, reverse=True)
    assert layers[-1] < 15


def test_an_unasked_context_gives_way_last() -> None:
    contexts = [fit.plan(llama3_8b(), ram(free)).context for free in (12e9, 8.5e9, 7.6e9, 7.2e9)]
    assert contexts == sorted(contexts, reverse=True)
    assert contexts[0] == 16_384
    assert 2048 <= contexts[-1] < 16_384
    with pytest.raises(OutOfMemory):
        fit.plan(llama3_8b(), ram(5.5e9))


def test_an_asked_context_is_never_cut_and_the_error_says_what_would_fit() -> None:
    with pytest.raises(OutOfMemory) as error:
        fit.plan(llama3_8b(), ram(9e9), Wanted(context=65_536))
    assert "with 65536 tokens of context it needs at least" in error.value.message
    assert "may be taken" in error.value.message
    assert "missing" in error.value.message
    promised = int(error.value.hint.split("a context of ")[1].split()[0])
    assert 8192 < promised < 65_536
    assert fit.plan(llama3_8b(), ram(9e9), Wanted(context=promised)).context == promised


def test_a_model_that_fits_in_no_way() -> None:
    with pytest.raises(OutOfMemory, match=r"does not fit: .* 20\.\d GB of RAM; .* missing") as error:
        fit.plan(qwen2_32b(), LAPTOP)
    assert "smaller model" in error.value.hint


def test_a_context_that_the_model_was_not_trained_for() -> None:
    with pytest.raises(ModelError, match="trained for a context of 32768 tokens; 40000 are configured"):
        fit.plan(qwen2_7b(), LAPTOP, Wanted(context=40_000))


@pytest.mark.parametrize("model", [qwen2_7b, llama3_8b, qwen2_14b, qwen2_32b, hybrid_27b])
@pytest.mark.parametrize("free", [1e9, 3e9, 6e9, 9e9, 14e9, 18e9, 22e9, 25e9])
@pytest.mark.parametrize("context", [None, 4096, 32_768])
def test_no_plan_takes_the_reserve(model: Callable[[], Shape], free: float, context: int | None) -> None:
    devices = vram(free)
    plan = fit.plan(model(), devices, Wanted(context=context))
    assert plan.ram_bytes <= 55e9 - 6.4e9
    assert plan.vram_bytes <= free - min(free // 2, max(0.6e9, 0.08 * CARD.total))
    weights = model().weights
    assert plan.ram_bytes + plan.vram_bytes >= weights + plan.kv_bytes, "nothing is forgotten"


def test_each_smaller_plan_takes_less_until_there_is_none() -> None:
    for plan in (fit.plan(llama3_8b(), LAPTOP), fit.plan(qwen2_32b(), WORKSTATION, Wanted(context=8192))):
        steps = [plan]
        while (less := fit.smaller(steps[-1])) is not None:
            before = steps[-1]
            less_vram = less.vram_bytes < before.vram_bytes
            assert less_vram or (before.vram_bytes == less.vram_bytes == 0 and less.ram_bytes < before.ram_bytes)
            steps.append(less)
        assert 3 <= len(steps) <= 60, "a failed load costs seconds"
        assert steps[-1].gpu_layers == 0


def test_a_small_machine_still_runs_the_small_model(gguf: Path) -> None:
    small = gguf_file.read(gguf).shape
    plan = fit.plan(small, Devices(ram_total=4 * GIB, ram_free=900_000_000, cores=1), Wanted(context=4096))
    assert plan.ram_bytes < 450_000_000
    roomy = fit.plan(small, LAPTOP, Wanted(context=4096))
    assert (roomy.sequences, roomy.unified, roomy.kv_type) == (8, False, "f16")


def test_what_is_asked_for_is_done() -> None:
    wanted = Wanted(context=4096, sequences=3, gpu_layers=10, kv_type="q8_0", threads=2)
    plan = fit.plan(qwen2_7b(), WORKSTATION, wanted)
    assert (plan.context, plan.sequences, plan.gpu_layers, plan.kv_type) == (4096, 3, 10, "q8_0")
    assert (plan.threads, plan.threads_batch) == (2, 2)
    assert fit.plan(qwen2_7b(), WORKSTATION, Wanted(gpu_layers=0)).vram_bytes == 0
    assert fit.plan(qwen2_7b(), WORKSTATION, Wanted(gpu_layers=-1)).gpu_layers == 29
    plan = fit.plan(qwen2_7b(), LAPTOP)
    assert (plan.threads, plan.threads_batch) == (7, 8)
    one = fit.plan(qwen2_7b(), LAPTOP, Wanted(sequences=1))
    assert (one.sequences, one.cells) == (1, one.context)


def test_memory_that_a_card_shares_with_the_machine_counts_once() -> None:
    mac = Gpu(name="Metal", kind="metal", total=12 * 10**9, free=12 * 10**9, bandwidth=100e9, shared=True)
    devices = Devices(ram_total=16 * 10**9, ram_free=13 * 10**9, cores=7, gpus=(mac,))
    plan = fit.plan(qwen2_7b(), devices)
    assert plan.gpu_layers == 29
    assert plan.ram_bytes + plan.vram_bytes <= 11.4e9
    with pytest.raises(OutOfMemory):
        fit.plan(qwen2_32b(), devices)


def test_the_expected_speed_follows_the_bytes_that_a_token_reads() -> None:
    slow, quick = fit.plan(qwen2_7b(), LAPTOP), fit.plan(qwen2_7b(), WORKSTATION)
    assert 1 < slow.expected < 6, "4.7 GB for each token at 20 GB a second"
    assert quick.expected > 10 * slow.expected
    part = fit.plan(qwen2_32b(), vram(14e9), Wanted(context=8192))
    whole = fit.plan(qwen2_32b(), WORKSTATION, Wanted(context=8192))
    assert part.expected < whole.expected / 2


def test_the_plan_says_in_words_what_it_does() -> None:
    assert "49 of 49 layers on the card" in fit.plan(qwen2_14b(), WORKSTATION).why
    tight = fit.plan(qwen2_32b(), vram(14e9), Wanted(context=8192)).why
    assert "layers on the card: there is no room for more" in tight
    assert "keys and values in q8_0 to save room" in tight
    assert "card" not in fit.plan(qwen2_7b(), LAPTOP).why


SIZES = {
    "m-Q2_K.gguf": 3.0e9,
    "m-Q3_K_M.gguf": 3.8e9,
    "m-q4_k_m.gguf": 4.7e9,
    "m-Q6_K.gguf": 6.3e9,
    "m-Q8_0.gguf": 8.1e9,
}


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [
        (WORKSTATION, "m-Q8_0.gguf"),
        (LAPTOP, "m-q4_k_m.gguf"),
        (ram(7.2e9), "m-Q3_K_M.gguf"),
        (ram(6e9), "m-Q2_K.gguf"),
        (vram(9e9), "m-q4_k_m.gguf"),
    ],
)
def test_which_file_is_taken(devices: Devices, chosen: str) -> None:
    assert fit.choose_file({name: int(size) for name, size in SIZES.items()}, devices) == chosen


def test_small_models_are_taken_exact_and_odd_ones_as_they_are() -> None:
    assert fit.choose_file({"tiny-Q4_K_M.gguf": 400_000_000, "tiny-Q8_0.gguf": 700_000_000}, LAPTOP) == "tiny-Q8_0.gguf"
    assert fit.choose_file({"odd.gguf": 4_000_000_000}, LAPTOP) == "odd.gguf"
    with pytest.raises(OutOfMemory, match=r"the smallest, m-Q2_K\.gguf, needs about 4\.2 GB"):
        fit.choose_file({"m-Q2_K.gguf": 3_000_000_000, "m-Q8_0.gguf": 8_000_000_000}, ram(3e9))
