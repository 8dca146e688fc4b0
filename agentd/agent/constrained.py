"""The step protocol for models that can follow it: name the tool, then fill its arguments, each held by a grammar."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentd import fences
from agentd.agent.context import fill, menu, messages, shorten
from agentd.agent.grounding import unsupported
from agentd.agent.moves import Act, End, Stop
from agentd.agent.narrow import Narrow
from agentd.agent.work import Evidence, Work
from agentd.backends.structured import ask
from agentd.errors import BadReply
from agentd.tools.tool import Tool
from agentd.types import Grounding, Message, Model, ModelRequest, Step, ToolCall

TOOLS_SHOWN = 5
LONG_FILE = 200
"""Lines; a longer file is edited in place even by a model that is better at writing whole ones."""
_ENDS = {
    End.ANSWER: "Say the result in a few plain sentences, with the names and numbers as they stand in the results.",
    End.ASK: "Put your question in one sentence.",
    End.NEED_NEW_TOOL: "Say in one sentence what the missing tool would have to do.",
    End.IMPOSSIBLE: "Say in one sentence why it cannot be done.",
}


@dataclass(slots=True, kw_only=True)
class Constrained:
    narrow: Narrow = field(default_factory=Narrow)
    role: str = "planner"
    patience: int = 2

    def next(self, work: Work, step: Step, seen: Sequence[Evidence], advice: str) -> Act | Stop:
        model = work.model(self.role)
        talk = messages(work, step, seen, advice)
        tools = work.offer()
        nearest = self.narrow.best(f"{step.intent} {work.task.goal}", TOOLS_SHOWN + 1, tools)
        shown = _fitting(model, nearest, seen)[:TOOLS_SHOWN]
        if model.profile.think:
            talk.append(_thought(model, talk))
        name = self._choose(model, talk, shown)
        if name == End.NEED_NEW_TOOL:
            missing = _stop(model, talk, End.NEED_NEW_TOOL, work).text
            more = tuple(tool for tool in self.narrow.best(missing, TOOLS_SHOWN, tools) if tool not in shown)
            if not more:
                return Stop(end=End.NEED_NEW_TOOL, text=missing)
            name, shown = self._choose(model, talk, more), more
            if name == End.NEED_NEW_TOOL:
                return Stop(end=End.NEED_NEW_TOOL, text=missing)
        if name in set(End):
            return _stop(model, talk, End(name), work)
        tool = next(tool for tool in shown if tool.name == name)
        return Act(call=_arguments(model, [*talk, Message(role="assistant", content=name)], tool))

    def _choose(self, model: Model, talk: Sequence[Message], shown: Sequence[Tool]) -> str:
        names = [*(tool.name for tool in shown), *End]
        question = Message(role="user", content=fill("choose", tools=menu(shown), names=", ".join(names)))
        request = ModelRequest(messages=(*talk, question), choices=tuple(names), max_tokens=16)
        reply = model.chat(request).text.strip()
        if reply not in names:
            raise BadReply(f"the model chose {reply!r:.80}; there are {', '.join(names)}")
        return reply


def _fitting(model: Model, tools: Sequence[Tool], seen: Sequence[Evidence]) -> tuple[Tool, ...]:
    """Without the tools that take diffs for a model that had better write whole files, while these are short."""
    long = any(turn.result.text.count("\n") > LONG_FILE for turn in seen)
    if model.profile.edit_format != "whole" or long or not any(tool.name == "write_file" for tool in tools):
        return tuple(tools)
    return tuple(tool for tool in tools if tool.name not in ("edit_file", "apply_patch"))


def _thought(model: Model, talk: Sequence[Message]) -> Message:
    question = Message(role="user", content="Think in at most three sentences: what is known, and what comes next?")
    reply = model.chat(ModelRequest(messages=(*talk, question), max_tokens=200))
    return Message(role="assistant", content=reply.text.strip())


def _stop(model: Model, talk: Sequence[Message], end: End, work: Work) -> Stop:
    """The words that go with an end; an answer may name only what stands in the task or in a result."""
    question = Message(role="user", content=fill("stop", end=end, what=_ENDS[end]))
    said = [*talk, Message(role="assistant", content=end), question]
    text = model.chat(ModelRequest(messages=tuple(said), max_tokens=400)).text.strip()
    if end is not End.ANSWER:
        return Stop(end=end, text=text)
    invented = unsupported(text, work)
    if invented:
        said += [
            Message(role="assistant", content=text),
            Message(
                role="user",
                content=f"These stand in no result: {', '.join(invented)}. Answer again from the results alone.",
            ),
        ]
        text = model.chat(ModelRequest(messages=tuple(said), max_tokens=400)).text.strip()
        if unsupported(text, work):
            text = "\n".join(shorten(seen.result.text, 1000) for seen in work.evidence[-3:] if seen.result.ok)
    return Stop(end=End.ANSWER, text=text)


def _arguments(model: Model, talk: Sequence[Message], tool: Tool) -> ToolCall:
    """Short values as JSON under a grammar; text in fenced blocks, never inside JSON."""
    raw = [name for name, spec in tool.schema["properties"].items() if spec.get("x-grounding") == Grounding.TEXT]
    needed = [name for name in raw if name in tool.schema.get("required", [])]
    schema = _without(tool.schema, raw)
    left_out = f"; {', '.join(raw)} will be asked for after it" if raw else ""
    question = fill("arguments", signature=tool.signature(), guide=tool.guide, left_out=left_out)
    args: dict[str, Any] = {}
    if schema["properties"]:
        talk = [*talk, Message(role="user", content=question)]
        args = dict(ask(model, talk, schema))
        talk = [*talk, Message(role="assistant", content=json.dumps(args, ensure_ascii=False))]
    if raw:
        args |= _raw(model, talk, raw, needed)
    return ToolCall(tool=tool.name, args=args)


def _raw(model: Model, talk: Sequence[Message], names: Sequence[str], needed: Sequence[str]) -> dict[str, str]:
    example = "\n".join(f"```{name}\n...\n```" for name in names)
    question = Message(role="user", content=fill("raw", names=", ".join(names), example=example))
    said = [*talk, question]
    for _ in range(2):
        text = model.chat(ModelRequest(messages=tuple(said), max_tokens=4096)).text
        values = blocks(text, names)
        missing = [name for name in needed if name not in values]
        if not missing and values:
            return values
        wrong = f"No fenced block for {', '.join(missing or names)}. Expected:\n{example}"
        said += [Message(role="assistant", content=text), Message(role="user", content=wrong)]
    raise BadReply(f"no fenced block for {', '.join(missing or names)} in {text!r:.200}")


def blocks(text: str, names: Sequence[str]) -> dict[str, str]:
    """Fenced blocks by the name they begin with; a single block without one is the first of `names`.

    A value of one line loses its line end; one of several lines is text and keeps it.
    """
    found = {}
    fenced = [block for block in fences.blocks(text) if block.closed]
    for block in fenced:
        label, body = block.label.split(" ")[0], block.body
        name = label if label in names else names[0] if len(fenced) == 1 else ""
        if name:
            found[name] = body.removesuffix("\n") if body.count("\n") <= 1 else body
    return found


def _without(schema: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        **schema,
        "properties": {name: spec for name, spec in schema["properties"].items() if name not in names},
        "required": [name for name in schema.get("required", []) if name not in names],
    }
