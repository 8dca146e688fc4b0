"""Puts what a followed task waits for to the person at the terminal, and passes their answer on."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from agentd.cli import output
from agentd.cli.client import Client
from agentd.cli.inbox import described, post, shown_lines, wanted
from agentd.cli.options import Invocation
from agentd.errors import Conflict


def settle(invocation: Invocation, client: Client, task_id: str) -> bool:
    """Whether the task goes on: with --yes by itself, else when somebody answered here (or elsewhere meanwhile)."""
    entry = next((each for each in client.get("/api/inbox") if each["task"] == task_id), None)
    if entry is None:
        return bool(client.task(task_id)["state"] != "waiting")
    request = entry["request"]
    if request is None:
        return False
    body = {"request": request["id"]}
    try:
        if invocation.yes and request["kind"] != "question":
            post(client, task_id, "approve", body)
            if not invocation.quiet:
                output.note(f"approved (--yes): {output.one_line(', '.join(request['actions']) or request['kind'])}")
            return True
        # Not answered here is not unanswered: somebody else may have, while it was asked.
        here = may_ask(invocation) and not invocation.json and _asked(client, entry, body)
        return here or client.task(task_id)["state"] != "waiting"
    except Conflict as error:
        output.note(f"{error.message}")
        return True


def agreed(invocation: Invocation, request: Mapping[str, Any]) -> bool:
    """Whether what a call by hand asks for is approved: with --yes by itself, else by the person at the terminal."""
    if invocation.yes:
        if not invocation.quiet:
            output.note(f"approved (--yes): {output.one_line(', '.join(request['actions']))}")
        return True
    if invocation.json or not may_ask(invocation):
        return False
    output.note("\n".join(["", *wanted(request), *(f"  | {line}" for line in shown_lines(request))]))
    try:
        return _prompt("Do that? [y]es, [n]o").strip().lower()[:1] == "y"
    except (click.Abort, KeyboardInterrupt):
        output.note("")
        return False


def may_ask(invocation: Invocation) -> bool:
    """Whether somebody is there who can be asked."""
    return not (invocation.no_input or invocation.yes) and sys.stdin.isatty() and sys.stderr.isatty()


def _asked(client: Client, entry: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    output.note("\n".join(["", *described(entry)]))
    try:
        if entry["request"]["kind"] == "question":
            return _told(client, entry["task"], body)
        return _decided(client, entry, body)
    except (click.Abort, KeyboardInterrupt):
        output.note("")
        return False


def _told(client: Client, task_id: str, body: Mapping[str, Any]) -> bool:
    text = _prompt("Your answer (empty: later)").strip()
    if text:
        post(client, task_id, "answer", {**body, "text": text})
    return bool(text)


def _decided(client: Client, entry: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    task_id, hunks = entry["task"], entry["request"]["hunks"]
    some = ", [h]unks" if hunks > 1 else ""
    while True:
        word = _prompt(f"Let it do that? [y]es, [n]o{some}, [l]ater, [a]bort").strip().lower()[:1]
        if word == "y":
            post(client, task_id, "approve", body)
            return True
        if word == "n":
            because = _prompt("Why not? The model reads it").strip() or "the owner does not want this"
            post(client, task_id, "reject", {**body, "because": because})
            return True
        if word == "h" and hunks > 1:
            numbers = [int(number) for number in re.findall(r"\d+", _prompt(f"Which of 1 to {hunks}?"))]
            if numbers and all(1 <= number <= hunks for number in numbers):
                post(client, task_id, "approve", {**body, "hunks": numbers})
                return True
        if word == "l":
            return False
        if word == "a":
            client.post(f"/api/tasks/{task_id}/cancel")
            return True


def _prompt(question: str) -> str:
    return str(click.prompt(question, default="", show_default=False, prompt_suffix=" ", err=True))
