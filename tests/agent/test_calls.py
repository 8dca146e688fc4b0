"""What a task's requests to a model carry with them."""

from __future__ import annotations

import pytest

from agentd.types import Origin, Priority, TaskRequest
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
