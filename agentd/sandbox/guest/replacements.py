"""Parts of the standard library that cannot be given as they are, in a form that can."""

from __future__ import annotations

import array
import ast
import collections
import configparser
import contextlib
import csv
import dataclasses
import decimal
import enum
import functools
import itertools
import posixpath
import pprint
import random
import re
import shlex
import textwrap
import typing
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any, Final

from . import files
from .guards import (
    BASES,
    CHANGEABLE,
    HIDING,
    NAME,
    Function,
    Method,
    get_attribute,
    is_own,
    named_attribute,
    of_plugin,
    set_attribute,
)
from .outside import CURRENT, request
from .patience import limited
from .policy import UNGUARDED

MAX_PATTERN = 2_000
MAX_UNPACKED = 64_000_000
MAX_LITERAL = 100_000

_HINTS = """
Any Optional Union Literal Final ClassVar Annotated Concatenate Self NoReturn Never LiteralString
Required NotRequired TypeAlias TypeGuard AnyStr SupportsInt SupportsFloat SupportsIndex Unpack
ReadOnly
"""
_ABSTRACT = """
Callable Collection Container Generator Hashable ItemsView Iterable Iterator KeysView Mapping
MappingView MutableMapping MutableSequence MutableSet Reversible Sequence Sized ValuesView
"""
_CONFIG = """
Error NoSectionError DuplicateSectionError DuplicateOptionError NoOptionError InterpolationError
ParsingError MissingSectionHeaderError BasicInterpolation ExtendedInterpolation
"""
_DRAWN = """
betavariate choice choices expovariate gammavariate gauss getrandbits lognormvariate normalvariate
paretovariate randbytes randint random randrange sample seed shuffle triangular uniform
vonmisesvariate weibullvariate
"""
_PATTERNS = "search match fullmatch split findall finditer sub subn"
_LOGGED = "debug info warning error exception critical"
_ELEMENTS = "Element SubElement Comment QName ParseError tostring"


# re: a pattern that repeats a repetition takes exponential time; what slips through meets a clock (`patience`).


def _pattern(pattern: Any, flags: int = 0) -> re.Pattern[Any]:
    if isinstance(pattern, re.Pattern):
        return pattern
    if len(pattern) > MAX_PATTERN:
        raise re.error(f"a pattern has at most {MAX_PATTERN} characters")
    return _compiled(pattern, int(flags))


@functools.lru_cache(maxsize=256)
def _compiled(pattern: Any, flags: int) -> re.Pattern[Any]:
    compiled = re.compile(pattern, flags)
    if _explodes(re._parser.parse(pattern, flags)):  # type: ignore[attr-defined]
        raise re.error(f"the pattern {pattern!r} repeats a repetition: it would take exponential time")
    return compiled


def _explodes(parsed: Any) -> bool:
    for word, argument in parsed:
        if str(word) in ("MAX_REPEAT", "MIN_REPEAT") and _unbounded(argument) and _is_repeat(argument[2]):
            return True
        parts = argument if isinstance(argument, (tuple, list)) else [argument]
        inner = [part for part in parts if hasattr(part, "getwidth")]
        if str(word) == "BRANCH":
            inner = argument[1]
        if any(map(_explodes, inner)):
            return True
    return False


def _unbounded(argument: Any) -> bool:
    return int(argument[1]) > MAX_PATTERN


def _is_repeat(parsed: Any) -> bool:
    """Whether nothing but one unbounded repetition, perhaps in groups, stands here."""
    if len(parsed) != 1:
        return False
    word, argument = parsed[0]
    if str(word) == "SUBPATTERN":
        return _is_repeat(argument[-1])
    return str(word) in ("MAX_REPEAT", "MIN_REPEAT") and _unbounded(argument)


def _search(method: str) -> Callable[..., Any]:
    def search(pattern: Any, *args: Any, flags: int = 0, **options: Any) -> Any:
        position = 3 if method in ("sub", "subn") else 2 if method == "split" else 1
        if len(args) > position:
            args, flags = args[:position], args[position]
        compiled = _pattern(pattern, flags)
        return limited(compiled, getattr(compiled, method))(*args, **options)

    search.__name__ = method
    return search


# zlib, ast


def decompress(data: bytes, /, wbits: int = 15, bufsize: int = 0) -> bytes:
    import zlib  # not every Python has it

    unpacker = zlib.decompressobj(wbits)
    unpacked = unpacker.decompress(data, MAX_UNPACKED)
    if not unpacker.eof:
        raise zlib.error(f"the data is cut off, or has more than {MAX_UNPACKED} bytes when it is unpacked")
    return unpacked


def gunzip(data: bytes) -> bytes:
    return decompress(data, 31)


def gzip(data: bytes, compresslevel: int = 9) -> bytes:
    import zlib  # not every Python has it

    packer = zlib.compressobj(compresslevel, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def literal_eval(text: Any) -> Any:
    if not isinstance(text, str) or len(text) > MAX_LITERAL:
        raise ValueError(f"a literal is a str of at most {MAX_LITERAL} characters")
    return ast.literal_eval(text)


# csv: the dialect that is found is a class of its own.


class Sniffer(csv.Sniffer):
    def sniff(self, sample: str, delimiters: str | None = None) -> type[csv.Dialect]:
        found = super().sniff(sample, delimiters)
        found.__module__ = NAME
        return found


# functools, operator, contextlib: attributes are read through the guard, and none is set by a name that is told.


def wraps(wrapped: Any, *_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda wrapper: update_wrapper(wrapper, wrapped)


def update_wrapper(wrapper: Any, wrapped: Any, *_: Any, **__: Any) -> Any:
    if is_own(wrapper):
        for name in ("__name__", "__qualname__", "__doc__"):
            setattr(wrapper, name, get_attribute(wrapped, name, None) or getattr(wrapper, name))
    return wrapper


def total_ordering(kind: Any) -> Any:
    return functools.total_ordering(_made_here(kind))


def _made_here(kind: Any) -> Any:
    if isinstance(kind, type) and of_plugin(kind):
        return kind
    raise TypeError(f"{kind!r} is not a class of this plugin")


class cached_property:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function, self._name = function, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = self._function(instance)
        set_attribute(instance, self._name, value)
        return value


def attrgetter(*names: str) -> Any:
    def get(value: Any) -> Any:
        found = tuple(functools.reduce(named_attribute, name.split("."), value) for name in names)
        return found if len(found) > 1 else found[0]

    return get


def methodcaller(name: str, /, *args: Any, **options: Any) -> Any:
    return lambda value: named_attribute(value, name)(*args, **options)


def contextmanager(function: Any) -> Method:
    return Method(contextlib.contextmanager(function))


# dataclasses, enum, collections, typing, types: what makes classes.


def dataclass(kind: Any = None, /, **options: Any) -> Any:
    """A field named like a method that walks attributes would be read without a guard: where it is one is refused."""

    def decorate(kind: Any) -> Any:
        if issubclass(_made_here(kind), HIDING):
            raise TypeError(f"{kind.__name__} cannot be a dataclass: fields could hide its methods")
        made = dataclasses.dataclass(**options)(kind)
        names = getattr(made, "__match_args__", ())
        setattr(made, "__match_args__", tuple(itertools.takewhile(lambda name: name not in UNGUARDED, names)))  # noqa: B010
        return made

    return decorate if kind is None else decorate(kind)


class _EnumKind(enum.EnumMeta):
    """Enumerations are written as classes: `Enum("Name", {...})` would make a class with any special method."""

    def __call__(cls, value: Any) -> Any:  # type: ignore[override]
        return super().__call__(value)


class Enum(enum.Enum, metaclass=_EnumKind):
    pass


class IntEnum(enum.IntEnum, metaclass=_EnumKind):
    pass


class StrEnum(enum.StrEnum, metaclass=_EnumKind):
    pass


class Flag(enum.Flag, metaclass=_EnumKind):
    pass


class IntFlag(enum.IntFlag, metaclass=_EnumKind):
    pass


def unique(kind: Any) -> Any:
    return enum.unique(_made_here(kind))


def namedtuple(typename: str, field_names: Any, *, rename: bool = False, defaults: Any = None) -> Any:
    return collections.namedtuple(typename, field_names, rename=rename, defaults=defaults, module=NAME)


def typed_namedtuple(typename: str, fields: Any = (), /) -> Any:
    return namedtuple(typename, [name for name, _ in fields])


class TypedDict(dict[str, Any]):
    def __init_subclass__(cls, **options: Any) -> None:
        pass


class Generic:
    def __class_getitem__(cls, item: Any) -> Any:
        return cls


class Hint:
    """A word of `typing`: it can stand wherever one stands, and says nothing."""

    __slots__ = ()

    def __getitem__(self, item: Any) -> Hint:
        return self

    def __or__(self, other: Any) -> Hint:
        return self

    __ror__ = __or__


class SimpleNamespace:
    def __init__(self, **names: Any) -> None:
        for name, value in names.items():
            set_attribute(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimpleNamespace) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"namespace({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def _same(value: Any) -> Any:
    return value


_HINT = Hint()
_TYPING: dict[str, Any] = {
    **dict.fromkeys(
        _HINTS.split(),
        _HINT,
    ),
    "List": list,
    "Dict": dict,
    "Set": set,
    "FrozenSet": frozenset,
    "Tuple": tuple,
    "Type": _HINT,
    "Text": str,
    "Counter": collections.Counter,
    "Deque": collections.deque,
    "DefaultDict": collections.defaultdict,
    "OrderedDict": collections.OrderedDict,
    "ChainMap": collections.ChainMap,
    "Pattern": re.Pattern,
    "Match": re.Match,
    **{name: getattr(collections.abc, name) for name in _ABSTRACT.split()},
    "AbstractSet": collections.abc.Set,
    "IO": _HINT,
    "TextIO": _HINT,
    "BinaryIO": _HINT,
    "TYPE_CHECKING": False,
    **dict.fromkeys(["overload", "final", "runtime_checkable", "no_type_check", "override"], _same),
    "TypedDict": TypedDict,
    "Generic": Generic,
    "Protocol": Generic,
    "NamedTuple": typed_namedtuple,
    "TypeVar": lambda *_, **__: _HINT,
    "ParamSpec": lambda *_, **__: _HINT,
    "NewType": lambda name, kind: _same,
    "cast": lambda kind, value: value,
}
BASES[Function(typed_namedtuple)] = typing.NamedTuple


# configparser, xml, shlex: what reads files reads those of the plugin, and a document defines no entities.


class _Reads:
    def read(self, filenames: Any, encoding: str | None = None) -> list[str]:
        names = [filenames] if isinstance(filenames, (str, files.Path)) else list(filenames)
        found = []
        for name in names:
            try:
                text = files.read_text(name, encoding)
            except OSError:
                continue
            self.read_string(text, str(name))  # type: ignore[attr-defined]
            found.append(str(name))
        return found


class ConfigParser(_Reads, configparser.ConfigParser):  # type: ignore[misc]
    pass


class RawConfigParser(_Reads, configparser.RawConfigParser):  # type: ignore[misc]
    pass


def parse_xml(text: str | bytes) -> ET.Element:
    words = text if isinstance(text, str) else bytes(text).decode("utf-8-sig")
    if re.search(r"<!\s*(doctype|entity)", words, re.IGNORECASE):
        raise ET.ParseError("a document type is not available: take it out")
    return ET.fromstring(words)


class ElementTree:
    def __init__(self, element: Any = None, file: Any = None) -> None:
        self._root: Any = parse_file(file).getroot() if file is not None else element

    def getroot(self) -> Any:
        return self._root

    def find(self, path: str, namespaces: Any = None) -> Any:
        return self._root.find(path, namespaces)

    def findall(self, path: str, namespaces: Any = None) -> Any:
        return self._root.findall(path, namespaces)

    def findtext(self, path: str, default: Any = None, namespaces: Any = None) -> Any:
        return self._root.findtext(path, default, namespaces)

    def iter(self, tag: str | None = None) -> Any:
        return self._root.iter(tag)

    def write(self, file: Any, encoding: str | None = None, xml_declaration: bool | None = None) -> None:
        if isinstance(file, (str, files.Path)):
            data = ET.tostring(self._root, encoding or "us-ascii", xml_declaration=xml_declaration)
            files.write_bytes(file, data if isinstance(data, bytes) else data.encode())
        else:
            file.write(ET.tostring(self._root, encoding or "us-ascii", xml_declaration=xml_declaration))


def parse_file(source: Any) -> ElementTree:
    return ElementTree(parse_xml(files.read_bytes(source) if isinstance(source, (str, files.Path)) else source.read()))


def indent(tree: Any, space: str = "  ", level: int = 0) -> None:
    ET.indent(tree.getroot() if isinstance(tree, ElementTree) else tree, space, level)


def escape_xml(data: str, entities: Any = None) -> str:
    escaped = data.replace("&", "&amp;").replace(">", "&gt;").replace("<", "&lt;")
    return _replace_each(escaped, entities)


def unescape_xml(data: str, entities: Any = None) -> str:
    return _replace_each(data.replace("&lt;", "<").replace("&gt;", ">"), entities).replace("&amp;", "&")


def quoteattr(data: str, entities: Any = None) -> str:
    text = escape_xml(data, {**(entities or {}), "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
    if '"' in text:
        if "'" not in text:
            return f"'{text}'"
        text = text.replace('"', "&quot;")
    return f'"{text}"'


def _replace_each(text: str, entities: Any) -> str:
    for old, new in dict(entities or {}).items():
        text = text.replace(old, new)
    return text


def split_words(text: str, comments: bool = False, posix: bool = True) -> list[str]:
    if not isinstance(text, str):
        raise TypeError("shlex.split() takes a str")
    return shlex.split(text, comments, posix)


# os.path: the folder that a plugin works in has no name.


def relative(path: Any, start: Any = ".") -> str:
    return posixpath.relpath(posixpath.join("/", str(path)), posixpath.join("/", str(start)))


# random, uuid: from the seed of the session.


def _drawn(method: str) -> Callable[..., Any]:
    def draw(*args: Any, **options: Any) -> Any:
        return getattr(CURRENT.get().random, method)(*args, **options)

    draw.__name__ = method
    return draw


class Random(random.Random):
    def __init__(self, seed: Any = None) -> None:
        super().__init__(CURRENT.get().random.getrandbits(64) if seed is None else seed)


def uuid4() -> uuid.UUID:
    return uuid.UUID(int=CURRENT.get().random.getrandbits(128), version=4)


# print, logging: text that the session keeps.


def print_text(
    *values: Any, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
) -> None:
    # `str.join` and not `sep.join`: a plugin's own kind of text could answer with something that is none.
    text = str.join(" " if sep is None else sep, map(str, values)) + str.__str__("\n" if end is None else end)
    targets = CURRENT.get().targets
    if file is None and not targets:
        CURRENT.get().print(text)
    else:
        (targets[-1] if file is None else file).write(text)


def pretty_print(value: Any, *args: Any, **options: Any) -> None:
    print_text(pprint.pformat(value, *args, **options))


class Logger:
    def __init__(self, name: str = "root") -> None:
        self.name = name

    def setLevel(self, level: Any) -> None:
        """Nothing: everything is kept."""

    addHandler = setFormatter = removeHandler = setLevel

    def isEnabledFor(self, level: Any) -> bool:
        return True

    def log(self, level: Any, message: Any, *args: Any, **_: Any) -> None:
        print_text(f"{level}: {str(message) % args if args else message}")

    def debug(self, message: Any, *args: Any, **_: Any) -> None:
        self.log("DEBUG", message, *args)

    def info(self, message: Any, *args: Any, **_: Any) -> None:
        self.log("INFO", message, *args)

    def warning(self, message: Any, *args: Any, **_: Any) -> None:
        self.log("WARNING", message, *args)

    def error(self, message: Any, *args: Any, **_: Any) -> None:
        self.log("ERROR", message, *args)

    exception = critical = error


class Handler:
    """Whatever is asked of it, what is logged goes where `print` goes."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def setLevel(self, level: Any) -> None:
        pass

    setFormatter = setLevel


class Response(dict[str, Any]):
    """What `http.get` gives: `status`, `headers` and `text`, as items and as attributes."""

    status = status_code = property(lambda self: self["status"])
    headers = property(lambda self: self["headers"])
    text = property(lambda self: self["text"])

    def json(self) -> Any:
        import json

        return json.loads(self["text"])


def http_get(url: str, headers: Any = None) -> Response:
    return Response(request("http.get", url=str(url), headers={str(k): str(v) for k, v in dict(headers or {}).items()}))


class TestedPluginError(Exception):
    """`plugin.Error`: what the plugin under test raised."""


CHANGEABLE.update(
    {
        array.array,
        ET.Element,
        ConfigParser,
        RawConfigParser,
        configparser.SectionProxy,
        SimpleNamespace,
        decimal.Context,
        textwrap.TextWrapper,
    },
)

REPLACED: Final[dict[str, dict[str, Any]]] = {
    "ast": {"literal_eval": literal_eval},
    "collections": {"namedtuple": namedtuple},
    "configparser": {
        "ConfigParser": ConfigParser,
        "RawConfigParser": RawConfigParser,
        **{name: getattr(configparser, name) for name in _CONFIG.split()},
    },
    "contextlib": {"contextmanager": contextmanager},
    "csv": {"Sniffer": Sniffer},
    "dataclasses": {"dataclass": dataclass},
    "enum": {"Enum": Enum, "IntEnum": IntEnum, "StrEnum": StrEnum, "Flag": Flag, "IntFlag": IntFlag, "unique": unique},
    "functools": {
        "wraps": wraps,
        "update_wrapper": update_wrapper,
        "total_ordering": total_ordering,
        "cached_property": cached_property,
    },
    "gzip": {"compress": gzip, "decompress": gunzip},
    "io": {"open": files.open_file},
    "logging": {
        "Logger": Logger,
        "getLogger": Logger,
        **dict.fromkeys(("NullHandler", "StreamHandler", "Formatter"), Handler),
        "basicConfig": lambda **_: None,
        **{name: getattr(Logger(), name) for name in _LOGGED.split()},
        "DEBUG": 10,
        "INFO": 20,
        "WARNING": 30,
        "ERROR": 40,
        "CRITICAL": 50,
    },
    "operator": {"attrgetter": attrgetter, "methodcaller": methodcaller},
    "os": {
        "curdir": ".",
        "pardir": "..",
        "name": "posix",
        "fspath": str,
        "sep": "/",
        "linesep": "\n",
        "extsep": ".",
        "listdir": files.list_names,
        "makedirs": lambda *_, **__: None,
    },
    "os.path": {"exists": files.exists, "isfile": files.exists, "relpath": relative},
    "pathlib": dict.fromkeys(("Path", "PurePath", "PosixPath", "PurePosixPath"), files.Path),
    "pprint": {"pprint": pretty_print, "pp": pretty_print},
    "random": {
        "Random": Random,
        **{name: _drawn(name) for name in _DRAWN.split()},
    },
    "re": {
        "compile": _pattern,
        **{name: _search(name) for name in _PATTERNS.split()},
    },
    "shlex": {"split": split_words},
    "types": {"SimpleNamespace": SimpleNamespace},
    "typing": _TYPING,
    "uuid": {"uuid4": uuid4},
    "xml.etree.ElementTree": {
        **{name: getattr(ET, name) for name in _ELEMENTS.split()},
        "fromstring": parse_xml,
        "XML": parse_xml,
        "parse": parse_file,
        "ElementTree": ElementTree,
        "indent": indent,
    },
    "xml.sax.saxutils": {"escape": escape_xml, "unescape": unescape_xml, "quoteattr": quoteattr},
    "zlib": {"decompress": decompress},
}
"""By module; added to what is taken as it is."""

GRANTED: Final[dict[str, dict[str, Any]]] = {
    "files": {
        "read_text": files.read_text,
        "read_bytes": files.read_bytes,
        "write_text": files.write_text,
        "write_bytes": files.write_bytes,
        "exists": files.exists,
        "list": files.list_names,
        "open": files.open_file,
    },
    "http": {"get": http_get},
    "plugin": {"Error": TestedPluginError},
}
"""The façades of capabilities."""
