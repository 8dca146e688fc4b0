"""Model calls of one task: limited, journalled, audited and counted."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeAlias

from agentd.agent.limits import Limits
from agentd.errors import BadReply
from agentd.events import EventKind
from agentd.security.scan import redact
from agentd.types import (
    Effect,
    JsonObject,
    Model,
    ModelProfile,
    ModelReply,
    ModelRequest,
    OnDelta,
    Priority,
    Scope,
    Score,
    Usage,
)

Record: TypeAlias = Callable[[str, str, JsonObject], Any]

LONGEST_REPLY = 150_000
"""Characters; as JSON of ASCII the journal can keep a reply of this size, whatever it consists of."""


class JournalledModel:
    """A `Model` whose replies are stored in the journal of a task, so that a restarted task hears the same words."""

    def __init__(
        self,
        model: Model,
        *,
        role: str,
        scope: Scope,
        limits: Limits,
        key: Callable[[], str],
        record: Record,
        emit: Record,
        cache: bool = True,
        redact: Callable[[str], str] = redact,
    ) -> None:
        self._model = model
        self._role = role
        self._scope = scope
        self._limits = limits
        self._key = key
        self._record = record
        self._emit = emit
        self._cache = cache
        self._redact = redact

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def profile(self) -> ModelProfile:
        return self._model.profile

    def count(self, text: str) -> int:
        return self._model.count(text)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return self._model.embed(texts)

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        self._limits.check()
        request = replace(
            request,
            client=self._scope.task,
            priority=request.priority if self._scope.origin.awaited else Priority.NIGHT,
            timeout=self._remaining(request.timeout),
            cache=self._cache and request.cache,
            messages=tuple(replace(each, content=self._redact(each.content)) for each in request.messages),
            prompt=request.prompt and self._redact(request.prompt),
            suffix=request.suffix and self._redact(request.suffix),
        )

        def do() -> JsonObject:
            return asdict(_kept(self._model.chat(request, on_delta, cancel or self._scope.cancel)))

        asked = request.prompt if request.prompt is not None else "\n".join(m.content for m in request.messages)
        reply = ModelReply(**self._once("chat", asked, do))
        self._count(reply.prompt_tokens, reply.completion_tokens, reply.seconds)
        return reply

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        self._limits.check()
        clean = [(self._redact(prefix), self._redact(text)) for prefix, text in pairs]

        def do() -> JsonObject:
            before = self._limits.seconds
            scores = self._model.score(clean, client=self._scope.task, cancel=cancel or self._scope.cancel)
            tokens = sum(score.tokens for score in scores)
            return {
                "scores": [[score.logprob, score.tokens] for score in scores],
                "model": self.name,
                "prompt_tokens": tokens,
                "completion_tokens": 0,
                "seconds": round(self._limits.seconds - before, 4),
                "text": "",
            }

        found = self._once("score", "\n".join(prefix + text for prefix, text in pairs), do)
        self._count(found["prompt_tokens"], 0, found["seconds"])
        return [Score(logprob=logprob, tokens=tokens) for logprob, tokens in found["scores"]]

    def _once(self, kind: str, asked: str, do: Callable[[], JsonObject]) -> JsonObject:
        task = self._scope.task

        def record(result: JsonObject) -> None:
            facts = {
                "role": self._role,
                "kind": kind,
                "model": result["model"],
                "prompt_tokens": result["prompt_tokens"],
                "completion_tokens": result["completion_tokens"],
                "seconds": round(result["seconds"], 4),
                "prompt_sha256": _sha256(asked),
                "reply_sha256": _sha256(result["text"]),
            }
            if result.get("cached"):
                facts["cached"] = True
            self._record("model.called", task, facts)
            self._emit(EventKind.MODEL_CALLED, task, {name: facts[name] for name in ("role", "model", "seconds")})

        return self._scope.journal.once(self._key(), Effect.PURE, do, record=record)

    def _count(self, prompt: int, completion: int, seconds: float) -> None:
        self._limits.spend(
            Usage(model_calls=1, prompt_tokens=prompt, completion_tokens=completion, model_seconds=seconds)
        )

    def _remaining(self, timeout: float) -> float:
        left = self._limits.deadline - (self._limits.started + self._limits.seconds)
        return max(1.0, min(timeout, left))


def _kept(reply: ModelReply) -> ModelReply:
    """The reply, if a journal can take it; a model that talks without end has said nothing."""
    size = len(reply.text) + len(reply.reasoning)
    if size > LONGEST_REPLY:
        raise BadReply(f"{reply.model} said {size:,} characters; the most is {LONGEST_REPLY:,}")
    return reply


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
