# {} -> [{"x": 1, "y": 0}, [1, 5], "a-3", ["name", "id"], 3.0, [1, 2], 1, 0]
from collections import namedtuple
from typing import NamedTuple

Point = namedtuple("Point", ["x", "y"], defaults=[0])


class Emp(NamedTuple):
    name: str
    id: int = 3

    def label(self) -> str:
        return f"{self.name}-{self.id}"


class P3(namedtuple("P3", "x y z")):
    __slots__ = ()

    @property
    def norm(self):
        return (self.x ** 2 + self.y ** 2 + self.z ** 2) ** 0.5


def run():
    p = Point(1)
    return [p._asdict(), p._replace(y=5), Emp("a").label(), Emp._fields, P3(1, 2, 2).norm, Point._make([1, 2]), *p]
