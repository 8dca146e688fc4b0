"""What fits: computes from a model's shape and a machine's memory how the model is loaded; looks at nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentd.backends.catalog import ModelEntry
from agentd.backends.catalog_sheet import KvType
from agentd.backends.devices import Devices
from agentd.backends.shape import Shape
from agentd.errors import ModelError, OutOfMemory

MOST_SEQUENCES = 8
CPU_BATCH = 256
GPU_BATCH = 512
"""Tokens computed at once."""
_ROWS = 64
"""Of how many of them all logits are held, beside one for each sequence."""
_LONGEST_UNASKED = 16_384
"""Tokens of context that a model gets when none are configured and all fit."""
_SHORTEST_USEFUL = 2048
_KV_BYTES: Mapping[KvType, float] = {"f16": 2.0, "q8_0": 34 / 32}
"""Per number. Coarser types cost more quality than the room is worth."""
_LEAST_RAM_KEPT = 1_000_000_000
_LEAST_VRAM_KEPT = 600_000_000
_RAM_SHARE_KEPT, _VRAM_SHARE_KEPT = 0.10, 0.08
_PROCESS = 150_000_000
"""Bytes of a worker before it has loaded anything."""
_GPU_START = 300_000_000
"""Bytes that a card's runtime takes for itself."""
_EXTRA_SHARE = 0.5
"""Of what is left beside one conversation, more of them may take so much."""
_MOST_KEPT = 512_000_000
_CLEARLY_LESS = 0.96
"""A load that fails costs seconds: the next one takes at most so much of the memory."""
_EFFICIENCY = 0.7
"""What of a memory's speed is left when it feeds arithmetic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asks for; None leaves it to what fits. `gpu_layers`: -1 for all, `threads`: 0 for all but one."""

    context: int | None = None
    """Tokens of one conversation; never cut below."""
    sequences: int | None = None
    gpu_layers: int | None = None
    kv_type: KvType | None = None
    threads: int = 0

    @classmethod
    def of(cls, entry: ModelEntry, *, threads: int = 0) -> Wanted:
        """What the catalog asks for."""
        return cls(
            context=entry.context,
            sequences=entry.sequences,
            gpu_layers=entry.gpu_layers,
            kv_type=entry.kv_type,
            threads=threads,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How a model is loaded. `context`: tokens of one sequence; `cells`: of all together; bytes: what it will take."""

    context: int
    sequences: int
    cells: int
    unified: bool
    """One buffer that all sequences share, or one for each."""
    gpu_layers: int
    kv_type: KvType
    threads: int
    threads_batch: int
    vram_bytes: int
    ram_bytes: int
    kv_bytes: int
    kept_bytes: int
    """What may be taken besides, for conversations that had to make room for others."""
    expected: float
    """About so many tokens a second, for one conversation."""
    why: str
    shape: Shape = field(repr=False)
    wanted: Wanted = field(repr=False)
    devices: Devices = field(repr=False)

    def describe(self) -> dict[str, Any]:
        """For people and programs outside: everything but what it was made from."""
        return {
            "context": self.context,
            "sequences": self.sequences,
            "cells": self.cells,
            "unified": self.unified,
            "gpu_layers": self.gpu_layers,
            "kv_type": self.kv_type,
            "threads": self.threads,
            "ram_bytes": self.ram_bytes,
            "vram_bytes": self.vram_bytes,
            "kv_bytes": self.kv_bytes,
            "kept_bytes": self.kept_bytes,
            "expected": self.expected,
            "why": self.why,
        }


def plan(shape: Shape, devices: Devices, wanted: Wanted | None = None) -> LoadPlan:
    """The best way to load that leaves a reserve.

    What gives way first: more than one conversation at once, the exactness of keys and values, layers on the card, and
    the context, unless one is asked for. Raises `OutOfMemory` when nothing fits, saying what is missing, and
    `ModelError` for a context that the model was not trained for.
    """
    wanted = wanted or Wanted()
    if wanted.context is not None and 0 < shape.trained_context < wanted.context:
        raise ModelError(
            f"the model was trained for a context of {shape.trained_context} tokens; {wanted.context} are configured",
            hint="lower `context` in models/catalog.toml",
        )
    least: LoadPlan | None = None
    for each in _ladder(shape, devices, wanted):
        if _fits(each, devices):
            return each
        least = each
    assert least is not None  # a ladder has at least one step
    raise _too_big(least, devices)


def smaller(plan: LoadPlan) -> LoadPlan | None:
    """The next plan that needs clearly less of the memory that ran out, the card's if it is used; None at the end."""
    for each in _ladder(plan.shape, plan.devices, plan.wanted):
        if plan.vram_bytes:
            less = each.vram_bytes <= _CLEARLY_LESS * plan.vram_bytes
        else:
            less = not each.vram_bytes and each.ram_bytes <= _CLEARLY_LESS * plan.ram_bytes
        if less and _fits(each, plan.devices):
            return each
    return None


def kv_bytes_per_token(shape: Shape, kv_type: KvType) -> float:
    """Of all layers together."""
    return sum(_kv_of_layers(shape, kv_type))


def ram_budget(devices: Devices) -> int:
    """Bytes that may be taken so that the reserve stays."""
    return devices.ram_free - _kept(devices.ram_free, _LEAST_RAM_KEPT, _RAM_SHARE_KEPT * devices.ram_total)


def vram_budget(devices: Devices) -> int:
    """Like `ram_budget`, of all cards together."""
    return sum(gpu.free - _kept(gpu.free, _LEAST_VRAM_KEPT, _VRAM_SHARE_KEPT * gpu.total) for gpu in devices.gpus)


def _kept(free: int, least: int, share: float) -> int:
    """The reserve; where little is free, half of it, so that a small model still runs on a small machine."""
    return min(free // 2, max(least, int(share)))


def choose_file(sizes: Mapping[str, int], devices: Devices) -> str:
    """Which of several quantisations of one model to take: Q4_K_M, or Q8_0 where that is no burden.

    `sizes`: bytes by name of file. Where neither fits, the biggest that does. Raises `OutOfMemory` when none does.
    """
    if not sizes:
        raise ModelError("there are no files to choose from", hint="name the file itself")
    room = max(vram_budget(devices), ram_budget(devices))
    easy = vram_budget(devices) or ram_budget(devices) // 4  # without a card twice the bytes are half the speed
    fitting = {name: size for name, size in sizes.items() if with_context(size) <= room}
    if not fitting:
        name, size = min(sizes.items(), key=lambda item: item[1])
        raise OutOfMemory(
            f"none of these files fits: the smallest, {name}, needs about {_gb(with_context(size))}, "
            f"and {_gb(room)} may be taken",
            hint="choose a smaller model",
        )
    exact = [name for name, size in fitting.items() if _is(name, "Q8_0") and with_context(size) <= easy]
    usual = [name for name in fitting if _is(name, "Q4_K_M")]
    for names in (exact, usual):
        if names:
            return names[0]
    at_most = max((size for name, size in sizes.items() if _is(name, "Q4_K_M")), default=room)
    modest = {name: size for name, size in fitting.items() if size <= at_most} or fitting
    return max(modest, key=lambda name: modest[name])


@dataclass(frozen=True, slots=True)
class _Step:
    """One rung of the ladder, before it is known what it takes."""

    context: int
    gpu_layers: int
    kv_type: KvType
    sequences: int
    cells: int
    unified: bool


def _ladder(shape: Shape, devices: Devices, wanted: Wanted) -> Iterator[LoadPlan]:
    """Every way to load, the best first, each next one giving up a little more."""
    for context in _contexts(shape, wanted):
        for gpu_layers in _gpu_layers(shape, devices, wanted):
            for kv_type in _kv_types(wanted):
                for sequences, cells, unified in _conversations(context, wanted, gpu=gpu_layers > 0):
                    step = _Step(context, gpu_layers, kv_type, sequences, cells, unified)
                    yield _planned(step, shape, devices, wanted)


def _contexts(shape: Shape, wanted: Wanted) -> Iterator[int]:
    if wanted.context is not None:
        yield wanted.context
        return
    size = min(shape.trained_context or _LONGEST_UNASKED, _LONGEST_UNASKED)
    yield size
    while size // 2 >= _SHORTEST_USEFUL:
        size //= 2
        yield size


def _gpu_layers(shape: Shape, devices: Devices, wanted: Wanted) -> Iterator[int]:
    """The output counts as one layer more."""
    every = shape.layers + 1
    most = every if wanted.gpu_layers is None or wanted.gpu_layers < 0 else min(every, wanted.gpu_layers)
    return iter(range(most, -1, -1)) if devices.gpus else iter((0,))


def _kv_types(wanted: Wanted) -> tuple[KvType, ...]:
    return ("f16", "q8_0") if wanted.kv_type is None else (wanted.kv_type,)


def _conversations(context: int, wanted: Wanted, *, gpu: bool) -> Iterator[tuple[int, int, bool]]:
    """(sequences, cells, unified). With room for one only, several still share it: six opinions on one text fit."""
    most = wanted.sequences or MOST_SEQUENCES
    count = most
    while count > 1:
        yield (most, count * context, True) if gpu else (count, count * context, False)
        count //= 2
    if most > 1:
        yield most, context, True
    yield 1, context, gpu


def _planned(step: _Step, shape: Shape, devices: Devices, wanted: Wanted) -> LoadPlan:
    on_card = min(step.gpu_layers, shape.layers)
    kv = [each * step.cells for each in _kv_of_layers(shape, step.kv_type)]
    kv = [each + state * step.sequences for each, state in zip(kv, shape.state_bytes, strict=True)]
    first = shape.layers - on_card  # the last layers go to the card
    compute = _compute_bytes(step, shape)
    vram = 0
    if step.gpu_layers:
        vram = round(sum(shape.layer_bytes[first:]) + shape.output_bytes + sum(kv[first:]) + compute + _GPU_START)
    rest = sum(shape.layer_bytes[:first]) + shape.table_bytes + shape.other_bytes
    rest += 0 if step.gpu_layers else shape.own_output_bytes
    ram = round(rest + sum(kv[:first]) + _PROCESS + (0 if first == 0 else compute))
    # Threads that decode meet after every operation, and one that waits for its core holds up all: so a core is left
    # free. Over a prompt they meet seldom; all cores read half as fast again, and lose a tenth when one is busy.
    threads = wanted.threads or max(1, devices.cores - 1)
    made = LoadPlan(
        context=step.context,
        sequences=step.sequences,
        cells=step.cells,
        unified=step.unified,
        gpu_layers=step.gpu_layers,
        kv_type=step.kv_type,
        threads=threads,
        threads_batch=wanted.threads or devices.cores,
        vram_bytes=vram,
        ram_bytes=ram,
        kv_bytes=round(sum(kv)),
        kept_bytes=round(max(0, min(_MOST_KEPT, sum(kv) / 3, (ram_budget(devices) - ram) / 4))),
        expected=_expected(shape, devices, first, step),
        why="",
        shape=shape,
        wanted=wanted,
        devices=devices,
    )
    return replace(made, why=_reasons(made))


def _kv_of_layers(shape: Shape, kv_type: KvType) -> list[float]:
    row = (shape.key_length + shape.value_length) * _KV_BYTES[kv_type]
    return [heads * row for heads in shape.kv_heads]


def _compute_bytes(step: _Step, shape: Shape) -> int:
    """llama.cpp's working memory for one batch. Attention without its quick form holds a score for each pair."""
    batch = GPU_BATCH if step.gpu_layers else CPU_BATCH
    seen = step.cells if step.unified else step.context
    quick = step.gpu_layers > 0 or step.kv_type != "f16"
    inside = batch * (8 * shape.embedding + 3 * shape.feed_forward + seen * (2 if quick else shape.heads + 1))
    return 4 * max(inside, min(batch, _ROWS + step.sequences) * shape.vocabulary)


def _fits(each: LoadPlan, devices: Devices) -> bool:
    ram, vram = ram_budget(devices), vram_budget(devices)
    if any(gpu.shared for gpu in devices.gpus):
        vram = min(vram, ram - each.ram_bytes)
    if each.ram_bytes > ram or each.vram_bytes > vram:
        return False
    extra = each.kv_bytes * (1 - each.context / each.cells)
    left = (vram - each.vram_bytes if each.vram_bytes else ram - each.ram_bytes) + extra
    return extra <= _EXTRA_SHARE * left


def _expected(shape: Shape, devices: Devices, first: int, step: _Step) -> float:
    """From the bytes that one token reads, half the context being full."""
    kv = [each * step.context / 2 for each in _kv_of_layers(shape, step.kv_type)]
    used = shape.experts_used / shape.experts if shape.experts else 1.0
    layers = [
        whole - experts * (1 - used) + seen
        for whole, experts, seen in zip(shape.layer_bytes, shape.expert_bytes, kv, strict=True)
    ]
    end = shape.output_bytes
    on_card = sum(layers[first:]) + (end if step.gpu_layers else 0)
    beside = sum(layers[:first]) + (0 if step.gpu_layers else end)
    card = min((gpu.bandwidth for gpu in devices.gpus), default=1.0)
    seconds = on_card / card + beside / max(devices.bandwidth, 1.0)
    return round(_EFFICIENCY / seconds, 1) if seconds > 0 else 0.0


def _reasons(plan: LoadPlan) -> str:
    """Said in the log and by `model show`."""
    every = plan.shape.layers + 1
    asked = plan.wanted.gpu_layers
    parts = [f"{plan.context} tokens of context", f"{plan.sequences} at once"]
    if plan.sequences > 1:
        parts[-1] += f" in {plan.cells} cells" + (" that they share" if plan.unified else "")
    if plan.kv_type == "q8_0" and plan.wanted.kv_type is None:
        parts.append("keys and values in q8_0 to save room")
    if plan.devices.gpus:
        parts.append(f"{plan.gpu_layers} of {every} layers on the card")
        if plan.gpu_layers < every and (asked is None or asked < 0 or asked > plan.gpu_layers):
            parts[-1] += ": there is no room for more"
    parts.append(f"{_gb(plan.ram_bytes)} of RAM")
    if plan.vram_bytes:
        parts.append(f"{_gb(plan.vram_bytes)} of the card's memory")
    return ", ".join(parts)


def _too_big(least: LoadPlan, devices: Devices) -> OutOfMemory:
    missing = least.ram_bytes - ram_budget(devices)
    need = f"{_gb(least.ram_bytes)} of RAM"
    message = (
        f"the model does not fit: with {least.context} tokens of context it needs at least {need}; "
        f"{_gb(ram_budget(devices))} may be taken, {_gb(missing)} are missing"
    )
    per_token = kv_bytes_per_token(least.shape, least.kv_type)
    fewer = least.context - missing / per_token if per_token else 0.0
    hint = "free some memory, or choose a smaller model or quantisation"
    if fewer >= _SHORTEST_USEFUL:
        hint = f"a context of {int(fewer) // 256 * 256} tokens would fit: lower `context` in models/catalog.toml"
    return OutOfMemory(message, hint=hint)


def with_context(size: int) -> int:
    """A file's size with what it takes to run it in a modest context, about."""
    return size + size // 4 + _PROCESS + _GPU_START


def _is(name: str, quantisation: str) -> bool:
    return quantisation.lower() in name.lower().replace("-", "_")


def _gb(size: float) -> str:
    return f"{max(0.0, size) / 1e9:.1f} GB"
