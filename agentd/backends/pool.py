"""The models in memory: loaded at the first request, as many as fit; the one that is missed least goes first."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from agentd.backends import devices, fit, gguf_file
from agentd.backends.catalog import Catalog, ModelEntry
from agentd.backends.devices import Devices
from agentd.backends.fit import LoadPlan, Wanted
from agentd.backends.llama_cpp import LlamaModel
from agentd.backends.scripted import ScriptedModel
from agentd.backends.shape import Shape
from agentd.config import ModelSettings
from agentd.errors import Cancelled, Conflict, ModelError, ModelMissing, NotFound, NotServed, OutOfMemory, TooSlow
from agentd.events import EventKind
from agentd.home import make_private
from agentd.telemetry import get_logger
from agentd.types import Emit, JsonObject, Message, Model, ModelProfile, ModelReply, ModelRequest, OnDelta, Score

Running: TypeAlias = LlamaModel | ScriptedModel

_POLL = 0.05
_PATIENCE = 600.0
"""Seconds that a request without a time limit of its own waits for another model to be done."""
_FORGOTTEN = 600.0
"""Seconds after which a use counts half."""

log = get_logger("agentd.backends")


@dataclass
class _Resident:
    """A model in memory, or about to be. Read and changed under the pool's lock only."""

    entry: ModelEntry
    model: LlamaModel
    plan: LoadPlan
    users: int = 0
    heat: float = 0.0
    """Uses, the old ones counting less."""
    touched: float = field(default_factory=time.monotonic)

    def touch(self, now: float) -> None:
        self.heat = self._heat(now) + 1.0
        self.touched = now

    def value(self, now: float) -> float:
        """What it would cost to let it go: seconds to load it again, times how much it is used."""
        return max(self.model.load_seconds, 0.1) * self._heat(now)

    @property
    def settled(self) -> bool:
        """Whether it is loaded, so that what it takes can be seen from outside."""
        return self.model.pid is not None and self.model.plan is not None

    def _heat(self, now: float) -> float:
        return self.heat * float(0.5 ** ((now - self.touched) / _FORGOTTEN))


class Pool:
    """The local models of a catalog, which may change while it is used. Safe to use from several threads.

    `states`: a folder of its own, for what models remember while they are not loaded; without it they forget.
    """

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        settings: Callable[[], ModelSettings],
        *,
        emit: Emit | None = None,
        states: Path | None = None,
        devices: Callable[[], Devices] = devices.here,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._emit = emit
        self._states = states
        self._devices = devices
        self._now = now
        self._changed = threading.Condition()
        self._residents: dict[str, _Resident] = {}
        self._queue: list[object] = []
        """Requests that wait for room, the oldest first."""
        self._scripted: dict[str, ScriptedModel] = {}
        self._cleared = False
        self._closed = False

    def named(self, name: str) -> Model:
        """A model by its name or as the path of a GGUF file. Raises `NotFound`."""
        return PooledModel(self, self._catalog().entry(name).name)

    def profile(self, name: str) -> ModelProfile:
        """With the context that it was loaded with, where the catalog leaves that to what fits. Raises `NotFound`."""
        return self._profile(self._catalog().entry(name))

    def load(self, name: str, *, timeout: float = _PATIENCE, cancel: threading.Event | None = None) -> dict[str, Any]:
        """Load a model now; its row of `describe`. Raises `NotFound`, `ModelError`, `Cancelled`."""
        with self.lease(name, timeout=timeout, cancel=cancel) as model:
            if isinstance(model, LlamaModel):
                model.start()
        return self._row(self._catalog().entry(name))

    def unload(self, name: str) -> None:
        """Give a model's memory back. Raises `NotFound` when it is not loaded, `Conflict` while requests use it."""
        with self._changed:
            resident = self._residents.get(name)
            if resident is None:
                loaded = ", ".join(self._residents) or "none"
                raise NotFound(f"model {name!r} is not loaded", hint=f"loaded is {loaded}")
            if resident.users:
                raise Conflict(f"model {name!r} is in use", hint="wait for its requests, or cancel them")
            del self._residents[name]
        resident.model.close()

    def loaded(self) -> list[dict[str, Any]]:
        """What is in memory: `model`, `pid`, `busy`, `waiting`; the one that is missed least first."""
        with self._changed:
            now = self._now()
            return [
                {
                    "model": name,
                    "pid": resident.model.pid,
                    "busy": resident.users > 0,
                    "requests": resident.users,
                    "waiting": resident.model.waiting,
                }
                for name, resident in sorted(self._residents.items(), key=lambda item: item[1].value(now))
                if resident.model.pid is not None
            ]

    def describe(self) -> list[dict[str, Any]]:
        """Every model of the catalog, and what was loaded besides: `name`, `roles`, `backend`, `file`, `state` (loaded,
        available, missing), `size` in bytes, `quantisation`, `context` in tokens, `compact`, `requantise`, `pid`, and
        `plan`: how it is loaded or would be now, or `problem`: why it cannot be."""
        catalog = self._catalog()
        with self._changed:
            beside = [resident.entry for name, resident in self._residents.items() if name not in catalog.models]
        return [self._row(entry) for entry in (*catalog.models.values(), *beside)]

    def close(self) -> None:
        """End every model's process; requests that run fail, later ones are refused."""
        with self._changed:
            self._closed = True
            residents = list(self._residents.values())
            self._residents.clear()
            self._changed.notify_all()
        for resident in residents:
            resident.model.close()
        if self._states is not None and self._cleared:
            shutil.rmtree(self._states, ignore_errors=True)

    @contextmanager
    def lease(self, name: str, *, timeout: float, cancel: threading.Event | None) -> Iterator[Running]:
        """The model, held in memory while the block runs. Raises `NotFound`, `ModelError`, `Cancelled`."""
        entry = self._catalog().entry(name)
        if entry.backend == "scripted":
            yield self._script(entry)
            return
        resident = self._hold(entry, time.monotonic() + timeout, cancel)
        try:
            yield resident.model
        finally:
            with self._changed:
                resident.users -= 1
                self._changed.notify_all()

    # room ------------------------------------------------------------------------------------------------------------

    def _hold(self, entry: ModelEntry, deadline: float, cancel: threading.Event | None) -> _Resident:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            while True:
                leaving: list[LlamaModel] = []
                with self._changed:
                    resident = self._admit(entry, ticket, leaving)
                    if resident is not None:
                        resident.users += 1
                        resident.touch(self._now())
                        return resident
                    if not leaving:
                        self._be_patient(entry, deadline, cancel)
                for model in leaving:  # not under the lock: it may take seconds to write down what it remembers
                    model.stop()
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _be_patient(self, entry: ModelEntry, deadline: float, cancel: threading.Event | None) -> None:
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"the request to {entry.name} was cancelled")
        if time.monotonic() >= deadline:
            busy = ", ".join(self._residents)
            raise TooSlow(
                f"there was no room in memory for {entry.name}: {busy} had requests all the time",
                hint="raise models.max_loaded, or allow more time",
            )
        self._changed.wait(_POLL)

    def _admit(self, entry: ModelEntry, ticket: object, leaving: list[LlamaModel]) -> _Resident | None:
        """The model, in memory or with room for it; None while it has to wait, for those that are `leaving` too. In the
        order of arrival, so that a busy model cannot keep the others out for ever."""
        if self._closed:
            raise ModelError("the models are being put away: the daemon stops", hint="start the daemon again")
        if self._queue[0] is not ticket:
            return None
        resident = self._residents.get(entry.name)
        if resident is not None and resident.entry == entry:
            return resident
        if resident is not None:  # its entry in the catalog is another now
            if not resident.users:
                leaving.append(self._let_go(resident))
            return None
        return self._room_for(entry, leaving)

    def _room_for(self, entry: ModelEntry, leaving: list[LlamaModel]) -> _Resident | None:
        """Lets in a model that is not in memory, if there is room beside the others."""
        shape = self._shape(entry)
        plan = self._plan_beside(entry, shape)
        if plan is None:
            idle = [resident for resident in self._residents.values() if not resident.users]
            if idle:
                now = self._now()
                leaving.append(self._let_go(min(idle, key=lambda resident: resident.value(now))))
                return None
            if self._residents:
                return None
            plan = fit.plan(shape, self._free(), self._wanted(entry))  # says why it does not fit
        resident = self._residents[entry.name] = _Resident(entry, self._make(entry), plan, touched=self._now())
        return resident

    def _plan_beside(self, entry: ModelEntry, shape: Shape) -> LoadPlan | None:
        """How it would be loaded beside the others; None when that is not worth it, or there are enough of them."""
        most = self._settings().max_loaded
        if 0 < most <= len(self._residents):
            return None
        try:
            plan = fit.plan(shape, self._free(), self._wanted(entry))
        except OutOfMemory:
            return None
        idle = [resident for resident in self._residents.values() if not resident.users]
        if not idle:
            return plan
        ram, vram = (
            sum(resident.plan.ram_bytes for resident in idle),
            sum(resident.plan.vram_bytes for resident in idle),
        )
        alone = fit.plan(shape, self._free().without(ram=-ram, vram=-vram), self._wanted(entry))
        same = (plan.context, plan.gpu_layers, plan.kv_type) == (alone.context, alone.gpu_layers, alone.kv_type)
        return plan if same else None

    def _let_go(self, resident: _Resident) -> LlamaModel:
        del self._residents[resident.entry.name]
        log.info("model leaves memory", model=resident.entry.name)
        return resident.model

    def _free(self, but: str = "") -> Devices:
        """What is free for one more model; `but`: as if the model of this name were not there.

        The system counts the files of loaded models as free memory, and knows nothing of those about to be loaded.
        """
        with self._changed:
            others = [resident for name, resident in self._residents.items() if name != but]
            pids = [resident.model.pid for resident in others if resident.settled]
            coming = [resident.plan for resident in others if not resident.settled]
        ram = devices.mapped(pid for pid in pids if pid is not None) + sum(plan.ram_bytes for plan in coming)
        return self._devices().without(ram=ram, vram=sum(plan.vram_bytes for plan in coming))

    # one model -------------------------------------------------------------------------------------------------------

    def _make(self, entry: ModelEntry) -> LlamaModel:
        return LlamaModel(
            _file(entry),
            name=entry.name,
            profile=entry.profile,
            wanted=self._wanted(entry),
            devices=lambda: self._free(but=entry.name),
            loras=entry.loras,
            requantise=entry.requantise,
            cache=entry.cache,
            embedding=entry.embedding,
            states=self._memory(entry),
            tell=self._announce,
        )

    def _wanted(self, entry: ModelEntry) -> Wanted:
        return Wanted.of(entry, threads=self._settings().threads)

    def _shape(self, entry: ModelEntry) -> Shape:
        path = _file(entry)
        try:
            found = path.stat()
        except OSError:
            return gguf_file.read(path).shape  # says what is wrong
        return _read_shape(path, found.st_mtime_ns, found.st_size)

    def _memory(self, entry: ModelEntry) -> Path | None:
        """The file in which the model remembers; another one when its entry changes."""
        if self._states is None:
            return None
        if not self._cleared:  # what a daemon left that was killed
            shutil.rmtree(self._states, ignore_errors=True)
            self._cleared = True
        make_private(self._states)
        return self._states / f"{hashlib.sha256(repr(entry).encode()).hexdigest()[:16]}.states"

    def _announce(self, kind: EventKind, facts: JsonObject) -> None:
        if self._emit is not None:
            self._emit(kind, "", facts)

    def _script(self, entry: ModelEntry) -> ScriptedModel:
        with self._changed:
            if entry.name not in self._scripted:
                assert entry.file is not None
                self._scripted[entry.name] = ScriptedModel.from_file(entry.file, name=entry.name, profile=entry.profile)
            return self._scripted[entry.name]

    def _row(self, entry: ModelEntry) -> dict[str, Any]:
        path = entry.available
        with self._changed:
            resident = self._residents.get(entry.name)
        pid = resident.model.pid if resident is not None else None
        row = {
            "name": entry.name,
            "roles": [role for role, names in self._catalog().roles.items() if entry.name in names],
            "backend": entry.backend,
            "file": str(path) if path is not None else entry.source,
            "state": "loaded" if pid is not None else "available" if path is not None else "missing",
            "size": _size(path),
            "context": self._profile(entry).context,
            "compact": entry.profile.compact,
            "requantise": entry.requantise,
            "pid": pid,
        }
        return row | (self._outlook(entry, resident) if entry.backend == "llama_cpp" and path is not None else {})

    def _profile(self, entry: ModelEntry) -> ModelProfile:
        with self._changed:
            resident = self._residents.get(entry.name)
        plan = resident.model.plan if resident is not None else None
        if plan is None or entry.context is not None:
            return entry.profile
        return replace(entry.profile, context=plan.context)

    def _outlook(self, entry: ModelEntry, resident: _Resident | None) -> dict[str, Any]:
        try:
            shape = self._shape(entry)
            plan = resident.model.plan if resident is not None else None
            plan = plan or fit.plan(shape, self._free(but=entry.name), self._wanted(entry))
        except ModelError as error:
            return {"problem": error.message}
        return {"quantisation": shape.quantisation, "plan": plan.describe()}


@lru_cache(maxsize=64)
def _read_shape(path: Path, changed: int, size: int) -> Shape:
    """`changed` and `size` tell one state of the file from the next."""
    return gguf_file.read(path).shape


def _size(path: Path | None) -> int | None:
    try:
        return None if path is None else sum(part.stat().st_size for part in gguf_file.parts_of(path))
    except (OSError, ModelError):
        return None  # it went while it was looked at, or part of it is missing


def _file(entry: ModelEntry) -> Path:
    path = entry.available
    if path is None:
        raise ModelMissing(
            f"model {entry.name} is not there: {entry.source}", hint="put the file there, or choose another model"
        )
    return path


class PooledModel:
    """A model of the pool; it is in memory while a request of it runs, and as long after as nobody needs the room."""

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def profile(self) -> ModelProfile:
        return self._pool.profile(self._name)

    def chat(
        self,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        cancel: threading.Event | None = None,
    ) -> ModelReply:
        with self._pool.lease(self._name, timeout=request.timeout, cancel=cancel) as model:
            return model.chat(request, on_delta, cancel)

    def score(
        self, pairs: Sequence[tuple[str, str]], *, client: str = "", cancel: threading.Event | None = None
    ) -> list[Score]:
        with self._pool.lease(self._name, timeout=_PATIENCE, cancel=cancel) as model:
            return model.score(pairs, client=client, cancel=cancel)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        with self._pool.lease(self._name, timeout=_PATIENCE, cancel=None) as model:
            return model.embed(texts)

    def count(self, text: str) -> int:
        with self._pool.lease(self._name, timeout=_PATIENCE, cancel=None) as model:
            return model.count(text)

    def tokenize(self, text: str, *, special: bool = False, controls: bool = False) -> dict[str, Any]:
        with self._llama() as model:
            return model.tokenize(text, special=special, controls=controls)

    def detokenize(self, tokens: Sequence[int]) -> str:
        with self._llama() as model:
            return model.detokenize(tokens)

    def render(self, messages: Sequence[Message], *, tools: Sequence[JsonObject] = (), think: bool = False) -> str:
        with self._llama() as model:
            return model.render(messages, tools=tools, think=think)

    def stats(self) -> dict[str, Any]:
        with self._llama() as model:
            return model.stats()

    @contextmanager
    def _llama(self) -> Iterator[LlamaModel]:
        with self._pool.lease(self._name, timeout=_PATIENCE, cancel=None) as model:
            if not isinstance(model, LlamaModel):
                raise NotServed(f"{self._name} is a scripted model and has no tokens", hint="ask another model")
            yield model
