"""Looks at a GGUF file without loading it: is it one, is it whole, what does it say of itself."""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from agentd.backends.shape import Shape, shape_of
from agentd.errors import ModelError, ModelMissing

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST_KEPT = 1_048_576
"""Bytes of a text that is kept; chat templates are the longest."""
_LONGEST_ARRAY = 4096
"""Numbers of an array that is kept; the arrays of tokens are longer, those with one number a layer shorter."""
_MOST_ENTRIES = 1_000_000
_MOST_DIMENSIONS = 8
"""ggml has four."""
_LONGEST_HEADER = 128 * 1024 * 1024
"""Bytes; the largest vocabularies take a tenth of it. What is beyond is never read, whatever the header counts."""
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""How llama.cpp names the parts of a split file."""

# ggml type -> (numbers in a block, bytes of a block); a type that is missing here is not checked for size.
_BLOCKS = {
    kind: sizes
    for kinds, sizes in (
        ((0, 26), (1, 4)),
        ((1, 25, 30), (1, 2)),
        ((24,), (1, 1)),
        ((27, 28), (1, 8)),
        ((2, 20), (32, 18)),
        ((3,), (32, 20)),
        ((6,), (32, 22)),
        ((7,), (32, 24)),
        ((8,), (32, 34)),
        ((9,), (32, 40)),
        ((10,), (256, 84)),
        ((11, 21), (256, 110)),
        ((12,), (256, 144)),
        ((13,), (256, 176)),
        ((14,), (256, 210)),
        ((15,), (256, 292)),
        ((16,), (256, 66)),
        ((17,), (256, 74)),
        ((18,), (256, 98)),
        ((19,), (256, 50)),
        ((22,), (256, 82)),
        ((23,), (256, 136)),
        ((29,), (256, 56)),
        ((34,), (256, 54)),
        ((35,), (256, 66)),
        ((39,), (32, 17)),
        ((40,), (64, 36)),
        ((41,), (128, 18)),
    )
    for kind in kinds
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    shape: tuple[int, ...]
    kind: int
    """ggml's number of the type."""
    start: int
    """Byte in the file where its data begins."""
    part: int = 0
    """Place of that file in `GgufFile.parts`."""

    @property
    def size(self) -> int:
        """Bytes; 0 for a type that is not known here."""
        numbers, block = _BLOCKS.get(self.kind, (1, 0))
        return prod(self.shape) // numbers * block


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """What the header says: metadata (without long arrays) and tensors by name; of all parts when it is split."""

    path: Path
    bytes: int
    metadata: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    """How many entries each array of the metadata has."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    parts: tuple[Path, ...] = ()
    """The files it consists of; `path` is the first."""

    @property
    def trained_context(self) -> int:
        """Tokens; 0 when the file does not say."""
        return self.shape.trained_context

    @property
    def chat_template(self) -> str | None:
        """As it stands in the file, unchecked."""
        found = self.metadata.get("tokenizer.chat_template")
        return found if isinstance(found, str) else None

    @property
    def shape(self) -> Shape:
        """The sizes that memory and speed follow from."""
        sizes = {name: tensor.size for name, tensor in self.tensors.items()}
        return shape_of(self.metadata, self.lengths, sizes, self.bytes)


def read(path: Path) -> GgufFile:
    """The header of a GGUF file; of a split one the first part is named, and all must be there.

    Raises `ModelMissing` when there is no such file, `ModelError` when it is none, cut off, or cannot be read.
    """
    parts = parts_of(path)
    found = _read_one(parts[0])
    tensors = dict(found.tensors)
    size = found.bytes
    for number, part in enumerate(parts[1:], start=1):
        other = _read_one(part)
        size += other.bytes
        tensors |= {name: replace(tensor, part=number) for name, tensor in other.tensors.items()}
    return replace(found, bytes=size, tensors=tensors, parts=parts)


def parts_of(path: Path) -> tuple[Path, ...]:
    """The files that a model consists of, all there. Raises `ModelError` for a later part, `ModelMissing`."""
    named = _PART.fullmatch(path.name)
    if named is None:
        return (path,)
    stem, number, count = named[1], int(named[2]), int(named[3])
    parts = tuple(path.with_name(f"{stem}-{each:05}-of-{count:05}.gguf") for each in range(1, count + 1))
    if number != 1:
        raise ModelError(
            f"{path} is part {number} of {count} of a model",
            hint=f"name the first part, {stem}-00001-of-{count:05}.gguf",
        )
    missing = [part.name for part in parts if not part.is_file()]
    if path.is_file() and missing:
        raise ModelMissing(
            f"model {path} has {count} parts; {', '.join(missing[:4])} {'are' if len(missing) > 1 else 'is'} not there",
            hint="put all parts beside each other",
        )
    return parts


def _read_one(path: Path) -> GgufFile:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"model {path} is not a file", hint="name a GGUF file in models/catalog.toml")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(
                    f"model {path} is not a GGUF file", hint="llama.cpp reads GGUF only; download it again"
                )
            with mmap.mmap(file.fileno(), min(size, _LONGEST_HEADER), access=mmap.ACCESS_READ) as data:
                found = _Header(data, path).parse(size)
    except FileNotFoundError:
        raise ModelMissing(f"there is no model file {path}", hint="put it there") from None
    except OSError as error:
        raise ModelError(f"model {path} cannot be read: {error.strerror}", hint="check its permissions") from None
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError, RecursionError):
        raise _cut_off(path, f"{_most(size)} end inside the header") from None
    needed = max((tensor.start + tensor.size for tensor in found.tensors.values()), default=0)
    if needed > size:
        raise _cut_off(path, f"it has {size:,} bytes, its header describes {needed:,}")
    return found


def _most(size: int) -> str:
    return f"its {size:,} bytes" if size <= _LONGEST_HEADER else f"the first {_LONGEST_HEADER:,} bytes"


def _cut_off(path: Path, why: str) -> ModelError:
    return ModelError(f"model {path} is cut off or damaged: {why}", hint="download or copy it again")


class _Header:
    """Walks through the header, byte by byte."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 4

    def parse(self, size: int) -> GgufFile:
        version = self._number("<I")
        if version not in (2, 3):
            raise ModelError(
                f"model {self._path} is GGUF version {version}; 2 and 3 can be read", hint="convert it with llama.cpp"
            )
        tensors, entries = self._number("<Q"), self._number("<Q")
        if tensors > _MOST_ENTRIES or entries > _MOST_ENTRIES:
            raise ModelError(
                f"model {self._path} is damaged: its header counts {tensors} tensors and {entries} entries",
                hint="download or copy it again",
            )
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(entries):
            key = self._string().decode()
            kind = self._number("<I")
            if kind == _ARRAY:
                lengths[key], value = self._array()
            else:
                value = self._value(kind)
            if value is not None:
                metadata[key] = value
        found = [self._tensor() for _ in range(tensors)]
        given = metadata.get("general.alignment")
        align = given if isinstance(given, int) and given > 0 else 32
        start = -(-self._at // align) * align
        placed = {name: Tensor(shape=shape, kind=kind, start=start + offset) for name, shape, kind, offset in found}
        return GgufFile(path=self._path, bytes=size, metadata=metadata, lengths=lengths, tensors=placed)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string().decode()
        dimensions = self._number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise ModelError(
                f"model {self._path} is damaged: a tensor with {dimensions} dimensions",
                hint="download or copy it again",
            )
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        return name, shape, self._number("<I"), self._number("<Q")

    def _value(self, kind: int) -> Any:
        """A scalar or a text of ordinary length; None for anything longer, which is stepped over."""
        if kind == _STRING:
            text = self._string()
            return text.decode("utf-8", "replace") if len(text) <= _LONGEST_KEPT else None
        if kind == _ARRAY:
            return self._array()[1]
        return self._number(_SCALARS[kind]) if kind in _SCALARS else self._unknown(kind)

    def _array(self) -> tuple[int, list[Any] | None]:
        """How many entries it has, and a short array of numbers itself."""
        inner, count = self._number("<I"), self._number("<Q")
        if inner in _SCALARS:
            if count <= _LONGEST_ARRAY:
                return count, [self._number(_SCALARS[inner]) for _ in range(count)]
            self._at += struct.calcsize(_SCALARS[inner]) * count
            return count, None
        for _ in range(count):
            if inner == _STRING:
                self._step_over()
            else:
                self._value(inner)
        return count, None

    def _unknown(self, kind: int) -> Any:
        raise ModelError(
            f"model {self._path} is damaged: unknown kind of entry {kind} in its header",
            hint="download or copy it again",
        )

    def _string(self) -> bytes:
        start = self._at + 8
        self._step_over()
        return self._data[start : self._at]

    def _step_over(self) -> None:
        (length,) = struct.unpack_from("<Q", self._data, self._at)
        self._at += 8 + length
        if self._at > len(self._data):
            raise IndexError(self._at)

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return number
