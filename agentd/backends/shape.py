"""What a GGUF header says of a model's size: layers, heads, bytes; memory and speed follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from agentd.errors import ModelError

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_OUTPUT = ("output.weight", "output_norm.weight", "output.bias", "output_norm.bias")
_TABLE = "token_embd.weight"
_MOST_LAYERS = 10_000
_STATE_BYTES = 4
"""A recurrent state is kept in 32-bit numbers."""

_FORMATS = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ2_XXS IQ2_XS "
    "Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0"
)
"""File types in the order of llama.cpp's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a model. Lists have one entry for each layer; bytes are those of the weights as they are stored."""

    architecture: str
    quantisation: str
    """Such as Q4_K_M; empty when the file does not say."""
    trained_context: int
    """Tokens; 0 when the file does not say."""
    embedding: int
    feed_forward: int
    vocabulary: int
    heads: int
    kv_heads: tuple[int, ...]
    """0 for a layer that keeps no keys and values."""
    key_length: int
    value_length: int
    state_bytes: tuple[int, ...]
    """What a recurrent layer keeps for each sequence, however long; 0 for the others."""
    sliding_window: int = 0
    """Tokens that some layers look back at most; 0 for none. llama.cpp keeps all of them all the same."""
    experts: int = 0
    experts_used: int = 0
    layer_bytes: tuple[int, ...]
    expert_bytes: tuple[int, ...]
    """The share of `layer_bytes` in experts, of which each token reads a few."""
    table_bytes: int
    """The table of token embeddings, of which each token reads one row."""
    output_bytes: int
    """What follows the last layer; the table once more where it is `tied`."""
    tied: bool
    """The output is the table of token embeddings; on a card it is there a second time."""
    other_bytes: int
    """Whatever else is in the file."""

    @property
    def layers(self) -> int:
        return len(self.layer_bytes)

    @property
    def recurrent(self) -> bool:
        """Whether some layers keep a state that cannot be cut back to a shorter prefix."""
        return any(self.state_bytes)

    @property
    def weights(self) -> int:
        """Bytes in memory when all of it is in one place."""
        return sum(self.layer_bytes) + self.table_bytes + self.other_bytes + self.own_output_bytes

    @property
    def own_output_bytes(self) -> int:
        """0 when the output is the table of token embeddings."""
        return 0 if self.tied else self.output_bytes


def shape_of(metadata: Mapping[str, Any], lengths: Mapping[str, int], sizes: Mapping[str, int], total: int) -> Shape:
    """From a header: `sizes` has the bytes of each tensor by name, `total` those of the file.

    Raises `ModelError` for numbers that no model has.
    """
    found = _Numbers(metadata)
    layers = _layers(found, sizes)
    heads = found.number("attention.head_count", 1)
    embedding = found.number("embedding_length", 0)
    width = embedding // max(1, heads)
    layer_bytes, expert_bytes, recurrent, attends = _by_layer(sizes, layers)
    table = sizes.get(_TABLE, 0)
    tied = "output.weight" not in sizes
    output = table if tied else sum(sizes.get(name, 0) for name in _OUTPUT)
    known = sum(layer_bytes) + table + (0 if tied else output)
    kv_heads = found.per_layer("attention.head_count_kv", layers, heads)
    state = _state_bytes(found, embedding)
    return Shape(
        architecture=found.architecture,
        quantisation=_quantisation(metadata.get("general.file_type")),
        trained_context=found.number("context_length", 0),
        embedding=embedding,
        feed_forward=max(found.per_layer("feed_forward_length", layers, 4 * embedding), default=0),
        vocabulary=found.number("vocab_size", lengths.get("tokenizer.ggml.tokens", 0)),
        heads=heads,
        kv_heads=tuple(kv_heads[layer] if attends[layer] else 0 for layer in range(layers)),
        key_length=found.number("attention.key_length", width),
        value_length=found.number("attention.value_length", width),
        state_bytes=tuple(state if recurrent[layer] else 0 for layer in range(layers)),
        sliding_window=found.number("attention.sliding_window", 0),
        experts=found.number("expert_count", 0),
        experts_used=found.number("expert_used_count", 0),
        layer_bytes=tuple(layer_bytes),
        expert_bytes=tuple(expert_bytes),
        table_bytes=table,
        output_bytes=output,
        tied=tied,
        other_bytes=max(0, total - known),
    )


def _quantisation(number: Any) -> str:
    names = _FORMATS.split()
    known = isinstance(number, int) and 0 <= number < len(names)
    return names[number].strip("-") if known else ""


class _Numbers:
    """Metadata of the model's own architecture; nothing negative, endless or absurd gets out."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.architecture = str(metadata.get("general.architecture", ""))

    def number(self, key: str, default: int) -> int:
        """The biggest when there is one for each layer."""
        found = self._metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(found, list):
            return max((self._checked(key, each) for each in found), default=default)
        return self._checked(key, found)

    def per_layer(self, key: str, layers: int, default: int) -> list[int]:
        found = self._metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(found, list):
            return [self._checked(key, found)] * layers
        numbers = [self._checked(key, each) for each in found[:layers]]
        return numbers + [max(numbers, default=default)] * (layers - len(numbers))

    def _checked(self, key: str, value: Any) -> int:
        sound = isinstance(value, int | float) and isfinite(value) and 0 <= value < 2**40
        if not sound:
            raise ModelError(
                f"the header of this model is damaged: {self.architecture}.{key} is {value!r:.60}",
                hint="download or copy it again",
            )
        return int(value)


def _layers(found: _Numbers, sizes: Mapping[str, int]) -> int:
    """As many as the header says or as have tensors: some files count a last layer for guessing ahead, some not."""
    numbers = [int(match[1]) for name in sizes if (match := _LAYER.fullmatch(name)) and len(match[1]) < 6]
    layers = max(found.number("block_count", 0), max(numbers, default=-1) + 1)
    if layers > _MOST_LAYERS:
        raise ModelError(
            f"the header of this model is damaged: it counts {layers} layers", hint="download or copy it again"
        )
    return layers


def _by_layer(sizes: Mapping[str, int], layers: int) -> tuple[list[int], list[int], list[bool], list[bool]]:
    """For each layer: bytes, bytes in experts, whether it is recurrent, whether it keeps keys and values."""
    all_bytes, expert_bytes = [0] * layers, [0] * layers
    recurrent, keys = [False] * layers, [False] * layers
    for name, size in sizes.items():
        match = _LAYER.fullmatch(name)
        if match is None or len(match[1]) >= 6:
            continue
        layer, part = int(match[1]), match[2]
        all_bytes[layer] += size
        expert_bytes[layer] += size if "_exps." in part else 0
        recurrent[layer] |= part.startswith(("ssm_", "time_mix_", "shortconv."))
        keys[layer] |= part.startswith(("attn_k.", "attn_kv_a_mqa."))
    attends = [keys[layer] or not recurrent[layer] for layer in range(layers)]
    return all_bytes, expert_bytes, recurrent, attends


def _state_bytes(found: _Numbers, embedding: int) -> int:
    """Of one recurrent layer and sequence: the convolution's last inputs and the state itself."""
    inner, state = found.number("ssm.inner_size", 0), found.number("ssm.state_size", 0)
    window = max(0, found.number("ssm.conv_kernel", 0) - 1)
    groups = found.number("ssm.group_count", 0)
    numbers = window * (inner + 2 * groups * state) + state * inner
    head = found.number("wkv.head_size", 0)
    numbers += embedding * (head + 2) if head else 0
    numbers += max(0, found.number("shortconv.l_cache", 0) - 1) * embedding
    return _STATE_BYTES * numbers
