"""What policy asks waits for a person, and goes on at that very step with exactly what they saw, or with their no."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Agentd, Terminal, wait_for

pytestmark = pytest.mark.e2e

OLD = "".join(f"line {number}\n" for number in range(1, 41))
NEW = OLD.replace("line 2\n", "line two\n").replace("line 39\n", "line thirty-nine\n")
HALF = OLD.replace("line 39\n", "line thirty-nine\n")


def turn(goal: str, tool: str, args: dict[str, Any], content: str = "", saw: str = "") -> list[dict[str, Any]]:
    """Entries by what the model is shown, so that a daemon may be killed between any two."""
    seen = [saw] if saw else []
    often = 4
    says: list[tuple[list[str], Any]] = []
    if content:
        says.append(([goal, *seen, "Now the value of"], f"```content\n{content}```"))
    says.append(([goal, *seen, f"Arguments for {tool}"], args))
    says.append(([goal, *seen, "What next?"], tool))
    return [{"when": when, "replies": [reply] * often} for when, reply in says]


def end(goal: str, saw: str, said: str) -> list[dict[str, Any]]:
    return [
        {"when": [goal, saw, "You chose `answer`"], "replies": [said] * 4},
        {"when": [goal, saw, "What next?"], "replies": ["answer"] * 4},
    ]


def words() -> list[dict[str, Any]]:
    made, project = "Write the project file", {"path": "pyproject.toml", "mode": "create"}
    changed, setup = "Overwrite everything in setup.cfg", {"path": "setup.cfg", "mode": "overwrite"}
    asked = "Do the usual"
    return [
        {"when": "Make the shortest plan", "replies": [{"steps": [{"intent": "Do it"}]}] * 4},
        {"when": "Does what was done give", "replies": [{"done": True}] * 4},
        *end(made, "Created pyproject.toml", "I wrote it."),
        *end(made, "a person refused this: not today", "I was told not today."),
        *turn(made, "write_file", project, '[project]\nname = "x"\n'),
        *end(changed, "Overwrote setup.cfg", "I changed it."),
        *end(changed, "a person left out hunk 1", "I changed a part of it."),
        *turn(changed, "write_file", setup, NEW),
        *end(asked, "The owner of the task answers: tea", "It is tea."),
        {"when": [asked, "You chose `ask`"], "replies": ["What is the usual?"] * 4},
        {"when": [asked, "What next?"], "replies": ["ask"] * 4},
        {"when": ["Read the key", "Arguments for read_file"], "replies": [{"path": ".env"}] * 4},
        {"when": ["Read the key", "What next?"], "replies": ["read_file"] * 4},
        {"when": ["Sleep", "What next?"], "replies": ["answer"] * 4},
        {"when": ["Sleep", "You chose `answer`"], "replies": ["zzz"] * 4},
    ]


def spoken(folder: Path) -> Agentd:
    script = folder / "script.yaml"
    script.write_text(json.dumps(words()))
    made = Agentd(folder)
    made.speak(script)
    return made


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    made = spoken(tmp_path_factory.mktemp("approvals"))
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture
def asks(agentd: Agentd) -> Iterator[Agentd]:
    """With an empty workspace and an empty inbox before and after."""
    agentd.files({})
    yield agentd
    for task in agentd.json("ps"):
        agentd.ok("cancel", task["id"])
        agentd.run("wait", task["id"])


def waiting(agentd: Agentd, goal: str) -> str:
    """A task of this goal, once it waits."""
    task = str(agentd.json("submit", goal)["id"])
    stands = ended(agentd, task)
    assert stands["state"] == "waiting", stands["report"]
    return task


def request_of(agentd: Agentd, task: str) -> dict[str, Any]:
    return next((entry["request"] for entry in agentd.json("inbox") if entry["task"] == task), {})


def ended(agentd: Agentd, task: str) -> dict[str, Any]:
    agentd.run("wait", task)
    found: dict[str, Any] = agentd.json("show", task)
    return found


def test_a_start_file_is_asked_for_shown_and_written_as_shown(asks: Agentd) -> None:
    done = asks.run("run", "Write the project file")
    assert done.returncode == 6
    (entry,) = asks.json("inbox")
    assert f"agentd approve {entry['task']}" in done.stderr.splitlines()[-1]
    request = entry["request"]
    assert (request["rule"], request["actions"], request["step"]) == ("start-files", ["fs.write pyproject.toml"], 1)
    assert request["shown"] == ('--- /dev/null\n+++ b/pyproject.toml\n@@ -0,0 +1,2 @@\n+[project]\n+name = "x"\n')
    assert "+[project]" in asks.ok("inbox")
    assert not (asks.workspace / "pyproject.toml").exists()
    asks.ok("approve", entry["task"], "1")
    task = ended(asks, entry["task"])
    assert (task["state"], task["report"]["answer"]) == ("claimed", "I wrote it.")
    assert (asks.workspace / "pyproject.toml").read_text() == '[project]\nname = "x"\n'
    assert asks.json("inbox") == []
    second = asks.error("approve", entry["task"], code=9)
    assert "used already by" in second["message"]
    assert asks.json("audit", "verify")["ok"] is True
    explained = asks.ok("policy", "explain", entry["task"], "1").splitlines()
    assert "ask: write_file (fs.write pyproject.toml) at level 2, step 1" in explained
    assert f"       a person answered: approved, by {getpass.getuser()}" in explained


def test_a_no_is_a_result_that_the_model_reads(asks: Agentd) -> None:
    task = waiting(asks, "Write the project file")
    assert asks.run("reject", task).returncode == 2  # without a reason
    asks.ok("reject", task, "--because", "not today")
    assert ended(asks, task)["report"]["answer"] == "I was told not today."
    assert not (asks.workspace / "pyproject.toml").exists()


def test_what_changed_in_between_is_asked_anew(asks: Agentd) -> None:
    asks.files({"setup.cfg": OLD})
    task = waiting(asks, "Overwrite everything in setup.cfg")
    first = request_of(asks, task)
    assert first["hunks"] == 2
    (asks.workspace / "setup.cfg").write_text(OLD + "mine\n")
    asks.ok("approve", task)
    wait_for(lambda: request_of(asks, task).get("id", first["id"]) > first["id"])
    assert (asks.workspace / "setup.cfg").read_text() == OLD + "mine\n"
    assert "-mine" in request_of(asks, task)["shown"]
    assert asks.error("approve", task, "--request", str(first["id"]), code=9)["code"] == "conflict"
    asks.ok("approve", task)
    assert ended(asks, task)["state"] == "claimed"
    assert (asks.workspace / "setup.cfg").read_text() == NEW


def test_one_hunk_of_two(asks: Agentd) -> None:
    asks.files({"setup.cfg": OLD})
    task = waiting(asks, "Overwrite everything in setup.cfg")
    assert "hunk 2" in asks.ok("inbox")
    assert asks.error("approve", task, "--hunk", "3", code=2)["hint"] == "there are 1 to 2"
    assert asks.error("approve", task, "2", code=1)["code"] == "input.not_found"
    asks.ok("approve", task, "--hunk", "2")
    assert ended(asks, task)["report"]["answer"] == "I changed a part of it."
    assert (asks.workspace / "setup.cfg").read_text() == HALF


def test_a_late_yes_is_refused_and_asked_anew(asks: Agentd) -> None:
    asks.ok("config", "set", "approvals.expire_hours=0.0001")
    task = waiting(asks, "Write the project file")
    first = request_of(asks, task)["id"]
    wait_for(lambda: asks.json("inbox")[0]["expired"])
    asks.ok("config", "set", "approvals.expire_hours=24")
    assert "expired" in asks.error("approve", task, code=9)["message"]
    wait_for(lambda: request_of(asks, task).get("id", first) > first)
    assert not (asks.workspace / "pyproject.toml").exists()
    asks.ok("approve", task)
    assert ended(asks, task)["state"] == "claimed"


def test_a_question_is_answered_and_the_step_goes_on(asks: Agentd) -> None:
    task = waiting(asks, "Do the usual")
    assert request_of(asks, task)["shown"] == "What is the usual?"
    assert asks.error("approve", task, code=2)["hint"] == f"agentd answer {task} TEXT"
    asks.ok("answer", task, "tea")
    assert ended(asks, task)["report"]["answer"] == "It is tea."


def test_cancel_closes_what_was_asked(asks: Agentd) -> None:
    task = waiting(asks, "Write the project file")
    asks.ok("cancel", task)
    assert asks.json("inbox") == []
    assert asks.error("approve", task, code=9)["code"] == "conflict"
    again = asks.json("retry", task)[0]["id"]
    asks.run("wait", again)
    assert [entry["task"] for entry in asks.json("inbox")] == [again]


def test_what_somebody_else_has_answered_is_followed_to_its_end(asks: Agentd) -> None:
    here = Terminal(asks, "run", "Write the project file")
    here.wait_for("Let it do that?")
    (entry,) = asks.json("inbox")
    asks.ok("approve", entry["task"])
    assert ended(asks, entry["task"])["state"] == "claimed"
    here.type("l\r")
    assert here.end() == 0
    assert "waiting" not in here.screen.partition("Let it do that?")[2]


def test_yes_approves_what_is_asked_and_nothing_that_is_denied(asks: Agentd) -> None:
    asks.files({".env": "KEY=1\n"})
    done = asks.run("run", "--yes", "Write the project file")
    assert (done.returncode, done.stdout) == (0, "I wrote it.\n")
    assert "approved (--yes): fs.write pyproject.toml" in done.stderr
    assert asks.run("run", "--yes", "Read the key").returncode == 5
    assert asks.run("run", "--yes", "Do the usual").returncode == 6


def test_on_a_terminal_run_asks_there(asks: Agentd) -> None:
    asks.files({"setup.cfg": OLD})
    terminal = Terminal(asks, "run", "Overwrite everything in setup.cfg")
    terminal.wait_for("[h]unks")
    assert "+line thirty-nine" in terminal.screen
    terminal.type("h\n")
    terminal.wait_for("Which of 1 to 2?")
    terminal.type("2\n")
    assert terminal.end() == 0
    assert "I changed a part of it." in terminal.screen
    assert (asks.workspace / "setup.cfg").read_text() == HALF


def test_on_a_terminal_no_has_a_reason_and_later_waits(asks: Agentd) -> None:
    terminal = Terminal(asks, "run", "Write the project file")
    terminal.wait_for("[y]es")
    terminal.type("n\n")
    terminal.wait_for("Why not?")
    terminal.type("not today\n")
    assert terminal.end() == 0
    assert "I was told not today." in terminal.screen
    later = Terminal(asks, "run", "Do the usual")
    later.wait_for("Your answer")
    later.type("\n")
    assert later.end() == 6


def test_kills_while_it_waits_and_after_the_yes_write_once(tmp_path: Path) -> None:
    agentd = spoken(tmp_path)
    agentd.ok("up")
    try:
        task = waiting(agentd, "Write the project file")
        before = request_of(agentd, task)
        agentd.kill()
        agentd.ok("up")
        assert request_of(agentd, task) == before
        busy = agentd.json("submit", "Sleep", "--check", "sleep 60")["id"]  # the worker goes on with this meanwhile
        wait_for(lambda: agentd.json("show", busy)["state"] == "running")
        agentd.ok("approve", task)
        assert agentd.json("show", task)["state"] == "queued"
        agentd.kill()
        assert not (agentd.workspace / "pyproject.toml").exists()
        agentd.ok("up")
        assert ended(agentd, task)["state"] == "claimed"
        assert (agentd.workspace / "pyproject.toml").read_text() == '[project]\nname = "x"\n'
        records = agentd.json("audit", "tail", "-n", "500", "--task", task)
        runs = [record["data"]["tool"] for record in records if record["kind"] == "tool.finished"]
        assert runs == ["write_file"]
    finally:
        agentd.stop()


def test_a_call_by_hand_is_asked_for_where_somebody_is(asks: Agentd) -> None:
    call = ("tool", "call", "write_file", "path=setup.cfg", "content=x", "--level", "1")
    file = asks.workspace / "setup.cfg"
    assert "--yes" in asks.error(*call, code=6)["hint"]
    terminal = Terminal(asks, *call)
    terminal.wait_for("[n]o")
    assert "| +x" in terminal.screen
    terminal.type("n\n")
    assert (terminal.end(), file.exists()) == (6, False)
    terminal = Terminal(asks, *call)
    terminal.wait_for("[n]o")
    terminal.type("y\n")
    assert (terminal.end(), file.read_text()) == (0, "x")
    assert asks.run(*call, "mode=overwrite", "--yes").returncode == 0
    assert asks.error("tool", "call", "write_file", "path=.git/x", "content=x", "--level", "1", "--yes", code=5)
