"""A model's own chat template, filled so that nothing in a message can pass for one of the model's control tokens."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, TypeAlias

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For a model that brings no template."""

Piece: TypeAlias = tuple[str, bool]
"""Text of a prompt, and whether control tokens in it are meant as such."""
Dict: TypeAlias = dict[str, Any]

_MARK = re.compile("\ue000(\\d+)\ue001")
_SECONDS = 5.0
_LONGEST = 32_000_000
"""Characters of a prompt."""
_BIGGEST = 1_000_000
"""The greatest number that a template may hand to a method, and the longest thing it may make by repeating."""
_TOOLS = (
    "You can call functions. These are their signatures:\n<tools>\n{tools}\n</tools>\n"
    "To call one, reply with a JSON object with its name and arguments between tags, one such block for each call:\n"
    '<tool_call>\n{{"name": "the function", "arguments": {{"a parameter": "its value"}}}}\n</tool_call>'
)

_PROBE: Dict = {
    "type": "function",
    "function": {
        "name": "probe_1",
        "description": "a probe",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "string", "description": "b"}},
            "required": ["a"],
        },
    },
}


class ChatTemplate:
    def __init__(
        self, source: str | None, *, bos: str, eos: str, controls: Sequence[str], seconds: float = _SECONDS
    ) -> None:
        """`controls`: the texts of the model's control tokens; `seconds`: the most that filling may take.

        Raises `ValueError` for a template that is no Jinja.
        """
        self._environment = _Environment(seconds)
        self._environment.globals |= {"bos_token": bos, "eos_token": eos}
        self._controls = [text for text in sorted(controls, key=len, reverse=True) if text]
        self._pattern = re.compile("|".join(map(re.escape, self._controls))) if self._controls else None
        self._number = {text: number for number, text in enumerate(self._controls)}
        try:
            self._template = self._environment.guarded(source or CHATML)
        except (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise ValueError(f"the model's chat template cannot be read: {error}") from None

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, think: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[Piece]:
        """The prompt in pieces, ready for the assistant's words.

        Messages are those of OpenAI, with `tool_calls`, `tool_call_id` and `name` where they have them; a tool is
        `name`, `description` and `parameters`, or the same under `function`. What the template does not know of tools
        is said in words. A last message of the assistant's is gone on with. Raises `ValueError` when the template
        refuses.
        """
        begun = self._disarm(messages[-1].get("content") or "") if _is_begun(messages) else ""
        chat = [self._message(message) for message in _with_names(messages[:-1] if begun else messages)]
        functions = [{"type": "function", "function": self._disarm(_whole(tool))} for tool in tools]
        refusal = ""
        forms = list(self._forms(chat, functions))
        self._environment.start()
        for form, known in forms:
            try:
                return self._pieces(self._fill(form, think, known) + begun)
            except Exception as error:  # a template is a stranger's program, and can fail in every way
                refusal = refusal or f"{type(error).__name__}: {error}"[:500]
        raise ValueError(f"the model's chat template refuses these messages: {refusal}")

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the template itself tells the model which tools there are."""
        return self._says([{"role": "user", "content": "hi"}], [_PROBE], "probe_1")

    @cached_property
    def knows_calls(self) -> bool:
        """Whether the template itself shows the model its earlier calls and what they gave."""
        call = {"name": "probe_1", "arguments": _Arguments({"a": "probe_2"})}
        chat: list[Dict] = [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "probe1234", "type": "function", "function": call}],
            },
            {"role": "tool", "content": "probe_3", "tool_call_id": "probe1234", "name": "probe_1"},
        ]
        return self._says(chat, [_PROBE], "probe_1", "probe_2", "probe_3")

    def _says(self, chat: Sequence[Dict], tools: Sequence[Dict], *words: str) -> bool:
        self._environment.start()
        try:
            text = self._fill(chat, False, tools)
        except Exception:  # as above
            return False
        return all(word in text for word in words)

    def _forms(self, chat: list[Dict], tools: list[Dict]) -> Iterator[tuple[list[Dict], list[Dict] | None]]:
        """The messages, and the tools to hand over, in the forms that templates may take; the likeliest first."""
        own_calls = self.knows_calls or not any("tool_calls" in each or "tool_call_id" in each for each in chat)
        own_tools = own_calls and (self.knows_tools or not tools)
        if own_tools:
            yield chat, tools or None
            if any("tool_calls" in message for message in chat):
                yield [_with_short_ids(message) for message in chat], tools
        worded = chat if own_tools and not tools else in_words(chat, tools)
        # Many templates know neither system nor tool messages and want user and assistant in turn.
        for form in (worded, _in_turn(in_words(worded, []))):
            yield form, None
            yield form, []

    def _message(self, message: Mapping[str, Any]) -> Dict:
        made: Dict = {**message, "content": message.get("content") or ""}
        if not made.get("tool_calls"):
            made.pop("tool_calls", None)
        made = {key: value for key, value in made.items() if value != "" or key == "content"}
        made |= {key: self._disarm(value) for key, value in made.items() if key not in ("role", "tool_calls")}
        if "tool_calls" in made:
            made["tool_calls"] = [self._call(call) for call in made["tool_calls"]]
        return made

    def _call(self, call: Mapping[str, Any]) -> Dict:
        function = _function(call)
        arguments = function.get("arguments", "")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                pass  # it stays what the model wrote
        arguments = self._disarm(arguments)
        made = {
            **self._disarm(function),
            "arguments": _Arguments(arguments) if isinstance(arguments, dict) else arguments,
        }
        return {"id": str(call.get("id", "")), "type": "function", "function": made}

    def _fill(self, messages: Sequence[Dict], think: bool, tools: Sequence[Dict] | None) -> str:
        return self._environment.fill(
            self._template,
            messages=messages,
            add_generation_prompt=True,
            enable_thinking=think,
            thinking=think,
            tools=tools,
        )

    def _disarm(self, value: Any) -> Any:
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self._pattern.sub(lambda found: f"\ue000{self._number[found[0]]}\ue001", value)
        if isinstance(value, Mapping):
            return {self._disarm(key): self._disarm(each) for key, each in value.items()}
        return [self._disarm(each) for each in value] if isinstance(value, list | tuple) else value

    def _pieces(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        at = 0
        for mark in _MARK.finditer(text):
            if len(mark[1]) < 9 and int(mark[1]) < len(self._controls):
                pieces += [(text[at : mark.start()], True), (self._controls[int(mark[1])], False)]
                at = mark.end()
        return [piece for piece in [*pieces, (text[at:], True)] if piece[0]]


def _is_begun(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the reply is there in part already."""
    return len(messages) > 1 and messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls")


def opens_thought(pieces: Sequence[Piece]) -> bool:
    """Whether the prompt itself has begun the thought, so that the model's words go on inside of `<think>`."""
    return bool(pieces) and pieces[-1][1] and pieces[-1][0].rstrip().endswith("<think>")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja for templates that nobody has read: no way to Python, no endless loop, no endless text."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, seconds: float) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        self.filters["tojson"] = _tojson
        for name in ("center", "format", "indent"):
            self.filters[name] = _modest(self.filters[name])
        self.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        self._seconds = seconds
        self._until = threading.local()

    def guarded(self, source: str) -> jinja2.Template:
        tree = _Guard().visit(self.parse(source))
        tree.set_environment(self)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def start(self) -> None:
        """From now on the seconds count, for all that this thread fills."""
        self._until.time = time.monotonic() + self._seconds

    def fill(self, template: jinja2.Template, **values: Any) -> str:
        parts: list[str] = []
        size = 0
        for part in template.generate(**values):
            self.tick()
            size += len(part)
            if size > _LONGEST:
                raise SecurityError(f"the template writes more than {_LONGEST} characters")
            parts.append(part)
        return "".join(parts)

    def tick(self) -> str:
        """Called by every turn of every loop and by every macro."""
        if time.monotonic() > self._until.time:
            raise SecurityError(f"the template is not done after {self._seconds:g} seconds")
        return ""

    def joined(self, *parts: Any) -> str:
        """What `a ~ b` makes."""
        texts = [str(part) for part in parts]
        if sum(map(len, texts)) > _LONGEST:
            raise SecurityError("the template makes too long a text")
        return "".join(texts)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        bound = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        _check_sizes(*args, *kwargs.values(), *([bound] if isinstance(bound, int) else []))
        if getattr(function, "__name__", "") in ("format", "format_map"):
            _check_form(bound)
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(each) if isinstance(each, str | list | tuple) else 0 for each in (left, right)]
        numbers = [abs(each) if isinstance(each, int) else 1 for each in (left, right)]
        if (
            (operator == "+" and sum(sizes) > _LONGEST)
            or (operator == "*" and max(sizes) * max(numbers) > _BIGGEST)
            or (operator in ("*", "**") and max(numbers) > _BIGGEST)
            or (operator == "**" and numbers[1] > 64)
        ):
            raise SecurityError(f"the template makes too big a thing with {operator}")
        if operator == "%":
            _check_form(left)
        return super().call_binop(context, operator, left, right)


def _check_sizes(*values: Any) -> None:
    if any(isinstance(value, int) and abs(value) > _BIGGEST for value in values):
        raise SecurityError("the template uses too big a number")


def _check_form(form: Any) -> None:
    """Of a text that others are put into: a width may be written in it, or come with them."""
    if isinstance(form, str) and re.search(r"\d{6}|%\S{0,9}\*", form):
        raise SecurityError("the template uses too wide a form")


def _modest(function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(value: Any, *args: Any, **kwargs: Any) -> Any:
        _check_sizes(*args, *kwargs.values())
        _check_form(value)
        return function(value, *args, **kwargs)

    return checked


class _Guard(NodeTransformer):
    """Puts a tick into everything that can go round, and makes `~` a call."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._ticking(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._call("joined", node.nodes, node.lineno)

    def _ticking(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self._call("tick", [], node.lineno), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    def _call(self, name: str, args: list[nodes.Expr], line: int) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(name, lineno=line), args, [], None, None, lineno=line)


class _Generation(Extension):
    """`{% generation %}` marks text for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Arguments(dict[str, Any]):
    """Arguments of a call for templates that take them for an object, and for those that take them for text."""

    def __str__(self) -> str:
        return _tojson(self)

    def __add__(self, other: Any) -> str:
        return str(self) + str(other)

    def __radd__(self, other: Any) -> str:
        return str(other) + str(self)


def _function(tool: Mapping[str, Any]) -> Dict:
    inner = tool.get("function")
    return dict(inner if isinstance(inner, Mapping) else tool)


def _whole(tool: Mapping[str, Any]) -> Dict:
    """With everything that a template may look for."""
    return {"name": "", "description": "", "parameters": {"type": "object", "properties": {}}, **_function(tool)}


def _with_names(messages: Sequence[Mapping[str, Any]]) -> Iterator[Dict]:
    """A tool's message says which call it answers; many templates want to know which tool that was."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[str(call.get("id", ""))] = str(_function(call).get("name", ""))
        made = dict(message)
        if made.get("role") == "tool" and not made.get("name"):
            made["name"] = names.get(str(made.get("tool_call_id", "")), "")
        yield made


def _with_short_ids(message: Dict) -> Dict:
    """Some templates (Mistral's) take only ids of nine letters and digits."""
    made = dict(message)
    if "tool_call_id" in made:
        made["tool_call_id"] = _short(made["tool_call_id"])
    if "tool_calls" in made:
        made["tool_calls"] = [{**call, "id": _short(call["id"])} for call in made["tool_calls"]]
    return made


def _short(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:9]


def in_words(chat: Sequence[Dict], tools: Sequence[Dict]) -> list[Dict]:
    """Tools, calls and their results as text, in the way of Hermes, which most models have seen."""
    made = [_worded(message) for message in chat]
    if tools:
        said = _TOOLS.format(tools="\n".join(_tojson(tool) for tool in tools))
        system = made.pop(0)["content"] + "\n\n" if made and made[0]["role"] == "system" else ""
        made.insert(0, {"role": "system", "content": system + said})
    return made


def _worded(message: Dict) -> Dict:
    if "tool_call_id" in message:
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if "tool_calls" not in message:
        return message
    calls = [
        {"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in message["tool_calls"]
    ]
    blocks = [f"<tool_call>\n{_tojson(call)}\n</tool_call>" for call in calls]
    return {"role": "assistant", "content": "\n".join([*filter(None, [message["content"]]), *blocks])}


def _in_turn(messages: Sequence[Dict]) -> list[Dict]:
    """Only user and assistant, in turn."""
    turns: list[Dict] = []
    for message in messages:
        role = "assistant" if message["role"] == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + message["content"]
        else:
            turns.append({"role": role, "content": message["content"]})
    return turns


def _refuse(message: str) -> None:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
