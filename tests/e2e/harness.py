"""A home with a daemon of its own, seen as a person sees it: through the command line, in processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from agentd.backends.catalog import ROLES
from agentd.config import init_home
from agentd.home import Home

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0


class Agentd:
    """The command line over one home. `workspace` is a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.workspace = folder / "work"
        self.workspace.mkdir(parents=True)
        init_home(self.home.home)
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
        # The package need not be installed, and the working folder is not that of the sources.
        path = [str(ROOT), *filter(None, [self.env.get("PYTHONPATH")])]
        self.env |= {"AGENTD_HOME": str(self.home.home), "PYTHONPATH": os.pathsep.join(path)}

    def speak(self, words: Path) -> None:
        """Let a scripted model with these words take every role."""
        shutil.copyfile(words, self.home.models_dir / "words.yaml")
        roles = "\n".join(f'{role} = ["words"]' for role in ROLES)
        catalog = f'[roles]\n{roles}\n[models.words]\nbackend = "scripted"\nreplies = "words.yaml"\n'
        (self.home.models_dir / "catalog.toml").write_text(catalog, encoding="utf-8")

    def start(self, *args: str, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """A command that runs on, with its output in pipes."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, "-m", "agentd", *args],
            cwd=self.workspace,
            env=self.env | dict(env or {}),
            text=True,
            **(streams | more),
        )

    def run(
        self, *args: str, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command with its exit code and output."""
        data = stdin.encode() if isinstance(stdin, str) else stdin or b""
        done = subprocess.run(
            [sys.executable, "-m", "agentd", *args],
            cwd=self.workspace,
            env=self.env | dict(env or {}),
            input=data,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def ok(self, *args: str, **more: Any) -> str:
        """The stdout of a command that must succeed."""
        done = self.run(*args, **more)
        assert done.returncode == 0, f"{args}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.removesuffix("\n")

    def json(self, *args: str, **more: Any) -> Any:
        """What a command that must succeed prints with --json."""
        return json.loads(self.ok(*args, "--json", **more))

    def error(self, *args: str, code: int, **more: Any) -> dict[str, Any]:
        """The error object of a command that must fail with this exit code and print nothing."""
        done = self.run(*args, "--json", **more)
        assert (done.returncode, done.stdout) == (code, ""), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
        return found

    @property
    def pid(self) -> int:
        return int(self.json("status")["pid"])

    def kill(self) -> int:
        """kill -9, and wait until the daemon is gone."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid))
        return pid

    def stop(self) -> None:
        """For the end of a test, in whatever state things are."""
        done = self.run("down")
        if done.returncode != 0:
            self.kill()

    def files(self, files: Mapping[str, str]) -> None:
        """Make the workspace hold these files and no others."""
        for path in sorted(self.workspace.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for name, text in files.items():
            path = self.workspace / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Until `condition()` is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.02)


class Terminal:
    """A command on a terminal of its own; `screen` is all that it has shown so far."""

    def __init__(self, of: Agentd, *args: str) -> None:
        self._side, theirs = pty.openpty()
        env = {name: value for name, value in of.env.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentd", *args],
            cwd=of.workspace,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.screen = ""

    def wait_for(self, text: str) -> None:
        while text not in self.screen:
            ready, _, _ = select.select([self._side], [], [], SECONDS)
            assert ready, f"{text!r} did not come; the screen:\n{self.screen}"
            self.screen += os.read(self._side, 65536).decode("utf-8", "replace")

    def type(self, keys: str) -> None:
        os.write(self._side, keys.encode())

    def end(self) -> int:
        """The exit code, once the command has ended."""
        try:
            while part := os.read(self._side, 65536):
                self.screen += part.decode("utf-8", "replace")
        except OSError:
            pass  # what Linux says when the other side has closed
        os.close(self._side)
        return self.process.wait(SECONDS)
