# {"parts": ["1/2", "1/3"]} -> "5/6"
from fractions import Fraction
from functools import reduce


def run(parts):
    return str(reduce(lambda a, b: a + b, map(Fraction, parts)))
