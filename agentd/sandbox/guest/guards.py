"""What stands between a plugin and the objects that it holds: which attributes are read, what may be changed.

No function of the host comes into a plugin's hands as it is, since a Python function leads to its module and a built-in
one to `builtins`: they come as `Function`, which can be called and nothing else.
"""

from __future__ import annotations

import abc
import collections
import functools
import itertools
import re
import string
import types
import typing
from _string import formatter_field_name_split  # type: ignore[import-not-found]
from collections.abc import Callable, Sequence
from typing import Any, Final

from .patience import MATCHING, SCANNER, limited
from .policy import readable

NAME: Final = "plugin"
"""`__name__` in a plugin, so `__module__` of its classes."""
FILE: Final = "<plugin>"
_PLAIN = frozenset({str, int, float, bool, type(None), list, dict, tuple, set, bytes})
_SEALED = (types.FrameType, types.CodeType, types.TracebackType, types.ModuleType, types.CoroutineType)
_OF_GENERATORS = frozenset({"send", "throw", "close", "__iter__", "__next__"})
_OF_FUNCTIONS = frozenset({"__name__", "__qualname__", "__doc__", "__call__"})


class Unavailable(AttributeError):
    """A guard said no."""


class Function:
    """A function of the host: it can be called and tells its name; nothing leads from it to what it is made of."""

    __slots__ = ("_target",)

    def __init__(self, target: Callable[..., Any]) -> None:
        object.__setattr__(self, "_target", target)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return expose(_target(self)(*args, **options))

    def __getattribute__(self, name: str) -> Any:
        if name == "__call__":
            return self
        if name in _OF_FUNCTIONS:
            return getattr(_target(self), name, None)
        raise Unavailable(f"{_name(self)}() has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise Unavailable(f"{_name(self)}() cannot be changed")

    def __repr__(self) -> str:
        return f"<function {_name(self)}>"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(_target(self) == _target(other))

    def __hash__(self) -> int:
        return hash(_target(self))


class Method(Function):
    """One that is bound like a function of a plugin when a class has it."""

    __slots__ = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Function(types.MethodType(self, instance))


_target: Callable[[Any], Callable[..., Any]] = Function.__dict__["_target"].__get__


def _name(function: Function) -> str:
    return str(getattr(_target(function), "__name__", "function"))


def expose(value: Any) -> Any:
    """What a plugin gets in place of a value that comes from the host."""
    kind = type(value)
    if kind in _PLAIN or kind is Function or kind is Method:
        return value
    if kind is types.FunctionType:
        return value if is_own(value) else Function(value)
    if kind is types.MethodType:
        return value if is_own(value.__func__) else _method(value)
    if issubclass(kind, types.BuiltinFunctionType):  # a method of a pattern is of a kind of its own
        return _built_in(value)
    if kind is types.GeneratorType:
        return value if value.gi_code.co_filename == FILE else itertools.chain(value)
    if kind is types.MethodDescriptorType and value.__objclass__ is str and value.__name__.startswith("format"):
        return Function(safe_format if value.__name__ == "format" else safe_format_map)
    if kind in _SEALED:
        raise Unavailable(f"a {kind.__name__} is not available")
    if isinstance(value, type) and value not in CLASSES and not of_plugin(value):
        return Kind(value)
    return value


def is_own(function: Any) -> bool:
    """Whether it is a function that a plugin has defined."""
    return type(function) is types.FunctionType and function.__globals__.get("__name__") == NAME


def _method(value: types.MethodType) -> Function:
    if value.__func__ is abc.ABCMeta.register:
        raise Unavailable("virtual subclasses are not available")
    return Function(value)


def _built_in(value: Any) -> Any:
    owner = value.__self__
    if isinstance(owner, re.Pattern) and value.__name__ in MATCHING:
        return Function(limited(owner, value))
    if isinstance(owner, SCANNER):
        return Function(limited(owner.pattern, value))
    if owner is None or isinstance(owner, types.ModuleType):
        return Function(value)
    if isinstance(owner, str) and value.__name__ in ("format", "format_map"):
        safe = safe_format if value.__name__ == "format" else safe_format_map
        return Function(types.MethodType(safe, owner))
    return value


def get_attribute(value: Any, name: str, *default: Any) -> Any:
    """`_getattr_`: what stands for `value.name` in a source."""
    if type(name) is not str:
        raise TypeError(f"an attribute's name is a str, not a {type(name).__name__}")
    kind = type(value)
    if not readable(name) or (kind is types.GeneratorType and name not in _OF_GENERATORS) or kind in _SEALED:
        raise Unavailable(f"the attribute {name!r} is not available")
    if name == "__class__":
        return class_of(value)
    if name == "obj" and isinstance(value, AttributeError):
        raise Unavailable("the attribute 'obj' is not available")
    found = getattr(value, name, *default)
    if type(found) is types.FunctionType and isinstance(value, type) and not is_own(found):
        return Function(_of_its_class(value, name, found))
    return found if type(found) in _PLAIN else expose(found)


def _of_its_class(kind: type, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the host, taken from its class: else `Some.__init__(other)` would change what may not be changed."""

    @functools.wraps(function)
    def method(*args: Any, **options: Any) -> Any:
        if not args or not isinstance(args[0], kind):
            raise TypeError(f"{kind.__name__}.{name}() needs a {kind.__name__} as its first argument")
        return function(*args, **options)

    free = any(isinstance(vars(base).get(name), staticmethod) for base in kind.__mro__)
    return function if free or name == "__new__" else method


def named_attribute(value: Any, name: str, *default: Any) -> Any:
    """`getattr` of a plugin, and every other way to an attribute whose name is a value: it never gives a class."""
    if type(name) is str and name == "__class__":
        raise Unavailable(f"the attribute {name!r} is not available by its name")
    return get_attribute(value, name, *default)


def has_attribute(value: Any, name: str) -> bool:
    try:
        named_attribute(value, name)
    except AttributeError:
        return False
    return True


def of_plugin(kind: type) -> bool:
    """Whether a class was made by a plugin."""
    return kind.__module__ == NAME


def writable(value: Any) -> Any:
    """`_write_`: the object itself, where a plugin may set or delete attributes or items of it."""
    kind = type(value)
    if kind in CHANGEABLE or of_plugin(kind):
        return value
    if isinstance(value, type) and of_plugin(value):
        return value
    if is_own(value):
        return value
    raise TypeError(f"a {kind.__name__} cannot be changed")


CHANGEABLE: set[type] = {
    dict,
    list,
    bytearray,
    collections.defaultdict,
    collections.OrderedDict,
    collections.Counter,
    collections.deque,
    collections.ChainMap,
    collections.UserDict,
    collections.UserList,
}
"""Classes of the host whose objects a plugin may change; façades add theirs."""


def set_attribute(value: Any, name: str, new: Any) -> None:
    """`setattr` of a plugin."""
    setattr(writable(value), _changeable(name), new)


def set_frozen_attribute(value: Any, name: str, new: Any) -> None:
    """`object.__setattr__`, with which a frozen dataclass completes itself."""
    object.__setattr__(writable(value), _changeable(name), new)


def delete_attribute(value: Any, name: str) -> None:
    """`delattr` of a plugin."""
    delattr(writable(value), _changeable(name))


def _changeable(name: str) -> str:
    if type(name) is not str or name.startswith("_") or not readable(name):
        raise Unavailable(f"the attribute {name!r} cannot be changed")
    return name


class Kind:
    """The class of an object whose class is not to be had; it has a name and can be compared."""

    __slots__ = ("_kind",)

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __getattribute__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            return _kind(self).__name__
        raise Unavailable(f"a class has no attribute {name!r} here")

    def __eq__(self, other: object) -> bool:
        return type(other) is Kind and _kind(self) is _kind(other)

    def __hash__(self) -> int:
        return hash(_kind(self))

    def __repr__(self) -> str:
        return f"<class {_kind(self).__name__!r}>"


_kind: Callable[[Any], type] = Kind.__dict__["_kind"].__get__

CLASSES: set[type] = {type(None), type(...), type(NotImplemented)}
"""Classes of the host that a plugin may hold; built-in names and façades add theirs."""


def class_of(value: Any) -> Any:
    """`type(x)`: the class, where a plugin may hold it."""
    kind = type(value)
    return kind if kind in CLASSES or (of_plugin(kind) and not issubclass(kind, type)) else Kind(kind)


def is_instance(value: Any, kinds: Any) -> bool:
    return isinstance(value, _classes(kinds))


def is_subclass(value: Any, kinds: Any) -> bool:
    return issubclass(value, _classes(kinds))


def _classes(kinds: Any) -> Any:
    """`type` stands for itself only where classes are compared."""
    if type(kinds) is tuple:
        return tuple(map(_classes, kinds))
    return type if kinds is TYPE else kinds


TYPE = Function(class_of)
HIDING: Final = (str, AttributeError)
"""What has an attribute that only the guard may read. A dataclass reads its fields without it, so it is neither."""
BASES: dict[Any, Any] = {}
"""What façades give as a base and cannot be one themselves, and the base that they stand for."""


def checked_bases(*bases: Any) -> Sequence[Any]:
    """`_bases_`: what a class of a plugin inherits from: classes that it may hold."""
    resolved = [BASES.get(base, base) if isinstance(base, Function) else base for base in bases]
    for base in resolved:
        origin = typing.get_origin(base) or base
        if not (isinstance(origin, type) and (origin in CLASSES or of_plugin(origin))) and not _stands_for(base):
            raise TypeError(f"{base!r} cannot be inherited from")
    kinds = [base for base in resolved if isinstance(base, type)]
    if any(issubclass(kind, HIDING) for kind in kinds) and any(hasattr(kind, "__dataclass_fields__") for kind in kinds):
        raise TypeError("a dataclass cannot be a str or an AttributeError: its fields could hide their methods")
    return resolved


def _stands_for(base: Any) -> bool:
    return any(base is real for real in BASES.values())  # by identity: `==` would hand it to the plugin's own


def safe_super(of_class: Any, instance: Any) -> Any:
    """`_super_`: only from a class of the plugin on, so that no façade's own method can be walked past."""
    if not (isinstance(of_class, type) and of_plugin(of_class)):
        raise TypeError("super() works in a method only")
    return super(of_class, instance)


class _Formatter(string.Formatter):
    """`str.format` whose attributes pass the guard."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        first, rest = formatter_field_name_split(field_name)
        value = self.get_value(first, args, kwargs)
        for is_attribute, key in rest:
            value = named_attribute(value, key) if is_attribute else value[key]
        return value, first


def safe_format(template: str, /, *args: Any, **options: Any) -> str:
    return _Formatter().vformat(template, args, options)


def safe_format_map(template: str, mapping: Any) -> str:
    return _Formatter().vformat(template, (), mapping)
