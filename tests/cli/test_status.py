"""What `status` says of servers, of models that stand in, and of kept replies."""

from __future__ import annotations

from typing import Any

from agentd.cli.status import _status_text

SERVER: dict[str, Any] = {
    "server": "box",
    "url": "http://127.0.0.1:8080/v1",
    "state": "closed",
    "resting": 0.0,
    "running": 0,
    "answered": 12,
    "failed": 1,
    "usual": 3.2,
    "problem": "",
}
CACHE = {
    "enabled": True,
    "replies": 3,
    "bytes": 2_097_152,
    "max_bytes": 67_108_864,
    "given": 9,
    "hits": 4,
    "misses": 5,
}
STATUS: dict[str, Any] = {
    "pid": 1,
    "uptime": 5.0,
    "version": "0",
    "home": "home",
    "socket": "socket",
    "url": None,
    "queue": {},
    "models": [],
    "servers": [],
    "stand_ins": [],
    "cache": CACHE,
    "catalog_problem": None,
}


def lines(**changes: Any) -> dict[str, str]:
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in _status_text(STATUS | changes).splitlines()}


def test_a_server_that_does_well() -> None:
    said = lines(servers=[SERVER | {"running": 2}])["server"]
    assert said == "box http://127.0.0.1:8080/v1: well, 12 replies, 1 failures, 2 under way, usually within 3.2 s"


def test_a_server_that_is_left_alone_says_why_without_steering_the_terminal() -> None:
    bad = SERVER | {"state": "open", "resting": 9.6, "usual": None, "problem": "it broke\x1b[2J off\nand more"}
    said = lines(servers=[bad])["server"]
    assert "failing, 12 replies, 1 failures, left alone for 10 s" in said
    assert "\x1b" not in said
    assert "it broke" in said


def test_a_model_that_stands_in() -> None:
    stand_in = {"role": "planner", "instead_of": "cloud", "model": "here", "why": "no answer", "since": 1.0}
    assert lines(stand_ins=[stand_in])["role"] == "planner: here for cloud (no answer)"


def test_kept_replies() -> None:
    assert lines()["cache"] == "3 replies, 2.0 of 64 MiB, given 9 times; since the start 4 found, 5 not"
    assert lines(cache=CACHE | {"enabled": False})["cache"] == "off (cache.enabled)"
