"""Endpoints of the daemon itself: status, backup, shutdown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from agentd import __version__
from agentd.api.deps import Body, Core
from agentd.api.models import problem
from agentd.errors import BadInput

router = APIRouter(prefix="/api", tags=["daemon"])
v1 = APIRouter(prefix="/v1", tags=["daemon"])


class BackupBody(Body):
    path: str


@v1.get("/status")
@router.get("/status")
def status(core: Core, request: Request) -> dict[str, Any]:
    """Process, home, addresses, tasks in each state, the models in memory, what is wrong with the catalog; and the
    `servers` of models, `stand_ins`, `drafts` and `cache` of `Router.status`."""
    started: float = request.app.state.started
    return {
        "pid": os.getpid(),
        "version": __version__,
        "home": str(core.settings.home),
        "socket": str(core.settings.socket_path),
        "url": request.app.state.url,
        "started": started,
        "uptime": round(core.clock.now() - started, 3),
        "queue": core.queue.counts(),
        "running": core.worker.running(),
        "models": core.models.loaded(),
        **core.models.status(),
        "catalog_problem": problem(core),
    }


@router.post("/backup")
def backup(core: Core, body: BackupBody) -> dict[str, Any]:
    """Copy the database to a new file on the daemon's machine."""
    target = Path(body.path)
    if not target.is_absolute():
        raise BadInput(f"the path {body.path!r} is not absolute", hint="give the whole path of the new file")
    core.db.backup(target)
    return {"path": str(target), "bytes": target.stat().st_size}


@router.post("/shutdown", status_code=202)
def shutdown(request: Request) -> dict[str, Any]:
    """Stop the daemon; what runs goes on at its next start."""
    request.app.state.shut_down()
    return {"stopping": True, "pid": os.getpid()}
