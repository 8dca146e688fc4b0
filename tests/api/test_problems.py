from __future__ import annotations

import json

import pytest

from agentd.api.problems import answer_to
from agentd.errors import AgentdError, Busy, OutOfMemory, WorkerDied


def test_who_is_refused_hears_when_to_come_again() -> None:
    refused = answer_to("/tasks", Busy("3 requests wait already", hint="later", retry_after=2.3))
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "3"
    assert json.loads(bytes(refused.body))["error"]["code"] == "model.busy"


@pytest.mark.parametrize("error", [OutOfMemory("too big"), WorkerDied("signal 9")])
def test_a_model_that_cannot_serve_now(error: AgentdError) -> None:
    refused = answer_to("/tasks", error)
    assert refused.status_code == 503
    assert "Retry-After" not in refused.headers
