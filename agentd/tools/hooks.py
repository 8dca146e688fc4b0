"""A repository's own hooks of a commit, where policy allows them: they look behind walls, and say yes or no."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentd.errors import ToolFailed
from agentd.sandbox.confine import Room
from agentd.tools.programs import must_end, project_env, seconds_left
from agentd.tools.tool import ToolContext
from agentd.types import Action

TIMEOUT = 300.0
"""Seconds for one hook."""
MAX_MESSAGE = 20_000
"""Bytes of a message that a hook has worded anew."""
_SHOWN = 2000
"""Characters of what a hook says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """`folder`: where they lie. `index`: what is to be committed; a hook gets a copy of it, and git looks there."""

    ctx: ToolContext
    folder: Path
    index: Path

    def check(self) -> None:
        """Ask `pre-commit`; `ToolFailed` with its words when it says no."""
        self._ask("pre-commit")

    def worded(self, message: str) -> str:
        """The message as `commit-msg` leaves it; `ToolFailed` when that says no, or takes away whose commit it is."""
        with tempfile.TemporaryDirectory(prefix="agentd-message-") as folder:
            file = Path(folder) / "COMMIT_EDITMSG"
            file.write_text(message, encoding="utf-8", errors="surrogateescape")
            if not self._ask("commit-msg", str(file), outputs=(Path(folder),)):
                return message
            if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_MESSAGE:
                raise ToolFailed("nothing was committed: the hook commit-msg left no message that could be taken")
            worded = file.read_text(encoding="utf-8", errors="surrogateescape")
        lost = [line for line in message.split("\n") if line.startswith("Agentd-") and line not in worded.split("\n")]
        if lost:
            raise ToolFailed(f"nothing was committed: the hook commit-msg takes away the line {lost[0]!r}")
        return worded

    def _ask(self, name: str, *arguments: str, outputs: Sequence[Path] = ()) -> bool:
        """Whether there is such a hook that may run; it has said yes then."""
        hook = (self.folder / name).resolve()
        if not hook.is_relative_to(self.ctx.workspace.root) or not hook.is_file() or not os.access(hook, os.X_OK):
            return False
        if not self.ctx.may(Action(kind="git.hook", target=name)):
            return False
        if not self.ctx.walls.required:
            raise ToolFailed(
                f"nothing was committed: the hook {name} is allowed, and runs behind walls only",
                hint='set sandbox.commands = "required", or take back the rule for git.hook',
            )
        self._run(name, [str(hook), *arguments], outputs)
        return True

    def _run(self, name: str, argv: Sequence[str], outputs: Sequence[Path]) -> None:
        with project_env(self.ctx) as env, tempfile.TemporaryDirectory(prefix="agentd-index-") as folder:
            index = shutil.copy2(self.index, folder)
            env |= {"GIT_INDEX_FILE": index, "GIT_EDITOR": ":", "GIT_TERMINAL_PROMPT": "0"}
            room = Room(
                workspace=self.ctx.workspace.root,
                scratch=Path(env["TMPDIR"]),
                outputs=(Path(folder), *outputs),
                looks=True,
            )
            limit = seconds_left(self.ctx, TIMEOUT)
            done = self.ctx.walls.run(argv, room=room, env=env, timeout=limit, cancel=self.ctx.cancel, local=True)
        must_end(done, f"the hook {name}", TIMEOUT)
        self.ctx.notes.setdefault("hooks", []).append(f"{name} {done.code}")
        if done.code != 0:
            said = "\n".join(filter(None, (done.stdout.strip(), done.stderr.strip())))
            raise ToolFailed(f"nothing was committed: the hook {name} says no ({done.code})", hint=said[:_SHOWN])
