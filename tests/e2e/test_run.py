"""Tasks from the command line: followed, checked, stopped, left alone, looked at afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Agentd, Terminal, wait_for

pytestmark = pytest.mark.e2e

WORDS = """
- when: Does what was done give
  replies: [&yes {done: true}, *yes, *yes]
- when: What does notes.txt say
  replies: [{steps: [{intent: Read notes.txt}]}, read_file, {path: notes.txt}, answer, It says milk., {done: true}]
- when: Make new.txt
  replies:
    [{steps: [{intent: Make it}]}, write_file, {path: new.txt}, "```\\nx\\n```", answer, Made it., {done: true}]
- when: Read the password file
  replies: [{steps: [{intent: Read it}]}, &tool read_file, &file {path: /etc/passwd}, *tool, *file, *tool, *file]
- when: Fly to the moon
  replies: [{steps: [{intent: Fly}]}, impossible, there is no rocket]
- when: Do the usual
  replies: [{steps: [{intent: Find out}]}, ask, What is the usual?]
- when: Say hello
  replies: [{steps: [{intent: Say it}]}, answer, "hello \\e[31mred\\e[0m", {done: true}]
"""
NOTES = "What does notes.txt say"
LONG = ("--check", "sleep 30")
"""Keeps a task running that is otherwise done."""


@pytest.fixture(scope="module")
def agentd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agentd]:
    made = spoken(tmp_path_factory.mktemp("run"))
    made.ok("up")
    yield made
    made.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Agentd]:
    """A home of this test alone, with no daemon yet."""
    made = spoken(tmp_path)
    yield made
    made.stop()


def spoken(folder: Path) -> Agentd:
    words = folder / "words.yaml"
    words.write_text(WORDS, encoding="utf-8")
    made = Agentd(folder)
    made.speak(words)
    made.files({"notes.txt": "milk\n"})
    return made


def cancel_all(agentd: Agentd) -> None:
    for task in agentd.json("ps"):
        agentd.ok("cancel", task["id"])
        agentd.run("wait", task["id"])


def state_of(agentd: Agentd, task_id: str) -> str:
    return str(agentd.json("show", task_id)["state"])


# following ------------------------------------------------------------------------------------------------------------


def test_the_answer_is_alone_on_stdout_and_the_rest_on_stderr(agentd: Agentd) -> None:
    done = agentd.run("run", NOTES)
    assert (done.returncode, done.stdout) == (0, "It says milk.\n")
    said = done.stderr.splitlines()
    assert said[0] == "plan: 1 step"
    assert "step 1 done: Read notes.txt" in said
    assert said[-1] == "claimed (no check ran)"


def test_the_first_task_starts_the_daemon(own: Agentd) -> None:
    assert own.ok("run", NOTES) == "It says milk."
    assert own.json("status")["queue"]["claimed"] == 1


@pytest.mark.parametrize(
    ("checks", "code", "last"),
    [
        (["true"], 0, "verified: true"),
        (["true", "test -f notes.txt"], 0, "verified: true; test -f notes.txt"),
        (["true", "test -f none.txt"], 3, "failed: "),
    ],
)
def test_checks_decide(agentd: Agentd, checks: list[str], code: int, last: str) -> None:
    options = [word for check in checks for word in ("--check", check)]
    done = agentd.run("run", NOTES, *options)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(last)


@pytest.mark.parametrize(
    ("goal", "code", "state"),
    [
        ("Read the password file", 5, "denied"),
        ("Fly to the moon", 3, "impossible"),
        ("Do the usual", 6, "waiting"),
    ],
)
def test_every_end_has_its_exit_code(agentd: Agentd, goal: str, code: int, state: str) -> None:
    done = agentd.run("run", goal, "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (code, state)
    said = [line for line in agentd.run("run", goal).stderr.splitlines() if not line.startswith("hint: ")]
    assert said[-1].startswith(f"{state}: ")
    cancel_all(agentd)


def test_quiet_leaves_the_answer_and_json_the_task(agentd: Agentd) -> None:
    quiet = agentd.run("run", "-q", NOTES)
    assert (quiet.stdout, quiet.stderr) == ("It says milk.\n", "")
    full = agentd.run("--json", "run", NOTES)
    task = json.loads(full.stdout)
    assert (task["report"]["answer"], task["origin"], full.stderr) == ("It says milk.", "cli", "")


def test_verbose_names_the_tools(agentd: Agentd) -> None:
    assert "  read_file: fs.read notes.txt" in agentd.run("run", "-v", NOTES).stderr.splitlines()


def test_a_goal_may_be_several_words_or_come_from_stdin(agentd: Agentd) -> None:
    assert agentd.ok("run", *NOTES.split()) == "It says milk."
    assert agentd.ok("run", "-", stdin=NOTES + "\n") == "It says milk."


def test_another_workspace_and_level(agentd: Agentd, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("milk\n")
    task = agentd.json("run", NOTES, "--workspace", str(tmp_path), "--level", "0")
    assert (task["workspace"], task["level"], task["state"]) == (str(tmp_path), 0, "claimed")
    assert agentd.json("run", "Make new.txt", "--workspace", str(tmp_path))["report"]["changed"] == ["new.txt"]
    assert agentd.error("run", NOTES, "--level", "4", code=5)["code"] == "policy.denied"


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "the goal is empty"),
        (b" \n", "the goal is empty"),
        (b"x" * 1_000_000, "1,000,000 bytes"),
        (b"x" * 3_000_000, "2,097,152 bytes"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "no UTF-8 text"),
        (b"a\x00b", "not plain text"),
    ],
)
def test_goals_that_are_none(agentd: Agentd, stdin: bytes, said: str) -> None:
    error = agentd.error("run", "-", code=2, stdin=stdin)
    assert said in error["message"]


def test_a_workspace_that_is_not_there(agentd: Agentd) -> None:
    error = agentd.error("run", NOTES, "--workspace", "nowhere", code=2)
    assert str(agentd.workspace / "nowhere") in error["message"]


# stopping -------------------------------------------------------------------------------------------------------------


def test_the_time_limit_of_run_cancels(agentd: Agentd) -> None:
    done = agentd.run("run", NOTES, *LONG, "--timeout", "1", "--json")
    task = json.loads(done.stdout)
    assert (done.returncode, task["state"]) == (124, "cancelled")
    assert "was cancelled" in done.stderr


def test_the_time_limit_of_wait_does_not(agentd: Agentd) -> None:
    task = agentd.ok("submit", NOTES, *LONG)
    assert agentd.run("wait", task, "--timeout", "0.5").returncode == 124
    assert state_of(agentd, task) in ("queued", "running")
    agentd.ok("cancel", task)
    assert agentd.run("wait", task).returncode == 130


def test_an_interrupt_without_a_terminal_cancels(agentd: Agentd) -> None:
    command = agentd.start("run", NOTES, *LONG)
    wait_for(lambda: agentd.json("ps"))
    (task,) = agentd.json("ps")
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=20)
    assert command.returncode == 130
    assert err.splitlines()[-1].startswith("cancelled: ")
    assert state_of(agentd, task["id"]) == "cancelled"


@pytest.mark.skipif(os.name != "posix", reason="a terminal")
@pytest.mark.parametrize(("key", "left"), [("l\n", True), ("c\n", False), ("\x03", False)])
def test_an_interrupt_on_a_terminal_asks_once(agentd: Agentd, key: str, left: bool) -> None:
    terminal = Terminal(agentd, "run", NOTES, *LONG)
    terminal.wait_for("Read notes.txt")
    terminal.type("\x03")
    terminal.wait_for("[c/l]")
    time.sleep(0.3)  # Python misses an interrupt that comes between its last look and the read
    terminal.type(key)
    assert terminal.end() == 130
    under_way = agentd.json("ps")
    cancel_all(agentd)
    assert len(under_way) == left
    assert all(f"agentd wait {task['id']}" in terminal.screen for task in under_way)


@pytest.mark.skipif(os.name != "posix", reason="a terminal")
def test_a_terminal_shows_the_plan_and_obeys_no_answer(agentd: Agentd) -> None:
    terminal = Terminal(agentd, "run", "Say hello")
    assert terminal.end() == 0
    assert "✓ 1. Say it" in terminal.screen
    assert "hello �[31mred" in terminal.screen
    assert "claimed" in terminal.screen
    piped = agentd.run("run", "Say hello")
    assert piped.stdout == "hello \x1b[31mred\x1b[0m\n"


def test_a_daemon_that_was_killed_is_followed_after_its_next_start(own: Agentd) -> None:
    own.ok("up")
    command = own.start("run", "Make new.txt", "--check", "sleep 2")
    # The check runs before the first change and after the last step; there it is met.
    wait_for(lambda: own.run("logs").stdout.count("ToolDecided tool=check_command") == 2)
    own.kill()
    (own.workspace / "new.txt").write_text("mine\n")
    own.ok("up")
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out) == (0, "Made it.\n"), err
    assert err.splitlines()[-1] == "verified: sleep 2"
    assert (own.workspace / "new.txt").read_text() == "mine\n"


IMPATIENT = "import sys\nfrom agentd.cli import client, main\nclient.RECONNECT_SECONDS = 1.0\nmain.main(sys.argv[1:])"


@pytest.mark.slow
def test_a_daemon_that_stays_away_is_unreachable(own: Agentd) -> None:
    own.ok("up")
    task = own.ok("submit", NOTES, *LONG)
    argv = [sys.executable, "-c", IMPATIENT, "logs", "-f", task]
    pipe = subprocess.PIPE
    command = subprocess.Popen(argv, cwd=own.workspace, env=own.env, stdout=pipe, stderr=pipe, text=True)
    wait_for(lambda: state_of(own, task) == "running")
    own.kill()
    _, err = command.communicate(timeout=40)
    assert command.returncode == 7
    assert "no daemon answers" in err or "has gone" in err


# the queue ------------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_task(agentd: Agentd) -> None:
    first = agentd.ok("submit", NOTES, "--key", "monday")
    assert agentd.ok("submit", NOTES, "--key", "monday") == first
    assert agentd.error("submit", "Make new.txt", "--key", "monday", code=9)["code"] == "conflict"


def test_a_task_for_later_waits_for_its_time_and_its_turn(agentd: Agentd) -> None:
    later = agentd.json("submit", NOTES, "--at", "2h", "--priority", "3")
    after = agentd.json("submit", NOTES, "--after", later["id"])
    assert (later["priority"], after["after"]) == (3, [later["id"]])
    assert [task["id"] for task in agentd.json("ps")] == [after["id"], later["id"]]
    agentd.ok("cancel", later["id"])
    wait_for(lambda: state_of(agentd, after["id"]) == "failed")
    assert agentd.error("submit", NOTES, "--at", "soon", code=2)["code"] == "input.invalid"


def test_looking_at_a_task(agentd: Agentd) -> None:
    task = agentd.json("run", NOTES, "--check", "true")
    shown = agentd.ok("show", task["id"])
    for part in (f"{task['id']}  verified", NOTES, "✓ 1. Read notes.txt", "passed: true", "It says milk."):
        assert part in shown
    assert agentd.json("show", task["id"]) == task
    assert re.search(rf"{task['id']} +verified +", agentd.ok("ps", "-a"))
    assert agentd.error("show", "none", code=1)["code"] == "input.not_found"


def test_waiting_for_tasks(agentd: Agentd) -> None:
    good, bad = agentd.ok("submit", NOTES), agentd.ok("submit", "Fly to the moon")
    done = agentd.run("wait", good, bad)
    assert (done.returncode, done.stdout) == (3, f"{good} claimed\n{bad} impossible\n")
    assert agentd.run("wait", good).returncode == 0


def test_the_log_of_a_task(agentd: Agentd) -> None:
    task = agentd.ok("submit", NOTES)
    events = [json.loads(line) for line in agentd.ok("logs", "-f", task, "--json").splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds[:2] == ["TaskQueued", "TaskStarted"]
    assert kinds[-1] == "TaskFinished"
    assert {"PlanMade", "StepStarted", "ToolDecided", "ToolFinished"} <= set(kinds)
    assert {event["task"] for event in events} == {task}
    last = agentd.ok("logs", task, "-n", "1")
    assert last.count("\n") == 0
    assert f"{task} TaskFinished state=claimed" in last


def test_trying_again(agentd: Agentd) -> None:
    task = agentd.json("run", NOTES)
    again = agentd.ok("retry", task["id"])
    agentd.run("wait", again)
    assert agentd.json("show", again)["retry_of"] == task["id"]
    assert agentd.error("cancel", task["id"], code=9)["code"] == "conflict"


@pytest.mark.parametrize("wrong", ["nope", "", "a b", "../x", "a/b", "x?y=1", "ä", ".."])
def test_an_id_that_no_task_has_is_said_so(agentd: Agentd, wrong: str) -> None:
    commands = (
        ["show"],
        ["diff"],
        ["undo"],
        ["apply"],
        ["cancel"],
        ["retry"],
        ["approve"],
        ["reject", "--because", "x"],
    )
    for command in commands:
        error = agentd.error(*command, wrong, code=1)
        assert (error["code"], error["message"]) == ("input.not_found", f"there is no task {wrong!r}"), command


def test_the_morning_report(own: Agentd) -> None:
    own.run("run", NOTES, "--check", "true")
    own.run("run", NOTES)
    own.run("run", "Fly to the moon")
    own.run("run", "Do the usual")
    page = own.ok("report", "--since", "1h")
    titles = ["1 verified, 1 claimed, 1 not done, 1 waiting", "Verified: ", "Claimed: ", "Not done", "Waiting for you"]
    places = [page.index(title) for title in titles]
    assert places == sorted(places)
    assert page.index("passed: true") < page.index("Claimed: ")
    assert "there is no rocket" in page
    assert "What is the usual?" in page
    found: dict[str, Any] = own.json("report")
    assert [len(found[key]) for key in ("verified", "claimed", "other", "waiting")] == [1, 1, 1, 1]


def test_why_a_task_was_allowed_what_it_did(agentd: Agentd) -> None:
    allowed = agentd.json("run", NOTES)["id"]
    (decision,) = agentd.json("policy", "explain", allowed)
    assert (decision["data"]["decision"], decision["data"]["actions"]) == ("allow", ["fs.read notes.txt"])
    assert agentd.json("policy", "explain", allowed, "1") == [decision]
    assert agentd.json("policy", "explain", allowed, "2") == []
    denied = json.loads(agentd.run("run", "Read the password file", "--json").stdout)["id"]
    assert "deny: read_file (fs.read /etc/passwd)" in agentd.ok("policy", "explain", denied)


# suites ---------------------------------------------------------------------------------------------------------------

SUITE = f"""
- id: read
  kind: read
  goal: "{NOTES}"
  files: {{notes.txt: milk}}
  expect: {{answer: {{contains: [milk]}}, unchanged: [notes.txt]}}
- {{id: make, kind: write, goal: Make new.txt, expect: {{files: {{new.txt: {{contains: [y]}}}}}}}}
- {{id: ask, kind: refuse, goal: Do the usual, expect: {{state: [waiting]}}}}
"""


def test_a_suite_is_judged_by_what_it_expects(agentd: Agentd, tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE)
    done = agentd.run("eval", str(file), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 3
    assert [list(task) for task in found["tasks"]] == [["id", "kind", "passed", "state", "seconds", "why"]] * 3
    assert [(task["id"], task["passed"], task["state"]) for task in found["tasks"]] == [
        ("read", True, "claimed"),
        ("make", False, "claimed"),
        ("ask", True, "waiting"),
    ]
    assert "new.txt lacks 'y'" in found["tasks"][1]["why"]
    assert found["summary"]["kinds"]["write"] == {"passed": 0, "total": 1}
    assert agentd.json("ps") == []


def test_part_of_a_suite_repeated_with_a_named_model(agentd: Agentd, tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE)
    before = agentd.json("status")["queue"]["claimed"]
    options = ("--kind", "read", "--repeat", "2", "--role-model", "words")
    found = agentd.json("eval", str(file), *options)
    assert [(task["id"], task["run"], task["passed"]) for task in found["tasks"]] == [
        ("read", 1, True),
        ("read", 2, True),
    ]
    assert agentd.json("status")["queue"]["claimed"] == before
    assert "pass  read" in agentd.ok("eval", str(file), "--kind", "read")
    assert agentd.error("eval", str(file), "--kind", "reed", code=2)["hint"] == "there are read, write, refuse"
    assert agentd.error("eval", str(file), "--role-model", "none", code=1)["code"] == "input.not_found"
    assert "unknown key" in _error_of_suite(agentd, tmp_path)


def _error_of_suite(agentd: Agentd, folder: Path) -> str:
    file = folder / "bad.yaml"
    file.write_text("- {id: a, kind: b, gaol: c}\n")
    return str(agentd.error("eval", str(file), code=2)["message"])
