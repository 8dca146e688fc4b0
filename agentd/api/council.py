"""The endpoint of the council: a question, six opinions and what they come to; nothing is done."""

from __future__ import annotations

import secrets
from itertools import islice

from fastapi import APIRouter, Request
from pydantic import Field

from agentd.agent.calls import JournalledModel
from agentd.agent.council import FILES_SHOWN, LONGEST_SUBJECT, SEAT, Matter, Minutes, convene, no_council
from agentd.agent.limits import Limits
from agentd.api.deps import Body, Core
from agentd.api.direct import DirectJournal, level_of
from agentd.errors import BadInput, ModelMissing
from agentd.tasks.request import accepted_workspace
from agentd.types import AccessLevel, Budget, Scope, Verdict

router = APIRouter(prefix="/api", tags=["council"])


class Question(Body):
    """What the council is asked, about this folder; `level` is what whoever does it may do, None the configured one."""

    question: str = Field(max_length=LONGEST_SUBJECT)
    workspace: str
    level: AccessLevel | None = None


@router.post("/council")
def ask_council(core: Core, request: Request, body: Question) -> Verdict:
    """Opinions and verdict. Nothing is read but the names of the files, and nothing is written but the audit log."""
    if not body.question.strip():
        raise BadInput("the question is empty", hint="say in words what the council is to judge")
    workspace = accepted_workspace(body.workspace)
    level = level_of(core, body.level)
    try:
        seat = core.models.for_role(SEAT, compact=False)
    except ModelMissing as error:
        raise no_council(error.message) from None
    cancel = request.app.state.stopping
    journal = DirectJournal()
    scope = Scope(task="", workspace=str(workspace.root), level=level, journal=journal, cancel=cancel)
    limits = Limits(Budget(), clock=core.clock, cancel=cancel)
    record, emit = core.audit.record, core.events.emit
    matter = Matter(
        about="question",
        goal=body.question,
        subject="",
        workspace=workspace.root.name,
        files=list(islice(workspace.files(), FILES_SHOWN)),
        tools=list(core.tools),
        level=level,
    )
    return convene(
        matter,
        Minutes(task="", key=f"council-{secrets.token_hex(8)}", journal=journal, record=record, emit=emit),
        lambda key: JournalledModel(
            seat,
            role=SEAT,
            scope=scope,
            limits=limits,
            key=key,
            record=record,
            emit=emit,
            redact=core.redactor,
        ),
    )
