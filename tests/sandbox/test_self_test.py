"""The self-test sees what is open: each layer that is away, and whatever arrives outside."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentd.errors import SandboxUnavailable
from agentd.sandbox import self_test as module
from agentd.sandbox.launch import run
from agentd.sandbox.self_test import PROBES, Bait, SelfTest, self_test
from agentd.sandbox.zygote import Nursery, Zygote


@contextmanager
def _seen_without(*without: str) -> Iterator[SelfTest]:
    zygote = Zygote(Nursery(without=without))
    try:
        yield self_test(zygote)
    finally:
        zygote.close()


def test_everything_holds_and_is_named() -> None:
    with _seen_without() as found:
        found.demand()
        assert found.failed == ()
        assert found.level.startswith("os:seccomp+rlimits")
        assert len(found.probes) >= 12
        assert found.seconds < 5  # some 0.1 s on a machine with nothing else to do


@pytest.mark.parametrize(("layer", "probe"), [("seccomp", "make programs"), ("rlimits", "memory")])
def test_a_layer_that_is_away_is_seen(layer: str, probe: str) -> None:
    with _seen_without(layer) as found:
        assert probe in {each.name for each in found.failed}
        assert found.level == "none"
        with pytest.raises(SandboxUnavailable, match=probe):
            found.demand()


@pytest.mark.parametrize("layer", ["landlock", "namespaces"])
def test_the_level_is_of_what_is_there(layer: str) -> None:
    with _seen_without(layer) as found:
        assert found.failed == ()
        assert layer not in found.level


def test_probes_are_those_that_run_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(module.__file__).parent))
    try:
        probes = importlib.import_module("probes")
        assert [*PROBES, module.FOR_EVER] == list(probes.PROBES)
    finally:
        for name in ("probes", "frames", "linux"):
            sys.modules.pop(name, None)


def _udp(bait: Bait) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("127.0.0.1", bait.targets["udp"]))


def _unix(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as out:
        out.connect(address)


@pytest.mark.parametrize(
    ("use", "seen"),
    [
        (lambda bait: None, []),
        (lambda bait: os.mkdir(bait.targets["folder"] + "/new"), ["the folder was changed"]),
        (lambda bait: os.utime(bait.targets["file"], (0, 0)), ["the folder was changed"]),
        (lambda bait: os.unlink(bait.targets["file"]), ["the folder was changed"]),
        (lambda bait: socket.create_connection(("127.0.0.1", bait.targets["tcp"])).close(), ["TCP was reached"]),
        (_udp, ["UDP arrived"]),
        (lambda bait: _unix(bait.targets["unix"]), ["the control socket was reached"]),
        (lambda bait: _unix("\0" + bait.targets["abstract"]), ["an abstract socket was reached"]),
    ],
)
def test_what_is_done_to_the_bait_is_seen(tmp_path: Path, use: Callable[[Bait], None], seen: list[str]) -> None:
    with Bait(tmp_path) as bait:
        use(bait)
        assert list(bait.taken()) == seen


UNPRIVILEGED = """
import sys
sys.path.insert(0, sys.argv[1])
from agentd.sandbox import linux
linux.gain_nothing()
linux.drop_capabilities()
import psutil
from agentd.sandbox.job import Limits
from agentd.sandbox.self_test import self_test
from agentd.sandbox.zygote import Nursery, Zygote
zygote = Zygote(Nursery(without=sys.argv[2:]))
found = self_test(zygote)
line = zygote.open(Limits())
_, *inside = psutil.Process().children(recursive=True)
for each in inside if "namespaces" in found.level else []:
    with open(f"/proc/{each.pid}/status") as file:
        assert "CapEff:\\t0000000000000000" in file.read()
line.kill()
zygote.close()
print(found.level, [(probe.name, probe.open) for probe in found.failed])
"""


@pytest.mark.slow
@pytest.mark.parametrize("without", [(), ("landlock",), ("namespaces",)])
def test_whoever_has_no_rights_is_held_as_well(tmp_path: Path, without: tuple[str, ...]) -> None:
    argv = [sys.executable, "-c", UNPRIVILEGED, str(Path(module.__file__).parents[2]), *without]
    done = run(argv, cwd=tmp_path, timeout=30)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("os:seccomp+rlimits"), done.stdout
    assert done.stdout.rstrip().endswith("[]")
