"""The built-in names of plugins."""

from __future__ import annotations

import builtins
from abc import ABC
from typing import Any, Final

from . import files, guards
from .facades import given, import_facade
from .guards import TYPE
from .replacements import print_text
from .stand_ins import attributes

MAX_BITS = 1_000_000
"""Of the result of a power, about: more takes seconds and cannot be printed anyway."""
_FUNCTIONS = (
    "abs all any ascii bin callable chr divmod format hash hex id iter len max min next oct ord repr round sorted sum"
)
_CLASSES = (
    "bool bytearray bytes classmethod complex dict enumerate filter float frozenset int list map object property range "
    "reversed set slice staticmethod str tuple zip"
)
_CONSTANTS = "None True False Ellipsis NotImplemented"


def power(base: Any, exponent: Any, modulo: Any = None) -> Any:
    whole = type(base) is int and type(exponent) is int and modulo is None
    if whole and base.bit_length() * exponent > MAX_BITS and base not in (0, 1, -1):
        raise OverflowError(f"a power of about {base.bit_length() * exponent} bits is too large")
    return pow(base, exponent, modulo)


def _exceptions() -> dict[str, type]:
    return {
        name: kind
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException) and not name.endswith("Group")
    }


def _names() -> dict[str, Any]:
    taken = {name: getattr(builtins, name) for name in f"{_FUNCTIONS} {_CLASSES} {_CONSTANTS}".split()}
    own = {
        "pow": power,
        "print": print_text,
        "open": files.open_file,
        "getattr": guards.named_attribute,
        "hasattr": guards.has_attribute,
        "setattr": guards.set_attribute,
        "delattr": guards.delete_attribute,
        "isinstance": guards.is_instance,
        "issubclass": guards.is_subclass,
        "vars": attributes,
    }
    return {name: given(value) for name, value in {**taken, **_exceptions(), **own}.items()} | {"type": TYPE}


BUILT_IN: Final[dict[str, Any]] = {
    **_names(),
    "__build_class__": builtins.__build_class__,
    "__import__": import_facade,
}
"""`__builtins__` of a plugin. The last two are called by Python itself and cannot be named."""

GUARDS: Final[dict[str, Any]] = {
    "_getattr_": guards.get_attribute,
    "_write_": guards.writable,
    "_bases_": guards.checked_bases,
    "_super_": guards.safe_super,
    "_object_setattr_": guards.set_frozen_attribute,
    "_power_": power,
    "_vars_": attributes,
    "_abc_": ABC,
}
"""Globals of a plugin that the policy writes calls of."""
