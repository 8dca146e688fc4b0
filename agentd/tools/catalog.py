"""All tools that agentd has built in."""

from __future__ import annotations

from agentd.tools import code, files, git, patches, search, shell
from agentd.tools.tool import Tool

_MODULES = (files, patches, search, git, code, shell)


def builtin() -> dict[str, Tool]:
    """Every built-in tool by name. `read_output` needs a store and is made by `outputs.read_output_tool`."""
    tools = [value for module in _MODULES for value in vars(module).values() if isinstance(value, Tool)]
    return {each.name: each for each in tools}
