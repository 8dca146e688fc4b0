"""What a probe finds out, of models whose gifts are known."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence

import pytest

from agentd.backends.probe import EDITS, Probe, family
from agentd.errors import Cancelled
from agentd.types import Delta, FunctionCall, Message, ModelProfile, ModelReply, ModelRequest, Priority, Score


class Gifted:
    """Answers a probe as well as it is told to. `sees`: characters of the end of a prompt that it remembers."""

    name = "gifted"

    def __init__(
        self,
        *,
        call: Callable[[str, str], str] = lambda name, args: (
            f'<tool_call>{{"name": "{name}", "arguments": {args}}}</tool_call>'
        ),
        sees: int = 1_000_000,
        edits: str = "whole patch",
        thinks: bool = False,
    ) -> None:
        self.profile = ModelProfile(context=4000)
        self._call = call
        self._sees = sees
        self._edits = edits
        self._thinks = thinks
        self.asked: list[ModelRequest] = []

    def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
        self.asked.append(request)
        asked = request.prompt if request.prompt is not None else request.messages[-1].content
        if callable(on_delta):
            on_delta(Delta(text="word"))
        thought = "so many" if self._thinks and request.think else ""
        text = self._says(asked)
        calls = (FunctionCall(id="1", name="read_file", arguments='{"path": "a"}'),) if request.tools else ()
        return ModelReply(
            text=text,
            model=self.name,
            prompt_tokens=self.count(asked),
            completion_tokens=self.count(text) + 2,
            seconds=0.1,
            finish_reason="stop",
            reasoning=thought,
            tool_calls=calls,
        )

    def _says(self, asked: str) -> str:
        if "code of the safe is" in asked:
            found = re.search(r"code of the safe is (\d+)", asked[-self._sees :])
            return found[1] if found else "unknown"
        for what, before, old, new in EDITS:
            if what in asked and "whole new file" in asked:
                return f"```\n{before.replace(old, new)}```" if "whole" in self._edits else "Done."
            if what in asked:
                return f"```\n{old}\n```\nbecomes\n```\n{new}\n```" if "patch" in self._edits else "Done."
        for word, name, args in (
            ("weather", "get_weather", '{"city": "Rome"}'),
            ("Wake", "set_timer", '{"minutes": 5}'),
            ("file", "read_file", '{"path": "a.txt"}'),
            ("say?", "read_file", '{"path": "a.txt"}'),
        ):
            if word in asked:
                return self._call(name, args)
        return "yes"

    def score(self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: object = None) -> list[Score]:
        return []

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return []

    def count(self, text: str) -> int:
        return len(text) // 4


def plain(messages: Sequence[Message], tools: object) -> str:
    return messages[-1].content


def test_a_good_model() -> None:
    found = Probe(Gifted(), render=plain, template="<|im_start|>", stop_tokens=["<|im_end|>"]).run()
    assert (found.template, found.dialect, found.parse_rate, found.right_rate) == ("chatml", "hermes", 1.0, 1.0)
    assert found.needles == {"25": True, "50": True, "75": True, "95": True}
    assert found.usable_context is not None
    assert found.usable_context > 3000
    assert found.edits == {"whole": 1.0, "patch": 1.0}
    assert found.edit_format == "whole"
    assert (found.thinks, found.silent, found.stops) == (False, True, True)
    assert found.stop_tokens == ("<|im_end|>",)
    assert found.speed is not None


def test_a_short_memory_is_found() -> None:
    found = Probe(Gifted(sees=8000), render=plain).run()
    assert found.needles == {"25": True, "50": True, "75": False, "95": False}
    assert found.usable_context is not None
    assert 1500 < found.usable_context < 2100


@pytest.mark.parametrize(("edits", "best"), [("patch", "patch"), ("whole", "whole"), ("", None)])
def test_the_better_way_of_editing(edits: str, best: str | None) -> None:
    assert Probe(Gifted(edits=edits), render=plain).run().edit_format == best


def test_calls_that_cannot_be_read_do_not_count() -> None:
    found = Probe(Gifted(call=lambda name, args: f"I would call {name} with {args}"), render=plain).run()
    assert (found.dialect, found.parse_rate, found.right_rate) == (None, 0.0, 0.0)


def test_arguments_that_do_not_fit_do_not_count() -> None:
    wrong = Gifted(call=lambda name, args: f'<tool_call>{{"name": "{name}", "arguments": {{"x": 1}}}}</tool_call>')
    assert Probe(wrong, render=plain).run().parse_rate == 0.0


def test_without_a_template_the_servers_own_calls_count() -> None:
    found = Probe(Gifted()).run()
    assert (found.dialect, found.parse_rate, found.right_rate) == ("native", 1.0, 7 / 20)


def test_thinking_is_told_from_silence() -> None:
    found = Probe(Gifted(thinks=True), render=plain).run()
    assert (found.thinks, found.silent) == (True, True)


def test_it_disturbs_nobody() -> None:
    model = Gifted()
    Probe(model, render=plain).run()
    assert {(each.priority, each.client, each.cache) for each in model.asked} == {(Priority.NIGHT, "probe", False)}


def test_what_is_not_reached_in_time_stays_unknown() -> None:
    found = Probe(Gifted(), render=plain, patience=0.0).run()
    assert (found.parse_rate, found.usable_context, found.edit_format, found.speed) == (None, None, None, None)


def test_a_cancelled_probe_ends() -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        Probe(Gifted(), cancel=cancel).run()


def test_families() -> None:
    assert [family(text) for text in (None, "", "a <|im_start|> b", "[INST] x", "{{ messages }}")] == [
        "none",
        "none",
        "chatml",
        "mistral",
        "own",
    ]
