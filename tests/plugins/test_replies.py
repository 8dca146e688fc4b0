"""What models reply instead of one file of Python, and what they are told of it."""

from __future__ import annotations

import pytest

from agentd.errors import BadReply
from agentd.plugins.replies import code_in


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("<think>hm</think>", "empty"),
        ("I cannot do that.", "only prose"),
        ("def f():\n    return 1\n", "bare code"),
        ("```python\ndef f():\n    return 1\n", "breaks off"),
        ("```python\nx = 1\n```\n```python\ndef f():\n    ret", "breaks off"),
        ("```bash\nls\n```", "is bash"),
        ("```python\na = 1\n```\nand\n```python\nb = 2\n```", "2 blocks"),
        ("```python\n\n```", "is empty"),
        ("x" * 1_000_000, "characters"),
        ("\x00\x01\x02", "only prose"),
        ("```a\n" * 50_000, "is a, not Python"),
    ],
)
def test_replies_that_are_no_file(reply: str, reason: str) -> None:
    with pytest.raises(BadReply, match=reason) as caught:
        code_in(reply)
    assert caught.value.hint


def test_what_was_cut_off_before_its_first_block_is_told_so() -> None:
    with pytest.raises(BadReply, match="breaks off"):
        code_in("First I would", cut=True)


def test_the_one_block_of_python_is_taken() -> None:
    assert code_in("Sure:\n```python\nx = 1\n```\nRun it with\n```bash\nls\n```") == "x = 1\n"
    assert code_in("<think>```python\ny\n```</think>~~~\nx = 1\n~~~") == "x = 1\n"
    assert code_in("```python\nx = 1\n```\nand so", cut=True) == "x = 1\n"
