"""Which files of a folder count: walks it once, outside .git, leaving out what .gitignore files name."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from agentd.workspace.names import wrong_name

GENERATED = (
    *("__pycache__/", "*.pyc", "node_modules/", ".venv/", ".agentd-*.tmp"),
    *(".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/"),
)
"""Left out unless a .gitignore takes them back with `!`: made by tools, never what a person means by "the files"."""

ReadText = Callable[[str], str]
"""Text of a small file by its path below the root; empty when it cannot be read."""

_Rules = tuple[tuple[str, GitIgnoreSpec], ...]


def walk(root: Path, read: ReadText, leads_to_file: Callable[[str], bool], limit: int, visits: int) -> Iterator[str]:
    """Paths below `root` (posix, files only), shallow folders first, names sorted; at most `limit`.

    Looks at no more than `visits` entries. Links to folders are not entered; a link is given where
    `leads_to_file` says so.
    """
    given = seen = 0
    generated: _Rules = (("", GitIgnoreSpec.from_lines(GENERATED)),)
    folders: deque[tuple[str, _Rules]] = deque([("", (*generated, *_rules("", read(".git/info/exclude"))))])
    while folders:
        base, rules = folders.popleft()
        entries = _entries(root / base)
        if any(entry.name == ".gitignore" for entry in entries):
            rules = (*rules, *_rules(base, read(base + ".gitignore")))
        for entry in entries:
            seen += 1
            if seen > visits:
                return
            path = base + entry.name
            folder = entry.is_dir(follow_symlinks=False)
            if entry.name == ".git" or wrong_name(entry.name) or _ignored(path + "/" * folder, rules):
                continue
            if folder:
                folders.append((path + "/", rules))
            elif entry.is_file(follow_symlinks=False) or (entry.is_symlink() and leads_to_file(path)):
                yield path
                given += 1
                if given >= limit:
                    return


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return ()


def _ignored(path: str, rules: _Rules) -> bool:
    """The deepest .gitignore that says something about `path` decides."""
    for base, spec in reversed(rules):
        include = spec.check_file(path[len(base) :]).include
        if include is not None:
            return include
    return False


def _rules(base: str, text: str) -> _Rules:
    return ((base, _spec(text)),) if text.strip() else ()


def _spec(text: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(text.splitlines())
    except ValueError:  # one pattern is malformed: git ignores that line alone
        return GitIgnoreSpec.from_lines(line for line in text.splitlines() if _sound(line))


def _sound(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
