"""Probes a model after it was loaded for the first time, when nobody needs it, and on demand."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from agentd.backends import gguf_file
from agentd.backends.catalog import Catalog
from agentd.backends.probe import PATIENCE, Findings, Probe, Render, Tell
from agentd.backends.profiles import Profiles
from agentd.backends.router import RoutedModel, Router
from agentd.errors import AgentdError, Cancelled
from agentd.events import Bus, Event, EventKind
from agentd.telemetry import get_logger

_IDLE = 5.0
"""Seconds after a load before its model is probed: what it was loaded for comes first."""
_STOPPED = Event(id=0, at=0.0, kind="", task="")
"""Wakes the thread that listens."""
_GIVING_WAY = 10.0
"""Seconds that an unasked probe has to end."""

log = get_logger(__name__)


@dataclass(kw_only=True)
class _Unasked:
    """A probe that was begun because a model was loaded."""

    name: str
    cancel: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(kw_only=True)
class Prober:
    catalog: Callable[[], Catalog]
    models: Router
    profiles: Profiles
    bus: Bus
    enabled: Callable[[], bool] = lambda: True
    idle: float = _IDLE
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _published: queue.Queue[Event] | None = None
    _unasked: _Unasked | None = None

    def probe(
        self,
        name: str,
        *,
        tell: Tell = lambda words: None,
        cancel: threading.Event | None = None,
        patience: float = PATIENCE,
    ) -> Findings:
        """Ask the model, and keep what was found. Raises `NotFound`, `ModelError`, `Cancelled`."""
        entry = self.catalog().entry(name)
        path = entry.available
        local = path is not None and entry.backend == "llama_cpp"
        model = self.models.named(entry.name)
        probe = Probe(
            model,
            render=_render(model) if local else None,
            template=gguf_file.read(path).chat_template if path is not None and local else None,
            stop_tokens=model.stats().get("stop_tokens", ()) if local else (),
            tell=tell,
            cancel=cancel,
            patience=patience,
        )
        found = probe.run()
        self.profiles.put(entry, found)
        return found

    def start(self) -> None:
        """Watch for models that are loaded for the first time."""
        self._thread = threading.Thread(target=self._watch, name="probes", daemon=True)
        self._thread.start()

    def give_way(self, name: str) -> None:
        """End a probe of this model that nobody asked for; the next load begins it anew."""
        unasked = self._unasked
        if unasked is not None and unasked.name == name:
            unasked.cancel.set()
            unasked.ended.wait(_GIVING_WAY)

    def stop(self) -> None:
        self._stopped.set()
        if (unasked := self._unasked) is not None:
            unasked.cancel.set()
        if (published := self._published) is not None:
            with suppress(queue.Full):
                published.put_nowait(_STOPPED)
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with self.bus.listen() as published:
            self._published = published
            while not self._stopped.is_set():
                event = published.get()
                if event.kind == EventKind.MODEL_LOADED and self.enabled():
                    self._on_load(event)

    def _on_load(self, event: Event) -> None:
        """A probe that fails is tried again at the next load."""
        name = str(event.data.get("model", ""))
        unasked = self._unasked = _Unasked(name=name)
        try:
            if not self._is_new(name) or self._stopped.is_set() or unasked.cancel.wait(self.idle):
                return
            if all(each["model"] != name for each in self.models.loaded()):
                return  # gone meanwhile, and not to be loaded for this
            found = self.probe(name, cancel=unasked.cancel)
            log.info(
                "a model was probed", model=name, dialect=found.dialect, calls=found.parse_rate, took=found.seconds
            )
        except Cancelled:
            pass  # the daemon stops, or somebody needs the model
        except AgentdError as error:
            log.warning("a model could not be probed", model=name, why=error.message)
        finally:
            self._unasked = None
            unasked.ended.set()

    def _is_new(self, name: str) -> bool:
        """A compact model is spoken to in a way of its own, of which a probe would say nothing."""
        entry = self.catalog().models.get(name)
        if entry is None or entry.backend != "llama_cpp" or entry.profile.compact or entry.embedding:
            return False
        return self.profiles.get(entry) is None


def _render(model: RoutedModel) -> Render:
    return lambda messages, tools: model.render(messages, tools=tools)
