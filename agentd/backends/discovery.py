"""Servers of models that run on this machine already: found by a short question to the ports where they listen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agentd.backends.catalog import ServerEntry
from agentd.backends.openai_http import Link
from agentd.backends.openai_replies import short
from agentd.errors import AgentdError, ServerRefused

KINDS: Mapping[int, str] = {
    1234: "lm-studio",
    1337: "jan",
    4891: "gpt4all",
    5000: "text-generation-webui",
    5001: "koboldcpp",
    8000: "vllm",
    8001: "vllm",
    8080: "llama-server",
    8765: "agentd",
    9997: "xinference",
    11434: "ollama",
    30000: "sglang",
}
"""Who listens there, unless what it says of its models tells otherwise."""
_OWNERS = {
    "agentd": "agentd",
    "koboldcpp": "koboldcpp",
    "library": "ollama",
    "llamacpp": "llama-server",
    "me": "llama-cpp-python",
    "ollama": "ollama",
    "organization_owner": "lm-studio",
    "sglang": "sglang",
    "vllm": "vllm",
}
_SECONDS = 2.0
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A server that answers on a port of this machine. `locked`: it wants a key before it tells its models."""

    kind: str
    url: str
    port: int
    models: tuple[str, ...] = ()
    locked: bool = False


def look_around(ports: Sequence[int] = tuple(KINDS), *, seconds: float = _SECONDS) -> list[Found]:
    """Whoever answers on these ports of this machine as a server of models does, in the order of the ports.

    All are asked at once; nothing takes longer than `seconds`.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda port: _ask(port, seconds), dict.fromkeys(ports))
        return [each for each in found if each is not None]


def _ask(port: int, seconds: float) -> Found | None:
    url = f"http://127.0.0.1:{port}/v1"
    server = ServerEntry(name=f"port {port}", urls=(url,), connect_timeout=seconds / 2)
    link = Link(server, key=lambda: None, may_send=_only_here)
    try:
        rows = link.get("/models", timeout=seconds).get("data")
    except ServerRefused as error:
        return Found(kind=KINDS.get(port, "server"), url=url, port=port, locked=True) if error.status == 401 else None
    except AgentdError:
        return None
    finally:
        link.close()
    if not isinstance(rows, list):
        return None
    named = [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str) and row["id"]]
    return Found(kind=_kind(named, port), url=url, port=port, models=tuple(short(row["id"]) for row in named))


def _only_here(host: str, port: int) -> None:
    assert host == "127.0.0.1"


def _kind(rows: Sequence[Mapping[str, Any]], port: int) -> str:
    owners = [str(row.get("owned_by", "")).lower() for row in rows]
    return next((_OWNERS[owner] for owner in owners if owner in _OWNERS), KINDS.get(port, "server"))
