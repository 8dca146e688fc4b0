# {} -> ["Red", "GREEN", [1, 2], true, true, true, "b", 5.97e+24, "RED", ["RED", "GREEN"], true, 2]
from enum import Enum, IntEnum, auto, Flag, StrEnum, unique


@unique
class Color(Enum):
    RED = 1
    GREEN = 2

    @property
    def pretty(self):
        return self.name.title()

    @classmethod
    def default(cls):
        return cls.RED


class Level(IntEnum):
    LOW = auto()
    HIGH = auto()


class Perm(Flag):
    R = auto()
    W = auto()
    RW = R | W


class Kind(str, Enum):
    A = "a"
    B = "b"


class Planet(Enum):
    EARTH = (5.97e24, 6.37e6)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius


def run():
    return [Color["RED"].pretty, Color(2).name, [c.value for c in Color], Level.HIGH > Level.LOW, (Perm.R | Perm.W) == Perm.RW, Kind("a") is Kind.A, Kind.B.value, Planet.EARTH.mass, Color.default().name, list(Color.__members__), Perm.R in Perm.RW, len(Color)]
