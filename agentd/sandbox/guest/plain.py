"""The result of a call as plain JSON: bounded in depth and size while it is made."""

from __future__ import annotations

import base64
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import json
import math
import types
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from .files import Path

MAX_DEPTH = 64
MAX_BITS = 14_000
"""Of an int: Python itself prints no more."""


class TooLarge(Exception):
    """The result has more bytes than it may."""


def to_json(value: Any, max_bytes: int) -> tuple[Any, int]:
    """The value as dicts, lists, texts, numbers, booleans and None, and its length as JSON.

    Raises TooLarge, and TypeError or ValueError for what JSON cannot hold.
    """
    plain = _Conversion(max_bytes).convert(value, 0)
    size = len(json.dumps(plain))
    if size > max_bytes:
        raise TooLarge(f"the result has {size} bytes as JSON, of {max_bytes} that it may have")
    return plain, size


class _Conversion:
    def __init__(self, max_bytes: int) -> None:
        self._room = self._max = max_bytes

    def convert(self, value: Any, depth: int) -> Any:
        self._take(1)
        if value is None or value is True or value is False:
            return value
        if isinstance(value, enum.Enum):
            return self.convert(value.value, depth)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            return _whole(value)
        if isinstance(value, float):
            return _number(value)
        if depth >= MAX_DEPTH:
            raise ValueError(f"the result is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {self._key(key): self.convert(item, depth + 1) for key, item in dict.items(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {
                field.name: self.convert(getattr(value, field.name), depth + 1) for field in dataclasses.fields(value)
            }
        if isinstance(value, (decimal.Decimal, fractions.Fraction)):
            return _number(float(value)) if not float(value).is_integer() else int(value)
        for kinds, words in _AS_TEXT:
            if isinstance(value, kinds):
                return self._text(words(value))
        return [self.convert(item, depth + 1) for item in _items(value)]

    def _key(self, key: Any) -> str:
        plain = self.convert(key, MAX_DEPTH - 1)
        if isinstance(plain, str):
            return plain
        if plain is None or isinstance(plain, (bool, int, float)):
            return json.dumps(plain)
        raise TypeError(f"the result has a {type(key).__name__} as a key; JSON has texts alone: convert it with str()")

    def _text(self, value: str) -> str:
        self._take(str.__len__(value))
        return str.__str__(value).encode("utf-8", "replace").decode("utf-8")

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise TooLarge(f"the result has more than the {self._max} bytes that it may have")


def _whole(value: int) -> int:
    if int.bit_length(value) > MAX_BITS:
        raise ValueError(f"the result holds an int of {int.bit_length(value)} bits; {MAX_BITS} is the most")
    return int.__index__(value)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(
            f"the result holds {float.__repr__(value)}, which JSON cannot hold: return None or a text for it"
        )
    return float.__float__(value)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return sorted(value, key=repr)
    if isinstance(value, _LISTS):
        return iter(value)  # type: ignore[call-overload, no-any-return]
    raise TypeError(
        f"the result holds a {type(value).__name__}, which JSON cannot hold: return dicts, lists, texts and numbers"
    )


def _text_of(data: Any) -> str:
    """Text where it is one, base64 otherwise."""
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()


_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_LISTS = (
    list,
    tuple,
    range,
    collections.deque,
    collections.UserList,
    types.GeneratorType,
    map,
    filter,
    zip,
    reversed,
    *_VIEWS,
)
_AS_TEXT: Final[tuple[tuple[tuple[type, ...], Callable[[Any], str]], ...]] = (
    ((datetime.datetime, datetime.date, datetime.time), lambda value: value.isoformat()),
    ((datetime.timedelta, uuid.UUID, Path), str),
    ((bytes, bytearray), _text_of),
)
