"""`open`, `pathlib.Path`, `os.path` and the façade `files`: files that the host reads and writes on request."""

from __future__ import annotations

import base64
import io
import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from .outside import CURRENT, request


def read_text(path: Any, encoding: str | None = None, errors: str | None = None) -> str:
    if errors is None:
        return str(request("files.read_text", path=_name(path), encoding=str(encoding or "utf-8")))
    return read_bytes(path).decode(encoding or "utf-8", errors)


def read_bytes(path: Any) -> bytes:
    return base64.b64decode(request("files.read_bytes", path=_name(path)))


def write_text(path: Any, text: str, encoding: str | None = None, append: bool = False) -> int:
    if not isinstance(text, str):
        raise TypeError(f"a text is written, not a {type(text).__name__}")
    plain = str.__str__(text)
    words = {"path": _name(path), "text": plain, "encoding": str(encoding or "utf-8"), "append": bool(append)}
    request("files.write_text", **words)
    return len(plain)


def write_bytes(path: Any, data: bytes, append: bool = False) -> int:
    plain = bytes(memoryview(data))
    request("files.write_bytes", path=_name(path), data=base64.b64encode(plain).decode(), append=bool(append))
    return len(plain)


def exists(path: Any) -> bool:
    return bool(request("files.exists", path=_name(path)))


def list_names(path: Any = ".") -> list[str]:
    return [str(name) for name in request("files.list", path=_name(path))]


def _name(path: Any) -> str:
    if isinstance(path, Path):
        return path.text
    if isinstance(path, str):
        return str.__str__(path)
    raise TypeError(f"a path is a str or a Path, not a {type(path).__name__}")


class _File:
    """What text and binary files have in common: in memory while they are open, sent to the host when they close."""

    def _prepare(self, path: str, mode: str, encoding: str = "") -> None:
        self.name, self.mode, self._encoding = path, mode, encoding
        CURRENT.get().keep(self)  # type: ignore[arg-type]

    def readable(self) -> bool:
        return self.mode[0] == "r" or "+" in self.mode

    def writable(self) -> bool:
        return self.mode[0] != "r" or "+" in self.mode

    def discard(self) -> None:
        """Close it and write nothing."""
        super().close()  # type: ignore[misc]

    def _must(self, allowed: bool, word: str) -> None:
        if not allowed:
            raise io.UnsupportedOperation(f"not {word}: {self.name!r} is open with mode {self.mode!r}")


class TextFile(_File, io.StringIO):
    def __init__(self, path: str, mode: str, encoding: str, newline: str | None, text: str = "") -> None:
        super().__init__(text, newline if mode[0] == "r" else "")
        self._prepare(path, mode, encoding)

    def read(self, size: int | None = -1, /) -> str:
        self._must(self.readable(), "readable")
        return super().read(size)

    def write(self, text: str, /) -> int:
        self._must(self.writable(), "writable")
        return super().write(text)

    def close(self) -> None:
        if not self.closed:
            text = self.getvalue()
            super().close()
            if self.writable():
                write_text(self.name, text, self._encoding, append=self.mode[0] == "a")


class BytesFile(_File, io.BytesIO):
    def __init__(self, path: str, mode: str, data: bytes = b"") -> None:
        super().__init__(data)
        self._prepare(path, mode)

    def read(self, size: int | None = -1, /) -> bytes:
        self._must(self.readable(), "readable")
        return super().read(size)

    def write(self, data: Any, /) -> int:
        self._must(self.writable(), "writable")
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            if self.writable():
                write_bytes(self.name, data, append=self.mode[0] == "a")


def open_file(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> TextFile | BytesFile:
    """`open` of a plugin. A file is read when it is opened, and sent whole when it is closed."""
    path, binary = _name(file), "b" in mode
    kind = mode.replace("b", "").replace("t", "")
    if kind not in ("r", "w", "a", "x", "r+", "w+"):
        raise ValueError(f"a file is opened with 'r', 'w', 'a', 'x', 'r+' or 'w+', not {mode!r}")
    if kind == "x" and exists(path):
        raise FileExistsError(f"{path!r} exists")
    if binary:
        return BytesFile(path, kind, read_bytes(path) if kind[0] == "r" else b"")
    if encoding is not None and kind[0] != "r":
        "".encode(encoding)  # an encoding that does not exist is told here, as by Python
    text = read_text(path, encoding, errors) if kind[0] == "r" else ""
    return TextFile(path, kind, encoding or "utf-8", newline, text)


class Path:
    """A small `pathlib.Path`: pure paths, and the files that the plugin was granted."""

    text: str
    __slots__ = ("text",)

    def __init__(self, *parts: Any) -> None:
        object.__setattr__(self, "text", posixpath.normpath(posixpath.join(*map(_name, parts))) if parts else ".")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a path has no {name!r} to be set")

    def __copy__(self) -> Path:
        return self

    def __deepcopy__(self, memo: Any) -> Path:
        return self

    def __truediv__(self, other: Any) -> Path:
        return Path(self, other)

    def __rtruediv__(self, other: Any) -> Path:
        return Path(other, self)

    def joinpath(self, *others: Any) -> Path:
        return Path(self, *others)

    def __str__(self) -> str:
        return self.text

    as_posix = __str__
    __fspath__ = __str__

    def __repr__(self) -> str:
        return f"PosixPath({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and self.text == other.text

    def __lt__(self, other: Path) -> bool:
        return self.text < other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def parts(self) -> tuple[str, ...]:
        root = ("/",) if self.is_absolute() else ()
        return (*root, *(part for part in self.text.split("/") if part and part != "."))

    @property
    def name(self) -> str:
        name = posixpath.basename(self.text)
        return "" if name == "." else name

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def suffixes(self) -> list[str]:
        return [f".{part}" for part in self.name.lstrip(".").split(".")[1:]]

    @property
    def parent(self) -> Path:
        return Path(posixpath.dirname(self.text) or ".")

    @property
    def parents(self) -> list[Path]:
        found, path = [], self
        while path.parent != path:
            path = path.parent
            found.append(path)
        return found

    def is_absolute(self) -> bool:
        return self.text.startswith("/")

    def with_name(self, name: str) -> Path:
        if not self.name:
            raise ValueError(f"{self!r} has an empty name")
        return self.parent / name

    def with_suffix(self, suffix: str) -> Path:
        return self.with_name(self.stem + suffix)

    def with_stem(self, stem: str) -> Path:
        return self.with_name(stem + self.suffix)

    def relative_to(self, other: Any) -> Path:
        base = Path(other)
        if base.text != "." and self.parts[: len(base.parts)] != base.parts:
            raise ValueError(f"{self.text!r} is not in the subpath of {base.text!r}")
        return Path(*self.parts[len(base.parts) :])

    def is_relative_to(self, other: Any) -> bool:
        return self.parts[: len(Path(other).parts)] == Path(other).parts

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with open_file(self, "r", encoding=encoding, errors=errors) as file:
            return str(file.read())

    def read_bytes(self) -> bytes:
        return read_bytes(self)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        return write_text(self, data, encoding)

    def write_bytes(self, data: bytes) -> int:
        return write_bytes(self, data)

    def open(self, mode: str = "r", **options: Any) -> TextFile | BytesFile:
        return open_file(self, mode, **options)

    def exists(self) -> bool:
        return exists(self)

    is_file = exists

    def match(self, pattern: str) -> bool:
        return PurePosixPath(str(self)).match(str(pattern))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder comes with the first file that is written into it."""

    def iterdir(self) -> Iterator[Path]:
        return iter([self / name for name in list_names(self)])
