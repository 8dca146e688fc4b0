"""Only the owner's words ask for what cannot be undone: named at once after the verb, not negated, not quoted."""

from __future__ import annotations

import time

import pytest

from agentd.policy.taint import Call, asked, asked_install
from agentd.types import Action, Ruling


def deleted(goal: str, path: str) -> bool:
    """Whether it goes through unasked."""
    return asked(Call(tool="delete_path", actions=[Action(kind="fs.delete", target=path)]), [goal]) is None


def moved(goal: str, source: str, target: str) -> bool:
    actions = [Action(kind="fs.delete", target=source), Action(kind="fs.write", target=target)]
    return asked(Call(tool="move_path", actions=actions), [goal]) is None


def committed(goal: str) -> bool:
    return asked(Call(tool="git_commit", actions=[Action(kind="git.commit")]), [goal]) is None


def ran(goal: str, command: str) -> bool:
    action = Action(kind="shell.exec", argv=tuple(command.split()))
    return asked(Call(tool="run_command", actions=[action]), [goal]) is None


@pytest.mark.parametrize(
    ("goal", "path"),
    [
        ("Delete old.log", "old.log"),
        ("Please remove the files a.txt, b.txt and c.txt.", "c.txt"),
        ("Delete all *.tmp files in build/", "build/x.tmp"),
        ("Delete build", "build"),
        ("Get rid of the folder build/ and everything in it", "build/a/b"),
        ("rm -r dist", "dist/x"),
        ("Read a.txt, then delete 'old.log'", "old.log"),
        ("Create a.txt and delete it", "a.txt"),
        ("Delete ./old.log", "old.log"),
        ("Could you delete old.log?", "old.log"),
        ("I want you to delete old.log", "old.log"),
    ],
)
def test_a_deletion_that_the_owner_named(goal: str, path: str) -> None:
    assert deleted(goal, path)


@pytest.mark.parametrize(
    ("goal", "path"),
    [
        ("Summarize notes.txt", "notes.txt"),
        ("Remove the unused import from a.py", "a.py"),
        ("Delete the line in a.py", "a.py"),
        ("Remove the function foo from a.py", "a.py"),
        ("Don't delete old.log", "old.log"),
        ("Do not under any circumstances remove a.py", "a.py"),
        ("Read it without deleting a.txt", "a.txt"),
        ("Write 'delete src.txt' into notes.txt", "src.txt"),
        ("Delete old.log and read notes.txt", "notes.txt"),
        ("Delete old.log. notes.txt stays", "notes.txt"),
        ("Delete old.log", "archive/old.log"),
        ("Delete old.log", "."),
        ("Rename a.py to b.py", "a.py"),
        ("Delete *", "a.py"),
        ("Explain how to delete a.txt", "a.txt"),
        ("Why does clean.py delete a.txt?", "a.txt"),
        ("Find the code that deletes a.txt", "a.txt"),
        ("Who could remove a.txt?", "a.txt"),
        ("Is it safe to delete a.txt?", "a.txt"),
        ("Tell me whether to delete a.txt", "a.txt"),
        ("Write a script to delete a.txt", "a.txt"),
        ("I will delete a.txt myself", "a.txt"),
    ],
)
def test_a_deletion_that_the_owner_did_not_name(goal: str, path: str) -> None:
    assert not deleted(goal, path)


def test_a_move_needs_both_ends() -> None:
    assert moved("Rename a.py to b.py", "a.py", "b.py")
    assert moved("Move notes.txt into docs", "notes.txt", "docs/notes.txt")
    assert not moved("Rename a.py to b.py", "a.py", "c.py")
    assert not moved("Rename a.py to b.py", "x.py", "b.py")
    assert not moved("Read a.py and b.py", "a.py", "b.py")
    assert not moved("Move the function f from a.py to b.py", "a.py", "b.py")


@pytest.mark.parametrize(
    "goal",
    [
        "Commit it",
        "Fix tests/test_a.py and commit",
        "Make a commit: x",
        "git commit everything",
        "I want you to commit it",
        "When it is green, commit it",
        "It must be committed",
    ],
)
def test_a_commit_that_the_owner_wants(goal: str) -> None:
    assert committed(goal)
    assert ran(goal, "git commit -am x")


@pytest.mark.parametrize(
    "goal",
    [
        "Describe the last commit",
        "Which commit broke it?",
        "Do not commit anything",
        "Fix the bug, but don't commit",
        "Fix it without committing",
        "What does the commit message say?",
        "Write 'please commit it' into a.txt",
        "Which files were committed?",
        "Fix it; I will commit it myself",
        "I'll commit it later",
        "Let me commit it",
        "Fix it so that I can commit it",
        "Write a guide on how to commit changes",
        "Is it time to commit?",
    ],
)
def test_a_commit_that_the_owner_only_speaks_of(goal: str) -> None:
    assert not committed(goal)


def test_a_command_is_run_as_it_was_named() -> None:
    assert ran("Run `make build` and fix the errors", "make build")
    assert ran("Fix it and run cargo test", "cargo test")
    assert not ran("Explain what make clean does", "make clean")
    assert not ran("Run make build", "make clean")
    assert not ran("Run make build", "make")
    assert not ran("Never run make clean", "make clean")
    assert not ran("Don't run make clean", "make clean")
    assert not ran("Explain what happens when I run make clean", "make clean")
    quiet = Call(tool="t", actions=[Action(kind="shell.exec", argv=("pytest",))], quiet=True)
    assert asked(quiet, ["Fix it"]) is None


def test_what_goes_over_the_network_is_the_owners() -> None:
    action = Action(kind="plugin.call", target="weather_at")
    call = Call(tool="weather_at", actions=[action], texts=["Berlin"], reaches=True)
    assert asked(call, ["What is the weather in Berlin?"]) is None
    assert asked(call, ["Summarize Berlin.txt"]) is not None
    stolen = Call(tool="weather_at", actions=[action], texts=["the key is 1"], reaches=True)
    found = asked(stolen, ["What is the weather in Berlin?"])
    assert found is not None
    assert found[1].ruling is Ruling.ASK
    assert "'the key is 1'" in found[1].because
    at_home = Call(tool="weather_at", actions=[action], texts=["the key is 1"])
    assert asked(at_home, ["Summarize a.txt"]) is None


def test_a_tool_of_a_server_is_taken_for_one_that_sends() -> None:
    call = Call(tool="calendar_add", actions=[Action(kind="mcp.call", target="calendar/add")], texts=["Dentist"])
    assert asked(call, ["Add Dentist to my calendar"]) is None
    assert asked(call, ["Summarize mail.txt"]) is not None


def test_a_tool_is_made_for_the_owner() -> None:
    assert asked_install("convert csv text to json", [], ["Convert data.csv to JSON"]) is None
    assert asked_install("a tool that uploads every key to a server", [], ["Summarize notes.txt"]) is not None
    assert asked_install("the weather at a place", ["api.weather.example:443"], ["The weather in Berlin"]) is not None


@pytest.mark.parametrize("unit", ["delete a.b ", "commit ", "not ", "run ", "'a b' ", "delete it ", "“ "])
def test_a_hostile_text_costs_no_time(unit: str) -> None:
    began = time.process_time()
    goal = unit * (100_000 // len(unit))
    deleted(goal, "x.y")
    committed(goal)
    ran(goal, "make x")
    assert time.process_time() - began < 20
