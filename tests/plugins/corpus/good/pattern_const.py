# {} -> [[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}], {"a": 0, "b": 1}, 6, [["four", 4], ["three", 3], ["two", 2], ["one", 1]], 1048576, 3, 1024, -5, 0.3333333333333333, ["a b"]]
import re

PATTERN = re.compile(r"(?P<key>\w+)\s*=\s*(?P<value>[^;]+)")
TABLE = {name: index for index, name in enumerate(["a", "b"])}
WORDS = "one two three".split()
UNITS = dict(zip(WORDS, range(1, 4)))
LOOKUP = {**UNITS, "four": 4}
TOTAL = sum(UNITS.values())
SORTED = sorted(LOOKUP.items(), key=lambda kv: -kv[1])
LINES = """
a b
""".strip().splitlines()
MAX = 1024 * 1024
BIG = 2 ** 10
NEG = -5
RATE = 1 / 3
OPS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b}


def run():
    return [[m.groupdict() for m in PATTERN.finditer("a = 1; b=2")], TABLE, TOTAL, SORTED, MAX, OPS["+"](1, 2), BIG, NEG, RATE, LINES]
