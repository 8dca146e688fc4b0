"""Which public names a change took away or gave another signature, read off its diff."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from agentd.types import FileChange

_PUBLIC = re.compile(
    r"(?:async\s+)?(?:def|class)\s+(?P<python>[A-Za-z]\w*)"
    r"|export\s+(?:default\s+)?(?:async\s+)?(?:function\*?|class|const|let|interface|type|enum)\s+(?P<script>[A-Za-z$]\w*)"
    r"|func\s+(?:\([^)]*\)\s*)?(?P<go>[A-Z]\w*)"
    r"|pub\s+(?:async\s+)?(?:fn|struct|enum|trait|const)\s+(?P<rust>[A-Za-z]\w*)"
)


def changed_names(changes: Iterable[FileChange]) -> dict[str, str]:
    """Public names that no longer stand as they stood, and the file each was in. What is new is not among them."""
    return {name: change.path for change in changes for name in _names(change.diff)}


def _names(diff: str) -> Iterator[str]:
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    kept = {" ".join(line[1:].split()) for line in lines if line.startswith("+")}
    for line in lines:
        words = " ".join(line[1:].split())
        if line.startswith("-") and words not in kept and (found := _PUBLIC.match(words)):
            yield str(found[found.lastgroup or 0])
