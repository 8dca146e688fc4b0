"""`doctor`: look for what is missing or wrong on this machine, and say what to do about it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psutil

from agentd.backends import devices
from agentd.backends.catalog import Catalog
from agentd.cli import output
from agentd.cli.client import home_of
from agentd.cli.findings import Finding, fail, ok, warn
from agentd.cli.llama_build import Build, card_findings, installed, processor_finding, processor_flags
from agentd.cli.machine import models_finding, servers_finding
from agentd.cli.options import Invocation, command
from agentd.cli.reach import reachable
from agentd.config import SandboxSettings, load_settings
from agentd.errors import AgentdError
from agentd.home import Home, defaults_dir
from agentd.policy.engine import PolicyEngine
from agentd.sandbox import confine
from agentd.sandbox.confine import walls_of
from agentd.sandbox.os_executor import OsExecutor
from agentd.sandbox.wasm_executor import WasmExecutor
from agentd.store.lock import DaemonLock

_MIB = 1024 * 1024
_LOW_DISK, _FULL_DISK = 1024 * _MIB, 64 * _MIB
_COMPILERS = ("c++", "g++", "clang++", "cl")
_PACKAGES = (
    "apsw",
    "click",
    "cryptography",
    "fastapi",
    "httpx2",
    "jinja2",
    "numpy",
    "pathspec",
    "psutil",
    "pydantic",
    "rich",
    "ruamel.yaml",
    "structlog",
    "tenacity",
    "tomlkit",
    "uvicorn",
    "websockets",
)
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@command("doctor")
def doctor(invocation: Invocation) -> int:
    """Look for what is missing or wrong on this machine.

    Exit code 1 when something fails; warnings alone are no failure.
    """
    home = home_of(invocation)
    findings = []
    for look in _LOOKS:
        findings.append(look(home))
        _print(invocation, findings[-1])
    findings.append(_daemon(invocation, home))
    _print(invocation, findings[-1])
    if invocation.json:
        output.data_json([asdict(finding) for finding in findings])
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _print(invocation: Invocation, finding: Finding) -> None:
    if invocation.json:
        return
    state = output.paint(finding.state.ljust(4), _COLOURS[finding.state])
    output.data(f"{state}  {finding.name:9} {finding.text}")
    if finding.hint:
        output.data(f"      {'':9} hint: {finding.hint}")


def _python(home: Home) -> Finding:
    return ok("python", f"{sys.version.split()[0]} at {sys.executable}")


def _packages(home: Home) -> Finding:
    missing = [name for name in _PACKAGES if not _is_there(name)]
    if missing:
        return fail("packages", f"missing: {', '.join(missing)}", "install agentd again: ./scripts/run does it")
    return ok("packages", f"all {len(_PACKAGES)} are there")


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _git(home: Home) -> Finding:
    path = shutil.which("git")
    if path is None:
        return warn("git", "there is no git", "install it; the git tools and repositories need it")
    return ok("git", path)


def _compiler(home: Home) -> Finding:
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler:
        return ok("compiler", compiler)
    if _is_there("llama_cpp"):
        return ok("compiler", "none, and llama.cpp is built already")
    return warn("compiler", "there is no C++ compiler", "install one (g++ or clang++); llama.cpp is built with it")


def _llama(home: Home) -> Finding:
    build = _build()
    if build is None:
        return warn("llama.cpp", "not installed", "install the extra `embedded`: ./scripts/run does it")
    return build if isinstance(build, Finding) else processor_finding(build, processor_flags())


@cache
def _build() -> Build | Finding | None:
    return installed() if _is_there("llama_cpp") else None


def _graphics(home: Home) -> Finding:
    build = _build()
    memory = psutil.virtual_memory()
    return card_findings(build if isinstance(build, Build) else None, devices.cards(memory.total, memory.available))


def _home(home: Home) -> Finding:
    if not home.state_dir.exists():
        parent = next(path for path in (home.state_dir, *home.state_dir.parents) if path.exists())
        if os.access(parent, os.W_OK):
            return ok("home", f"{home.home} (its state/ is made at the first start)")
        return fail("home", f"{home.home} cannot be made: {parent} is not writable", "choose another with --home")
    if not os.access(home.state_dir, os.R_OK | os.W_OK | os.X_OK):
        return fail("home", f"{home.state_dir} is not writable", "make it this user's own, or choose another home")
    open_to_others = list(_open_to_others(home))
    if open_to_others:
        return warn("home", f"others can read {', '.join(map(str, open_to_others))}", "chmod go-rwx them")
    return ok("home", str(home.home))


def _open_to_others(home: Home) -> Iterator[Path]:
    if os.name != "posix":
        return
    for path in (home.state_dir, home.db_path, home.token_path):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield path


def _disk(home: Home) -> Finding:
    place = next(path for path in (home.state_dir, *home.state_dir.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / _MIB:,.0f} MiB free at {place}"
    if free < _FULL_DISK:
        return fail("disk", text, "make room: nothing can be recorded on a full disk")
    return warn("disk", text, "make room soon") if free < _LOW_DISK else ok("disk", text)


def _settings(home: Home) -> Finding:
    return _loaded("settings", str(home.config_path), lambda: load_settings(home.home))


def _commands(home: Home) -> Finding:
    try:
        walls = walls_of(home, load_settings(home.home).sandbox)
    except AgentdError:
        return ok("commands", "not looked at: the settings are wrong")
    if not walls.required:
        return warn("commands", "tests and commands run without walls", 'set sandbox.commands = "required"')
    mode = confine.reached()
    if mode is None:
        hint = "they need Linux with seccomp, and namespaces of the user, bubblewrap, or Landlock 6 (Linux 6.12)"
        return warn("commands", "this machine has no walls, so no tests and no commands are run", hint)
    text = f"tests and commands run behind {confine.level_of(mode)}"
    if mode is confine.Mode.BARE:
        return warn("commands", f"{text}, with no sockets", "let this user make namespaces, or install bubblewrap")
    return ok("commands", text)


def _plugins(home: Home) -> Finding:
    if _chosen(home) == "wasm":
        return ok("plugins", "they run in WebAssembly")
    executor = OsExecutor()
    try:
        tested = executor.self_test()
        tested.demand()
    except AgentdError as error:
        return warn("plugins", error.message, error.hint)
    finally:
        executor.close()
    return ok("plugins", f"they run in {tested.level}, {len(tested.probes)} ways out are closed")


def _wasm(home: Home) -> Finding:
    executor = WasmExecutor(home.state_dir / "wasm")
    try:
        if not executor.ready:
            return ok("wasm", "its component is not built yet; whoever uses it first waits about a minute")
        level = executor.level
    except AgentdError as error:
        if _chosen(home) == "wasm":
            return warn("wasm", error.message, error.hint)
        return ok("wasm", f"not used here: {error.message} ({error.hint})")
    finally:
        executor.close()
    return ok("wasm", f"its component is built and reaches {level}")


def _chosen(home: Home) -> str:
    try:
        return load_settings(home.home).sandbox.chosen
    except AgentdError:
        return SandboxSettings().chosen


def _policies(home: Home) -> Finding:
    return _loaded("policies", str(home.policies_dir), lambda: PolicyEngine.load(home.policies_dir))


def _loaded(name: str, text: str, load: Callable[[], object]) -> Finding:
    try:
        load()
    except AgentdError as error:
        return fail(name, error.message, error.hint)
    return ok(name, text)


def _models(home: Home) -> Finding:
    try:
        catalog = Catalog.load(home.models_dir, defaults_dir() / "models")
    except AgentdError as error:
        return fail("models", error.message, error.hint)
    return models_finding(catalog, devices.here())


def _servers(home: Home) -> Finding:
    try:
        catalog = Catalog.load(home.models_dir, defaults_dir() / "models")
        policy = PolicyEngine.load(home.policies_dir)
    except AgentdError:
        return ok("servers", "not looked at: catalog or policies are wrong")
    return servers_finding(catalog, policy)


def _daemon(invocation: Invocation, home: Home) -> Finding:
    client = reachable(invocation)
    if client is not None:
        return ok("daemon", f"pid {client.get('/api/status')['pid']} at {client.where}")
    pid = DaemonLock.holder(home.state_dir)
    if pid is not None:
        return fail("daemon", f"pid {pid} holds the home but does not answer", "agentd down, then agentd up")
    if home.socket_path.exists():
        return ok("daemon", f"not running; {home.socket_path} is left from one that died, the next replaces it")
    return ok("daemon", "not running; `agentd run` starts it")


_LOOKS: tuple[Callable[[Home], Finding], ...] = (
    *(_python, _packages, _git, _compiler, _llama, _graphics),
    *(_home, _disk, _settings, _commands, _plugins, _wasm, _policies, _models, _servers),
)
