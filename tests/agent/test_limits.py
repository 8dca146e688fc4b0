import threading

import pytest

from agentd.agent.limits import Limits, Repeats
from agentd.errors import BudgetExceeded, Cancelled, Looping
from agentd.types import Budget, ToolCall, ToolResult, Usage


class Now:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def limits(clock=None, **budget):
    return Limits(Budget(**budget), clock=clock or Now(), cancel=threading.Event())


def test_turns_are_counted_and_the_last_one_allowed():
    few = limits(steps=2)
    few.turn()
    few.turn()
    with pytest.raises(BudgetExceeded, match="all 2 turns"):
        few.turn()


def test_without_turns_a_plan_can_be_made_and_nothing_else():
    none = limits(steps=0)
    none.check()
    none.turn()
    with pytest.raises(BudgetExceeded, match="all 0 turns"):
        none.check()


def test_tokens_end_the_task():
    few = limits(tokens=100)
    few.spend(Usage(prompt_tokens=60, completion_tokens=39))
    few.check()
    few.spend(Usage(completion_tokens=1))
    with pytest.raises(BudgetExceeded, match="100 of 100 tokens"):
        few.check()


def test_time_ends_the_task_at_the_earlier_of_budget_and_deadline():
    clock = Now()
    few = Limits(Budget(seconds=60), clock=clock, cancel=threading.Event(), deadline=1010.0)
    clock.time = 1009.9
    few.check()
    clock.time = 1010.0
    with pytest.raises(BudgetExceeded, match="time"):
        few.check()


def test_cancel_comes_first():
    cancel = threading.Event()
    few = Limits(Budget(steps=0), clock=Now(), cancel=cancel)
    cancel.set()
    with pytest.raises(Cancelled):
        few.check()


def play(repeats, *names, same_result=True):
    for number, name in enumerate(names):
        text = "same" if same_result else str(number)
        repeats.saw(ToolCall(tool=name[0], args={"path": name}), ToolResult(ok=True, text=text))


@pytest.mark.parametrize("length", range(1, 7))
def test_a_cycle_of_any_length_up_to_six_is_found(length):
    cycle = [chr(ord("a") + n) for n in range(length)]
    with pytest.raises(Looping, match=f"the same {length} call"):
        play(Repeats(3), *cycle * 3)


@pytest.mark.parametrize("length", range(1, 7))
def test_one_repeat_less_is_no_loop(length):
    cycle = [chr(ord("a") + n) for n in range(length)]
    play(Repeats(3), *(cycle * 3)[:-1])


def test_a_cycle_of_seven_is_left_to_the_budget():
    play(Repeats(3), *"abcdefg" * 4)


def test_other_results_are_progress_until_twice_as_many():
    play(Repeats(3), *"aaaaa", same_result=False)
    with pytest.raises(Looping, match="6 times"):
        play(Repeats(3), *"aaaaaa", same_result=False)


def test_arguments_are_compared_without_case_order_and_spacing():
    repeats = Repeats(2)
    repeats.saw(ToolCall(tool="search", args={"path": ".", "pattern": "a  b"}), ToolResult(ok=True, text="x"))
    with pytest.raises(Looping):
        repeats.saw(ToolCall(tool="search", args={"pattern": "A b", "path": "."}), ToolResult(ok=True, text="x"))
