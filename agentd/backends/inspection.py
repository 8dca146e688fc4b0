"""What a model on a server can do, found out by asking it: each finding in words, and kept for the requests to come."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import Any

from agentd.backends.json_schema import problems
from agentd.backends.openai_http import Link, RemoteModel
from agentd.backends.openai_words import FORMS, Abilities
from agentd.errors import AgentdError, ModelError, NotFound
from agentd.types import Delta, Message, ModelProfile, ModelReply, ModelRequest

_SECONDS = 60.0
"""For each question; a model that is loaded first may need most of them."""
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
_TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether the server can do one thing, and how that shows."""

    what: str
    ok: bool
    detail: str


@dataclass(slots=True, kw_only=True)
class Inspection:
    """All that was found out. `latency` is the seconds to the first piece of a reply, `speed` tokens a second."""

    server: str
    url: str
    model: str = ""
    models: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    latency: float | None = None
    speed: float | None = None
    form: str = ""
    """How it can be held to a JSON schema; `text` if it cannot."""

    @property
    def ok(self) -> bool:
        """Whether it replies at all; agentd finds a way around the rest."""
        needed = {finding.what: finding.ok for finding in self.findings}
        return needed.get("replies", False)

    def add(self, what: str, ok: bool, detail: str) -> bool:
        self.findings.append(Finding(what=what, ok=ok, detail=detail))
        return ok


def inspect(link: Link, model: str | None = None) -> Inspection:
    """Ask for one model of a server, the first if none is named. Failures are findings; raises only `Cancelled`."""
    found = Inspection(server=link.server.name, url=link.url)
    try:
        found.models = link.models()
        found.add("reached", True, f"{len(found.models)} models")
    except AgentdError as error:
        if not found.add("reached", getattr(error, "status", 0) == 404, _said(error)):
            return found
    try:
        found.model = _chosen(link, found.models, model)
    except NotFound as error:
        found.add("replies", False, _said(error))
        return found
    able = link.abilities(found.model)
    asked = RemoteModel(link, found.model, name=found.model, profile=ModelProfile())
    if _replies(asked, able, found):
        _tools(asked, able, found)
        _schema(asked, able, found)
    return found


def _chosen(link: Link, models: list[str], model: str | None) -> str:
    if model is None:
        if not models:
            raise NotFound(f"{link.at} lists no model", hint="name one with --model")
        return models[0]
    if models and model not in models:
        raise NotFound(f"{link.at} has no model {model!r}", hint=f"there are {', '.join(models[:20])}")
    return model


def _replies(model: RemoteModel, able: Abilities, found: Inspection) -> bool:
    request = _asking("Count from one to twenty in words.", 64)
    able.streams = True
    moments: list[float] = []

    def hear(delta: Delta) -> None:
        moments.append(time.monotonic())

    started = time.monotonic()
    try:
        reply = model.chat(request, hear)
    except AgentdError as error:
        return _replies_whole(model, able, found, error)
    found.latency = moments[0] - started
    streams = len(moments) > 1
    found.add("replies", True, f"the first piece after {found.latency:.2f} s")
    found.add("streams", streams, f"{len(moments)} pieces" if streams else "the reply comes in one piece")
    _measure(found, reply, moments[-1] - (moments[0] if streams else started))
    return True


def _replies_whole(model: RemoteModel, able: Abilities, found: Inspection, error: AgentdError) -> bool:
    """A server that cannot stream may do without."""
    able.streams = False
    try:
        reply = model.chat(_asking("Count from one to twenty in words.", 64))
    except AgentdError:
        able.streams = True
        return found.add("replies", False, _said(error))
    found.latency = reply.seconds
    found.add("replies", True, f"after {reply.seconds:.2f} s")
    found.add("streams", False, _said(error))
    _measure(found, reply, reply.seconds)
    return True


def _measure(found: Inspection, reply: ModelReply, seconds: float) -> None:
    if reply.completion_tokens > 1 and seconds > 0:
        found.speed = reply.completion_tokens / seconds


def _tools(model: RemoteModel, able: Abilities, found: Inspection) -> None:
    able.tools = True
    request = _asking("What is the weather in Paris? Use the tool.", 256)
    try:
        reply = model.chat(replace(request, tools=(_TOOL,), tool_choice="required"))
    except ModelError as error:
        able.tools = False
        found.add("tools", False, _said(error))
        return
    if not reply.tool_calls:  # it was cut off, so nothing is known
        found.add("tools", False, f"it had made no call after {reply.completion_tokens} tokens")
        return
    call = reply.tool_calls[0]
    found.add("tools", True, f"{call.name} {call.arguments}"[:200])


def _schema(model: RemoteModel, able: Abilities, found: Inspection) -> None:
    able.form = "json_schema"
    request = replace(_asking("Plan five days in Rome, as JSON.", 256), schema=_SCHEMA)
    tried: list[str] = []
    while able.form != "text":
        form = able.form
        try:
            reply = model.chat(request)
        except ModelError as error:
            tried.append(f"{form}: {error.message}")
            # What is refused moves on by itself; what fails otherwise is not asked in this form again.
            able.form = able.form if able.form != form else FORMS[FORMS.index(form) + 1]
            continue
        if not _holds(reply.text):
            tried.append(f"{form}: the reply was cut off")
            able.form = FORMS[FORMS.index(form) + 1]
            continue
        break
    found.form = able.form
    said = [f"by {able.form}"] if able.form != "text" else []
    found.add("json_schema", able.form == "json_schema", "; ".join([*said, *tried])[:400])


def _holds(text: str) -> bool:
    try:
        return not problems(json.loads(text), _SCHEMA)
    except ValueError:
        return False


def _asking(text: str, most: int) -> ModelRequest:
    return ModelRequest(messages=(Message(role="user", content=text),), max_tokens=most, timeout=_SECONDS)


def _said(error: AgentdError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def as_json(found: Inspection) -> dict[str, Any]:
    """For those who asked."""
    return {
        "server": found.server,
        "url": found.url,
        "ok": found.ok,
        "model": found.model,
        "models": found.models,
        "findings": [{"what": each.what, "ok": each.ok, "detail": each.detail} for each in found.findings],
        "latency": found.latency,
        "tokens_per_second": found.speed,
        "form": found.form,
    }
