from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from agentd.backends import gguf_file
from agentd.errors import ModelError, ModelMissing


def test_a_whole_file(gguf: Path) -> None:
    found = gguf_file.read(gguf)
    assert found.trained_context == 8192
    assert found.metadata["general.license"] == "apache-2.0"
    assert found.tensors["token_embd.weight"].shape == (576, 49152)
    assert max(tensor.start + tensor.size for tensor in found.tensors.values()) == found.bytes == gguf.stat().st_size


@pytest.mark.parametrize("share", [0.5, 0.999999, 0.01, 0.0001])
def test_a_file_that_is_cut_off(gguf: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.gguf"
    with gguf.open("rb") as file:
        path.write_bytes(file.read(int(gguf.stat().st_size * share)))
    with pytest.raises(ModelError, match=r"cut off or damaged: .*bytes") as error:
        gguf_file.read(path)
    assert str(path) in error.value.message
    assert error.value.hint


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"there is no model file .*nowhere"):
        gguf_file.read(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelError, match="not a file"):
        gguf_file.read(tmp_path)
    for name, content in {"empty": b"", "zip": b"PK\3\4" * 100, "text": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="not a GGUF file"):
            gguf_file.read(tmp_path / name)
    (tmp_path / "old").write_bytes(b"GGUF" + (1).to_bytes(4, "little") + bytes(100))
    with pytest.raises(ModelError, match="version 1"):
        gguf_file.read(tmp_path / "old")


def test_damaged_headers_never_raise_anything_else(gguf: Path, tmp_path: Path) -> None:
    with gguf.open("rb") as file:
        head = file.read(60_000)
    chance = random.Random(1)
    path = tmp_path / "damaged.gguf"
    for _ in range(60):
        damaged = bytearray(head)
        for _ in range(4):
            damaged[chance.randrange(4, 4000 if chance.random() < 0.8 else len(head))] = chance.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(ModelError):
            gguf_file.read(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    with pytest.raises(ModelError, match="cannot be read"):
        gguf_file.read(path)


def write(path: Path, metadata: dict[str, object], tensors: dict[str, int]) -> Path:
    """A GGUF with numbers, texts and arrays of numbers, and tensors of so many 32-bit numbers."""
    writer = GGUFWriter(path, str(metadata.get("general.architecture", "odd")))
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif key != "general.architecture":
            writer.add_string(key, str(value))
    for name, count in tensors.items():
        writer.add_tensor(name, np.zeros(count, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_size_of_the_included_model(gguf: Path) -> None:
    shape = gguf_file.read(gguf).shape
    assert (shape.layers, shape.embedding, shape.heads, shape.kv_heads) == (30, 576, 9, (3,) * 30)
    assert (shape.key_length, shape.value_length, shape.feed_forward) == (64, 64, 1536)
    assert (shape.vocabulary, shape.quantisation, shape.trained_context) == (49_152, "Q4_1", 8192)
    assert shape.weights == gguf.stat().st_size, "each byte is counted once"
    assert shape.tied
    assert not shape.recurrent


def test_numbers_that_differ_from_layer_to_layer(tmp_path: Path) -> None:
    metadata: dict[str, object] = {
        "general.architecture": "odd",
        "odd.block_count": 4,
        "odd.embedding_length": 64,
        "odd.attention.head_count": 8,
        "odd.attention.head_count_kv": [2, 0, 4, 0],
        "odd.attention.sliding_window": 512,
        "odd.feed_forward_length": [100, 200, 300, 50],
        "odd.expert_count": 8,
        "odd.expert_used_count": 2,
        "odd.ssm.conv_kernel": 4,
        "odd.ssm.inner_size": 32,
        "odd.ssm.state_size": 16,
        "odd.ssm.group_count": 1,
        "tokenizer.chat_template": "{{ messages }}" * 10_000,
        "general.file_type": 7,
    }
    tensors = {
        "token_embd.weight": 640,
        "output.weight": 640,
        "blk.0.attn_k.weight": 10,
        "blk.1.ssm_in.weight": 30,
        "blk.2.attn_k.weight": 10,
        "blk.2.ffn_up_exps.weight": 800,
        "blk.3.ssm_in.weight": 30,
        "rope_freqs.weight": 8,
    }
    found = gguf_file.read(write(tmp_path / "odd.gguf", metadata, tensors))
    shape = found.shape
    assert shape.kv_heads == (2, 0, 4, 0)
    assert shape.layer_bytes == (40, 120, 3240, 120)
    assert shape.expert_bytes == (0, 0, 3200, 0)
    assert shape.state_bytes == (0, 4 * (3 * (32 + 2 * 16) + 16 * 32)) * 2
    assert (shape.experts, shape.experts_used, shape.sliding_window, shape.feed_forward) == (8, 2, 512, 300)
    assert (shape.quantisation, shape.recurrent, shape.tied) == ("Q8_0", True, False)
    assert shape.weights == found.bytes, "each byte is counted once"
    assert found.chat_template is not None
    assert len(found.chat_template) == 140_000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("odd.block_count", 4_000_000_000),
        ("odd.block_count", "many"),
        ("odd.attention.head_count_kv", [1.5, float("nan")]),
        ("odd.embedding_length", float("inf")),
        ("odd.context_length", -5.0),
    ],
)
def test_numbers_that_no_model_has(tmp_path: Path, key: str, value: object) -> None:
    metadata = {"general.architecture": "odd", "odd.block_count": 2, key: value}
    found = gguf_file.read(write(tmp_path / "odd.gguf", metadata, {"blk.0.x.weight": 3}))
    with pytest.raises(ModelError, match="damaged"):
        print(found.shape)


def test_a_file_in_parts_is_read_whole(tmp_path: Path) -> None:
    paths = [tmp_path / f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    write(paths[0], {"general.architecture": "odd", "odd.block_count": 2}, {"token_embd.weight": 100})
    write(paths[1], {}, {"blk.0.attn_k.weight": 50})
    write(paths[2], {}, {"blk.1.attn_k.weight": 70})
    found = gguf_file.read(paths[0])
    assert found.parts == tuple(paths)
    assert found.bytes == sum(path.stat().st_size for path in paths)
    assert found.shape.layer_bytes == (200, 280)
    assert [tensor.part for tensor in found.tensors.values()] == [0, 1, 2]
    with pytest.raises(ModelError, match="is part 2 of 3") as error:
        gguf_file.read(paths[1])
    assert "name the first part, big-00001-of-00003.gguf" in error.value.hint
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"big-00003-of-00003\.gguf is cut off"):
        gguf_file.read(paths[0])
    paths[2].unlink()
    with pytest.raises(ModelMissing, match=r"has 3 parts; big-00003-of-00003\.gguf is not there"):
        gguf_file.read(paths[0])
    paths[0].unlink()
    with pytest.raises(ModelMissing, match="there is no model file"):
        gguf_file.read(paths[0])


def test_arrays_within_arrays_without_end(tmp_path: Path) -> None:
    path = tmp_path / "deep.gguf"
    key = (1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little")
    nest = ((9).to_bytes(4, "little") + (1).to_bytes(8, "little")) * 50_000
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little"))
    with path.open("ab") as file:
        file.write(key + nest)
    with pytest.raises(ModelError, match="damaged"):
        gguf_file.read(path)


def _text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


@pytest.mark.parametrize(
    ("tensors", "entries", "body"),
    [
        (
            1,
            0,
            _text(b"t") + struct.pack("<I", 200_000) + struct.pack("<Q", 2**63) * 200_000 + struct.pack("<IQ", 0, 0),
        ),
        (0, 1, _text(b"a") + struct.pack("<IIQ", 9, 8, 2**40)),  # so many texts, and zeros read as empty ones
        (0, 1, _text(b"a") + struct.pack("<IIQ", 9, 9, 2**40)),
    ],
)
def test_a_header_that_never_ends_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensors: int, entries: int, body: bytes
) -> None:
    monkeypatch.setattr(gguf_file, "_LONGEST_HEADER", 8 * 1024 * 1024)
    path = tmp_path / "endless.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + body)
    os.truncate(path, 2 * 1024**3)  # all zeros, and none of them on the disk
    started = time.monotonic()
    with pytest.raises(ModelError, match="damaged"):
        gguf_file.read(path)
    assert time.monotonic() - started < 10
