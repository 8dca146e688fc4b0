"""kill -9 in the middle of work: what was done stays done, and goes on after the last finished step."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from agentd.cli.client import Client, Endpoint
from tests.e2e.harness import Agentd, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LINES = 20
TASKS = 10
KILLS = 20
MOST_IN_A_LIFE = 5
"""Lines that are written before a kill comes near; all lives together leave some over."""


def words() -> list[dict[str, Any]]:
    """A model that answers by what it is shown, not by what it said before: it may be restarted at any time."""
    often = KILLS + 5  # a life asks each of a task once
    says: list[tuple[list[str], Any]] = [
        (["Make the shortest plan"], {"steps": [{"intent": "Append lines to log.txt"}]}),
        (["Does what was done give"], {"done": True}),
        (["You chose `answer`"], "The lines are written."),
    ]
    for done in range(LINES, -1, -1):
        shown = [f"(now {done} line"] if done > 1 else ["Created log.txt"] if done else ["Append lines"]
        if done == LINES:
            says.append((["What next?", *shown], "answer"))
            continue
        says.append((["Now the value of", *shown], f"```content\nline {done + 1}\n```"))
        mode = "append" if done else "create"
        says.append((["Arguments for write_file", *shown], {"path": "log.txt", "mode": mode}))
        says.append((["What next?", *shown], "write_file"))
    return [{"when": when, "replies": [reply] * often} for when, reply in says]


@pytest.mark.timeout(300)
def test_twenty_kills_at_random_moments_lose_and_double_nothing(fresh: Agentd, tmp_path: Path) -> None:
    script = tmp_path / "words.yaml"
    script.write_text(json.dumps(words()))
    fresh.speak(script)
    fresh.ok("up")
    folders = [tmp_path / f"work{number}" for number in range(TASKS)]
    ids = submitted(fresh, folders)
    fresh.kill()
    chance = random.Random(20)
    for _ in range(KILLS):
        # By work and not by time, so that a quick machine is not done before the last kill.
        enough = written(folders) + chance.randint(1, MOST_IN_A_LIFE)
        daemon = fresh.start("serve")
        wait_for(lambda enough=enough: written(folders) >= enough, 60)
        time.sleep(chance.uniform(0.0, 0.02))
        daemon.kill()
        daemon.communicate()
        assert written(folders) < LINES * TASKS, "no work was left to kill"
    fresh.ok("up")
    states = [fresh.json("show", fresh.json("wait", task)[0]["id"])["state"] for task in ids]
    assert states == ["claimed"] * TASKS
    for folder in folders:
        assert read(folder) == [f"line {number}" for number in range(1, LINES + 1)]
        assert [path.name for path in folder.iterdir()] == ["log.txt"]
    assert fresh.json("audit", "verify")["ok"] is True


def submitted(agentd: Agentd, folders: list[Path]) -> list[str]:
    """Not by ten commands, so that hardly a line is written before the kills."""
    client = Client(Endpoint(path=agentd.home.socket_path))
    for folder in folders:
        folder.mkdir()
    tasks = [{"goal": "Append lines to log.txt", "workspace": str(folder)} for folder in folders]
    return [client.post("/api/tasks", task)["id"] for task in tasks]


def written(folders: list[Path]) -> int:
    return sum(len(read(folder)) for folder in folders)


def read(folder: Path) -> list[str]:
    path = folder / "log.txt"
    return path.read_text().splitlines() if path.exists() else []
