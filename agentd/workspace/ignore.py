"""Which files of a folder count: walks it once, outside .git, leaving out what .gitignore files name."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec
from pathspec.pattern import RegexPattern

from agentd.workspace.names import wrong_name

GENERATED = (
    *("__pycache__/", "*.pyc", "node_modules/", ".venv/", ".agentd-*.tmp"),
    *(".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/"),
)
"""Left out unless a .gitignore takes them back with `!`: made by tools, never what a person means by "the files"."""

ReadText = Callable[[str], str]
"""Text of a small file by its path below the root; empty when it cannot be read."""

_Patterns = tuple[RegexPattern, ...]
_Rules = tuple[tuple[str, _Patterns, _Patterns], ...]
"""Of each .gitignore where it lies, what it says of folders, and what it says of files. A pattern that ends in "/"
means a folder itself here, and no file: nobody looks into a folder that is ignored."""


def walk(root: Path, read: ReadText, leads_to_file: Callable[[str], bool], limit: int, visits: int) -> Iterator[str]:
    """Paths below `root` (posix, files only), shallow folders first, names sorted; at most `limit`.

    Looks at no more than `visits` entries. Links to folders are not entered; a link is given where
    `leads_to_file` says so.
    """
    given = seen = 0
    rules = (*_rules("", "\n".join(GENERATED)), *_rules("", read(".git/info/exclude")))
    folders: deque[tuple[str, _Rules]] = deque([("", rules)])
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
            if entry.name == ".git" or wrong_name(entry.name) or _ignored(path, folder, rules):
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


def _ignored(path: str, folder: bool, rules: _Rules) -> bool:
    """The deepest .gitignore that says something about `path` decides."""
    for base, of_folders, of_files in reversed(rules):
        name = path[len(base) :]
        for pattern in of_folders if folder else of_files:
            found = pattern.match_file(name)
            if found is not None and not found.match.groupdict().get("ps_d"):  # that is: a folder above it is meant
                return bool(pattern.include)
    return False


def _rules(base: str, text: str) -> _Rules:
    lines = [line.rstrip(" ") if line.rstrip(" ").endswith("/") else line for line in text.splitlines()]
    of_folders = [line.removesuffix("/") for line in lines]
    of_files = [line for line in lines if not line.endswith("/")]
    return ((base, _patterns(of_folders), _patterns(of_files)),) if text.strip() else ()


def _patterns(lines: Sequence[str]) -> _Patterns:
    """The last first, for it decides. A malformed line is left out, as git does."""
    spec = GitIgnoreSpec.from_lines(line for line in lines if _sound(line))
    return tuple(each for each in reversed(list(spec.patterns)) if each.include is not None)


def _sound(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
