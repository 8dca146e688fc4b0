"""A real home, store, policy and gate; only the model is a list of words."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agentd.app import App, build
from agentd.config import init_home, load_settings
from agentd.errors import ModelError
from agentd.policy.engine import PolicyEngine
from agentd.tasks.journal import TaskJournal
from agentd.types import Budget, Check, Model, ModelProfile, ModelReply, ModelRequest, Report, Score, TaskRequest


class Words:
    """Says the given words in turn; keeps what it was asked. A mapping is said as JSON."""

    name = "words"
    profile = ModelProfile()

    def __init__(self, *words: object) -> None:
        self._words = [word if isinstance(word, str) else json.dumps(word) for word in words]
        self.asked: list[ModelRequest] = []

    @property
    def left(self) -> list[str]:
        return self._words[len(self.asked) :]

    def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
        if not self.left:
            raise ModelError(f"no words left for {request.messages[-1].content!r}")
        text = self.left[0]
        self.asked.append(request)
        return ModelReply(text=text, model=self.name, prompt_tokens=10, completion_tokens=5, seconds=0.01)

    def score(self, pairs: Sequence[tuple[str, str]], **_: object) -> list[Score]:
        raise ModelError("it only says words")

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise ModelError("it only says words")

    def count(self, text: str) -> int:
        return len(text) // 4

    def for_role(self, role: str) -> Model:
        return self


def one_step(intent: str = "do it", **step: object) -> dict[str, object]:
    return {"steps": [{"intent": intent, **step}]}


DONE = {"done": True}


@dataclass
class Agent:
    app: App
    folder: Path

    def run(
        self,
        model: Words,
        goal: str = "do it",
        *,
        level: int = 3,
        checks: Sequence[str] = (),
        budget: Budget | None = None,
        on_task: Callable[[str], None] = lambda task: None,
    ) -> Report:
        request = TaskRequest(
            goal=goal,
            workspace=str(self.folder),
            level=level,
            checks=tuple(Check(target=check) for check in checks),
            budget=budget or Budget(),
        )
        on_task(self.app.queue.submit(request).id)
        return self.go_on(model)

    def go_on(self, model: Words, cancel: threading.Event | None = None) -> Report:
        """Claim the next task and run it."""
        task = self.app.queue.claim("test")
        assert task is not None
        self.task = task
        runner = replace(self.app.runner, models=model)
        return runner.run(task, TaskJournal(self.app.db, task, self.app.clock), cancel or threading.Event())


@pytest.fixture
def agent(tmp_path: Path, policy: PolicyEngine) -> Iterator[Agent]:
    home = tmp_path / "home"
    init_home(home)
    folder = tmp_path / "work"
    folder.mkdir()
    app = build(load_settings(home), policy=policy)
    yield Agent(app, folder)
    app.stop()
