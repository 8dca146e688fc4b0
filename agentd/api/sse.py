"""Events as a stream that can be taken up again: read from the log, woken by the bus."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict

from starlette.concurrency import run_in_threadpool

from agentd.app import App
from agentd.events import Bus, Event, EventKind

BATCH = 500
PING_SECONDS = 15.0
"""A comment is sent this often, so that both sides notice when the other has gone."""
_LISTEN_SECONDS = 0.5


class Ticker:
    """Wakes waiting streams when an event is published; one thread for all of them."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="events", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """End every stream. From the loop's thread."""
        self._closed.set()
        self._wake()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def wait(self, woken: asyncio.Event, seconds: float) -> bool:
        """Wait for `woken`, which was `add`ed; False when the time is over."""
        try:
            await asyncio.wait_for(woken.wait(), seconds)
        except TimeoutError:
            return False
        woken.clear()
        return True

    def add(self) -> asyncio.Event:
        woken = asyncio.Event()
        self._waiting.add(woken)
        return woken

    def remove(self, woken: asyncio.Event) -> None:
        self._waiting.discard(woken)

    def _listen(self) -> None:
        with self._bus.listen() as published:
            while not self.closed:
                try:
                    published.get(timeout=_LISTEN_SECONDS)
                except queue.Empty:
                    continue
                _drain(published)
                self._tell_loop()

    def _tell_loop(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            self._closed.set()  # the loop has ended, and with it every stream

    def _wake(self) -> None:
        for woken in self._waiting:
            woken.set()


async def stream(app: App, ticker: Ticker, *, last: int, task: str | None, follow: bool) -> AsyncIterator[str]:
    """Events after `last` in the form of server-sent events, then `event: end` when nothing more can come.

    A stream of one task ends with the task; every stream ends, without that mark, when the daemon stops.
    """
    woken = ticker.add()
    try:
        while not ticker.closed:
            # Asked before the log is read: what ends the task after this question is read in the next round.
            over = not follow or (task is not None and await run_in_threadpool(_has_ended, app, task))
            events = await run_in_threadpool(app.events.since, last, task, BATCH)
            for event in events:
                last = event.id
                yield _frame(event)
            if len(events) == BATCH:
                continue
            if over or any(_ends(event, task) for event in events):
                yield "event: end\ndata: {}\n\n"
                return
            if not await ticker.wait(woken, PING_SECONDS):
                yield ": still here\n\n"
    finally:
        ticker.remove(woken)


def _has_ended(app: App, task: str) -> bool:
    return app.queue.get(task).state.ended


def _ends(event: Event, task: str | None) -> bool:
    return task is not None and event.kind == EventKind.TASK_FINISHED


def _frame(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(asdict(event), default=str)}\n\n"


def _drain(published: queue.Queue[Event]) -> None:
    """One look at the log serves all that has come meanwhile."""
    while True:
        try:
            published.get_nowait()
        except queue.Empty:
            return
