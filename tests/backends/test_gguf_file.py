from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

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
