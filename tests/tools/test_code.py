"""Running the tests of a project: who passed, who failed, and what cannot fool it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentd.errors import Denied, ToolFailed, ToolMisused
from agentd.tools.code import run_tests
from agentd.tools.tool import ToolContext
from agentd.types import Action, ToolResult
from agentd.workspace.paths import Workspace


def call(root: Path, target: str = "", **more: Any) -> ToolResult:
    result = run_tests.run(ToolContext(workspace=Workspace(root), key="k", **more), target=target)
    assert isinstance(result, ToolResult)
    return result


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_calc.py").write_text(
        "import pytest\nimport calc\n\n"
        "def test_add():\n    assert calc.add(1, 1) == 2\n\n"
        "class TestMore:\n    @pytest.mark.parametrize('x', [0, 'a.b'])\n"
        "    def test_same(self, x):\n        assert x == x\n"
    )
    return tmp_path


def test_red_tests_are_named_and_the_tool_still_worked(project: Path) -> None:
    before = sorted(project.rglob("*"))
    told = call(project)
    assert told.ok
    assert told.text.splitlines()[0] == "3 tests: 2 passed, 1 failed: tests/test_calc.py::test_add"
    assert "assert 0 == 2" in told.text
    assert told.data["green"] is False
    assert told.data["failed"] == ["tests/test_calc.py::test_add"]
    assert told.data["passed"] == [f"tests/test_calc.py::TestMore::test_same[{x}]" for x in ("0", "a.b")]
    assert sorted(project.rglob("*")) == before, "nothing may be left in the workspace"


def test_one_target_and_green(project: Path) -> None:
    told = call(project, "tests/test_calc.py::TestMore")
    assert told.text == "2 tests: 2 passed."
    assert told.data["green"] is True


def test_a_file_that_cannot_be_imported_is_an_error(project: Path) -> None:
    (project / "tests" / "test_broken.py").write_text("import nowhere_at_all\n")
    told = call(project)
    assert told.data["errors"] == ["tests/test_broken.py"]
    assert told.data["green"] is False


def test_a_pytest_of_the_workspace_is_not_taken_for_pytest(project: Path) -> None:
    (project / "pytest.py").write_text("raise SystemExit(0)\n")
    (project / "tests" / "test_calc.py").write_text("import calc\n\ndef test_add():\n    assert calc.add(1, 1) == 2\n")
    assert call(project).data["failed"] == ["tests/test_calc.py::test_add"]


def test_no_tests(tmp_path: Path) -> None:
    told = call(tmp_path)
    assert told.text == "There are no tests here."
    assert told.data["green"] is False


def test_tests_that_end_the_program_are_not_green(project: Path) -> None:
    (project / "tests" / "test_calc.py").write_text(
        "import os\n\ndef test_x():\n    print('1 passed')\n    os._exit(0)\n"
    )
    with pytest.raises(ToolFailed, match="could not run the tests"):
        call(project)


def test_tests_that_do_not_end_are_stopped(project: Path) -> None:
    (project / "tests" / "test_calc.py").write_text("import time\n\ndef test_x():\n    time.sleep(60)\n")
    with pytest.raises(ToolFailed, match="was stopped"):
        call(project, deadline=time.time() + 2)


def test_wrong_targets(project: Path) -> None:
    with pytest.raises(ToolFailed, match=r"there is no tests/test_calk\.py"):
        call(project, "tests/test_calk.py")
    with pytest.raises(ToolFailed, match="not found"):
        call(project, "tests/test_calc.py::test_nothing")
    with pytest.raises(ToolMisused, match="is an option"):
        call(project, "--pdb")
    with pytest.raises(Denied):
        call(project, "../elsewhere/test_x.py")


def test_what_policy_sees() -> None:
    actions = run_tests.actions(run_tests.validate({"target": "tests"}))
    assert list(actions) == [Action(kind="test.run", argv=("python", "-m", "pytest", "tests"))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_a_javascript_project_runs_npm_test(tmp_path: Path) -> None:
    for code, sentence in ((0, "npm test passed."), (3, "npm test failed with exit code 3.")):
        script = f"node -e \"console.log('ran'); process.exit({code})\""
        (tmp_path / "package.json").write_text(json.dumps({"name": "x", "scripts": {"test": script}}))
        told = call(tmp_path)
        assert told.text.startswith(sentence)
        assert "ran" in told.text
        assert told.data["green"] is (code == 0)
    assert [path.name for path in tmp_path.iterdir()] == ["package.json"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="walls are made of what Linux offers")
def test_tests_run_behind_walls_and_do_what_tests_do(tmp_path: Path) -> None:
    root = tmp_path / "work"
    root.mkdir()
    (tmp_path / "canary").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as outside:
        (root / "test_held.py").write_text(
            "import os, socket, pytest\n"
            "def test_read():\n"
            f"    with pytest.raises(OSError):\n        open({str(tmp_path / 'canary')!r})\n"
            "def test_network():\n"
            f"    with pytest.raises(OSError):\n        socket.create_connection({outside.getsockname()!r}, 1)\n"
            "def test_parent():\n"
            f"    assert not os.path.exists('/proc/{os.getpid()}/cwd/canary')\n"
        )
        (root / "test_ordinary.py").write_text(
            "import multiprocessing, socket, subprocess, sys\n"
            "import pydantic\n"
            "def test_server():\n"
            "    with socket.create_server(('127.0.0.1', 0)) as server:\n"
            "        with socket.create_connection(server.getsockname()) as client:\n"
            "            client.send(b'x')\n            assert server.accept()[0].recv(1) == b'x'\n"
            "def test_files(tmp_path):\n    (tmp_path / 'a').write_text('x')\n"
            "def test_programs():\n    subprocess.run([sys.executable, '-c', 'pass'], check=True)\n"
            "def test_pool():\n"
            "    with multiprocessing.Pool(2) as pool:\n        assert pool.map(abs, [-1]) == [1]\n"
        )
        told = call(root)
    assert told.data["green"], told.text
    assert len(told.data["passed"]) == 7
