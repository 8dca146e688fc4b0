"""Fenced blocks in what models write."""

from __future__ import annotations

import time

import pytest

from agentd.fences import Block, blocks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prose", []),
        ("```python\nx\n```", [Block("python", "x\n", True)]),
        ("~~~\r\nx\r\n~~~\r\n", [Block("", "x\r\n", True)]),
        ("```\nx", [Block("", "x\n", False)]),
        ("````md\n```\nx\n```\n````", [Block("md", "```\nx\n```\n", True)]),
        ("```py\n'''\n    ```\n'''\n```", [Block("py", "'''\n    ```\n'''\n", True)]),
        ("  ```py\n  x\n  ```", [Block("py", "  x\n", True)]),
        ("it is ```x``` here\n```x```", []),
        ("```a\n1\n```\n~~~b\n2\n~~~", [Block("a", "1\n", True), Block("b", "2\n", True)]),
    ],
)
def test_blocks(text: str, expected: list[Block]) -> None:
    assert blocks(text) == expected


@pytest.mark.parametrize("text", ["```a\n" * 100_000, "`" * 500_000, "\t" * 500_000, "```\n~~~\n" * 50_000])
def test_odd_text_takes_no_time(text: str) -> None:
    started = time.monotonic()
    blocks(text)
    assert time.monotonic() - started < 2
