"""One plugin in memory: compiled, loaded, and called with JSON for JSON."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import facades, files, gate
from .guards import Opened, builtin_names, guard_names

MAX_DEPTH = 64
MAX_ERROR = 2_000
"""Characters."""


class Session:
    """`ask(name, arguments)` asks the host for a capability, and raises what it refuses."""

    def __init__(
        self,
        source: str,
        grants: Iterable[str],
        ask: Callable[[str, dict[str, Any]], Any],
        *,
        seed: int = 0,
        output_bytes: int = 1_000_000,
    ) -> None:
        self._ask = ask
        self._room = output_bytes
        self._printed: list[str] = []
        self._names: dict[str, Any] = {}
        self._broken = self._loaded(source, frozenset(grants), seed)

    def _loaded(self, source: str, grants: frozenset[str], seed: int) -> dict[str, Any] | None:
        """Run the top of the module; what to answer to every call when that fails."""
        report = gate.check(source.encode("utf-8", "surrogatepass"), grants)
        self._prefix = report.prefix
        if report.code is None:
            first = report.violations[0]
            return _failed(f"SyntaxError: line {first.line}: {first.message}")
        table = facades.facades(seed) | files.capabilities(grants, self._ask)
        opener = files.opener(self._ask) if "files" in grants else Opened(_no_files)
        names = builtin_names() | {"print": Opened(self._print), "open": opener}
        self._names |= guard_names() | {
            "__builtins__": names,
            "_import_": lambda module, name="": facades.imported(table, module, name),
        }
        try:
            exec(report.code, self._names)
        except BaseException as error:
            return _told(error)
        return None

    def call(self, entry: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """A result or an error, as JSON values; never raises."""
        self._printed.clear()
        if self._broken is not None:
            return self._broken
        function = self._names.get(entry)
        if entry.startswith("_") or not callable(function):
            return _failed(f"NameError: there is no function {entry!r:.100}")
        try:
            found = plain(function(**args))
            text = json.dumps(found, allow_nan=False)
        except BaseException as error:
            return _told(error) | {"printed": "".join(self._printed)}
        if len(text) > self._room:
            return _failed(f"the result has {len(text)} characters, {self._room} are allowed", "output")
        return {"ok": True, "result": found, "printed": "".join(self._printed)}

    def _print(self, *values: Any, sep: Any = " ", end: Any = "\n", file: Any = None, flush: bool = False) -> None:
        text = str(" " if sep is None else sep).join(map(str, values)) + str("\n" if end is None else end)
        if sum(map(len, self._printed)) + len(text) > self._room:
            raise _Full(f"more than {self._room} characters were printed")
        self._printed.append(text)


class _Full(BaseException):
    """Past every `except Exception` of a plugin."""


def _no_files(*_: Any, **__: Any) -> Any:
    raise PermissionError("this plugin has no permission to open files")


def _told(error: BaseException) -> dict[str, Any]:
    limit = "output" if isinstance(error, _Full) else "memory" if isinstance(error, MemoryError) else None
    try:
        said = str(error)
    except BaseException:
        said = ""
    name = type(error).__name__
    return _failed(f"{name}: {said}" if said else name, limit)


def _failed(message: str, limit: str | None = None) -> dict[str, Any]:
    told = message[:MAX_ERROR].encode("utf-8", "backslashreplace").decode()
    return {"ok": False, "error": told, "limit": limit, "printed": ""}


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON has it. Raises `TypeError` for what has no such form."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the result is nested more than {MAX_DEPTH} deep")
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if issubclass(kind, enum.Enum):
        return plain(value.value, depth + 1)
    if issubclass(kind, str):
        return str.__str__(value).encode("utf-8", "backslashreplace").decode()
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float):
        return _number(float.__float__(value))
    if issubclass(kind, dict):
        return {_key(key): plain(each, depth + 1) for key, each in dict.items(value)}
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return {str(key): plain(each, depth + 1) for key, each in zip(kind._fields, value, strict=True)}
    if issubclass(kind, list | tuple):
        return [plain(each, depth + 1) for each in value]
    if issubclass(kind, set | frozenset):
        return sorted((plain(each, depth + 1) for each in value), key=repr)
    return _other(value, kind, depth)


def _other(value: Any, kind: type, depth: int) -> Any:
    if issubclass(kind, decimal.Decimal | fractions.Fraction):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 2**53 else _number(number)
    if issubclass(kind, datetime.date | datetime.time | datetime.datetime):
        return str(value.isoformat())
    if issubclass(kind, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    if issubclass(kind, uuid.UUID | datetime.timedelta):
        return str(value)
    if dataclasses.is_dataclass(kind):
        return {field.name: plain(getattr(value, field.name), depth + 1) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__next__") or kind in (type({}.keys()), type({}.values()), type({}.items()), range):
        return [plain(each, depth + 1) for each in value]
    if kind.__name__ == "deque":
        return [plain(each, depth + 1) for each in value]
    raise TypeError(f"the result contains a {kind.__name__}, which is no JSON value")


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _key(key: Any) -> str:
    found = plain(key)
    if isinstance(found, str):
        return found
    if found is None or isinstance(found, bool | int | float):
        return json.dumps(found)
    raise TypeError(f"a {type(key).__name__} cannot be a key of a JSON object")
