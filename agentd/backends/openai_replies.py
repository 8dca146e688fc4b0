"""What an OpenAI-compatible server sends, read strictly: a whole reply or an error, never a part that looks whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeAlias

from agentd.errors import BadReply, BrokenReply, Busy, ModelError, ServerFailed, ServerRefused
from agentd.types import CallDelta, Delta, FunctionCall, ModelReply, ModelRequest, TokenLogprob

Finish: TypeAlias = Literal["stop", "length", "tool_calls"]

DONE = "[DONE]"
_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens"), "length"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use"), "tool_calls"),
}
_LONGEST_LINE = 4 * 1024 * 1024
_MOST_TOKENS = 100_000_000
_MOST_CALLS = 128
_SHORT = 300


def events_of(pieces: Iterable[bytes], at: str) -> Iterator[str]:
    """The data of each server-sent event. Raises `BrokenReply` for what is no such stream."""
    data: list[str] = []
    for line in _lines(pieces, at):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line:
            if data:
                yield "\n".join(data)
            data = []
        elif not re.match(r":|(?:event|id|retry)(?::|\Z)", line):
            raise BrokenReply(f"{at} sends something else than a stream of events: {short(line)!r}")
    if data:
        yield "\n".join(data)


def _lines(pieces: Iterable[bytes], at: str) -> Iterator[str]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise BrokenReply(f"{at} sends a line that does not end")
        for line in lines:
            yield _text(line.removesuffix(b"\r"), at)
    if rest:
        yield _text(rest, at)


def object_of(text: str | bytes, at: str) -> dict[str, Any]:
    """A JSON object. Raises `BrokenReply`, and for an object that says what went wrong the error that it tells."""
    try:
        found = json.loads(_text(text, at) if isinstance(text, bytes) else text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        shown = short(text if isinstance(text, str) else text.decode("utf-8", "replace"))
        raise BrokenReply(f"{at} sends something else than JSON: {shown!r}", hint=_IS_IT) from None
    if not isinstance(found, dict):
        raise BrokenReply(f"{at} sends JSON that is no object: {short(repr(found))}", hint=_IS_IT)
    if found.get("error") or found.get("object") == "error":
        raise told_error(found, at)
    return found


def told_error(found: Mapping[str, Any], at: str) -> ModelError:
    """The error in an answer that otherwise looks like a success."""
    error = found.get("error") or found
    facts = error if isinstance(error, Mapping) else {}
    kind = f"{facts.get('type', '')} {facts.get('code', '')}".lower()
    message = f"{at} breaks off: {said_in(found)}"
    if "429" in kind or "rate_limit" in kind or "overloaded" in kind:
        return Busy(message, hint="ask again later", retry_after=5.0)
    if re.search(r"\b(?:400|401|403|404|422)\b|invalid_request|authentication|permission|not_found", kind):
        return ServerRefused(message)
    return ServerFailed(message, hint="look into the log of that server")


def said_in(found: Any) -> str:
    """What an error's body says, in its own words, cut and harmless."""
    for _ in range(4):
        if isinstance(found, Mapping):
            found = next((found[key] for key in ("error", "message", "detail", "msg") if found.get(key)), "")
        elif isinstance(found, list) and found:
            found = found[0]
        else:
            break
    return short(found if isinstance(found, str) else json.dumps(found, default=str)) or "no reason given"


def short(text: str) -> str:
    """On one line, without what would steer a terminal; at most 300 characters."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHORT]).split())
    return plain if len(plain) <= _SHORT else plain[: _SHORT - 1] + "…"


class ReplyReader:
    """Grows a reply from events, or takes it whole. `at` names the server in errors."""

    def __init__(self, request: ModelRequest, *, model: str, at: str) -> None:
        self._request = request
        self._model = model
        self._at = at
        self._chat = request.prompt is None
        self._text = _Growing()
        self._reasoning = _Growing()
        self._calls: list[_Call] = []
        self._logprobs: list[TokenLogprob] = []
        self._finish: Finish | None = None
        self._usage: Mapping[str, Any] = {}
        self._done = False

    @property
    def complete(self) -> bool:
        """The server has said that there is no more."""
        return self._done

    @property
    def finished(self) -> bool:
        """The server has said why the reply ends; only figures may follow."""
        return self._finish is not None

    def feed(self, event: str) -> list[Delta]:
        """The deltas of one event. Raises `ModelError`."""
        if event.strip() == DONE:
            self._done = True
            return []
        found = object_of(event, self._at)
        self._take_usage(found)
        choices = found.get("choices")
        if not isinstance(choices, list):
            self._broken("an event without choices", found)
        deltas: list[Delta] = []
        for choice in choices:
            if _int(self._object(choice, "a choice").get("index", 0)) == 0:
                deltas += self._take(choice, choice.get("delta") if self._chat else choice)
        return deltas

    def whole(self, body: bytes) -> list[Delta]:
        """The deltas of a reply that comes in one piece. Raises `ModelError`."""
        found = object_of(body, self._at)
        choices = found.get("choices")
        if not isinstance(choices, list) or not choices:
            self._broken("no choices", found)
        self._take_usage(found)
        choice = self._object(choices[0], "a choice")
        deltas = self._take(choice, choice.get("message") if self._chat else choice)
        self._done = True
        return deltas

    def end(self, seconds: float) -> ModelReply:
        """The reply, once the stream has ended. Raises `BrokenReply` when it ended too early or brought nothing,
        `BadReply` for calls that cannot be made."""
        if self._finish is None and not self._done:
            raise BrokenReply(
                f"{self._at} broke off in the middle of its reply", hint="look into the log of that server"
            )
        text, reasoning = self._text.end(), self._reasoning.end()
        calls = self._complete_calls()
        finish = self._finish or "stop"
        if finish == "tool_calls" and not calls:
            self._broken("the end of a call that never began")
        if calls and finish == "stop":
            finish = "tool_calls"  # some servers say so, and only the calls tell
        if not (text or reasoning or calls or self._request.stop or finish == "length"):
            raise BrokenReply(f"{self._at} ended its reply without having said anything")
        return ModelReply(
            text=text,
            model=self._model,
            prompt_tokens=self._figure("prompt_tokens", lambda: _about(_asked(self._request))),
            completion_tokens=self._figure("completion_tokens", lambda: _about(text + reasoning + _written(calls))),
            seconds=seconds,
            finish_reason=finish,
            reasoning=reasoning,
            tool_calls=calls,
            logprobs=tuple(self._logprobs),
            reused_tokens=self._reused(),
        )

    def _take(self, choice: Mapping[str, Any], part: Any) -> list[Delta]:
        deltas: list[Delta] = []
        part = {} if part is None else self._object(part, "a part of the reply")
        reasoning = self._reasoning.add(self._string(part.get("reasoning_content") or part.get("reasoning")))
        text = self._text.add(self._content(part))
        logprobs = tuple(self._read_logprobs(choice.get("logprobs")))
        self._logprobs += logprobs
        if text or reasoning or logprobs:
            deltas.append(Delta(text=text, reasoning=reasoning, logprobs=logprobs))
        deltas += self._take_calls(part.get("tool_calls"))
        finish = choice.get("finish_reason")
        if finish is not None and finish != "":
            self._finish = self._read_finish(finish)
        return deltas

    def _content(self, part: Mapping[str, Any]) -> str:
        if not self._chat:
            return self._string(part.get("text"))
        content = part.get("content")
        if isinstance(content, list):
            return "".join(self._string(self._object(each, "a part of the text").get("text")) for each in content)
        return self._string(content) or self._string(part.get("refusal"))

    def _read_finish(self, finish: Any) -> Finish:
        if isinstance(finish, str) and finish in _FINISHES:
            return _FINISHES[finish]
        if finish == "content_filter":
            raise ServerRefused(f"{self._at} withholds the reply: its filter took offence", hint="ask in other words")
        if finish == "error":
            raise ServerFailed(f"{self._at} says that it failed in the middle of its reply")
        self._broken("an end that is unknown", finish)

    # calls -----------------------------------------------------------------------------------------------------------

    def _take_calls(self, calls: Any) -> list[Delta]:
        if calls is None:
            return []
        if not isinstance(calls, list):
            self._broken("calls that are no list", calls)
        return [Delta(call=each) for each in map(self._take_call, calls)]

    def _take_call(self, found: Any) -> CallDelta:
        piece = self._object(found, "a call")
        function = self._object(piece.get("function") or {}, "a call's function")
        given, name = self._string(piece.get("id")), self._string(function.get("name"))
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):  # some servers send it as it is meant
            arguments = json.dumps(arguments, ensure_ascii=False)
        call = self._call_at(piece.get("index"), given, name)
        first, call.told = not call.told, True
        added = call.arguments.add(self._string(arguments))
        call.pieces.append(added)
        index = self._calls.index(call)
        return CallDelta(index=index, id=call.id if first else "", name=call.name if first else "", arguments=added)

    def _call_at(self, index: Any, given: str, name: str) -> _Call:
        """The call that a piece belongs to: the one with its index, unless a new id and a name begin another."""
        known = next((call for call in reversed(self._calls) if index is None or call.index == index), None)
        if known is not None and not (name and given and known.id != given) and not (index is None and name):
            return known
        if not name:
            self._broken("a piece of a call that never began")
        if name not in {tool["name"] for tool in self._request.tools}:
            raise BadReply(f"{self._model} calls {name[:80]!r}, which is none of the tools that it was given")
        if len(self._calls) >= _MOST_CALLS:
            self._broken(f"more than {_MOST_CALLS} calls")
        self._calls.append(_Call(index=index, id=given or f"call_{len(self._calls)}", name=name))
        return self._calls[-1]

    def _complete_calls(self) -> tuple[FunctionCall, ...]:
        calls = []
        for call in self._calls:
            arguments = "".join(call.pieces) + call.arguments.end_rest() or "{}"
            try:
                wrong = not isinstance(json.loads(arguments), dict)
            except (ValueError, RecursionError):
                wrong = True
            if not wrong:
                calls.append(FunctionCall(id=call.id, name=call.name, arguments=arguments))
            elif self._finish != "length":
                raise BadReply(
                    f"{self._model} calls {call.name} with arguments that are no JSON object: {short(arguments)}"
                )
        return tuple(calls)

    # figures ---------------------------------------------------------------------------------------------------------

    def _take_usage(self, found: Mapping[str, Any]) -> None:
        usage = found.get("usage")
        if isinstance(usage, Mapping):
            self._usage = usage

    def _figure(self, name: str, otherwise: Callable[[], int]) -> int:
        found = _int(self._usage.get(name))
        return found if found is not None and 0 <= found <= _MOST_TOKENS else otherwise()

    def _reused(self) -> int:
        details = self._usage.get("prompt_tokens_details")
        found = _int(details.get("cached_tokens")) if isinstance(details, Mapping) else None
        return found if found is not None and 0 <= found <= _MOST_TOKENS else 0

    def _read_logprobs(self, found: Any) -> Iterator[TokenLogprob]:
        if self._request.logprobs is None or not isinstance(found, Mapping):
            return
        if isinstance(found.get("content"), list):
            for each in found["content"]:
                yield self._logprob(self._object(each, "a log-probability"))
        elif isinstance(found.get("tokens"), list):
            yield from self._old_logprobs(found)

    def _logprob(self, each: Mapping[str, Any]) -> TokenLogprob:
        own = each.get("bytes")
        tops = [self._object(top, "a log-probability") for top in self._list(each.get("top_logprobs"))]
        return TokenLogprob(
            token=self._string(each.get("token")),
            logprob=self._number(each.get("logprob")),
            bytes=tuple(own) if isinstance(own, list) and all(_is_byte(one) for one in own) else (),
            id=_or(_int(each.get("id")), -1),
            top=tuple((self._string(top.get("token")), self._number(top.get("logprob"))) for top in tops),
        )

    def _old_logprobs(self, found: Mapping[str, Any]) -> Iterator[TokenLogprob]:
        """Those of /completions: one list for each fact."""
        values, tops = self._list(found.get("token_logprobs")), self._list(found.get("top_logprobs"))
        if len(values) != len(found["tokens"]):
            self._broken("log-probabilities of other tokens")
        for number, (token, value) in enumerate(zip(found["tokens"], values, strict=True)):
            top = tops[number] if number < len(tops) and isinstance(tops[number], Mapping) else {}
            ranked = sorted(((self._string(t), self._number(v)) for t, v in top.items()), key=lambda pair: -pair[1])
            yield TokenLogprob(token=self._string(token), logprob=self._number(value), top=tuple(ranked))

    # forms -----------------------------------------------------------------------------------------------------------

    def _object(self, value: Any, what: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self._broken(f"{what} that is no object", value)
        return value

    def _list(self, value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self._broken("something else than a list", value)
        return value

    def _string(self, value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            self._broken("something else than text", value)
        return value

    def _number(self, value: Any) -> float:
        if value is None:
            return 0.0  # /completions says so of the first token
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._broken("a log-probability that is no number", value)
        return float(value)

    def _broken(self, what: str, value: Any = None) -> NoReturn:
        shown = "" if value is None else f": {short(repr(value))}"
        raise BrokenReply(f"{self._at} sends {what}{shown}", hint=_IS_IT)


class _Growing:
    """Text in pieces. Half of a surrogate pair waits for its other half; one that never comes is replaced."""

    def __init__(self) -> None:
        self._whole: list[str] = []
        self._rest = ""

    def add(self, text: str) -> str:
        """What can be shown of it now."""
        text, self._rest = self._rest + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._rest = text[:-1], text[-1]
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._whole.append(text)
        return text

    def end_rest(self) -> str:
        """What stands for half a pair that never became whole."""
        rest, self._rest = ("�" if self._rest else ""), ""
        return rest

    def end(self) -> str:
        return "".join(self._whole) + self.end_rest()


@dataclass(slots=True, eq=False)
class _Call:
    """A call that grows; `index` is the server's, None where it gives none."""

    index: Any
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    arguments: _Growing = field(default_factory=_Growing)
    told: bool = False


def _asked(request: ModelRequest) -> str:
    return (request.prompt or "") + "".join(message.content for message in request.messages)


def _written(calls: Iterable[FunctionCall]) -> str:
    return "".join(call.name + call.arguments for call in calls)


def _about(text: str) -> int:
    """Tokens: four characters make one."""
    return math.ceil(len(text) / 4)


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _text(data: bytes, at: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        shown = short(data.decode("utf-8", "replace"))
        raise BrokenReply(f"{at} sends something that is no text: {shown!r}", hint=_IS_IT) from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_IS_IT = "is it a server with OpenAI's API, and is the address the one that ends before /chat/completions?"
