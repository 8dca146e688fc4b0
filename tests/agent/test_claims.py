"""A claim in an answer with nothing on record to show for it is struck out."""

import subprocess

import pytest

from agentd.types import Budget, TaskState
from tests.agent.conftest import DONE, Words, one_step


def answered(agent, answer, *calls):
    goal = "see to x.txt, x.py, old.txt and log.txt"
    return agent.run(Words(one_step("read or write the file, run the tests"), *calls, "answer", answer, DONE), goal)


@pytest.mark.parametrize(
    "claim",
    [
        "I ran the tests.",
        "All tests pass now.",
        "The test suite is green.",
        "I've committed the change.",
        "The changes were pushed to origin.",
        "Deployed to production.",
        "I have installed the package.",
        "An e-mail was sent.",
        "I fixed the bug.",
        "Created the folder.",
        "The file was deleted.",
        "I can confirm all tests pass.",
        "As you asked, I committed the change.",
        "Nothing is left to do: all tests pass.",
        "I have since committed it.",
        "I did commit the change.",
        "I made a commit.",
        "The commit was made.",
        "No tests fail.",
        "Tests: OK.",
        "All checks are green.",
        "The linter is clean.",
        "Ruff reports no errors.",
        "I have also run the tests.",
        "I verified the fix.",
        "I opened a pull request.",
        "I rewrote x.py.",
        "I made the change.",
        "The bug is fixed in x.py.",
    ],
)
def test_what_was_never_done_is_struck_out(agent, claim):
    report = answered(agent, f"Here it is. {claim}")
    assert report.struck == (claim,)
    assert report.answer == f"Here it is. ~~{claim}~~"


@pytest.mark.parametrize(
    "words",
    [
        "I did not run the tests.",
        "The tests could not pass without it.",
        "Nothing was changed.",
        "You can commit it now.",
        "The tests should pass after that.",
        "It reads a file and returns a list.",
        "No file was changed.",
        "Do all tests pass?",
        "The parser is implemented in x.py.",
        "The cache is updated after each call.",
        "Emails are sent by x.py.",
        "A file is created and then deleted.",
        "Errors are fixed by retrying.",
        "The file was written by Ann.",
        "Tests pass a dictionary to it.",
        "The package is installed with pip.",
    ],
)
def test_what_is_no_claim_stands(agent, words):
    assert answered(agent, words).struck == ()


def test_what_was_done_stands(agent):
    write = ("write_file", {"path": "x.txt"}, "```content\n1\n```")
    (agent.folder / "old.txt").write_text("1")
    report = answered(agent, "I created x.txt. I also changed old.txt.", *write)
    assert report.struck == ("I also changed old.txt.",)
    assert report.state is TaskState.CLAIMED


def test_tests_that_ran_before_the_last_change_show_nothing(agent):
    (agent.folder / "test_a.py").write_text("def test(): pass\n")
    run = ("run_tests", {"target": ""})
    report = answered(agent, "All tests pass.", *run)
    assert report.struck == ()
    (agent.folder / ".agentd").mkdir()
    (agent.folder / ".agentd" / "config.toml").write_text("[done]\ntests = false\n")
    report = answered(agent, "All tests pass.", *run, "write_file", {"path": "x.py"}, "```content\nx = 1\n```")
    assert report.struck == ("All tests pass.",)


def test_what_a_tool_put_out_stands(agent):
    (agent.folder / "log.txt").write_text("The release was deployed.\n")
    report = answered(agent, "The release was deployed.", "read_file", {"path": "log.txt"})
    assert report.struck == ()


def test_what_the_model_has_written_itself_is_no_record(agent):
    write = ("write_file", {"path": "x.txt"}, "```content\nAll tests pass.\n```")
    report = answered(agent, "All tests pass.", *write, "read_file", {"path": "x.txt"})
    assert report.struck == ("All tests pass.",)


def test_a_claim_does_not_come_back_as_a_reason(agent):
    model = Words(one_step("see"), "answer", "I fixed it; all tests pass.")
    report = agent.run(model, checks=["python -c 'raise SystemExit(1)'"], budget=Budget(retries=0))
    assert report.state is TaskState.FAILED
    assert report.reason.startswith("~~I fixed it; all tests pass.~~")


def test_looking_at_the_repository_is_no_commit(agent):
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "-q"], cwd=agent.folder, check=True)
    report = answered(agent, "I committed the change. Ann has committed it.", "git_log", {})
    assert report.struck == ("I committed the change.",)


def test_each_file_that_is_listed_has_to_be_changed(agent):
    write = ("write_file", {"path": "x.txt"}, "```content\n1\n```")
    report = answered(agent, "I created x.txt, x.py and old.txt. I wrote x.txt, which old.txt names.", *write)
    assert report.struck == ("I created x.txt, x.py and old.txt.",)


def test_a_check_of_a_step_is_a_record_and_what_only_names_tests_is_none(agent):
    (agent.folder / "test_a.py").write_text("def test(): pass\n")
    plan = one_step("see", checks=[{"kind": "command", "target": "python -m pytest -q"}])
    assert agent.run(Words(plan, "answer", "All tests pass.", DONE)).struck == ()
    report = agent.run(Words(one_step("see"), "answer", "All tests pass.", DONE), checks=["test -f test_a.py"])
    assert report.struck == ("All tests pass.",)
    report = agent.run(Words(one_step("see"), "answer", "All tests pass.", DONE), checks=["pytest --co"])
    assert report.struck == ("All tests pass.",)
