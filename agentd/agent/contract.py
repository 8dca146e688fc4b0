"""When a task counts as done: what its owner, its project, its plan and agentd itself ask for, frozen before work."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentd.agent.work import Work
from agentd.errors import BadInput, ToolFailed, ToolMisused
from agentd.policy.commands import fold
from agentd.policy.patterns import PatternError, path_pattern
from agentd.tools.project import steering
from agentd.tools.shell import parse
from agentd.types import AccessLevel, Check, CheckKind, Plan
from agentd.workspace.paths import Workspace

FILE = ".agentd/config.toml"
"""What a project says of its own checks. It may ask for more, never allow more: its commands are judged as a plan's."""
MAX_BYTES = 64 * 1024
MOST = 50
"""Checks, constraints or boundaries of one project."""
_FILES_SEEN = 5_000
By: TypeAlias = Literal["user", "project", "plan", "council", "agentd"]
_CODE = re.compile(r"\.(?:pyi?|[cm]?jsx?|tsx?|go|rs|[ch](?:c|pp)?|java|kt|cs|rb|php|swift)", re.IGNORECASE)


class _Done(BaseModel):
    """Which checks agentd adds when code was changed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tests: bool = True
    lint: bool = True
    secrets: bool = True
    docs: bool = True


class Project(BaseModel):
    """The contents of `.agentd/config.toml`; all of it may be missing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    checks: dict[str, str] = Field(default={}, max_length=MOST)
    """Commands that must exit with 0, by a name that is for people."""
    constraints: list[str] = Field(default=[], max_length=MOST)
    boundaries: list[str] = Field(default=[], max_length=MOST)
    stop_when: Literal["steps_done", "checks_pass"] = "steps_done"
    done: _Done = _Done()


def agreed(work: Work, plan: Plan) -> Plan:
    """The plan with the checks, constraints and boundaries of everyone who has a say; the same after a crash.

    Raises `BadInput` for a project's file that cannot be read: work on half of what it asks for would be worse.
    """
    found = work.remember(lambda: _found(work.workspace))
    project = Project.model_validate(found["project"])
    runs = work.task.level >= AccessLevel.RUN_TESTS
    commands = [Check(target=line, by="project") for line in project.checks.values() if runs]
    own = [Check(target=line, by="agentd") for line in found["own"] if runs]
    given = {check.target for check in (*work.task.checks, *commands)}
    checks = (*work.task.checks, *commands, *plan.checks, *(check for check in own if check.target not in given))
    fences = [
        *_boundaries("user", work.task.boundaries),
        *_boundaries("project", project.boundaries),
        *_boundaries("plan", plan.boundaries),
    ]
    return replace(
        plan,
        outcome=plan.outcome or work.task.goal,
        checks=tuple(dict.fromkeys((*checks, *fences, *_facts(project)))),
        constraints=(*project.constraints, *plan.constraints),
        stop_when=plan.stop_when if project.stop_when == "steps_done" else project.stop_when,
    )


def outside(checks: Sequence[Check], path: str) -> str:
    """The boundaries that a path lies outside of, as they were written; empty when it lies inside all."""
    for check in checks:
        if check.kind is CheckKind.BOUNDARIES and not path_pattern(check.target.split("\n")).fullmatch(fold(path)):
            return ", ".join(check.target.split("\n"))
    return ""


def is_code(path: str) -> bool:
    return _CODE.fullmatch(PurePosixPath(path).suffix) is not None


def _boundaries(by: By, globs: Sequence[str]) -> list[Check]:
    return [Check(kind=CheckKind.BOUNDARIES, target="\n".join(globs), by=by)] if globs else []


def _facts(project: Project) -> Iterator[Check]:
    if project.done.secrets:
        yield Check(kind=CheckKind.SECRETS, target="what was changed", by="agentd")
    if project.done.docs:
        yield Check(kind=CheckKind.DOCS, target="what was changed", by="agentd")


def _found(workspace: Workspace) -> dict[str, Any]:
    project = read_project(workspace)
    files = list(islice(workspace.files(), _FILES_SEEN))
    own = list(_tests(workspace, files)) if project.done.tests else []
    own += _lint(workspace, files) if project.done.lint else ()
    return {"project": project.model_dump(), "own": own}


def read_project(workspace: Workspace) -> Project:
    """What the project says of itself, or `BadInput` that names the field."""
    try:
        text = steering(workspace, FILE, MAX_BYTES)
        if text is None:
            return Project()
        project = Project.model_validate(tomllib.loads(text))
        if wrong := misplaced(project.boundaries):
            raise BadInput(f"{FILE}: boundaries: {wrong}", hint="for example src/** or *.md")
        for name, line in project.checks.items():
            _refuse_unreadable(name, line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(Project.model_fields)
        raise BadInput(f"{FILE}: {where}: {first['msg']}", hint=f"there are {known}") from None
    except (ValueError, RecursionError, ToolFailed) as error:
        raise BadInput(f"{FILE} cannot be taken: {error}", hint="docs/guides/done.md shows one") from None
    return project


def misplaced(globs: Sequence[str]) -> str:
    """What is wrong with boundaries; empty when they can be taken."""
    for glob in globs:
        if not glob or ".." in glob.split("/"):
            return f"{glob[:60]!r} names nothing below the workspace"
        try:
            path_pattern([glob])
        except PatternError as error:
            return str(error)
    return ""


def _refuse_unreadable(name: str, line: str) -> None:
    try:
        parse(line)
    except ToolMisused as error:
        raise BadInput(f"{FILE}: checks.{name[:60]}: {error.message}", hint=error.hint) from None


def _tests(workspace: Workspace, files: Sequence[str]) -> Iterator[str]:
    """The command that runs the project's tests, if it has any that are known."""
    names = [PurePosixPath(path) for path in files]
    if any(p.suffix == ".py" and (p.name.startswith("test_") or p.stem.endswith("_test")) for p in names):
        yield "python -m pytest -q"
    elif "test" in _scripts(workspace, files):
        yield "npm test --silent"


def _lint(workspace: Workspace, files: Sequence[str]) -> Iterator[str]:
    if "ruff.toml" in files or ".ruff.toml" in files or "[tool.ruff" in _text(workspace, files, "pyproject.toml"):
        yield "ruff check"
    elif "lint" in _scripts(workspace, files):
        yield "npm run lint --silent"


def _scripts(workspace: Workspace, files: Sequence[str]) -> dict[str, Any]:
    try:
        scripts = json.loads(_text(workspace, files, "package.json") or "{}").get("scripts", {})
    except (ValueError, RecursionError, AttributeError):
        return {}
    return scripts if isinstance(scripts, dict) else {}


def _text(workspace: Workspace, files: Sequence[str], name: str) -> str:
    return workspace.read_bytes(name, MAX_BYTES * 16).decode("utf-8", "replace") if name in files else ""
