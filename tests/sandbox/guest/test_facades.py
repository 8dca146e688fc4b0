"""What a plugin may import leads to no module, frame or function of the host, however far one walks."""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from agentd.sandbox.guest import facades
from agentd.sandbox.guest.guards import CLASSES, Function, Kind, Unavailable, class_of, get_attribute
from agentd.sandbox.guest.outside import CURRENT, Outside
from agentd.sandbox.guest.policy import READABLE, readable

FORBIDDEN = (types.ModuleType, types.FunctionType, types.FrameType, types.CodeType, types.TracebackType)
ASKED = """
json csv re math statistics datetime collections itertools functools string textwrap hashlib base64 html urllib.parse
random decimal fractions difflib unicodedata bisect heapq operator io xml.etree.ElementTree configparser tomllib zlib
typing dataclasses enum copy uuid time os.path pathlib contextlib numbers calendar pprint shlex fnmatch struct binascii
"""


@pytest.fixture(autouse=True)
def inside() -> Iterator[None]:
    token = CURRENT.set(Outside(lambda *_: None, (), 0, 1_000))
    yield
    CURRENT.reset(token)


def reached(value: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Everything that the guard gives from here on, by every name that it lets through."""
    for name in sorted({*dir(value), *facades_names(value), *READABLE}):
        if not readable(name):
            continue
        try:
            found = get_attribute(value, name)
        except (AttributeError, TypeError, ValueError, NotImplementedError):
            continue
        yield f"{path}.{name}", found
        if depth and id(found) not in seen and not isinstance(found, (str, int, float, Function, Kind)):
            seen.add(id(found))
            yield from reached(found, f"{path}.{name}", depth - 1, seen)


def facades_names(value: Any) -> list[str]:
    return list(facades._content(value)[1]) if type(value) is facades.Facade else []


@pytest.mark.parametrize("name", sorted(facades.FACADES))
def test_a_facade_leads_to_nothing_of_the_host(name: str) -> None:
    found = list(reached(facades.FACADES[name], name, 2, set()))
    assert found
    opening = {builtins.open, builtins.eval, builtins.exec, builtins.__import__, builtins.compile}
    for path, value in found:
        assert not isinstance(value, FORBIDDEN), path
        assert not any(value is each for each in opening), path
        if isinstance(value, types.BuiltinFunctionType):
            assert not isinstance(value.__self__, (types.ModuleType, type(None))), path
        if isinstance(value, type):
            assert value in CLASSES, path


def test_everything_that_plugins_need_is_there() -> None:
    assert set(ASKED.split()) <= facades.FACADES.keys()


@pytest.mark.parametrize("name", ["os", "urllib", "xml", "xml.etree", "collections", "html"])
def test_a_package_does_not_lead_to_its_real_modules(name: str) -> None:
    """`from x import y` looks into `sys.modules` for `x.y`, if x tells its name."""
    importlib.import_module(name)
    inside = [full.removeprefix(f"{name}.") for full in sys.modules if full.startswith(f"{name}.")]
    source = [f"from {name} import {inner}" for inner in inside if "." not in inner and not inner.startswith("_")]
    names = {"__builtins__": {"__import__": facades.import_facade}, "__name__": "plugin"}
    for statement in source:
        own = dict(names)
        try:
            exec(statement, own)
        except ImportError:
            continue
        assert not any(isinstance(value, types.ModuleType) for value in own.values()), statement


def test_a_function_of_the_host_tells_its_name_and_no_more() -> None:
    function = get_attribute(facades.FACADES["json"], "dumps")
    assert type(function) is Function
    assert function.__name__ == "dumps"
    for name in ("__globals__", "__self__", "__class__", "__dict__", "_target", "__init__", "__reduce_ex__"):
        with pytest.raises(Unavailable):
            getattr(function, name)
    with pytest.raises(AttributeError):
        function.anything = 1


def test_the_class_of_something_else_is_a_name() -> None:
    kind = class_of(facades.FACADES["json"])
    assert type(kind) is Kind
    assert kind.__name__ == "Facade"
    with pytest.raises(TypeError):
        isinstance(1, kind)
