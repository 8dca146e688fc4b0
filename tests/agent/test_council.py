"""The council in a task: what it accepts is done, what it does not is not, and a crash changes nothing of it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentd.agent.context import prompt
from agentd.agent.council import ROLES
from agentd.errors import ModelError, NeedsApproval
from agentd.types import (
    Budget,
    Check,
    CheckKind,
    ModelProfile,
    ModelReply,
    ModelRequest,
    Report,
    TaskRequest,
    TaskState,
)
from tests.agent.conftest import DONE, Agent, Words, one_step

PARTS = {prompt(f"roles/{role}").strip(): role for role in ROLES}
YES = {"decision": "accept", "because": "It is small."}
MEND = {"decision": "revise", "because": "Step 1 names no file."}
VETO = {"decision": "reject", "because": "It publishes the keys."}
WRITE = ["write_file", {"path": "a.txt"}, "```\nmilk\n```", "answer", "Written.", DONE]


class Council(Words):
    """Says YES in every chair but those of `said`; what is no matter of the council takes the next of the words."""

    def __init__(self, *words: object, **said: Sequence[object]) -> None:
        super().__init__(*words)
        self.said = {role: list(replies) for role, replies in said.items()}
        self.opinions: list[tuple[str, ModelRequest]] = []
        self.dies = -1
        """Opinions after which the machine is gone."""
        self._lock = threading.Lock()

    def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
        asked = request.messages[0].content
        role = next((role for part, role in PARTS.items() if asked.endswith(part)), None)
        if role is None:
            return super().chat(request)
        with self._lock:
            if len(self.opinions) == self.dies:
                raise SystemExit("kill -9")
            self.opinions.append((role, request))
            replies = self.said.get(role, [])
            text = replies.pop(0) if replies else YES
        if isinstance(text, ModelError):
            raise text
        said = text if isinstance(text, str) else json.dumps(text)
        return ModelReply(text=said, model=self.name, prompt_tokens=10, completion_tokens=5, seconds=0.01)


def submit(agent: Agent, goal: str = "write a.txt", **more: Any) -> str:
    request = TaskRequest(goal=goal, workspace=str(agent.folder), level=3, **{"council": True, **more})
    return agent.app.queue.submit(request).id


def run(agent: Agent, model: Words, goal: str = "write a.txt", **more: Any) -> Report:
    submit(agent, goal, **more)
    return agent.go_on(model)


def heard(agent: Agent) -> list[tuple[str, str]]:
    return [(verdict.about, verdict.decision) for verdict in agent.app.queue.get(agent.task.id).verdicts]


def records(agent: Agent) -> list[Mapping[str, Any]]:
    return [each.data for each in agent.app.audit.tail(1000) if each.kind == "council.verdict"]


# plans ----------------------------------------------------------------------------------------------------------------


def test_what_is_accepted_is_done_with_its_checklist_in_sight(agent: Agent) -> None:
    model = Council(one_step("write a.txt"), *WRITE, qa=[YES | {"risks": ["a newline at the end"]}])
    report = run(agent, model)
    assert report.state is TaskState.CLAIMED
    assert (agent.folder / "a.txt").read_text() == "milk"
    assert heard(agent) == [("plan", "accept"), ("change", "accept")]
    assert any("Take care of:\n- a newline at the end" in m.content for r in model.asked for m in r.messages)
    assert [[each["decision"] for each in data["opinions"]] for data in records(agent)] == [["accept"] * 6] * 2


def test_all_roles_are_shown_the_same_words_before_their_own(agent: Agent) -> None:
    model = Council(one_step("write a.txt"), *WRITE)
    run(agent, model)
    plan = model.opinions[:6]
    assert sorted(role for role, _ in plan) == sorted(ROLES)
    (shared,) = {request.messages[0].content.removesuffix(prompt(f"roles/{role}").strip()) for role, request in plan}
    assert "1. write a.txt" in shared
    assert len({(len(r.messages), json.dumps(r.schema, sort_keys=True), r.temperature) for _, r in plan}) == 1


def test_a_plan_that_is_revised_is_made_again_with_the_reasons(agent: Agent) -> None:
    model = Council(one_step("write it"), one_step("write a.txt"), *WRITE, security=[MEND], dev=[MEND])
    assert run(agent, model).state is TaskState.CLAIMED
    assert heard(agent) == [("plan", "revise"), ("plan", "accept"), ("change", "accept")]
    task = agent.app.queue.get(agent.task.id)
    assert task.plan is not None
    assert [step.intent for step in task.plan.steps] == ["write a.txt"]
    assert "Security: Step 1 names no file." in model.asked[1].messages[-1].content


def test_a_plan_that_is_not_accepted_twice_is_denied(agent: Agent) -> None:
    report = run(agent, Council(one_step("write it"), one_step("write it all"), security=[MEND, MEND]))
    assert report.state is TaskState.DENIED
    assert "Security: Step 1 names no file." in report.reason
    assert heard(agent) == [("plan", "revise"), ("plan", "revise")]
    assert list(agent.folder.iterdir()) == []


def test_a_veto_ends_the_task_before_anything_is_changed(agent: Agent) -> None:
    model = Council(one_step("write it"), security=[VETO])
    report = run(agent, model)
    assert report.state is TaskState.DENIED
    assert "veto by Security: It publishes the keys." in report.reason
    assert (list(agent.folder.iterdir()), report.changed, len(model.asked)) == ([], (), 1)
    assert agent.app.queue.get(agent.task.id).verdicts[0].vetoed
    told = [each.data for each in agent.app.events.since(0) if each.kind == "VerdictGiven"]
    assert [(data["decision"], data["vetoed"]) for data in told] == [("reject", True)]


UNUSABLE = {
    "prose": "I think that it is fine.",
    "empty": "",
    "endless": "x" * 1_000_000,
    "decision": {"decision": "maybe", "because": "x"},
    "confidence": {"decision": "accept", "because": "x", "confidence": 11},
    "reason": {"decision": "accept", "because": " "},
    "kind": {"decision": "accept", "because": "x", "checks": [{"kind": "boundaries", "target": "x"}]},
    "command": {"decision": "accept", "because": "x", "checks": [{"target": "echo 'x"}]},
    "failure": ModelError("the reply broke off"),
}


def test_a_reply_that_cannot_be_used_is_no_opinion(agent: Agent) -> None:
    for name, unusable in UNUSABLE.items():
        assert run(agent, Council(one_step("write a.txt"), *WRITE, qa=[unusable] * 2)).state is TaskState.CLAIMED, name
        verdict = agent.app.queue.get(agent.task.id).verdicts[0]
        assert verdict.absent == ("qa",), name
        assert "no usable opinion from QA (" in verdict.because, name
        (agent.folder / "a.txt").unlink()


def test_without_security_or_a_quorum_nothing_is_accepted(agent: Agent) -> None:
    mute = {"security": ["hm"] * 4}
    report = run(agent, Council(one_step("write it"), one_step("write it"), **mute))
    assert report.state is TaskState.DENIED
    assert "no usable opinion from Security" in report.reason
    few = {role: ["hm"] * 4 for role in ("director", "architect", "qa", "dev")}
    assert run(agent, Council(one_step("write it"), one_step("write it"), **few)).state is TaskState.DENIED


def test_a_check_of_the_council_decides_as_well(agent: Agent) -> None:
    check = {"kind": "file_contains", "target": "a.txt", "text": "bread"}
    report = run(
        agent, Council(one_step("write a.txt"), *WRITE, qa=[YES | {"checks": [check]}]), budget=Budget(retries=0)
    )
    assert report.state is TaskState.FAILED
    assert "bread" in report.reason
    plan = agent.app.queue.get(agent.task.id).plan
    assert plan is not None
    assert [(each.target, each.by) for each in plan.checks if each.by != "agentd"] == [("a.txt", "council")]


def test_checks_of_the_council_may_no_more_than_those_of_a_plan(agent: Agent) -> None:
    check = {"kind": "command", "target": "curl http://example.org"}
    report = run(
        agent, Council(one_step("write a.txt"), *WRITE, qa=[YES | {"checks": [check]}]), budget=Budget(retries=0)
    )
    assert report.state is TaskState.FAILED
    assert "could not be run" in report.reason


def test_below_the_threshold_nobody_is_asked(agent: Agent) -> None:
    model = Council(one_step("write a.txt"), *WRITE)
    assert run(agent, model, council=None).state is TaskState.CLAIMED
    assert (model.opinions, heard(agent)) == ([], [])


RISKY = "Delete all tests, rewrite the login and publish it, then install what is missing"


def test_above_the_threshold_it_sits_unasked(agent: Agent) -> None:
    model = Council(one_step("delete it"), security=[VETO])
    assert run(agent, model, goal=RISKY, council=None).state is TaskState.DENIED
    assert "Risk: " in model.opinions[0][1].messages[0].content
    assert "deletes" in model.opinions[0][1].messages[0].content


def test_a_small_model_has_no_seat_and_a_person_decides(agent: Agent) -> None:
    class Small(Council):
        profile = ModelProfile(compact=True)

    model = Small()
    task = submit(agent, goal="show a.txt")
    with pytest.raises(NeedsApproval, match="no council could be held") as waiting:
        agent.go_on(model)
    assert waiting.value.request is not None
    agent.app.queue.wait_for_person(agent.task, str(waiting.value), waiting.value.request)
    agent.app.inbox.reject(task, by="ann", because="not today")
    report = agent.go_on(model)
    assert report.state is TaskState.DENIED
    assert "rejected by ann: not today" in report.reason
    assert model.opinions == []


def test_what_a_person_approves_in_its_place_goes_on(agent: Agent) -> None:
    class Small(Council):
        profile = ModelProfile(compact=True)

    task = submit(agent, goal="show a.txt")
    with pytest.raises(NeedsApproval) as waiting:
        agent.go_on(Small())
    agent.app.queue.wait_for_person(agent.task, str(waiting.value), waiting.value.request)
    agent.app.inbox.approve(task, by="ann")
    assert "it only says words" in agent.go_on(Small()).reason, "it has come to its first step"


def test_nothing_is_committed_that_is_not_accepted(agent: Agent) -> None:
    for args in (["init", "-q"], ["config", "user.email", "a@b"], ["config", "user.name", "ann"]):
        subprocess.run(["git", *args], cwd=agent.folder, check=True)
    words = [*WRITE[:3], "git_commit", {"paths": ["a.txt"]}, "```\nmilk\n```", "answer", "Committed.", DONE]
    model = Council(one_step("write a.txt and commit it"), *words, security=[YES, VETO])
    report = run(agent, model)
    assert report.state is TaskState.DENIED
    assert any(
        "not committed, because the council does not accept it" in m.content for r in model.asked for m in r.messages
    )
    assert len(model.opinions) == 12, "the same change is not heard twice"
    log = subprocess.run(["git", "log"], cwd=agent.folder, capture_output=True, check=False)
    assert log.returncode != 0, "no commit is there"
    assert not (agent.folder / "a.txt").exists()


# changes --------------------------------------------------------------------------------------------------------------


def test_a_change_that_is_vetoed_is_put_back(agent: Agent) -> None:
    (agent.folder / "a.txt").write_text("bread\n")
    model = Council(
        one_step("write a.txt"), "write_file", {"path": "a.txt", "mode": "overwrite"}, *WRITE[2:], security=[YES, VETO]
    )
    report = run(agent, model)
    assert report.state is TaskState.DENIED
    assert "the change: veto by Security" in report.reason
    assert "put back: a.txt" in report.reason
    assert (agent.folder / "a.txt").read_text() == "bread\n"
    assert "+milk" in model.opinions[-1][1].messages[0].content


def test_a_change_that_is_revised_is_mended_once(agent: Agent) -> None:
    mended = ["write_file", {"path": "b.txt"}, "```\nx\n```", "answer", "Mended.", DONE]
    model = Council(one_step("write a.txt"), *WRITE, *mended, security=[YES, MEND | {"because": "b.txt is missing"}])
    assert run(agent, model).state is TaskState.CLAIMED
    assert heard(agent) == [("plan", "accept"), ("change", "revise"), ("change", "accept")]
    assert (agent.folder / "b.txt").exists()
    assert any("b.txt is missing" in m.content for r in model.asked for m in r.messages)


def test_what_is_mended_is_the_step_that_was_done_last(agent: Agent) -> None:
    plan = {"steps": [{"intent": "write a.txt"}, {"intent": "polish it for hours"}], "stop_when": "checks_pass"}
    mended = ["write_file", {"path": "b.txt"}, "```\nx\n```", "answer", "Mended.", DONE]
    model = Council(plan, *WRITE, *mended, security=[YES, MEND | {"because": "b.txt is missing"}])
    check = Check(target="python -c \"open('a.txt')\"")
    assert run(agent, model, checks=(check,)).state is TaskState.VERIFIED
    rows = agent.app.db.rows("SELECT number, state FROM steps ORDER BY number")
    assert [(row["number"], row["state"]) for row in rows] == [(1, "done"), (2, "pending")]


def test_what_mending_breaks_is_put_back(agent: Agent) -> None:
    (agent.folder / "a.txt").write_text("bread, milk\n")
    change = ["write_file", {"path": "a.txt", "mode": "overwrite"}]
    broken = [*change, "```\nbread\n```", "answer", "Mended."]
    model = Council(one_step("write a.txt"), *change, *WRITE[2:], *broken, security=[YES, MEND])
    check = Check(kind=CheckKind.FILE_CONTAINS, target="a.txt", text="milk")
    assert run(agent, model, checks=(check,)).state is TaskState.ROLLED_BACK
    assert (agent.folder / "a.txt").read_text() == "bread, milk\n"


def test_what_is_asked_for_after_the_work_can_fail_it_and_not_verify_it(agent: Agent) -> None:
    green = {"kind": "file_exists", "target": "a.txt"}
    model = Council(one_step("write a.txt"), *WRITE, qa=[YES, YES | {"checks": [green]}])
    assert run(agent, model).state is TaskState.CLAIMED
    red = {"kind": "file_exists", "target": "c.txt"}
    (agent.folder / "a.txt").unlink()
    model = Council(one_step("write a.txt"), *WRITE, qa=[YES, YES | {"checks": [red]}])
    report = run(agent, model)
    assert report.state is TaskState.FAILED
    assert "c.txt does not exist" in report.reason


# crashes --------------------------------------------------------------------------------------------------------------


def test_after_a_crash_at_any_opinion_the_same_is_said_and_nobody_is_asked_twice(agent: Agent) -> None:
    for dies in range(12):
        model = Council(one_step("write a.txt"), *WRITE, dev=[MEND, MEND])
        model.dies = dies
        task = submit(agent)
        with pytest.raises(SystemExit):
            agent.go_on(model)
        agent.app.queue.recover()
        model.dies = -1
        report = agent.go_on(model)
        assert report.state is TaskState.CLAIMED, dies
        agent.app.queue.finish(agent.task, report)
        assert sorted(role for role, _ in model.opinions) == sorted([*ROLES, *ROLES]), dies
        assert heard(agent) == [("plan", "accept"), ("change", "accept")], dies
        verdicts = agent.app.queue.get(task).verdicts
        assert [[o.decision for o in v.opinions if o.role == "dev"] for v in verdicts] == [["revise"], ["revise"]]
        assert len(records(agent)) == 2 * (dies + 1)
        (agent.folder / "a.txt").unlink()
