"""Servers of models from the command line: found, added, tried, used for a task, removed; keys that nobody sees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.openai_server import Good, OpenAiServer
from tests.e2e.harness import Agentd, Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECRET = "sk-very-secret-0123456789"
REPLIES = [
    {"steps": [{"intent": "Read notes.txt"}]},
    "read_file",
    {"path": "notes.txt"},
    "answer",
    "It says milk.",
    {"done": True},
]
ROLES = ("planner", "coder", "draft", "critic")


class Words:
    """Says the next of its replies in the form that is asked for."""

    def __init__(self, replies: list[Any]) -> None:
        self._left = list(replies)

    def __call__(self, body: dict[str, Any]) -> str:
        reply = self._left.pop(0) if self._left else "nothing left"
        form = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        if set(form.get("properties", {})) == {"choice"}:
            return json.dumps({"choice": reply})
        return reply if isinstance(reply, str) else json.dumps(reply)


def used_roles(name: str) -> list[str]:
    return [word for role in ROLES for word in ("--role", role)] + ["--model", name]


@pytest.fixture
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer(Good(say=Words(REPLIES), key=SECRET)) as running:
        yield running


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    made = Agentd(tmp_path_factory.mktemp("backends"))
    made.ok("up")
    yield made
    made.stop()


def everything_written(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_a_server_from_first_to_last(agentd: Agentd, server: OpenAiServer) -> None:
    agentd.files({"notes.txt": "milk\n"})
    agentd.ok("secret", "set", "box-key", stdin=SECRET + "\n")
    made = agentd.json("backend", "add", "box", server.url, "--key", "box-key", *used_roles("small"))
    assert (made["roles"], made["denied"], made["key_is_set"]) == ([*ROLES], None, True)

    task = agentd.json("run", "What does notes.txt say")
    assert (task["state"], task["report"]["answer"]) == ("claimed", "It says milk.")
    assert {body["model"] for body in server.bodies} == {"small"}
    assert all(request.headers["Authorization"] == f"Bearer {SECRET}" for request in server.requests)

    (listed,) = agentd.json("backend", "ls")
    (health,) = listed["health"]
    assert (listed["name"], health["failed"]) == ("box", 0)
    assert health["answered"] >= len(REPLIES)
    assert "box" in agentd.ok("backend", "ls")
    records = agentd.json("audit", "tail", "-n", "1000")
    (sent,) = [record for record in records if record["kind"] == "model.send"]
    assert sent["data"]["server"] == "box"
    assert sent["data"]["bytes"] > 0
    assert "milk" not in json.dumps(sent)

    assert "small" in agentd.error("backend", "rm", "box", code=9)["message"]
    agentd.ok("backend", "rm", "box", "--models")
    assert agentd.json("backend", "ls") == []
    assert SECRET.encode() not in everything_written(agentd.home.home)
    agentd.ok("secret", "rm", "box-key")
    assert agentd.json("secret", "ls") == []


def test_what_a_server_can_do_is_said(agentd: Agentd) -> None:
    say = Words(["one two three four", '{"city": "Rome", "days": 5}'])
    with OpenAiServer(Good(say=lambda body: say(body), refuses=("json_schema",))) as server:
        agentd.ok("backend", "add", "probed", server.url)
        (found,) = agentd.json("backend", "test", "probed")
        assert (found["ok"], found["models"], found["model"]) == (True, ["small", "large"], "small")
        assert found["form"] == "json_object"
        assert {each["what"]: each["ok"] for each in found["findings"]} == {
            "reached": True, "replies": True, "streams": True, "tools": True, "json_schema": False,
        }  # fmt: skip
        told = agentd.run("backend", "test", "probed", "--model", "none")
        assert (told.returncode, "there are small, large" in told.stdout) == (1, True)
    told = agentd.run("backend", "test", "probed")
    assert (told.returncode, "cannot be reached" in told.stdout) == (1, True)
    agentd.ok("backend", "rm", "probed")


def test_a_server_elsewhere_is_denied_until_a_rule_allows_it(agentd: Agentd) -> None:
    done = agentd.run("backend", "add", "cloud", "https://api.example.com/v1", "--key", "cloud-key")
    assert done.returncode == 0
    assert "nothing may be sent to api.example.com:443" in done.stderr
    assert "agentd secret set cloud-key" in done.stderr
    (found,) = agentd.json("backend", "ls")
    assert (found["denied"]["message"].split(":")[0], found["key_is_set"]) == (
        "nothing may be sent to api.example.com",
        False,
    )
    told = agentd.run("backend", "test", "cloud")
    assert (told.returncode, "nothing may be sent" in told.stdout) == (1, True)
    assert "denied by policy" in agentd.ok("backend", "ls")
    check = agentd.run("policy", "check", "model.send api.example.com:443")
    assert (check.returncode, "model.send" in check.stdout) == (5, True)
    agentd.ok("backend", "rm", "cloud")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "ftp://a"], "http"),
        (["x", "http://user:pw@a/v1"], "vault"),
        (["a b", "http://127.0.0.1:1"], "name"),
        (["x", "http://127.0.0.1:1", "--weight", "1", "--weight", "2"], "weights"),
        (["x", "http://127.0.0.1:1", "--role", "boss", "--model", "m"], "no role 'boss'"),
        (["x", "http://127.0.0.1:1", "--role", "planner"], "which of its models"),
        (["x", "http://127.0.0.1:1", "--timeout", "-1"], "timeout"),
    ],
)
def test_servers_that_cannot_be_added(agentd: Agentd, words: list[str], said: str) -> None:
    assert said in agentd.error("backend", "add", *words, code=2)["message"]
    assert agentd.json("backend", "ls") == []


def test_secrets_are_read_but_never_shown(agentd: Agentd) -> None:
    agentd.ok("secret", "set", "one", stdin="first\n")
    agentd.ok("secret", "set", "one", stdin="sk-second")
    assert [each["name"] for each in agentd.json("secret", "ls")] == ["one"]
    shown = agentd.ok("secret", "ls") + agentd.ok("audit", "tail")
    assert "sk-second" not in shown
    assert agentd.error("secret", "set", "one", code=2, stdin="\n")["message"].endswith("is empty")
    assert "no name" in agentd.error("secret", "set", "a b", code=2, stdin="x")["message"]
    assert "no secret" in agentd.error("secret", "rm", "none", code=1)["message"]
    agentd.ok("secret", "rm", "one")


def test_a_secret_typed_on_a_terminal_is_not_echoed(agentd: Agentd) -> None:
    terminal = Terminal(agentd, "secret", "set", "typed")
    terminal.wait_for("Value of typed")
    terminal.type("s3cret-word\n")
    assert terminal.end() == 0
    assert "s3cret-word" not in terminal.screen
    agentd.ok("secret", "rm", "typed")


def test_servers_that_run_already_are_found(agentd: Agentd) -> None:
    with OpenAiServer(Good(models=("qwen", "gemma"), owner="vllm")) as one, OpenAiServer(Good(key="k")) as locked:
        ports = ["--port", str(one.port), "--port", str(locked.port)]
        shown = agentd.ok("setup", *ports, "--no-input")
        assert f"vllm on port {one.port} (not in the catalog)\n    qwen, gemma" in shown
        assert "wants a key" in shown
        assert agentd.json("backend", "ls") == []
        added = agentd.json("setup", *ports, "--yes")["servers"]
        names = {each["url"]: each["added"] for each in added}
        assert names[one.url] == "vllm"
        assert {each["name"] for each in agentd.json("backend", "ls")} >= {"vllm"}
        again = {each["url"]: each["known_as"] for each in agentd.json("setup", *ports, "--yes")["servers"]}
        assert again == names
        for name in filter(None, names.values()):
            agentd.ok("backend", "rm", name)


def test_setup_asks_on_a_terminal(agentd: Agentd) -> None:
    with OpenAiServer(Good(owner="vllm")) as one:
        terminal = Terminal(agentd, "setup", "--port", str(one.port))
        terminal.wait_for("as vllm? [Y/n]")
        terminal.type("y\n")
        assert terminal.end() == 0
        assert "added vllm" in terminal.screen
        agentd.ok("backend", "rm", "vllm")
