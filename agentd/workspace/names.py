"""Which path texts may name something in a workspace: the lexical half of keeping inside it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from agentd.errors import Denied

MAX_NAME = 255
MAX_PATH = 4096
"""Bytes; what common file systems take."""

_DRIVE = re.compile(r"^[A-Za-z]:")
_RESERVED = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?$", re.IGNORECASE)
_REVERSING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def normal(path: str) -> str:
    """The path without `./`, doubled and trailing slashes; every other form, also a refused one, stays as it is."""
    lead = "/" if path.startswith("/") else ""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return lead + "/".join(parts) or "."


def parts_of(path: str, roots: Sequence[str]) -> tuple[str, ...]:
    """The names that lead from the root to `path`, none for the root itself; `Denied` for anything that may leave it.

    `roots` are the root's absolute forms (posix); an absolute path below one of them is taken as inside.
    The same texts are refused on every platform, so that a task means the same everywhere.
    """
    inside = _below(path, roots)
    wrong = _wrong_text(path) or (_wrong_form(path) if inside is None else "")
    parts = tuple(part for part in (path if inside is None else inside).split("/") if part not in ("", "."))
    if not wrong and parts and parts[0].startswith("~"):  # also behind "./", which would vanish
        wrong = "starts with '~'"
    for part in parts:
        wrong = wrong or wrong_name(part)
    if wrong:
        raise Denied(
            f"path {path[:200]!r} {wrong}; the workspace is {roots[0]}", hint="name a path below the workspace"
        )
    return parts


def wrong_name(name: str) -> str:
    """Why one name of a path is refused, or an empty text."""
    if name == "..":
        return "goes up with '..'"
    if "\\" in name:
        return "contains a backslash"
    if ":" in name:
        return "contains ':', a drive or a stream on Windows"
    if _RESERVED.match(name):
        return f"uses {name!r}, a device name on Windows"
    if name.endswith((".", " ")):
        return "has a name that ends with a dot or a space"
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        return f"has a name of more than {MAX_NAME} bytes"
    if _disguised(name):
        return f"uses {name!r}, another spelling of .git"
    return _wrong_text(name)


def _below(path: str, roots: Sequence[str]) -> str | None:
    """What follows the root in an absolute path, None when it does not start with one."""
    for root in roots:
        if path == root or path.startswith(root + "/"):
            return path[len(root) :]
    return None


def _wrong_text(path: str) -> str:
    if not path:
        return "is empty"
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        return f"is longer than {MAX_PATH} bytes"
    for char in path:
        if char in _REVERSING or unicodedata.category(char) in ("Cc", "Cs"):
            return f"contains the control character U+{ord(char):04X}"
    return ""


def _wrong_form(path: str) -> str:
    if path.startswith("/"):
        return "is absolute and outside"
    if path.startswith("\\") or _DRIVE.match(path):
        return "is an absolute Windows path"
    return ""


def _disguised(name: str) -> bool:
    """`.GIT` and `.g<zero-width joiner>it` open .git on file systems that ignore case or such characters."""
    if name == ".git":
        return False
    return "".join(c for c in name if unicodedata.category(c) != "Cf").casefold() == ".git"
