"""Plugins as tools, called in the real sandbox through the real gate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentd.api.direct import DirectJournal
from agentd.errors import Denied, InDoubt, NeedsApproval, SandboxUnavailable, ToolMisused
from agentd.plugins.arguments import arguments_flaw, arguments_model
from agentd.plugins.folder import CODE
from agentd.plugins.loader import Loader
from agentd.plugins.proof import CheckingExecutor, Proof
from agentd.plugins.registry import Plugin
from agentd.plugins.spec import Permissions, Spec
from agentd.plugins.standing import State
from agentd.plugins.warm import MOST, WarmWorkers, Worker
from agentd.policy.approvals import Approvals
from agentd.policy.engine import PolicyEngine
from agentd.sandbox.job import Limits
from agentd.sandbox.os_executor import OsExecutor
from agentd.store.outputs import Outputs
from agentd.tasks.inbox import Inbox
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tools.gate import Gate
from agentd.tools.tool import ToolContext
from agentd.tools.toolbox import Toolbox
from agentd.types import AccessLevel, Effect, Scope, TaskRequest, ToolCall, ToolResult
from agentd.workspace.paths import Workspace
from tests.plugins.conftest import ADD, CONVERT, House, adding, converting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox of Linux")


@pytest.fixture(scope="module")
def executor() -> Iterator[OsExecutor]:
    made = OsExecutor()
    yield made
    made.close()


class Shop:
    """A toolbox that follows a registry, and the gate to call its tools through."""

    def __init__(self, house: House, executor: CheckingExecutor, policy: PolicyEngine, folder: Path) -> None:
        self.house, self.policy, self.folder = house, policy, folder
        self.project = ""
        """Policy of the project that it is called in."""
        self.tasks = ["t", "u"]
        self.available = True
        self.limits = Limits(seconds=2.0)
        self._executor = executor
        self.toolbox = Toolbox({})
        self.loader = Loader(
            house.registry,
            self.toolbox,
            executor=self.executor,
            prove=Proof(self.executor),
            record=house.audit.record,
            clock=house.clock,
            limits=lambda: self.limits,
        )
        outputs = Outputs(house.db, house.clock)
        self.gate = Gate(self.toolbox, policy, house.audit, house.events.emit, outputs, house.clock)

    def executor(self) -> CheckingExecutor:
        if not self.available:
            raise SandboxUnavailable("nothing holds a plugin here")
        return self._executor

    def call(self, tool: str, level: AccessLevel = AccessLevel.SAFE_WRITE, task: str = "", **args: Any) -> ToolResult:
        scope = Scope(
            task=task,
            workspace=str(self.folder),
            level=level,
            journal=DirectJournal(),
            model="m",
            project=self.project,
        )
        return self.gate.call(ToolCall(tool=tool, args=args), scope, "key")

    def warm(self) -> list[bool]:
        """Of each call so far, whether it met a sandbox that was there."""
        return [record.data["warm"] for record in self.house.records("plugin.called")]

    def standing(self, name: str) -> Plugin:
        return self.house.registry.get(name)


@pytest.fixture
def shop(house: House, executor: CheckingExecutor, policy: PolicyEngine, tmp_path: Path) -> Iterator[Shop]:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "people.csv").write_text("name,age\nAda,36\nAlan,41\n")
    made = Shop(house, executor, policy, folder)
    yield made
    for task in made.tasks:
        made.loader.end(task)


def failing(body: str, **more: Any) -> tuple[Spec, str]:
    """A plugin `broken` whose function consists of `body`."""
    return adding("broken", **more), f"def broken(a, b=1):\n    {body}\n"


# a call ---------------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_a_tool_at_once(shop: Shop) -> None:
    assert "add" not in shop.toolbox
    shop.house.install()
    result = shop.call("add", a="40", b=2)
    assert (result.ok, result.text, result.data["result"]) == (True, "42", 42)
    assert shop.call("add", a=1).text == "2"
    assert shop.standing("add").successes == 2


def test_files_are_converted_through_requests_that_are_recorded(shop: Shop) -> None:
    shop.house.install(converting(), CONVERT)
    result = shop.call("csv_to_json", path="people.csv", target="out/people.json")
    assert result.ok, result.text
    assert (result.data["result"], result.changed) == ({"rows": 2}, ("out/people.json",))
    assert json.loads((shop.folder / "out" / "people.json").read_text())[1] == {"name": "Alan", "age": "41"}
    asked = [(record.data["request"], record.data["about"]) for record in shop.house.records("plugin.request")]
    assert asked == [("files.read_text", "people.csv"), ("files.write_text", "out/people.json")]
    (called,) = shop.house.records("plugin.called")
    assert (called.data["executor"], called.data["model"], called.data["ok"]) == ("os", "m", True)
    levels = {record.data["sandbox"] for record in shop.house.records("plugin.request")}
    assert levels == {called.data["sandbox"]}
    (decided,) = shop.house.records("tool.decided")
    assert decided.data["actions"] == ["plugin.call csv_to_json", "fs.read people.csv", "fs.write out/people.json"]


def test_what_it_imports_is_judged_at_each_call(shop: Shop) -> None:
    shop.house.install(converting(), CONVERT, imports=("csv", "json"))
    assert shop.call("csv_to_json", path="people.csv", target="a.json").ok
    shop.project = (
        "- {match: {action: import, name: [csv]}, decision: deny, because: Not here., "
        "examples: {match: [csv], not_match: [json]}}"
    )
    with pytest.raises(Denied, match="import csv is denied: Not here"):
        shop.call("csv_to_json", path="people.csv", target="b.json")


def test_a_level_that_does_not_write_lets_no_plugin_write(shop: Shop) -> None:
    shop.house.install(converting(), CONVERT)
    with pytest.raises(Denied, match=r"fs\.write out\.json"):
        shop.call("csv_to_json", AccessLevel.READ_ONLY, path="people.csv", target="out.json")
    spec = adding("sly", permissions=Permissions(write=("**",)))
    shop.house.install(spec, "def sly(a, b=1):\n    open('x.txt', 'w').write('x')\n    return 1\n")
    assert "Error" in shop.call("sly", AccessLevel.READ_ONLY, a=1).text
    assert not (shop.folder / "x.txt").exists()
    assert shop.call("sly", a=1).changed == ("x.txt",)


def test_arguments_are_held_to_the_spec(shop: Shop) -> None:
    field = {"a": {"type": "integer", "maximum": 5}, "b": {"type": "integer"}}
    shop.house.install(adding(input=adding().input | {"properties": field}))
    with pytest.raises(ToolMisused, match="at most 5"):
        shop.call("add", a=6)
    with pytest.raises(ToolMisused, match="a: missing"):
        shop.call("add")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("return 'three'", "expected integer"),
        ("while True: a = a + 1", "time"),
        ("return [0] * 10**9", "memory"),
        ("return open('people.csv').read()", "PermissionError"),
    ],
)
def test_what_a_plugin_does_wrong_is_a_failure_of_its_own(shop: Shop, body: str, said: str) -> None:
    shop.house.install(*failing(body))
    result = shop.call("broken", a=1)
    assert (result.ok, said in result.text) == (False, True), result.text
    assert shop.standing("broken").failures == 1


def test_a_plugin_that_fails_leaves_no_half_result(shop: Shop) -> None:
    spec, _ = failing("", permissions=Permissions(write=("**",)))
    code = "import files\n\ndef broken(a, b=1):\n    files.write_text('x', 'half')\n    raise ValueError('no')\n"
    shop.house.install(spec, code)
    assert "ValueError: no" in shop.call("broken", a=1).text
    assert [record.data["ok"] for record in shop.house.records("plugin.request")] == [True]
    assert not (shop.folder / "x").exists()


def test_what_the_arguments_name_and_is_not_there_is_no_fault_of_the_plugin(shop: Shop) -> None:
    shop.house.install(converting(), CONVERT)
    for _ in range(4):
        assert "FileNotFoundError" in shop.call("csv_to_json", path="gone.csv", target="a.json").text
    plugin = shop.standing("csv_to_json")
    assert (plugin.failures, plugin.active) == (0, True)


def test_without_a_sandbox_nothing_runs_and_nothing_counts(shop: Shop) -> None:
    shop.house.install()
    shop.available = False
    assert "nothing holds a plugin here" in shop.call("add", a=1).text
    assert shop.standing("add").failures == 0


def test_the_same_call_draws_the_same_random_numbers(shop: Shop) -> None:
    shop.house.install(adding("draw"), "import random\n\ndef draw(a, b=1):\n    return random.randint(0, 10**9)\n")
    assert shop.call("draw", a=1).text == shop.call("draw", a=1).text


# warm sandboxes -------------------------------------------------------------------------------------------------------

NOTING = "seen = []\n\n\ndef broken(a, b=1):\n    seen.append(a)\n    return len(seen)\n"


def test_calls_of_one_task_share_a_process_and_nothing_else(shop: Shop) -> None:
    shop.house.install(adding("broken"), NOTING)
    assert [shop.call("broken", task=task, a=1).text for task in ("t", "t", "u", "t", "", "")] == ["1"] * 6
    assert shop.warm() == [False, True, False, True, False, False]


def test_a_task_that_has_ended_leaves_no_sandbox(shop: Shop) -> None:
    shop.house.install()
    for _ in range(2):
        shop.call("add", task="t", a=1)
        shop.loader.end("t")
    assert shop.warm() == [False, False]


def test_another_version_begins_in_a_sandbox_of_its_own(shop: Shop) -> None:
    shop.house.install()
    assert shop.call("add", task="t", a=1).text == "2"
    shop.house.install(adding(), ADD.replace("+", "-"))
    assert shop.call("add", task="t", a=1).text == "0"
    assert shop.warm() == [False, False]


@pytest.mark.parametrize("body", ["raise ValueError('no')", "return 'three'", "return open('x').read()", "1 / 0"])
def test_a_sandbox_in_which_something_went_wrong_is_not_used_again(shop: Shop, body: str) -> None:
    shop.house.install(adding("broken"), f"def broken(a, b=1):\n    if a:\n        {body}\n    return 3\n")
    assert [shop.call("broken", task="t", a=a).ok for a in (0, 0, 1, 0)] == [True, True, False, True]
    assert shop.warm() == [False, True, True, False]


def test_a_refused_request_is_misbehaviour_though_the_plugin_hides_it(shop: Shop) -> None:
    body = "try:\n        open('people.csv')\n    except OSError:\n        pass\n    return 3"
    shop.house.install(*failing(body, permissions=Permissions(read=("others.csv",))))
    assert [shop.call("broken", task="t", a=1).ok for _ in range(2)] == [True, True]
    assert shop.warm() == [False, False]


def test_other_limits_are_those_of_another_sandbox(shop: Shop) -> None:
    shop.house.install()
    shop.call("add", task="t", a=1)
    shop.limits = Limits(seconds=1.0)
    shop.call("add", task="t", a=1)
    assert shop.warm() == [False, False]


def test_a_sandbox_gives_way_before_its_process_has_computed_for_too_long() -> None:
    worker = Worker(sandbox=Closing(), limits=Limits(seconds=1.0))
    workers = WarmWorkers()
    workers.keep("t", "digest", replace(worker, seconds=18.9))
    assert workers.take("t", "digest", worker.limits) is not None
    workers.keep("t", "digest", replace(worker, seconds=19.0))
    assert workers.take("t", "digest", worker.limits) is None
    assert worker.sandbox.closed == 1  # type: ignore[attr-defined]


def test_few_sandboxes_wait_and_none_is_forgotten() -> None:
    workers, limits = WarmWorkers(), Limits()
    made = [Worker(sandbox=Closing(), limits=limits) for _ in range(MOST + 2)]
    for number, worker in enumerate(made):
        workers.keep("t", str(number), worker)
    assert [each.sandbox.closed for each in made] == [1, 1] + [0] * MOST  # type: ignore[attr-defined]
    workers.only(frozenset({"2"}))
    workers.end("t")
    assert [each.sandbox.closed for each in made] == [1] * (MOST + 2)  # type: ignore[attr-defined]


class Closing:
    """A sandbox that counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def call(self, *args: Any, **options: Any) -> Any:
        raise AssertionError

    def close(self) -> None:
        self.closed += 1


# coming and going -----------------------------------------------------------------------------------------------------


def test_a_plugin_that_fails_too_often_disappears_at_once(shop: Shop) -> None:
    shop.house.install(*failing("return 1"))
    shop.house.install(*failing("raise ValueError('no')"))
    for _ in range(3):
        assert not shop.call("broken", a=1).ok
    assert (shop.standing("broken").version, shop.call("broken", a=1).text) == (1, "1")
    shop.house.registry.demote("broken")
    assert "broken" not in shop.toolbox
    with pytest.raises(ToolMisused):
        shop.call("broken", a=1)


def test_a_file_that_was_edited_is_never_run(shop: Shop) -> None:
    shop.house.install()
    assert shop.call("add", a=1).ok
    (shop.house.folder.place("add", 1) / CODE).write_text(ADD.replace("+", "-"))
    result = shop.call("add", a=1)
    assert (result.ok, "add/1/plugin.py was changed" in result.text) == (False, True)
    assert shop.standing("add").state is State.QUARANTINED
    assert "add" not in shop.toolbox


def test_in_another_language_a_plugin_is_proven_again_first(shop: Shop) -> None:
    shop.house.install()
    shop.house.install(*failing("return 0"))
    shop.house.registry.language = "python 2"
    assert shop.call("add", a=1).ok
    assert shop.house.registry.get("add").proven_on == "python 2"
    refused = shop.call("broken", a=1)
    assert "example 1 of broken: expected 3, got 0" in refused.text
    assert shop.standing("broken").state is State.QUARANTINED


def test_tools_that_stay_are_the_same_objects(shop: Shop) -> None:
    shop.house.install()
    before = shop.toolbox["add"]
    shop.house.install(adding("more"), "def more(a, b=1):\n    return a + b\n")
    assert shop.toolbox["add"] is before


def test_what_a_crash_leaves_to_do(shop: Shop) -> None:
    loader, install = shop.loader, shop.house.install
    pure = loader.tool(install())
    online = loader.tool(install(adding("online", permissions=Permissions(http=("example.com",)))))
    blind = loader.tool(install(adding("blind", permissions=Permissions(write=("log.txt",)))))
    assert [tool.effect for tool in (pure, online, blind)] == [Effect.PURE, Effect.IDEMPOTENT, Effect.UNSAFE]


def test_whether_a_write_took_place_is_seen_in_the_files(shop: Shop) -> None:
    tool = shop.loader.tool(shop.house.install(converting(), CONVERT))
    assert tool.effect is Effect.PROBEABLE
    assert tool.before is not None
    assert tool.probe is not None
    context = ToolContext(workspace=Workspace(shop.folder), key="k")
    args = tool.validate({"path": "people.csv", "target": "people.json"})
    before = tool.before(context, args)
    assert tool.probe(context, args, before) is None
    (shop.folder / "people.json").write_text("[]")
    with pytest.raises(InDoubt, match=r"people\.json changed"):
        tool.probe(context, args, before)


# specs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input": {"type": "array"}}, "type object"),
        ({"input": {"type": "object", "properties": {"model_dump": {"type": "string"}}}}, "name of an argument"),
        ({"input": {"type": "object", "properties": {"class": {"type": "string"}}}}, "name of an argument"),
        ({"input": {"type": "object", "properties": {"a": {"x-grounding": "sky"}}}}, "x-grounding"),
        ({"input": {"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}}, "default"),
        ({"input": {"type": "object", "properties": {}, "required": ["a"]}}, "required"),
        ({"examples": ({"args": {"a": "x"}},)}, "examples.1"),
        ({"examples": ({"args": {"a": 1, "z": 1}},)}, "examples.1"),
    ],
)
def test_specs_of_which_no_tool_can_be_made(change: dict[str, Any], said: str) -> None:
    spec = Spec.model_validate(adding().model_dump() | change)
    assert said in arguments_flaw(spec)


def test_a_model_of_arguments_has_the_schema_of_the_spec() -> None:
    schema = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "x-grounding": "file"},
            "mode": {"enum": ["fast", "slow"], "default": "fast"},
            "rows": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
            "limit": {"type": ["integer", "null"]},
        },
        "required": ["path"],
    }
    model = arguments_model(adding(input=schema, examples=({"args": {"path": "a"}},)))
    assert model.model_json_schema() == schema | {"additionalProperties": False}
    assert model.model_validate({"path": "a"}).model_dump() == {
        "path": "a",
        "mode": "fast",
        "rows": None,
        "limit": None,
    }
    for wrong in ({"path": "a", "rows": [1, 2, 3]}, {"path": "a", "rows": ["x"]}, {"path": "a", "mode": "no"}):
        with pytest.raises(ValueError, match=r"rows|mode"):
            model.model_validate(wrong)


# skills ---------------------------------------------------------------------------------------------------------------


def test_a_skill_is_read_through_a_tool(shop: Shop) -> None:
    root = shop.house.folder.root
    (root / "release-notes").mkdir(parents=True)
    (root / "release-notes" / "SKILL.md").write_text(
        "---\nname: release-notes\ndescription: >\n  How notes on a release\n  are written here.\n---\n\n"
        "Begin with the date.\n"
    )
    (root / "broken").mkdir()
    (root / "broken" / "SKILL.md").write_text("no front matter")
    shop.loader.refresh()
    assert "release-notes: How notes on a release are written here." in shop.toolbox["read_skill"].description
    assert shop.call("read_skill", AccessLevel.READ_ONLY, name="release-notes").text == "Begin with the date."
    with pytest.raises(ToolMisused):
        shop.call("read_skill", name="broken")


# asking a person ------------------------------------------------------------------------------------------------------

ASKS = """rules:
  - match: {action: fs.read, path: ["*.ask"]}
    decision: ask
    because: "Somebody looks first."
    examples: {match: [a.ask], not_match: [a.csv]}
"""
READS = CONVERT.replace("    rows", "    files.read_text('a.ask')\n    files.read_text('b.ask')\n    rows", 1)


class Desk:
    """A task that calls a plugin, and where it asks its owner."""

    def __init__(self, shop: Shop, code: str = READS, **more: Any) -> None:
        house = shop.house
        house.install(converting(permissions=Permissions(read=("*.csv", "*.ask"), write=("*.json",)), **more), code)
        for name in ("a.ask", "b.ask"):
            (shop.folder / name).write_text(name)
        self.shop, self.house = shop, house
        self.approvals = Approvals(house.db, house.audit, house.events.emit, house.clock)
        self.queue = Queue(house.db, house.audit, house.events.emit, house.clock, approvals=self.approvals)
        self.inbox = Inbox(house.db, self.queue, self.approvals)
        self.gate = Gate(
            shop.toolbox,
            shop.policy,
            house.audit,
            house.events.emit,
            Outputs(house.db, house.clock),
            house.clock,
            approvals=self.approvals,
        )
        self.task = self.queue.submit(TaskRequest(goal="convert", workspace=str(shop.folder))).id
        shop.tasks.append(self.task)

    def call(self) -> ToolResult:
        """As a worker does it: from the journal, once it has been answered."""
        claimed = self.queue.claim("worker")
        assert claimed is not None
        scope = Scope(
            task=self.task,
            workspace=str(self.shop.folder),
            level=AccessLevel.SAFE_WRITE,
            journal=TaskJournal(self.house.db, claimed, self.house.clock),
            project=ASKS,
        )
        args = {"path": "people.csv", "target": "people.json"}
        try:
            return self.gate.call(ToolCall(tool="csv_to_json", args=args), scope, "1")
        except NeedsApproval as waiting:
            self.queue.wait_for_person(claimed, str(waiting), waiting.request)
            raise

    def parked(self) -> tuple[str, ...]:
        with pytest.raises(NeedsApproval):
            self.call()
        (entry,) = self.inbox.waiting()
        assert entry.request is not None
        return entry.request.actions


def test_what_a_plugin_asks_for_waits_for_a_person_and_is_then_done(shop: Shop) -> None:
    desk = Desk(shop)
    for name in ("a.ask", "b.ask"):
        assert desk.parked() == (f"fs.read {name}",)
        assert not (shop.folder / "people.json").exists()
        desk.inbox.approve(desk.task, by="ann")
    result = desk.call()
    assert (result.ok, result.changed) == (True, ("people.json",))
    (finished,) = desk.house.records("tool.finished")
    assert finished.data["allowed"] == ["fs.read a.ask", "fs.read b.ask"]
    assert (shop.standing("csv_to_json").successes, shop.standing("csv_to_json").failures) == (1, 0)


def test_a_no_is_told_to_the_plugin(shop: Shop) -> None:
    desk = Desk(shop)
    desk.parked()
    desk.inbox.approve(desk.task, by="ann")
    assert desk.parked() == ("fs.read b.ask",)
    desk.inbox.reject(desk.task, by="ann", because="not that one")
    result = desk.call()
    assert (result.ok, "a person refused fs.read b.ask: not that one" in result.text) == (False, True)
    assert not (shop.folder / "people.json").exists()


def test_nobody_is_asked_where_the_call_could_not_begin_anew(shop: Shop) -> None:
    fixed = {"properties": {"path": {"type": "string"}, "target": {"type": "string"}}}
    desk = Desk(shop, input={**converting().input, **fixed})  # names no files: its effect is unsafe
    result = desk.call()
    assert (result.ok, "needs a person's yes" in result.text) == (False, True)
    assert desk.inbox.waiting() == []
