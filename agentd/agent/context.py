"""What a model is shown: prompt texts from files, a card of fixed size, and the last turns word for word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from agentd.agent.work import Evidence, Work
from agentd.tools.tool import Tool
from agentd.types import Message, Step

VERBATIM = 6
"""Turns shown in full; older ones are one line each."""
MASKED = 10
"""Older turns shown at all."""
MINDED = 12
"""Lines of the council's checklist."""


@cache
def prompt_data(name: str) -> str:
    """The text of the file `prompts/NAME`."""
    return files("agentd.agent").joinpath("prompts", name).read_text("utf-8")


def prompt(name: str) -> str:
    """The text of `prompts/NAME.md`."""
    return prompt_data(f"{name}.md")


def fill(name: str, **values: object) -> str:
    """A prompt with its `{slots}` filled; values are taken literally."""
    text = prompt(name)
    for slot, value in values.items():
        text = text.replace("{" + slot + "}", str(value))
    return text.strip()


def shorten(text: str, most: int) -> str:
    """`text` within `most` characters, its middle left out when it is longer."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]} … {text[head + 3 - most :]}"


def card(work: Work, step: Step) -> str:
    """Task, plan and current step in a bounded number of characters."""
    plan = work.plan.steps if work.plan else (step,)
    lines = [f"{n}. {shorten(s.intent, 120)}" for n, s in enumerate(plan, 1)]
    told = fill(
        "card",
        plan="\n".join(lines[:12]),
        contract=_contract(work),
        number=next((n for n, s in enumerate(plan, 1) if s is step), 1),
        steps=len(plan),
        intent=shorten(step.intent, 600),
        expect=shorten(step.expect, 300) or "as the task says",
        workspace=work.workspace.root.name,
        goal=shorten(work.task.goal, 3000),
    )
    minded = work.verdict.checklist[:MINDED] if work.verdict else ()
    return told + "".join(["\n\nTake care of:", *(f"\n- {shorten(line, 200)}" for line in minded)] if minded else [])


def _contract(work: Work) -> str:
    """What the task is held to besides its steps: nothing, or a paragraph."""
    if work.plan is None:
        return ""
    lines = [f"- must stay: {shorten(text, 200)}" for text in work.plan.constraints[:6]]
    lines += [f"- will be checked: {shorten(str(check), 160)}" for check in work.plan.checks[:8]]
    return "\nThe whole task:\n" + "\n".join(lines) + "\n" if lines else ""


def messages(work: Work, step: Step, seen: Sequence[Evidence], advice: str) -> list[Message]:
    """System prompt, card, and the turns of this step; the size does not grow with the number of turns.

    The cut between lines and full text moves only every `VERBATIM` turns, so the prompt mostly grows at its end and a
    model's cache of it stays good.
    """
    cut = max(0, (len(seen) // VERBATIM - 1) * VERBATIM)
    head = card(work, step)
    if cut:
        older = [brief(turn) for turn in seen[max(0, cut - MASKED) : cut]]
        head += "\n\nDone before:\n" + "\n".join(older)
    if advice:
        head += f"\n\nAn earlier try at this step was not accepted: {shorten(advice, 600)}"
    shown = [Message(role="system", content=prompt("system").strip()), Message(role="user", content=head)]
    for turn in seen[cut:]:
        shown.append(Message(role="assistant", content=f"{turn.call.tool} {_arguments(turn.call.args)}"))
        shown.append(Message(role="user", content=f"Result of {turn.call.tool}:\n{shorten(turn.result.text, 4000)}"))
    return shown


def brief(turn: Evidence) -> str:
    """One turn in one line."""
    mark = "ok" if turn.result.ok else "failed"
    text = " ".join(turn.result.text.split())
    return f"- {turn.call.tool} {shorten(_arguments(turn.call.args), 120)}: {mark}: {shorten(text, 160)}"


def _arguments(args: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={shorten(repr(value), 300)}" for name, value in args.items())


def menu(tools: Sequence[Tool]) -> str:
    return "\n".join(f"- {tool.signature()}: {tool.description}" for tool in tools)
