from agentd.agent.planner import _sound, in_order
from agentd.types import Check, Plan, Step


def plan(*after):
    return Plan(steps=tuple(Step(intent=f"step {n}", after=needs) for n, needs in enumerate(after, 1)))


def test_steps_come_after_what_they_need_and_keep_their_references():
    ordered = in_order(plan((2,), (3,), ()))
    assert [step.intent for step in ordered.steps] == ["step 3", "step 2", "step 1"]
    assert [step.after for step in ordered.steps] == [(), (1,), (2,)]


def test_checks_of_a_plan_are_marked_as_its_own():
    step = Step(intent="x", checks=(Check(target="a.txt", by="user"),))
    assert in_order(Plan(steps=(step,))).steps[0].checks[0].by == "plan"


def test_what_is_wrong_is_said_with_field_expectation_and_value():
    assert _sound(plan()) == "steps: expected 1 to 12, got 0"
    assert "steps.1.after: expected numbers of other steps from 1 to 2, got [7]" in _sound(plan((7,), ()))
    assert "wait for each other" in _sound(plan((2,), (1,)))
    assert _sound(Plan(steps=(Step(intent=" "),))).startswith("steps.1.intent")
    assert _sound(plan((), (1,))) == ""
