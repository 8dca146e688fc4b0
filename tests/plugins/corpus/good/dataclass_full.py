# {} -> ["1.10", {"name": "x", "items": [{"major": 1, "minor": 2, "label": ""}, {"major": 1, "minor": 10, "label": ""}], "total": 2}, ["a", "b"], 5, [0, 9, ""], "Kw(a=1, b=None)", true, 1]
from dataclasses import dataclass, field, asdict, astuple, replace, fields
from typing import ClassVar, Optional


@dataclass(order=True, frozen=True)
class Version:
    major: int
    minor: int = 0
    label: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> "Version":
        a, b = text.split(".")
        return cls(int(a), int(b))


@dataclass(slots=True)
class Box:
    name: str
    items: list[Version] = field(default_factory=list)
    count: ClassVar[int] = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = len(self.items)

    def add(self, item: Version) -> "Box":
        self.items.append(item)
        self.total += 1
        return self


@dataclass(kw_only=True)
class Kw:
    a: int
    b: Optional[str] = None


def run():
    v = [Version.parse(t) for t in ("1.2", "1.10", "0.9")]
    box = Box("x").add(v[0]).add(v[1])
    return [str(max(v)), asdict(box), [f.name for f in fields(Kw)], replace(v[0], minor=5).minor, astuple(v[2]), repr(Kw(a=1)), v[0] == Version(1, 2, "z"), len({v[0], Version(1, 2)})]
