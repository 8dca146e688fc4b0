"""What compiled plugin code calls for each attribute, write, change and class; and the built-in names that it has."""

from __future__ import annotations

import builtins
import operator
import string
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    ModuleType,
    TracebackType,
)
from typing import Any

from RestrictedPython.Guards import guarded_iter_unpack_sequence, guarded_unpack_sequence

from .language import METHODS, NAME, RAW, RECORD_NAMES, UNSAFE

_IN_PLACE: dict[str, Callable[[Any, Any], Any]] = {
    "+=": operator.iadd,
    "-=": operator.isub,
    "*=": operator.imul,
    "/=": operator.itruediv,
    "%=": operator.imod,
    "**=": operator.ipow,
    "<<=": operator.ilshift,
    ">>=": operator.irshift,
    "|=": operator.ior,
    "^=": operator.ixor,
    "&=": operator.iand,
    "//=": operator.ifloordiv,
    "@=": operator.imatmul,
}
_OF_ERRORS = frozenset(
    [
        "args",
        "errno",
        "strerror",
        "filename",
        "start",
        "end",
        "reason",
        "msg",
        "lineno",
        "colno",
        "pos",
        "doc",
        "name",
        "value",
        "code",
        "message",
        "add_note",
    ]
)
_CLOSED = (ModuleType, FrameType, CodeType, TracebackType, CoroutineType, AsyncGeneratorType)
_CONTAINERS = (list, dict, set, bytearray, deque, defaultdict, Counter, OrderedDict, ChainMap)
_INNER = object.__getattribute__


class Facade:
    """Stands for a module, or for a function of one: what is not in its table is not there."""

    __slots__ = ("_table", "_title")

    def __init__(self, title: str, table: Mapping[str, Any]) -> None:
        self._title = title
        self._table = table

    def __repr__(self) -> str:
        return f"<{_INNER(self, '_title')}>"


class Opened:
    """A function of a real module: can be called, and shows nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any, **named: Any) -> Any:
        return _INNER(self, "_call")(*args, **named)

    def __repr__(self) -> str:
        return "<function>"


class TypeName:
    """What `type(x)` gives of a value whose real type is nobody's business."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return type(other) is TypeName and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<class {self.name!r}>"


def of_plugin(cls: type) -> bool:
    """Whether a class was written in the plugin."""
    return bool(type.__getattribute__(cls, "__module__") == NAME)


def _refused(obj: Any, name: Any) -> AttributeError:
    return AttributeError(f"{type(obj).__name__!r} has no attribute {str(name)!r:.100} here")


def get_attribute(obj: Any, name: Any, *default: Any) -> Any:
    if type(name) is not str:
        raise TypeError("the name of an attribute must be a string")
    try:
        return _attribute(obj, name)
    except AttributeError:
        if default:
            return default[0]
        raise


def _attribute(obj: Any, name: str) -> Any:
    kind = type(obj)
    if kind is Facade:
        table = _INNER(obj, "_table")
        if name in table:
            return table[name]
        raise AttributeError(f"{_INNER(obj, '_title')} offers no {name!r:.100}; there are {', '.join(sorted(table))}")
    if name in UNSAFE or kind in (Opened, TypeName) or issubclass(kind, _CLOSED):
        raise _refused(obj, name)
    if name.startswith("_") and not _may_have(obj, kind, name):
        raise _refused(obj, name)
    if name in RAW:
        return _raw(obj, kind, name)
    if issubclass(kind, BaseException) and not (name in _OF_ERRORS or of_plugin(kind)):
        raise _refused(obj, name)
    return getattr(obj, name)


def _may_have(obj: Any, kind: type, name: str) -> bool:
    if name in RECORD_NAMES:
        return issubclass(kind, tuple) or (kind is type and issubclass(obj, tuple))
    # Of classes of the plugin's own, and of what they build on.
    return name in METHODS and (kind is super or of_plugin(kind) or (issubclass(kind, type) and of_plugin(obj)))


def _raw(obj: Any, kind: type, name: str) -> Any:
    """Python's own `format` reads any attribute that the text names."""
    if issubclass(kind, str):
        text = str.__str__(obj)
        if name == "format":
            return Opened(lambda *args, **named: _Formatter().vformat(text, args, named))
        if name == "format_map":
            return Opened(lambda mapping: _Formatter().vformat(text, (), mapping))
    if issubclass(kind, type) and issubclass(obj, str):
        return Opened(lambda text, *args, **named: _Formatter().vformat(str.__str__(text), args, named))
    if kind is super or issubclass(kind, BaseException):
        raise _refused(obj, name)
    return getattr(obj, name)


class _Formatter(string.Formatter):
    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        first, _, rest = field_name.partition(".")
        if "[" not in field_name:
            found = self.get_value(int(first) if first.isdigit() else first, args, kwargs)
            for name in filter(None, rest.split(".")):
                found = get_attribute(found, name)
            return found, first
        if "." in field_name:
            raise ValueError("a format may not mix attributes and items here")
        return super().get_field(field_name, args, kwargs)  # type: ignore[no-any-return]


def writable(obj: Any) -> Any:
    """The object, if its items and attributes are the plugin's to change."""
    kind = type(obj)
    mine = of_plugin(obj if issubclass(kind, type) else kind) or kind is FunctionType
    if kind in _CONTAINERS or mine or issubclass(kind, _CONTAINERS):
        return obj
    raise TypeError(f"a {kind.__name__} cannot be changed here")


def change_item(sign: str, owner: Any, key: Any, value: Any) -> None:
    writable(owner)[key] = _IN_PLACE[sign](owner[key], value)


def change_attribute(sign: str, owner: Any, name: str, value: Any) -> None:
    setattr(writable(owner), name, _IN_PLACE[sign](get_attribute(owner, name), value))


def set_attribute(obj: Any, name: Any, value: Any) -> None:
    if type(name) is not str or name.startswith("_") or name in UNSAFE:
        raise AttributeError(f"the attribute {str(name)!r:.100} cannot be set here")
    setattr(writable(obj), name, value)


def delete_attribute(obj: Any, name: Any) -> None:
    if type(name) is not str or name.startswith("_"):
        raise AttributeError(f"the attribute {str(name)!r:.100} cannot be deleted here")
    delattr(writable(obj), name)


def has_attribute(obj: Any, name: Any) -> bool:
    try:
        get_attribute(obj, name)
    except AttributeError:
        return False
    return True


_SHOWN_TYPES = frozenset(
    {
        *(
            bool,
            int,
            float,
            complex,
            str,
            bytes,
            bytearray,
            list,
            tuple,
            dict,
            set,
            frozenset,
            range,
            slice,
            type(None),
        ),
        *(deque, defaultdict, Counter, OrderedDict),
    }
)


def type_of(obj: Any) -> Any:
    kind = type(obj)
    if kind in _SHOWN_TYPES or of_plugin(kind) or issubclass(kind, BaseException):
        return kind
    return TypeName(kind.__name__)


def name_of(obj: Any, of_type: bool) -> str:
    """`x.__class__.__name__`, or `x.__name__` of a class or function."""
    if of_type:
        return type(obj).__name__
    kind = type(obj)
    if kind is TypeName:
        return str(obj.name)
    if issubclass(kind, type):
        return str(type.__getattribute__(obj, "__name__"))
    if kind in (FunctionType, BuiltinFunctionType):
        return str(obj.__name__)
    raise _refused(obj, "__name__")


def _same(obj: Any) -> Any:
    return obj


_PLAIN_NAMES = [
    "abs",
    "all",
    "any",
    "ascii",
    "bin",
    "bool",
    "bytearray",
    "bytes",
    "callable",
    "chr",
    "classmethod",
    "complex",
    "dict",
    "divmod",
    "enumerate",
    "filter",
    "float",
    "format",
    "frozenset",
    "hash",
    "hex",
    "id",
    "int",
    "isinstance",
    "issubclass",
    "iter",
    "len",
    "list",
    "map",
    "max",
    "min",
    "next",
    "object",
    "oct",
    "ord",
    "pow",
    "property",
    "range",
    "repr",
    "reversed",
    "round",
    "set",
    "slice",
    "sorted",
    "staticmethod",
    "str",
    "sum",
    "super",
    "tuple",
    "zip",
    "True",
    "False",
    "None",
    "NotImplemented",
    "Ellipsis",
]


def builtin_names() -> dict[str, Any]:
    """Every built-in name that a plugin has, but `print`, `open` and imports, which belong to a session."""
    errors = {
        name: value
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning)
    }
    names = {name: getattr(builtins, name) for name in _PLAIN_NAMES if hasattr(builtins, name)} | errors
    return names | {
        "getattr": Opened(get_attribute),
        "setattr": Opened(set_attribute),
        "delattr": Opened(delete_attribute),
        "hasattr": Opened(has_attribute),
        "type": Opened(type_of),
        "BaseException": Exception,
        "KeyboardInterrupt": Exception,
        "SystemExit": Exception,
        "__build_class__": builtins.__build_class__,
    }


def guard_names() -> dict[str, Any]:
    """What the compiled code calls by names that no source can write."""
    return {
        "_getattr_": get_attribute,
        "_getitem_": operator.getitem,
        "_getiter_": _same,
        "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
        "_unpack_sequence_": guarded_unpack_sequence,
        "_write_": writable,
        "_inplacevar_": lambda sign, old, value: _IN_PLACE[sign](old, value),
        "_change_item_": change_item,
        "_change_attribute_": change_attribute,
        "_apply_": lambda function, *args, **named: function(*args, **named),
        "_type_": type_of,
        "_name_": name_of,
        "__metaclass__": type,
        "__name__": NAME,
    }
