"""The modules that a plugin may import, as tables of names; what leads out of the sandbox stands in none of them."""

from __future__ import annotations

import abc
import base64
import binascii
import bisect
import calendar
import cmath
import collections
import colorsys
import configparser
import contextlib
import copy
import csv
import dataclasses
import datetime
import decimal
import difflib
import enum
import fnmatch
import fractions
import functools
import hashlib
import heapq
import html
import html.parser
import io
import itertools
import json
import math
import numbers
import operator
import posixpath
import pprint
import random
import re
import shlex
import statistics
import string
import struct
import textwrap
import time
import tomllib
import typing
import unicodedata
import urllib.parse
import uuid
import zlib
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any
from xml.etree import ElementTree

from .guards import Facade, Opened

MAX_UNPACKED = 50_000_000
"""Bytes that `zlib.decompress` gives at most."""
MAX_PATTERN = 2_000
"""Characters of a regular expression."""

_WHOLE = {
    "math": math,
    "cmath": cmath,
    "itertools": itertools,
    "bisect": bisect,
    "heapq": heapq,
    "unicodedata": unicodedata,
    "colorsys": colorsys,
    "statistics": statistics,
    "fractions": fractions,
    "difflib": difflib,
    "html": html,
    "base64": base64,
    "binascii": binascii,
    "calendar": calendar,
    "textwrap": textwrap,
    "numbers": numbers,
    "tomllib": tomllib,
    "struct": struct,
    "shlex": shlex,
}
"""Modules whose own list of public names is taken, less what `_LEFT_OUT` names."""
_LEFT_OUT = {"base64": {"main", "test"}, "difflib": {"doctest"}, "calendar": {"main", "EPOCH"}, "heapq": {"main"}}

_SOME: dict[str, tuple[ModuleType, str]] = {
    "json": (json, "dumps loads JSONDecodeError"),
    "csv": (
        csv,
        "reader writer DictReader DictWriter Sniffer Error excel excel_tab unix_dialect "
        "QUOTE_ALL QUOTE_MINIMAL QUOTE_NONE QUOTE_NONNUMERIC",
    ),
    "datetime": (datetime, "date datetime time timedelta timezone tzinfo MINYEAR MAXYEAR UTC"),
    "collections": (
        collections,
        "ChainMap Counter OrderedDict defaultdict deque namedtuple UserDict UserList UserString",
    ),
    "functools": (
        functools,
        "cache cached_property cmp_to_key lru_cache partial reduce total_ordering wraps",
    ),
    "string": (
        string,
        "ascii_letters ascii_lowercase ascii_uppercase capwords digits hexdigits octdigits printable punctuation whitespace "
        "Template",
    ),
    "decimal": (
        decimal,
        "Decimal Context getcontext localcontext InvalidOperation DivisionByZero DecimalException Inexact Overflow "
        "ROUND_CEILING ROUND_DOWN ROUND_FLOOR ROUND_HALF_DOWN ROUND_HALF_EVEN ROUND_HALF_UP ROUND_UP ROUND_05UP",
    ),
    "operator": (
        operator,
        "abs add and_ concat contains countOf eq floordiv ge getitem gt iadd index indexOf inv invert isub is_ is_not "
        "itemgetter le lshift lt mod mul ne neg not_ or_ pos pow rshift setitem sub truediv truth xor",
    ),
    "io": (io, "StringIO BytesIO"),
    "enum": (enum, "Enum IntEnum StrEnum Flag IntFlag auto unique"),
    "dataclasses": (dataclasses, "dataclass field asdict astuple replace fields is_dataclass FrozenInstanceError"),
    "abc": (abc, "ABC abstractmethod"),
    "copy": (copy, "copy deepcopy"),
    "contextlib": (contextlib, "contextmanager suppress closing nullcontext ExitStack"),
    "configparser": (
        configparser,
        "ConfigParser RawConfigParser Error NoSectionError NoOptionError DuplicateSectionError DuplicateOptionError "
        "ParsingError MissingSectionHeaderError",
    ),
    "fnmatch": (fnmatch, "fnmatch fnmatchcase filter translate"),
    "pprint": (pprint, "pformat"),
    "uuid": (uuid, "UUID uuid3 uuid5 NAMESPACE_DNS NAMESPACE_OID NAMESPACE_URL NAMESPACE_X500"),
    "time": (time, "time monotonic perf_counter sleep strftime strptime gmtime localtime struct_time"),
    "urllib.parse": (
        urllib.parse,
        "urlparse urlsplit urlunparse urlunsplit urljoin quote quote_plus unquote unquote_plus urlencode parse_qs parse_qsl "
        "urldefrag",
    ),
    "html.parser": (html.parser, "HTMLParser"),
    "os.path": (posixpath, "basename dirname join split splitext normpath isabs commonprefix"),
    "hashlib": (
        hashlib,
        "md5 sha1 sha224 sha256 sha384 sha512 blake2b blake2s sha3_224 sha3_256 sha3_384 sha3_512 shake_128 shake_256",
    ),
    "collections.abc": (
        collections.abc,
        "Callable Collection Container Hashable Iterable Iterator Generator Mapping MutableMapping MutableSequence "
        "MutableSet Sequence Set Sized",
    ),
}
_TYPING = [
    "Any",
    "Callable",
    "ClassVar",
    "Dict",
    "Final",
    "FrozenSet",
    "Generator",
    "Generic",
    "Iterable",
    "Iterator",
    "List",
    "Literal",
    "Mapping",
    "NamedTuple",
    "NewType",
    "NoReturn",
    "Optional",
    "Protocol",
    "Sequence",
    "Set",
    "Tuple",
    "Type",
    "TypeVar",
    "TypedDict",
    "Union",
    "cast",
]


def names() -> frozenset[str]:
    """Every module that can be imported without a grant."""
    return frozenset({*_WHOLE, *_SOME, "re", "zlib", "random", "typing", "xml", "urllib", "os", *_XML, "__future__"})


_XML = ("xml.etree", "xml.etree.ElementTree")


def facades(seed: int) -> dict[str, Facade]:
    """Each of these modules, made for one session."""
    found = {name: _facade(name, module, _public(name, module)) for name, module in _WHOLE.items()}
    found |= {name: _facade(name, module, listed.split()) for name, (module, listed) in _SOME.items()}
    found["json"] = Facade("json", _table(json, ["dumps", "loads", "JSONDecodeError"]) | _files_of(json))
    found["re"] = _re()
    found["zlib"] = Facade(
        "zlib", _table(zlib, ["compress", "crc32", "adler32", "error"]) | {"decompress": Opened(_unpack)}
    )
    found["random"] = _random(seed)
    found["typing"] = Facade("typing", {name: getattr(typing, name) for name in _TYPING})
    found |= _xml()
    found["html"] = Facade("html", _table(html, ["escape", "unescape"]) | {"parser": found["html.parser"]})
    found["urllib"] = Facade("urllib", {"parse": found["urllib.parse"]})
    found["os"] = Facade("os", {"path": found["os.path"], "linesep": "\n", "sep": "/"})
    collected = dict(_INNER(found["collections"], "_table")) | {"abc": found["collections.abc"]}
    found["collections"] = Facade("collections", collected)
    return found


_INNER = object.__getattribute__


def _public(name: str, module: ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None) or [each for each in vars(module) if not each.startswith("_")]
    return [each for each in listed if each not in _LEFT_OUT.get(name, ()) and not each.startswith("_")]


def _facade(title: str, module: ModuleType, listed: Iterable[str]) -> Facade:
    return Facade(title, _table(module, listed))


def _table(module: ModuleType, listed: Iterable[str]) -> dict[str, Any]:
    found = {name: getattr(module, name) for name in listed if hasattr(module, name)}
    return {name: _opened(value) for name, value in found.items() if not isinstance(value, ModuleType)}


def _opened(value: Any) -> Any:
    """Functions written in Python show the module that they come from, so they are wrapped."""
    return Opened(value) if isinstance(value, FunctionType) or hasattr(value, "__wrapped__") else value


def _files_of(module: Any) -> dict[str, Any]:
    """`json.load` and `json.dump` of a file that the plugin has opened."""
    return {
        "load": Opened(lambda file, **named: module.loads(_text_of(file), **named)),
        "dump": Opened(lambda value, file, **named: _put_into(file, module.dumps(value, **named))),
    }


def _text_of(file: Any) -> Any:
    return file.read()


def _put_into(file: Any, text: str) -> None:
    file.write(text)


def _unpack(data: Any, wbits: int = zlib.MAX_WBITS, bufsize: int = 0) -> bytes:
    engine = zlib.decompressobj(wbits)
    found = engine.decompress(data, MAX_UNPACKED)
    if engine.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED} bytes")
    if not engine.eof:
        raise zlib.error("incomplete or truncated stream")
    return found


def _re() -> Facade:
    def bounded(function: Callable[..., Any]) -> Opened:
        def call(pattern: Any, *args: Any, **named: Any) -> Any:
            if isinstance(pattern, str | bytes) and len(pattern) > MAX_PATTERN:
                raise ValueError(f"a pattern may have {MAX_PATTERN} characters")
            return function(pattern, *args, **named)

        return Opened(call)

    functions = ["compile", "search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn"]
    flags = ["A", "ASCII", "I", "IGNORECASE", "M", "MULTILINE", "S", "DOTALL", "X", "VERBOSE", "U", "UNICODE"]
    table = {name: bounded(getattr(re, name)) for name in functions} | {name: getattr(re, name) for name in flags}
    return Facade(
        "re", table | {"escape": Opened(re.escape), "error": re.error, "Pattern": re.Pattern, "Match": re.Match}
    )


def _random(seed: int) -> Facade:
    """Always the same numbers for the same seed, so that a trial can be repeated."""
    source = random.Random(seed)
    listed = (
        "random randint randrange choice choices shuffle sample uniform gauss normalvariate expovariate betavariate "
        "triangular getrandbits randbytes seed"
    )
    table: dict[str, Any] = {name: Opened(getattr(source, name)) for name in listed.split()}
    return Facade("random", table | {"Random": Opened(lambda x=seed: random.Random(x))})


def _xml() -> dict[str, Facade]:
    def parsed(text: Any) -> Any:
        head = text if isinstance(text, str) else bytes(text).decode("latin-1")
        if "<!DOCTYPE" in head or "<!ENTITY" in head:
            raise ValueError("XML with a document type or entities is not read")
        return ElementTree.fromstring(text)

    listed = ["Element", "SubElement", "Comment", "ParseError", "tostring", "indent", "QName"]
    table = _table(ElementTree, listed) | {"fromstring": Opened(parsed), "XML": Opened(parsed)}
    tree = Facade("xml.etree.ElementTree", table)
    inner = Facade("xml.etree", {"ElementTree": tree})
    return {"xml.etree.ElementTree": tree, "xml.etree": inner, "xml": Facade("xml", {"etree": inner})}


def imported(table: Mapping[str, Facade], module: str, name: str = "") -> Any:
    """What an import statement binds. Raises `ImportError` naming what there is."""
    found = table.get(module)
    if found is None:
        raise ImportError(f"there is no module {module!r:.100} here; there are {', '.join(sorted(table))}")
    if not name:
        return found
    inner = _INNER(found, "_table")
    if name not in inner:
        raise ImportError(f"{module} offers no {name!r:.100} here; there are {', '.join(sorted(inner))}")
    return inner[name]
