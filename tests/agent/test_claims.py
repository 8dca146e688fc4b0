"""A claim in an answer with nothing on record to show for it is struck out."""

import pytest

from agentd.types import TaskState
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
