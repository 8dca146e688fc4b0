"""Nothing but SQLite opens the database's files: closing another descriptor of one drops SQLite's locks on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.store.conftest import ROOT, python

PACKAGE = ROOT / "agentd"
OPENERS = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "touch", "copy", "copy2", "copyfile", "move"}
FILES_OF_ITS_OWN = {"ballast.py", "backup.py", "lock.py"}


def openings(tree: ast.AST) -> Iterator[str]:
    """The source of every call that opens a file by path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in OPENERS:
                yield ast.unparse(node)


def test_the_package_opens_no_database_file() -> None:
    for file in sorted(PACKAGE.rglob("*.py")):
        for call in openings(ast.parse(file.read_text(encoding="utf-8"))):
            assert "db_path" not in call, f"{file}: {call}"
            assert "agentd.db" not in call, f"{file}: {call}"


def test_the_store_opens_only_other_files() -> None:
    for file in sorted((PACKAGE / "store").glob("*.py")):
        calls = [
            call for call in openings(ast.parse(file.read_text(encoding="utf-8"))) if "entry.read_text" not in call
        ]
        assert file.name in FILES_OF_ITS_OWN or not calls, f"{file}: {calls}"


def test_the_test_sees() -> None:
    tree = ast.parse("open(settings.db_path)\nshutil.copy('state/agentd.db', x)\nhome.db_path.read_bytes()\nother()")
    assert len(list(openings(tree))) == 3


def test_at_run_time_nothing_but_sqlite_opens_it(path: Path, tmp_path: Path) -> None:
    code = """
import pathlib, sys
from agentd.clock import SystemClock
from agentd.errors import AlreadyRunning
from agentd.events import Bus
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.store.lock import DaemonLock
from agentd.store.outputs import Outputs
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
path, clock = pathlib.Path(sys.argv[1]), SystemClock()
lock = DaemonLock.acquire(path.parent)
for _ in range(2):
    db = Database(path, clock=clock, ballast_mb=1)
    audit = Audit(db, clock)
    audit.record("test", "", {})
    EventLog(db, Bus(), clock).emit("Test", "", {})
    Outputs(db, clock).put("", "text")
    assert audit.verify().ok
    db.close()
db = Database(path, clock=clock)
db.backup(pathlib.Path(sys.argv[2]))
db.close()
lock.release()
assert any(name.endswith("agentd.lock") for name in opened)  # the hook sees
print([name for name in opened if "agentd.db" in name])
"""
    assert python(code, path, tmp_path / "copy.db").stdout == "[]\n"
