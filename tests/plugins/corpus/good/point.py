# {} -> {"x": 3, "y": 4, "moved": [4, 4], "norm": 5.0}
import math
from typing import NamedTuple


class Point(NamedTuple):
    x: float
    y: float = 0

    def norm(self) -> float:
        return math.hypot(self.x, self.y)


def run():
    p = Point(3, 4)
    q = p._replace(x=4)
    return {**p._asdict(), "moved": [*q], "norm": p.norm()}
