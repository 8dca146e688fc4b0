"""`policy`: the rules, what they say to a command, and why a task was allowed what it did."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click

from agentd.api.shapes import decision_json, rules_json
from agentd.cli import output
from agentd.cli.client import Client, endpoint, home_of
from agentd.cli.options import Group, Invocation, command
from agentd.config import load_settings
from agentd.errors import BadInput
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel

_EXIT = {"allow": 0, "deny": 5, "ask": 6}

group = Group("policy", help="The rules that decide what may be done.")


@command("show")
@click.option("--level", type=click.IntRange(0, 4), help="Only what holds at this level.")
def show(invocation: Invocation, level: int | None) -> None:
    """The levels and the rules, with their reasons and examples."""
    found = rules_json(PolicyEngine.load(home_of(invocation).policies_dir))
    if level is not None:
        found["rules"] = [rule for rule in found["rules"] if rule["levels"][0] <= level <= rule["levels"][1]]
    if invocation.json:
        output.data_json(found)
        return
    lines = [f"level {each['level']}  {each['name']}: {each['about']}" for each in found["levels"]]
    for rule in found["rules"]:
        lines += ["", *_rule_lines(rule)]
    output.data("\n".join(lines))


@command("check", context_settings={"ignore_unknown_options": True})
@click.argument("what", nargs=-1, required=True, metavar="COMMAND|ACTION|-")
@click.option("--level", type=click.IntRange(0, 4), help="Access level (else the configured one).")
def check(invocation: Invocation, what: tuple[str, ...], level: int | None) -> int:
    """What policy would say to a command ('git push --force') or an action (fs.write src/a.py).

    Needs no daemon. Exit code 0 for allow, 5 for deny, 6 for ask. With - every line of stdin is judged, each
    answered by one line of JSON, and the exit code is 0.
    """
    home = home_of(invocation)
    engine = PolicyEngine.load(home.policies_dir)
    used = AccessLevel(load_settings(home.home).policy.default_level if level is None else level)
    if what == ("-",):
        for line in sys.stdin:
            if line.strip():
                output.data_json(_judge_line(engine, line.rstrip("\n"), used))
        return 0
    judged = _judge(engine, what[0] if len(what) == 1 else shlex.join(what), used)
    if invocation.json:
        output.data_json(judged)
    else:
        output.data(f"{judged['decision']}: {judged['action']} at level {judged['level']} ({judged['rule']})")
        output.data(judged["because"])
    return _EXIT[judged["decision"]]


@command("explain")
@click.argument("task", metavar="TASK")
def explain(invocation: Invocation, task: str) -> None:
    """Every decision that was made in a task, with its rule and reason."""
    records = Client(endpoint(invocation)).get("/api/policy/explain", task=task)
    if invocation.json:
        output.data_json(records)
        return
    for record in records:
        output.data(output.harmless("\n".join(_decision_lines(record["data"]))))
    if not records and not invocation.quiet:
        output.note(f"task {task} has asked for nothing")


def _judge(engine: PolicyEngine, text: str, level: AccessLevel) -> dict[str, Any]:
    action = action_of(text)
    return decision_json(action, level, engine.decide(action, level=level))


def _judge_line(engine: PolicyEngine, line: str, level: AccessLevel) -> dict[str, Any]:
    """A line that is no command is denied, and does not keep the others from their answers."""
    try:
        return {"input": line} | _judge(engine, line, level)
    except BadInput as error:
        judged = {"action": "", "level": int(level), "decision": "deny", "rule": "malformed", "because": error.message}
        return {"input": line} | judged | {"risk": 90}


def _rule_lines(rule: Mapping[str, Any]) -> list[str]:
    lowest, highest = rule["levels"]
    where = f"level {lowest}" if lowest == highest else f"levels {lowest} to {highest}"
    what = " ".join(filter(None, (", ".join(rule["actions"]), rule["pattern"])))
    lines = [f"{rule['decision']:5}  {rule['id']}: {what}, {where}  [{rule['source']}]", f"       {rule['because']}"]
    return [*lines, *(f"       for example: {example}" for example in rule["examples"]["match"][:3])]


def _decision_lines(data: Mapping[str, Any]) -> list[str]:
    touched = ", ".join(data["actions"]) or "nothing"
    head = f"{data['decision']}: {data['tool']} ({touched}) at level {data['level']}"
    return [head, f"       rule {data['rule']}, risk {data['risk']}: {data['because']}"]


for each in (show, check, explain):
    group.add_command(each)
