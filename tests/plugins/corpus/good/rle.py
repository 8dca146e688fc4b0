# {"text": "aaabcc"} -> {"coded": "3a1b2c", "back": "aaabcc"}
import re
from itertools import groupby


def encode(text):
    return "".join(f"{len(list(group))}{char}" for char, group in groupby(text))


def decode(coded):
    return "".join(int(n) * c for n, c in re.findall(r"(\d+)(\D)", coded))


def run(text):
    coded = encode(text)
    return {"coded": coded, "back": decode(coded)}
