"""What a task's requests to a model carry with them."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from agentd.agent.calls import JournalledModel
from agentd.agent.limits import Limits
from agentd.api.direct import DirectJournal
from agentd.types import (
    AccessLevel,
    Budget,
    Message,
    ModelReply,
    ModelRequest,
    Origin,
    Priority,
    Scope,
    TaskRequest,
)
from tests.agent.conftest import DONE, Agent, Words, one_step


@pytest.mark.parametrize(
    ("origin", "priority"),
    [
        (Origin.CLI, Priority.INTERACTIVE),
        (Origin.API, Priority.INTERACTIVE),
        (Origin.WATCH, Priority.NIGHT),
        (Origin.SCHEDULE, Priority.NIGHT),
        (Origin.EVAL, Priority.NIGHT),
    ],
)
def test_work_that_nobody_waits_for_yields(agent: Agent, origin: Origin, priority: Priority) -> None:
    model = Words(one_step(), DONE)
    request = TaskRequest(goal="say hello", workspace=str(agent.folder), origin=origin)
    agent.app.queue.submit(request)
    agent.go_on(model)
    assert model.asked
    assert {asked.priority for asked in model.asked} == {priority}
    assert {asked.client for asked in model.asked} == {agent.task.id}


@pytest.mark.parametrize(
    ("origin", "cache", "given"),
    [(Origin.CLI, None, True), (Origin.CLI, True, True), (Origin.CLI, False, False), (Origin.EVAL, None, False)],
)
def test_kept_replies_are_given_unless_it_was_said_otherwise_or_is_a_measurement(
    agent: Agent, origin: Origin, cache: bool | None, given: bool
) -> None:
    model = Words(one_step(), DONE)
    request = TaskRequest(goal="say hello", workspace=str(agent.folder), origin=origin, cache=cache)
    agent.app.queue.submit(request)
    agent.go_on(model)
    assert {asked.cache for asked in model.asked} == {given}


def test_the_audit_says_which_replies_were_kept_ones(agent: Agent) -> None:
    class Kept(Words):
        def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
            return replace(super().chat(request), cached=not self.asked[1:])

    agent.run(Kept(one_step(), DONE))
    called = [record.data for record in agent.app.audit.tail(1000) if record.kind == "model.called"]
    assert [data.get("cached", False) for data in called[:2]] == [True, False]


def test_no_request_holds_a_secret(agent: Agent) -> None:
    agent.app.vault.set("box", "open sesame")
    words = Words("a", "b")
    model = JournalledModel(
        words,
        role="coder",
        scope=Scope(task="", workspace=str(agent.folder), level=AccessLevel.READ_ONLY, journal=DirectJournal()),
        limits=Limits(Budget(), clock=agent.app.clock, cancel=threading.Event()),
        key=iter("12").__next__,
        record=agent.app.audit.record,
        emit=agent.app.events.emit,
        redact=agent.app.redactor,
    )
    model.chat(ModelRequest(messages=(Message(role="user", content="say open sesame"),)))
    model.chat(ModelRequest(prompt="say open sesame", suffix="or open sesame"))
    assert "open sesame" not in str(words.asked)
    assert [each.prompt for each in words.asked] == [None, "say [left out: secret of the vault]"]
