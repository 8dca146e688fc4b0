"""The whole flow of a task over a real store, policy, gate and folder; the model's words are given."""

import subprocess
import threading

import pytest

from agentd.errors import QuestionAsked
from agentd.types import Budget, ModelProfile, TaskRequest, TaskState
from tests.agent.conftest import DONE, Words, one_step


def test_a_read_is_claimed_with_the_words_of_the_model(agent):
    (agent.folder / "a.txt").write_text("one\ntwo\n")
    model = Words(
        one_step("count the lines of a.txt"), "file_info", {"path": "a.txt"}, "answer", "a.txt has 2 lines.", DONE
    )
    report = agent.run(model)
    assert (report.state, report.answer, report.reason) == (TaskState.CLAIMED, "a.txt has 2 lines.", "")
    assert model.left == []
    assert report.usage.model_calls == 6
    assert report.usage.tool_calls == 1


def test_text_goes_in_fenced_blocks_and_a_check_verifies(agent):
    model = Words(
        one_step("write the file x.txt"),
        "write_file",
        {"path": "x.txt"},
        "```content\nHello\nworld\n```",
        "answer",
        "Done: x.txt.",
        DONE,
    )
    report = agent.run(model, checks=["python -c \"assert open('x.txt').read() == 'Hello\\nworld\\n'\""])
    assert report.state is TaskState.VERIFIED
    assert report.changed == ("x.txt",)
    assert len(report.verified) == 1


def test_a_red_check_fails_the_task_whatever_the_model_says(agent):
    model = Words(one_step(), "answer", "All done.")
    report = agent.run(model, checks=["python -c 'raise SystemExit(1)'"], budget=Budget(retries=0))
    assert report.state is TaskState.FAILED
    assert report.answer.startswith("All done.")
    assert "exited with 1" in report.reason


def test_a_check_of_the_plan_is_run_and_a_failing_step_tried_again(agent):
    plan = one_step("write the file x.txt", checks=[{"kind": "file_contains", "target": "x.txt", "text": "yes"}])
    model = Words(
        plan,
        *("write_file", {"path": "x.txt"}, "```\nno\n```", "answer", "Done."),
        *("write_file", {"path": "x.txt", "mode": "overwrite"}, "```\nyes\n```", "answer", "Done.", DONE),
    )
    report = agent.run(model)
    assert report.state is TaskState.VERIFIED
    second_try = next(request for request in model.asked[5:] if request.choices)
    assert "x.txt lacks 'yes'" in second_try.messages[1].content


def test_the_critic_may_lower_but_never_raise(agent):
    refused = {"done": False, "advice": "nothing was read"}
    model = Words(one_step(), *["answer", "It is fine.", refused] * 3)
    report = agent.run(model)
    assert report.state is TaskState.FAILED
    assert report.reason == "nothing was read"


def test_numbers_that_stand_in_no_result_are_taken_back(agent):
    (agent.folder / "a.txt").write_text("one\n")
    model = Words(
        one_step("count the lines of a.txt"),
        "file_info",
        {"path": "a.txt"},
        "answer",
        "It has 4711 lines.",
        "Still 4711 lines.",
        DONE,
    )
    report = agent.run(model)
    assert "4711" not in report.answer
    assert "1 line" in report.answer
    assert "4711" in model.asked[5].messages[-1].content


def test_wrong_arguments_are_shown_and_corrected(agent):
    (agent.folder / "a.txt").write_text("one\n")
    model = Words(
        one_step("read a.txt"),
        *("read_file", {"path": "a.txt", "start": "soon"}, {"path": "a.txt", "start": 1}),
        *("answer", "It says one.", DONE),
    )
    assert agent.run(model).state is TaskState.CLAIMED
    assert "start" in model.asked[3].messages[-1].content


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["need_new_tool", "a tool that sends mail", "need_new_tool"], TaskState.IMPOSSIBLE),
        (["impossible", "there is no such file"], TaskState.IMPOSSIBLE),
    ],
)
def test_ends_name_what_was_missing(agent, words, state):
    report = agent.run(Words(one_step(), *words))
    assert report.state is state
    assert words[1] in report.reason


def test_a_question_leaves_as_an_exception_for_the_worker(agent):
    with pytest.raises(QuestionAsked, match="Which file"):
        agent.run(Words(one_step(), "ask", "Which file?"))


def test_a_task_that_was_let_do_nothing_is_not_done(agent):
    report = agent.run(Words(one_step(), "read_file", {"path": ".env"}, "answer", "I looked at it.", DONE))
    assert (report.state, report.answer) == (TaskState.DENIED, "I looked at it.")
    assert "fs.read .env is denied" in report.reason


def test_policy_is_heard_twice_and_then_ends_the_task(agent):
    forbidden = ["read_file", {"path": "../secret"}]
    report = agent.run(Words(one_step("read the file"), *forbidden * 3))
    assert report.state is TaskState.DENIED
    assert "../secret" in report.reason


def test_the_same_call_over_and_over_ends_as_looped(agent):
    (agent.folder / "a.txt").write_text("one\n")
    report = agent.run(Words(one_step("read the file"), *["read_file", {"path": "a.txt"}] * 9))
    assert report.state is TaskState.LOOPED
    assert report.usage.tool_calls == 3


def test_turns_run_out_as_budget(agent):
    for name in "abcdef":
        (agent.folder / f"{name}.txt").write_text(name)
    turns = [word for name in "abcdef" for word in ("read_file", {"path": f"{name}.txt"})]
    report = agent.run(Words(one_step("read the files"), *turns), budget=Budget(steps=4))
    assert report.state is TaskState.BUDGET
    assert "4 turns" in report.reason


def test_a_task_without_turns_is_planned_and_not_done(agent):
    plan = one_step("make a.txt", expect="it is there", checks=[{"kind": "file_exists", "target": "a.txt"}])
    model = Words(plan, "write_file", {"path": "a.txt"}, "```\nx\n```")
    report = agent.run(model, checks=["true"], budget=Budget(steps=0))
    assert (report.state, report.checks, report.changed) == (TaskState.CLAIMED, (), ())
    assert report.answer == "1. make a.txt (expected: it is there); check: a.txt"
    assert len(model.left) == 3
    assert list(agent.folder.iterdir()) == []


def test_a_model_without_words_fails_the_task_and_not_the_daemon(agent):
    report = agent.run(Words())
    assert report.state is TaskState.FAILED


def test_a_plan_in_no_form_fails_after_one_retry(agent):
    model = Words("I would rather not.", "Really.")
    report = agent.run(model)
    assert report.state is TaskState.FAILED
    assert model.left == []


def test_several_steps_are_summed_up(agent):
    plan = {"steps": [{"intent": "second", "after": [2]}, {"intent": "first"}]}
    words = ["answer", "First done.", DONE, "answer", "Second done.", DONE, "Both are done."]
    model = Words(plan, *words)
    report = agent.run(model)
    assert report.answer == "Both are done."
    shown = agent.app.queue.get(agent.task.id)
    assert [step.intent for step in shown.plan.steps] == ["first", "second"]
    assert [outcome.text for outcome in shown.outcomes] == ["First done.", "Second done."]


def test_cancelled_before_the_next_turn(agent):
    cancel = threading.Event()
    cancel.set()
    agent.app.queue.submit(TaskRequest(goal="x", workspace=str(agent.folder)))
    assert agent.go_on(Words(one_step()), cancel).state is TaskState.CANCELLED


def test_a_prompt_stays_small_however_many_turns(agent):
    for number in range(40):
        (agent.folder / f"f{number}.txt").write_text(f"{number}\n" * 50)
    turns = [word for number in range(40) for word in ("read_file", {"path": f"f{number}.txt"})]
    model = Words(one_step("read the files"), *turns, "answer", "Read.", DONE)
    assert agent.run(model, budget=Budget(steps=50)).state is TaskState.CLAIMED
    sizes = [sum(len(m.content) for m in request.messages) for request in model.asked if request.choices]
    assert max(sizes[25:]) <= max(sizes[:25]) * 1.1


def test_every_model_and_tool_call_is_audited(agent):
    (agent.folder / "a.txt").write_text("secret words\n")
    agent.run(Words(one_step("read a.txt"), "read_file", {"path": "a.txt"}, "answer", "Read.", DONE))
    records = agent.app.audit.tail(100, agent.task.id)
    kinds = [record.kind for record in records]
    assert kinds.count("model.called") == 6
    assert kinds.count("tool.decided") == kinds.count("tool.finished") == 1
    assert "secret words" not in repr(records)
    assert agent.app.audit.verify().ok


def test_a_replay_hears_the_same_words_and_does_nothing_twice(agent):
    first = Words(
        one_step("write the file a.txt"), "write_file", {"path": "a.txt"}, "```\nonce\n```", "answer"
    )  # then it has no words left
    assert agent.run(first).state is TaskState.FAILED
    (agent.folder / "a.txt").unlink()
    agent.app.queue.release(agent.task, "test")
    second = Words("Wrote a.txt.", DONE)
    report = agent.go_on(second)
    assert (report.state, report.answer) == (TaskState.CLAIMED, "Wrote a.txt.")
    assert not (agent.folder / "a.txt").exists()
    assert report.usage.model_calls == 7


def test_nothing_is_committed_while_a_check_is_red(agent):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], cwd=agent.folder, check=True)
    commit = ["git_commit", {}, "```message\nAdd it\n```"]
    model = Words(
        one_step("write the file ok.txt and commit it"),
        *commit,
        *("write_file", {"path": "ok.txt"}, "```\nyes\n```"),
        *commit,
        *("answer", "Committed.", DONE),
    )
    report = agent.run(model, checks=["test -f ok.txt"])
    assert report.state is TaskState.VERIFIED
    log = subprocess.run([*git, "log", "--format=%s"], cwd=agent.folder, check=True, capture_output=True, text=True)
    assert log.stdout == "Add it\n"
    refused = next(request for request in model.asked[4:] if request.choices)
    assert "not green" in refused.messages[-2].content


class Turncoat:
    """A role whose usual model is away but for the first look: a compact one stands in."""

    def __init__(self, usual: Words) -> None:
        self.usual, self.compact = usual, Words()
        self.compact.profile = ModelProfile(compact=True)
        self.looks = 0

    def for_role(self, role: str, *, compact: bool | None = None) -> Words:
        self.looks += 1
        return self.usual if compact is False or (compact is None and self.looks == 1) else self.compact


def test_a_task_ends_with_the_kind_of_model_that_it_began_with(agent):
    models = Turncoat(Words(one_step(), "answer", "Done."))
    report = agent.run(models)
    assert (report.state, report.answer) == (TaskState.CLAIMED, "Done.")
    assert models.usual.left == []
    assert models.looks > 3


def test_also_after_a_crash(agent):
    cancel = threading.Event()

    class Crash(Words):
        def chat(self, request, on_delta=None, cancelled=None):
            if not self.left:
                raise SystemExit("the daemon dies")
            return super().chat(request)

    with pytest.raises(SystemExit):
        agent.run(Turncoat(Crash(one_step())))
    agent.app.queue.recover()
    models = Turncoat(Words("answer", "Done."))
    models.looks = 1  # the usual one is away from the start
    report = agent.go_on(models, cancel)
    assert (report.state, report.answer) == (TaskState.CLAIMED, "Done.")
