"""What every endpoint may ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from agentd.app import App


async def _app(request: Request) -> App:
    found: App = request.app.state.app
    return found


Core = Annotated[App, Depends(_app)]
"""The parts of the daemon."""
