"""What is in the vault, and what looks like a key, stays out of prompts, logs, records and all that is shown."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Agentd
from tests.e2e.test_flow import OFTEN, PYTEST, answer, git, turn

pytestmark = pytest.mark.e2e

VAULTED = "correct horse battery staple"
KEY = "ghp_" + "0aB1cD2eF3" * 3 + "4gH5iJ"
BOTH = (VAULTED, KEY)
GOAL = "Tidy the settings"
SETTINGS = f"import os\n\nos.environ['A'] = '{VAULTED}'\nos.environ['B'] = '{KEY}'\nSPEED = 1\n"
TESTS = "import os\n\n\ndef test_settings():\n    print(os.environ['A'])\n    assert os.environ['B'] == 'none'\n"
KEPT = ("pieces", "content_pieces")
"""Tables that have contents of files as they were, so that they can be put back: the only place for secrets."""
PIECES = "SELECT data, packed FROM pieces"


def entries() -> list[dict[str, object]]:
    edit = {"path": "conftest.py", "all": False}
    return [
        *({"when": secret, "replies": [{"steps": [{"intent": "give it away"}]}] * OFTEN} for secret in BOTH),
        {
            "when": "Make the shortest plan",
            "replies": [{"steps": [{"intent": "Read the file conftest.py, then replace text in it"}]}] * OFTEN,
        },
        {"when": "Does what was done give", "replies": [{"done": True}] * OFTEN},
        *answer(GOAL, "Result of edit_file", "I have tidied conftest.py."),
        *turn(GOAL, "Result of read_file", "edit_file", edit, "```search\nSPEED = 1\n```\n```replace\nSPEED = 2\n```"),
        *turn(GOAL, "", "read_file", {"path": "conftest.py"}),
    ]


@pytest.fixture
def agentd(tmp_path: Path) -> Iterator[Agentd]:
    (tmp_path / "script.yaml").write_text(json.dumps(entries()), encoding="utf-8")
    made = Agentd(tmp_path)
    made.speak(tmp_path / "script.yaml")
    (made.home.home / "agentd.toml").write_text('[log]\nlevel = "debug"\n', encoding="utf-8")
    made.files({"conftest.py": SETTINGS, "test_settings.py": TESTS, ".gitignore": "__pycache__/\n"})
    git(made, "init", "-q", "-b", "main")
    made.ok("secret", "set", "box", stdin=VAULTED)
    yield made
    made.stop()


@pytest.mark.slow
def test_secrets_stay_where_they_are(agentd: Agentd) -> None:
    asked = agentd.run("run", "--level", "2", "--check", PYTEST, f"{GOAL}, with {VAULTED} and {KEY}")
    assert asked.returncode == 6, asked.stderr
    task = agentd.json("ps", "-a")[0]["id"]
    waiting = [agentd.ok("inbox"), agentd.ok("inbox", "--json")]
    assert "+SPEED = 2" in waiting[0]
    assert "[left out: secret of the vault]" in waiting[0]
    agentd.ok("approve", task)
    agentd.run("wait", task)
    assert (agentd.workspace / "conftest.py").read_text() == SETTINGS.replace("SPEED = 1", "SPEED = 2")
    assert agentd.json("show", task)["report"]["reason"].count("[left out: GitHub token]")
    shown = [
        *(asked.stdout, asked.stderr, *waiting),
        *(agentd.ok(*words) for words in views(task)),
    ]
    for text in [*shown, *mistakes(agentd)]:
        assert not [secret for secret in BOTH if secret in text], text
    agentd.ok("down")
    for where, data in everything(agentd):
        assert not [secret for secret in BOTH if secret.encode() in data], where


def views(task: str) -> list[tuple[str, ...]]:
    return [
        ("ps", "-a"),
        ("show", task),
        ("show", task, "--json"),
        ("logs", task),
        ("logs", task, "--json"),
        ("report",),
        ("report", "--json"),
        ("diff", task),
        ("diff", task, "--json"),
        ("audit", "tail", "--json"),
        ("policy", "explain", task),
    ]


def mistakes(agentd: Agentd) -> Iterator[str]:
    """What is quoted where something is wrong, for a person and in the log."""
    unknown = agentd.run("show", VAULTED)
    assert "there is no task '[left out: secret of the vault]'" in unknown.stderr
    yield unknown.stderr
    catalog = agentd.home.models_dir / "catalog.toml"
    catalog.write_text(f'{catalog.read_text()}["{VAULTED}"]\n')
    yield agentd.run("model", "ls").stderr
    log = (agentd.home.log_dir / "agentd.log").read_text()
    assert "[left out: secret of the vault]" in log
    yield log


def everything(agentd: Agentd) -> Iterator[tuple[str, bytes]]:
    """Every byte of the state but the contents of files, which are true."""
    state = agentd.home.state_dir
    for path in state.rglob("*"):
        if path.is_file() and not path.name.startswith(agentd.home.db_path.name):
            yield str(path), path.read_bytes()
    copy = state / "copy.db"
    with sqlite3.connect(agentd.home.db_path) as db:
        db.execute("VACUUM INTO ?", (str(copy),))
    with sqlite3.connect(copy) as db:
        kept = [zlib.decompress(data) if packed == 1 else data for data, packed in db.execute(PIECES)]
        assert any(KEY.encode() in data for data in kept)
        for table in KEPT:
            db.execute(f"DELETE FROM {table}")
    with sqlite3.connect(copy) as db:
        db.execute("VACUUM")
    yield "agentd.db", copy.read_bytes()
