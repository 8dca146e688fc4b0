# {} -> ["Square(9.00)", 1, ["Square"], 2, true, [9, 3, 9, 3], "called", {"title": "x", "year": 3}, 5.0, 7, "<7>", 1, [3, 9], true, true, 5, true]
from abc import ABC, abstractmethod
from typing import Protocol, TypedDict, Generic, TypeVar, Callable, Union, Literal, overload, Iterable, Any, runtime_checkable

T = TypeVar("T")
Number = Union[int, float]
Mode = Literal["a", "b"]
Handler = Callable[[int], str]


class Shape(ABC):
    registry: dict[str, type] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Shape.registry[cls.__name__] = cls

    @property
    @abstractmethod
    def area(self) -> float: ...

    def __repr__(self):
        return f"{type(self).__name__}({self.area:.2f})"

    def __lt__(self, other):
        return self.area < other.area


class Square(Shape):
    def __init__(self, side):
        self._side = side

    @property
    def side(self):
        return self._side

    @side.setter
    def side(self, value):
        if value < 0:
            raise ValueError("negative")
        self._side = value

    @property
    def area(self):
        return self.side ** 2

    @staticmethod
    def unit():
        return Square(1)


class Stack(Generic[T]):
    def __init__(self, items: Iterable[T] = ()) -> None:
        self.__items: list[T] = list(items)

    def push(self, x: T) -> None:
        self.__items.append(x)

    def __len__(self):
        return len(self.__items)

    def __iter__(self):
        return iter(self.__items)

    def __getitem__(self, i):
        return self.__items[i]

    def __setitem__(self, i, v):
        self.__items[i] = v

    def __delitem__(self, i):
        del self.__items[i]

    def __contains__(self, x):
        return x in self.__items

    def __bool__(self):
        return bool(self.__items)

    def __add__(self, other):
        return Stack([*self, *other])

    def __call__(self):
        return "called"

    def __eq__(self, o):
        return list(self) == list(o)

    def __reversed__(self):
        return reversed(self.__items)


class Named(Protocol):
    name: str

    def greet(self) -> str: ...


@runtime_checkable
class HasArea(Protocol):
    @property
    def area(self) -> float: ...


class Movie(TypedDict, total=False):
    title: str
    year: int


class Vec:
    __slots__ = ("x", "y")

    def __init__(self, x=0, y=0):
        self.x = x
        self.y = y

    def __mul__(self, k):
        return Vec(self.x * k, self.y * k)

    __rmul__ = __mul__

    def __neg__(self):
        return Vec(-self.x, -self.y)

    def __abs__(self):
        return (self.x ** 2 + self.y ** 2) ** 0.5

    def __iadd__(self, o):
        self.x += o.x
        self.y += o.y
        return self

    def __hash__(self):
        return hash((self.x, self.y))

    def __format__(self, spec):
        return f"<{self.x}>"

    def __enter__(self):
        return self

    def __exit__(self, *a):
        return False


def run():
    s = Stack([1, 2])
    s.push(3)
    s[0] = 9
    del s[1]
    m: Movie = {"title": "x"}
    m["year"] = 3
    sq = Square(2)
    sq.side = 3
    v = 2 * Vec(3, 4)
    v += Vec(1, 1)
    return [repr(sq), Square.unit().area, list(Shape.registry), len(s), 3 in s, list(s + s), s(), m, abs(Vec(3, 4)), v.x, f"{v:z}", sorted([Square(3), Square(1)])[0].area, list(reversed(s)), s == [9, 3], isinstance(sq, Shape), getattr(sq, "nope", 5), hasattr(sq, "side")]
