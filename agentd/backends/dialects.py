"""Reads calls of tools out of a model's words, as they come, in whichever way the model writes them."""

from __future__ import annotations

import ast
import json
import re
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from agentd.types import CallDelta, Delta, FunctionCall, JsonObject

Dialect: TypeAlias = Literal["hermes", "tools", "xml", "json", "native"]
DIALECTS: tuple[Dialect, ...] = ("hermes", "tools", "xml", "json", "native")
"""`<tool_call>{...}</tool_call>`; the same between `<tools>`; `<function=NAME><parameter=KEY>...`; JSON alone; and what
families of models do: Llama's python tag, `[TOOL_CALLS]`, DeepSeek's bars, `functools[...]`, `>>>NAME`."""

_Call: TypeAlias = tuple[str, dict[str, Any]]
_Tools: TypeAlias = Mapping[str, JsonObject]

_THINK, _THOUGHT = "<think>", "</think>"
_MOST_FAILED = 500
"""Beginnings that were none; after so many the rest is text."""
_DEEPEST = 100
_LONGEST_NAME = 200
_LONGEST_LITERAL = 20_000
_NAMES = ("name", "function", "tool", "tool_name", "function_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs", "tool_arguments", "tool_input")
_WRAPPERS = ("function", "function_call", "tool_call")
_FIRST = frozenset((*_NAMES, *_ARGUMENTS, *_WRAPPERS, "type", "id", "tool_calls"))
_OUTSIDE = re.compile(r'["{}\[\]<]')
_QUOTED = re.compile(r'["\\]')
_BLANK = re.compile(r"\s*")
_BETWEEN = re.compile(r"[\s,;]*")
_STRAY = re.compile(r"[\s,;}\]]*")
_FENCE = re.compile(r"[ \t]*\w{0,20}[ \t\r]*")
_FIRST_KEY = re.compile(r'(?:\[\s*)?\{\s*"([^"\\]{1,20})"')
_FIRST_KEY_BEGUN = re.compile(r'(?:\[\s*)?(?:\{\s*(?:"[^"\\]{0,20})?)?\Z')
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*("?)|[{\[]|[}\]]|\b(?:True|False|None)\b|[^"{}\[\],TFN]+|.', re.DOTALL)
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_NAMED = re.compile(r"\s*([\w.:-]{1,128})\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
_PARAMETER = re.compile(r"\s*(?:<parameter=([^<>]{1,200})>|</function>)")
_PARAMETER_BEGUN = re.compile(r"\s*(?:<(?:p(?:a(?:r(?:a(?:m(?:e(?:t(?:e(?:r(?:=[^<>]{0,200})?)?)?)?)?)?)?)?)?)?)?\Z")
_BARS = re.compile(
    r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?\s*([^\s<]+)\s*(?:<｜tool▁sep｜>)?\s*(?:```(?:json)?)?\s*(?=\{)"
)


class Reading:
    """One reply, read as it comes. However it is cut into pieces, what is found is the same.

    A call counts when it names one of `tools` and its arguments are a JSON object; whatever else looks like one stays
    text, letter by letter. A call inside of the model's thoughts counts when none comes after them.
    """

    def __init__(
        self,
        tools: Sequence[JsonObject],
        *,
        dialect: Dialect | None = None,
        thinking: bool = False,
        new_id: Callable[[], str] = lambda: f"call_{secrets.token_hex(12)}",
    ) -> None:
        """`dialect`: the only one to look for; None looks for all. `thinking`: the prompt has begun the thought."""
        self.found: Dialect | None = None
        """The dialect of the first call."""
        self._tools: _Tools = {str(_signature(tool).get("name", "")): _signature(tool) for tool in tools}
        self._dialects: frozenset[Dialect] = frozenset((dialect,) if dialect else DIALECTS) if tools else frozenset()
        self._openers = [each for each in _OPENERS if self._dialects & _OPENERS[each].dialects]
        self._opener = re.compile("|".join(map(re.escape, self._openers)) or r"(?!)")
        self._new_id = new_id
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[FunctionCall] = []
        self._out: list[Delta] = []
        self._view = _View()
        self._late = ""
        self._space = ""
        """Blanks held back: they are dropped when a call follows."""
        self._before = "\n"
        """The character before those in view."""
        self._fresh = self._whole = True
        """Nothing but blanks yet since the start, a thought or a call; and since the start or a thought."""
        self._failed = 0
        self._block: _Block | None = None
        self._width = 0
        self._thinking = thinking
        self._inner: Reading | None = None

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        return "".join(self._thoughts)

    @property
    def calls(self) -> tuple[FunctionCall, ...]:
        return tuple(self._calls)

    def feed(self, text: str) -> list[Delta]:
        """What is certain now."""
        self._late += text
        if len(self._late) * 64 < len(self._view.text):
            return []  # a long call would be copied again for each of its tokens
        return self._go_on()

    def end(self) -> list[Delta]:
        """The rest, when nothing more comes."""
        self._view.last = True
        deltas = self._go_on()
        if self._inner is not None:
            self._inner.end()
            if not self._calls:
                self._take(self._inner.calls, self._inner.found)
        if self._space and not self._thinking:
            self._say(self._space)
        rest, self._out = self._out, []
        return deltas + rest

    def _go_on(self) -> list[Delta]:
        self._view.text += self._late
        self._late = ""
        going = True
        while going:
            if self._block is not None:
                going = self._held(self._block)
            elif self._thinking:
                going = self._thought()
            else:
                going = self._start() if self._fresh else self._plain()
        out, self._out = self._out, []
        return out

    def _shift(self, count: int) -> str:
        """Takes the first `count` characters out of view."""
        taken, self._view.text = self._view.text[:count], self._view.text[count:]
        return taken

    def _thought(self) -> bool:
        view = self._view
        end = view.text.find(_THOUGHT)
        sure = end if end >= 0 else len(view.text) - (0 if view.last else _begun(view.text, (_THOUGHT,)))
        said = self._shift(sure)
        if self._tools:
            self._inner = self._inner or _Thought(self._tools, self._dialects, self._new_id)
            self._inner.feed(said)
        if self._fresh:
            said = said.lstrip()
            self._fresh = not said
        if kept := said.rstrip():
            self._thoughts.append(self._space + kept)
            self._out.append(Delta(reasoning=self._space + kept))
            self._space = ""
        self._space += said[len(kept) :]
        if end >= 0:
            self._shift(len(_THOUGHT))
            self._space, self._before, self._thinking, self._fresh = "", "\n", False, True
        return end >= 0

    def _start(self) -> bool:
        """Before the first word, and after thoughts and calls."""
        blanks = self._shift(_skip(self._view.text, 0))
        if self._whole and not self._thoughts:
            self._space += blanks
        rest = self._view.text[:20]
        alone = self._whole and "json" in self._dialects and rest[:1] in ("{", "[")
        doubtful = any(each != rest and each.startswith(rest) for each in (_THINK, _MISTRAL)[: 1 + alone])
        if not rest or (doubtful and not self._view.last):
            return False
        self._fresh = False
        if rest.startswith(_THINK):
            self._shift(len(_THINK))
            self._space, self._thinking, self._fresh = "\n\n" if self._thoughts else "", True, True
        elif alone and not rest.startswith(_MISTRAL):
            self._hold(_alone(self._view, self._tools, 0, ("<|eom_id|>", "<|eot_id|>")), 0)
        elif self._may_be_name():
            self._hold(_leading(self._view, self._tools), 0)
        return True

    def _may_be_name(self) -> bool:
        here = "native" in self._dialects and (self._whole or self.found == "native")
        return here and any(name.startswith(self._view.text[: len(name)]) for name in self._tools)

    def _plain(self) -> bool:
        tired = self._failed >= _MOST_FAILED
        opener = None if tired else self._next_opener()
        if opener is not None:
            self._words(self._shift(opener.start()))
            self._hold(_OPENERS[opener[0]].read(self._view, self._tools, len(opener[0])), len(opener[0]))
            return True
        kept = 0 if tired or self._view.last else _begun(self._view.text, self._openers)
        self._words(self._shift(len(self._view.text) - kept))
        return False

    def _next_opener(self) -> re.Match[str] | None:
        for found in self._opener.finditer(self._view.text):
            before = self._view.text[found.start() - 1] if found.start() else self._before
            if before == "\n" or not _OPENERS[found[0]].at_line_start:
                return found
        return None

    def _hold(self, block: _Block, width: int) -> None:
        self._block, self._width = block, width

    def _held(self, block: _Block) -> bool:
        try:
            next(block)
            return False
        except StopIteration as stop:
            found: _Found = stop.value
        self._block = None
        if found.calls:
            made = [FunctionCall(id=self._new_id(), name=name, arguments=_dumped(args)) for name, args in found.calls]
            self._take(made, found.dialect)
            self._shift(found.end)
            self._fresh, self._before = True, "\n"
        else:
            self._failed += 1
            self._words(self._shift(self._width))
        return True

    def _take(self, calls: Iterable[FunctionCall], dialect: Dialect | None) -> None:
        for call in calls:
            delta = CallDelta(index=len(self._calls), id=call.id, name=call.name, arguments=call.arguments)
            self._calls.append(call)
            self._out.append(Delta(call=delta))
            self._space, self._whole = "", False
            self.found = self.found or dialect

    def _words(self, text: str) -> None:
        if text:
            self._before = text[-1]
        kept = text.rstrip() if self._tools else text
        if kept:
            self._say(self._space + kept)
            self._space, self._whole = "", False
        self._space += text[len(kept) :]

    def _say(self, text: str) -> None:
        self._texts.append(text)
        self._out.append(Delta(text=text))


class _Thought(Reading):
    """Looks for calls inside of thoughts, where JSON alone is none."""

    def __init__(self, tools: _Tools, dialects: frozenset[Dialect], new_id: Callable[[], str]) -> None:
        super().__init__(list(tools.values()), new_id=new_id)
        self._openers = [each for each in _OPENERS if (dialects - {"json"}) & _OPENERS[each].dialects]
        self._opener = re.compile("|".join(map(re.escape, self._openers)) or r"(?!)")

    def _start(self) -> bool:
        self._fresh = False
        return True


def read(text: str, tools: Sequence[JsonObject], *, dialect: Dialect | None = None) -> Reading:
    """A whole reply."""
    reading = Reading(tools, dialect=dialect)
    reading.feed(text)
    reading.end()
    return reading


def call_schema(tools: Sequence[JsonObject]) -> dict[str, Any]:
    """The JSON Schema of `{"name": ..., "arguments": {...}}` that calls one of these tools."""
    forms = []
    for number, tool in enumerate(map(_signature, tools)):
        place = f"#/anyOf/{number}/properties/arguments" if len(tools) > 1 else "#/properties/arguments"
        parameters = tool.get("parameters")
        own = {key: value for key, value in (parameters or {}).items() if key not in ("$id", "$schema")}
        forms.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.get("name", "")},
                    "arguments": {"type": "object", **_moved(own, place)},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _moved(schema: Any, place: str) -> Any:
    """The schema, now standing at `place` of another one."""
    if isinstance(schema, Mapping):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value[:1] == "#"
            else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(each, place) for each in schema] if isinstance(schema, list) else schema


def _signature(tool: JsonObject) -> JsonObject:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


# blocks ---------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _View:
    """The text that is not decided yet; a block begins at its first character."""

    text: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """Calls, and where the text goes on after them; no calls when it is not what it looked like."""

    calls: Sequence[_Call] = ()
    end: int = 0
    dialect: Dialect | None = None


_Block: TypeAlias = Generator[None, None, _Found]
"""Reads on whenever there is more in view."""


def _tagged(view: _View, tools: _Tools, at: int, closer: str, dialect: Dialect) -> _Block:
    """JSON, or a function in the manner of XML, up to a closing tag."""
    place = yield from _present(view, at)
    if (yield from _one_of(view, place, ("<function=",))):
        found = yield from _function(view, tools, place + len("<function="))
        if not found.calls:
            return found
        end = yield from _closed(view, found.end, (closer,), _BLANK)
        return _Found(found.calls, end or found.end, found.dialect)
    if view.text[place : place + 1] not in ("{", "["):
        return _Found()
    return (yield from _values(view, tools, place, (closer,), dialect))


def _hermes(view: _View, tools: _Tools, at: int) -> _Block:
    return _tagged(view, tools, at, "</tool_call>", "hermes")


def _listed(view: _View, tools: _Tools, at: int) -> _Block:
    return _tagged(view, tools, at, "</tools>", "tools")


def _function_call(view: _View, tools: _Tools, at: int) -> _Block:
    return _tagged(view, tools, at, "</function_call>", "native")


def _phi(view: _View, tools: _Tools, at: int) -> _Block:
    return _tagged(view, tools, at, "<|/tool_call|>", "native")


def _functools(view: _View, tools: _Tools, at: int) -> _Block:
    return _values(view, tools, at - 1, (), "native")


def _named(view: _View, tools: _Tools, at: int) -> _Block:
    """Values, or the name of a tool and its arguments."""
    place = yield from _present(view, at)
    if view.text[place : place + 1] in ("{", "["):
        return (yield from _values(view, tools, place, ("<|eom_id|>", "<|eot_id|>"), "native"))
    while "{" not in view.text[at : at + _LONGEST_NAME] and len(view.text) < at + _LONGEST_NAME and not view.last:
        yield
    named = _NAMED.match(view.text, at)
    if named is None or named[1] not in tools:
        return _Found()
    return (yield from _values(view, tools, named.end(), (), "native", named[1]))


def _leading(view: _View, tools: _Tools) -> _Block:
    """A name and arguments at once: what is left of Mistral's and Functionary's calls without their control tokens."""
    while not view.last and any(name != view.text and name.startswith(view.text) for name in tools):
        yield
    name = max((name for name in tools if view.text.startswith(name)), key=len, default="")
    place = yield from _present(view, len(name))
    if not name or view.text[place : place + 1] != "{":
        return _Found()
    return (yield from _values(view, tools, place, (), "native", name))


def _fenced(view: _View, tools: _Tools, at: int) -> _Block:
    while "\n" not in view.text[at : at + _LONGEST_NAME] and len(view.text) < at + 40 and not view.last:
        yield
    line = _FENCE.match(view.text, at)
    place = yield from _present(view, line.end() if line else at)
    return (yield from _alone(view, tools, place, ("```",)))


def _alone(view: _View, tools: _Tools, at: int, closers: Sequence[str]) -> _Block:
    """Calls after which nothing comes; let go at once when it is other JSON."""
    while (first := _FIRST_KEY.match(view.text, at)) is None:
        if view.last or not _FIRST_KEY_BEGUN.match(view.text, at):
            return _Found()
        yield
    if first[1] not in _FIRST:
        return _Found()
    found = yield from _values(view, tools, at, closers, "json")
    rest = yield from _present(view, found.end)
    return found if rest == len(view.text) else _Found()


def _values(
    view: _View, tools: _Tools, at: int, closers: Sequence[str], dialect: Dialect, name: str = ""
) -> Generator[None, None, _Found]:
    """JSON values that are calls (or the arguments of `name`), one after the other, and what closes them."""
    calls: list[_Call] = []
    good = at
    while True:
        extent = yield from _extent(view, at)
        if extent.whole:
            more, end = _calls_in(view.text[at : extent.end], tools, name, dialect), extent.end
        elif name and not closers:
            return _Found(calls, good, dialect)
        else:
            more, end = yield from _mended(view, tools, at, extent, closers, name)
        if not more:
            return _Found(calls, good, dialect)
        calls += more
        good = end
        if not extent.whole:
            return _Found(calls, good, dialect)
        if closed := (yield from _closed(view, good, closers, _STRAY)):
            return _Found(calls, closed, dialect)
        place = yield from _present(view, good, _BETWEEN)
        if name or view.text[place : place + 1] != "{":
            return _Found(calls, good, dialect)
        at = place


@dataclass(slots=True)
class _Extent:
    end: int
    whole: bool = False
    quoted: bool = False
    """Cut off inside of a string."""


def _extent(view: _View, at: int) -> Generator[None, None, _Extent]:
    """Where the JSON value that begins at `at` ends, or stops being JSON, or is cut off."""
    depth, quoted = 0, False
    while True:
        found = (_QUOTED if quoted else _OUTSIDE).search(view.text, at)
        if found is None or (found[0] == "\\" and found.end() == len(view.text)):
            if view.last:
                return _Extent(len(view.text), quoted=quoted)
            at = found.start() if found else len(view.text)
            yield
        elif found[0] == "<" or depth > _DEEPEST:
            return _Extent(found.start())
        else:
            at = found.end() + (found[0] == "\\")
            quoted ^= found[0] == '"'
            depth += (found[0] in "{[") - (found[0] in "}]")
            if depth == 0 and not quoted:
                return _Extent(at, whole=True)


def _mended(
    view: _View, tools: _Tools, at: int, extent: _Extent, closers: Sequence[str], name: str
) -> Generator[None, None, tuple[list[_Call], int]]:
    """A value that lacks its last brackets, or whose quotes mislead."""
    if extent.end < len(view.text):
        closer = yield from _one_of(view, extent.end, closers)
        end = extent.end if closer else at
    else:
        places = [(place, each) for each in closers if (place := view.text.find(each, at)) >= 0]
        end, closer = min(places, default=(at if extent.quoted else len(view.text), ""))
    return _calls_in(view.text[at:end], tools, name, "hermes"), end + len(closer)


def _function(view: _View, tools: _Tools, at: int) -> _Block:
    """After `<function=`: the name, and its parameters one by one or as JSON."""
    while ">" not in view.text[at : at + _LONGEST_NAME] and len(view.text) < at + _LONGEST_NAME and not view.last:
        yield
    name, _, _ = view.text[at : at + _LONGEST_NAME].partition(">")
    at += len(name) + 1
    name = name.strip().strip("\"'")
    if name not in tools:
        return _Found()
    place = yield from _present(view, at)
    if view.text[place : place + 1] == "{":
        found = yield from _values(view, tools, place, ("</function>",), "xml", name)
        return found
    return (yield from _parameters(view, tools[name], at, name))


def _parameters(view: _View, tool: JsonObject, at: int, name: str) -> _Block:
    parameters = tool.get("parameters")
    schema: JsonObject = parameters if isinstance(parameters, Mapping) else {}
    properties = schema.get("properties")
    kinds = properties if isinstance(properties, Mapping) else {}
    made: dict[str, Any] = {}
    while True:
        while (found := _PARAMETER.match(view.text, at)) is None:
            rest = view.text[_skip(view.text, at) :]
            begun = "</function>".startswith(rest) or _PARAMETER_BEGUN.match(view.text, at)
            if not begun or view.last:
                ended = not rest or rest.startswith("</tool_call>")
                complete = made.keys() >= set(map(str, schema.get("required") or ()))
                return _Found([(name, made)], at, "xml") if made and ended and complete else _Found()
            yield
        if found[1] is None:
            return _Found([(name, made)], found.end(), "xml")
        start = search = found.end()
        while (end := view.text.find("</parameter>", search)) < 0:
            if view.last:
                return _Found()
            search = max(start, len(view.text) - len("</parameter>"))
            yield
        key = found[1].strip().strip("\"'")
        made[key] = _typed(view.text[start:end], kinds.get(key))
        at = end + len("</parameter>")


def _bars(view: _View, tools: _Tools, at: int) -> _Block:
    """DeepSeek's: each call with its name and JSON between long tokens."""
    closer = "<｜tool▁calls▁end｜>" if view.text.startswith(_BARS_BEGIN) else "<｜tool▁call▁end｜>"
    search = at
    while (end := view.text.find(closer, search)) < 0 and not view.last:
        search = max(at, len(view.text) - len(closer))
        yield
    stop = end if end >= 0 else len(view.text)
    calls: list[_Call] = []
    for each in _BARS.finditer(view.text, 0, stop):
        try:
            value, _ = _DECODER.raw_decode(view.text, each.end())
        except (ValueError, RecursionError):
            return _Found()
        if each[1] not in tools or not isinstance(value, dict):
            return _Found()
        calls.append((each[1], value))
    return _Found(calls, stop + len(closer) if end >= 0 else stop, "native")


@dataclass(frozen=True, slots=True)
class _Opener:
    dialects: frozenset[Dialect]
    read: Callable[[_View, _Tools, int], _Block]
    at_line_start: bool = field(default=False, kw_only=True)


_MISTRAL = "[TOOL_CALLS]"
_BARS_BEGIN = "<｜tool▁calls▁begin｜>"
_OPENERS = {
    "<tool_call>": _Opener(frozenset(("hermes", "xml")), _hermes),
    "<tools>": _Opener(frozenset(("tools",)), _listed),
    "<function=": _Opener(frozenset(("xml",)), _function),
    "```": _Opener(frozenset(("json",)), _fenced, at_line_start=True),
    "<function_call>": _Opener(frozenset(("native",)), _function_call),
    "<|tool_call|>": _Opener(frozenset(("native",)), _phi),
    "<|python_tag|>": _Opener(frozenset(("native",)), _named),
    _MISTRAL: _Opener(frozenset(("native",)), _named),
    "functools[": _Opener(frozenset(("native",)), _functools),
    ">>>": _Opener(frozenset(("native",)), _named, at_line_start=True),
    _BARS_BEGIN: _Opener(frozenset(("native",)), _bars),
    "<｜tool▁call▁begin｜>": _Opener(frozenset(("native",)), _bars),
}


def _present(view: _View, at: int, blank: re.Pattern[str] = _BLANK) -> Generator[None, None, int]:
    """Where the next character that is not blank stands; the end of the text when there is none."""
    while (at := _skip(view.text, at, blank)) == len(view.text) and not view.last:
        yield
    return at


def _one_of(view: _View, at: int, texts: Sequence[str]) -> Generator[None, None, str]:
    """Which of the texts stands at `at`; nothing for none."""
    while True:
        rest = view.text[at : at + 40]
        for text in texts:
            if rest.startswith(text):
                return text
        if view.last or not any(text.startswith(rest) for text in texts):
            return ""
        yield


def _closed(view: _View, at: int, closers: Sequence[str], stray: re.Pattern[str]) -> Generator[None, None, int]:
    """Where the text goes on after the closer, before which only stray characters may stand; 0 for none."""
    if not closers:
        return 0
    place = yield from _present(view, at, stray)
    closer = yield from _one_of(view, place, closers)
    return place + len(closer) if closer else 0


def _skip(text: str, at: int, blank: re.Pattern[str] = _BLANK) -> int:
    found = blank.match(text, at)
    return found.end() if found else at


def _begun(text: str, markers: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a marker."""
    longest = max(map(len, markers), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(marker.startswith(text[-size:]) for marker in markers):
            return size
    return 0


# values ---------------------------------------------------------------------------------------------------------------


def _calls_in(text: str, tools: _Tools, name: str, dialect: Dialect) -> list[_Call]:
    """The calls that this JSON is; none unless all of it is."""
    value = _loads(text)
    if name:
        return [(name, value)] if isinstance(value, dict) else []
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    values = value if isinstance(value, list) else [value]
    calls = [_call(each, tools, must_have_arguments=dialect == "json") for each in values]
    return [each for each in calls if each is not None] if None not in calls else []


def _call(value: Any, tools: _Tools, *, must_have_arguments: bool) -> _Call | None:
    for key in _WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        return None
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), "").strip()
    name = name if name in tools else name.removeprefix("functions.")
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), None if must_have_arguments else {})
    if isinstance(arguments, str):
        arguments = _loads(arguments) if arguments.strip() else {}
    return (name, arguments) if name in tools and isinstance(arguments, dict) else None


def _loads(text: str) -> Any:
    """JSON, also with the slips that models make; None for what is none."""
    for repair in (str, _repaired):
        try:
            return _DECODER.decode(repair(text))
        except (ValueError, RecursionError):
            continue
    if "'" not in text or len(text) > _LONGEST_LITERAL:
        return None
    try:
        return json.loads(json.dumps(ast.literal_eval(text.strip()), allow_nan=False))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _repaired(text: str) -> str:
    """Without commas before a closing bracket, with Python's constants made JSON's, and closed. Raises `ValueError`."""
    parts: list[str] = []
    closing: list[str] = []
    for token in _TOKENS.finditer(text):
        part = token[0]
        if part[0] == '"' and not token[1]:
            raise ValueError("a string without an end")
        if part in ("{", "["):
            closing.append("}" if part == "{" else "]")
        elif part in ("}", "]"):
            if not closing:
                break
            if closing.pop() != part:
                raise ValueError("brackets that do not fit")
        parts.append("" if part == "," and _closes_next(text, token.end()) else _PYTHON.get(part, part))
    return "".join(parts) + "".join(reversed(closing))


def _closes_next(text: str, at: int) -> bool:
    place = _skip(text, at)
    return text[place : place + 1] in ("", "}", "]")


def _typed(raw: str, schema: Any) -> Any:
    """A parameter's text as the value that its schema wants."""
    text = raw.removeprefix("\n").removesuffix("\n")
    kinds = _kinds(schema)
    if "string" in kinds:
        return None if text == "null" and "null" in kinds else text
    if not kinds and text.lstrip()[:1] not in ("{", "["):
        return text
    value = _loads(text)
    return text if value is None and text.strip() not in ("null", "None") else value


def _kinds(schema: Any) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    kind = schema.get("type")
    found = (
        {kind}
        if isinstance(kind, str)
        else {each for each in kind if isinstance(each, str)}
        if isinstance(kind, list)
        else set()
    )
    for key in ("anyOf", "oneOf"):
        parts = schema.get(key)
        found |= {each for part in parts for each in _kinds(part)} if isinstance(parts, list) else set()
    return found


def _dumped(arguments: Mapping[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(arguments)
    return text


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_number)
