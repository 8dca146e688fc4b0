"""What the guides say is there: addresses, models, headers, settings, commands, and snippets that can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from agentd.api.agent_model import DETACH, WORKSPACE, agent_names
from agentd.api.tool_server import OFFERS
from agentd.cli.main import _COMMANDS
from agentd.config import find_setting
from tests.api.conftest import Served

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
AS_A_MODEL, TOOL_SERVER = GUIDES / "use-as-a-model.md", GUIDES / "tool-server.md"


def blocks(guide: Path, language: str) -> list[str]:
    """The fenced texts of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def values(found: Any, key: str) -> Iterator[Any]:
    """Every value under `key`, however deep."""
    if isinstance(found, dict):
        for name, each in found.items():
            if name == key:
                yield each
            yield from values(each, key)
    elif isinstance(found, list):
        for each in found:
            yield from values(each, key)


@pytest.mark.parametrize("guide", [AS_A_MODEL, TOOL_SERVER], ids=lambda guide: guide.stem)
def test_addresses_headers_settings_and_commands_exist(served: Served, guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    paths = list(served.api.openapi()["paths"])
    addresses = set(re.findall(r"http://127\.0\.0\.1:8765([^\s\"'`)]*)", text))
    assert addresses
    for address in addresses:
        assert address == "" or any(f"{path}/".startswith(f"{address}/") for path in paths), address
    assert set(re.findall(r"X-Agentd-\w+", text)) <= {WORKSPACE, DETACH}
    prose = re.sub(r"```json.*?```", "", text, flags=re.DOTALL)
    settings = set(re.findall(r"\b((?:api|agent|policy|tasks|models)\.[a-z_]+)\b(?!\.)", prose))
    assert "api.tcp" in settings
    for setting in settings:
        find_setting(setting)
    commands = set(re.findall(r"(?:^|`|\()agentd ([a-z]+)", text, re.MULTILINE))
    assert commands
    assert commands <= set(_COMMANDS)


def test_every_model_that_is_named_can_be_asked_for(served: Served) -> None:
    known = {*agent_names(served.app), *served.app.catalog.current().models}
    for text in (AS_A_MODEL.read_text(encoding="utf-8"), TOOL_SERVER.read_text(encoding="utf-8")):
        named = {name.removeprefix("openai/") for name in re.findall(r"\bmodel=\"([^\"]+)\"", text)}
        named |= {name.rstrip(".") for name in re.findall(r"openai/([\w./-]+)", text)}
        assert named
        assert named <= known
    listed = set(re.findall(r"^\| `(agentd[^`]*)` \|", AS_A_MODEL.read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == set(agent_names(served.app))


def test_snippets_can_be_read(served: Served) -> None:
    known = {*agent_names(served.app), *served.app.catalog.current().models}
    snippets = [YAML(typ="safe", pure=True).load(block) for block in blocks(AS_A_MODEL, "yaml")]
    assert len(snippets) == 3
    for snippet in snippets:
        models = {str(name).removeprefix("openai/") for name in values(snippet, "model")}
        assert models <= known
        for base in (*values(snippet, "apiBase"), *values(snippet, "openai-api-base")):
            assert base == "http://127.0.0.1:8765/v1"
        for headers in (*values(snippet, "headers"), *values(snippet, "extra_headers")):
            assert set(headers) == {WORKSPACE}
    python = [*blocks(AS_A_MODEL, "python"), *blocks(TOOL_SERVER, "python")]
    assert len(python) == 3
    for block in python:
        compile(block, "guide", "exec")


def test_the_table_of_tools_is_whole(served: Served) -> None:
    text = TOOL_SERVER.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `POST /tools/(\w+)` \| (.*) \|$", text, re.MULTILINE))
    assert list(rows) == list(OFFERS)
    for name, row in rows.items():
        arguments = set(OFFERS[name].parameters["properties"])
        assert arguments <= set(re.findall(r"`(\w+)`", row)), name


def test_the_refusal_that_is_shown_is_what_comes(served: Served) -> None:
    (shown,) = blocks(TOOL_SERVER, "json")
    body = {"workspace": str(served.workspace), "command": "bash -c ls"}
    assert served.client.post("/tools/shell", json=body).json() == json.loads(shown)
