"""The step protocol for small models: the likeliest reading of the request is done, and its result is the answer."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations

from agentd.agent.context import prompt_data
from agentd.agent.grounding import Kind, words
from agentd.agent.moves import Act, End, Stop
from agentd.agent.scored import Reader, Reading, services
from agentd.agent.work import ASKED, Evidence, Work
from agentd.errors import Denied, Impossible
from agentd.tools.tool import Tool
from agentd.types import Grounding, Plan, Step, ToolCall
from agentd.workspace.paths import Workspace

SPLIT = 14.0
"""Nats that reading a request as one more step must gain."""
MOST_STEPS = 4
MOST_WORDS = 60
CLOSE = 6.0
"""A reading this many nats below the best is still tried when the best one fails."""
UNCLEAR = -3.3
UNCLEAR_BASE = 8.0
"""A reading below so many nats a word, less the base, is a guess and no ground to act: the owner is asked."""
_YES = frozenset({"yes", "y", "ok", "okay", "sure", "right", "correct", "do it", "go on"})
_JOINT = re.compile(r",?\s+(?:and\s+then|then|and)\s+|[.;]\s+(?=\w)|,\s+(?=\w)")
_MUST_EXIST = (Grounding.FILE, Grounding.FOLDER, Grounding.PATH)


@dataclass(slots=True, kw_only=True)
class Compact:
    """Plans by cutting a request where its parts read better than the whole, and acts on the likeliest reading."""

    role: str = "planner"
    patience: int = 0
    reader: Callable[[tuple[Tool, ...]], Reader] = field(init=False)
    """Reads requests as services of these tools; what was learnt of a set of them is kept while it stays the same."""

    def __post_init__(self) -> None:
        ends = {End(name): examples for name, examples in tomllib.loads(prompt_data("ends.toml")).items()}
        self.reader = lru_cache(maxsize=4)(lambda tools: Reader(services(tools, ends)))

    def plan(self, work: Work) -> Plan:
        goal = " ".join(work.task.goal.split())
        if len(goal.split()) > MOST_WORDS:
            name = work.model(self.role).name
            raise Impossible(
                f"the task has {len(goal.split())} words, and the model {name} reads {MOST_WORDS}",
                hint="say it in fewer words, or put a larger model into models/",
            )
        joints = [m for m in _JOINT.finditer(goal) if not _inside_quotes(goal, m.start())][: MOST_STEPS - 1]
        if not joints:
            return Plan(steps=(Step(intent=goal),))
        reader, model, names = self.reader(work.offer()), work.model(self.role), _names(work, goal)
        ways = [cut for count in range(len(joints) + 1) for cut in combinations(joints, count)]
        parts_of = {cut: _parts(goal, cut) for cut in ways}
        best: dict[tuple[str, bool], Reading] = {}
        for later, part in dict.fromkeys((n > 0, part) for parts in parts_of.values() for n, part in enumerate(parts)):
            best[part, later] = reader.read(part, model, names, "it" if later else "")[0]
        parts = max(parts_of.values(), key=lambda parts: _worth(parts, best))
        steps = tuple(Step(intent=part, after=(n,) if n else ()) for n, part in enumerate(parts))
        return Plan(steps=steps)

    def next(self, work: Work, step: Step, seen: Sequence[Evidence], advice: str) -> Act | Stop:
        told = [str(turn.result.data["answer"]).strip() for turn in seen if turn.call.tool == ASKED]
        seen = [turn for turn in seen if turn.call.tool != ASKED]
        if seen and seen[-1].result.ok:
            return Stop(end=End.ANSWER, text=seen[-1].result.text)
        # A plain yes is to what was asked; any other answer says in the owner's words what this step is to do.
        sure = bool(told) and told[-1].rstrip(".!").casefold() in _YES
        step = next((replace(step, intent=words) for words in reversed(told) if words.casefold() not in _YES), step)
        reader, model, names = self.reader(work.offer()), work.model(self.role), _names(work, step.intent)
        before = next(reversed(work.changed), "") or _last_path(work.evidence)
        readings = reader.read(step.intent, model, names, before)
        if seen:
            return _another(readings, seen, work)
        best = readings[0]
        if best.service.tool is None:
            return _ended(End(best.service.name), step.intent)
        doubt = _doubt(best, step.intent)
        if doubt and not sure:
            return Stop(end=End.ASK, text=doubt)
        return _missing(best, names, work.workspace) or Act(call=_call(best, work))


def _doubt(reading: Reading, request: str) -> str:
    """A question instead of an act: for a reading that is a guess, or that leaves out a path, or any named thing when
    it would change something."""
    assert reading.service.tool is not None
    reads = reading.service.tool.annotations.read_only
    left_out = [m.value for m in reading.unused if m.kind is Kind.PATH or not reads]
    values = ", ".join(f"{name}={value!r}" for name, value in reading.arguments.items())
    meant = f"{reading.service.name}({values})"
    if left_out:
        return f"What is to be done with {', '.join(left_out)}? {meant} leaves that out of: {request}"
    if reading.score < UNCLEAR * len(request.split()) - UNCLEAR_BASE:
        return f"Is {meant} meant? This is not clear enough to act on: {request}"
    return ""


def _names(work: Work, text: str) -> dict[str, bool]:
    """The words of `text` that exist in the folder, True for folders; kept, so that a replay reads the same."""

    def look() -> dict[str, bool]:
        return {word: kind for word in words(text) if (kind := _is_folder(work.workspace, word)) is not None}

    return dict(work.remember(look))


def _is_folder(workspace: Workspace, word: str) -> bool | None:
    try:
        path = workspace.resolve(word)
    except Denied:
        return None
    return path.is_dir() if path.exists() else None


def _parts(goal: str, cut: Sequence[re.Match[str]]) -> tuple[str, ...]:
    starts = [0, *(joint.end() for joint in cut)]
    ends = [*(joint.start() for joint in cut), len(goal)]
    return tuple(goal[start:end].strip() for start, end in zip(starts, ends, strict=True))


def _worth(parts: Sequence[str], best: Mapping[tuple[str, bool], Reading]) -> float:
    readings = [best[part, n > 0] for n, part in enumerate(parts)]
    if len(parts) > 1 and any(reading.service.tool is None for reading in readings):
        return float("-inf")
    return sum(reading.score for reading in readings) - SPLIT * (len(parts) - 1)


def _inside_quotes(text: str, place: int) -> bool:
    return any(text[:place].count(mark) % 2 for mark in ('"', "`", " '", "“")) and any(
        mark in text[place:] for mark in ('"', "`", "'", "”")
    )


def _call(reading: Reading, work: Work) -> ToolCall:
    results = {slot: _result(m.value, work) for slot, m in reading.values.items() if m.kind is Kind.RESULT}
    return ToolCall(tool=reading.service.name, args=reading.arguments | results)


def _result(phrase: str, work: Work) -> str:
    """What a phrase like "the number" stands for: the figure or list that the task speaks of, else the whole text."""
    seen = (turn for turn in reversed(work.evidence) if turn.call.tool != ASKED)
    last = next((turn.result for turn in seen if turn.result.ok), None)
    if last is None:
        return phrase
    spoken = set(words(work.task.goal.lower()))
    named = [value for name, value in last.data.items() if name != "path" and name in spoken]
    if not named:
        return last.text
    return "\n".join(map(str, named[0])) if isinstance(named[0], list | tuple) else str(named[0])


def _another(readings: Sequence[Reading], seen: Sequence[Evidence], work: Work) -> Act | Stop:
    """The next reading of the same tool, when one is close; else the reason why the last try failed."""
    tried = [(turn.call.tool, dict(turn.call.args)) for turn in seen]
    for reading in readings:
        if reading.score < readings[0].score - CLOSE:
            break
        if reading.service.name == tried[0][0] and (reading.service.name, reading.arguments) not in tried:
            return Act(call=_call(reading, work))
    return Stop(end=End.IMPOSSIBLE, text=seen[0].result.text)


def _missing(reading: Reading, names: Mapping[str, bool], workspace: Workspace) -> Stop | None:
    """The end of a step that names a path which does not exist; paths outside are left to policy."""
    for slot, mention in reading.values.items():
        must_exist = reading.service.slots[slot] in _MUST_EXIST
        known = mention.kind is Kind.PRONOUN or mention.value.rstrip("/") in names
        if must_exist and not known and _inside(workspace, mention.value):
            there = ", ".join(workspace.entries(".", limit=12)) or "none"
            return Stop(end=End.IMPOSSIBLE, text=f"{mention.value} does not exist in this folder; there are {there}")
    return None


def _inside(workspace: Workspace, path: str) -> bool:
    try:
        workspace.resolve(path)
    except Denied:
        return False
    return True


def _last_path(evidence: Sequence[Evidence]) -> str:
    for turn in reversed(evidence):
        for name in ("target", "path"):
            if value := turn.call.args.get(name):
                return str(value)
    return ""


def _ended(end: End, request: str) -> Stop:
    """The end of a step that no tool serves. A small model is never believed without a result to rest on."""
    match end:
        case End.ASK:
            return Stop(end=end, text=f"What exactly is to be done? The task says: {request}")
        case End.ANSWER:
            return Stop(end=End.IMPOSSIBLE, text=f"no tool gives a result that answers this: {request}")
        case _:
            return Stop(end=end, text=f"no tool can do this: {request}")
