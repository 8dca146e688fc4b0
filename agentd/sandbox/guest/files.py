"""Files as a plugin sees them: each read and write is a request that the daemon answers."""

from __future__ import annotations

import base64
import io
import posixpath
from collections.abc import Callable
from typing import Any

from .guards import Facade, Opened

Ask = Callable[[str, "dict[str, Any]"], Any]


def capabilities(grants: frozenset[str], ask: Ask) -> dict[str, Facade]:
    """The façades `files`, `http` and `plugin`, as far as they are granted, and `pathlib` on top of the first."""
    found: dict[str, Facade] = {}
    if "files" in grants:
        found["files"] = _files(ask)
        found["pathlib"] = Facade("pathlib", {"Path": _path_class(ask), "PurePath": _path_class(ask)})
    if "http" in grants:
        found["http"] = Facade("http", {"get": Opened(lambda url, headers=None: ask("http.get", _page(url, headers)))})
    return found


def _page(url: Any, headers: Any) -> dict[str, Any]:
    return {"url": str(url), "headers": dict(headers or {})}


def _files(ask: Ask) -> Facade:
    def read_text(path: Any, encoding: str = "utf-8") -> Any:
        return ask("files.read_text", {"path": str(path), "encoding": encoding})

    def write_text(path: Any, text: str, encoding: str = "utf-8", append: bool = False) -> Any:
        return ask("files.write_text", {"path": str(path), "text": text, "encoding": encoding, "append": append})

    def read_bytes(path: Any) -> bytes:
        return base64.b64decode(ask("files.read_bytes", {"path": str(path)}))

    def write_bytes(path: Any, data: bytes, append: bool = False) -> Any:
        coded = base64.b64encode(data).decode()
        return ask("files.write_bytes", {"path": str(path), "data": coded, "append": append})

    def exists(path: Any) -> Any:
        return ask("files.exists", {"path": str(path)})

    def listed(path: Any = ".") -> Any:
        return ask("files.list", {"path": str(path)})

    functions = {"read_text": read_text, "write_text": write_text, "read_bytes": read_bytes, "write_bytes": write_bytes}
    table = {name: Opened(function) for name, function in functions.items()}
    return Facade("files", table | {"exists": Opened(exists), "list": Opened(listed), "open": opener(ask)})


def opener(ask: Ask) -> Opened:
    """`open(path, mode)`: read whole at once, written whole when it is closed."""

    def opened(path: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, **named: Any) -> Any:
        kind = mode.replace("t", "").replace("b", "")
        if kind not in ("r", "w", "a", "x"):
            raise ValueError(f"mode {mode!r} is not offered; there are r, w, a, x, with b for bytes")
        if kind == "x" and ask("files.exists", {"path": str(path)}):
            raise FileExistsError(f"{path} exists")
        if "b" in mode:
            return _Bytes(ask, str(path), kind)
        return _Text(ask, str(path), kind, encoding or "utf-8", named.get("newline"))

    return Opened(opened)


class _Text(io.StringIO):
    def __init__(self, ask: Ask, path: str, kind: str, encoding: str, newline: str | None) -> None:
        asked = {"path": path, "encoding": encoding}
        super().__init__(ask("files.read_text", asked) if kind == "r" else "", newline="" if newline == "" else None)
        self._end = (
            None if kind == "r" else lambda text: ask("files.write_text", asked | {"text": text, "append": kind == "a"})
        )
        self._path = path

    @property
    def name(self) -> str:
        return self._path

    def write(self, text: str) -> int:
        if self._end is None:
            raise OSError("not open for writing")
        return super().write(text)

    def close(self) -> None:
        if not self.closed:
            end, text = self._end, self.getvalue()
            super().close()
            if end is not None:
                end(text)

    def __exit__(self, *_: object) -> None:
        self.close()


class _Bytes(io.BytesIO):
    def __init__(self, ask: Ask, path: str, kind: str) -> None:
        super().__init__(base64.b64decode(ask("files.read_bytes", {"path": path})) if kind == "r" else b"")
        self._end = (
            None
            if kind == "r"
            else lambda data: ask(
                "files.write_bytes",
                {"path": path, "data": base64.b64encode(data).decode(), "append": kind == "a"},
            )
        )

    def close(self) -> None:
        if not self.closed:
            end, data = self._end, self.getvalue()
            super().close()
            if end is not None:
                end(data)

    def __exit__(self, *_: object) -> None:
        self.close()


def _path_class(ask: Ask) -> type:
    files: Any = object.__getattribute__(_files(ask), "_table")

    class Path:
        """A path of the workspace, with what of `pathlib.Path` needs no more than `files`."""

        def __init__(self, *parts: Any) -> None:
            self._text = posixpath.normpath(posixpath.join(*(str(part) for part in parts))) if parts else "."

        def __str__(self) -> str:
            return self._text

        def __repr__(self) -> str:
            return f"Path({self._text!r})"

        def __eq__(self, other: object) -> bool:
            return type(other) is Path and str(other) == self._text

        def __hash__(self) -> int:
            return hash(self._text)

        def __truediv__(self, other: Any) -> Path:
            return Path(self._text, other)

        name = property(lambda self: posixpath.basename(self._text))
        stem = property(lambda self: posixpath.splitext(self.name)[0])
        suffix = property(lambda self: posixpath.splitext(self._text)[1])
        parent = property(lambda self: Path(posixpath.dirname(self._text) or "."))
        parts = property(lambda self: tuple(self._text.split("/")))

        def with_suffix(self, suffix: str) -> Path:
            return Path(posixpath.splitext(self._text)[0] + suffix)

        def with_name(self, name: str) -> Path:
            return self.parent / name  # type: ignore[no-any-return]

        def exists(self) -> Any:
            return files["exists"](self)

        is_file = exists

        def open(self, mode: str = "r", **named: Any) -> Any:
            return files["open"](self, mode, **named)

        def read_text(self, encoding: str = "utf-8") -> Any:
            return files["read_text"](self, encoding)

        def write_text(self, data: str, encoding: str = "utf-8") -> Any:
            return files["write_text"](self, data, encoding)

        def read_bytes(self) -> Any:
            return files["read_bytes"](self)

        def write_bytes(self, data: bytes) -> Any:
            return files["write_bytes"](self, data)

        def iterdir(self) -> Any:
            return iter([self / name for name in files["list"](self)])

    return Path
