"""A person's yes at the gate: to exactly what was shown, once, and also after a crash; a no is a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agentd.api.direct import DirectJournal
from agentd.clock import SystemClock
from agentd.errors import BadInput, Conflict, Denied, NeedsApproval
from agentd.events import Bus
from agentd.policy.approvals import Approval, Approvals, State, plan_asked
from agentd.policy.engine import PolicyEngine
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.store.outputs import Outputs
from agentd.tasks.inbox import Inbox
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tools.catalog import builtin
from agentd.tools.gate import Gate
from agentd.types import AccessLevel, Scope, Task, TaskRequest, TaskState, ToolCall, ToolResult
from agentd.workspace.paths import Workspace

OLD = "".join(f"{number}\n" for number in range(30))
NEW = OLD.replace("1\n2\n", "one\n2\n", 1).replace("28\n", "")
WRITE = ToolCall(tool="write_file", args={"path": "setup.cfg", "content": NEW, "mode": "overwrite"})


class Crash(BaseException):
    """The process dies here."""


@dataclass(kw_only=True)
class Bench:
    db: Database
    queue: Queue
    approvals: Approvals
    inbox: Inbox
    gate: Gate
    workspace: Path
    claimed: list[Task] = field(default_factory=list)

    def claim(self) -> Scope:
        task = self.queue.claim("worker")
        assert task is not None
        self.claimed.append(task)
        journal = TaskJournal(self.db, task, SystemClock())
        return Scope(task=task.id, workspace=str(self.workspace), level=AccessLevel.SAFE_WRITE, journal=journal)

    def start(self) -> Scope:
        self.queue.submit(TaskRequest(goal="do it", workspace=str(self.workspace)))
        return self.claim()

    def park(self, scope: Scope, call: ToolCall = WRITE, key: str = "1") -> Approval:
        """The call waits, and so does the task."""
        with pytest.raises(NeedsApproval) as raised:
            self.gate.call(call, scope, key)
        assert raised.value.request is not None
        self.queue.wait_for_person(self.claimed[-1], str(raised.value), raised.value.request)
        return self.approvals.get(raised.value.request)

    def state(self, request: Approval) -> State:
        return self.approvals.get(request.id).state

    @property
    def text(self) -> str:
        return (self.workspace / "setup.cfg").read_text()


@pytest.fixture
def bench(tmp_path: Path, policy: PolicyEngine) -> Iterator[Bench]:
    clock = SystemClock()
    db = Database(tmp_path / "agentd.db", clock=clock)
    audit, events = Audit(db, clock), EventLog(db, Bus(), clock)
    approvals = Approvals(db, audit, events.emit, clock)
    queue = Queue(db, audit, events.emit, clock, approvals=approvals)
    gate = Gate(builtin(), policy, audit, events.emit, Outputs(db, clock), clock, approvals=approvals)
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "setup.cfg").write_text(OLD)
    inbox = Inbox(db, queue, approvals)
    yield Bench(db=db, queue=queue, approvals=approvals, inbox=inbox, gate=gate, workspace=workspace)
    db.close()


def test_a_yes_is_used_once(bench: Bench) -> None:
    request = bench.park(bench.start())
    bench.inbox.approve(request.task, by="ann")
    scope = bench.claim()
    assert bench.gate.call(WRITE, scope, "1").ok
    assert (bench.text, bench.state(request)) == (NEW, State.USED)
    (bench.workspace / "setup.cfg").write_text(OLD)
    assert bench.gate.call(WRITE, scope, "1").ok  # from the journal
    assert bench.text == OLD
    second = bench.park(scope, key="2")  # the very same call again is another request
    assert (second.digest, second.id) == (request.digest, request.id + 1)


def test_a_no_holds_for_the_same_call_later_in_the_task(bench: Bench) -> None:
    request = bench.park(bench.start())
    bench.inbox.reject(request.task, by="ann", because="leave it")
    scope = bench.claim()
    for key in ("1", "2"):
        result = bench.gate.call(WRITE, scope, key)
        assert (result.ok, "a person refused this: leave it" in result.text) == (False, True)
    assert bench.text == OLD


@pytest.mark.parametrize("hunks", [None, [2]])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_between_yes_and_result_runs_it_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, hunks: list[int] | None, when: str
) -> None:
    request = bench.park(bench.start())
    bench.inbox.approve(request.task, by="ann", hunks=hunks)
    wanted = NEW if hunks is None else OLD.replace("28\n", "")
    scope = bench.claim()
    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "write_atomic", _dying(when))
        with pytest.raises(Crash):
            bench.gate.call(WRITE, scope, "1")
    assert bench.state(request) is State.USED
    assert bench.text == (OLD if when == "before" else wanted)
    bench.queue.recover()
    result = bench.gate.call(WRITE, bench.claim(), "1")
    assert (result.ok, bench.text) == (True, wanted)
    assert ("hunk 1" in result.text) == (hunks is not None)


def _dying(when: str) -> Callable[..., None]:
    """`write_atomic` that dies before or after it has written into the workspace; in the copy it works."""
    real = Workspace.write_atomic

    def write(self: Workspace, path: str, data: bytes, key: str = "") -> None:
        scratch = self.root.name.startswith("agentd-preview-")
        if when == "after" or scratch:
            real(self, path, data, key)
        if not scratch:
            raise Crash

    return write


def test_what_a_folder_holds_is_asked_for_together(bench: Bench) -> None:
    (bench.workspace / "pkg").mkdir()
    for name in ("conftest.py", "tox.ini", "a.py"):
        (bench.workspace / "pkg" / name).write_text(f"# {name}\n")
    move = ToolCall(tool="move_path", args={"source": "pkg", "target": "lib"})
    request = bench.park(bench.start(), move)
    assert {"fs.write lib/conftest.py", "fs.delete pkg/tox.ini"} <= set(request.actions)
    assert "+++ b/lib/a.py" in request.shown
    bench.inbox.approve(request.task, by="ann")
    assert bench.gate.call(move, bench.claim(), "1").ok
    assert sorted(path.name for path in (bench.workspace / "lib").iterdir()) == ["a.py", "conftest.py", "tox.ini"]


def test_a_diff_of_several_files_is_shown_whole_and_applied_as_shown(bench: Bench) -> None:
    changed = "--- a/setup.cfg\n+++ b/setup.cfg\n@@ -1,2 +1,2 @@\n-0\n+zero\n 1\n"
    patch = f"{changed}--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+n\n"
    call = ToolCall(tool="apply_patch", args={"patch": patch})
    request = bench.park(bench.start(), call)
    assert ("+++ b/new.txt" in request.shown, "+zero" in request.shown, request.hunks) == (True, True, 0)
    with pytest.raises(BadInput, match="in parts"):
        bench.inbox.approve(request.task, by="ann", hunks=[1])
    bench.inbox.approve(request.task, by="ann")
    assert bench.gate.call(call, bench.claim(), "1").ok
    assert (bench.text, (bench.workspace / "new.txt").read_text()) == ("zero\n" + OLD[2:], "n\n")


def test_a_call_that_would_fail_is_not_asked_for(bench: Bench) -> None:
    call = ToolCall(tool="edit_file", args={"path": "setup.cfg", "search": "nowhere", "replace": "x"})
    result = bench.gate.call(call, bench.start(), "1")
    assert (result.ok, "does not stand in the file" in result.text) == (False, True)
    assert bench.inbox.waiting() == []


def test_a_file_added_or_a_mode_changed_makes_a_yes_void(bench: Bench) -> None:
    new = ToolCall(tool="write_file", args={"path": "tox.ini", "content": "a\n", "mode": "append"})
    request = bench.park(bench.start(), new)
    (bench.workspace / "tox.ini").write_text("mine\n")
    bench.inbox.approve(request.task, by="ann")
    again = bench.park(bench.claim(), new)
    assert (bench.state(request), again.digest != request.digest) == (State.EXPIRED, True)
    (bench.workspace / "tox.ini").chmod(0o600)
    bench.inbox.approve(request.task, by="ann")
    bench.park(bench.claim(), new)
    assert (bench.workspace / "tox.ini").read_text() == "mine\n"


def test_an_answer_before_the_worker_has_let_go_is_not_lost(bench: Bench) -> None:
    scope = bench.start()
    with pytest.raises(NeedsApproval) as raised:
        bench.gate.call(WRITE, scope, "1")
    bench.inbox.approve(scope.task, by="ann")
    assert bench.queue.get(scope.task).state is TaskState.RUNNING
    bench.queue.wait_for_person(bench.claimed[-1], "?", raised.value.request)
    assert bench.queue.get(scope.task).state is TaskState.QUEUED
    assert bench.gate.call(WRITE, bench.claim(), "1").ok


def test_the_second_answer_is_a_conflict(bench: Bench) -> None:
    request = bench.park(bench.start())
    bench.inbox.approve(request.task, by="ann")
    with pytest.raises(Conflict, match="approved already by ann"):
        bench.inbox.reject(request.task, by="bob", because="no", request=request.id)
    with pytest.raises(Conflict, match="approved already by ann"):
        bench.approvals.answer(request, State.REJECTED, by="bob")


def test_a_plan_is_asked_for_in_the_same_way(bench: Bench) -> None:
    scope = bench.start()
    asked = plan_asked(scope.task, "1. delete it all", because="risk 80")
    with pytest.raises(NeedsApproval) as raised:
        bench.approvals.demand(asked)
    bench.queue.wait_for_person(bench.claimed[-1], "?", raised.value.request)
    (entry,) = bench.inbox.waiting()
    assert (entry.kind, entry.request and entry.request.shown) == ("plan", "1. delete it all")
    bench.inbox.approve(scope.task, by="ann")
    for _ in range(2):
        assert bench.approvals.demand(asked).answerer == "ann"
    with pytest.raises(NeedsApproval):
        bench.approvals.demand(replace(asked, digest="0" * 64))


def test_a_deny_is_never_asked_for(bench: Bench) -> None:
    with pytest.raises(Denied):
        bench.gate.call(ToolCall(tool="write_file", args={"path": ".env", "content": "x"}), bench.start(), "1")
    assert bench.approvals.pending() == {}


def test_outside_a_task_nobody_is_asked(bench: Bench) -> None:
    scope = Scope(task="", workspace=str(bench.workspace), level=AccessLevel.SAFE_WRITE, journal=DirectJournal())
    with pytest.raises(NeedsApproval) as raised:
        bench.gate.call(WRITE, scope, "1")
    assert raised.value.request is None


def test_a_link_is_judged_by_what_it_names_and_not_tried_out(bench: Bench) -> None:
    (bench.workspace / "other.txt").symlink_to("setup.cfg")
    call = ToolCall(tool="write_file", args={"path": "other.txt", "content": "x\n", "mode": "overwrite"})
    request = bench.park(bench.start(), call)
    assert '"content": "x\\n"' in request.shown
    bench.inbox.approve(request.task, by="ann")
    result: ToolResult = bench.gate.call(call, bench.claim(), "1")
    assert result.ok, result.text
    assert bench.text == "x\n"


# secrets -------------------------------------------------------------------------------------------------------------

KEYS = ["ghp_" + "aB3dE5fG7h" * 3 + end for end in ("Zx9Kq2", "Yw8Jp1")]


def test_a_person_sees_no_secret_and_their_yes_covers_it_all_the_same(bench: Bench) -> None:
    (bench.workspace / "setup.cfg").write_text(f"key = {KEYS[0]}\nspeed = 1\n")
    edit = ToolCall(tool="edit_file", args={"path": "setup.cfg", "search": "speed = 1", "replace": "speed = 2"})
    request = bench.park(bench.start(), edit)
    assert " key = [left out: GitHub token]\n-speed = 1\n+speed = 2\n" in request.shown
    (bench.workspace / "setup.cfg").write_text(f"key = {KEYS[1]}\nspeed = 1\n")
    bench.inbox.approve(request.task, by="ann")
    again = bench.park(bench.claim(), edit)  # what is shown looks the same, and is not
    assert (again.shown, again.digest != request.digest) == (request.shown, True)
    bench.inbox.approve(request.task, by="ann")
    assert bench.gate.call(edit, bench.claim(), "1").ok
    assert bench.text == f"key = {KEYS[1]}\nspeed = 2\n"


def test_words_of_a_person_and_what_a_command_names_are_kept_without_secrets(bench: Bench) -> None:
    scope = bench.start()
    asked = replace(plan_asked(scope.task, "x", because=f"for {KEYS[0]}"), actions=(f"shell.exec curl {KEYS[0]}",))
    bench.approvals.answer(bench.approvals.open(asked), State.REJECTED, by="ann", words=f"not with {KEYS[0]}")
    assert KEYS[0] not in json.dumps(bench.db.rows("SELECT * FROM approvals"))
    assert bench.approvals.of(scope.task)[0].words == "not with [left out: GitHub token]"
