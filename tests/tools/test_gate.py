"""The gate: nothing runs undecided or unrecorded, and nothing runs twice."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.errors import (
    BadInput,
    BudgetExceeded,
    Cancelled,
    Denied,
    InDoubt,
    LeaseLost,
    NeedsApproval,
    NotFound,
    Stopping,
    ToolFailed,
    ToolMisused,
)
from agentd.events import Bus
from agentd.policy.engine import PolicyEngine
from agentd.security.scan import Redactor
from agentd.store.audit import Audit, AuditRecord
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.store.outputs import Outputs
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tasks.request import Defaults
from agentd.tools.catalog import builtin
from agentd.tools.checks import checks
from agentd.tools.gate import Gate
from agentd.tools.order import MAX_SHOWN
from agentd.tools.results import MAX_TEXT
from agentd.tools.tool import CommandLine, File, NewPath, Text, Tool, ToolContext, tool
from agentd.types import (
    AccessLevel,
    Action,
    Budget,
    Effect,
    Journal,
    JsonObject,
    Scope,
    TaskRequest,
    ToolCall,
    ToolResult,
)

POLICIES = Path(__file__).parents[2] / "policies"
ASKING = """
- id: ask-first
  match: {action: fs.write, path: ["careful/**"]}
  decision: ask
  because: "That folder is careful."
  examples: {match: [careful/a], not_match: [a]}
"""


class Crash(BaseException):
    """The process dies here."""


class Counter:
    """Tools that count how often they ran."""

    def __init__(self) -> None:
        self.runs = 0

    def tools(self) -> dict[str, Tool]:
        @tool(actions=lambda a: [Action(kind="fs.read", target=a.path)], effect=Effect.PURE, read_only=True)
        def read(ctx: ToolContext, path: File) -> str:
            """Read a file."""
            self.runs += 1
            return ctx.workspace.resolve(path).read_text()

        @tool(actions=lambda a: [Action(kind="fs.write", target=a.path)], effect=Effect.UNSAFE)
        def write(ctx: ToolContext, path: NewPath, content: Text) -> ToolResult:
            """Write a file."""
            self.runs += 1
            ctx.workspace.resolve(path).write_text(content)
            return ToolResult(ok=True, text=f"wrote {path}", changed=(path,), data={"size": len(content)})

        @tool(actions=lambda a: [Action(kind="shell.exec", argv=tuple(a.command.split()))], effect=Effect.UNSAFE)
        def command(ctx: ToolContext, command: CommandLine) -> str:
            """Run a command."""
            self.runs += 1
            return command

        return {each.name: each for each in (read, write, command)}


@dataclass(kw_only=True)
class Bench:
    """A gate over a real store, and a task that is being run."""

    db: Database
    audit: Audit
    events: EventLog
    outputs: Outputs
    queue: Queue
    policy: PolicyEngine
    workspace: Path
    counter: Counter = field(default_factory=Counter)
    task: str = ""

    def gate(self, *tools: Tool) -> Gate:
        known = self.counter.tools() | {each.name: each for each in tools}
        return Gate(known, self.policy, self.audit, self.events.emit, self.outputs, SystemClock())

    def scope(self, level: AccessLevel = AccessLevel.EXTENDED_SHELL, **fields: Any) -> Scope:
        """Of a fresh task, claimed."""
        self.queue.submit(TaskRequest(goal="do it", workspace=str(self.workspace)))
        task = self.queue.claim("worker")
        assert task is not None
        self.task = task.id
        journal: Journal = TaskJournal(self.db, task, SystemClock())
        return Scope(**{"task": task.id, "workspace": str(self.workspace), "level": level, "journal": journal} | fields)

    def call(self, name: str, level: AccessLevel = AccessLevel.EXTENDED_SHELL, **args: Any) -> ToolResult:
        return self.gate().call(ToolCall(tool=name, args=args), self.scope(level), "00001")

    def records(self, kind: str) -> list[AuditRecord]:
        return [record for record in self.audit.tail(1000, self.task) if record.kind == kind]

    def order(self) -> list[str]:
        """Kinds of the audit records about tools, oldest first."""
        return [record.kind for record in self.audit.tail(1000, self.task) if record.kind.startswith("tool.")]

    def told(self, kind: str) -> list[JsonObject]:
        return [event.data for event in self.events.since(0, self.task) if event.kind == kind]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicyEngine:
    """What ships, and a folder about which a person is asked."""
    folder = tmp_path_factory.mktemp("policies")
    for name, more in (("default.yaml", ASKING), ("levels.yaml", "")):
        (folder / name).write_text((POLICIES / name).read_text(encoding="utf-8") + more, encoding="utf-8")
    return PolicyEngine.load(folder)


@pytest.fixture
def bench(tmp_path: Path, policy: PolicyEngine) -> Iterator[Bench]:
    workspace = tmp_path / "work"
    workspace.mkdir()
    clock = SystemClock()
    db = Database(tmp_path / "agentd.db", clock=clock)
    audit, events = Audit(db, clock), EventLog(db, Bus(), clock)
    defaults = Defaults(level=AccessLevel.RUN_TESTS, max_level=AccessLevel.GIT_COMMIT, budget=Budget())
    yield Bench(
        db=db,
        audit=audit,
        events=events,
        outputs=Outputs(db, clock),
        queue=Queue(db, audit, events.emit, clock, defaults=lambda: defaults, lease_seconds=60, noise=random.Random(1)),
        policy=policy,
        workspace=workspace,
    )
    db.close()


def simple(
    run: Callable[[ToolContext], Any],
    effect: Effect = Effect.UNSAFE,
    *,
    actions: Callable[[Any], list[Action]] = lambda a: [Action(kind="git.read")],
    before: Callable[[ToolContext, Any], JsonObject] | None = None,
    probe: Callable[[ToolContext, Any, JsonObject], ToolResult | None] | None = None,
) -> Tool:
    """A tool `simple` without arguments that does this."""

    @tool(actions=actions, effect=effect, before=before, probe=probe)
    def simple(ctx: ToolContext) -> Any:
        """Do something."""
        return run(ctx)

    return simple


SIMPLE = ToolCall(tool="simple", args={})


# what is recorded ----------------------------------------------------------------------------------------------------


def test_an_allowed_call_runs_and_is_recorded_before_and_after(bench: Bench) -> None:
    result = bench.call("write", path="a.txt", content="secret words")
    assert result == ToolResult(ok=True, text="wrote a.txt", changed=("a.txt",), data={"size": 12})
    assert (bench.workspace / "a.txt").read_text() == "secret words"
    assert bench.order() == ["tool.decided", "tool.finished"]
    (decided,) = bench.records("tool.decided")
    assert decided.data["decision"] == "allow"
    assert decided.data["rule"] == "write-files"
    assert decided.data["because"]
    assert decided.data["risk"] == 20
    assert decided.data["level"] == 4
    assert decided.data["actions"] == ["fs.write a.txt"]
    assert decided.data["args"] == {"path": "a.txt", "content": "<12 characters>"}
    (finished,) = bench.records("tool.finished")
    assert (finished.data["ok"], finished.data["changed"]) == (True, ["a.txt"])
    assert len(finished.data["sha256"]) == 64
    assert [data["decision"] for data in bench.told("ToolDecided")] == ["allow"]
    assert [data["ok"] for data in bench.told("ToolFinished")] == [True]


def test_no_content_gets_into_the_audit_log_or_the_events(bench: Bench) -> None:
    (bench.workspace / "a.txt").write_text("the content of a")
    bench.call("read", path="a.txt")
    assert bench.records("tool.finished")
    kept = json.dumps([record.data for record in bench.audit.tail(1000)])
    told = json.dumps([event.data for event in bench.events.since(0)])
    assert "the content" not in kept + told


@pytest.mark.parametrize(("effect", "seen"), [(Effect.UNSAFE, ["tool.decided"]), (Effect.PURE, [])])
def test_the_intent_stands_before_an_effect_and_costs_a_pure_tool_nothing(
    bench: Bench, effect: Effect, seen: list[str]
) -> None:
    during: list[list[str]] = []
    gate = bench.gate(simple(lambda ctx: during.append(bench.order()) or "done", effect))
    gate.call(SIMPLE, bench.scope(), "1")
    assert during == [seen]
    assert bench.order() == ["tool.decided", "tool.finished"]


# decisions -----------------------------------------------------------------------------------------------------------


def test_a_denied_call_does_not_run_and_says_why(bench: Bench) -> None:
    with pytest.raises(Denied, match=r"shell.exec git push.*owner") as caught:
        bench.call("command", command="git push --force")
    assert "git-publishing" in caught.value.hint
    assert bench.counter.runs == 0
    assert bench.order() == ["tool.decided"]
    assert bench.records("tool.decided")[0].data["decision"] == "deny"
    assert [data["rule"] for data in bench.told("ToolDecided")] == ["git-publishing"]


@pytest.mark.parametrize("name", ["read", "write"])
def test_a_denial_leaves_the_journal_free(bench: Bench, name: str) -> None:
    args = {"path": ".env"} | ({"content": "x"} if name == "write" else {})
    scope = bench.scope()
    for _ in range(2):
        with pytest.raises(Denied):
            bench.gate().call(ToolCall(tool=name, args=args), scope, "1")
    assert bench.counter.runs == 0
    assert not bench.db.rows("SELECT * FROM journal")


def test_what_rules_allow_is_asked_about_when_its_risk_is_above_the_limit(bench: Bench) -> None:
    limit = 20
    gate = Gate(
        bench.counter.tools(),
        bench.policy,
        bench.audit,
        bench.events.emit,
        bench.outputs,
        SystemClock(),
        ask_above=lambda: limit,
    )
    scope = bench.scope()
    gate.call(ToolCall(tool="write", args={"path": "a.txt", "content": "x"}), scope, "1")
    with pytest.raises(NeedsApproval, match=r"risk is 35.*above 20.*build files \(Makefile\): 15"):
        gate.call(ToolCall(tool="write", args={"path": "Makefile", "content": "x"}), scope, "2")
    assert bench.counter.runs == 1
    assert [record.data["rule"] for record in bench.records("tool.decided")] == ["write-files", "risk"]
    limit = 35
    gate.call(ToolCall(tool="write", args={"path": "Makefile", "content": "x"}), scope, "2")
    assert bench.counter.runs == 2


def test_an_action_that_needs_a_person_is_asked_for_and_not_done(bench: Bench) -> None:
    with pytest.raises(NeedsApproval, match="careful"):
        bench.call("write", path="careful/a.txt", content="x")
    assert bench.counter.runs == 0
    assert bench.records("tool.decided")[0].data["decision"] == "ask"


def test_a_level_that_is_too_low_is_named(bench: Bench) -> None:
    with pytest.raises(Denied, match=r"level 1 \(patch write\)"):
        bench.call("write", AccessLevel.READ_ONLY, path="a.txt", content="x")


def test_of_several_actions_the_strictest_decides(bench: Bench) -> None:
    actions = [Action(kind="fs.read", target="a"), Action(kind="fs.write", target="careful/b")]
    gate = bench.gate(simple(lambda ctx: "done", actions=lambda a: actions))
    with pytest.raises(NeedsApproval, match=r"fs.write careful/b"):
        gate.call(SIMPLE, bench.scope(), "1")
    actions.append(Action(kind="fs.delete", target=".git"))
    with pytest.raises(Denied, match=r"fs.delete .git"):
        gate.call(SIMPLE, bench.scope(), "1")


def test_a_tool_that_names_no_action_is_denied(bench: Bench) -> None:
    gate = bench.gate(simple(lambda ctx: "done", actions=lambda a: []))
    with pytest.raises(Denied, match="no action"):
        gate.call(SIMPLE, bench.scope(), "1")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "~/x", "a\\b", "a\0b", "x\n", "C:/x", ""])
def test_paths_that_lead_out_are_denied(bench: Bench, path: str) -> None:
    with pytest.raises(Denied):
        bench.call("write", path=path, content="x")
    assert bench.counter.runs == 0
    assert bench.records("tool.decided")[0].data["decision"] == "deny"


def test_a_link_is_judged_by_what_it_leads_to(bench: Bench, tmp_path: Path) -> None:
    (bench.workspace / ".env").write_text("TOKEN=1")
    (bench.workspace / "plain.txt").symlink_to(".env")
    (bench.workspace / "out").symlink_to(tmp_path)
    with pytest.raises(Denied, match="keys or passwords"):
        bench.call("read", path="plain.txt")
    with pytest.raises(Denied, match="leads out"):
        bench.call("read", path="out/agentd.db")


def test_an_absolute_path_inside_the_workspace_is_taken(bench: Bench) -> None:
    (bench.workspace / "a.txt").write_text("x")
    assert bench.call("read", path=str(bench.workspace / "a.txt")).text == "x"
    with pytest.raises(Denied):
        bench.call("read", path=str(bench.workspace / ".env"))


def test_a_tool_is_told_which_files_it_may_show(bench: Bench) -> None:
    gate = bench.gate(simple(lambda ctx: json.dumps([ctx.may_read("a.txt"), ctx.may_read("deep/.env")])))
    assert gate.call(SIMPLE, bench.scope(), "1").text == "[true, false]"


def test_a_workspace_that_is_gone_is_bad_input(bench: Bench) -> None:
    with pytest.raises(BadInput):
        bench.gate().call(ToolCall(tool="read", args={"path": "a"}), bench.scope(workspace="/nowhere/at/all"), "1")


# misuse --------------------------------------------------------------------------------------------------------------


def test_an_unknown_tool_and_wrong_arguments_are_told_what_exists(bench: Bench) -> None:
    with pytest.raises(ToolMisused, match="no tool 'fly'") as unknown:
        bench.call("fly")
    assert "read, write, command" in unknown.value.hint
    with pytest.raises(ToolMisused, match="content: missing"):
        bench.call("write", path="a")
    with pytest.raises(ToolMisused, match="colour"):
        bench.call("read", path="a", colour="red")
    assert bench.counter.runs == 0
    assert bench.order() == ["tool.misused"]


def test_a_tool_that_cannot_name_its_actions_is_not_run(bench: Bench) -> None:
    def actions(args: Any) -> list[Action]:
        raise KeyError("x")

    with pytest.raises(ToolMisused, match="cannot say what it would touch"):
        bench.gate(simple(lambda ctx: "done", actions=actions)).call(SIMPLE, bench.scope(), "1")


def test_cancelled_and_late_calls_do_not_run(bench: Bench) -> None:
    cancel = threading.Event()
    cancel.set()
    call = ToolCall(tool="write", args={"path": "a", "content": "x"})
    with pytest.raises(Cancelled):
        bench.gate().call(call, bench.scope(cancel=cancel), "1")
    with pytest.raises(BudgetExceeded):
        bench.gate().call(call, bench.scope(deadline=time.time() - 1), "1")
    assert bench.counter.runs == 0


# results -------------------------------------------------------------------------------------------------------------


def fail(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolFailed("no such line 7", hint="there are 3"), "no such line 7 (there are 3)"),
        (NotFound("no output"), "no output"),
        (ValueError("bad\nvalue"), "ValueError: bad\nvalue"),
        (RecursionError(), "RecursionError: "),
        (SystemExit(3), "SystemExit: 3"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "odd"), "UnicodeDecodeError: "),
    ],
)
@pytest.mark.parametrize("effect", [Effect.PURE, Effect.UNSAFE])
def test_what_a_tool_raises_is_its_result(bench: Bench, error: BaseException, text: str, effect: Effect) -> None:
    result = bench.gate(simple(lambda ctx: fail(error), effect)).call(SIMPLE, bench.scope(), "1")
    assert not result.ok
    assert result.text.startswith(text)
    (finished,) = bench.records("tool.finished")
    assert finished.data["ok"] is False
    assert finished.data["error"] == type(error).__name__
    assert "line" not in json.dumps(finished.data)


@pytest.mark.parametrize(
    "error", [Cancelled("stop"), Stopping("down"), InDoubt("?"), BudgetExceeded("late"), LeaseLost("gone")]
)
@pytest.mark.parametrize("effect", [Effect.PURE, Effect.UNSAFE])
def test_what_ends_a_task_goes_through(bench: Bench, error: Exception, effect: Effect) -> None:
    with pytest.raises(type(error)):
        bench.gate(simple(lambda ctx: fail(error), effect)).call(SIMPLE, bench.scope(), "1")
    if not isinstance(error, LeaseLost):
        assert bench.order() == ["tool.decided", "tool.finished"]
    finished = [record.data.get("error") for record in bench.records("tool.finished")]
    assert finished == ([] if isinstance(error, LeaseLost) else [type(error).__name__])


def test_a_denial_inside_a_tool_is_kept_and_raised_again(bench: Bench) -> None:
    ran: list[int] = []
    gate = bench.gate(simple(lambda ctx: ran.append(1) or fail(Denied("leads out", hint="stay"))))
    scope = bench.scope()
    for _ in range(2):
        with pytest.raises(Denied, match="leads out"):
            gate.call(SIMPLE, scope, "1")
    assert ran == [1]


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        b"bytes",
        ToolResult(ok=True, text="x", data={"bad": object()}),
        ToolResult(ok=True, text="x", data={"bad": float("nan")}),
        ToolResult(ok=True, text=b"x"),  # type: ignore[arg-type]
    ],
)
def test_a_result_of_the_wrong_form_is_a_failure(bench: Bench, given: object) -> None:
    result = bench.gate(simple(lambda ctx: given)).call(SIMPLE, bench.scope(), "1")
    assert not result.ok
    assert "simple gave" in result.text


def test_data_that_is_too_much_is_left_out(bench: Bench) -> None:
    given = ToolResult(ok=True, text="x", data={"much": "y" * 3_000_000}, changed=("a",) * 50_000)
    result = bench.gate(simple(lambda ctx: given)).call(SIMPLE, bench.scope(), "1")
    assert result.ok
    assert result.data["left_out"].endswith("characters")
    assert len(result.changed) == 1000


def test_a_long_text_is_cut_in_the_middle_and_kept_whole(bench: Bench) -> None:
    text = "\n".join(f"line {number}" for number in range(1, 5001))
    result = bench.gate(simple(lambda ctx: text)).call(SIMPLE, bench.scope(), "1")
    assert len(result.text) <= MAX_TEXT
    assert result.handle is not None
    assert bench.outputs.get(result.handle) == text
    shown = result.text.splitlines()
    (note,) = [line for line in shown if "left out" in line]
    at = shown.index(note)
    head, tail = shown[:at], shown[at + 1 :]
    assert head == [f"line {number}" for number in range(1, len(head) + 1)]
    assert tail[-1] == "line 5000"
    assert f"… {5000 - len(head) - len(tail)} lines left out" in note
    assert f'read_output(handle="{result.handle}", start={len(head) + 1})' in note


def test_a_long_line_is_cut_too(bench: Bench) -> None:
    result = bench.gate(simple(lambda ctx: "é" * 100_000)).call(SIMPLE, bench.scope(), "1")
    assert len(result.text) <= MAX_TEXT
    assert "characters left out" in result.text


def test_bytes_of_a_file_name_that_are_no_utf8_survive(bench: Bench) -> None:
    name = os.fsdecode(b"caf\xe9")
    given = ToolResult(ok=True, text=name, changed=(name,))
    result = bench.gate(simple(lambda ctx: given)).call(SIMPLE, bench.scope(), "1")
    assert result.text == "caf\\udce9"
    assert result.changed == (name,)


# once ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", list(Effect))
def test_a_result_that_stands_comes_back_without_a_run_or_a_decision(bench: Bench, effect: Effect) -> None:
    ran: list[int] = []
    gate = bench.gate(simple(lambda ctx: ran.append(1) or "done", effect))
    scope = bench.scope()
    first = gate.call(SIMPLE, scope, "1")
    assert gate.call(SIMPLE, scope, "1") == first
    assert ran == [1]
    assert bench.order() == ["tool.decided", "tool.finished"]


def test_an_unsafe_effect_that_a_crash_cut_off_waits_for_a_person(bench: Bench) -> None:
    gate = bench.gate(simple(lambda ctx: fail(Crash())))
    scope = bench.scope()
    with pytest.raises(Crash):
        gate.call(SIMPLE, scope, "1")
    with pytest.raises(InDoubt):
        gate.call(SIMPLE, scope, "1")
    assert bench.order() == ["tool.decided"]


def test_a_probe_finds_an_effect_that_a_crash_left_unrecorded(bench: Bench) -> None:
    target = bench.workspace / "a"

    def run(ctx: ToolContext) -> str:
        target.write_text("done")
        raise Crash

    def probe(ctx: ToolContext, args: Any, before: JsonObject) -> ToolResult | None:
        return ToolResult(ok=True, text="found") if target.exists() != before["there"] else None

    def before(ctx: ToolContext, args: Any) -> JsonObject:
        return {"there": target.exists()}

    gate = bench.gate(simple(run, Effect.PROBEABLE, before=before, probe=probe))
    scope = bench.scope()
    with pytest.raises(Crash):
        gate.call(SIMPLE, scope, "1")
    assert gate.call(SIMPLE, scope, "1").text == "found"
    assert bench.records("tool.finished")[0].data["probed"] is True
    assert bench.order() == ["tool.decided", "tool.finished"]


def test_a_probe_that_breaks_leaves_it_to_a_person(bench: Bench) -> None:
    def probe(ctx: ToolContext, args: Any, before: JsonObject) -> ToolResult | None:
        raise KeyError("gone")

    gate = bench.gate(simple(lambda ctx: fail(Crash()), Effect.PROBEABLE, probe=probe))
    scope = bench.scope()
    with pytest.raises(Crash):
        gate.call(SIMPLE, scope, "1")
    with pytest.raises(InDoubt, match="cannot be told"):
        gate.call(SIMPLE, scope, "1")


def test_a_look_before_that_fails_is_the_result(bench: Bench) -> None:
    ran: list[int] = []

    def before(ctx: ToolContext, args: Any) -> JsonObject:
        raise ToolFailed("there is no a.txt")

    gate = bench.gate(simple(lambda ctx: ran.append(1), Effect.PROBEABLE, before=before))
    result = gate.call(SIMPLE, bench.scope(), "1")
    assert (result.ok, result.text, ran) == (False, "there is no a.txt", [])


def test_what_was_not_seen_before_a_crash_is_not_run_after_it(bench: Bench) -> None:
    ran: list[int] = []
    looks = iter([ToolFailed("locked")])

    def before(ctx: ToolContext, args: Any) -> JsonObject:
        raise next(looks)

    def probe(ctx: ToolContext, args: Any, before: JsonObject) -> ToolResult | None:
        raise AssertionError("there is nothing to compare with")

    def crash(kind: str, task: str, data: JsonObject) -> None:
        if kind == "ToolFinished":
            raise Crash

    look_only = simple(lambda ctx: ran.append(1), Effect.PROBEABLE, before=before, probe=probe)
    scope = bench.scope()
    with pytest.raises(Crash):
        Gate({"simple": look_only}, bench.policy, bench.audit, crash, bench.outputs, SystemClock()).call(
            SIMPLE, scope, "1"
        )
    result = bench.gate(look_only).call(SIMPLE, scope, "1")
    assert (result.ok, ran) == (False, [])
    assert "cut off" in result.text


class Bare:
    """A journal that keeps nothing and looks at nothing: it only runs what it is given."""

    def once(self, key: str, effect: Effect, do: Callable[[], JsonObject], **rest: Any) -> JsonObject:
        return do()

    def plan_made(self, plan: Any) -> None: ...
    def step_started(self, number: int) -> None: ...
    def step_ended(self, number: int, outcome: Any) -> None: ...
    def atomic(self) -> AbstractContextManager[None]:
        return threading.Lock()  # type: ignore[return-value]


def test_no_journal_can_leave_the_decision_out(bench: Bench) -> None:
    call = ToolCall(tool="write", args={"path": ".git/x", "content": "x"})
    with pytest.raises(Denied):
        bench.gate().call(call, bench.scope(journal=Bare()), "1")
    assert bench.counter.runs == 0


def test_a_call_costs_little(bench: Bench) -> None:
    """CPU of decision, context, result and records, the transactions included, which cost most of it."""
    (bench.workspace / "a.txt").write_text("x")
    gate, scope = bench.gate(), bench.scope()
    gate.call(ToolCall(tool="read", args={"path": "a.txt"}), scope, "warm")
    started = time.process_time()
    for number in range(50):
        gate.call(ToolCall(tool="read", args={"path": "a.txt"}), scope, str(number))
    assert (time.process_time() - started) / 50 < 0.01


# the only door -------------------------------------------------------------------------------------------------------

PACKAGE = Path(__file__).parents[2] / "agentd"
TOOL_NAMES = frozenset(builtin()) | {"tool", "tools", "builtin", "read_output", *checks()}


def runs_of_tools(tree: ast.AST) -> Iterator[str]:
    """Uses of `.run`, or of `getattr(..., "run")`, on something that is called like a tool."""
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.expr) else ""
        is_run = isinstance(node, ast.Attribute) and node.attr == "run"
        if not is_run and not re.fullmatch(r"getattr\(.*'run'.*\)", text, re.DOTALL):
            continue
        names = [getattr(part, "id", None) or getattr(part, "attr", None) for part in ast.walk(node)]
        if any(isinstance(name, str) and name.strip("_") in TOOL_NAMES for name in names):
            yield text


def test_only_the_gate_runs_a_tool() -> None:
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name == "tools/gate.py":
            continue
        found = set(runs_of_tools(ast.parse(file.read_text(encoding="utf-8"))))
        assert not found, f"agentd/{name} runs a tool past the gate: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "tool.run(ctx)",
        "self.tools[name].run(ctx)",
        "builtin()['x'].run(c)",
        "f = read_file.run",
        "getattr(tool, 'run')",
    ],
)
def test_the_search_for_other_doors_sees(code: str) -> None:
    assert list(runs_of_tools(ast.parse(code)))
    assert not list(runs_of_tools(ast.parse("runner.run(task); launch.run(argv); repository.run('log')")))


# what a tool finds while it runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action(kind="fs.write", target="a.txt"), None),
        (Action(kind="fs.write", target=".git/hooks/x"), "git-folder"),
        (Action(kind="fs.write", target="../a.txt"), "outside-workspace"),
        (Action(kind="fs.write", target="careful/a"), "ask-first"),
        (Action(kind="net.connect", target="example.com:443"), "default"),
    ],
)
def test_what_a_running_tool_needs_is_judged_like_what_it_said_before(
    bench: Bench, action: Action, said: str | None
) -> None:
    heard: list[str | None] = []

    def run(ctx: ToolContext) -> str:
        try:
            ctx.require(action)
            heard.append(None)
        except (Denied, NeedsApproval) as error:
            heard.append(error.hint.removeprefix("rule "))
        return ctx.model

    gate = bench.gate(simple(run))
    assert gate.call(SIMPLE, bench.scope(model="small"), "00001").text == "small"
    assert heard == [said]


def test_a_link_is_judged_by_where_it_leads_also_while_a_tool_runs(bench: Bench) -> None:
    (bench.workspace / ".git").mkdir()
    (bench.workspace / "link").symlink_to(".git")

    def run(ctx: ToolContext) -> str:
        ctx.require(Action(kind="fs.write", target="link/config"))
        return "not judged"

    with pytest.raises(Denied):
        bench.gate(simple(run)).call(SIMPLE, bench.scope(), "00001")


PLANTED = {
    "notes/conftest.py": "x",
    "tasks.json": "{}",
    "page.md": "x",
    "full/.vscode/tasks.json": "{}",
    "a/ci.yml": "x",
}


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("write_file", {"path": "tests/conftest.py", "content": "x"}),
        ("edit_file", {"path": "notes/conftest.py", "search": "x", "replace": "y"}),
        ("edit_file", {"path": "notes/conftest.py", "diff": "@@ -1 +1 @@\n-x\n+y\n"}),
        ("copy_path", {"source": "page.md", "target": "pyproject.toml"}),
        ("copy_path", {"source": "notes", "target": "tests"}),
        ("copy_path", {"source": "notes/conftest.py", "target": "full"}),
        ("move_path", {"source": "notes/conftest.py", "target": "full"}),
        ("move_path", {"source": "notes/conftest.py", "target": "notes/was.py"}),
        ("move_path", {"source": "page.md", "target": "pytest.py"}),
        ("move_path", {"source": "full", "target": "other"}),
        ("move_path", {"source": "a", "target": ".vscode"}),
        ("move_path", {"source": "notes", "target": "node_modules/notes"}),
        ("delete_path", {"path": "notes/conftest.py"}),
        ("delete_path", {"path": "notes"}),
        ("delete_path", {"path": "full"}),
    ],
)
def test_what_makes_programs_run_is_asked_about_on_every_route(bench: Bench, tool: str, args: dict[str, str]) -> None:
    for name, content in PLANTED.items():
        (bench.workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (bench.workspace / name).write_text(content)
    before = sorted(bench.workspace.rglob("*"))
    with pytest.raises(NeedsApproval, match="needs a person's yes"):
        bench.gate(*builtin().values()).call(ToolCall(tool=tool, args=args), bench.scope(), "00001")
    assert sorted(bench.workspace.rglob("*")) == before
    assert [record.data["decision"] for record in bench.records("tool.decided")] == ["ask"]


def test_ordinary_folders_are_carried_unasked(bench: Bench) -> None:
    (bench.workspace / "a").mkdir()
    (bench.workspace / "a" / "page.md").write_text("x")
    gate = bench.gate(*builtin().values())
    for number, (name, args) in enumerate(
        [
            ("copy_path", {"source": "a", "target": "b"}),
            ("move_path", {"source": "b", "target": "c"}),
            ("delete_path", {"path": "c"}),
        ]
    ):
        assert gate.call(ToolCall(tool=name, args=args), bench.scope(), f"{number:05}").ok


@pytest.mark.skipif(sys.platform != "linux", reason="walls are made of what Linux offers")
def test_the_walls_stand_on_every_record_of_a_program(bench: Bench) -> None:
    gate = bench.gate(*builtin().values())
    gate.call(ToolCall(tool="run_command", args={"command": "ls"}), bench.scope(), "00001")
    told = [bench.records(kind)[-1].data["confined"] for kind in ("tool.decided", "tool.finished")]
    assert told == [gate.walls.level] * 2


# secrets -------------------------------------------------------------------------------------------------------------

TOKEN = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"


def test_a_secret_in_a_result_reaches_neither_model_nor_journal_nor_audit(bench: Bench) -> None:
    scope = bench.scope()
    told = ToolResult(ok=True, text=f"key: {TOKEN}", data={"lines": [f"x = {TOKEN}", "plain"]})
    result = bench.gate(simple(lambda ctx: told)).call(SIMPLE, scope, "1")
    assert result.text == "key: [left out: GitHub token]"
    assert result.data == {"lines": ["x = [left out: GitHub token]", "plain"]}
    bench.gate().call(ToolCall(tool="command", args={"command": f"ls {TOKEN}"}), scope, "2")
    kept = json.dumps([record.data for record in bench.audit.tail(1000)] + bench.db.rows("SELECT * FROM journal"))
    assert TOKEN not in kept + json.dumps([event.data for event in bench.events.since(0)])


def test_a_value_of_the_vault_is_left_out_in_any_form(bench: Bench) -> None:
    gate = Gate(
        {"simple": simple(lambda ctx: "say open sesame")},
        bench.policy,
        bench.audit,
        bench.events.emit,
        bench.outputs,
        SystemClock(),
        redactor=Redactor(lambda: ["open sesame"]),
    )
    assert gate.call(SIMPLE, bench.scope(), "1").text == "say [left out: secret of the vault]"


def test_what_a_tool_was_denied_while_it_ran_is_kept_without_secrets(bench: Bench) -> None:
    def denied(ctx: ToolContext) -> str:
        raise Denied(f"no {TOKEN}", hint=f"not {TOKEN}")

    with pytest.raises(Denied, match=r"no \[left out: GitHub token\]"):
        bench.gate(simple(denied)).call(SIMPLE, bench.scope(), "1")
    assert TOKEN not in json.dumps(bench.db.rows("SELECT * FROM journal"))


def test_the_mark_of_a_secret_is_not_written_back_over_it(bench: Bench) -> None:
    with pytest.raises(ToolMisused, match="mark of a secret"):
        bench.call("write", path="a.txt", content="key: [left out: GitHub token]\n")
    assert bench.counter.runs == 0


def test_a_tool_knows_what_is_secret_and_half_a_secret_is_not_told_either(bench: Bench) -> None:
    known = ["open sesame"]
    gate = Gate(
        {tool.name: tool for tool in (simple(lambda ctx: f"{len(ctx.known())} known"), *builtin().values())},
        bench.policy,
        bench.audit,
        bench.events.emit,
        bench.outputs,
        SystemClock(),
        redactor=Redactor(lambda: known),
    )
    assert gate.call(SIMPLE, bench.scope(), "1").text == "1 known"
    command = f"nothing {'x' * (MAX_SHOWN - 28)} {known[0]}"
    with pytest.raises(NeedsApproval) as asked:
        gate.call(ToolCall(tool="run_command", args={"command": command}), bench.scope(), "2")
    assert "x open" not in asked.value.message
    kept = json.dumps([record.data for record in bench.audit.tail(1000)])
    assert ("nothing xxx" in kept, "x open" in kept) == (True, False)
