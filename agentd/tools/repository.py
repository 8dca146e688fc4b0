"""A git repository opened so that nothing in it can start a program."""

# git has dozens of settings that name a program, and new ones come (since 2.54 hooks may stand in the configuration),
# so a list of bad ones is never complete. Here git works in a folder of ours, which links to the objects, refs and
# logs of the repository, copies its HEAD, has no hooks, and whose configuration is written by us: of the repository's
# and the user's settings only those in _KEPT get into it.

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from agentd.errors import Denied, ToolFailed
from agentd.sandbox import launch
from agentd.sandbox.launch import Completed
from agentd.tools.hooks import Hooks
from agentd.tools.programs import must_end, seconds_left
from agentd.tools.tool import ToolContext
from agentd.types import Action

if sys.platform == "win32":
    import _winapi

TIMEOUT = 60.0
"""Seconds for one run of git."""

_KEPT = frozenset(
    (
        *("user.name", "user.email", "core.filemode", "core.symlinks", "core.ignorecase", "core.precomposeunicode"),
        *("core.protecthfs", "core.protectntfs", "core.longpaths", "core.checkstat", "core.trustctime"),
        *("core.autocrlf", "core.eol", "core.safecrlf", "core.excludesfile", "core.sharedrepository"),
        *("core.sparsecheckout", "core.sparsecheckoutcone", "core.repositoryformatversion"),
        *("extensions.objectformat", "extensions.refstorage"),
    )
)
_OURS = {
    "core.bare": "false",
    "core.hookspath": os.devnull,
    "core.fsmonitor": "false",
    "core.splitindex": "false",  # its shared half would be written to our folder and be lost
    "core.quotepath": "false",
    "core.bigfilethreshold": "16m",
    "commit.gpgsign": "false",
    "gc.auto": "0",  # packing refs would only change our copy
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "diff.ignoresubmodules": "all",  # git looks into submodules with their own configuration
    "status.submodulesummary": "false",
    "submodule.recurse": "false",
    "i18n.logoutputencoding": "UTF-8",
}
_HARMLESS_EXTENSIONS = ("noop", "preciousobjects", "worktreeconfig", "relativeworktrees", "partialclone")
_LINKED = ("objects", "refs", "logs", "info", "reftable")
_COPIED = ("HEAD", "index", "packed-refs", "shallow")
_HALFWAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
_SIGNING = {"openpgp": "gpg", "x509": "gpgsm", "ssh": "ssh-keygen"}
"""Programs that sign, by git's name of the form."""
_OF_SIGNING = ("user.signingkey", "gpg.ssh.allowedsignersfile", "gpg.mintrustlevel")
_OF_AGENTS = ("SSH_AUTH_SOCK", "GNUPGHOME", "XDG_RUNTIME_DIR")
"""By which a program that signs finds the agent that holds the keys."""
_SUBMODULE = "160000"
_OWN_INDEX = "own-index"
_WHOLE = 32_000_000
"""Bytes of a diff that is searched for secrets, and lines around each change in it: all of the file."""
_LOCKED_TRIES, _LOCKED_PAUSE = 40, 0.1
"""How often an index that someone else has locked is tried again, and after how many seconds."""
_AT_ONCE = 200
"""Paths in one command line."""
_NO_PROGRAMS = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all")
_FORM = "--format=%H%x1f%an%x1f%ad%x1f%s"
_STATES = {"A": "new", "D": "deleted", "R": "renamed", "C": "new", "U": "in conflict"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file that differs. `added` and `removed` count lines, None for a binary file; `old`: its name before."""

    path: str
    state: str
    added: int | None = None
    removed: int | None = None
    old: str = ""
    tracked: bool = True

    def __str__(self) -> str:
        counts = "binary" if self.added is None else f"+{self.added} -{self.removed}"
        if self.state == "changed":
            return f"{self.path} ({counts})"
        words = self.state + (f" from {self.old}" if self.old else "")
        return f"{self.path} ({words})" if counts == "+0 -0" else f"{self.path} ({words}, {counts})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    sha: str
    author: str
    date: str
    """YYYY-MM-DD, in the author's time zone."""
    subject: str

    def __str__(self) -> str:
        return f"{self.sha[:7]} {self.date} {self.author}: {self.subject}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file as git keeps it."""

    mode: str
    sha: str


@contextmanager
def open_repository(ctx: ToolContext) -> Iterator[Repository]:
    """The repository whose root the workspace is. `ToolFailed` when it is none, `Denied` when its data lies outside."""
    folder = _folder(ctx)
    settings, users = _settings(ctx, folder)
    with tempfile.TemporaryDirectory(prefix="agentd-git-", ignore_cleanup_errors=True) as mirror:
        _mirror(folder, Path(mirror), settings)
        yield Repository(ctx, folder, Path(mirror), settings, users)


class Repository:
    """Reads see a copy of the index, so that only `commit` writes anything; only files below the workspace count."""

    def __init__(
        self, ctx: ToolContext, folder: Path, mirror: Path, settings: Mapping[str, str], users: Mapping[str, str]
    ) -> None:
        """`users`: those of the settings that are the user's own, and not the repository's."""
        self._ctx, self._folder, self._mirror, self._settings, self._users = ctx, folder, mirror, settings, users
        self._env = _environment(mirror, ctx.workspace.root)
        if ctx.may(Action(kind="git.sign")):
            self._env |= {name: os.environ[name] for name in _OF_AGENTS if name in os.environ}
        self._written = {"GIT_INDEX_FILE": str(folder / "index")}
        (mirror / "new").mkdir()
        self._read = {
            "GIT_OBJECT_DIRECTORY": str(mirror / "new"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(mirror / "objects"),
        }
        self._untracked: frozenset[str] | None = None
        self._head: str | None = None
        self._taken: dict[str, tuple[bytes, tuple[str, ...]]] = {}

    def run(
        self, *args: str, stdin: bytes | None = None, write: bool = False, most: int = 1_000_000, index: str = ""
    ) -> Completed:
        """Run git to its end, whatever its exit code; `write` gives it the repository's own index and objects, `index`
        another index, of our folder."""
        env = self._env | (self._written if write else self._read)
        if index:
            env |= {"GIT_INDEX_FILE": str(self._mirror / index)}
        done = launch.run(
            ("git", "--no-pager", *args),
            cwd=self._ctx.workspace.root,
            env=env,
            timeout=seconds_left(self._ctx, TIMEOUT),
            max_output=most,
            cancel=self._ctx.cancel,
            stdin=stdin,
        )
        if done.timed_out:
            must_end(done, f"git {_command(args)}", TIMEOUT)
        return replace(done, stderr=done.stderr.replace(str(self._mirror), ".git"))

    def git(
        self, *args: str, stdin: bytes | None = None, write: bool = False, most: int = 8_000_000, index: str = ""
    ) -> str:
        """What git prints; `ToolFailed` with its words when it fails or prints more than `most` bytes."""
        done = self.run(*args, stdin=stdin, write=write, most=most, index=index)
        must_end(done, f"git {_command(args)}", TIMEOUT)
        if done.code != 0:
            raise _failed(args, done)
        return done.stdout

    @property
    def branch(self) -> str:
        """Its short name; empty when HEAD is detached."""
        return self.run("symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip()

    @property
    def head(self) -> str:
        """Id of the last commit; empty when there is none yet."""
        if self._head is None:
            self._head = self.run("rev-parse", "--verify", "--quiet", "HEAD").stdout.strip()
        return self._head

    def changes(self, path: str = ".", *, renames: bool = True) -> list[Change]:
        """Files that differ from the last commit, new ones that git does not know yet included."""
        new = self._note_untracked()
        options = ("--raw", "--numstat", "-z", "-M" if renames else "--no-renames", *_NO_PROGRAMS)
        found = _parse(self.git("diff", *options, self._base(), "--", literal(path)))
        return [replace(change, tracked=change.path not in new) for change in found]

    def staged(self) -> list[Change]:
        """What the index has that the last commit has not."""
        options = ("--cached", "--raw", "--numstat", "-z", "--no-renames", *_NO_PROGRAMS)
        return _parse(self.git("diff", *options, self._base(), "--"))

    def diff(self, path: str = ".") -> str:
        """Unified diff against the last commit; cut with a last line that says so when longer than 1 MB."""
        self._note_untracked()
        done = self.run("diff", "-M", *_NO_PROGRAMS, self._base(), "--", literal(path))
        if done.code != 0 and not done.truncated:
            raise _failed(("diff",), done)
        return done.stdout + ("\n… the diff is longer, the rest was left out\n" if done.truncated else "")

    def to_commit(self, changes: Collection[Change] | None) -> str:
        """What `commit` would take along: a diff with every file whole, also where that is no text."""
        if changes is None:
            return self._whole("--cached")
        self._note_untracked()
        return self._whole(paths=[change.path for change in changes])

    def to_commit_blobs(self, committed: Mapping[str, Blob | None]) -> str:
        """The same of `commit_blobs`."""
        self._begin_index()
        self.git("update-index", "-z", "--index-info", stdin=self._index_info(committed), index=_OWN_INDEX)
        return self._whole("--cached", index=_OWN_INDEX)

    def _whole(self, *options: str, paths: Sequence[str] = (), index: str = "") -> str:
        """Nothing of it is cut: `ToolFailed` for more than can be looked through."""
        how = ("--text", f"-U{_WHOLE}", "--no-renames", *_NO_PROGRAMS, *options)
        found: list[str] = []
        for start in range(0, max(1, len(paths)), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            done = self.run("--literal-pathspecs", "diff", *how, self._base(), "--", *some, most=_WHOLE, index=index)
            if done.truncated or sum(map(len, found)) + len(done.stdout) > _WHOLE:
                raise ToolFailed(
                    "nothing was committed: the change is too large to be searched for secrets",
                    hint=f"at most {_WHOLE:,} bytes are taken at once: commit it in parts, or by hand",
                )
            if done.code != 0:
                raise _failed(("diff",), done)
            found.append(done.stdout)
        return "".join(found)

    def log(self, limit: int, path: str = ".") -> tuple[list[Commit], int]:
        """The newest commits that touched `path`, and how many there are in all."""
        if not self.head:
            return [], 0
        where = () if path == "." else ("--", literal(path))
        text = self.git("log", f"-{limit}", _FORM, "--date=short", "--no-show-signature", "--no-color", "HEAD", *where)
        commits = [_commit(line) for line in text.split("\n") if line]
        return commits, int(self.git("rev-list", "--count", "HEAD", *where))

    # commits ----------------------------------------------------------------------------------------------------------

    def commit(self, message: str, changes: Collection[Change] | None) -> str:
        """Commit these changes and nothing else, or (None) what is staged; returns the id."""
        self._must_be_whole()
        if changes is None:
            return self._committed(message)
        self.refuse_filtered([change.path for change in changes])
        take, names = ("update-index", "--add", "--remove", "-z", "--stdin"), _joined(each.path for each in changes)
        self._begin_index()
        self.git(*take, stdin=names, write=True, index=_OWN_INDEX)
        sha = self._committed(message, _OWN_INDEX)
        self._into_index(*take, stdin=names)
        return sha

    def commit_blobs(
        self, message: str, committed: Mapping[str, Blob | None], staged: Mapping[str, Blob | None]
    ) -> str:
        """Commit the last commit with these files in it (None: without), whatever the index and the files are like.

        The commit is made before the branch knows of it, and the index learns it last: what a crash leaves undone of
        that, `stage` does later.
        """
        self._must_be_whole()
        self._keep(committed.values())
        self._begin_index()
        self.git("update-index", "-z", "--index-info", stdin=self._index_info(committed), write=True, index=_OWN_INDEX)
        sha = self._committed(message, _OWN_INDEX)
        self.stage(staged)
        return sha

    def _begin_index(self) -> None:
        """An index of ours, as the last commit is."""
        self.git("read-tree", *((self.head,) if self.head else ("--empty",)), index=_OWN_INDEX)

    def _committed(self, message: str, index: str = "") -> str:
        """Commit an index of ours, or the repository's own. Hooks and a signature only where policy allows them."""
        (self._folder / "logs").mkdir(exist_ok=True)
        _link(self._folder / "logs", self._mirror / "logs")
        hooks = self._hooks(index)
        hooks.check()
        message = _cleaned(hooks.worded(_cleaned(message)))
        head, tree = self.head, self.git("write-tree", write=True, index=index).strip()
        parent, (signing, sign) = ("-p", head) if head else (), self._signature()
        made = (*signing, "commit-tree", *sign, tree, *parent, "-F", "-")
        sha = self.git(*made, stdin=message.encode("utf-8", "surrogateescape"), write=True).strip()
        told = f"commit{'' if head else ' (initial)'}: {message.partition(chr(10))[0]}"
        self.git("update-ref", "--create-reflog", "-m", told, "HEAD", sha, head or "0" * len(sha), write=True)
        self._head = None
        return sha

    def _hooks(self, index: str) -> Hooks:
        folder = self._ctx.workspace.root / self._settings.get("core.hookspath", self._folder / "hooks")
        there = self._mirror / index if index else self._folder / "index"
        return Hooks(ctx=self._ctx, folder=folder, index=there)

    def _signature(self) -> tuple[list[str], list[str]]:
        """Options of git and of `commit-tree` by which the user's own program signs; none where policy has no yes."""
        if not self._ctx.may(Action(kind="git.sign")):
            return [], []
        form = self._users.get("gpg.format", "openpgp")
        named = self._users.get(f"gpg.{form}.program") or (form == "openpgp" and self._users.get("gpg.program"))
        env = launch.clean_env()
        program = launch.find_program(named or _SIGNING.get(form, form), cwd=self._ctx.workspace.root, env=env)
        kept = [f"{key}={value}" for key, value in self._users.items() if key in _OF_SIGNING]
        told = [f"gpg.format={form}", f"gpg.{form}.program={program}", f"gpg.program={program}", *kept]
        return [word for each in told for word in ("-c", each)], ["-S"]

    def stage(self, blobs: Mapping[str, Blob | None]) -> None:
        """Put these into the repository's index; nothing else in it changes."""
        if not blobs:
            return
        self._keep(blobs.values())
        self._into_index("update-index", "-z", "--index-info", stdin=self._index_info(blobs))
        self.run("update-index", "-q", "--refresh", write=True)  # it is right without, only slower to compare

    def _into_index(self, *args: str, stdin: bytes) -> None:
        """Change the repository's own index. Editors look at it all the time, and lock it while they do: a commit that
        it does not learn of would look as if its opposite was staged."""
        for _ in range(_LOCKED_TRIES):
            done = self.run(*args, stdin=stdin, write=True)
            if "index.lock" not in done.stderr or self._ctx.cancel.wait(_LOCKED_PAUSE):
                break
        must_end(done, f"git {_command(args)}", TIMEOUT)
        if done.code != 0:
            raise _failed(args, done)

    def _index_info(self, blobs: Mapping[str, Blob | None]) -> bytes:
        """What goes comes first: a file may take the place of a folder."""
        nothing = f"0 {'0' * len(self._base())}"
        gone = [f"{nothing}\t{path}" for path, blob in blobs.items() if blob is None]
        return _joined([*gone, *(f"{blob.mode} {blob.sha}\t{path}" for path, blob in blobs.items() if blob), ""])

    def in_head(self, paths: Sequence[str], commit: str = "HEAD") -> dict[str, Blob]:
        """These files as a commit has them."""
        if not self.head:
            return {}
        found = (cell.split("\t", 1) for cell in self._listed("ls-tree", "-r", "--full-tree", commit, paths=paths))
        return {path: Blob(mode=fields.split(" ")[0], sha=fields.split(" ")[2]) for fields, path in found}

    def in_parent(self, sha: str, paths: Sequence[str]) -> dict[str, Blob]:
        """These files as they were before a commit."""
        has_one = self.run("rev-parse", "--verify", "--quiet", f"{sha}^").code == 0
        return self.in_head(paths, f"{sha}^") if has_one else {}

    def in_index(self, paths: Sequence[str]) -> dict[str, Blob]:
        """These files as they are staged."""
        found = (cell.split("\t", 1) for cell in self._listed("ls-files", "--stage", paths=paths))
        return {path: Blob(mode=fields.split(" ")[0], sha=fields.split(" ")[1]) for fields, path in found}

    def _listed(self, *command: str, paths: Sequence[str]) -> Iterator[str]:
        name, *options = command
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            yield from filter(None, self.git("--literal-pathspecs", name, "-z", *options, "--", *some).split("\0"))

    def content(self, blob: Blob) -> bytes | None:
        """Its bytes; None for what is no UTF-8 text."""
        data = self.git("cat-file", "blob", blob.sha).encode()
        algorithm = self._settings.get("extensions.objectformat", "sha1")
        return data if hashlib.new(algorithm, b"blob %d\0" % len(data) + data).hexdigest() == blob.sha else None

    def has_crlf(self, blob: Blob) -> bool:
        """Whether it is a text in which some lines end with a carriage return."""
        return b"\r\n" in (self.content(blob) or b"")

    def take(self, data: bytes, path: str = "") -> str:
        """The id of these bytes; of a file at `path`, with the line endings that it has in git. Only what is committed
        or staged of it gets into the repository."""
        how = (f"--path={path}",) if path else ("--no-filters",)
        sha = self.git("hash-object", "-w", "--stdin", *how, stdin=data).strip()
        self._taken[sha] = data, how
        return sha

    def _keep(self, blobs: Iterable[Blob | None]) -> None:
        for sha in {blob.sha for blob in blobs if blob is not None} & set(self._taken):
            data, how = self._taken[sha]
            self.git("hash-object", "-w", "--stdin", *how, stdin=data, write=True)

    def not_ignored(self, paths: Sequence[str]) -> list[str]:
        """Without files that git is to leave alone and does not know yet."""
        done = self.run("check-ignore", "-z", "--stdin", stdin=_joined(paths), most=8_000_000) if paths else None
        ignored = set(done.stdout.split("\0")) if done is not None else set()
        return [path for path in paths if path not in ignored]

    def inner(self, path: str) -> str:
        """The folder with a repository of its own, or the submodule, that a file lies in; empty for none."""
        above = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        linked = self._listed("ls-tree", "HEAD", paths=above) if above and self.head else ()
        modules = {cell.split("\t", 1)[1] for cell in linked if cell.startswith(_SUBMODULE)}
        root = self._ctx.workspace.root
        return next((each for each in above if each in modules or os.path.lexists(root / each / ".git")), "")

    def last_key(self, path: str) -> str:
        """The key of the call that made this task's last commit of a file; empty for none."""
        if not self.head or not self._ctx.task:
            return ""
        form = "--format=%(trailers:key=Agentd-Key,valueonly)"
        mine = ("--fixed-strings", f"--grep=Agentd-Task: {self._ctx.task}")
        return self.git("log", "-1", "--no-show-signature", form, *mine, "HEAD", "--", literal(path)).strip()

    @property
    def trusts_modes(self) -> bool:
        return self._settings.get("core.filemode", "true") != "false"

    def find(self, line: str, since: str) -> str:
        """Id of a commit after `since` (an id; empty for the beginning) whose message has this line; empty for none."""
        if not self.head:
            return ""
        options = ("log", "-500", "--no-show-signature", "--format=%H%n%B%x00")
        done = self.run(*options, f"{since}..HEAD" if since else "HEAD", most=8_000_000)
        if done.code != 0:  # `since` is gone: the history was rewritten
            done = self.run(*options, "HEAD", most=8_000_000)
        for entry in done.stdout.split("\0"):
            sha, *body = entry.strip().splitlines() or [""]
            if line in body:
                return sha
        return ""

    def of_task(self, task: str, most: int) -> list[str]:
        """Ids of the newest commits whose message says that they are of this task."""
        if not self.head:
            return []
        options = ("--no-show-signature", "--format=%H", "--fixed-strings", f"--grep=Agentd-Task: {task}")
        return self.git("log", f"-{most}", *options, "HEAD").split()

    def made(self, sha: str) -> tuple[Commit, list[Change]]:
        """A commit and what it changed."""
        line = self.git("log", "-1", _FORM, "--date=short", "--no-show-signature", sha).rstrip("\n")
        options = ("--no-commit-id", "--root", "-r", "--raw", "--numstat", "-z", "-M", *_NO_PROGRAMS)
        return _commit(line), _parse(self.git("diff-tree", *options, sha))

    def _base(self) -> str:
        """What changes are counted from: the last commit, or the empty tree, which git knows without having it."""
        empty = hashlib.new(self._settings.get("extensions.objectformat", "sha1"), b"tree 0\0")
        return self.head or empty.hexdigest()

    def _note_untracked(self) -> frozenset[str]:
        """Enter new files into our copy of the index without content, so that diffs show them; returns their paths."""
        if self._untracked is None:
            listed = self.git("ls-files", "-z", "--others", "--exclude-standard").split("\0")
            # A name that ends with a slash is a repository inside this one.
            paths = [name for name in listed if name and not name.endswith("/")]
            if paths:
                listed_here = ("--pathspec-from-file=-", "--pathspec-file-nul")
                self.git("--literal-pathspecs", "add", "--intent-to-add", *listed_here, stdin=_joined(paths))
            self._untracked = frozenset(paths)
        return self._untracked

    def _must_be_whole(self) -> None:
        for name, what in _HALFWAY.items():
            if (self._folder / name).exists():
                raise ToolFailed(f"{what} is in progress in this repository", hint="finish or abort it by hand first")
        if self.git("ls-files", "--unmerged", "-z"):
            raise ToolFailed("there are files in conflict", hint="finish the merge by hand first")
        if not self.branch:
            raise ToolFailed("HEAD is detached: a commit would be on no branch", hint="check out a branch first")
        for _ in range(_LOCKED_TRIES):
            if not (self._folder / "index.lock").exists():
                return
            self._ctx.cancel.wait(_LOCKED_PAUSE)
        raise ToolFailed(
            "nothing was committed: another git works in this repository",
            hint="if none does, one was killed: remove .git/index.lock by hand",
        )

    def refuse_filtered(self, paths: Sequence[str]) -> None:
        """A file that a configured filter would turn into something else cannot be committed without running it."""
        cells = self.git("check-attr", "-z", "--stdin", "filter", stdin=_joined(paths)).split("\0")
        for path, value in zip(cells[::3], cells[2::3], strict=False):
            if any(self._settings.get(f"filter.{value}.{kind}") for kind in ("clean", "process")):
                raise ToolFailed(
                    f"{path} goes through the filter {value!r}, a program of the configuration, and none is run here",
                    hint="commit it by hand, or name other paths",
                )


def _commit(line: str) -> Commit:
    sha, author, date, subject = line.split("\x1f", 3)
    return Commit(sha=sha, author=author, date=date, subject=subject)


def readable(diff: str, may_read: Callable[[str], bool]) -> str:
    """`diff` without the content of files that may not be read; a line says which."""
    kept: list[str] = []
    shown = True
    for section in _sections(diff):
        names = _names(section) if section.startswith("diff --") else []
        shown = all(may_read(name) for name in names) if names else True
        kept.append(section if shown else f"{names[0]}: not shown, it may not be read\n")
    return "".join(kept)


def literal(path: str) -> str:
    """A pathspec without wildcards."""
    return f":(literal){path}"


def _cleaned(message: str) -> str:
    return "\n".join(line.rstrip() for line in message.strip().split("\n")) + "\n"


def _joined(paths: Iterable[str]) -> bytes:
    return "\0".join(paths).encode("utf-8", "surrogateescape")


def _sections(diff: str) -> Iterator[str]:
    """The text before the first file's diff, then one text per file."""
    lines: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", diff):  # splitlines would also split at characters inside a line
        # Lines of content start with a space, a sign or a backslash; those of a log's message with spaces.
        if line.startswith(("diff --git ", "diff --cc ", "diff --combined ", "commit ")) and lines:
            yield "".join(lines)
            lines = []
        lines.append(line)
    yield "".join(lines)


def _names(section: str) -> list[str]:
    """Every path that the head of a file's diff names."""
    first, *rest = section.split("\n@@", 1)[0].split("\n")
    kind, _, tail = first.removeprefix("diff --").partition(" ")
    names = [tail] if kind != "git" else [tail[: len(tail) // 2], tail[len(tail) // 2 + 1 :]]
    for line in rest:
        for lead in ("rename from ", "rename to ", "copy from ", "copy to ", "--- ", "+++ "):
            if line.startswith(lead):
                names.append(line.removeprefix(lead).rstrip("\t"))
    plain = [name.strip('"') for name in names if name != "/dev/null"]
    return [name[2:] if name[:2] in ("a/", "b/") else name for name in plain]


def _parse(output: str) -> list[Change]:
    """`--raw --numstat -z`: states first, then lines added and removed."""
    cells = iter(output.split("\0"))
    found: dict[str, Change] = {}
    for cell in cells:
        if cell.startswith(":"):
            letter = cell.rsplit(" ", 1)[-1][:1]
            first = next(cells)
            path = next(cells) if letter in "RC" else first
            known = found.get(path)
            if known is None or known.state != "in conflict":
                old = first if letter == "R" else ""
                found[path] = Change(path=path, state=_STATES.get(letter, "changed"), old=old)
        elif cell.count("\t") >= 2:
            added, removed, path = cell.split("\t", 2)
            if not path:
                next(cells)
                path = next(cells)
            if added != "-" and path in found:
                found[path] = replace(found[path], added=int(added), removed=int(removed))
    return sorted(found.values(), key=lambda change: change.path)


def _folder(ctx: ToolContext) -> Path:
    """The repository's own folder, `.git` or what the file `.git` names."""
    root = ctx.workspace.root
    found = ctx.workspace.stat(".git")
    if found is None:
        above = next((parent for parent in root.parents if (parent / ".git").exists()), None)
        hint = "run `git init` in it first" if above is None else f"it lies in the repository {above}: start there"
        raise ToolFailed(f"the workspace {root.name} is not a git repository", hint=hint)
    folder = ctx.workspace.resolve(".git")
    if stat.S_ISREG(found.st_mode):
        text = ctx.workspace.read_bytes(".git", 4096).decode("utf-8", "replace").strip()
        folder = (root / text.removeprefix("gitdir:").strip()).resolve()
        if not text.startswith("gitdir:") or not folder.is_relative_to(root):
            raise Denied(f"the repository's data lies outside the workspace ({text[:200]})")
    if (folder / "commondir").exists():
        raise Denied("the workspace is a linked worktree: its data lies elsewhere", hint="use the main worktree")
    for name in ("objects", "refs"):
        if not (folder / name).is_dir():
            raise ToolFailed(f"{root.name}/.git is not a git repository: it has no {name}")
    _refuse_odd(folder)
    return folder


def _refuse_odd(folder: Path) -> None:
    """`Denied` for a link or a special file where git keeps its own: it would follow the one and wait for the other."""
    for name in _LINKED:
        if (folder / name).is_symlink():
            raise Denied(f"{name} of the repository is a link")
    for name in ("config", "config.worktree", *_copied(folder)):
        if os.path.lexists(folder / name) and not stat.S_ISREG((folder / name).lstat().st_mode):
            raise Denied(f"{name} of the repository is no regular file")


def _copied(folder: Path) -> list[str]:
    return [*_COPIED, *(path.name for path in folder.glob("sharedindex.*"))]


def _settings(ctx: ToolContext, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """All settings that hold here, and those of them that the user has outside the repository. Listing them starts no
    program."""
    env = {**launch.clean_env(), "GIT_DIR": str(folder), "GIT_TERMINAL_PROMPT": "0"}
    argv = ("git", "--no-pager", "config", "--list", "--show-scope", "-z")
    done = launch.run(argv, cwd=ctx.workspace.root, env=env, timeout=seconds_left(ctx, 10.0), cancel=ctx.cancel)
    must_end(done, "git config", 10.0)
    if done.code != 0:
        raise _failed(("config",), done)
    settings, users = {}, {}
    cells = done.stdout.split("\0")
    for scope, entry in zip(cells[::2], cells[1::2], strict=False):
        key, equals, value = entry.partition("\n")
        settings[key] = value if equals else "true"
        if scope in ("system", "global"):
            users[key] = settings[key]
    for key in settings:
        section, _, name = key.partition(".")
        if section == "extensions" and key not in _KEPT and name not in _HARMLESS_EXTENSIONS:
            raise ToolFailed(f"the repository uses the extension {name}, which is not known here")
    return settings, users


def _mirror(folder: Path, mirror: Path, settings: Mapping[str, str]) -> None:
    """Fill our folder."""
    for name in _LINKED:
        if (folder / name).is_dir():
            _link(folder / name, mirror / name)
    for name in _copied(folder):
        if (folder / name).exists():
            shutil.copy2(folder / name, mirror / name)  # with its time: git tells by it which files to look into
    (mirror / "config").write_text(_config(settings), encoding="utf-8", errors="surrogateescape")


def _config(settings: Mapping[str, str]) -> str:
    kept = {key: value for key, value in settings.items() if key in _KEPT}
    kept["user.name"] = kept.get("user.name") or "agentd"
    kept["user.email"] = kept.get("user.email") or "agentd@localhost"
    lines = []
    for key, value in (kept | _OURS).items():
        section, _, name = key.partition(".")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines.append(f'[{section}]\n\t{name} = "{escaped}"\n')
    return "".join(lines)


def _environment(mirror: Path, root: Path) -> dict[str, str]:
    env = launch.clean_env()
    return env | {
        "GIT_DIR": str(mirror),
        "GIT_WORK_TREE": str(root),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_EDITOR": ":",
        "LC_ALL": "C.UTF-8",
    }


def _link(target: Path, link: Path) -> None:
    if link.exists():
        return
    if sys.platform == "win32":
        _winapi.CreateJunction(str(target), str(link))  # a symlink would need a privilege there
    else:
        link.symlink_to(target, target_is_directory=True)


def _command(args: Sequence[str]) -> str:
    """The first word that is neither an option nor a setting given with `-c`."""
    return next(word for word in args if not word.startswith("-") and "=" not in word)


def _failed(args: Sequence[str], done: Completed) -> ToolFailed:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "")
    words = told.removeprefix("fatal: ").removeprefix("error: ")
    hint = "another git runs here, or one was killed: remove .git/index.lock by hand" if "index.lock" in told else ""
    return ToolFailed(f"git {_command(args)} failed: {words or f'exit code {done.code}'}", hint=hint)
