"""The parts of a daemon with its HTTP application, in this process; no worker runs, so tests decide what tasks do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from agentd.api.http import create_app
from agentd.app import App, build
from agentd.config import load_settings
from agentd.policy.engine import PolicyEngine
from agentd.types import Task, TaskRequest


@dataclass
class Served:
    """An app and a client of it; `stops` counts the requests to shut down."""

    app: App
    workspace: Path
    stops: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = create_app(self.app, shut_down=lambda: self.stops.append(True))
        self.client = TestClient(self.api, raise_server_exceptions=False)

    def submit(self, goal: str = "look") -> Task:
        return self.app.queue.submit(TaskRequest(goal=goal, workspace=str(self.workspace)))


@pytest.fixture
def served(home: Path, tmp_path: Path, policy: PolicyEngine) -> Iterator[Served]:
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "notes.txt").write_text("milk\nbread\n")
    app = build(load_settings(home), policy=policy)
    yield Served(app, workspace)
    app.stop()
