"""`council`: ask six roles what they think, and see what their opinions come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from agentd.cli import output
from agentd.cli.options import Group, Invocation, command
from agentd.cli.reach import ensure_daemon
from agentd.cli.run import level_option, request_of, workspace_option

_SECONDS = 1800.0
_EXIT = {"accept": 0, "reject": 5, "revise": 6}

group = Group("council", help="Six roles give opinions; rules fold them to a verdict.")


@command("ask")
@click.argument("question", nargs=-1, required=True)
@workspace_option
@level_option
def ask(invocation: Invocation, question: tuple[str, ...], workspace: str, level: int | None) -> int:
    """Ask the council; nothing is done.

    QUESTION is what it is to judge, in words; - reads it from stdin. Exit code 0 for accept, 5 for reject, 6 for
    revise.
    """
    asked = request_of(question, workspace, level, what="question")
    body = {"question": asked["goal"], "workspace": asked["workspace"], "level": level}
    verdict = ensure_daemon(invocation).post("/api/council", body, timeout=_SECONDS)
    if invocation.json:
        output.data_json(verdict)
    else:
        output.data("\n".join(verdict_lines(verdict)))
    return _EXIT[verdict["decision"]]


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The opinions as a table, then the verdict and what is to be minded."""
    rows = [
        (each["role"], each["decision"], each["confidence"], output.one_line(each["because"], 300))
        for each in verdict["opinions"]
    ]
    rows += [(role, "-", "-", "no usable opinion") for role in verdict["absent"]]
    lines = [output.table(rows, ("ROLE", "DECISION", "SURE", "BECAUSE")), ""]
    lines.append(f"verdict    {verdict['decision']}: {output.one_line(verdict['because'], 1000)}")
    return [*lines, *(f"           - {output.one_line(line, 300)}" for line in verdict["checklist"])]


group.add_command(ask)
