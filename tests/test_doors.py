"""Each hazard has one door: only the modules named here may use what could do harm."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "agentd"
NOBODY: frozenset[str] = frozenset()

DOORS = {
    "child processes": (
        {"subprocess", "multiprocessing", "pty", "os.system", "os.popen", "os.fork", "os.posix_spawn", "os.execv"},
        {"sandbox/launch.py", "sandbox/nursery.py", "sandbox/probes.py", "sandbox/confined.py"},
    ),
    "the database": ({"apsw", "sqlite_vec"}, {f"store/{part}.py" for part in ("backup", "db", "migrate", "sqlite")}),
    "another SQLite beside it": ({"sqlite3", "sqlite_utils", "aiosqlite"}, NOBODY),
    "a local model": (
        {"llama_cpp"},
        {
            f"backends/llama/{part}.py"
            for part in ("context", "decoder", "embedding", "engine", "loading", "vocabulary")
        },
    ),
    "an engine of WebAssembly": ({"wasmtime", "componentize_py"}, {"sandbox/wasm_child.py"}),
    "outgoing network": (
        {"http.client", "urllib.request", "httpx", "httpx2", "requests", "aiohttp"},
        {"backends/download.py", "backends/http_lines.py", "cli/client.py"},
    ),
    "code from data": ({"pickle", "marshal", "shelve", "eval", "exec", "yaml"}, {"sandbox/guest/session.py"}),
}


def used(tree: ast.AST) -> Iterator[str]:
    """Every imported module with its parents (`http`, `http.client`), and every dotted name that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):
            names = [ast.unparse(node.func)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@pytest.mark.parametrize("hazard", DOORS)
def test_one_door_per_hazard(hazard: str) -> None:
    dangerous, doors = DOORS[hazard]
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        found = dangerous & set(used(ast.parse(file.read_text(encoding="utf-8"))))
        assert name in doors or not found, f"agentd/{name} uses {', '.join(found)}; {hazard} has its own door"


def test_the_doors_see() -> None:
    tree = ast.parse(
        "import http.client\nfrom os import system\nos.popen('x')\ndef f():\n    from apsw import Connection"
    )
    assert {"http.client", "os.system", "os.popen", "apsw"} <= set(used(tree))


WRITING = {
    *("write_text", "write_bytes", "unlink", "rmtree", "rename", "mkdir", "makedirs", "rmdir", "touch", "symlink_to"),
    *("hardlink_to", "symlink", "copy2", "copyfile", "copytree", "truncate", "chmod", "utime", "removedirs", "mkfifo"),
    *("os.remove", "os.replace", "os.link", "shutil.copy", "shutil.move"),
}
"""Functions of `os` and `shutil` and methods of `Path` that change files."""
NOT_THE_USERS = {
    "tools/hooks.py": "a message and an index for a hook, in a folder of their own",
    "tools/preview.py": "copies that a call is tried on",
    "tools/repository.py": "git's own folder, and a mirror of it",
    "tools/start_files.py": "what a program did to them is taken back",
    "plugins/folder.py": "the plugins of the home",
}


def writes(tree: ast.AST) -> Iterator[str]:
    """Calls that change files, other than through a `Workspace`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        opens = name == "open" or name.endswith((".open", "fdopen"))
        given = [ast.unparse(each) for each in [*node.args, *(word.value for word in node.keywords)]]
        makes = opens and any(re.fullmatch(r"'[rwaxbt+]*[wax+][rwaxbt+]*'", each) for each in given)
        calls = "workspace" not in name and {name, name.rpartition(".")[2]} & WRITING
        if makes or calls:
            yield name


@pytest.mark.parametrize("folder", ["tools", "agent", "tasks", "plugins", "policy"])
def test_the_users_files_change_through_a_workspace_alone(folder: str) -> None:
    for file in sorted((PACKAGE / folder).glob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        found = set(writes(ast.parse(file.read_text(encoding="utf-8"))))
        assert name in NOT_THE_USERS or not found, f"agentd/{name} calls {', '.join(found)}; see agentd/workspace/"


def test_the_door_to_files_sees() -> None:
    tree = ast.parse("path.write_text('x')\nopen(a, 'wb')\nshutil.rmtree(b)\nctx.workspace.move(a, b)\nopen(c)")
    assert set(writes(tree)) == {"path.write_text", "open", "shutil.rmtree"}
