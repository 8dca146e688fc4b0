"""Child processes: bounded in time and output, gone as a whole, clean environment, no planted programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentd.errors import Cancelled, Denied, ToolFailed
from agentd.sandbox import launch

PYTHON = sys.executable
posix = pytest.mark.skipif(os.name == "nt", reason="process groups and modes of POSIX")


def python(code: str, cwd: Path, **options: Any) -> launch.Completed:
    options.setdefault("timeout", 10.0)
    return launch.run([PYTHON, "-c", code], cwd=cwd, **options)


def program(folder: Path, name: str, text: str = "echo mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def gone(pid: int, within: float = 3.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_gives_code_and_both_outputs(tmp_path: Path) -> None:
    done = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path)
    assert (done.code, done.stdout.strip(), done.stderr.strip()) == (3, "out", "err")
    assert not done.timed_out
    assert not done.truncated


def test_runs_in_the_given_folder(tmp_path: Path) -> None:
    assert Path(python("import os; print(os.getcwd())", tmp_path).stdout.strip()) == tmp_path.resolve()


def test_arguments_are_never_read_by_a_shell(tmp_path: Path) -> None:
    done = launch.run(
        [PYTHON, "-c", "import sys; print(sys.argv[1])", "$(id) ; `id` | x > y"], cwd=tmp_path, timeout=10
    )
    assert done.stdout.strip() == "$(id) ; `id` | x > y"
    assert list(tmp_path.iterdir()) == []


def test_a_fast_program_is_not_waited_for_in_whole_intervals(tmp_path: Path) -> None:
    times = [launch.run(["git", "--version"], cwd=tmp_path, timeout=10).seconds for _ in range(10)]
    assert min(times) < launch.POLL / 2


def test_input_is_closed_unless_given(tmp_path: Path) -> None:
    assert python("import sys; print(repr(sys.stdin.read()))", tmp_path).stdout.strip() == "''"
    assert python("import sys; print(sys.stdin.read())", tmp_path, stdin=b"fed").stdout.strip() == "fed"


def test_input_that_nobody_reads_does_no_harm(tmp_path: Path) -> None:
    assert python("print('done')", tmp_path, stdin=b"x" * 5_000_000).stdout.strip() == "done"


def test_timeout_kills_and_says_so(tmp_path: Path) -> None:
    started = time.monotonic()
    done = python("import time; print('begun', flush=True); time.sleep(60)", tmp_path, timeout=0.6)
    assert done.timed_out
    assert done.code is None
    assert done.stdout.strip() == "begun"
    assert time.monotonic() - started < 5


@posix
def test_timeout_kills_what_ignores_the_polite_signal(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    done = python(code, tmp_path, timeout=0.6)
    assert done.timed_out
    assert time.monotonic() - started < 5


@posix
def test_a_program_may_clean_up_at_the_polite_signal(tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def end(*_): pathlib.Path('lock').unlink(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('lock').touch(); time.sleep(60)"
    )
    assert python(code, tmp_path, timeout=0.8).timed_out
    assert not (tmp_path / "lock").exists()


@posix
@pytest.mark.parametrize("session", [False, True], ids=["same group", "own session"])
def test_timeout_kills_grandchildren(tmp_path: Path, session: bool) -> None:
    code = (
        "import subprocess, time\n"
        f"p = subprocess.Popen(['sleep', '60'], start_new_session={session})\n"
        "print(p.pid, flush=True); time.sleep(60)"
    )
    done = python(code, tmp_path, timeout=0.8)
    assert gone(int(done.stdout))


@posix
def test_what_is_left_in_the_background_ends_with_the_program(tmp_path: Path) -> None:
    started = time.monotonic()
    done = python("import subprocess; print(subprocess.Popen(['sleep', '60']).pid)", tmp_path, timeout=20)
    assert done.code == 0
    assert gone(int(done.stdout))
    assert time.monotonic() - started < 5, "waited for the background process that holds the pipe"


def test_endless_output_is_cut_and_ended(tmp_path: Path) -> None:
    before = psutil.Process().memory_info().rss
    started = time.monotonic()
    done = python("import sys\nwhile True: sys.stdout.write('x' * 65536)", tmp_path, max_output=100_000, timeout=30)
    assert done.truncated
    assert done.code is None
    assert len(done.stdout) == 100_000
    assert time.monotonic() - started < 10
    assert psutil.Process().memory_info().rss - before < 50_000_000


def test_endless_errors_are_cut_too(tmp_path: Path) -> None:
    code = "import sys\nwhile True: sys.stderr.write('x' * 65536)"
    assert python(code, tmp_path, max_output=1000, timeout=30).truncated


def test_output_up_to_the_limit_is_whole(tmp_path: Path) -> None:
    done = python("print('x' * 99_999)", tmp_path, max_output=100_000)
    assert (done.code, len(done.stdout), done.truncated) == (0, 100_000, False)


def test_output_that_is_not_utf8_is_readable(tmp_path: Path) -> None:
    assert python("import sys; sys.stdout.buffer.write(b'a\\xffb')", tmp_path).stdout == "a\ufffdb"


def test_cancel_stops_within_a_moment(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.4, cancel.set).start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        python("import time; time.sleep(60)", tmp_path, cancel=cancel, timeout=30)
    assert time.monotonic() - started < 3
    with pytest.raises(Cancelled, match="was not started"):
        python("open('ran', 'w')", tmp_path, cancel=cancel)
    assert not (tmp_path / "ran").exists()


def test_environment_is_exactly_as_given(tmp_path: Path) -> None:
    code = "import os; print(sorted(n for n in os.environ if n not in ('LC_CTYPE', '__CF_USER_TEXT_ENCODING')))"
    done = python(code, tmp_path, env={"ONLY": "this"})
    assert done.stdout.strip() in ("['ONLY']", "['ONLY', 'SYSTEMROOT']")


def test_clean_environment_has_no_secrets() -> None:
    code = "from agentd.sandbox.launch import clean_env; print('\\n'.join(clean_env(['WANTED'])))"
    secrets = {"AWS_SECRET_ACCESS_KEY": "s", "GITHUB_TOKEN": "s", "HTTPS_PROXY": "s", "PYTHONPATH": os.getcwd()}
    env = {**os.environ, **secrets, "WANTED": "1", "LC_ALL": "C.UTF-8"}
    names = subprocess.run([PYTHON, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()
    assert {"PATH", "WANTED", "LC_ALL"} <= set(names)
    assert not set(secrets) & set(names)


def test_clean_environment_has_no_relative_program_folders() -> None:
    code = "from agentd.sandbox.launch import clean_env; print(clean_env()['PATH'])"
    path = os.pathsep.join([".", "", "bin", os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": os.getcwd()}
    shown = subprocess.run([PYTHON, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert all(os.path.isabs(entry) for entry in shown.split(os.pathsep))


@posix
def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    with secret.open() as held:
        os.set_inheritable(held.fileno(), True)
        done = python(f"import os; os.fstat({held.fileno()})", tmp_path)
    assert done.code != 0
    assert "Bad file descriptor" in done.stderr


@posix
def test_named_descriptors_are_passed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = launch.spawn([PYTHON, "-c", f"import os; os.write({writing}, b'hi')"], cwd=tmp_path, pass_fds=[writing])
    os.close(writing)
    assert os.read(reading, 10) == b"hi"
    os.close(reading)
    launch.kill_group(child)


@posix
def test_a_planted_program_is_never_found(tmp_path: Path) -> None:
    program(tmp_path, "git")
    program(tmp_path / "bin", "tool")
    outside = program(tmp_path.parent / (tmp_path.name + "-out"), "good", "echo good").parent
    (tmp_path.parent / (tmp_path.name + "-links")).mkdir()
    (tmp_path.parent / (tmp_path.name + "-links") / "linked").symlink_to(tmp_path / "bin" / "tool")
    links = tmp_path.parent / (tmp_path.name + "-links")
    path = os.pathsep.join(["", ".", "bin", str(tmp_path), str(tmp_path / "bin"), str(links), str(outside), "/usr/bin"])
    assert launch.run(["good"], cwd=tmp_path, env={"PATH": path}, timeout=5).stdout == "good\n"
    assert "git version" in launch.run(["git", "--version"], cwd=tmp_path, env={"PATH": path}, timeout=5).stdout
    for name in ("tool", "linked"):
        with pytest.raises(ToolFailed, match="no program named"):
            launch.run([name], cwd=tmp_path, env={"PATH": path}, timeout=5)


@posix
def test_a_relative_program_folder_is_never_used(tmp_path: Path) -> None:
    folder = program(tmp_path / "elsewhere", "tool").parent
    (tmp_path / "work").mkdir()
    with pytest.raises(ToolFailed, match="no program named"):
        launch.run(["tool"], cwd=tmp_path / "work", env={"PATH": os.path.relpath(folder)}, timeout=5)
    assert launch.run(["tool"], cwd=tmp_path / "work", env={"PATH": str(folder)}, timeout=5).code == 0


@posix
def test_a_program_in_the_folder_needs_leave(tmp_path: Path) -> None:
    path = program(tmp_path, "check.sh")
    for name in ("./check.sh", str(path), "../" + tmp_path.name + "/check.sh"):
        with pytest.raises(Denied, match="inside the workspace"):
            launch.run([name], cwd=tmp_path, timeout=5)
    assert launch.run(["./check.sh"], cwd=tmp_path, timeout=5, local=True).stdout == "mine\n"


@posix
def test_our_own_interpreter_may_lie_in_the_folder() -> None:
    inside = Path(PYTHON).parent
    assert launch.run([PYTHON, "--version"], cwd=inside, timeout=10).code == 0


@pytest.mark.parametrize("name", ["no-such-program-here", "/no/such/program", "", "a\0b"])
def test_a_missing_program_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        launch.run([name], cwd=tmp_path, timeout=5)
    assert repr(name) in caught.value.message


def test_what_cannot_be_passed_to_a_program_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="names no program"):
        launch.run([], cwd=tmp_path, timeout=5)
    for argument in ("a\0b", "\ud800", "x" * 5_000_000):
        with pytest.raises(ToolFailed, match="could not be started"):
            launch.run([PYTHON, "-c", "", argument], cwd=tmp_path, timeout=5)
    with pytest.raises(ToolFailed, match="could not be started"):
        launch.run([PYTHON, "-c", ""], cwd=tmp_path / "gone", timeout=5)


@posix
def test_a_file_that_cannot_run_is_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    with pytest.raises(ToolFailed, match="could not be started"):
        launch.run(["./broken"], cwd=tmp_path, timeout=5, local=True)


@posix
def test_a_long_lived_child_ends_with_its_group(tmp_path: Path) -> None:
    child = launch.spawn([PYTHON, "-c", "import time; time.sleep(60)"], cwd=tmp_path)
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    launch.kill_group(child)
    assert child.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    launch.kill_group(child)  # once more does no harm


def test_batch_files_get_no_arguments_that_their_shell_reads() -> None:
    with pytest.raises(Denied, match=r"cmd\.exe"):
        launch._refuse_batch_tricks("C:/node/npm.CMD", ["npm", "test", "a&calc"])
    launch._refuse_batch_tricks("C:/node/npm.CMD", ["npm", "run", "lint"])
