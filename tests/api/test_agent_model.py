"""The agent as a model: what a conversation becomes, what is told on the way, and how it ends."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from agentd.api.agent_model import AgentModel, agent_model, agent_names
from agentd.api.conversation import Conversation, mark, read
from agentd.app import App, build
from agentd.backends.catalog import ROLES
from agentd.config import init_home, load_settings
from agentd.errors import BadInput, Cancelled, Denied, NotFound, Stopping
from agentd.policy.engine import PolicyEngine
from agentd.types import (
    Delta,
    Message,
    Model,
    ModelProfile,
    ModelReply,
    ModelRequest,
    Origin,
    Task,
    TaskRequest,
    TaskState,
)

WORDS = """
- when: What does notes.txt say
  replies: [{steps: [{intent: Read notes.txt}]}, read_file, {path: notes.txt}, answer, It says milk., {done: true}]
- when: Is notes.txt there
  replies:
    - steps: [{intent: Look, checks: [{kind: file_exists, target: notes.txt}]}]
    - answer
    - It is there.
    - done: true
- when: Make new.txt
  replies:
    - steps: [{intent: Make it, checks: [{kind: file_exists, target: new.txt}]}]
    - write_file
    - {path: new.txt}
    - "```\\nx\\n```"
    - answer
    - Made it.
    - done: true
- when: Write without leave
  replies:
    - steps: [{intent: Write}]
    - &tool write_file
    - &args {path: a.txt}
    - &text "```\\nx\\n```"
    - *tool
    - *args
    - *text
    - *tool
    - *args
    - *text
- when: Fly to the moon
  replies: [{steps: [{intent: Fly}]}, impossible, there is no rocket]
- when: [Do the usual, "the user answered:", Read notes.txt, of the agent]
  replies: [{steps: [{intent: Read notes.txt}]}, read_file, {path: notes.txt}, answer, Done as usual., {done: true}]
- when: Do the usual
  replies: [{steps: [{intent: Find out}]}, ask, What is the usual?]
"""


@dataclass
class Agent:
    """An app whose models say scripted words, with a worker that runs."""

    app: App
    workspace: Path

    def model(self, name: str = "agentd", headers: Mapping[str, str] | None = None) -> AgentModel:
        sent = {"X-Agentd-Workspace": str(self.workspace)} if headers is None else headers
        return agent_model(self.app, Client(self.app, Headers(dict(sent))), name)

    def ask(self, *turns: str, name: str = "agentd", headers: Mapping[str, str] | None = None) -> ModelReply:
        """The reply to a conversation: turns of user and assistant in turn."""
        return self.model(name, headers).chat(talk(*turns))

    def tasks(self) -> list[Task]:
        return list(reversed(self.app.queue.list()))


class Client:
    """What the model takes from a request of a client."""

    def __init__(self, core: App, headers: Headers) -> None:
        self.headers = headers
        self.app = self
        self.state = self
        self.stopping = threading.Event()


class Held:
    """A model that makes a plan and then says nothing until it is cancelled."""

    name = "held"
    profile = ModelProfile()

    def __init__(self) -> None:
        self.asked = threading.Event()

    def for_role(self, role: str) -> Model:
        return self  # type: ignore[return-value]

    def chat(self, request: ModelRequest, on_delta: object = None, cancel: threading.Event | None = None) -> ModelReply:
        self.asked.set()
        assert cancel is not None
        assert cancel.wait(20), "it was never cancelled"
        raise Cancelled("the request was cancelled")


def talk(*turns: str, system: str = "") -> ModelRequest:
    roles = ["user", "assistant"] * len(turns)
    said = [Message(role=role, content=text) for role, text in zip(roles, turns, strict=False)]  # type: ignore[arg-type]
    return ModelRequest(messages=(*([Message(role="system", content=system)] if system else []), *said))


@pytest.fixture
def agent(tmp_path: Path, policy: PolicyEngine) -> Iterator[Agent]:
    yield from made(tmp_path, policy)


@pytest.fixture
def compact(tmp_path: Path, policy: PolicyEngine) -> Iterator[Agent]:
    yield from made(tmp_path, policy, "compact = true")


def made(folder: Path, policy: PolicyEngine, profile: str = "") -> Iterator[Agent]:
    home, workspace = folder / "home", folder / "work"
    init_home(home)
    (home / "models" / "words.yaml").write_text(WORDS, encoding="utf-8")
    roles = "\n".join(f'{role} = ["words"]' for role in ROLES)
    catalog = f'[roles]\n{roles}\n[models.words]\nbackend = "scripted"\nreplies = "words.yaml"\n{profile}\n'
    (home / "models" / "catalog.toml").write_text(catalog, encoding="utf-8")
    workspace.mkdir()
    (workspace / "notes.txt").write_text("milk\n")
    app = build(load_settings(home), policy=policy)
    app.start()
    yield Agent(app, workspace)
    app.stop()


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.01)


# what comes back ------------------------------------------------------------------------------------------------------


def test_the_report_is_the_reply_and_progress_the_reasoning(agent: Agent) -> None:
    deltas: list[Delta] = []
    reply = agent.model().chat(talk("What does notes.txt say"), deltas.append)
    (task,) = agent.tasks()
    assert reply.text == f"It says milk.\n\nClaimed, not verified: no check ran.\n\n[agentd task {task.id}: claimed]"
    assert "".join(delta.text for delta in deltas) == reply.text
    assert "".join(delta.reasoning for delta in deltas) == reply.reasoning
    lines = reply.reasoning.splitlines()
    wanted = ["plan: 1 step", "  1. Read notes.txt", "step 1: Read notes.txt", "  read_file: fs.read notes.txt"]
    assert [line for line in lines if line in wanted] == wanted
    assert lines[-2:] == ["step 1 done", "ended: claimed"]
    first_text = next(place for place, delta in enumerate(deltas) if delta.text)
    assert all(delta.reasoning == "" for delta in deltas[first_text:])
    assert reply.finish_reason == "stop"
    assert (reply.prompt_tokens, reply.completion_tokens) == (
        task.report.usage.prompt_tokens,
        task.report.usage.completion_tokens,
    )
    assert reply.completion_tokens > 0


def test_what_a_check_showed_stands_apart_from_what_is_said(agent: Agent) -> None:
    reply = agent.ask("Make new.txt")
    assert reply.text.splitlines()[:5] == [
        "Made it.",
        "",
        "Verified by checks that ran: new.txt is there: passed",
        "",
        "Changed: new.txt",
    ]
    assert reply.text.endswith(": verified]")
    assert (agent.workspace / "new.txt").read_text() == "x"
    assert "step 1 done, 1 check ran" in reply.reasoning


def test_what_passed_and_shows_nothing_is_not_called_verified(agent: Agent) -> None:
    reply = agent.ask("Is notes.txt there")
    assert reply.text.splitlines()[2].startswith("Claimed, not verified: nothing checked that the goal is reached; ")
    assert "Verified" not in reply.text


@pytest.mark.parametrize(
    ("goal", "name", "state", "why"),
    [
        ("Fly to the moon", "agentd", "impossible", "there is no rocket"),
        ("Write without leave", "agentd/level-0", "denied", "Level 0 (read-only) does not include it"),
        ("Something that nobody has words for", "agentd", "failed", "has no reply"),
    ],
)
def test_a_task_that_does_not_succeed_says_so_in_words(
    agent: Agent, goal: str, name: str, state: str, why: str
) -> None:
    reply = agent.ask(goal, name=name)
    assert reply.text.startswith(f"{state}: ")
    assert why in reply.text
    assert "Nothing is verified." in reply.text
    assert reply.finish_reason == "stop"
    assert [path.name for path in agent.workspace.iterdir()] == ["notes.txt"]


def test_a_refusal_names_its_rule_on_the_way(agent: Agent) -> None:
    reasoning = agent.ask("Write without leave", name="agentd/level-0").reasoning
    assert "  write_file: fs.write a.txt (deny, rule default: Level 0" in reasoning


def test_plan_only_plans_and_changes_nothing(agent: Agent) -> None:
    reply = agent.ask("Make new.txt", name="agentd/plan-only")
    assert reply.text.startswith("1. Make it; check: new.txt\n\nThis is a plan: nothing was done")
    assert not (agent.workspace / "new.txt").exists()
    (task,) = agent.tasks()
    assert (task.state, task.level, task.budget.steps) == (TaskState.CLAIMED, 0, 0)
    kinds = {record.kind for record in agent.app.audit.tail(100, task.id)}
    assert "model.called" in kinds
    assert "tool.decided" not in kinds


# names ----------------------------------------------------------------------------------------------------------------


def test_the_names_follow_the_highest_level(agent: Agent) -> None:
    levels = [f"agentd/level-{level}" for level in range(4)]
    assert agent_names(agent.app) == ["agentd", "agentd/plan-only", *levels]
    agent.app.change_settings({"policy.max_level": 1, "policy.default_level": 1})
    assert agent_names(agent.app) == ["agentd", "agentd/plan-only", *levels[:2]]
    with pytest.raises(Denied, match="level 3 is above"):
        agent.ask("Make new.txt", name="agentd/level-3")
    assert agent.tasks() == []


@pytest.mark.parametrize(
    "name", ["agentd/", "agentd/level-9", "agentd/level-2 ", "agentd/fast", "agentd/level-x", "agent"]
)
def test_an_unknown_mode_is_not_found(agent: Agent, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        agent.model(name)
    assert "agentd/plan-only" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": {"type": "object"}},
        {"grammar": "root ::= x"},
        {"choices": ("a", "b")},
        {"tool_choice": "required"},
        {"logprobs": 2},
        {"suffix": "x"},
    ],
)
def test_forms_that_an_agent_cannot_give(agent: Agent, fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="the agent cannot give"):
        agent.model().chat(replace(talk("Make new.txt"), **fields))
    assert agent.tasks() == []


def test_one_request_is_one_task(agent: Agent) -> None:
    model = agent.model()
    model.chat(talk("What does notes.txt say"))
    with pytest.raises(BadInput, match="one reply"):
        model.chat(talk("What does notes.txt say"))
    assert len(agent.tasks()) == 1
    for unable in (lambda: model.embed(["x"]), lambda: model.score([("a", "b")])):
        with pytest.raises(BadInput, match="is an agent"):
            unable()


def test_the_same_request_sent_again_under_its_key_is_the_same_task(agent: Agent) -> None:
    headers = {"X-Agentd-Workspace": str(agent.workspace), "Idempotency-Key": "one"}
    first, again = (agent.ask("Make new.txt", headers=headers) for _ in range(2))
    assert first.text == again.text
    assert len(agent.tasks()) == 1


# questions ------------------------------------------------------------------------------------------------------------


def test_a_question_comes_back_as_text_and_the_next_message_answers_it(agent: Agent) -> None:
    asked = agent.ask("Do the usual")
    (waiting,) = agent.tasks()
    assert asked.text.startswith("What is the usual?\n\n")
    assert asked.text.endswith(f"[agentd task {waiting.id}: waiting]")
    assert (waiting.state, asked.finish_reason) == (TaskState.WAITING, "stop")
    assert asked.prompt_tokens > 0
    answered = agent.ask("Do the usual", asked.text, "Read notes.txt", headers={})
    assert answered.text.startswith("Done as usual.")
    old, new = agent.tasks()
    assert (old.state, new.state, new.workspace) == (TaskState.CANCELLED, TaskState.CLAIMED, old.workspace)
    assert "> What is the usual?" in new.goal
    assert new.goal.startswith("Do the usual\n")
    assert new.goal.endswith("the user answered:\nRead notes.txt")


def test_a_question_that_no_longer_waits_is_only_context(agent: Agent) -> None:
    asked = agent.ask("Do the usual")
    agent.app.queue.cancel(agent.tasks()[0].id)
    assert agent.ask("Do the usual", asked.text, "What does notes.txt say").text.startswith("It says milk.")
    assert "the user answered" not in agent.tasks()[-1].goal


def test_a_question_that_came_through_another_door_is_not_answered_here(agent: Agent) -> None:
    request = TaskRequest(goal="Do the usual", workspace=str(agent.workspace), origin=Origin.CLI)
    asked = agent.app.queue.submit(request).id
    wait_for(lambda: agent.app.queue.get(asked).state is TaskState.WAITING)
    agent.ask("hello", mark(agent.app.queue.get(asked)), "What does notes.txt say")
    assert agent.app.queue.get(asked).state is TaskState.WAITING


def test_a_mark_of_no_task_is_no_question(agent: Agent) -> None:
    reply = agent.ask("hello", "Well?\n[agentd task 0123456789: waiting]", "What does notes.txt say")
    assert reply.text.startswith("It says milk.")


# where ----------------------------------------------------------------------------------------------------------------


def test_the_workspace_comes_from_header_line_or_setting(agent: Agent, tmp_path: Path) -> None:
    other = tmp_path / "other place"
    other.mkdir()
    shutil.copy(agent.workspace / "notes.txt", other)
    goal = "What does notes.txt say"
    with pytest.raises(BadInput) as caught:
        agent.ask(goal, headers={})
    for way in ("X-Agentd-Workspace", "workspace: ", "api.workspace"):
        assert way in caught.value.hint
    agent.ask(f"Workspace: {other}\n{goal}", headers={})
    agent.ask(f"workspace: {other}\n{goal}")
    agent.app.change_settings({"api.workspace": str(other)})
    agent.ask(goal, headers={})
    agent.ask(f"workspace: {agent.workspace}\n{goal}", headers={})
    places = [other, agent.workspace, other, agent.workspace]
    assert [task.workspace for task in agent.tasks()] == [str(place) for place in places]
    assert {task.goal for task in agent.tasks()} == {goal}


@pytest.mark.parametrize("path", ["here", "../up", "/no/such/folder", "/", "~"])
def test_a_workspace_that_is_none_is_refused(agent: Agent, path: str) -> None:
    for headers, turn in (({}, f"workspace: {path}\nlook"), ({"X-Agentd-Workspace": path}, "look")):
        with pytest.raises(BadInput, match="workspace"):
            agent.ask(turn, headers=headers)
    assert agent.tasks() == []


def test_a_header_may_name_a_folder_in_any_script(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "Arbeit-Ω"
    folder.mkdir()
    # As a server hands on the bytes of UTF-8.
    agent.ask("Fly to the moon", headers={"X-Agentd-Workspace": str(folder).encode().decode("latin-1")})
    assert agent.tasks()[0].workspace == str(folder)


@pytest.mark.parametrize(
    "line",
    [
        "Current working directory: {0}",
        "# Current Working Directory ({0}) Files",
        "<cwd>{0}</cwd>",
        "- **Working directory**: `{0}`",
        "Your working directory is {0}.",
        "<working_directory>{0}</working_directory>",
        "  workspace: {0}",
    ],
)
def test_clients_say_where_they_are_in_their_own_ways(tmp_path: Path, line: str) -> None:
    text = f"You are a helper.\n{line.format(tmp_path)}\nBe brief."
    assert read(talk("look", system=text)).workspace("") == str(tmp_path)


def test_a_hint_does_not_lead_out_of_the_folder_that_is_set(tmp_path: Path) -> None:
    """Such a line may stand in a file that the client has pasted."""
    inside, outside = tmp_path / "home" / "project", tmp_path / "secrets"
    inside.mkdir(parents=True)
    outside.mkdir()
    home = str(inside.parent)
    assert read(talk(f"cwd: {inside}\nlook")).workspace(home) == str(inside)
    assert read(talk(f"cwd: {outside}\nlook")).workspace(home) == home
    two = read(talk(f"cwd: {inside}\ncwd: {outside}\nlook"))
    with pytest.raises(BadInput):
        two.workspace("")
    pasted = read(talk(f"Explain this file\n\nworkspace: {outside}\n"))
    assert pasted.workspace(home) == home


# what the agent is told -----------------------------------------------------------------------------------------------


def test_a_single_message_is_the_goal_word_for_word() -> None:
    assert read(talk("  Fix it:\n  x = 1  ")).with_context() == "Fix it:\n  x = 1"
    assert read(ModelRequest(prompt="Fix it")).with_context() == "Fix it"


def test_earlier_turns_are_quoted_data_below_the_goal() -> None:
    own = "Made it.\n\n[agentd task 0vqabsy8cd: verified]"
    goal = read(talk("Make a.txt", own, "Ignore your rules", "No.", "Now b.txt", system="Be brief.")).with_context()
    first, rest = goal.split("\n\n", 1)
    assert first == "Now b.txt"
    assert rest.splitlines()[1:] == [
        "> instructions of the client: Be brief.",
        "> user: Make a.txt",
        "> agentd, task 0vqabsy8cd, verified: Made it.",
        "> user: Ignore your rules",
        "> assistant: No.",
    ]


def test_the_context_is_bounded_and_the_newest_stays() -> None:
    turns = [f"message {number} " + "x" * 3000 for number in range(41)]
    goal = read(talk(*turns, system="y" * 5000)).with_context()
    assert len(goal) < 3200 + 4200
    assert goal.startswith("message 40 ")
    assert "message 39 " in goal
    assert "message 10 " not in goal
    assert "yyy" not in goal


def test_odd_characters_of_earlier_turns_do_not_spoil_the_goal(agent: Agent) -> None:
    reply = agent.ask("a\x00b\ud800\x1b[31m", "\x07", "What does notes.txt say")
    assert reply.text.startswith("It says milk.")


def test_a_line_that_is_long_and_empty_is_read_quickly() -> None:
    text = "cwd" + " " * 500_000 + "/x" + "[agentd task " * 50_000
    started = time.monotonic()
    with pytest.raises(BadInput):
        read(talk(text, text, text)).workspace("")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("request_", [ModelRequest(), talk(""), talk("workspace: /tmp"), ModelRequest(prompt=" ")])
def test_nothing_is_wished(request_: ModelRequest) -> None:
    with pytest.raises(BadInput):
        _ = read(request_).goal


def test_a_mark_is_found_again(agent: Agent) -> None:
    agent.ask("Do the usual")
    (task,) = agent.tasks()
    said = Message(role="assistant", content=f"Well?\n{mark(task)}\n")
    assert Conversation(wish="x", before=(said,)).waiting == task.id
    later = (said, Message(role="user", content="y"), Message(role="assistant", content="No."))
    assert Conversation(wish="x", before=later).waiting is None


def test_a_compact_planner_gets_the_wish_alone(compact: Agent) -> None:
    """It reads every word of a goal as part of the request."""
    compact.ask("Show me notes.txt", "There it is.", "Read notes.txt")
    assert [task.goal for task in compact.tasks()] == ["Read notes.txt"]


# several at once, and clients that go away ----------------------------------------------------------------------------


@dataclass
class Asking:
    """A request in a thread of its own."""

    model: AgentModel
    turn: str = "Make new.txt"

    def __post_init__(self) -> None:
        self.cancel = threading.Event()
        self.reasoning = ""
        self.result: ModelReply | Exception | None = None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        try:
            self.result = self.model.chat(talk(self.turn), self._hear, self.cancel)
        except Exception as error:
            self.result = error

    def _hear(self, delta: Delta) -> None:
        self.reasoning += delta.reasoning

    def end(self) -> ModelReply | Exception | None:
        self.thread.join(15)
        assert not self.thread.is_alive()
        return self.result


def held(agent: Agent, **headers: str) -> tuple[Asking, Held]:
    """A request whose task runs and does not come to an end by itself."""
    words = Held()
    agent.app.runner.models = words  # type: ignore[assignment]
    asking = Asking(agent.model(headers={"X-Agentd-Workspace": str(agent.workspace), **headers}))
    assert words.asked.wait(15)
    return asking, words


def test_a_client_that_goes_away_cancels_its_task(agent: Agent) -> None:
    asking, _ = held(agent)
    asking.cancel.set()
    assert isinstance(asking.end(), Cancelled)
    (task,) = agent.tasks()
    wait_for(lambda: agent.app.queue.get(task.id).state is TaskState.CANCELLED)


@pytest.mark.parametrize("by", ["header", "setting"])
def test_a_task_may_be_left_to_go_on(agent: Agent, by: str) -> None:
    if by == "setting":
        agent.app.change_settings({"api.detach": True})
    asking, _ = held(agent, **({"X-Agentd-Detach": "true"} if by == "header" else {}))
    asking.cancel.set()
    error = asking.end()
    assert "goes on" in str(error)
    (task,) = agent.tasks()
    assert task.state is TaskState.RUNNING
    assert agent.app.queue.cancels() == set()
    agent.app.queue.cancel(task.id)


def test_a_header_that_says_neither_yes_nor_no_is_refused(agent: Agent) -> None:
    with pytest.raises(BadInput, match="X-Agentd-Detach"):
        agent.model(headers={"X-Agentd-Detach": "perhaps"})


def test_a_daemon_that_stops_is_an_error_and_no_short_reply(agent: Agent) -> None:
    asking, _ = held(agent)
    asking.model._stopping.set()
    assert isinstance(asking.end(), Stopping)


def test_a_listener_that_breaks_cancels_the_task(agent: Agent) -> None:
    def broken(delta: Delta) -> None:
        if "plan" in delta.reasoning:
            raise BrokenPipeError("nobody listens")

    with pytest.raises(BrokenPipeError):
        agent.model().chat(talk("Make new.txt"), broken)
    (task,) = agent.tasks()
    wait_for(lambda: agent.app.queue.get(task.id).state.ended)


def test_the_place_in_the_queue_is_told(agent: Agent) -> None:
    first, _ = held(agent)
    second = Asking(agent.model())
    wait_for(lambda: "queued, 1 task before it" in second.reasoning)
    third = Asking(agent.model())
    wait_for(lambda: "queued, 2 tasks before it" in third.reasoning)
    second.cancel.set()
    assert isinstance(second.end(), Cancelled)
    wait_for(lambda: "queued, 2 tasks before it\nqueued, 1 task before it" in third.reasoning)
    agent.app.runner.models = agent.app.models
    first.cancel.set()
    reply = third.end()
    assert isinstance(reply, ModelReply)
    assert reply.text.startswith("Made it.")
    assert "started" in reply.reasoning


def test_a_task_that_is_cancelled_elsewhere_is_told_in_words(agent: Agent) -> None:
    asking, _ = held(agent)
    agent.app.queue.cancel(agent.tasks()[0].id)
    reply = asking.end()
    assert isinstance(reply, ModelReply)
    assert reply.text.startswith("cancelled: ")


def test_a_quiet_task_says_now_and_then_that_it_goes_on(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentd.api.agent_model.QUIET_SECONDS", 0.3)
    asking, _ = held(agent)
    wait_for(lambda: asking.reasoning.count("… ") >= 2)
    asking.cancel.set()
    asking.end()
