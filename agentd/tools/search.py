"""Finding files by name and text in files; ignored, binary and guarded files stay out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from pathspec import GitIgnoreSpec
from pydantic import Field

from agentd.errors import Cancelled, Denied, ToolFailed, ToolMisused
from agentd.sandbox import launch
from agentd.tools.match_lines import find, literal
from agentd.tools.programs import must_end, seconds_left
from agentd.tools.tool import ExistingPath, Folder, Pattern, ToolContext, tool
from agentd.types import Action, Effect, ToolResult
from agentd.workspace.names import normal
from agentd.workspace.text import SAMPLE, decode, is_binary

MAX_MATCHES = 500
MAX_FILE = 5_000_000
"""Bytes of one file; larger ones are left out, and the answer says so."""
MAX_TEXT = 50_000_000
"""Bytes of all files of one search."""
SECONDS = 10.0

_MATCHER = Path(__file__).with_name("match_lines.py")
_WILD = frozenset("*?[")


@tool(
    actions=lambda a: [Action(kind="fs.read", target=normal(a.path))],
    effect=Effect.PURE,
    read_only=True,
    examples=(
        "Where is the file {pattern}?",
        "Find all files named {pattern}",
        "Which {pattern} files are there in {path}?",
        "Is there a file called {pattern}?",
        "List every file that matches {pattern}",
        "How many {pattern} files does the project have?",
        "Find the files ending in {pattern}",
    ),
)
def find_files(ctx: ToolContext, pattern: Pattern, path: Folder = ".") -> ToolResult:
    """Find files and folders by name.

    The pattern is a glob (`*.py`, `src/**/test_*.py`) or a part of the name; upper and lower case are the same. It
    looks at names only: to look into files use search_text. Ignored files are left out.
    """
    _must_be_something(pattern)
    spec = _glob(pattern) if _WILD & set(pattern) else None
    found: list[str] = []
    for name in _names(ctx, path):
        _go_on(ctx)
        if spec.match_file(name.casefold()) if spec else _has_part(name, pattern):
            found.append(name)
    place = "" if normal(path) == "." else f" in {path}"
    if not found:
        return ToolResult(ok=True, text=f'No file{place} has a name like "{pattern}".', data={"files": [], "count": 0})
    data = {"files": found[:MAX_MATCHES], "count": len(found)}
    if len(found) == 1:
        return ToolResult(ok=True, text=f'1 match for "{pattern}"{place}: {found[0]}', data=data)
    more = [f"… and {len(found) - MAX_MATCHES} more"] if len(found) > MAX_MATCHES else []
    text = "\n".join([f'{len(found)} matches for "{pattern}"{place}:', *found[:MAX_MATCHES], *more])
    return ToolResult(ok=True, text=text, data=data)


@tool(
    actions=lambda a: [Action(kind="fs.read", target=normal(a.path))],
    effect=Effect.PURE,
    read_only=True,
    examples=(
        "Where is {pattern} used?",
        "Find every {pattern} in the code",
        "Which files mention {pattern}?",
        "Search for {pattern} in {path}",
        "Search all files for the text {pattern}",
        "How often does {pattern} occur?",
        "Show all lines with {pattern} in {glob} files",
        "Where is {pattern} defined?",
        "Show me every {pattern}",
        "Which files contain {pattern}?",
        "Where do we call {pattern}?",
        "grep for {pattern}",
    ),
)
def search_text(
    ctx: ToolContext,
    pattern: Pattern,
    path: ExistingPath = ".",
    regex: Annotated[bool, Field(description="take the pattern as a regular expression")] = False,
    glob: Annotated[str, Field(max_length=500, description="only files like this, for example *.py")] = "",
    ignore_case: Annotated[bool, Field(description="upper and lower case are the same")] = False,
) -> ToolResult:
    """Find lines that contain a text, in all files or below one path.

    Gives `path:line: text` for each line. The pattern is plain text unless regex is true (Python's syntax, one line
    at a time). Binary and ignored files are left out.
    """
    _must_be_something(pattern)
    texts = _Texts(ctx, path, glob)
    if regex:
        hits, full = _match(ctx, pattern, ignore_case, list(texts))
    else:
        hits, full = find(literal(pattern, ignore_case), texts, MAX_MATCHES)
    hits = [hit for hit in hits if ctx.may_read(hit[0])]
    notes = texts.notes + ([f"Only the first {MAX_MATCHES} matches are shown."] if full else [])
    return _told(pattern, "" if normal(path) == "." else path, hits, notes)


def _told(pattern: str, path: str, hits: Sequence[tuple[str, int, str]], notes: Sequence[str]) -> ToolResult:
    files = list(dict.fromkeys(name for name, _, _ in hits))
    data = {
        "count": len(hits),
        "files": files,
        "matches": [{"path": name, "line": number, "text": line} for name, number, line in hits],
    }
    if not hits:
        head = f'{path} does not contain "{pattern}".' if path else f'No file contains "{pattern}".'
    else:
        head = f"{_count(len(hits), 'match', 'matches')} in {_count(len(files), 'file', 'files')}"
    lines = [f"{name}:{number}: {line}" for name, number, line in hits]
    return ToolResult(ok=True, text="\n".join([head, *lines, *notes]), data=data)


@dataclass
class _Texts:
    """(path, text) of every text file to search; read one by one. `notes` says what was left out."""

    ctx: ToolContext
    path: str
    glob: str

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self._spec = _glob(self.glob) if self.glob else None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        read = 0
        deadline = time.monotonic() + SECONDS
        for name in _files(self.ctx, self.path):
            _go_on(self.ctx)
            if self._spec and not self._spec.match_file(name.casefold()):
                continue
            if read > MAX_TEXT or time.monotonic() > deadline:
                self.notes.append(f"The search stopped at {name}: too much text. Search below a folder or with a glob.")
                return
            data = self._read(name)
            if data is not None and not is_binary(data[:SAMPLE]):
                read += len(data)
                yield name, decode(data)[0]

    def _read(self, name: str) -> bytes | None:
        try:
            with self.ctx.workspace.open(name) as stream:
                data = stream.read(MAX_FILE + 1)
        except (ToolFailed, Denied):
            if name == self.path:
                raise
            return None  # unreadable, a link that leads out, or gone since it was listed
        if len(data) > MAX_FILE:
            self.notes.append(f"{name} was not searched: it has more than {MAX_FILE // 1_000_000} MB.")
            return None
        return data


def _match(
    ctx: ToolContext, pattern: str, ignore_case: bool, texts: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, int, str]], bool]:
    """Match in a child process: an expression can take for ever, and nothing stops Python's `re` from within."""
    asked = {"pattern": pattern, "ignore_case": ignore_case, "most": MAX_MATCHES, "texts": texts}
    done = launch.run(
        (sys.executable, "-I", "-S", str(_MATCHER)),
        cwd=ctx.workspace.root,
        timeout=seconds_left(ctx, SECONDS),
        max_output=64_000_000,
        cancel=ctx.cancel,
        stdin=json.dumps(asked).encode(),
    )
    if done.timed_out:
        raise ToolFailed(
            f"searching with the expression {pattern!r} took more than {done.seconds:.0f} s and was stopped",
            hint="use a simpler expression, or search below a folder",
        )
    must_end(done, "the search", SECONDS)
    if done.code != 0:
        raise ToolFailed(f"the search failed: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ToolMisused(
            f"{pattern!r} is not a regular expression: {answer['error']}", hint="set regex to false for plain text"
        )
    return [(name, number, line) for name, number, line in answer["hits"]], answer["full"]


def _files(ctx: ToolContext, path: str) -> Iterator[str]:
    """Files below `path`, or `path` itself when it is a file."""
    found = ctx.workspace.stat(path)
    if found is None:
        raise ctx.workspace.missing(path)
    place = ctx.workspace.real_name(path)
    if ctx.workspace.resolve(path).is_file():
        yield path
        return
    for name in ctx.workspace.files():
        if place == "." or name.startswith(place + "/"):
            yield name


def _names(ctx: ToolContext, path: str) -> list[str]:
    """Files below `path` and the folders that lead to them, which end with a slash; sorted."""
    place = ctx.workspace.real_name(path)
    files = list(_files(ctx, path))
    folders = {f"{parent.as_posix()}/" for name in files for parent in PurePosixPath(name).parents if parent.name}
    return sorted([*files, *(name for name in folders if place == "." or name.startswith(place + "/"))])


def _has_part(name: str, part: str) -> bool:
    """Whether the last name of a path contains `part`; with a slash in `part`, the path."""
    whole = name.rstrip("/").casefold()
    wanted = part.strip("/").casefold()
    return wanted in (whole if "/" in wanted else whole.rsplit("/", 1)[-1])


def _glob(pattern: str) -> GitIgnoreSpec:
    """Matches like a line of .gitignore, names in lower case: `*.py` anywhere, `src/*.py` from the root."""
    if pattern.startswith(("!", "#")):
        pattern = f"\\{pattern}"
    try:
        return GitIgnoreSpec.from_lines([pattern.casefold()])
    except ValueError as error:
        raise ToolMisused(f"{pattern!r} is not a glob: {error}", hint="for example *.py or src/**/*.py") from None


def _must_be_something(pattern: str) -> None:
    if not pattern.strip():
        raise ToolMisused("the pattern is empty", hint="say what to look for")


def _go_on(ctx: ToolContext) -> None:
    if ctx.cancel.is_set():
        raise Cancelled("the search was stopped: cancelled")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
