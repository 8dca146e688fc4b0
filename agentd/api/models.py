"""Endpoints of the models: which there are, what is known of one; fetch, load, measure, remove."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict
from math import prod
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from agentd.api.deps import Body, Core
from agentd.api.ndjson import Tell, stream
from agentd.app import App
from agentd.backends import devices, gguf_file
from agentd.backends.catalog import ModelEntry
from agentd.backends.download import Web
from agentd.backends.fit import choose_file
from agentd.backends.pull import Order
from agentd.backends.removal import remove
from agentd.backends.speed import measure
from agentd.errors import AgentdError, BadInput, Conflict, ModelError
from agentd.home import defaults_dir
from agentd.policy.sending import check_pulling

router = APIRouter(prefix="/api/models", tags=["models"])

TOKEN = "HF_TOKEN"
"""Name of the hub's token, in the environment and in the vault."""
_MIB = 1024 * 1024
_LONGEST_NAME = 200


class ModelBody(Body):
    """A model by its name in the catalog, or by the whole path of a GGUF file."""

    model: str = Field(min_length=1, max_length=4096)


class BenchBody(ModelBody):
    """`cold` unloads it first, so that the load is measured too; sizes in tokens."""

    prompt_tokens: int = Field(512, ge=1, le=1_000_000)
    tokens: int = Field(64, ge=8, le=10_000)
    cold: bool = False


class PullBody(Body):
    """`reference`: ORG/REPO, ORG/REPO:QUANT, ORG/REPO/FILE.gguf or an address. `hub` and `token` as in the caller's
    environment; a token is shown to that hub alone."""

    reference: str = Field(min_length=1, max_length=4096)
    sha256: str | None = None
    name: str | None = None
    hub: str | None = Field(None, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")
    token: str | None = Field(None, min_length=1, max_length=1000, pattern=r"^[!-~]+$")


@router.get("")
def list_models(core: Core) -> dict[str, Any]:
    """The roles with their candidates in order, the models of the catalog, which of them are in memory, and what is
    wrong with the catalog as it stands in the file now, if anything is."""
    return {
        "roles": core.catalog.current().roles,
        "models": core.models.describe(),
        "loaded": core.models.loaded(),
        "problem": problem(core),
    }


@router.get("/{name:path}")
def show_model(core: Core, name: str) -> dict[str, Any]:
    """All that is known of one model: its entry, what its file's header says, how it is or would be loaded."""
    entry = core.catalog.current().entry(name)
    rows = {row["name"]: row for row in core.models.describe()}
    row = rows.get(entry.name) or {"name": entry.name, "backend": entry.backend, "roles": _roles(core, entry)}
    probed = core.prober.profiles.get(entry)
    profile = None if probed is None else asdict(probed)
    return row | {"entry": _entry(entry), "header": _header(entry), "profile": profile}


@router.post("/pull")
def pull_model(core: Core, request: Request, body: PullBody) -> StreamingResponse:
    """Fetch a model and enter it in the catalog; lines of JSON with `event`: chosen, progress, retry, checking, done.
    The last may be `{"error": ...}` instead. Whoever goes away stops it; what has come is kept for the next time."""
    return stream(request, lambda tell, cancel: _pull(core, body, tell, cancel))


@router.post("/load")
def load_model(core: Core, request: Request, body: ModelBody) -> dict[str, Any]:
    """Load a model into memory now; also one that is no part of the catalog, by its path."""
    entry = _local(core, body.model)
    return core.models.load(entry.name, cancel=request.app.state.stopping)


@router.post("/unload")
def unload_model(core: Core, body: ModelBody) -> dict[str, Any]:
    """Give a model's memory back; refused while requests use it."""
    entry = _local(core, body.model)
    core.prober.give_way(entry.name)
    core.models.unload(entry.name)
    return {"model": entry.name, "state": "available"}


@router.post("/remove")
def remove_model(core: Core, body: ModelBody) -> dict[str, Any]:
    """Delete a model's file, if it lies among our models, and its entry. Refused while it is in memory."""
    if _is_loaded(core, body.model):
        raise Conflict(f"{body.model} is in memory", hint=f"agentd model unload {body.model}")
    removed = remove(body.model, core.catalog.current(), core.catalog.folder, defaults_dir() / "models")
    core.prober.profiles.remove(body.model)
    core.audit.record("model.removed", "", removed)
    return removed


@router.post("/bench")
def bench_model(core: Core, request: Request, body: BenchBody) -> dict[str, Any]:
    """Seconds to the first token, tokens read and written a second, and seconds to load if it was not in memory."""
    entry = core.catalog.current().entry(body.model)
    core.prober.give_way(entry.name)
    if body.cold and _is_loaded(core, entry.name):
        core.models.unload(entry.name)
    cancel = request.app.state.stopping
    cold = _load_seconds(core, entry)
    found = measure(core.models.named(entry.name), prompt_tokens=body.prompt_tokens, tokens=body.tokens, cancel=cancel)
    return {"model": entry.name, "load_seconds": cold, **asdict(found)}


@router.post("/probe")
def probe_model(core: Core, request: Request, body: ModelBody) -> StreamingResponse:
    """Find out what a model can do by asking it, and keep it; lines of JSON with `event`: trying, then done. It takes
    some minutes at most."""
    entry = core.catalog.current().entry(body.model)
    return stream(request, lambda tell, cancel: _probe(core, entry.name, tell, cancel))


def problem(core: App) -> dict[str, str] | None:
    """Why the catalog as it stands in its file is not in force, or None."""
    error = core.catalog.problem
    found: dict[str, str] | None = None if error is None else core.redactor.clean(error.as_json())
    return found


def _probe(core: App, name: str, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
    found = core.prober.probe(name, tell=lambda words: tell({"event": "trying", "what": words}), cancel=cancel)
    return {"model": name, "profile": asdict(found)}


def _is_loaded(core: App, name: str) -> bool:
    return any(each["model"] == name for each in core.models.loaded())


def _load_seconds(core: App, entry: ModelEntry) -> float | None:
    """How long it took to load, None for one that was in memory or is elsewhere."""
    if entry.backend != "llama_cpp" or _is_loaded(core, entry.name):
        return None
    started = time.monotonic()
    core.models.load(entry.name)
    return round(time.monotonic() - started, 3)


def _local(core: App, name: str) -> ModelEntry:
    entry = core.catalog.current().entry(name)
    if entry.backend == "openai":
        raise BadInput(f"{entry.name} is on the server {entry.server}", hint="only models of this machine are loaded")
    return entry


def _pull(core: App, body: PullBody, tell: Tell, cancel: threading.Event) -> dict[str, Any]:
    hub = body.hub or _own_hub(core)
    policy = core.policy
    tokens = _tokens(core, hub, body.token)
    reference = body.reference.partition("?")[0]  # what follows can be a key to the file
    core.audit.record("model.pull", "", {"reference": reference, "hub": hub})
    web = Web(lambda host, port: check_pulling(policy, host, port), cancel=cancel, tokens=tokens)
    try:
        found = core.puller.pull(
            Order(reference=body.reference, sha256=body.sha256, name=body.name),
            web,
            hub=hub,
            choose=lambda sizes: choose_file(sizes, devices.here()),
            reserve=core.settings.models.disk_reserve_mb * _MIB,
            tell=tell,
        )
    except AgentdError as error:
        core.audit.record("model.pull_failed", "", {"reference": reference, "problem": error.message})
        raise
    core.audit.record("model.pulled", "", {"reference": reference, **found})
    return found


def _own_hub(core: App) -> str:
    return os.environ.get("HF_ENDPOINT") or core.settings.models.hub


def _tokens(core: App, hub: str, given: str | None) -> dict[str, str]:
    """The token for the hub, by its origin. Our own is for our own hub, whatever hub a caller names."""
    ours = os.environ.get(TOKEN) or core.vault.get(TOKEN) if _origin(hub) == _origin(_own_hub(core)) else None
    token = given or ours
    return {_origin(hub): token} if token else {}


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadInput(f"{url!r} is no address of a hub: {error}", hint="for example https://huggingface.co") from None
    return f"{parts.scheme}://{parts.netloc}".lower()


def _roles(core: App, entry: ModelEntry) -> list[str]:
    return [role for role, names in core.catalog.current().roles.items() if entry.name in names]


def _entry(entry: ModelEntry) -> dict[str, Any]:
    """What the catalog says outright."""
    said = {
        "source": entry.source,
        "context": entry.context,
        "gpu_layers": entry.gpu_layers,
        "sequences": entry.sequences,
        "kv_type": entry.kv_type,
        "compact": entry.profile.compact or None,
        "think": entry.profile.think or None,
        "embedding": entry.embedding or None,
        "dialect": entry.profile.dialect,
        "sampling": dict(entry.profile.sampling) or None,
        "loras": [str(each) for each in entry.loras] or None,
        "requantise": entry.requantise,
        "draft": entry.draft,
        "price": entry.price or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _header(entry: ModelEntry) -> dict[str, Any] | None:
    """What the GGUF says of itself; None when there is none, `problem` when it cannot be read."""
    path = entry.available if entry.backend == "llama_cpp" else None
    if path is None:
        return None
    try:
        found = gguf_file.read(path)
        shape = found.shape
    except ModelError as error:
        return {"problem": error.message}
    name = found.metadata.get("general.name")
    return {
        "name": name[:_LONGEST_NAME] if isinstance(name, str) else None,
        "architecture": shape.architecture,
        "quantisation": shape.quantisation,
        "parameters": sum(prod(tensor.shape) for tensor in found.tensors.values()),
        "layers": shape.layers,
        "trained_context": shape.trained_context,
        "vocabulary": shape.vocabulary,
        "experts": shape.experts,
        "chat_template": found.chat_template is not None,
        "bytes": found.bytes,
        "parts": len(found.parts),
    }
