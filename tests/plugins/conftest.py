"""A home for plugins with a real store, and plugins to put there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentd.events import Bus
from agentd.plugins.folder import CODE, GUIDE, TESTS, PluginFolder
from agentd.plugins.registry import Plugin, Registry
from agentd.plugins.spec import Evidence, Example, Manifest, Permissions, Spec
from agentd.sandbox.os_executor import OsExecutor
from agentd.security.signing import Signer
from agentd.store.audit import Audit, AuditRecord
from agentd.store.db import Database
from agentd.store.eventlog import EventLog

CONVERT = '''"""Turn CSV into JSON."""

import csv
import io
import json

import files


def csv_to_json(path, target):
    """Convert a CSV file; returns how many rows it had."""
    rows = list(csv.DictReader(io.StringIO(files.read_text(path))))
    files.write_text(target, json.dumps(rows))
    return {"rows": len(rows)}
'''
ADD = '''def add(a, b=1):
    """Add two numbers."""
    return a + b
'''
ADD_TESTS = """import plugin


def test_two_numbers():
    assert plugin.NAME(a=20, b=22) == 42


def test_one_is_added_where_nothing_is_said():
    assert plugin.NAME(a=1) == 2
    assert plugin.NAME(a=-1) == 0


def test_below_nothing():
    assert plugin.NAME(a=-5, b=-7) == -12


def test_nothing():
    assert plugin.NAME(a=3, b=0) == 3


def test_large_numbers():
    assert plugin.NAME(a=10**12, b=1) == 10**12 + 1
"""
CONVERT_TESTS = """import files
import json
import plugin


def convert(text):
    files.write_text("in.csv", text)
    result = plugin.csv_to_json(path="in.csv", target="out.json")
    return result["rows"], json.loads(files.read_text("out.json"))


def test_two_rows():
    assert convert("a,b\\n1,2\\n3,4\\n") == (2, [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}])


def test_header_alone():
    assert convert("a,b\\n") == (0, [])


def test_quoted():
    assert convert('a\\n"x,y"\\n') == (1, [{"a": "x,y"}])


def test_text_as_it_is():
    convert("a\\nx\\n")
    assert files.read_text("out.json") == '[{"a": "x"}]'


def test_missing_file():
    try:
        plugin.csv_to_json(path="none.csv", target="out.json")
    except plugin.Error:
        assert not files.exists("out.json")
        return
    assert plugin is None, "it should have failed"
"""
INTEGER = {"type": "integer"}


def adding(name: str = "add", **more: Any) -> Spec:
    fields: dict[str, Any] = {
        "name": name,
        "purpose": "Add two numbers.",
        "input": {"type": "object", "properties": {"a": INTEGER, "b": INTEGER | {"default": 1}}, "required": ["a"]},
        "output": INTEGER,
        "examples": (
            Example(args={"a": 1, "b": 2}, result=3),
            Example(args={"a": 5}, result=6),
            Example(args={"a": 0, "b": 0}, result=0),
        ),
        "requests": ("Add {a} and {b}",),
    }
    return Spec(**fields | more)


def converting(**more: Any) -> Spec:
    fields: dict[str, Any] = {
        "name": "csv_to_json",
        "purpose": "Convert a CSV file into a JSON file.",
        "input": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "x-grounding": "file", "description": "the CSV file"},
                "target": {"type": "string", "x-grounding": "new_path"},
            },
            "required": ["path", "target"],
        },
        "output": {"type": "object", "properties": {"rows": INTEGER}, "required": ["rows"]},
        "examples": (
            Example(
                args={"path": "a.csv", "target": "a.json"},
                result={"rows": 1},
                files={"a.csv": "n\n1\n"},
                files_after={"a.json": '[{"n": "1"}]'},
            ),
            Example(
                args={"path": "b.csv", "target": "b.json"},
                result={"rows": 0},
                files={"b.csv": "n\n"},
                files_after={"b.json": "[]"},
            ),
            Example(
                args={"path": "c.csv", "target": "c.json"},
                result={"rows": 2},
                files={"c.csv": "n,m\n1,2\n3,4\n"},
                files_after={"c.json": '[{"n": "1", "m": "2"}, {"n": "3", "m": "4"}]'},
            ),
        ),
        "requests": ("Convert {path} to {target}", "Turn {path} into {target}"),
        "permissions": Permissions(read=("**/*.csv",), write=("**/*.json",)),
    }
    return Spec(**fields | more)


def contents(code: str = ADD) -> dict[str, bytes]:
    return {CODE: code.encode(), TESTS: b"def test_it():\n    assert True\n", GUIDE: b"# Guide\n"}


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class House:
    """A registry over a real database and folder."""

    home: Path
    clock: Hands = field(default_factory=Hands)

    def __post_init__(self) -> None:
        self.signer = Signer(self.home / "state" / "plugins.key")
        self.folder = PluginFolder(self.home / "plugins_generated", self.signer)
        self.db = Database(self.home / "state" / "agentd.db", clock=self.clock)
        self.audit = Audit(self.db, self.clock)
        self.events = EventLog(self.db, Bus(), self.clock)
        self.registry = self.opened()

    def opened(self, language: str = "python 1") -> Registry:
        """A registry as another start of the daemon would have it."""
        return Registry(self.db, self.audit, self.events.emit, self.clock, self.folder, language=language)

    def install(
        self, spec: Spec | None = None, code: str = ADD, *, author: str = "agent", imports: Sequence[str] = ()
    ) -> Plugin:
        spec = spec or adding()
        manifest = Manifest(
            version=self.registry.next_version(spec.name),
            spec=spec,
            evidence=Evidence.model_validate({"author": author, "imports": imports}),
        )
        return self.registry.install(manifest, contents(code))

    def records(self, kind: str) -> list[AuditRecord]:
        return [record for record in self.audit.tail(1000) if record.kind == kind]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [dict(event.data) for event in self.events.since(0) if event.kind == kind]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "home")
    yield made
    made.db.close()


@pytest.fixture(scope="module")
def executor() -> Iterator[OsExecutor]:
    made = OsExecutor()
    yield made
    made.close()
