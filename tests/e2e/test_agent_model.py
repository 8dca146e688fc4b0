"""The agent as a model, and our tools for other agents: the real daemon, asked by the real `openai` package."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.e2e.harness import ROOT, Agentd, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WORDS = """
- when: Say oats instead of milk
  replies:
    - steps:
        - intent: Change notes.txt
          checks: [{kind: file_contains, target: notes.txt, text: oats}]
    - edit_file
    - {path: notes.txt}
    - "```search\\nmilk\\n```\\n```replace\\noats\\n```"
    - answer
    - notes.txt says oats now.
    - done: true
- when: What does notes.txt say
  replies: [{steps: [{intent: Read notes.txt}]}, read_file, {path: notes.txt}, answer, It says milk., {done: true}]
- when: Make the failing test
  replies: [{steps: [{intent: Read notes.txt}]}, read_file, {path: notes.txt}, answer, It says milk., {done: true}]
- when: Make new.txt
  replies:
    - steps: [{intent: Make it}]
    - &tool write_file
    - &args {path: new.txt}
    - &text "```\\nx\\n```"
    - *tool
    - *args
    - *text
    - *tool
    - *args
    - *text
- when: [Do the usual, "the user answered:", of the agent]
  replies: [{steps: [{intent: Read notes.txt}]}, read_file, {path: notes.txt}, answer, Done as usual., {done: true}]
- when: Do the usual
  replies: [{steps: [{intent: Find out}]}, ask, What is the usual?]
- when: Run the tests
  replies: [{steps: [{intent: Run pytest}]}, run_command, {command: pytest -q}, answer, They ran., {done: true}]
"""
OATS = "Say oats instead of milk in notes.txt"
SLOW_TEST = "import time\n\n\ndef test_slow():\n    time.sleep(60)\n"


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    folder = tmp_path_factory.mktemp("agent_model")
    (folder / "words.yaml").write_text(WORDS, encoding="utf-8")
    made = Agentd(folder)
    made.speak(folder / "words.yaml")
    made.ok("config", "set", "api.tcp=true", "api.port=0")
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture
def client(agentd: Agentd) -> Iterator[OpenAI]:
    agentd.files({"notes.txt": "milk\n"})
    with connected(agentd) as found:
        yield found
    for task in agentd.json("ps"):
        agentd.run("cancel", task["id"])
        agentd.run("wait", task["id"])


def connected(agentd: Agentd, **headers: str) -> OpenAI:
    sent = {"X-Agentd-Workspace": str(agentd.workspace), **headers}
    base, key = f"{agentd.ok('url')}/v1", agentd.ok("token")
    return OpenAI(base_url=base, api_key=key, max_retries=0, timeout=60, default_headers=sent)


def ask(client: OpenAI, *turns: str, model: str = "agentd") -> str:
    """The text of the reply to a conversation of user and assistant in turn."""
    roles = ["user", "assistant"] * len(turns)
    messages: Any = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    (choice,) = client.chat.completions.create(model=model, messages=messages).choices
    assert choice.finish_reason == "stop"
    assert choice.message.content is not None
    return choice.message.content


def newest(agentd: Agentd) -> str:
    return max(str(task["id"]) for task in agentd.json("ps", "-a"))


# the model ------------------------------------------------------------------------------------------------------------


def test_the_agent_is_listed_among_the_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"agentd", "agentd/plan-only", "agentd/level-0", "agentd/level-3", "words"} <= set(names)
    assert client.models.retrieve("agentd/plan-only").id == "agentd/plan-only"
    with pytest.raises(openai.NotFoundError, match=re.escape("agentd/level-0")):
        ask(client, "hello", model="agentd/faster")


def test_a_stream_tells_the_progress_and_then_the_report(agentd: Agentd, client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="agentd",
        messages=[{"role": "user", "content": OATS}],
        stream=True,
        stream_options={"include_usage": True},
    )
    reasoning, text, ends, usage = "", "", [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            text += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
    assert (agentd.workspace / "notes.txt").read_text() == "oats\n"
    task = newest(agentd)
    assert text == (
        "notes.txt says oats now.\n\nVerified by checks that ran: notes.txt contains 'oats': passed\n\n"
        f"Changed: notes.txt\n\n[agentd task {task}: verified]"
    )
    for line in ("plan: 1 step", "step 1: Change notes.txt", "edit_file: fs.read notes.txt, fs.write notes.txt"):
        assert line in reasoning
    assert reasoning.endswith("ended: verified\n")
    assert ends == ["stop"]
    used = agentd.json("show", task)["report"]["usage"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (used["prompt_tokens"], used["completion_tokens"])


def test_what_no_check_showed_is_only_claimed(client: OpenAI) -> None:
    assert ask(client, "What does notes.txt say").startswith("It says milk.\n\nClaimed, not verified: no check ran.")


def test_the_other_endpoints_serve_the_agent_too(client: OpenAI) -> None:
    asked = "What does notes.txt say"
    # There is no field for reasoning here, so the progress is part of the text.
    assert "\nIt says milk.\n" in client.completions.create(model="agentd", prompt=asked).choices[0].text
    assert client.responses.create(model="agentd", input=asked).output_text.startswith("It says milk.")
    with pytest.raises(openai.BadRequestError, match="is an agent"):
        client.embeddings.create(model="agentd", input="milk")


def test_plan_only_changes_nothing(agentd: Agentd, client: OpenAI) -> None:
    text = ask(client, OATS, model="agentd/plan-only")
    assert text.startswith("1. Change notes.txt; check: notes.txt\n\nThis is a plan: nothing was done")
    assert (agentd.workspace / "notes.txt").read_text() == "milk\n"


def test_level_0_denies_a_write_and_says_so(agentd: Agentd, client: OpenAI) -> None:
    text = ask(client, "Make new.txt", model="agentd/level-0")
    assert text.startswith("denied: fs.write new.txt is denied: Level 0 (read-only) does not include it")
    assert "Nothing is verified." in text
    assert not (agentd.workspace / "new.txt").exists()


def test_a_question_comes_back_and_the_next_turn_answers_it(agentd: Agentd, client: OpenAI) -> None:
    asked = ask(client, "Do the usual")
    first = newest(agentd)
    assert asked.startswith("What is the usual?")
    assert agentd.json("show", first)["state"] == "waiting"
    assert ask(client, "Do the usual", asked, "Read notes.txt").startswith("Done as usual.")
    assert agentd.json("show", first)["state"] == "cancelled"


def test_without_a_workspace_the_request_is_refused_with_the_three_ways(agentd: Agentd, client: OpenAI) -> None:
    bare = connected(agentd).with_options(default_headers={"X-Agentd-Workspace": ""})
    with pytest.raises(openai.BadRequestError, match="X-Agentd-Workspace"):
        ask(bare, "What does notes.txt say")
    assert ask(bare, f"workspace: {agentd.workspace}\nWhat does notes.txt say").startswith("It says milk.")
    agentd.ok("config", "set", f"api.workspace={agentd.workspace}")
    try:
        assert ask(bare, "What does notes.txt say").startswith("It says milk.")
    finally:
        agentd.ok("config", "set", "api.workspace=")


def test_forms_that_an_agent_cannot_give_are_a_client_error(client: OpenAI) -> None:
    wanted: Any = {"type": "json_object"}
    messages: Any = [{"role": "user", "content": "What does notes.txt say"}]
    with pytest.raises(openai.BadRequestError, match="the agent cannot give"):
        client.chat.completions.create(model="agentd", messages=messages, response_format=wanted)
    with pytest.raises(openai.BadRequestError, match="one reply"):
        client.chat.completions.create(model="agentd", messages=messages, n=2)


# clients that go away, and several at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
def test_a_client_that_goes_away_cancels_its_task_or_leaves_it(agentd: Agentd, client: OpenAI, detach: bool) -> None:
    agentd.files({"test_slow.py": SLOW_TEST})
    leaving = connected(agentd, **{"X-Agentd-Detach": "true"} if detach else {})
    stream = leaving.chat.completions.create(
        model="agentd", messages=[{"role": "user", "content": "Run the tests"}], stream=True
    )
    for chunk in stream:
        if "run_command: shell.exec" in (getattr(chunk.choices[0].delta, "reasoning_content", None) or ""):
            break
    task = newest(agentd)
    stream.close()
    leaving.close()
    if detach:
        time.sleep(1.5)  # a cancelled one has ended by then
        assert agentd.json("show", task)["state"] == "running"
    else:
        wait_for(lambda: agentd.json("show", task)["state"] == "cancelled")


def test_requests_wait_their_turn_and_are_told_so(agentd: Agentd, client: OpenAI) -> None:
    agentd.files({"test_slow.py": SLOW_TEST, "notes.txt": "milk\n"})
    slow = threading.Thread(target=lambda: ask(client, "Run the tests"), daemon=True)
    slow.start()
    wait_for(lambda: agentd.json("ps"))
    running = newest(agentd)
    stream = client.chat.completions.create(
        model="agentd", messages=[{"role": "user", "content": "What does notes.txt say"}], stream=True
    )
    reasoning = text = ""
    for chunk in stream:
        delta = chunk.choices[0].delta if chunk.choices else None
        reasoning += getattr(delta, "reasoning_content", None) or ""
        text += (delta.content if delta else None) or ""
        if "queued, 1 task before it" in reasoning and running:
            agentd.ok("cancel", running)
            running = ""
    assert running == ""
    assert text.startswith("It says milk.")
    slow.join(30)


def test_a_daemon_that_stops_breaks_the_stream(agentd: Agentd, client: OpenAI) -> None:
    agentd.files({"test_slow.py": SLOW_TEST})
    stream = client.chat.completions.create(
        model="agentd", messages=[{"role": "user", "content": "Run the tests"}], stream=True
    )
    ended = []

    def read() -> None:
        for chunk in stream:
            if "run_command: shell.exec" in (getattr(chunk.choices[0].delta, "reasoning_content", None) or ""):
                threading.Thread(target=agentd.ok, args=("down",)).start()
            ended.extend(choice.finish_reason for choice in chunk.choices if choice.finish_reason)

    try:
        with pytest.raises(openai.APIError):
            read()
        assert ended == []
    finally:
        wait_for(lambda: not agentd.home.url_path.exists())
        agentd.ok("up")


# the guide, and the tools ---------------------------------------------------------------------------------------------


def test_the_guides_snippet_runs_as_it_stands(
    agentd: Agentd, client: OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "guides" / "use-as-a-model.md").read_text(encoding="utf-8")
    snippet = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    for old, new in {
        "http://127.0.0.1:8765": agentd.ok("url"),
        "THE KEY": agentd.ok("key", "add", "guide"),
        "/path/to/project": str(agentd.workspace),
    }.items():
        assert old in snippet
        snippet = snippet.replace(old, new)
    exec(compile(snippet, "guide", "exec"), {})
    said = capsys.readouterr().out
    assert "plan: 1 step" in said
    assert "It says milk." in said


@pytest.mark.parametrize("way", ["tcp", "socket"])
def test_other_agents_use_our_tools(agentd: Agentd, client: OpenAI, way: str) -> None:
    with hands(agentd, way) as tools:
        offered = tools.get("/tools", params={"format": "openai"}).json()
        assert "shell" in {each["function"]["name"] for each in offered}
        read = tools.post("/tools/read_file", json={"path": "notes.txt"}).json()
        assert (read["ok"], read["text"]) == (True, "milk\n")
        change = {"path": "notes.txt", "mode": "patch", "search": "milk", "replace": "oats"}
        assert tools.post("/tools/write_file", json=change).json()["changed"] == ["notes.txt"]
        assert (agentd.workspace / "notes.txt").read_text() == "oats\n"
        refused = tools.post("/tools/shell", json={"command": "curl http://example.org"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "policy.denied")
        assert refused.json()["error"]["hint"].startswith("rule ")


def hands(agentd: Agentd, way: str) -> httpx2.Client:
    headers = {"X-Agentd-Workspace": str(agentd.workspace)}
    if way == "socket":
        transport = httpx2.HTTPTransport(uds=str(Path(agentd.home.socket_path)))
        return httpx2.Client(base_url="http://agentd", transport=transport, headers=headers)
    return httpx2.Client(base_url=agentd.ok("url"), headers=headers | {"Authorization": f"Bearer {agentd.ok('token')}"})


def test_a_stranger_has_no_hands_here(agentd: Agentd) -> None:
    reply = httpx2.post(f"{agentd.ok('url')}/tools/list_dir", json={"workspace": str(agentd.workspace)})
    assert reply.status_code == 401
