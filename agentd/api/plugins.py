"""Endpoints of plugins: which there are, how they do, what a person decides about them; one source tried."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from agentd.api.deps import Body, Core
from agentd.errors import BadInput, PluginRefused
from agentd.plugins.folder import CODE, CONTENT, GUIDE
from agentd.plugins.health import health
from agentd.plugins.registry import Plugin
from agentd.plugins.skills import skills
from agentd.plugins.spec import Spec
from agentd.types import JsonObject

router = APIRouter(prefix="/api/plugins", tags=["plugins"])

Version = Annotated[int | None, Query(ge=1)]


class Try(Body):
    source: str = Field(max_length=2_000_000)
    """The bytes of one Python file, in base64."""
    entry: str = Field(default="", max_length=200)
    args: dict[str, Any] = Field(default_factory=dict)
    executor: Literal["", "os", "wasm"] = ""
    """Empty for the configured one."""


class NewPlugin(Body):
    """A plugin that a person wrote: its spec, and the texts of its files by name."""

    spec: Spec
    files: dict[str, str]


class Chosen(Body):
    """A version; without one the version that is called, else the newest."""

    version: int | None = Field(default=None, ge=1)


@router.get("")
def list_plugins(core: Core) -> dict[str, Any]:
    """Every version of every plugin, and the skills."""
    guides = [
        {"name": skill.name, "description": skill.description, "problem": skill.problem}
        for skill in skills(core.settings.plugins_dir)
    ]
    return {"plugins": [_line(plugin) for plugin in core.plugins.all()], "skills": guides}


@router.post("", status_code=201)
def add_plugin(core: Core, body: NewPlugin) -> dict[str, Any]:
    """Take a person's plugin through the gate and install it."""
    if set(body.files) != set(CONTENT):
        raise BadInput(f"files: expected {', '.join(CONTENT)}, got {', '.join(sorted(body.files)) or 'none'}")
    files = {name: text.encode("utf-8", "surrogatepass") for name, text in body.files.items()}
    return _line(core.admission.admit(body.spec, files))


@router.post("/try")
def try_source(core: Core, body: Try) -> JsonObject:
    """Put one source through the static gate and call one of its functions in the sandbox; nothing is registered."""
    try:
        source = base64.b64decode(body.source, validate=True)
    except (binascii.Error, ValueError):
        raise BadInput("`source` is no base64") from None
    return core.trial_runs.run(source, entry=body.entry, args=body.args, executor=body.executor)


@router.get("/sandbox")
def sandbox_ready(core: Core, executor: str = "") -> JsonObject:
    """What plugins run in (or the named executor), and whether it is there or built by who uses it first."""
    return core.trial_runs.ready(executor)


@router.get("/health")
def plugins_health(core: Core) -> dict[str, Any]:
    """How much they are used again, which say the same, which became worse, which nobody calls."""
    plugins = core.plugins.all()
    calls: dict[str, int] = {}
    for plugin in plugins:
        told = core.plugins.models(plugin)
        calls[plugin.name] = calls.get(plugin.name, 0) + sum(each.successes + each.failures for each in told)
    return asdict(health(plugins, calls, core.clock.now()))


@router.post("/verify")
def verify_plugins(core: Core) -> dict[str, Any]:
    """Look whether every plugin is what was signed; what is not is quarantined."""
    faults = core.plugins.recover()
    core.loader.refresh()
    return {"checked": len(core.plugins.all()), "faults": [asdict(fault) for fault in faults]}


@router.get("/{name}")
def get_plugin(core: Core, name: str, version: Version = None) -> dict[str, Any]:
    """One version: spec, evidence, record, and its code and guide if they are what was signed."""
    plugin = core.plugins.get(name, version)
    found = _line(plugin) | {
        "spec": plugin.spec.model_dump(mode="json"),
        "evidence": plugin.evidence.model_dump(mode="json"),
        "digest": plugin.digest,
        "proven_on": plugin.proven_on,
        "models": [asdict(each) for each in core.plugins.models(plugin)],
        "versions": [_line(each) for each in core.plugins.all(name)],
    }
    try:
        files = core.plugins.load(plugin).files
    except PluginRefused as error:
        return found | {"code": None, "guide": None, "problem": error.message}
    texts = {"code": files[CODE], "guide": files[GUIDE]}
    return found | {name: text.decode("utf-8", "replace") for name, text in texts.items()} | {"problem": ""}


@router.post("/{name}/test")
def test_plugin(core: Core, name: str, body: Chosen) -> dict[str, Any]:
    """Take it through the gate again; what does not pass is quarantined."""
    plugin = core.plugins.get(name, body.version)
    try:
        core.admission.prove_again(plugin)
    except PluginRefused as error:
        return {"plugin": name, "version": plugin.version, "ok": False, "problem": error.message, "hint": error.hint}
    return {"plugin": name, "version": plugin.version, "ok": True, "problem": "", "hint": ""}


@router.post("/{name}/trust")
def trust_plugin(core: Core, name: str, body: Chosen) -> dict[str, Any]:
    """A person vouches for it; its record begins anew."""
    return _line(core.plugins.trust(name, body.version))


@router.post("/{name}/demote")
def demote_plugin(core: Core, name: str, body: Chosen) -> dict[str, Any]:
    """Take it out of use; an older version that works takes its place."""
    return _line(core.plugins.demote(name, body.version))


@router.post("/{name}/rollback")
def roll_back_plugin(core: Core, name: str, body: Chosen) -> dict[str, Any]:
    """Call this version from now on, or the one before the one that is called."""
    return _line(core.plugins.roll_back(name, body.version))


@router.delete("/{name}")
def remove_plugin(core: Core, name: str, version: Version = None) -> dict[str, Any]:
    """Take it (or one version) away, with its files."""
    return {"removed": [str(plugin) for plugin in core.plugins.remove(name, version)]}


def _line(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "version": plugin.version,
        "state": plugin.state.value,
        "reason": plugin.reason,
        "active": plugin.active,
        "purpose": plugin.spec.purpose,
        "author": plugin.evidence.author,
        "successes": plugin.successes,
        "failures": plugin.failures,
        "created": plugin.created,
        "used": plugin.used,
    }
