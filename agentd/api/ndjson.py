"""Long work as lines of JSON, each as it comes; whoever goes away stops the work."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeAlias

from fastapi import Request
from fastapi.responses import StreamingResponse

from agentd.errors import AgentdError
from agentd.telemetry import get_logger

MEDIA_TYPE = "application/x-ndjson"
PING_SECONDS = 10.0
"""A line is sent at least this often."""
_LOOK_SECONDS = 0.5

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]
Work: TypeAlias = Callable[[Tell, threading.Event], Mapping[str, Any]]
"""What is done, in a thread of its own: it tells events, heeds the event that cancels, and returns its result."""

log = get_logger(__name__)


def stream(request: Request, work: Work) -> StreamingResponse:
    """Each event of `work` on a line, without secrets; the last is `{"event": "done", ...}` with its result, or
    `{"error": {...}}`."""
    state = request.app.state
    lines = _lines(work, state.stopping, state.app.redactor.clean)
    return StreamingResponse(lines, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})


async def _lines(work: Work, stopping: threading.Event, clean: Callable[[Any], Any]) -> AsyncIterator[str]:
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Mapping[str, Any] | None]()
    cancel = threading.Event()

    def tell(event: Mapping[str, Any] | None) -> None:
        try:
            loop.call_soon_threadsafe(events.put_nowait, event)
        except RuntimeError:
            cancel.set()  # the loop has ended, and with it whoever listened

    threading.Thread(target=_run, args=(work, tell, cancel), name="work", daemon=True).start()
    try:
        silent = 0.0
        while True:
            try:
                event = await asyncio.wait_for(events.get(), _LOOK_SECONDS)
            except TimeoutError:
                silent += _LOOK_SECONDS
                if stopping.is_set():
                    cancel.set()
                if silent >= PING_SECONDS:
                    silent = 0.0
                    yield json.dumps({"event": "ping"}) + "\n"
                continue
            if event is None:
                return
            silent = 0.0
            yield json.dumps(clean(event)) + "\n"
    finally:
        cancel.set()


def _run(work: Work, tell: Callable[[Mapping[str, Any] | None], None], cancel: threading.Event) -> None:
    try:
        tell({"event": "done", **work(tell, cancel)})
    except AgentdError as error:
        tell({"error": error.as_json()})
    except Exception as error:
        log.error("work for a request failed", exc_info=error)
        words = f"internal error: {type(error).__name__}: {error}"
        tell({"error": {"code": "error", "message": words, "hint": "the daemon's log says more"}})
    finally:
        tell(None)
