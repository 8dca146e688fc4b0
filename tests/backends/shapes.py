"""Headers of well-known models, written down from their public shapes; the weights are spread evenly."""

from __future__ import annotations

from typing import Any

from agentd.backends.shape import Shape, shape_of


def shape(
    architecture: str,
    *,
    layers: int,
    embedding: int,
    feed_forward: int,
    vocabulary: int,
    heads: int,
    kv_heads: int,
    head_size: int,
    context: int,
    total: float,
    attention_every: int = 1,
    **more: Any,
) -> Shape:
    """`total`: bytes of the file; `attention_every`: 4 means that three layers of four are recurrent."""
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        "general.file_type": 15,
        f"{architecture}.block_count": layers,
        f"{architecture}.embedding_length": embedding,
        f"{architecture}.feed_forward_length": feed_forward,
        f"{architecture}.context_length": context,
        f"{architecture}.attention.head_count": heads,
        f"{architecture}.attention.head_count_kv": kv_heads,
        f"{architecture}.attention.key_length": head_size,
        f"{architecture}.attention.value_length": head_size,
    }
    metadata |= {f"{architecture}.{key}": value for key, value in more.items()}
    table, output = vocabulary * embedding * 18 // 32, vocabulary * embedding * 210 // 256
    each = (int(total) - table - output) // layers
    sizes = {"token_embd.weight": table, "output.weight": output, "output_norm.weight": 4 * embedding}
    for layer in range(layers):
        attends = (layer + 1) % attention_every == 0
        sizes[f"blk.{layer}.{'attn_k' if attends else 'ssm_in'}.weight"] = each // 10
        sizes[f"blk.{layer}.ffn_down.weight"] = each - each // 10
    return shape_of(metadata, {"tokenizer.ggml.tokens": vocabulary}, sizes, int(total))


def qwen2_7b() -> Shape:
    """Q4_K_M."""
    return shape(
        "qwen2",
        layers=28,
        embedding=3584,
        feed_forward=18944,
        vocabulary=152_064,
        heads=28,
        kv_heads=4,
        head_size=128,
        context=32_768,
        total=4.68e9,
    )


def llama3_8b() -> Shape:
    """Q4_K_M."""
    return shape(
        "llama",
        layers=32,
        embedding=4096,
        feed_forward=14336,
        vocabulary=128_256,
        heads=32,
        kv_heads=8,
        head_size=128,
        context=131_072,
        total=4.92e9,
    )


def qwen2_14b() -> Shape:
    """Q5_K_M."""
    return shape(
        "qwen2",
        layers=48,
        embedding=5120,
        feed_forward=13824,
        vocabulary=152_064,
        heads=40,
        kv_heads=8,
        head_size=128,
        context=32_768,
        total=10.5e9,
    )


def qwen2_32b() -> Shape:
    """Q4_K_M."""
    return shape(
        "qwen2",
        layers=64,
        embedding=5120,
        feed_forward=27648,
        vocabulary=152_064,
        heads=40,
        kv_heads=8,
        head_size=128,
        context=32_768,
        total=19.85e9,
    )


def hybrid_27b() -> Shape:
    """Q4_K_M; of four layers one attends and three are recurrent."""
    return shape(
        "qwen35",
        layers=64,
        embedding=5120,
        feed_forward=17408,
        vocabulary=248_320,
        heads=24,
        kv_heads=4,
        head_size=256,
        context=262_144,
        total=16.5e9,
        attention_every=4,
        **{"ssm.conv_kernel": 4, "ssm.state_size": 128, "ssm.inner_size": 6144, "ssm.group_count": 16},
    )
