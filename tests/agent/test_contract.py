"""What a task is held to: the checks of owner, project, plan and agentd, its boundaries, and when it may stop."""

import subprocess

import pytest

from agentd.types import Budget, CheckKind, TaskRequest, TaskState
from tests.agent.conftest import DONE, Words, one_step

RED = "python -c 'raise SystemExit(1)'"
HAS_X = "python -c \"open('x.txt')\""


def write(path, content, mode="create"):
    return "write_file", {"path": path, "mode": mode}, f"```content\n{content}\n```"


def project(agent, text):
    (agent.folder / ".agentd").mkdir()
    (agent.folder / ".agentd" / "config.toml").write_text(text)


def by(report):
    """Whether they passed, but for the looks at what was changed."""
    looks = (CheckKind.SECRETS, CheckKind.DOCS)
    return {(r.check.by, r.check.kind): r.passed for r in report.checks if r.check.kind not in looks}


def test_checks_of_the_project_decide_like_those_of_the_owner(agent):
    project(agent, '[checks]\ntests = "python -m pytest -q"\n')
    model = Words(one_step("write the file x.txt"), *write("x.txt", "1"), "answer", "Wrote x.txt.", DONE)
    (agent.folder / "test_a.py").write_text("def test(): pass\n")
    report = agent.run(model)
    assert report.state is TaskState.VERIFIED
    (ran,) = [result for result in report.checks if result.check.by == "project"]
    assert (ran.passed, ran.code, len(ran.sha256)) == (True, 0, 64)


def test_the_commands_of_a_project_are_judged_as_a_plan_s(agent):
    project(agent, '[checks]\nevil = "curl https://example.com"\n')
    report = agent.run(Words(one_step(), "answer", "Fine."), budget=Budget(retries=0))
    assert report.state is TaskState.FAILED
    assert "could not be run" in report.reason


def test_below_level_2_the_commands_of_a_project_do_not_run(agent):
    project(agent, '[checks]\ntests = "python -m pytest -q"\n')
    report = agent.run(Words(one_step(), "answer", "Fine.", DONE), level=1)
    assert (report.state, report.checks) == (TaskState.CLAIMED, ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[checks\n", "cannot be taken"),
        ("[check]\na = 'b'\n", "check"),
        ("[checks]\na = 3\n", "checks.a"),
        ("[checks]\na = 'pytest \"'\n", "checks.a: "),
        ("boundaries = ['/etc/**']\n", "relative to the workspace"),
        ("boundaries = ['src/**', '../x']\n", "boundaries: '../x'"),
        ("boundaries = ['']\n", "boundaries: ''"),
        ("level = 4\n", "level"),
        ("x" * 70_000, "more than"),
    ],
)
def test_a_project_s_file_that_cannot_be_read_ends_the_task_before_work(agent, text, told):
    project(agent, text)
    report = agent.run(Words(one_step("write the file x.txt"), *write("x.txt", "1"), "answer", "Done.", DONE))
    assert report.state is TaskState.FAILED
    assert told in report.reason
    assert not (agent.folder / "x.txt").exists()


def test_a_plan_brings_checks_for_the_whole_task(agent):
    plan = one_step("write the file x.txt") | {
        "outcome": "x.txt says 1",
        "checks": [{"kind": "file_contains", "target": "x.txt", "text": "2", "by": "user"}],
    }
    words = [*write("x.txt", "1"), "answer", "Wrote x.txt."]
    report = agent.run(Words(plan, *words), budget=Budget(retries=0))
    assert report.state is TaskState.FAILED
    assert by(report) == {("plan", CheckKind.FILE_CONTAINS): False}
    assert agent.app.queue.get(agent.task.id).plan.outcome == "x.txt says 1"


def test_nothing_outside_the_boundaries_is_written(agent):
    refused = write("b/x.txt", "1")
    model = Words(one_step("write the file"), *refused, *write("a/x.txt", "1"), "answer", "Wrote a/x.txt.", DONE)
    request = TaskRequest(goal="write", workspace=str(agent.folder), level=1, boundaries=("a/**",))
    agent.app.queue.submit(request)
    report = agent.go_on(model)
    assert (report.state, report.changed) == (TaskState.CLAIMED, ("a/x.txt",))
    assert by(report) == {("user", CheckKind.BOUNDARIES): True}
    assert not (agent.folder / "b").exists()
    assert "outside the boundaries" in model.asked[4].messages[-2].content


def test_green_that_turns_red_is_told_and_mended(agent):
    (agent.folder / "x.txt").write_text("good\n")
    check = "python -c \"assert 'good' in open('x.txt').read()\""
    model = Words(
        one_step("overwrite the file x.txt"),
        *(*write("x.txt", "bad", "overwrite"), "answer", "Changed x.txt."),
        *(*write("x.txt", "good too", "overwrite"), "answer", "Changed x.txt.", DONE),
    )
    report = agent.run(model, checks=[check])
    assert report.state is TaskState.VERIFIED
    again = next(request for request in model.asked[5:] if request.choices)
    assert "AssertionError" in again.messages[1].content


def test_it_stops_when_what_was_red_is_green(agent):
    steps = [{"intent": "write the file x.txt"}, {"intent": "polish it for hours"}]
    plan = {"steps": steps, "stop_when": "checks_pass"}
    model = Words(plan, *write("x.txt", "1"), "answer", "Wrote x.txt.", DONE)
    report = agent.run(model, checks=[HAS_X])
    assert report.state is TaskState.VERIFIED
    assert model.left == []


def test_a_later_step_s_own_check_is_no_reason_to_stop_early(agent):
    steps = [{"intent": "write the file x.txt"}, {"intent": "write y.txt"}]
    steps[1]["checks"] = [{"kind": "file_exists", "target": "y.txt"}]
    words = [*write("x.txt", "1"), "answer", "Wrote x.txt.", DONE, *write("y.txt", "1"), "answer", "Wrote y.txt.", DONE]
    model = Words({"steps": steps, "stop_when": "checks_pass"}, *words, "Wrote both.")
    agent.run(model, checks=["python -c 'pass'"])
    assert (agent.folder / "y.txt").exists()


def test_it_does_not_stop_early_when_nothing_was_red(agent):
    steps = [{"intent": "write the file x.txt"}, {"intent": "read it"}]
    plan = {"steps": steps, "stop_when": "checks_pass"}
    model = Words(plan, *write("x.txt", "1"), "answer", "Wrote x.txt.", DONE, "answer", "Read.", DONE, "Wrote x.txt.")
    report = agent.run(model, checks=["python -c 'pass'"])
    assert (report.state, model.left) == (TaskState.VERIFIED, [])


def test_the_tests_of_a_project_are_run_when_code_changed_and_only_then(agent):
    (agent.folder / "test_a.py").write_text("from a import one\ndef test(): assert one() == 1\n")
    (agent.folder / "a.py").write_text("def one(): return 1\n")
    report = agent.run(Words(one_step("write"), *write("x.txt", "1"), "answer", "Wrote x.txt.", DONE))
    assert (report.state, by(report)) == (TaskState.CLAIMED, {})

    broken = [*write("a.py", "def one(): return 2", "overwrite"), "answer", "Changed a.py."]
    model = Words(one_step("write the file a.py"), *broken)
    report = agent.run(model, budget=Budget(retries=0))
    assert report.state in (TaskState.FAILED, TaskState.ROLLED_BACK)
    assert "python -m pytest" in report.reason


def test_green_tests_of_agentd_s_own_choice_verify_nothing(agent):
    (agent.folder / "test_a.py").write_text("def test(): pass\n")
    report = agent.run(Words(one_step("write"), *write("a.py", "x = 1"), "answer", "Wrote a.py.", DONE))
    assert report.state is TaskState.CLAIMED
    assert by(report)[("agentd", CheckKind.COMMAND)]


def test_tests_that_were_red_before_are_nobody_s_fault(agent):
    (agent.folder / "test_a.py").write_text("def test(): assert False\n")
    report = agent.run(Words(one_step("write"), *write("a.py", "x = 1"), "answer", "Wrote a.py.", DONE))
    assert (report.state, by(report)) == (TaskState.CLAIMED, {})


def test_a_commit_waits_for_green(agent):
    model = Words(one_step("commit"), "git_commit", {}, "```message\nx\n```", "answer", "It was not green.", DONE)
    report = agent.run(model, checks=[RED])
    assert report.state is TaskState.FAILED
    assert any("not committed" in m.content for request in model.asked for m in request.messages)


def test_a_check_that_is_red_at_the_end_gives_the_last_step_another_try(agent):
    check = "python -c \"assert 'right' in open('x.txt').read()\""
    first = (*write("x.txt", "wrong"), "answer", "Wrote x.txt.")
    model = Words(
        one_step("write the file x.txt"), *first, *write("x.txt", "right", "overwrite"), "answer", "Yes.", DONE
    )
    report = agent.run(model, checks=[check])
    assert (report.state, model.left) == (TaskState.VERIFIED, [])


@pytest.mark.parametrize("key", ["AKIA" + "Z7QXJ2WN4KLM5RTB", "open sesame"])
def test_a_secret_in_what_was_written_is_red_and_stays_unsaid(agent, key):
    agent.app.vault.set("box", "open sesame")
    report = agent.run(
        Words(one_step("write the file x.py"), *write("x.py", f"KEY = '{key}'"), "answer", "Wrote x.py."),
        budget=Budget(retries=0),
    )
    assert report.state is TaskState.FAILED
    assert "x.py:1" in report.reason
    assert key not in str(report)


def test_a_page_that_speaks_of_a_function_that_is_gone_is_told_of(agent):
    (agent.folder / "a.py").write_text("def load(path):\n    return path\n")
    (agent.folder / "README.md").write_text("Call `load(path)` first.\n")
    (agent.folder / "other.md").write_text("A heavy load.\n")
    change = write("a.py", "def read(path):\n    return path", "overwrite")
    page = write("README.md", "Call `read(path)` first.\nThen go.", "overwrite")
    model = Words(
        one_step("overwrite the file a.py"), *change, "answer", "Changed a.py.", *page, "answer", "Changed.", DONE
    )
    report = agent.run(model)
    assert (report.state, model.left) == (TaskState.CLAIMED, [])
    told = next(request for request in model.asked[5:] if request.choices).messages[1].content
    assert "README.md still speaks of load" in told
    assert "other.md" not in told


ROLL = "python -c \"assert 'good' in open('a.txt').read()\""


def test_what_broke_and_was_not_mended_is_put_back(agent):
    (agent.folder / "a.txt").write_text("good\n")
    tries = [(*write("a.txt", f"bad {n}\nworse", "overwrite"), "answer", "Changed a.txt.") for n in range(3)]
    plan = {"steps": [{"intent": "write the file b.txt"}, {"intent": "overwrite the file a.txt"}]}
    model = Words(
        plan, *write("b.txt", "1"), "answer", "Wrote b.txt.", DONE, *(word for words in tries for word in words)
    )
    report = agent.run(model, checks=[ROLL])
    assert (report.state, model.left) == (TaskState.ROLLED_BACK, [])
    assert (agent.folder / "a.txt").read_text() == "good\n"
    assert (agent.folder / "b.txt").exists(), "the step before was green"
    assert (report.restored, report.changed) == (("a.txt",), ("b.txt",))
    assert "AssertionError" in report.reason


def test_what_was_red_before_is_not_put_back(agent):
    (agent.folder / "a.txt").write_text("bad\n")
    words = [*write("a.txt", "worse\nand worse", "overwrite"), "answer", "Changed a.txt."]
    report = agent.run(Words(one_step("overwrite the file a.txt"), *words), checks=[ROLL], budget=Budget(retries=0))
    assert (report.state, report.restored) == (TaskState.FAILED, ())
    assert (agent.folder / "a.txt").read_text().startswith("worse")


@pytest.mark.parametrize(
    ("last", "budget", "told"),
    [
        (("impossible", "It cannot be done."), Budget(), "It cannot be done."),
        ((), Budget(), "no words left"),
        ((), Budget(steps=2), "all 2 turns"),
        (("answer", "I changed it."), Budget(tokens=70), "tokens are used"),
        (("write_file", {"path": "a.txt", "mode": "overwrite"}, "```content\nbad\n\n```") * 3, Budget(), "ran 3 times"),
    ],
)
def test_a_step_that_is_cut_short_leaves_nothing_broken(agent, last, budget, told):
    (agent.folder / "a.txt").write_text("good\n")
    model = Words(one_step("overwrite the file a.txt"), *write("a.txt", "bad\n", "overwrite"), *last)
    report = agent.run(model, checks=[ROLL], budget=budget)
    assert report.state is TaskState.ROLLED_BACK
    assert told in report.reason
    assert (agent.folder / "a.txt").read_text() == "good\n"


# what shows nothing ---------------------------------------------------------------------------------------------------


ALWAYS = {"kind": "command", "target": "python -m pytest --co -q"}


@pytest.mark.parametrize("check", [ALWAYS, {"kind": "file_exists", "target": "test_a.py"}])
@pytest.mark.parametrize("of", ["step", "plan"])
@pytest.mark.parametrize("work", [(), write("x.txt", "1")])
def test_a_check_of_a_model_that_was_green_before_the_work_verifies_nothing(agent, check, of, work):
    (agent.folder / "test_a.py").write_text("def test(): pass\n")
    plan = one_step("write the file x.txt", checks=[check]) if of == "step" else one_step("write the file x.txt")
    plan |= {"checks": [check]} if of == "plan" else {}
    report = agent.run(Words(plan, *work, "answer", "Here it is.", DONE))
    passed = [result.passed for result in report.checks if result.check.by == "plan"]
    assert (report.state, passed) == (TaskState.CLAIMED, [True])


@pytest.mark.parametrize("of", ["step", "plan"])
def test_one_that_was_red_before_the_work_verifies_it(agent, of):
    check = [{"kind": "file_contains", "target": "x.txt", "text": "1"}]
    plan = one_step("write the file x.txt", checks=check) if of == "step" else one_step("write the file x.txt")
    plan |= {"checks": check} if of == "plan" else {}
    report = agent.run(Words(plan, *write("x.txt", "1"), "answer", "Wrote x.txt.", DONE))
    assert report.state is TaskState.VERIFIED


def test_what_the_next_step_s_check_was_before_all_work_counts(agent):
    check = {"kind": "file_exists", "target": "x.txt"}
    plan = {"steps": [{"intent": "write the file x.txt"}, {"intent": "see", "checks": [check]}]}
    words = [*write("x.txt", "1"), "answer", "Wrote it.", DONE, "answer", "It is there.", DONE, "Yes."]
    assert agent.run(Words(plan, *words)).state is TaskState.VERIFIED


def test_tests_and_scripts_that_the_task_itself_changed_are_named(agent):
    (agent.folder / "test_a.py").write_text("def test(): assert False\n")
    change = write("test_a.py", "def test(): pass", "overwrite")
    more = write("test_b.py", "def test(): pass")
    words = [*change, *more, "answer", "Here it is.", DONE]
    report = agent.run(Words(one_step("write the files"), *words), checks=["python -m pytest -q"])
    assert (report.state, report.bent) == (TaskState.VERIFIED, ("test_a.py",))

    script = agent.folder / "check.sh"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    words = [*write("check.sh", "#!/bin/sh", "overwrite"), "answer", "Here it is.", DONE]
    report = agent.run(Words(one_step("write the file check.sh"), *words), checks=["./check.sh"])
    assert (report.state, report.bent) == (TaskState.VERIFIED, ("check.sh",))


# steps ----------------------------------------------------------------------------------------------------------------


def test_what_a_step_s_own_check_finds_broken_is_put_back(agent):
    (agent.folder / "a.txt").write_text("good\n")
    plan = one_step("overwrite the file a.txt", checks=[{"kind": "file_contains", "target": "a.txt", "text": "good"}])
    words = [*write("a.txt", "bad", "overwrite"), "answer", "Changed a.txt."]
    report = agent.run(Words(plan, *words), budget=Budget(retries=0))
    assert (report.state, report.restored) == (TaskState.ROLLED_BACK, ("a.txt",))
    assert (agent.folder / "a.txt").read_text() == "good\n"


def test_what_an_earlier_step_changed_is_still_changed(agent):
    (agent.folder / "a.txt").write_text("good\n")
    plan = {"steps": [{"intent": "overwrite the file a.txt"}, {"intent": "overwrite the file a.txt again"}]}
    first = [*write("./a.txt", "good too", "overwrite"), "answer", "Changed a.txt.", DONE]
    model = Words(plan, *first, *write("./a.txt", "bad", "overwrite"), "answer", "Changed a.txt.")
    report = agent.run(model, checks=[ROLL], budget=Budget(retries=0))
    assert (agent.folder / "a.txt").read_text() == "good too"
    assert (report.state, report.restored, report.changed) == (TaskState.ROLLED_BACK, (), ("a.txt",))


def test_a_commit_waits_for_the_step_s_own_checks(agent):
    git = ["git", "-c", "user.name=T", "-c", "user.email=t@example.com"]
    subprocess.run([*git, "init", "-q"], cwd=agent.folder, check=True)
    check = {"kind": "file_contains", "target": "x.txt", "text": "2"}
    plan = one_step("write the file x.txt and commit", checks=[check])
    model = Words(plan, *write("x.txt", "1"), "git_commit", {}, "```message\nx\n```", "answer", "It was not green.")
    agent.run(model, "write the file x.txt and commit it", budget=Budget(retries=0))
    assert any("not committed" in m.content for request in model.asked for m in request.messages)
    head = subprocess.run([*git, "log"], cwd=agent.folder, capture_output=True, check=False)
    assert head.returncode != 0, "there is a commit"


def test_boundaries_hold_behind_links_and_for_whole_paths(agent):
    (agent.folder / "a").mkdir()
    (agent.folder / "b").mkdir()
    (agent.folder / "a" / "link").symlink_to("../b")
    within = str(agent.folder / "a" / "x.txt")
    model = Words(
        one_step("write the file"), *write("a/link/x.txt", "1"), *write(within, "1"), "answer", "Wrote a/x.txt.", DONE
    )
    request = TaskRequest(goal="write", workspace=str(agent.folder), level=1, boundaries=("a/**",))
    agent.app.queue.submit(request)
    report = agent.go_on(model)
    assert (report.state, report.changed) == (TaskState.CLAIMED, ("a/x.txt",))
    assert list((agent.folder / "b").iterdir()) == []
    kinds = [record.kind for record in agent.app.audit.tail(100, agent.task.id)]
    assert kinds.count("tool.finished") == 1, "nothing was written and taken back"


# the project's own policy ---------------------------------------------------------------------------------------------

NO_DOCS = """\
- match: {action: fs.write, path: ["docs/**"]}
  decision: deny
  because: The pages are made.
  examples: {match: [docs/a.md], not_match: [src/a.py]}
"""


def policy(agent, text):
    (agent.folder / ".agentd").mkdir()
    (agent.folder / ".agentd" / "policy.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_project_s_policy_takes_away(agent):
    policy(agent, NO_DOCS)
    refused = write("docs/x.md", "1")
    model = Words(one_step("write the file"), *refused, *write("x.md", "1"), "answer", "Wrote x.md.", DONE)
    report = agent.run(model, level=1)
    assert (report.state, report.changed) == (TaskState.CLAIMED, ("x.md",))
    assert not (agent.folder / "docs").exists()
    (denied,) = [
        record.data
        for record in agent.app.audit.tail(100, agent.task.id)
        if record.kind == "tool.decided" and record.data["decision"] == "deny"
    ]
    assert (denied["rule"], denied["because"]) == (".agentd/policy.yaml:1", "The pages are made.")


def test_a_project_s_policy_lowers_the_level_and_never_raises_it(agent):
    policy(agent, "max_level: 0\n")
    model = Words(one_step("write the file x.txt"), *write("x.txt", "1"), "answer", "It may not be.", DONE)
    agent.run(model, level=2)
    assert not (agent.folder / "x.txt").exists()
    levels = [r.data["level"] for r in agent.app.audit.tail(100, agent.task.id) if r.kind == "tool.decided"]
    assert levels
    assert set(levels) == {0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_level: 9\n", ".agentd/policy.yaml:1: max_level"),
        (NO_DOCS.replace("deny", "allow"), ".agentd/policy.yaml:2: a project allows nothing"),
        ("max_level: 1\nbackends: []\n", ".agentd/policy.yaml:2: the file has the unknown key 'backends'"),
        ("", "empty"),
        (b"max_level: 1\n\xff\n", ".agentd/policy.yaml:2: it is no text"),
        ("# " + "x" * 70_000, "cannot be read"),
    ],
)
def test_a_project_s_policy_that_cannot_be_taken_ends_the_task_before_work(agent, text, told):
    policy(agent, text)
    model = Words(one_step("write the file x.txt"), *write("x.txt", "1"), "answer", "Done.", DONE)
    report = agent.run(model)
    assert report.state is TaskState.FAILED
    assert told in report.reason
    assert model.asked == []
    assert not (agent.folder / "x.txt").exists()


@pytest.mark.parametrize("name", ["policy.yaml", "config.toml"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_steers_the_agent_is_not_read_through_a_link(agent, name, whole):
    """The agent may write to where it leads, or it may be no part of the project at all."""
    (agent.folder / "open").mkdir()
    (agent.folder / "open" / name).write_text("")
    if whole:
        (agent.folder / ".agentd").symlink_to("open")
    else:
        (agent.folder / ".agentd").mkdir()
        (agent.folder / ".agentd" / name).symlink_to(f"../open/{name}")
    report = agent.run(Words(one_step(), "answer", "Done."))
    assert report.state is TaskState.FAILED
    assert f".agentd{'' if whole else f'/{name}'} is a link" in report.reason


def test_a_project_s_policy_is_frozen_when_the_task_begins(agent):
    """A program that a task runs cannot loosen what binds the task, and a crash does not read it again."""
    policy(agent, NO_DOCS)
    model = Words(one_step("write the file"), *write("docs/x.md", "1"), "answer", "It may not be.", DONE)
    keep = model.chat

    def chat(*args, **kwargs):
        (agent.folder / ".agentd" / "policy.yaml").write_text("max_level: 4\n")
        return keep(*args, **kwargs)

    model.chat = chat
    agent.run(model, level=1)
    assert not (agent.folder / "docs").exists()
