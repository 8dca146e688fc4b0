"""A real language model, in its own process, does real tasks through the real daemon."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.e2e.harness import Agentd, alive, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]


def test_it_reads_and_answers_from_the_result(daemon: Agentd) -> None:
    daemon.files({"notes.txt": "milk\nbread\neggs\n"})
    done = daemon.run("run", "How many lines are in notes.txt?")
    assert (done.returncode, done.stdout) == (0, "notes.txt has 3 lines, 3 words and 16 bytes (text, utf-8).\n")
    assert "claimed (no check ran)" in done.stderr


def test_it_writes_and_a_check_verifies(daemon: Agentd) -> None:
    daemon.files({"list.txt": "apples\n"})
    report = daemon.json("run", "Append 'pears' to list.txt", "--check", "grep -x pears list.txt")
    assert report["state"] == "verified"
    assert (daemon.workspace / "list.txt").read_text() == "apples\npears\n"
    kinds = [record["kind"] for record in daemon.json("audit", "tail", "--limit", "100")]
    assert {"model.called", "tool.decided", "tool.finished", "task.verified"} <= set(kinds)


def test_it_stops_at_the_edge_of_the_folder(daemon: Agentd) -> None:
    (daemon.workspace.parent / "secret.txt").write_text("the secret")
    done = daemon.run("run", "Show me the file ../secret.txt")
    assert done.returncode == 5
    assert "the secret" not in done.stdout + done.stderr


def test_a_killed_model_costs_neither_the_daemon_nor_the_task(daemon: Agentd) -> None:
    daemon.files({"notes.txt": "milk\n"})
    before = daemon.pid
    daemon.ok("run", "How many lines are in notes.txt?")
    (child,) = [
        each for each in psutil.Process(before).children(recursive=True) if "llama.worker" in str(each.cmdline())
    ]
    task = daemon.json("submit", "Show me what is written in notes.txt")["id"]
    wait_for(lambda: daemon.json("show", task)["state"] == "running")
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not alive(child.pid))
    daemon.run("wait", task)
    ended = daemon.json("show", task)
    assert ended["state"] == "claimed", ended
    assert "milk" in ended["report"]["answer"]
    assert daemon.pid == before
    assert daemon.run("run", "How many lines are in notes.txt?").returncode == 0
