"""A model on a server that speaks OpenAI's API: llama-server, Ollama, vLLM, LM Studio, another agentd, a cloud."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

from agentd.backends.catalog import ServerEntry
from agentd.backends.dialects import Reading
from agentd.backends.http_lines import Answer, Limits, Lines, address_of
from agentd.backends.json_schema import problems
from agentd.backends.openai_replies import ReplyReader, events_of, object_of, said_in, short
from agentd.backends.openai_words import FORMS, REPLY_TOOL, Abilities, Form, path_of, payload_of
from agentd.errors import (
    BadReply,
    BrokenReply,
    Busy,
    Cancelled,
    Denied,
    ModelError,
    NoGrammar,
    ServerFailed,
    ServerRefused,
    TooSlow,
)
from agentd.types import Delta, JsonObject, Message, ModelProfile, ModelReply, ModelRequest, OnDelta, Score

Key: TypeAlias = Callable[[], str | None]
MaySend: TypeAlias = Callable[[str, int], None]
"""Raises `Denied` for a host and port that nothing may be sent to."""
Record: TypeAlias = Callable[[str, str, JsonObject], object]

_MEGABYTE = 1024 * 1024
_PER_TOKEN = 8 * 1024
"""Bytes that a server may need for one token of a reply with all that is said about it."""
_MOST_BYTES = 1024 * _MEGABYTE
_MOST_TOKENS = 1 << 17
"""Of a reply whose length the server decides."""
_MOST_ERROR = 64 * 1024
_LOOK_SECONDS = 10.0
_WRAPPING = 32
"""Tokens that the JSON around a choice may take."""
_REMEMBERED = 1800.0
_EMBED_SECONDS = 600.0
_FIGURES_SECONDS = 2.0
"""How long the figures may take after the reply has ended."""
_LONGEST_PAUSE = 3600.0
_REFUSED_FORM = (400, 422, 501)
"""Statuses by which servers say that they do not know a parameter."""


class Link:
    """The way to one address of a server: its connections, its key, the leave to send there, what its models can do.

    Safe to use from several threads. A server with several addresses is one link for each.
    """

    def __init__(self, server: ServerEntry, *, key: Key, may_send: MaySend, record: Record | None = None) -> None:
        """To the first of the server's `urls`. `record` is the audit's."""
        self.server = server
        self.url = server.urls[0]
        self._key = key
        self._may_send = may_send
        self._record = record
        self._lines = Lines(
            self.url,
            connect_timeout=server.connect_timeout,
            proxy=server.proxy,
            verify=server.verify,
            at=f"{server.name} ({self.url})",
        )
        self._abilities: dict[str, tuple[float, Abilities]] = {}
        self._told: set[str] = set()

    @property
    def at(self) -> str:
        """What errors call it."""
        return self._lines.at

    def abilities(self, model: str) -> Abilities:
        """What is known of a model; forgotten after a while, for servers are updated and single replies mislead."""
        now = time.monotonic()
        since, known = self._abilities.get(model, (now - _REMEMBERED, Abilities()))
        if now - since >= _REMEMBERED:
            known = Abilities()
            self._abilities[model] = now, known
        return known

    def models(self, *, timeout: float = _LOOK_SECONDS) -> list[str]:
        """The names of the models that it serves. Raises `ModelError`, `Denied`."""
        found = self.get("/models", timeout=timeout)
        rows = found.get("data", found.get("models"))
        if not isinstance(rows, list):
            raise BrokenReply(f"{self.at} lists no models", hint="is it a server with OpenAI's API?")
        names = [row.get("id", row.get("name")) for row in rows if isinstance(row, Mapping)]
        return [short(name) for name in names if isinstance(name, str) and name]

    def get(self, path: str, *, timeout: float) -> dict[str, Any]:
        """What it answers to a question about itself."""
        limits = Limits(time.monotonic() + timeout, 16 * _MEGABYTE)
        with self.exchange("GET", path, None, model="", client="", limits=limits) as answer:
            return object_of(b"".join(answer.pieces()), self.at)

    @contextmanager
    def exchange(
        self, method: str, path: str, payload: JsonObject | None, *, model: str, client: str, limits: Limits
    ) -> Iterator[Answer]:
        """A good answer's head and body. Raises `Denied`, what `Lines.exchange` raises, and for every other status
        than 200 the error that it stands for."""
        body = None if payload is None else json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace")
        self._ask_leave(model, client, len(body or b""))
        key = self._known_key()
        headers = {"Accept": "application/json, text/event-stream", "User-Agent": "agentd"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        with self._lines.exchange(method, path, headers=headers, body=body, limits=limits) as answer:
            if answer.status != 200:
                raise _error_of(answer, self.at, key)
            yield answer

    def close(self) -> None:
        self._lines.close()

    def _ask_leave(self, model: str, client: str, size: int) -> None:
        """Policy is asked about the server and about the proxy, which may see as much."""
        targets = [address_of(url) for url in (self.url, self.server.proxy) if url is not None]
        for host, port in targets:
            try:
                self._may_send(host, port)
            except Denied:
                # A question without a text is asked again and again while the server is a candidate.
                if size or "" not in self._told:
                    self._note("deny", host, port, model, client, size)
                    self._told.add("")
                raise
        host, port = targets[0]
        if model and model not in self._told:
            self._told.add(model)
            self._note("allow", host, port, model, client, size)

    def _note(self, decision: str, host: str, port: int, model: str, client: str, size: int) -> None:
        if self._record is not None:
            facts = {"decision": decision, "server": self.server.name, "host": host, "port": port}
            self._record("model.send", client, facts | {"model": model, "bytes": size})

    def _known_key(self) -> str | None:
        if self.server.key is None:
            return None
        key = self._key()
        if key is None:
            raise ServerRefused(
                f"{self.at} wants the key {self.server.key!r}, which is not in the vault",
                hint=f"agentd secret set {self.server.key}",
                status=401,
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ServerRefused(
                f"the key {self.server.key!r} has characters that no header can carry",
                hint=f"set it again: agentd secret set {self.server.key}",
                status=401,
            )
        return key


class RemoteModel:
    """A model at the other end of a link, which the models of a server share. See `types.Model`.

    Errors have `retryable` and `sent`; `Busy` has `retry_after`. It cannot score, so its profile is never compact.
    """

    def __init__(self, link: Link, model: str, *, name: str, profile: ModelProfile) -> None:
        """`model` is its name on the server, `name` the one here."""
        self.link = link
        self.model = model
        self._name = name
        self._profile = replace(profile, compact=False)

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ModelProfile:
        return self._profile

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        """Raises `ModelError`, `Denied`, `Cancelled`; `NoGrammar` when the server cannot keep to the constraint."""
        ask = _Asking(self, request, on_delta, cancel)
        try:
            if request.grammar is not None or (request.choices is not None and request.prompt is not None):
                raise NoGrammar(f"{self.link.at} takes no grammar", hint="give a JSON schema")
            if request.choices is not None:
                return ask.choose(request.choices)
            return ask.freely(request) if request.schema is None else ask.held(request)
        except ModelError as error:
            error.sent = ask.sent
            raise

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        raise ModelError(
            f"{self._name} cannot score texts: its server has no way to", hint="take a model of this machine"
        )

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises `ModelError`, `Denied`."""
        if not texts:
            return []
        limits = Limits(time.monotonic() + min(_EMBED_SECONDS, self.link.server.timeout), _MOST_BYTES)
        payload = {"model": self.model, "input": list(texts)}
        with self.link.exchange("POST", "/embeddings", payload, model=self.model, client="", limits=limits) as answer:
            return _vectors(object_of(b"".join(answer.pieces()), self.link.at), len(texts), self.link.at)

    def count(self, text: str) -> int:
        """About: four characters make a token."""
        return math.ceil(len(text) / 4)


class _Asking:
    """One request of one caller, in whatever ways the server has to be asked."""

    def __init__(
        self, model: RemoteModel, request: ModelRequest, on_delta: OnDelta | None, cancel: threading.Event | None
    ) -> None:
        self._model = model
        self._request = request
        self._link = model.link
        self._able = model.link.abilities(model.model)
        self._on_delta = on_delta
        self._cancel = cancel
        self._started = time.monotonic()
        self._deadline = self._started + min(request.timeout, model.link.server.timeout)
        self.sent = False

    def freely(self, request: ModelRequest) -> ModelReply:
        """Without a schema. A server that knows no tools, or a model that writes its calls as text, does as well."""
        if not request.tools or request.tool_choice == "none" or request.prompt is not None:
            return self._learning(request, self._able, self._tell)
        try:
            reply = self._learning(request, self._able, self._tell)
        except ServerRefused as error:
            if error.status not in _REFUSED_FORM or self.sent or not self._able.tools or "tool" not in error.message:
                raise
            able = replace(self._able, tools=False)
            reply = self._learning(request, able, self._tell)
            self._able.tools = False
        if request.tool_choice == "required" and not reply.tool_calls and reply.finish_reason == "stop":
            raise BadReply(f"{self._model.name} called none of the tools, though it had to: {short(reply.text)!r}")
        return reply

    def held(self, request: ModelRequest) -> ModelReply:
        """By the surest form that the server takes. Raises `NoGrammar` when there is none, or when it does not keep to
        the schema."""
        if request.prompt is not None:
            raise NoGrammar(f"{self._link.at} holds only chat to a schema", hint="leave out the schema")
        first: ServerRefused | None = None
        for form in FORMS[FORMS.index(self._able.form) : FORMS.index("tools" if request.tools else "text")]:
            try:
                reply = self._in_form(request, form)
            except ServerRefused as error:
                if error.status not in _REFUSED_FORM or self.sent:
                    raise
                first = first or error
                continue
            self._able.form = form
            return self._checked(request, reply, form)
        if first is not None and not _is_about_form(first.message):
            raise first
        self._able.form = "text"
        raise NoGrammar(f"{self._link.at} cannot hold {self._model.model} to a schema", hint="ask without the schema")

    def choose(self, choices: Sequence[str]) -> ModelReply:
        """One of `choices`, or `BadReply`."""
        schema = {
            "type": "object",
            "properties": {"choice": {"type": "string", "enum": list(choices)}},
            "required": ["choice"],
            "additionalProperties": False,
        }
        quiet = _Asking(self._model, self._request, None, self._cancel)
        plain = replace(self._request, choices=None)
        try:
            room = None if plain.max_tokens is None else plain.max_tokens + _WRAPPING
            reply = quiet.held(replace(plain, schema=schema, max_tokens=room))
            chosen = json.loads(reply.text)["choice"] if reply.finish_reason != "length" else None
        except NoGrammar:
            told = "Reply with exactly one of these lines and nothing else:\n" + "\n".join(choices)
            reply = quiet.freely(replace(plain, messages=(*plain.messages, Message(role="user", content=told))))
            chosen = next((each for each in (reply.text, reply.text.strip(" \t\r\n\"'`.")) if each in choices), None)
        if chosen is None:
            listed = ", ".join(choices)
            raise BadReply(f"{self._model.name} chose {short(reply.text)!r}; the choices are {listed}")
        self._tell(Delta(text=chosen))
        return replace(reply, text=chosen)

    def _in_form(self, request: ModelRequest, form: Form) -> ModelReply:
        able = replace(self._able, form=form)
        if form != "tools":
            return self._learning(request, able, self._tell)
        tool = {"name": REPLY_TOOL, "parameters": request.schema}
        reply = self._learning(replace(request, tools=(tool,)), able, self._tell_call)
        if not reply.tool_calls:
            return reply
        return replace(reply, text=reply.tool_calls[0].arguments, tool_calls=(), finish_reason="stop")

    def _checked(self, request: ModelRequest, reply: ModelReply, form: Form) -> ModelReply:
        """A server may ignore what it does not know, so its word is not enough."""
        if reply.finish_reason in ("length", "tool_calls"):
            return reply
        assert request.schema is not None
        try:
            wrong = problems(json.loads(reply.text), request.schema)
        except (ValueError, RecursionError):
            wrong = [f"expected JSON, got {short(reply.text)!r}"]
        if wrong:
            self._able.form = FORMS[FORMS.index(form) + 1]
            raise NoGrammar(
                f"{self._link.at} did not keep {self._model.model} to the schema: {short(wrong[0])}",
                hint="ask without the schema",
            )
        return reply

    def _learning(self, request: ModelRequest, able: Abilities, tell: OnDelta) -> ModelReply:
        """Ask; and again, if the server refuses parameters that it can be asked without."""
        while True:
            payload = payload_of(request, self._model.model, able, stream=able.streams, think=self._model.profile.think)
            try:
                return self._once(request, payload, tell)
            except ServerRefused as error:
                if error.status not in _REFUSED_FORM or self.sent or not able.learn(error.message, payload):
                    raise
                self._able.limit, self._able.without = able.limit, able.without

    def _once(self, request: ModelRequest, payload: JsonObject, tell: OnDelta) -> ModelReply:
        reader = ReplyReader(request, model=self._model.name, at=self._link.at)
        ear = _Ear(request, tell)
        limits = Limits(self._deadline, _room(request), self._cancel)
        with self._link.exchange(
            "POST", path_of(request), payload, model=self._model.model, client=request.client, limits=limits
        ) as answer:
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream":
                self._read_events(reader, answer, request, ear)
            elif kind.endswith("json"):
                for delta in reader.whole(b"".join(answer.pieces())):
                    ear.hear(delta)
            else:
                shown = short(b"".join(answer.pieces())[:2000].decode("utf-8", "replace"))
                raise BrokenReply(
                    f"{self._link.at} answers with {kind or 'something without a type'}: {shown!r}",
                    hint="is it a server with OpenAI's API, and is its address right?",
                )
            return ear.end(reader.end(time.monotonic() - self._started))

    def _read_events(self, reader: ReplyReader, answer: Answer, request: ModelRequest, ear: _Ear) -> None:
        left = 10_000 + 64 * _most(request)
        try:
            for event in events_of(answer.pieces(), self._link.at):
                left -= 1
                if left < 0:
                    raise BrokenReply(f"{self._link.at} sends more events than the reply can have tokens")
                for delta in reader.feed(event):
                    ear.hear(delta)
                if reader.complete:
                    answer.settle()
                    return
                if reader.finished:
                    answer.hurry(_FIGURES_SECONDS)
        except (BrokenReply, TooSlow):
            if not reader.finished:
                raise

    def _tell(self, delta: Delta) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled(f"the request to {self._link.at} was cancelled")
        if self._on_delta is not None:
            self.sent = True
            self._on_delta(delta)

    def _tell_call(self, delta: Delta) -> None:
        """The arguments of the call are the reply."""
        if delta.call is not None:
            delta = Delta(text=delta.call.arguments)
        self._tell(delta)


class _Ear:
    """Reads on in what a server takes for plain text: thoughts between tags, and calls that it did not recognise."""

    def __init__(self, request: ModelRequest, tell: OnDelta) -> None:
        self._tell = tell
        self._plain = request.prompt is not None
        self._reading = Reading(() if request.tool_choice == "none" else request.tools)
        self._heard = 0
        self._calls = 0
        """Those that the server recognised; whatever else looks like one is text then."""

    def hear(self, delta: Delta) -> None:
        if delta.call is not None:
            self._calls = max(self._calls, delta.call.index + 1)
        self._heard += len(delta.text)
        if self._plain or not delta.text:
            self._tell(delta)
            return
        found = self._reading.feed(delta.text)
        if delta.reasoning or delta.logprobs:
            self._tell(replace(delta, text=""))
        self._pass(found)

    def end(self, reply: ModelReply) -> ModelReply:
        if rest := reply.text[self._heard :]:
            self.hear(Delta(text=rest))
        if self._plain:
            return reply
        self._pass(self._reading.end())
        calls = self._reading.calls
        if calls and self._calls:
            raise BrokenReply(f"{reply.model} calls tools in its text and beside it at once")
        finish = "tool_calls" if calls and reply.finish_reason == "stop" else reply.finish_reason
        return replace(
            reply,
            text=self._reading.text,
            reasoning=reply.reasoning + self._reading.reasoning,
            tool_calls=reply.tool_calls or calls,
            finish_reason=finish,
        )

    def _pass(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self._tell(delta)


def _room(request: ModelRequest) -> int:
    """The most bytes that a reply may have."""
    return min(_MOST_BYTES, _MEGABYTE + _most(request) * _PER_TOKEN * (1 + (request.logprobs or 0) // 4))


def _most(request: ModelRequest) -> int:
    """The most tokens that a reply may have."""
    return _MOST_TOKENS if request.max_tokens is None else request.max_tokens


def _is_about_form(said: str) -> bool:
    return any(word in said.lower() for word in ("response_format", "schema", "grammar", "tool", "json"))


def _vectors(found: Mapping[str, Any], count: int, at: str) -> list[list[float]]:
    """In the order of the texts."""
    rows = found.get("data")
    vectors: list[list[float]] = []
    if isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows):
        rows = sorted(rows, key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0)
        vectors = [row["embedding"] for row in rows if _is_vector(row.get("embedding"))]
    if len(vectors) != count or len({len(vector) for vector in vectors}) != 1:
        raise BrokenReply(f"{at} did not send one vector for each of {count} texts")
    return [[float(value) for value in vector] for vector in vectors]


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value)
    )


def _error_of(answer: Answer, at: str, key: str | None) -> ModelError:
    """What a status other than 200 stands for, with what the server says about it."""
    status, said = answer.status, _said(answer, key)
    pause = _pause(answer.headers.get("retry-after", ""))
    if status == 429:
        return Busy(f"{at} has too much to do (429): {said}", hint="ask again later", retry_after=pause or 1.0)
    if status == 503 and (pause is not None or "loading" in said.lower()):
        return Busy(f"{at} is not ready (503): {said}", hint="ask again later", retry_after=pause or 2.0)
    if status in (408, 425) or (status >= 500 and status != 501):
        failed = ServerFailed(f"{at} failed ({status}): {said}", hint="look into the log of that server")
        failed.retry_after = pause
        return failed
    if 300 <= status < 400:
        place = short(answer.headers.get("location", "nowhere"))
        return ServerRefused(
            f"{at} leads elsewhere ({status}): {place}; redirects are not followed",
            hint="name the address that it leads to, if you trust it",
            status=status,
        )
    if status < 300:
        return BrokenReply(f"{at} answers with the status {status}, which no reply has")
    return ServerRefused(f"{at} refuses the request ({status}): {said}", hint=_HINTS.get(status, ""), status=status)


_HINTS = {
    401: "give its key: agentd secret set NAME, and `key` of the server in the catalog",
    403: "the key may not be the right one: agentd secret set NAME",
    404: "`agentd backend test` lists its models; see that its address ends where /chat/completions begins",
    413: "the request is too long for it",
}


def _said(answer: Answer, key: str | None) -> str:
    """What the server says, without the key if it should repeat that."""
    body = b""
    try:
        for piece in answer.pieces():
            body += piece
            if len(body) > _MOST_ERROR:
                break
    except ModelError:
        pass  # the status has said enough
    text = body[:_MOST_ERROR].decode("utf-8", "replace")
    if key:
        text = text.replace(key, "…")
    try:
        return said_in(json.loads(text))
    except (ValueError, RecursionError):
        return short(text) or "no reason given"


def _pause(text: str) -> float | None:
    """Seconds of a Retry-After header, which may be a date."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE) if math.isfinite(seconds) else None
