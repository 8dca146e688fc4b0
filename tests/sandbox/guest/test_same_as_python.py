"""Ordinary programs give in a session what they give in Python."""

# ruff: noqa: E501 - programs stand as they are

from __future__ import annotations

import json
import sys
import types
from typing import Any

import pytest

from agentd.sandbox.guest.gate import check
from agentd.sandbox.guest.session import Session

PROGRAMS: dict[str, str] = {
    "augmented": """
class Box:
    total = 0
calls = []
def key():
    calls.append(1)
    return "k"
def run():
    box, table, rows = Box(), {"k": [1]}, [[1, 2], [3]]
    box.total += 2
    box.total *= 5
    table[key()] += [2]
    rows[0][1] -= 7
    table["k"][0] <<= 3
    text = "a"
    text *= 3
    return [box.total, Box.total, table, rows, len(calls), text]
""",
    "order of augmented assignment": """
class Counter:
    def __init__(self):
        self.n = 1
    def bump(self):
        self.n = 10
        return 5
def run():
    c = Counter()
    c.n += c.bump()
    return c.n
""",
    "hooks of an enumeration": """
from enum import Enum, auto
class Color(Enum):
    @staticmethod
    def _generate_next_value_(name, start, count, last_values):
        return name.lower()
    RED = auto()
    OTHER = auto()
    @classmethod
    def _missing_(cls, value):
        return cls.OTHER
def run():
    return [Color("red").value, Color("puce").value, [c.name for c in Color]]
""",
    "properties and operators": """
from functools import total_ordering
@total_ordering
class Money:
    def __init__(self, cents):
        self._cents = cents
    @property
    def euros(self):
        return self._cents / 100
    @euros.setter
    def euros(self, value):
        self._cents = round(value * 100)
    @classmethod
    def parse(cls, text):
        return cls(int(float(text) * 100))
    @staticmethod
    def zero():
        return Money(0)
    def __add__(self, other):
        return Money(self._cents + other._cents)
    __radd__ = __add__
    def __eq__(self, other):
        return isinstance(other, Money) and self._cents == other._cents
    def __lt__(self, other):
        return self._cents < other._cents
    def __hash__(self):
        return hash(self._cents)
    def __format__(self, spec):
        return format(self.euros, spec or ".2f")
    def __bool__(self):
        return self._cents != 0
def run():
    a, b = Money.parse("1.50"), Money(250)
    a.euros = 2
    return [f"{a + b}", f"{a:.1f}", a >= b, max(a, b)._cents, bool(Money.zero()), len({a, Money(200)}), sum([b], a).euros]
""",
    "containers of one's own": """
class Grid:
    def __init__(self, rows):
        self._rows = [list(r) for r in rows]
    def __getitem__(self, at):
        y, x = at
        return self._rows[y][x]
    def __setitem__(self, at, value):
        y, x = at
        self._rows[y][x] = value
    def __contains__(self, value):
        return any(value in row for row in self._rows)
    def __len__(self):
        return len(self._rows)
    def __iter__(self):
        for row in self._rows:
            yield from row
    def __call__(self, n):
        return n * len(self)
    def __delitem__(self, y):
        del self._rows[y]
    def __getattr__(self, name):
        if name == "width":
            return len(self._rows[0])
        raise AttributeError(name)
def run():
    g = Grid(["ab", "cd"])
    g[0, 1] = "z"
    g[1, 0] += "!"
    out = [g[0, 1], "z" in g, list(g), g(3), g.width, hasattr(g, "depth"), getattr(g, "depth", None)]
    del g[0]
    return out + [len(g)]
""",
    "inheritance": """
from abc import ABC, abstractmethod
class Shape(ABC):
    count = 0
    def __init__(self, name="shape"):
        self.name = name
        Shape.count += 1
    @abstractmethod
    def area(self): ...
    def __str__(self):
        return f"{type(self).__name__}({self.name}, {self.area():.2f})"
class Square(Shape):
    def __init__(self, side, **rest):
        super().__init__(**rest)
        self.side = side
    def area(self):
        return self.side ** 2
class Cube(Square):
    def area(self):
        return 6 * super().area()
def run():
    try:
        Shape()
    except TypeError as e:
        error = type(e).__name__
    shapes = [Square(2, name="s"), Cube(1)]
    return [str(s) for s in shapes] + [Shape.count, error, isinstance(shapes[1], Square), issubclass(Cube, Shape)]
""",
    "dataclasses": """
from __future__ import annotations
from dataclasses import dataclass, field, asdict, replace
from typing import ClassVar, Optional
@dataclass(frozen=True, order=True)
class Point:
    x: int
    y: int = 0
    origin: ClassVar[tuple] = (0, 0)
    label: Optional[str] = field(default=None, compare=False)
    norm: float = field(init=False, default=0.0)
    def __post_init__(self):
        object.__setattr__(self, "norm", (self.x ** 2 + self.y ** 2) ** 0.5)
@dataclass
class Line:
    points: list[Point] = field(default_factory=list)
    _cache: dict = field(default_factory=dict, repr=False)
    def add(self, *args):
        self.points.append(Point(*args))
        self._cache["n"] = len(self.points)
        return self
def run():
    line = Line().add(3, 4).add(1)
    try:
        line.points[0].x = 5
        frozen = False
    except Exception as e:
        frozen = type(e).__name__
    match line.points[0]:
        case Point(x, y) if x < y:
            matched = [x, y]
    return [repr(line.points[1]), sorted(line.points)[0].x, asdict(line.points[0]), replace(line.points[1], y=9).y, frozen,
            line._cache, matched, Point.origin, line == Line(line.points, line._cache)]
""",
    "enumerations and named tuples": """
from collections import namedtuple
from enum import Enum, IntEnum, auto, Flag
from typing import NamedTuple
class Level(IntEnum):
    LOW = 1
    HIGH = 2
class Color(str, Enum):
    RED = "red"
    BLUE = "blue"
    def shout(self):
        return self.value.upper()
class Perm(Flag):
    R = auto()
    W = auto()
class Row(NamedTuple):
    name: str
    age: int = 3
    def older(self):
        return self._replace(age=self.age + 1)
Pair = namedtuple("Pair", "a b", defaults=[7])
def run():
    row = Row("x").older()
    return [Level.HIGH > Level.LOW, Color("red").shout(), [c.name for c in Color], Color["BLUE"] == "blue", len(Level),
            Perm.R | Perm.W == Perm.R, list(row), row._asdict(), Pair(1)._fields, Pair(2).b, Row._make(["q", 1]).name,
            f"{Level.HIGH:d}", str(Color.RED.value), Color.RED in Color, list(Color.__members__)]
""",
    "generators and closures": """
from itertools import islice, chain, groupby, accumulate, product
def numbers(start=0):
    n = start
    while True:
        got = yield n
        n = got if got is not None else n + 1
def counter():
    count = 0
    def increment(by=1):
        nonlocal count
        count += by
        return count
    return increment
TOTAL = 0
def add(n):
    global TOTAL
    TOTAL += n
    return TOTAL
def run():
    g = numbers(5)
    first = [next(g), next(g), g.send(100), next(g)]
    g.close()
    up = counter()
    groups = {k: list(v) for k, v in groupby(sorted("banana"), key=lambda c: c)}
    return [first, up(), up(4), add(2), add(3), list(islice(numbers(), 3)), groups, list(accumulate([1, 2, 3])),
            list(chain.from_iterable([[1], [2]])), [a * b for a, b in product([1, 2], repeat=2)],
            [[x for x in range(y)] for y in range(3)], {x % 3 for x in range(9)}, next((x for x in [] if x), "none")]
""",
    "unpacking": """
def f(a, /, b, *args, c=3, **kw):
    return [a, b, list(args), c, kw]
def run():
    first, *middle, last = range(5)
    (a, (b, c)), d = (1, [2, 3]), 4
    for i, (k, v) in enumerate({"x": 1}.items()):
        pair = [i, k, v]
    [p, q] = "pq"
    merged = {**{"a": 1}, "b": 2, **dict(c=3)}
    x = y = []
    x.append(1)
    if (n := len(merged)) > 2:
        big = n
    return [first, middle, last, a, b, c, d, pair, p, q, merged, y, big, f(1, 2, *[3, 4], c=5, **{"z": 6}), [*"ab", *[1]]]
""",
    "errors": """
import contextlib
class AppError(ValueError):
    def __init__(self, code, message="bad"):
        super().__init__(message)
        self.code = code
@contextlib.contextmanager
def watching(log):
    log.append("in")
    try:
        yield log
    except KeyError as e:
        log.append(f"caught {e}")
    finally:
        log.append("out")
class Resource:
    def __enter__(self):
        return self
    def __exit__(self, exc_type, exc, tb):
        self.failed = exc_type is not None and issubclass(exc_type, ZeroDivisionError)
        return True
def run():
    log = []
    with watching(log):
        raise KeyError("k")
    with Resource() as r, contextlib.suppress(ValueError):
        1 / 0
    try:
        try:
            int("x")
        except ValueError as e:
            raise AppError(7) from e
    except (AppError, TypeError) as e:
        told = [str(e), e.code, type(e).__name__, e.args]
    else:
        told = None
    finally:
        log.append("finally")
    try:
        [][1]
    except IndexError as e:
        told.append(str(e))
    try:
        assert 1 == 2, "no"
    except AssertionError as e:
        told.append(str(e))
    return [log, r.failed, told]
""",
    "match": """
class Point:
    __match_args__ = ("x", "y")
    def __init__(self, x, y):
        self.x, self.y = x, y
def kind(value):
    match value:
        case None: return "none"
        case True | False: return "bool"
        case int(n) if n > 10: return f"big {n}"
        case int() | float(): return "number"
        case str() as s: return s.upper()
        case []: return "empty"
        case [x]: return ["one", x]
        case [first, *rest]: return [first, len(rest)]
        case {"type": "circle", "r": r, **more}: return [r, more]
        case Point(x=0, y=y): return ["axis", y]
        case _: return "?"
def run():
    return [kind(v) for v in (None, True, 50, 2, "a", [], [1], [1, 2, 3], {"type": "circle", "r": 2, "q": 1}, Point(0, 3), {1})]
""",
    "texts": """
import re, string, textwrap, unicodedata, html, base64, hashlib, difflib
from string import Template
from urllib.parse import urlparse, parse_qs, urlencode, quote
PATTERN = re.compile(r"(?P<key>\\w+)=(?P<value>[^;]*);?")
def run():
    text = "a=1;b=two;"
    found = {m["key"]: m.group("value") for m in PATTERN.finditer(text)}
    return [found, re.sub(r"(\\w)=", lambda m: m[1].upper() + ":", text), re.split(r"[;,]\\s*", "a; b,c"), re.findall("[a-z]+", text),
            "{:>5}|{:<4}|{:^5}|{!r}".format("a", 1, "b", "c"), "{name} {0[1]} {1.real}".format([1, 2], 3, name="n"),
            "%s-%03d %.2f %%" % ("a", 7, 1.5), f"{3.14159:.2f} {'x':*^5} {1000000:,} {255:#x} {'q'!r}",
            textwrap.dedent("  a\\n  b"), textwrap.shorten("hello big world", 10), Template("$a ${b}").substitute(a=1, b=2),
            unicodedata.normalize("NFD", "é").encode("ascii", "ignore").decode(), html.escape("<a>"), string.ascii_lowercase[:3],
            base64.b64encode(b"hi").decode(), hashlib.sha256(b"x").hexdigest()[:8], difflib.get_close_matches("aple", ["apple", "b"]),
            urlparse("http://a.b/c?d=1").netloc, parse_qs("a=1&a=2"), urlencode({"a": "b c"}), quote("a b"),
            "abc".translate(str.maketrans("ab", "xy")), "a-b_c".replace("-", "_").split("_"), " x ".strip().zfill(3), "ab".center(6, "."),
            list(difflib.unified_diff(["a"], ["b"], lineterm=""))[2:], "x".join(map(str, range(3))), "Ab".swapcase().casefold()]
""",
    "numbers": """
import math, statistics, cmath
from decimal import Decimal, ROUND_HALF_UP, getcontext
from fractions import Fraction
def run():
    getcontext().prec = 28
    return [math.sqrt(2), math.gcd(12, 18), math.comb(5, 2), math.isclose(0.1 + 0.2, 0.3), statistics.mean([1, 2, 4]),
            statistics.median([3, 1, 2]), statistics.stdev([1, 2, 3]), str(Decimal("2.675").quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)),
            str(Fraction(1, 3) + Fraction(1, 6)), divmod(17, 5), round(2.567, 2), pow(3, 4, 5), 7 // 2, -7 % 3, 2 ** 10, 2 ** -1, 1e3, int("ff", 16),
            bin(5), hex(255), oct(8), abs(-3), sum([0.1] * 3), max([3, 9, 2], key=lambda v: -v), min("b", "a"), 5 & 3 | 8 ^ 2, ~5, 1 << 4,
            float("inf") > 1, (1 + 2j).real, int.from_bytes(b"\\x01\\x00", "big"), (5).bit_length(), (0.5).as_integer_ratio(), complex(1, 2).imag]
""",
    "dates": """
from datetime import date, datetime, timedelta, timezone
import calendar, time
def run():
    d = datetime(2024, 2, 28, 12, tzinfo=timezone.utc)
    return [(d + timedelta(days=2)).isoformat(), d.strftime("%Y/%m/%d %H:%M"), (date(2024, 3, 1) - date(2024, 2, 1)).days,
            calendar.monthrange(2024, 2)[1], calendar.month_name[2], datetime.fromisoformat("2024-01-01").weekday(),
            time.strftime("%Y", time.gmtime(0)), datetime.strptime("03 Jan 2024", "%d %b %Y").isoformat(), date.min.year]
""",
    "data": """
import csv, io, json, configparser, tomllib, xml.etree.ElementTree as ET, struct, zlib, binascii, shlex, fnmatch
from collections import Counter, OrderedDict, defaultdict, deque, ChainMap
def run():
    rows = list(csv.DictReader(io.StringIO("a,b\\n1,2\\n")))
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=["a", "b"], lineterminator="\\n")
    writer.writeheader()
    writer.writerows(rows)
    groups = defaultdict(list)
    for name in ["bob", "al", "bea"]:
        groups[name[0]].append(name)
    counts = Counter("hello")
    counts["l"] += 5
    queue = deque([1, 2, 3], maxlen=3)
    queue.appendleft(0)
    config = configparser.ConfigParser()
    config.read_string("[s]\\nk = v\\n")
    config["t"] = {"x": "1"}
    saved = io.StringIO()
    config.write(saved)
    root = ET.fromstring("<r><i id='1'>a</i><i>b</i></r>")
    ET.SubElement(root, "i").text = "c"
    root.set("n", "2")
    return [rows, out.getvalue(), groups, counts.most_common(1), list(queue), config.get("s", "k"), config.getint("t", "x"), saved.getvalue(),
            tomllib.loads("a = [1, 2]"), [e.text for e in root.iter("i")], ET.tostring(root, encoding="unicode"), root.find("i").get("id"),
            struct.unpack("<H", struct.pack("<H", 513)), zlib.decompress(zlib.compress(b"abc")).decode(), binascii.hexlify(b"a").decode(),
            shlex.split("a 'b c'"), fnmatch.filter(["a.py", "b"], "*.py"), json.loads(json.dumps({"k": [1, None, True]}, indent=2, sort_keys=True)),
            list(OrderedDict(a=1).items()), ChainMap({"a": 1}, {"b": 2})["b"], io.BytesIO(b"xy").read().decode()]
""",
    "functions as values": """
import functools, operator, bisect, heapq, copy
from typing import Callable, TypeVar
T = TypeVar("T")
Handler = Callable[[int], int]
def logged(label: str):
    def decorate(fn):
        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            return [label, fn.__name__, fn(*args, **kwargs)]
        return wrapper
    return decorate
@logged("x")
def double(n: int) -> int:
    '''Twice.'''
    return n * 2
class Cached:
    hits = 0
    @functools.cached_property
    def value(self):
        Cached.hits += 1
        return 42
    @functools.lru_cache(maxsize=8)
    def square(self, n):
        return n * n
HANDLERS: dict[str, Handler] = {"neg": lambda n: -n, "inc": functools.partial(operator.add, 1)}
def run():
    c = Cached()
    heap = [5, 1, 4]
    heapq.heapify(heap)
    data = {"a": [1]}
    deep = copy.deepcopy(data)
    deep["a"].append(2)
    return [double(4), double.__name__, c.value + c.value, Cached.hits, c.square(3), {k: h(1) for k, h in HANDLERS.items()},
            functools.reduce(operator.mul, [1, 2, 3, 4]), sorted([{"n": 2}, {"n": 1}], key=operator.itemgetter("n")), heapq.heappop(heap),
            bisect.bisect([1, 3, 5], 4), data, deep, sorted(["b", "A"], key=str.lower), list(map(lambda a, b: a + b, [1], [2])),
            sorted([3, 1, 2], key=functools.cmp_to_key(lambda a, b: b - a)), operator.attrgetter("hits")(c), heapq.nlargest(1, [1, 9]),
            list(zip([1, 2], "ab")), list(reversed([1, 2])), any([0, 1]), all([]), callable(double), list(filter(None, [0, 1]))]
""",
    "loops": """
def run():
    out = []
    for i in range(10):
        if i == 2:
            continue
        if i == 5:
            break
        out.append(i)
    else:
        out.append("never")
    n = 3
    while n:
        n -= 1
    else:
        out.append("done")
    matrix = [[1, 2], [3, 4]]
    del matrix[0][0]
    words = "b a".split()
    words[0:1] = ["x", "y"]
    words.sort(reverse=True)
    try:
        del out[99]
    except IndexError:
        out.append("gone")
    return [out, matrix, words, words[::-1], words[-2:], [*map(list, zip(*[(1, 2), (3, 4)]))], 1 if out else 2, not out, 1 < n + 2 <= 3, None is None]
""",
    "private names": """
_TABLE = {"a": 1}
__version__ = "1.0"
__all__ = ["run"]
class _Node:
    __slots__ = ("_value", "next")
    def __init__(self, value, next=None):
        self._value, self.next = value, next
    def _double(self):
        return self._value * 2
def _walk(_node):
    while _node:
        yield _node._double()
        _node = _node.next
def run():
    for _ in range(2):
        pass
    _, keep = (1, 2)
    node = _Node(1, _Node(2))
    return [list(_walk(node)), keep, _TABLE, getattr(node, "_value"), hasattr(node, "_nothing"), hasattr([], "__iter__"), getattr(run, "__name__"), type(node).__name__.strip("_").endswith("Node")]
if __name__ == "__main__":
    import sys
    print(run(), file=sys.stderr)
""",
    "logging and printing": """
import logging
from pprint import pformat
logger = logging.getLogger(__name__)
def run():
    logger.info("working on %s", "x")
    print("hello", end="")
    return pformat({"b": 1, "a": [1, 2]})
""",
}


def plainly(source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.ModuleType("plain")
    monkeypatch.setitem(sys.modules, "plain", module)
    exec(compile(source, "plain", "exec", dont_inherit=True), vars(module))
    return json.loads(json.dumps(module.run(), default=sorted))


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_gives_what_python_gives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PROGRAMS[name]
    report = check(source.encode(), ())
    assert not report.violations
    answer = Session(source, (), lambda *_: None).call("run", {})
    assert answer["ok"], answer["error"]
    assert json.loads(json.dumps(answer["result"])) == plainly(source, monkeypatch)
