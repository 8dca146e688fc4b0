"""Whether a zygote's children are shut in: they try from inside, and what arrives outside is looked at too."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentd.errors import SandboxUnavailable
from agentd.sandbox.job import Limits
from agentd.sandbox.zygote import PROBE, Line, LineClosed, LineSilent, Reached, Zygote

PROBES = (
    *("read a file", "write a file", "look into /proc", "TCP", "UDP", "MPTCP", "the control socket", "other networks"),
    *("fork", "exec", "signal the daemon", "another's memory", "environment", "make programs", "doors of the kernel"),
    *("raise a limit", "memory"),
)
"""Names in `probes.py`, which is imported where it runs alone."""
LIMITS = Limits(seconds=5.0, memory_mb=64)
MEMORY, FOR_EVER = "memory", "time"
"""The one that may end its child, and the one that never ends by itself."""
PATIENCE = 0.03
"""Seconds that it gets."""
DEAD = 1.0
"""Seconds in which a killed child's line has to close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    name: str
    open: tuple[str, ...] = ()
    """Ways on which it came through; none where it was held."""
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return not self.open


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What one zygote's children were seen to be held by."""

    reached: Reached
    probes: tuple[Probe, ...]
    seconds: float

    @property
    def level(self) -> str:
        """Such as `os:seccomp+rlimits+landlock7+namespaces`; `none` where a probe came through."""
        if self.failed:
            return "none"
        return "os:" + "+".join(
            f"landlock{self.reached.landlock}" if layer == "landlock" else layer.replace(" ", "-")
            for layer in self.reached.layers
        )

    @property
    def failed(self) -> tuple[Probe, ...]:
        return tuple(probe for probe in self.probes if not probe.held)

    def demand(self) -> None:
        """Raises `SandboxUnavailable` unless every probe was held."""
        if self.failed:
            told = "; ".join(f"{probe.name} ({', '.join(probe.open)})" for probe in self.failed)
            raise SandboxUnavailable(
                f"the sandbox does not hold on this machine: {told}",
                hint='a Linux kernel with seccomp filters is needed, or `sandbox.executor = "wasm"`',
            )


def self_test(zygote: Zygote) -> SelfTest:
    """Let children try everything. Raises `SandboxUnavailable` when there are none to be had."""
    started = time.monotonic()
    reached = zygote.reached()
    with tempfile.TemporaryDirectory(prefix="agentd-probe-") as folder, Bait(Path(folder)) as bait:
        found = [_probe(zygote, probe, bait.targets) for probe in PROBES]
        outside = Probe(name="seen from outside", open=tuple(bait.taken()))
    return SelfTest(reached=reached, probes=(*found, _killed(zygote), outside), seconds=time.monotonic() - started)


def _probe(zygote: Zygote, name: str, targets: dict[str, Any]) -> Probe:
    """In a child of its own, since one that comes through may cost it."""
    started = time.monotonic()
    line = zygote.open(LIMITS, PROBE)
    try:
        answer = _answer(line, name, targets, started + LIMITS.seconds)
    except LineClosed:
        # Memory that cannot be had may end the child; with any other probe a program may have taken its place.
        answer = () if name == MEMORY else ("its process ended",)
    except LineSilent:
        answer = ("it hangs",)
    finally:
        line.kill()
    return Probe(name=name, open=answer, seconds=time.monotonic() - started)


def _answer(line: Line, name: str, targets: dict[str, Any], deadline: float) -> tuple[str, ...]:
    nonce = secrets.token_hex(8)
    line.send({"nonce": nonce, "probe": name, "targets": targets}, deadline)
    answer = line.receive(deadline)
    if answer.get("nonce") != nonce or not isinstance(answer.get("open"), list):
        return ("what it answers is not its own",)
    return tuple(str(way) for way in answer["open"])


def _killed(zygote: Zygote) -> Probe:
    """A child that does not end by itself has to end when it is told to."""
    started = time.monotonic()
    line = zygote.open(LIMITS, PROBE)
    try:
        _answer(line, FOR_EVER, {}, started + PATIENCE)
        answer: tuple[str, ...] = ("it ended by itself",)
    except (LineClosed, LineSilent):
        answer = () if line.gone(time.monotonic() + DEAD) else ("it was killed and lives",)
    finally:
        line.kill()
    return Probe(name=FOR_EVER, open=answer, seconds=time.monotonic() - started)


class Bait:
    """A file, ports and sockets that anybody on this machine could use; `taken` tells what was done to them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file, self._path = folder, folder / "canary", folder / "socket"
        self._abstract = f"agentd-probe-{secrets.token_hex(8)}"
        self._sockets = contextlib.ExitStack()

    def __enter__(self) -> Bait:
        self._file.write_text(secrets.token_hex(8), encoding="ascii")
        self._tcp = self._bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._udp = self._bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._listening = {
            "TCP": self._tcp,
            "the control socket": self._bound(socket.AF_UNIX, socket.SOCK_STREAM, str(self._path)),
            "an abstract socket": self._bound(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + self._abstract),
        }
        for listener in self._listening.values():
            listener.listen()
        for path, mode in ((self._folder, 0o777), (self._file, 0o666), (self._path, 0o666)):
            path.chmod(mode)
        self._before = self._seen()
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    @property
    def targets(self) -> dict[str, Any]:
        """As probes are told of it."""
        paths = {"file": str(self._file), "folder": str(self._folder), "unix": str(self._path)}
        ports = {"tcp": self._tcp.getsockname()[1], "udp": self._udp.getsockname()[1], "abstract": self._abstract}
        return {**paths, **ports, "pid": os.getpid(), "memory_mb": LIMITS.memory_mb}

    def taken(self) -> Iterator[str]:
        if self._seen() != self._before:
            yield "the folder was changed"
        for name, listener in self._listening.items():
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                yield f"{name} was reached"
        with contextlib.suppress(BlockingIOError):
            self._udp.recv(100)
            yield "UDP arrived"

    def _bound(self, family: int, kind: int, address: Any) -> socket.socket:
        found = self._sockets.enter_context(socket.socket(family, kind))
        found.bind(address)
        found.setblocking(False)
        return found

    def _seen(self) -> object:
        status = self._file.stat() if self._file.exists() else None
        kept = status and (status.st_mode, status.st_mtime_ns, status.st_size)
        return sorted(os.listdir(self._folder)), kept
