"""The beginning of a plugin that a person writes: files that pass the gate as they are."""

from __future__ import annotations

import json

from agentd.plugins.folder import CODE, GUIDE, MANIFEST, TESTS
from agentd.plugins.spec import Example, Spec

_TESTS = """import plugin


def test_words_are_counted():
    assert plugin.NAME(text="a b  c") == 3


def test_nothing_has_no_words():
    assert plugin.NAME(text="") == 0


def test_blanks_are_no_words():
    assert plugin.NAME(text=" \\n\\t") == 0


def test_lines_count_as_well():
    assert plugin.NAME(text="one\\ntwo three\\nfour") == 4


def test_a_number_is_no_text():
    try:
        plugin.NAME(text=1)
    except plugin.Error:
        return
    assert plugin.NAME(text="") == 1, "it should have failed"
"""


def skeleton(name: str) -> dict[str, str]:
    """File name -> text, of a plugin `name` that counts words."""
    spec = Spec(
        name=name,
        purpose="Count the words of a text.",
        input={
            "type": "object",
            "properties": {"text": {"type": "string", "x-grounding": "text", "description": "what to count in"}},
            "required": ["text"],
        },
        output={"type": "integer", "minimum": 0},
        examples=(Example(args={"text": "one two"}, result=2), Example(args={"text": ""}, result=0)),
        requests=("How many words are in {text}?", "Count the words of {text}"),
    )
    return {
        CODE: f'def {name}(text):\n    """Count the words of a text."""\n    return len(text.split())\n',
        TESTS: _TESTS.replace("NAME", name),
        GUIDE: f"# {name}\n\nCounts the words of a text.\n",
        MANIFEST: json.dumps({"spec": spec.model_dump(mode="json")}, indent=2) + "\n",
    }
