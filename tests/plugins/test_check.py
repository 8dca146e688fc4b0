"""The static gate: each rule refuses what it is there for, with its line, and lets ordinary code pass."""

from __future__ import annotations

import time

import pytest

from agentd.sandbox.guest.gate import MAX_BRACKETS, MAX_BRANCHES, MAX_BYTES, MAX_LINES, MAX_NODES, check

RUN = "def run():\n    return 1\n"
LONG_CHAIN = "def run(a):\n    return a" + ".b()" * 400 + "\n"

REFUSED = {
    "size": ("# " + "x" * MAX_BYTES, "size", 1),
    "empty": ("\n\n", "empty", 1),
    "parts": (f"X = [{'1,' * MAX_NODES}]\n{RUN}", "size", 1),
    "syntax": ("def run(:\n", "syntax", 1),
    "prose": ("Here is the plugin you asked for.\n", "syntax", 1),
    "nul": ("X = 1\n\0" + RUN, "invisible", 2),
    "bidi in a comment": ("# \u202e\n" + RUN, "invisible", 1),
    "zero width in a text": (RUN + "X = 'a\u200bb'\n", "invisible", 3),
    "line separator": (RUN + "# a\u2028b\n", "invisible", 3),
    "file separator": (RUN + "# a\x1cb\n", "invisible", 3),
    "brackets": (f"X = {'(' * (MAX_BRACKETS + 1)}1{')' * (MAX_BRACKETS + 1)}\n{RUN}", "brackets", 1),
    "a thousand brackets": (f"X = {'(' * 2_000}1{')' * 2_000}\n{RUN}", "syntax", 1),
    "long chain": (LONG_CHAIN, "nesting", 2),
    "identifier": ("def run():\n    größe = 1\n    return größe\n", "identifier", 2),
    "full width identifier": ("def run():\n    return ｅval('1')\n", "identifier", 2),
    "import": ("import subprocess\n" + RUN, "import", 1),
    "import inside": ("def run():\n    import socket\n    return socket\n", "import", 2),
    "import not granted": ("import files\n" + RUN, "import", 1),
    "import of what a module does not offer": ("from functools import GenericAlias\n" + RUN, "import", 1),
    "try at the top": ("try:\n    print(1)\nfinally:\n    pass\n" + RUN, "effect", 1),
    "relative import": ("from . import os\n" + RUN, "import", 1),
    "star import": ("from math import *\n" + RUN, "star-import", 1),
    "call at the top": (RUN + "run2 = print('x')\n", "effect", 3),
    "statement at the top": (RUN + "run()\n", "effect", 3),
    "loop at the top": (RUN + "for i in range(3):\n    print(i)\n", "effect", 3),
    "a branch at the top": (RUN + "if run():\n    open('a')\n", "effect", 3),
    "a condition at the top that does something": (RUN + "if print(1):\n    X = 1\n", "effect", 3),
    "an item at the top by a call": (RUN + "X = {}\nX[print(1)] = 2\n", "effect", 4),
    "an import that may fail and nothing catches": ("try:\n    import numpy\nfinally:\n    pass\n" + RUN, "import", 2),
    "attributes by name": ("def run(a):\n    a.__dict__ = {}\n", "attribute", 2),
    "arguments in what is called": ("import argparse\ndef run():\n    return argparse\n", "import", 1),
    "a tool of scripts in the only function": (
        "import argparse\ndef run():\n    return argparse\nif __name__ == '__main__':\n    run()\n",
        "import",
        1,
    ),
    "open at the top": (RUN + "X = open('a').read()\n", "effect", 3),
    "great power": (RUN + "X = 2 ** 100000\n", "effect", 3),
    "dunder": ("def run():\n    return ().__class__.__bases__\n", "attribute", 2),
    "frame": ("def run(e):\n    return e.tb_frame\n", "attribute", 2),
    "getattr": ("def run(a, b):\n    return getattr(a, b)\n", "computed-attribute", 2),
    "getattr of a dunder": ("def run(a):\n    return getattr(a, '__dict__')\n", "attribute", 2),
    "eval": ("def run(a):\n    return eval(a)\n", "name", 2),
    "builtins": ("def run():\n    return __builtins__\n", "name", 2),
    "async": ("async def f(): pass\n" + RUN, "async", 1),
    "branches": ("def run(a):\n" + "    if a: pass\n" * (MAX_BRANCHES + 1), "complexity", 1),
    "lines": ("def run(a):\n" + "    a += 1\n" * MAX_LINES, "length", 1),
    "endless": ("def run(a):\n    while True:\n        a += 1\n", "endless", 2),
    "no entry": ("def _run():\n    return 1\n", "no-entry", 1),
    "metaclass": ("class M(metaclass=print): pass\n" + RUN, "language", 1),
    "except star": ("def run():\n    try:\n        pass\n    except* ValueError:\n        pass\n", "language", 2),
}

ACCEPTED = {
    "a name that is no longer built in": "def run(input, dir=None):\n    return [input, dir]\n",
    "constants": "import re\nX: int = 60 * 60\nWORD = re.compile(r'\\w+')\nSTOP = frozenset('a b'.split())\n" + RUN,
    "a table by a function": "def make():\n    return {1: 2}\nTABLE = make()\n",
    "tables that are filled": "T = {}\nfor n in range(3):\n    T[n] = n * n\nT.update(a=1)\nT['b'] = 2\n" + RUN,
    "a choice of constants": "A = 1\nif A > 2:\n    B = 1\nelse:\n    B = 2\nassert B == 2\ndel A\n" + RUN,
    "an import that may fail": "try:\n    import numpy as np\nexcept ImportError:\n    np = None\n" + RUN,
    "arguments of a script": "import argparse\n" + RUN + "def main():\n    argparse.ArgumentParser()\n"
    "if __name__ == '__main__':\n    main()\n",
    "tests beside it": "import unittest\n" + RUN + "class T(unittest.TestCase):\n    pass\n"
    "if __name__ == '__main__':\n    unittest.main()\n",
    "a comprehension": "SQUARES = [n * n for n in range(3)]\n" + RUN,
    "a main guard": RUN + "if __name__ == '__main__':\n    print(run())\n",
    "a loop that ends": "def run(n):\n    while True:\n        n += 1\n        if n > 9:\n            return n\n",
    "brackets in texts": "def run():\n    return ['" + "(" * 200 + "']\n",
    "a private helper": "_X = 1\ndef _help(a): return a\ndef run(): return _help(_X)\n",
    "a byte order mark": "\ufeff" + RUN,
    "the lines of Windows": RUN.replace("\n", "\r\n"),
    "letters in texts": "def run():\n    return 'größe'\n",
    "the annotations of the future": "from __future__ import annotations\n" + RUN,
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses(case: str) -> None:
    source, rule, line = REFUSED[case]
    report = check(source.encode(), ())
    assert (rule, line) in {(found.rule, found.line) for found in report.violations}, report.violations
    assert all(found.message for found in report.violations)
    assert report.code is None


@pytest.mark.parametrize("case", ACCEPTED)
def test_it_accepts(case: str) -> None:
    report = check(ACCEPTED[case].encode(), ())
    assert report.violations == []
    assert report.code is not None


def test_it_refuses_what_is_not_utf8() -> None:
    assert check(b"x = '\xff'", ()).violations[0].rule == "encoding"


def test_a_capability_is_imported_when_it_is_granted() -> None:
    source = b"import files\ndef run():\n    return files.list()\n"
    assert check(source, {"files"}).violations == []
    assert "spec" in check(source, ()).violations[0].hint


def test_entries_are_the_public_functions_in_their_order() -> None:
    source = b"def two(): pass\ndef _hidden(): pass\nclass C:\n    def method(self): pass\ndef one(): pass\n"
    assert check(source, ()).entries == ["two", "one"]


def test_two_hundred_lines_take_less_than_300_ms() -> None:
    body = "(rows, key='a'):\n    found = {}\n    for row in rows:\n        found[row[key]] = row\n    return found\n"
    source = "".join(f"def f{n}{body}" for n in range(40)).encode()
    assert source.count(b"\n") == 200
    check(source, ())
    started = time.process_time()
    assert check(source, ()).violations == []
    assert time.process_time() - started < 0.3
