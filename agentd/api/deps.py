"""What every endpoint may ask for, and the form of the bodies that it takes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict

from agentd.app import App


async def _app(request: Request) -> App:
    found: App = request.app.state.app
    return found


Core = Annotated[App, Depends(_app)]
"""The parts of the daemon."""


class Body(BaseModel):
    """The body of a request; fields that are not known are refused."""

    model_config = ConfigDict(extra="forbid")
