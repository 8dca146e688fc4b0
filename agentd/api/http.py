"""The one HTTP application of the daemon, the same on its unix socket and its TCP port."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fastapi import FastAPI

from agentd import __version__
from agentd.api import (
    approvals,
    backends,
    cache,
    council,
    daemon,
    keys,
    models,
    parts,
    plugins,
    problems,
    secrets,
    settings,
    tasks,
    tool_server,
    websocket,
)
from agentd.api.limits import BodyLimit
from agentd.api.llama_server import routes as llama_server
from agentd.api.openai import routes as openai
from agentd.api.openai.bridge import Bridge
from agentd.api.request_id import RequestId
from agentd.api.sse import Ticker
from agentd.app import App


def create_app(app: App, *, shut_down: Callable[[], None] = lambda: None, url: str | None = None) -> FastAPI:
    """The application over `app`. `shut_down` is called to stop the daemon; `url` is its TCP address, if any.

    Whoever serves it starts and closes `api.state.ticker`, which wakes the event streams, and sets
    `api.state.stopping` to stop tool calls that run for a request.
    """
    api = FastAPI(
        title="agentd",
        version=__version__,
        description="Tasks, events, tools, models, policy and audit of one agentd.",
        docs_url=None,  # that page loads its scripts from elsewhere
        redoc_url=None,
    )
    api.state.app = app
    api.state.ticker = Ticker(app.bus)
    api.state.shut_down = shut_down
    api.state.bridge = Bridge(app.settings.api.requests_at_once)
    api.state.url = url
    api.state.started = app.clock.now()
    api.state.stopping = threading.Event()
    problems.install(api, app.redactor)
    api.add_middleware(BodyLimit)
    api.add_middleware(RequestId)
    for part in (
        tasks,
        approvals,
        parts,
        models,
        keys,
        backends,
        secrets,
        cache,
        council,
        daemon,
        settings,
        plugins,
        tool_server,
    ):
        api.include_router(part.router)
    api.include_router(daemon.v1)
    api.include_router(openai.router, prefix="/v1")
    api.include_router(llama_server.router)
    api.include_router(websocket.router)
    return api
