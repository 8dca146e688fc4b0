"""A session answers every call with JSON: what the function gave, or why it did not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from agentd.sandbox.guest.session import Session


class Files:
    """A workspace in memory that answers a plugin's requests."""

    def __init__(self, **files: str) -> None:
        self.files = {name.replace("_", "."): text.encode() for name, text in files.items()}
        self.asked: list[str] = []

    def __call__(self, name: str, words: dict[str, Any]) -> Any:
        json.dumps(words)
        self.asked.append(name)
        path = words.get("path", "")
        if name.startswith("files.read") and path not in self.files:
            raise FileNotFoundError(f"there is no {path}")
        match name:
            case "files.read_text":
                return self.files[path].decode(words["encoding"])
            case "files.read_bytes":
                return base64.b64encode(self.files[path]).decode()
            case "files.exists":
                return path in self.files
            case "files.list":
                return sorted(self.files)
            case "files.write_text":
                before = self.files.get(path, b"") if words["append"] else b""
                self.files[path] = before + words["text"].encode(words["encoding"])
            case "files.write_bytes":
                before = self.files.get(path, b"") if words["append"] else b""
                self.files[path] = before + base64.b64decode(words["data"])
            case "http.get":
                return {"status": 200, "headers": {}, "text": '{"url": "' + words["url"] + '"}'}
            case "plugin.call":
                if words["entry"] == "broken":
                    raise ValueError("it broke")
                return words["args"]
        return None


def nobody(name: str, words: dict[str, Any]) -> Any:
    raise PermissionError(f"{name} is not offered")


def run(body: str, *, args: dict[str, Any] | None = None, top: str = "", **options: Any) -> dict[str, Any]:
    """The answer of a function `run` with this body."""
    parameters = ", ".join(args or {})
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    session = Session(
        f"{top}\ndef run({parameters}):\n{lines}\n", options.pop("grants", ()), options.pop("ask", nobody), **options
    )
    return session.call("run", args or {})


RESULTS = {
    "tuples and sets": ("return (1, {3, 1, 2}, frozenset('a'))", [1, [1, 2, 3], ["a"]]),
    "keys": ("return {1: 'a', None: 'b', True: 'c', 1.5: 'd'}", {"1": "c", "null": "b", "1.5": "d"}),
    "dates": (
        "import datetime as d\nreturn [d.date(2024, 1, 2), d.datetime(2024, 1, 2, 3)]",
        ["2024-01-02", "2024-01-02T03:00:00"],
    ),
    "decimals": ("from decimal import Decimal\nreturn [Decimal('1.50'), Decimal('2')]", [1.5, 2]),
    "bytes": ("return [b'abc', bytes([255])]", ["abc", "/w=="]),
    "generators and views": (
        "return [(i for i in range(2)), {1: 2}.keys(), map(str, [1]), range(2)]",
        [[0, 1], [1], ["1"], [0, 1]],
    ),
    "counters": (
        "from collections import Counter, deque\nreturn [Counter('aab'), deque([1])]",
        [{"a": 2, "b": 1}, [1]],
    ),
    "paths": ("from pathlib import Path\nreturn Path('a') / 'b.txt'", "a/b.txt"),
    "lone surrogates": ("return chr(0xD800)", "?"),
    "a time by its form": (
        "from datetime import datetime\nreturn datetime.strptime('2024-01-02', '%Y-%m-%d')",
        "2024-01-02T00:00:00",
    ),
    "an error of json": (
        "import json\ntry:\n    json.loads('{')\nexcept json.JSONDecodeError as error:\n    return error.lineno",
        1,
    ),
    "older super": ("return Child().x", 2),
}
TOP = """
class Base:
    def __init__(self): self.x = 2
class Child(Base):
    def __init__(self): super(Child, self).__init__()
"""


@pytest.mark.parametrize("case", RESULTS)
def test_a_result_becomes_plain_json(case: str) -> None:
    body, expected = RESULTS[case]
    answer = run(body, top=TOP)
    assert answer == {"ok": True, "result": expected, "printed": ""}
    json.dumps(answer, allow_nan=False)


FAILURES = {
    "an exception": ("raise ValueError('no such row')", "ValueError: no such row", None),
    "an exit": ("raise SystemExit(3)", "SystemExit: 3", None),
    "memory": ("raise MemoryError", "MemoryError", "memory"),
    "recursion": ("return run()", "RecursionError: ", None),
    "not a number": ("return float('nan')", "ValueError: the result holds nan", None),
    "an object": ("return object()", "TypeError: the result holds a object", None),
    "a key": ("return {(1, 2): 3}", "TypeError: the result has a tuple as a key", None),
    "a circle": ("a = []\na.append(a)\nreturn a", "ValueError: the result is nested", None),
    "a great number": ("return 1 << 100_000", "ValueError: the result holds an int of", None),
    "a great power": ("return 10 ** 10 ** 10", "OverflowError: a power of about", None),
    "an error without words": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E()",
        "E: (its text",
        None,
    ),
    "no file": ("return open('a').read()", "PermissionError: files.read_text is not granted", "refused"),
    "no module": ("import socket", "ModuleNotFoundError: the module 'socket'", "refused"),
    "a repeated repetition": ("import re\nreturn re.match('(a+)+$', 'a' * 40 + 'b')", "error: the pattern", None),
    "entities": ("import xml.etree.ElementTree as E\nreturn E.fromstring('<!DOCTYPE a><a/>')", "ParseError: ", None),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_told(case: str) -> None:
    body, error, limit = FAILURES[case]
    answer = run(body)
    assert not answer["ok"]
    assert answer["error"].startswith(error)
    assert answer["limit"] == limit
    assert len(answer["error"]) < 3_000


@pytest.mark.parametrize(
    "body", ["return 'x' * 2_000", "return ['x'] * 2_000", "import itertools\nreturn (1 for _ in itertools.count())"]
)
def test_a_result_has_its_bound(body: str) -> None:
    answer = run(body, output_bytes=1_000)
    assert (answer["ok"], answer["limit"]) == (False, "output")


def test_what_is_printed_is_kept_and_bounded_for_each_call() -> None:
    session = Session("def run(n):\n    print('a', 1, sep='-')\n    print('x' * n)\n", (), nobody, output_bytes=16_000)
    assert session.call("run", {"n": 1})["printed"] == "a-1\nx\n"
    assert len(session.call("run", {"n": 100_000})["printed"]) == 1_000
    assert session.call("run", {"n": 1})["printed"] == "a-1\nx\n"


def test_a_module_that_does_not_load_answers_every_call_with_that() -> None:
    for source, error in (
        ("def run(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = ().__class__.__mro__", "Refused: line 1"),
    ):
        session = Session(source, (), nobody)
        assert session.call("run", {})["error"].startswith(error)
        assert session.call("run", {})["ok"] is False


def test_only_public_functions_of_the_plugin_are_called() -> None:
    session = Session("from json import dumps\n_X = 1\ndef run(): pass\ndef _hidden(): pass\n", (), nobody)
    for name in ("dumps", "_hidden", "_getattr_", "__builtins__", "nothing"):
        assert session.call(name, {})["error"].startswith("NameError")
    assert "there are run" in session.call("nothing", {})["error"]


def test_calls_share_memory_and_the_seed_makes_chance_repeatable() -> None:
    body = "SEEN.append(1)\n    return [len(SEEN), random.random(), uuid.uuid4()]"
    source = f"import random, uuid\nSEEN = []\ndef run():\n    {body}\n"
    first, second = Session(source, (), nobody, seed=7), Session(source, (), nobody, seed=7)
    answers = [first.call("run", {})["result"], first.call("run", {})["result"]]
    assert [answer[0] for answer in answers] == [1, 2]
    assert answers == [second.call("run", {})["result"], second.call("run", {})["result"]]
    assert Session(source, (), nobody, seed=8).call("run", {})["result"][1] != answers[0][1]


def test_files_are_requests() -> None:
    files = Files(people_csv="name,age\nAda,36\n")
    body = (
        "import csv, json\nfrom pathlib import Path\n"
        "with open('people.csv', newline='') as f:\n    rows = list(csv.DictReader(f))\n"
        "with open('people.json', 'w') as f:\n    json.dump(rows, f)\n"
        "with open('log', 'a') as f:\n    print('one', file=f)\n"
        "open('log', 'a').write('two')\n"
        "Path('raw').write_bytes(b'\\xff')\n"
        "return [rows, Path('raw').read_bytes() == b'\\xff', Path('nothing').exists()]"
    )
    answer = run(body, grants=["files"], ask=files)
    assert answer["result"] == [[{"name": "Ada", "age": "36"}], True, False]
    assert files.files["people.json"] == b'[{"name": "Ada", "age": "36"}]'
    assert files.files["log"] == b"one\ntwo"


def test_the_other_capabilities() -> None:
    files = Files()
    answer = run("import http\nreturn http.get('https://a.b').json()", grants=["http"], ask=files)
    assert answer["result"] == {"url": "https://a.b"}
    call = "try:\n    plugin.broken()\nexcept plugin.Error as error:\n    return [str(error), plugin.convert(a=1)]"
    body = f"import plugin\n{call}"
    assert run(body, grants=["plugin"], ask=files)["result"] == ["it broke", {"a": 1}]


def test_nothing_is_asked_while_a_module_is_loaded() -> None:
    files = Files(a="1")
    session = Session("X = open('a').read()\ndef run(): return X\n", ["files"], files)
    assert session.call("run", {})["error"].startswith("PermissionError: files.read_text while the module is loaded")
    assert files.asked == []


def test_the_limits_of_what_is_changed() -> None:
    for statement in (
        "json.dumps = 1",
        "json.JSONEncoder.default = 1",
        "(1).x = 2",
        "json.loads.x = 1",
        "del json.dumps",
    ):
        assert not run(f"import json\n{statement}")["ok"], statement


LYING = """
class T(str):
    def __getitem__(self, i): return "y" * 3_000_000
    def __len__(self): return 0
class S(str):
    def __getitem__(self, i): raise ValueError("x")
    def __add__(self, other): return T("a")
    def __radd__(self, other): return T("a")
    def join(self, parts): return S("b")
class X(Exception):
    def __str__(self): return S("hello")
"""


def test_an_error_whose_text_lies_is_told_all_the_same() -> None:
    source = LYING + "def run():\n    raise X()\n"
    assert Session(source, [], Files()).call("run", {})["error"] == "X: hello"


@pytest.mark.parametrize("option", ["sep", "end"])
def test_a_text_that_lies_about_its_length_is_not_printed_at_length(option: str) -> None:
    source = LYING + f"def run():\n    print('a', 'c', {option}=S('b'))\n"
    answer = Session(source, [], Files()).call("run", {})
    assert answer["ok"]
    assert len(answer["printed"]) < 10
