"""kill -9 at every place of the forge, one after the other: nothing half is ever there, and the tool is made once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd.app import build
from agentd.config import Settings, load_settings
from agentd.policy.engine import PolicyEngine
from agentd.types import TaskRequest
from tests.e2e import forge_child
from tests.e2e.harness import Agentd
from tests.e2e.test_forge import CODE, PEOPLE, ROWS, TESTS, WRONG, words

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux"),
]
MOST = 300
"""Lives: far more than there are places."""
ROOT = Path(forge_child.__file__).parents[2]


class Lives:
    """Sends orders to the process that forks them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.e2e.forge_child"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def live(self, home: Path, died: list[str]) -> str | None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"home": str(home), "died": died}) + "\n")
        self.process.stdin.flush()
        place: str | None = json.loads(self.process.stdout.readline())
        return place

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def lives() -> Iterator[Lives]:
    made = Lives()
    yield made
    made.end()


def speech() -> list[dict[str, Any]]:
    """The tests and the code are right at the second attempt, also when a life begins in between."""
    again = "An earlier attempt was refused"
    second = [
        {"when": ["Write the tests of a Python function", again], "replies": [TESTS]},
        {"when": ["Write this Python function", again], "replies": [CODE]},
    ]
    return second + words(tests=["I would write tests."], code=[WRONG])


@pytest.mark.timeout(300)
def test_killed_at_every_place_nothing_half_is_there_and_the_tool_is_made_once(
    lives: Lives, policy: PolicyEngine, tmp_path: Path
) -> None:
    home = Agentd(tmp_path)
    script = tmp_path / "script.yaml"
    script.write_text(json.dumps(speech()), encoding="utf-8")
    home.speak(script)
    home.files({"people.csv": PEOPLE})
    settings = load_settings(home.home.home, {})
    task = submitted(settings, policy, home.workspace)
    died: list[str] = []
    while (place := lives.live(home.home.home, died)) is not None:
        died.append(place)
        assert len(died) < MOST
        whole_or_nothing(settings, policy)
    app = build(settings, policy=policy)
    try:
        assert app.queue.get(task).state.value == "claimed", app.queue.get(task).report
        assert json.loads((home.workspace / "people.json").read_text()) == ROWS
        assert [str(plugin) for plugin in app.plugins.all()] == ["csv_to_json 1"]
        assert app.plugins.folder.found() == [("csv_to_json", 1)]
        assert len([each for each in app.audit.tail(10_000) if each.kind == "plugin.installed"]) == 1
        assert app.plugins.get("csv_to_json").evidence.attempts == 2
        assert app.audit.verify().ok
    finally:
        app.stop()
    ways = "\n".join(died)
    for arrow in ("_specified", "_like", "_examined", "_frozen", "_coded", "_wrong", "_strengthened", "_unreviewed"):
        assert f"forge.{arrow}:" in ways, arrow
    for act in ("half of plugin.py", "half of signature", "before a rename", "after a rename", "registry.install"):
        assert act in ways, act


def submitted(settings: Settings, policy: PolicyEngine, workspace: Path) -> str:
    """A task that waits for the first life."""
    app = build(settings, policy=policy)
    try:
        request = TaskRequest(goal="Convert people.csv to people.json", workspace=str(workspace))
        return app.queue.submit(request).id
    finally:
        app.stop()


def whole_or_nothing(settings: Settings, policy: PolicyEngine) -> None:
    """What the next start would find: a plugin is there with its row and exactly as it was signed, or it has no row."""
    app = build(settings, policy=policy)
    try:
        rows = app.plugins.all()
        for plugin in rows:
            assert app.plugins.folder.read(plugin.name, plugin.version).digest == plugin.digest
        app.loader.refresh()
        assert ("csv_to_json" in app.tools) == bool(rows)
    finally:
        app.stop()
