"""What a submitted request must look like before the queue takes it."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentd.errors import BadInput, Denied
from agentd.policy.patterns import PatternError, path_pattern
from agentd.types import AccessLevel, Budget, Check, CheckKind, TaskRequest
from agentd.workspace.paths import Workspace

MAX_GOAL = 64 * 1024
"""Bytes of UTF-8."""
MAX_LINE = 4096
"""Characters of a check's command, path or text."""
MAX_ENTRIES = 100
"""Checks and boundaries of a task, and tasks it waits for."""
MAX_PRIORITY = 1000
MAX_KEY = 200
"""Characters of an idempotency key."""

_OWNERS = (CheckKind.COMMAND, CheckKind.FILE_EXISTS, CheckKind.FILE_ABSENT, CheckKind.FILE_CONTAINS)
_LISTED = ", ".join(_OWNERS)

_NOT_PLAIN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request gets that does not say, and the highest level that any request may have."""

    level: AccessLevel = AccessLevel.RUN_TESTS
    max_level: AccessLevel = AccessLevel.GIT_COMMIT
    budget: Budget = field(default_factory=Budget)


def accepted(request: TaskRequest, defaults: Defaults, now: float, known: Callable[[str], bool]) -> TaskRequest:
    """The request with every default filled in and its workspace resolved; else `BadInput` or `Denied`.

    `known` says whether a task id exists; `now` is Unix seconds.
    """
    _check_goal(request.goal)
    workspace = accepted_workspace(request.workspace)
    _check_checks(request.checks, workspace)
    check_boundaries(request.boundaries)
    _check_mode(request, known)
    _check_times(request, now)
    _check_after(request.after, known)
    if abs(request.priority) > MAX_PRIORITY:
        raise BadInput(f"priority {request.priority} is outside -{MAX_PRIORITY} to {MAX_PRIORITY}")
    return replace(
        request,
        workspace=str(workspace.root),
        level=_level(request.level, defaults),
        budget=_budget(request.budget or defaults.budget),
        after=tuple(dict.fromkeys(request.after)),
    )


def check_key(key: str | None) -> None:
    """`BadInput` unless the idempotency key is absent or 1 to 200 printable characters."""
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        raise BadInput(f"the idempotency key {key[:40]!r} is not 1 to {MAX_KEY} printable characters")


def _check_goal(goal: str) -> None:
    size = len(goal.encode("utf-8", "surrogatepass"))
    if size > MAX_GOAL:
        raise BadInput(
            f"the goal has {size:,} bytes; the most is {MAX_GOAL:,}",
            hint="put the long part into a file of the workspace and name that file in the goal",
        )
    _check_plain(goal, "the goal")
    if not goal.strip():
        raise BadInput("the goal is empty", hint="say in words what is to be done")


def _check_plain(text: str, what: str) -> None:
    """Text a person could have typed: no control characters but tab and line ends, no half characters."""
    odd = _NOT_PLAIN.search(text)
    if odd:
        raise BadInput(
            f"{what} is not plain text: U+{ord(odd.group()):04X} at character {odd.start() + 1}",
            hint="give text; name a binary file by its path instead",
        )


def accepted_workspace(path: str) -> Workspace:
    """The folder at this absolute path; `BadInput` for what is no folder to work in."""
    _check_plain(path, "the workspace")
    if not path.strip():
        raise BadInput("the workspace is empty", hint="name the folder in which to work")
    if not Path(path).is_absolute():
        raise BadInput(f"the workspace {path!r} is not an absolute path", hint="give the whole path of the folder")
    return Workspace(Path(path))


def _level(level: AccessLevel | None, defaults: Defaults) -> AccessLevel:
    if level is None:
        return min(defaults.level, defaults.max_level)
    if level > defaults.max_level:
        raise Denied(
            f"level {int(level)} is above the highest that is allowed here, {int(defaults.max_level)}",
            hint=f"ask for level {int(defaults.max_level)} or lower, or raise policy.max_level in agentd.toml",
        )
    return AccessLevel(level)


def _budget(budget: Budget) -> Budget:
    for name, value in {"tokens": budget.tokens, "seconds": budget.seconds}.items():
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"the budget's {name} is {value}; it must be a number above 0")
    for name, value in {"steps": budget.steps, "retries": budget.retries}.items():
        if value < 0:
            raise BadInput(f"the budget's {name} is {value}; it must be 0 or more")
    return budget


def _check_checks(checks: tuple[Check, ...], workspace: Workspace) -> None:
    if len(checks) > MAX_ENTRIES:
        raise BadInput(f"{len(checks)} checks; the most is {MAX_ENTRIES}")
    for check in checks:
        what = f"the check {check.target[:60]!r}"
        if max(len(check.target), len(check.text)) > MAX_LINE:
            raise BadInput(f"{what} is longer than {MAX_LINE:,} characters")
        _check_plain(check.target + check.text, what)
        if check.by != "user" or check.kind not in _OWNERS:
            raise BadInput(f"{what} is not one to ask for: {check.kind} by {check.by}", hint=f"kinds: {_LISTED}")
        if check.kind is CheckKind.COMMAND:
            _check_command(check.target)
        else:
            workspace.resolve(check.target)
        if check.kind is CheckKind.FILE_CONTAINS and not check.text:
            raise BadInput(f"{what} does not say which text the file must contain")


def check_boundaries(globs: tuple[str, ...]) -> None:
    """`BadInput` for what is no glob of paths below the workspace."""
    if len(globs) > MAX_ENTRIES:
        raise BadInput(f"{len(globs)} boundaries; the most is {MAX_ENTRIES}")
    for glob in globs:
        _check_plain(glob, "the boundary")
        try:
            path_pattern([glob])
        except PatternError as error:
            raise BadInput(
                f"the boundary {glob[:60]!r} is no glob: {error}", hint="for example src/** or *.md"
            ) from None
        if not glob or ".." in glob.split("/"):
            raise BadInput(f"the boundary {glob[:60]!r} names nothing below the workspace", hint="for example src/**")


def _check_command(line: str) -> None:
    try:
        argv = shlex.split(line)
    except ValueError as error:
        raise BadInput(f"the check {line!r} is not a command line: {error}", hint="close every quote") from None
    if not argv or not argv[0]:
        raise BadInput(f"the check {line!r} names no program", hint='for example --check "python -m pytest -q"')


def _check_mode(request: TaskRequest, known: Callable[[str], bool]) -> None:
    if request.tool and request.mode != "real":
        raise BadInput("a tool is made for this home, and not in a copy", hint="leave the mode out")
    if request.applies is None:
        return
    if request.mode != "real":
        raise BadInput("changes are applied to the workspace itself", hint="leave the mode out")
    if not known(request.applies):
        raise BadInput(f"there is no task {request.applies[:60]!r} to apply", hint="`agentd ps -a` lists the tasks")


def _check_times(request: TaskRequest, now: float) -> None:
    for name, value in (("not_before", request.not_before), ("deadline", request.deadline)):
        if value is not None and not math.isfinite(value):
            raise BadInput(f"{name} is {value}; it must be Unix seconds")
    if request.deadline is None:
        return
    if request.deadline <= now:
        raise BadInput(f"the deadline is {now - request.deadline:.0f} s in the past", hint="give a later deadline")
    if request.not_before is not None and request.not_before >= request.deadline:
        raise BadInput("the task may not start before its deadline is over", hint="give a later deadline")


def _check_after(after: tuple[str, ...], known: Callable[[str], bool]) -> None:
    if len(after) > MAX_ENTRIES:
        raise BadInput(f"{len(after)} tasks to wait for; the most is {MAX_ENTRIES}")
    for task in after:
        if not known(task):
            raise BadInput(f"there is no task {task[:60]!r} to wait for", hint="`agentd ps -a` lists the tasks")
