"""`policy`: the rules, what they say to a command, and why a task was allowed what it did."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from agentd.api.shapes import judged_json, policy_of, rules_json
from agentd.cli import output
from agentd.cli.client import Client, endpoint, home_of
from agentd.cli.options import Group, Invocation, command
from agentd.cli.policy_test import failures, read_cases
from agentd.config import load_settings
from agentd.errors import BadInput, PolicyError
from agentd.policy.commands import action_of
from agentd.policy.engine import PolicyEngine
from agentd.types import AccessLevel
from agentd.workspace.paths import Workspace

_EXIT = {"allow": 0, "deny": 5, "ask": 6}
_LONGEST = 200_000
"""Bytes of a line that is judged; what is longer is no command."""
_SHOWN = 1_000
"""Characters of it that are said back when it is longer."""

_workspace = click.option("-w", "--workspace", metavar="DIR", help="A project whose own policy counts too.")

group = Group("policy", help="The rules that decide what may be done.")


@command("show")
@click.option("--level", type=click.IntRange(0, 4), help="Only what holds at this level.")
@_workspace
def show(invocation: Invocation, level: int | None, workspace: str | None) -> None:
    """The levels and the rules, with their reasons and examples."""
    found = rules_json(policy_of(PolicyEngine.load(home_of(invocation).policies_dir), _root(workspace)))
    if level is not None:
        found["rules"] = [rule for rule in found["rules"] if rule["levels"][0] <= level <= rule["levels"][1]]
    if invocation.json:
        output.data_json(found)
        return
    lines = [f"level {each['level']}  {each['name']}: {each['about']}" for each in found["levels"]]
    if found["max_level"] < max(AccessLevel):
        lines.append(f"this project takes no task above level {found['max_level']}")
    for rule in found["rules"]:
        lines += ["", *_rule_lines(rule)]
    output.data("\n".join(lines))


@command("check", context_settings={"ignore_unknown_options": True})
@click.argument("what", nargs=-1, required=True, metavar="COMMAND|ACTION|-")
@click.option("--level", type=click.IntRange(0, 4), help="Access level (else the configured one).")
@click.option("--taint", is_flag=True, help="As for a task that has read what others wrote.")
@_workspace
def check(invocation: Invocation, what: tuple[str, ...], level: int | None, taint: bool, workspace: str | None) -> int:
    """What policy would say to a command ('git push --force') or an action (fs.write src/a.py).

    Needs no daemon. Exit code 0 for allow, 5 for deny, 6 for ask. With - every line of stdin is judged, each
    answered by one line of JSON, those that are no command too, and the exit code is 0.
    """
    home = home_of(invocation)
    engine = PolicyEngine.load(home.policies_dir)
    used = AccessLevel(load_settings(home.home).policy.default_level if level is None else level)
    root = _root(workspace)
    judge = partial(judged_json, policy_of(engine, root), level=used, workspace=str(root or ""), tainted=taint)
    if what == ("-",):
        for line, wrong in _lines(sys.stdin.buffer):
            output.data_json({"input": line} | (_malformed(wrong, used) if wrong else _judge_line(judge, line, used)))
        return 0
    judged = judge(action=action_of(what[0] if len(what) == 1 else shlex.join(what)))
    if invocation.json:
        output.data_json(judged)
    else:
        output.data(f"{judged['decision']}: {judged['action']} at level {judged['level']} ({judged['rule']})")
        output.data(judged["because"])
    return _EXIT[judged["decision"]]


@command("explain")
@click.argument("task", metavar="TASK")
@click.argument("step", type=click.IntRange(1), required=False, metavar="[STEP]")
def explain(invocation: Invocation, task: str, step: int | None) -> None:
    """Every decision that was made in a task, or in one step of it: rule, reason, risk and what a person answered."""
    asked = {} if step is None else {"step": str(step)}
    records = Client(endpoint(invocation)).get("/api/policy/explain", task=task, **asked)
    if invocation.json:
        output.data_json(records)
        return
    for record in records:
        output.data(output.harmless("\n".join(_decision_lines(record["data"]))))
    if not records and not invocation.quiet:
        where = f"task {task}" if step is None else f"step {step} of task {task}"
        output.note(f"{where} has asked for nothing")


@command("test")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@_workspace
def test(invocation: Invocation, file: Path | None, workspace: str | None) -> int:
    """Whether all rules fit their own examples, and the cases of FILE are decided as they expect.

    A case is a line: LEVEL DECISION COMMAND, as in `2 deny git push`, where it needs them with --taint or
    --workspace=DIR before the command. Exit code 1 when any fails. Needs no daemon.
    """
    cases = read_cases(file) if file is not None else []
    try:
        home, root = PolicyEngine.load(home_of(invocation).policies_dir), _root(workspace)
        engine, failed = policy_of(home, root), list(failures(home, cases, root))
    except (PolicyError, BadInput) as error:  # the examples are looked at whenever rules are read
        engine, failed = PolicyEngine((), ()), [str(error)]
    examples = sum(len(rule.examples) + len(rule.counterexamples) for rule in engine.rules)
    if invocation.json:
        output.data_json({"examples": examples, "cases": len(cases), "failed": failed})
    else:
        output.data("\n".join([*failed, f"{examples} examples and {len(cases)} cases, {len(failed)} failed"]))
    return 1 if failed else 0


def _lines(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    """Each line without its end, and why it cannot be read where that is so."""
    first = True
    while data := stream.readline(_LONGEST + 1):
        wrong = ""
        if len(data) > _LONGEST:
            wrong = f"The line has more than {_LONGEST} bytes."
            while not data.endswith(b"\n") and (rest := stream.readline(_LONGEST)):
                data = data[:_LONGEST] + rest[-1:]
        data = data.removesuffix(b"\n").removesuffix(b"\r").removeprefix(b"\xef\xbb\xbf" if first else b"")
        line, first = data.decode(errors="replace"), False
        if not wrong and "\ufffd" in line and line.encode() != data:
            wrong = "The line is no UTF-8 text."
        yield (line if len(line) <= _SHOWN or not wrong else f"{line[:_SHOWN]}…"), wrong


def _judge_line(judge: Callable[..., dict[str, Any]], line: str, level: AccessLevel) -> dict[str, Any]:
    """A line that is no command is denied, and does not keep the others from their answers."""
    try:
        action = action_of(line)
    except BadInput as error:
        return _malformed(error.message, level)
    return judge(action=action)


def _malformed(because: str, level: AccessLevel) -> dict[str, Any]:
    judged = {"action": "", "level": int(level), "decision": "deny", "rule": "malformed"}
    return judged | {"because": because, "risk": 90}


def _root(workspace: str | None) -> Path | None:
    return Workspace(Path(workspace).expanduser()).root if workspace is not None else None


def _rule_lines(rule: Mapping[str, Any]) -> list[str]:
    lowest, highest = rule["levels"]
    where = f"level {lowest}" if lowest == highest else f"levels {lowest} to {highest}"
    what = " ".join(filter(None, (", ".join(rule["actions"]), rule["pattern"])))
    lines = [f"{rule['decision']:5}  {rule['id']}: {what}, {where}  [{rule['source']}]", f"       {rule['because']}"]
    return [*lines, *(f"       for example: {example}" for example in rule["examples"]["match"][:3])]


def _decision_lines(data: Mapping[str, Any]) -> list[str]:
    touched = ", ".join(data["actions"]) or "nothing"
    step = f", step {data['step']}" if "step" in data else ""
    head = f"{data['decision']}: {data['tool']} ({touched}) at level {data['level']}{step}"
    lines = [head, f"       rule {data['rule']}, risk {data['risk']}: {data['because']}"]
    if "answer" in data:
        lines.append(f"       a person answered: {data['answer']}, by {data.get('by') or 'someone'}")
    return lines


for each in (show, check, explain, test):
    group.add_command(each)
