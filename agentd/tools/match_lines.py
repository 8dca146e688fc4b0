"""Lines that match. Also a program (JSON from stdin to stdout) that needs the standard library only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable

MAX_LINE = 300
"""Characters shown of a line."""
MAX_MATCHED = 20_000
"""Characters of a line that are looked at."""

Place = Callable[[str], int]
"""Where in a line the first match is, -1 for none."""
Hit = tuple[str, int, str]
"""Path, line from 1, text of the line."""


def literal(wanted: str, ignore_case: bool) -> Place:
    folded = wanted.casefold()
    return (lambda line: line.casefold().find(folded)) if ignore_case else (lambda line: line.find(wanted))


def expression(pattern: str, ignore_case: bool) -> Place:
    """Raises `re.error`."""
    compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)

    def place(line: str) -> int:
        found = compiled.search(line[:MAX_MATCHED])
        return -1 if found is None else found.start()

    return place


def find(place: Place, texts: Iterable[tuple[str, str]], most: int) -> tuple[list[Hit], bool]:
    """The first `most` matching lines, and whether there are more."""
    hits: list[Hit] = []
    for name, text in texts:
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        for number, line in enumerate(lines, 1):
            at = place(line)
            if at >= 0:
                if len(hits) == most:
                    return hits, True
                hits.append((name, number, shown(line, at)))
    return hits, False


def shown(line: str, at: int) -> str:
    """The line without space around it, cut to the part around `at` when it is long."""
    if len(line) <= MAX_LINE:
        return line.strip()
    start = max(0, at - MAX_LINE // 3)
    part = line[start : start + MAX_LINE].strip()
    return ("…" if start else "") + part + ("…" if start + MAX_LINE < len(line) else "")


def main() -> None:
    asked = json.load(sys.stdin)
    try:
        place = expression(asked["pattern"], asked["ignore_case"])
    except (re.error, OverflowError, RecursionError) as error:
        json.dump({"error": str(error)}, sys.stdout)
        return
    hits, full = find(place, asked["texts"], asked["most"])
    json.dump({"hits": hits, "full": full}, sys.stdout)


if __name__ == "__main__":
    main()
