"""The step protocol for small models: every choice is a reading of the request, and the model scores the readings.

A *reading* is a tool with the request's own words in its parameters. The values are replaced by fixed stand-ins, and
the model says how likely the request then is among those that the tool is known to serve (a noisy channel: the request
given the tool). Nothing is generated, so nothing can be invented.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nlargest
from itertools import combinations, pairwise, permutations
from typing import Any

from agentd.agent.grounding import Kind, Mention, looks_like_path, mentions, spans
from agentd.agent.likeness import Likeness, cosine
from agentd.agent.moves import End
from agentd.tools.tool import Tool
from agentd.types import Grounding, JsonObject, Model

UNUSED = 6.0
"""Natural-log penalty for each thing that the request names and a reading does not use."""
SPAN_PRICE = 0.7
"""What a word taken for a value costs, as a share of what it costs at the beginning of any request."""
DESTRUCTIVE = 3.0
"""Penalty in nats for a tool that destroys: it must be clearly the likeliest."""
MISFIT = 3.0
"""Penalty in nats for a value of the wrong kind, such as a path that should exist and does not."""
LIKENESS = 14.0
"""Nats for a request whose words are those of an example of the tool."""
PER_SERVICE = 5
"""Readings of one service that a model scores."""
MOST_MENTIONS = 6
MOST_READINGS = 44
"""Readings that a model scores in all."""

_STAND_INS = {
    Grounding.FILE: ("notes.txt", "data.txt"),
    Grounding.FOLDER: ("docs", "lib"),
    Grounding.PATH: ("notes.txt", "data.txt"),
    Grounding.NEW_PATH: ("new.txt", "other.txt"),
    Grounding.TEXT: ("'abc'", "'xyz'"),
    Grounding.PATTERN: ("'abc'", "'xyz'"),
    Grounding.COMMAND: ("'make all'", "'make'"),
}
_SLOT = re.compile(r"\{(\w+)\}")
_END_SLOTS = {"path": Grounding.PATH, "target": Grounding.NEW_PATH, "content": Grounding.TEXT}
_SOFT = (Kind.NAME, Kind.RESULT)
_PATHS = (Grounding.FILE, Grounding.FOLDER, Grounding.PATH, Grounding.NEW_PATH)


@dataclass(frozen=True, kw_only=True, eq=False)
class Service:
    """One thing that can be done: a tool with some arguments fixed, or an end; and requests that it serves."""

    name: str
    tool: Tool | None
    fixed: JsonObject = field(default_factory=dict)
    templates: tuple[str, ...] = ()
    slots: Mapping[str, Grounding] = field(default_factory=dict)
    needed: tuple[str, ...] = ()

    @cached_property
    def prefix(self) -> str:
        lines = "".join(f"- {_fill(template, self.stand_ins)}\n" for template in self.templates)
        return f"Similar requests:\n{lines}-"

    @cached_property
    def stand_ins(self) -> dict[str, str]:
        taken: dict[str, int] = {}
        words = {}
        for slot, kind in self.slots.items():
            family = "path" if kind in _PATHS else "text"
            place = taken.get(f"{family}{kind}", 0)
            taken[f"{family}{kind}"] = place + 1
            words[slot] = _STAND_INS[kind][min(place, 1)]
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A request understood as a service with values; `score` in nats, higher is likelier."""

    service: Service
    values: Mapping[str, Mention]
    text: str
    """The request with stand-ins for its values."""
    price: float
    unused: tuple[Mention, ...] = ()
    """What the request names and this reading leaves out."""
    likeness: float = 0.0
    score: float = float("-inf")

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.service.fixed, **{slot: mention.value for slot, mention in self.values.items()}}


def services(tools: Iterable[Tool], ends: Mapping[End, Sequence[str]]) -> list[Service]:
    """Each tool once for every set of fixed arguments among its examples, then the ends."""
    found = [service for tool in tools for service in _of_tool(tool)]
    found += [Service(name=end, tool=None, templates=tuple(texts), slots=_END_SLOTS) for end, texts in ends.items()]
    return found


def _of_tool(tool: Tool) -> Iterator[Service]:
    groups: dict[str, list[str]] = {}
    for example in tool.examples:
        template, _, fixed = example.partition(" :: ")
        groups.setdefault(fixed, []).append(template)
    schema = tool.schema
    kinds = {
        name: Grounding(spec["x-grounding"]) for name, spec in schema["properties"].items() if "x-grounding" in spec
    }
    for fixed, templates in groups.items():
        arguments = dict(part.strip().split("=", 1) for part in fixed.split(",") if part)
        slots = {name: kind for name, kind in kinds.items() if name not in arguments}
        templates = [template for template in templates if set(_SLOT.findall(template)) <= set(slots)]
        used = [name for name in slots if any("{" + name + "}" in template for template in templates)]
        always = [name for name in used if all("{" + name + "}" in template for template in templates)]
        needed = [name for name in slots if name in schema.get("required", []) or name in always]
        yield Service(
            name=tool.name,
            tool=tool,
            fixed=arguments,
            templates=tuple(templates),
            slots={name: kinds[name] for name in used},
            needed=tuple(needed),
        )


class Reader:
    """Reads requests as services."""

    def __init__(self, offered: Sequence[Service]) -> None:
        self._offered = offered
        examples = {service: [_fill(t, service.stand_ins) for t in service.templates] for service in offered}
        self._likeness = Likeness(text for texts in examples.values() for text in texts)
        self._examples = {
            service: [self._likeness.vector(text) for text in texts] for service, texts in examples.items()
        }

    def read(self, request: str, model: Model, names: Mapping[str, bool], before: str = "") -> list[Reading]:
        """Readings of `request`, likeliest first.

        `names` exist in the folder, True for folders; `before` is what a pronoun stands for.
        """
        named = mentions(request, names, before)[:MOST_MENTIONS]
        best = []
        for service in self._offered:
            readings = [self._liked(reading) for reading in _readings(request, service, named, names)]
            best += nlargest(PER_SERVICE, readings, key=_promise)
        return _rank(nlargest(MOST_READINGS, best, key=_promise), model)

    def _liked(self, reading: Reading) -> Reading:
        vector = self._likeness.vector(reading.text)
        likeness = max((cosine(vector, example) for example in self._examples[reading.service]), default=0.0)
        return replace(reading, likeness=likeness)


def _promise(reading: Reading) -> float:
    """What a reading is worth before a model has scored it."""
    return LIKENESS * reading.likeness - reading.price - 0.5 * len(reading.text.split())


def _readings(request: str, service: Service, named: Sequence[Mention], names: Mapping[str, bool]) -> Iterator[Reading]:
    for reading in _plain(request, service, named, names):
        missing = [slot for slot in service.needed if slot not in reading.values]
        if not missing:
            yield reading
        elif not any(service.slots.get(slot) in (*_PATHS, None) for slot in missing):
            yield from _with_spans(request, reading, missing, named, names)


def _plain(request: str, service: Service, named: Sequence[Mention], names: Mapping[str, bool]) -> Iterator[Reading]:
    """Every way to put as much as fits of what the request plainly names into the service's parameters.

    A bare word may name something in the folder, or an earlier result, or just be a word, so it is also left alone.
    """
    ways = dict.fromkeys(_ways(service, named, names))
    ways |= dict.fromkeys(_ways(service, [m for m in named if m.kind not in _SOFT], names))
    for way in ways:
        yield _reading(request, service, dict(way), named, names)


def _ways(
    service: Service, named: Sequence[Mention], names: Mapping[str, bool]
) -> list[tuple[tuple[str, Mention], ...]]:
    slots = list(service.slots)
    for count in range(min(len(slots), len(named)), -1, -1):
        ways = [
            tuple(sorted(zip(places, chosen, strict=True), key=lambda pair: slots.index(pair[0])))
            for chosen in permutations(named, count)
            for places in combinations(slots, count)
        ]
        fitting = [w for w in ways if all(_misfit(m, service.slots[slot], names) is not None for slot, m in w)]
        if fitting:
            return fitting
    return []


def _misfit(mention: Mention, kind: Grounding, names: Mapping[str, bool]) -> float | None:
    """What it costs, in nats, to take the mention for a parameter of this kind; None when it cannot be one."""
    if mention.kind is Kind.RESULT:
        return 0.0 if kind is Grounding.TEXT else None
    if mention.kind is Kind.PRONOUN:
        return 0.0 if kind in _PATHS and kind is not Grounding.FOLDER else None
    marked = mention.kind in (Kind.QUOTED, Kind.CODE, Kind.SPAN)
    if kind not in _PATHS:
        return 0.0 if marked else 3 * MISFIT if kind is Grounding.PATTERN else None
    if marked and not looks_like_path(mention.value):
        return None
    folder = names.get(mention.value.rstrip("/"))
    if kind is Grounding.NEW_PATH:
        return 0.0
    if folder is None:
        return MISFIT if kind is not Grounding.FOLDER or "." not in mention.value else None
    return None if folder is (kind is Grounding.FILE) and kind is not Grounding.PATH else 0.0


def _reading(
    request: str,
    service: Service,
    values: Mapping[str, Mention],
    named: Sequence[Mention],
    names: Mapping[str, bool],
) -> Reading:
    stand_ins = service.stand_ins
    edits = [(mention, stand_ins[slot]) for slot, mention in values.items()]
    spare = [m for m in named if not any(m.overlaps(used) for used in values.values())]
    unused = [mention for mention in spare if mention.kind in (Kind.PATH, Kind.QUOTED, Kind.CODE)]
    edits += [(mention, "notes.txt" if mention.kind is Kind.PATH else "'abc'") for mention in unused]
    text = request
    for mention, word in sorted(edits, key=lambda edit: -edit[0].start):
        text = text[: mention.start] + word + text[mention.end :]
    price = UNUSED * len(unused) if service.tool else 0.0
    price += sum(_misfit(mention, service.slots[slot], names) or 0.0 for slot, mention in values.items())
    if service.tool and service.tool.annotations.destructive:
        price += DESTRUCTIVE
    return Reading(service=service, values=values, text=" ".join(text.split()), price=price, unused=tuple(unused))


def _with_spans(
    request: str,
    reading: Reading,
    missing: Sequence[str],
    named: Sequence[Mention],
    names: Mapping[str, bool],
) -> Iterator[Reading]:
    """The reading with runs of words in its missing parameters."""
    taken = [mention for mention in named if mention.kind in (Kind.PATH, Kind.QUOTED, Kind.CODE)]
    taken += [mention for mention in reading.values.values() if mention not in taken]
    for chosen in _choices(list(spans(request, taken)), len(missing)):
        values = {**reading.values, **dict(zip(missing, chosen, strict=True))}
        yield _reading(request, reading.service, values, named, names)


def _choices(free: Sequence[Mention], count: int) -> Iterator[tuple[Mention, ...]]:
    short = free if count == 1 else [span for span in free if span.value.count(" ") < 2]
    for chosen in permutations(short, count):
        if not any(a.overlaps(b) for a, b in pairwise(chosen)):
            yield chosen


def _rank(readings: Sequence[Reading], model: Model) -> list[Reading]:
    """Scored by the model: the request given the service, less the price of each word taken for a value."""
    values = sorted({m.value for r in readings for m in r.values.values() if m.kind is Kind.SPAN})
    pairs = [(reading.service.prefix, f" {reading.text}\n") for reading in readings]
    scores = model.score([*pairs, *(("A request:", f" {value}") for value in values)])
    prices = {value: -SPAN_PRICE * score.logprob for value, score in zip(values, scores[len(pairs) :], strict=True)}
    ranked = []
    for reading, score in zip(readings, scores, strict=False):
        price = reading.price + sum(prices[m.value] for m in reading.values.values() if m.kind is Kind.SPAN)
        ranked.append(replace(reading, score=score.logprob + LIKENESS * reading.likeness - price))
    return sorted(ranked, key=lambda reading: -reading.score)


def _fill(template: str, words: Mapping[str, str]) -> str:
    for slot, word in words.items():
        template = template.replace("{" + slot + "}", word)
    return template
