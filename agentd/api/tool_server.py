"""Our tools for other agents: few, with plain arguments, through the same gate, policy and audit as our own calls."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from agentd.api.agent_model import WORKSPACE, header_text
from agentd.api.deps import Core
from agentd.api.direct import level_of, run_tool
from agentd.app import App
from agentd.errors import BadInput
from agentd.types import AccessLevel, ToolCall, ToolResult

router = APIRouter(prefix="/tools", tags=["tool server"])


class _Call(BaseModel):
    """On whose behalf a tool is called; the rest of a body are the tool's own arguments."""

    model_config = ConfigDict(extra="forbid", strict=True)
    workspace: str = Field("", description=f"the folder to work in; else the header {WORKSPACE}, else api.workspace")
    level: int | None = Field(None, ge=0, le=4, description="access level; no higher than policy.max_level")


class ReadFile(_Call):
    """Read a text file. A long text is cut; `read_output` gives the rest under the handle of the result."""

    path: str = Field(description="file, relative to the workspace")
    start: int = Field(1, ge=1, description="first line, from 1")
    lines: int = Field(400, ge=1, le=5000, description="how many lines")


class WriteFile(_Call):
    """Write a whole text file (`overwrite`, with `content`), or change a part of one (`patch`, with `diff`, or with
    `search` and `replace`)."""

    path: str = Field(description="file, relative to the workspace; its folders are made")
    mode: Literal["overwrite", "patch"] = Field("overwrite", description="write the whole file, or change a part of it")
    content: str | None = Field(None, description="overwrite: the whole text")
    diff: str = Field("", description="patch: a unified diff of the file")
    search: str = Field("", description="patch: text that stands in the file, exactly and once")
    replace: str = Field("", description="patch: the text to put in its place")
    all: bool = Field(False, description="patch: replace it everywhere")


class ListDir(_Call):
    """List the files and folders of a folder."""

    path: str = Field(".", description='folder, relative to the workspace; "." is its root')


class Search(_Call):
    """Find the lines that contain a text, in all files or below one path."""

    text: str = Field(description="what to look for")
    path: str = Field(".", description="file or folder, relative to the workspace")
    regex: bool = Field(False, description="take the text as a regular expression")
    glob: str = Field("", max_length=500, description="only files like this, such as *.py")
    ignore_case: bool = Field(False, description="upper and lower case are the same")


class Git(_Call):
    """Run `git status`, `diff`, `log` or `commit` in the workspace; nothing is fetched or published."""

    args: list[str] = Field(min_length=1, max_length=500, description='such as ["log", "--oneline", "-5"]')


class Shell(_Call):
    """Run one program with its arguments. There is no shell: no pipes, variables or wildcards. Which programs may run
    is a matter of the level; `data.code` is the exit code."""

    command: str = Field(description="the command line, such as pytest -q")


class ReadOutput(_Call):
    """Read on in an output that was cut."""

    handle: str = Field(max_length=100, description="the handle of the result that was cut")
    start: int = Field(1, ge=1, description="first line, from 1")
    lines: int = Field(200, ge=1, le=2000, description="how many lines")


@dataclass(frozen=True, slots=True)
class _Offer:
    """A tool as others see it, and the call of ours that it stands for."""

    name: str
    body: type[_Call]
    call: Callable[[Any], ToolCall]

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the tool's own arguments: where and at which level is for the agent's owner to say."""
        schema = self.body.model_json_schema()
        own = {name: each for name, each in schema["properties"].items() if name not in _Call.model_fields}
        return {
            "type": "object",
            "properties": own,
            "required": schema.get("required", []),
            "additionalProperties": False,
        }

    @property
    def description(self) -> str:
        return " ".join((self.body.__doc__ or "").split())


def _same(name: str) -> Callable[[_Call], ToolCall]:
    """Our tool of this name takes the same arguments."""
    return lambda body: ToolCall(tool=name, args=body.model_dump(exclude=set(_Call.model_fields)))


def _write(body: WriteFile) -> ToolCall:
    patch = {"search": body.search, "replace": body.replace, "all": body.all, "diff": body.diff}
    if body.mode == "patch":
        if body.content is not None:
            raise BadInput("content is for mode overwrite", hint="a patch takes diff, or search and replace")
        return ToolCall(tool="edit_file", args={"path": body.path} | patch)
    if body.content is None or any(patch.values()):
        raise BadInput("mode overwrite takes content and nothing else", hint="set mode to patch to change a part")
    return ToolCall(tool="write_file", args={"path": body.path, "content": body.content, "mode": "overwrite"})


def _search(body: Search) -> ToolCall:
    args = body.model_dump(exclude={*_Call.model_fields, "text"})
    return ToolCall(tool="search_text", args=args | {"pattern": body.text})


def _git(body: Git) -> ToolCall:
    return ToolCall(tool="run_command", args={"command": shlex.join(["git", *body.args])})


OFFERS = {
    offer.name: offer
    for offer in (
        _Offer("read_file", ReadFile, _same("read_file")),
        _Offer("write_file", WriteFile, _write),
        _Offer("list_dir", ListDir, _same("list_dir")),
        _Offer("search", Search, _search),
        _Offer("git", Git, _git),
        _Offer("shell", Shell, _same("run_command")),
        _Offer("read_output", ReadOutput, _same("read_output")),
    )
}


@router.get("")
def list_tools(form: Annotated[Literal["plain", "openai"], Query(alias="format")] = "plain") -> list[dict[str, Any]]:
    """The tools with the JSON schemas of their arguments; `format=openai` as the `tools` of a chat request."""
    if form == "openai":
        return [{"type": "function", "function": _function(offer)} for offer in OFFERS.values()]
    return [_function(offer) | {"path": f"{router.prefix}/{offer.name}"} for offer in OFFERS.values()]


def _function(offer: _Offer) -> dict[str, Any]:
    return {"name": offer.name, "description": offer.description, "parameters": offer.parameters}


def _run(core: App, request: Request, name: str, body: _Call) -> ToolResult:
    """What a tool gave back; `ok` is false when it ran and failed. A refusal of policy is an error."""
    call = OFFERS[name].call(body)
    level = level_of(core, None if body.level is None else AccessLevel(body.level))
    return run_tool(core, call, _workspace(core, request, body), level, request.app.state.stopping)


def _workspace(core: App, request: Request, body: _Call) -> str:
    named = body.workspace or header_text(request.headers, WORKSPACE) or core.settings.api.workspace
    if not named:
        raise BadInput(
            "it is not said in which folder to work",
            hint=f"send workspace in the body or in the header {WORKSPACE}, or set api.workspace",
        )
    return named


@router.post("/read_file")
def read_file(core: Core, request: Request, body: ReadFile) -> ToolResult:
    """Read a text file of the workspace."""
    return _run(core, request, "read_file", body)


@router.post("/write_file")
def write_file(core: Core, request: Request, body: WriteFile) -> ToolResult:
    """Write a file of the workspace, or change a part of it."""
    return _run(core, request, "write_file", body)


@router.post("/list_dir")
def list_dir(core: Core, request: Request, body: ListDir) -> ToolResult:
    """List a folder of the workspace."""
    return _run(core, request, "list_dir", body)


@router.post("/search")
def search(core: Core, request: Request, body: Search) -> ToolResult:
    """Find text in the files of the workspace."""
    return _run(core, request, "search", body)


@router.post("/git")
def git(core: Core, request: Request, body: Git) -> ToolResult:
    """Run a git command that policy allows."""
    return _run(core, request, "git", body)


@router.post("/shell")
def shell(core: Core, request: Request, body: Shell) -> ToolResult:
    """Run a program that policy allows."""
    return _run(core, request, "shell", body)


@router.post("/read_output")
def read_output(core: Core, request: Request, body: ReadOutput) -> ToolResult:
    """Read on in an output that was cut."""
    return _run(core, request, "read_output", body)
