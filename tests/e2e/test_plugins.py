"""Plugins from the command line, with the real daemon and the real sandbox."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.harness import Agentd

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux"),
]


def test_from_an_empty_folder_to_a_tool_and_back(daemon: Agentd) -> None:
    daemon.files({})
    daemon.ok("plugin", "init", "word_count")
    assert daemon.error("plugin", "init", "word_count", code=9)["code"] == "conflict"
    assert daemon.error("plugin", "init", "No Name", code=2)["code"] == "input.invalid"
    assert daemon.json("plugin", "new", "--from", "word_count")["state"] == "provisional"
    assert daemon.ok("tool", "call", "word_count", "text=one two three") == "3"
    listed = daemon.ok("plugin", "ls")
    assert "word_count 1 *  provisional  1   0" in listed
    shown = daemon.ok("plugin", "show", "word_count")
    assert "may          nothing" in shown
    assert "called by    a person: 1 ok, 0 failed" in shown
    assert "return len(text.split())" in shown

    code = daemon.workspace / "word_count" / "plugin.py"
    code.write_text(code.read_text().replace("text.split()", "text"))
    refused = daemon.error("plugin", "new", "--from", "word_count", code=5)
    assert (refused["code"], "expected 2, got 7" in refused["message"]) == ("plugin.refused", True)
    code.write_text(code.read_text().replace("len(text)", "sum(1 for _ in text.split())"))
    assert daemon.json("plugin", "new", "--from", "word_count")["version"] == 2
    assert daemon.json("plugin", "rollback", "word_count")["version"] == 1
    assert daemon.json("plugin", "health")["plugins"] == 1
    assert daemon.json("plugin", "test", "word_count", "2")["ok"] is True
    daemon.ok("plugin", "demote", "word_count", "1")
    assert daemon.json("plugin", "trust", "word_count", "1")["state"] == "trusted"
    assert daemon.json("plugin", "rm", "word_count") == {"removed": ["word_count 2", "word_count 1"]}
    assert daemon.run("tool", "call", "word_count", "text=x").returncode != 0
    assert daemon.error("plugin", "show", "word_count", code=1)["code"] == "input.not_found"


def test_what_was_edited_while_no_daemon_ran_is_not_loaded(fresh: Agentd) -> None:
    fresh.ok("plugin", "init", "word_count")
    fresh.ok("plugin", "new", "--from", "word_count")
    fresh.ok("plugin", "verify")
    fresh.kill()
    code = fresh.home.plugins_dir / "word_count" / "1" / "plugin.py"
    code.write_text(code.read_text() + "\n# harmless\n")
    fresh.ok("up")
    found = fresh.json("plugin", "show", "word_count")
    assert (found["state"], "was changed after it was signed" in found["reason"]) == ("quarantined", True)
    assert fresh.run("tool", "call", "word_count", "text=x").returncode == 1
    done = fresh.run("plugin", "verify")
    assert (done.returncode, "word_count/1/plugin.py was changed" in done.stdout) == (1, True)


def test_a_plugin_survives_a_kill(fresh: Agentd) -> None:
    fresh.ok("plugin", "init", "word_count")
    fresh.ok("plugin", "new", "--from", "word_count")
    fresh.kill()
    fresh.ok("up")
    assert fresh.ok("tool", "call", "word_count", "text=one two") == "2"
