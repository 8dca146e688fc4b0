# {} -> [[0], 3, "x", 3, 1]
import typing as t
from typing import Dict, List, Optional, Tuple, Final, TypeAlias, Sequence, Mapping, cast
from types import SimpleNamespace, MappingProxyType
from dataclasses import dataclass

Json: TypeAlias = "dict[str, Json] | list[Json] | str"
MAXIMUM: Final[int] = 3
Pair = Tuple[int, str]
UserId = t.NewType("UserId", int)
Row = Dict[str, List[int]]
Callback = t.Callable[..., None]
CONFIG = MappingProxyType({"a": 1})


def f(x: t.Optional[int] = None, *a: int, **k: str) -> t.List[int]:
    return [x or 0]


def run():
    ns = SimpleNamespace(a=1)
    ns.b = 2
    return [f(), UserId(3), cast(int, "x"), ns.a + ns.b, CONFIG["a"]]
