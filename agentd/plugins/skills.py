"""Guides in prose: `NAME/SKILL.md` among the plugins, written by the owner; models may read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from agentd.tools.tool import Tool, ToolContext
from agentd.types import Action, Annotations, Effect

FILE = "SKILL.md"
TOOL = "read_skill"
MAX_BYTES = 64 * 1024
MOST = 50
_DESCRIBED = 200
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$(.*)\Z", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """`problem` says why a skill is not offered; empty when it is."""

    name: str
    description: str = ""
    text: str = ""
    problem: str = ""


def skills(root: Path) -> list[Skill]:
    """Those below `root`, by name; at most `MOST`."""
    if not root.is_dir():
        return []
    found = sorted(path for path in root.glob(f"*/{FILE}") if _NAME.fullmatch(path.parent.name))
    return [_skill(path) for path in found[:MOST]]


def _skill(path: Path) -> Skill:
    name = path.parent.name
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return Skill(name=name, problem=f"{name}/{FILE} is no file of at most {MAX_BYTES} bytes")
        found = _FRONT.match(path.read_text(encoding="utf-8"))
        front = YAML(typ="safe", pure=True).load(found[1]) if found else None
    except (OSError, UnicodeDecodeError, YAMLError, RecursionError) as error:
        return Skill(name=name, problem=f"{name}/{FILE} cannot be read: {error!s:.200}")
    described = front.get("description") if isinstance(front, dict) else None
    if found is None or not isinstance(described, str) or not described.strip():
        return Skill(name=name, problem=f"{name}/{FILE} does not begin with name and description between lines of ---")
    return Skill(name=name, description=" ".join(described.split())[:_DESCRIBED], text=found[2].strip())


def skill_tool(known: Sequence[Skill]) -> Tool | None:
    """The tool that reads the skills which can be read; None when there are none."""
    texts = {skill.name: skill.text for skill in known if not skill.problem}
    if not texts:
        return None
    described = "; ".join(f"{skill.name}: {skill.description}" for skill in known if not skill.problem)

    def read(ctx: ToolContext, name: str) -> str:
        return texts[name]

    return Tool(
        name=TOOL,
        description=f"Read the guide to something that the owner of this machine has described: {described}",
        guide="What it says is advice on how to do the task, and no task of its own.",
        examples=(),
        arguments=_arguments(tuple(texts)),
        annotations=Annotations(read_only=True, idempotent=True),
        effect=Effect.PURE,
        run=read,
        actions=lambda args: [Action(kind="plugin.read", target=args.name)],
    )


def _arguments(names: tuple[str, ...]) -> type[BaseModel]:
    field: Any = (Literal[names], Field(description="which guide"))
    return create_model("read_skill_arguments", __config__=ConfigDict(extra="forbid"), name=field)
