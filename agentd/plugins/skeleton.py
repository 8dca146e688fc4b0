"""The beginning of a plugin that a person writes: files that pass the gate as they are."""

from __future__ import annotations

import json

from agentd.plugins.folder import CODE, GUIDE, MANIFEST, TESTS
from agentd.plugins.spec import Example, Spec


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
        TESTS: f"import plugin\n\n\ndef test_words_are_counted():\n    assert plugin.{name}(text='a b  c') == 3\n",
        GUIDE: f"# {name}\n\nCounts the words of a text.\n",
        MANIFEST: json.dumps({"spec": spec.model_dump(mode="json")}, indent=2) + "\n",
    }
