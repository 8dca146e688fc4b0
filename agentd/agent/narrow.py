"""Which few tools to show for a text: those whose description, guide and examples share its words."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from agentd.agent.likeness import Likeness, cosine
from agentd.tools.tool import Tool


class Narrow:
    def __init__(self, tools: Iterable[Tool]) -> None:
        texts = [(tool, text) for tool in tools for text in _texts(tool)]
        self._likeness = Likeness(text for _, text in texts)
        self._texts = [(tool, self._likeness.vector(text)) for tool, text in texts]
        self._best = lru_cache(maxsize=256)(self._rank)

    def best(self, text: str, most: int) -> tuple[Tool, ...]:
        """At most `most` tools, the likeliest first."""
        return self._best(text[:2000])[:most]

    def _rank(self, text: str) -> tuple[Tool, ...]:
        wanted = self._likeness.vector(text)
        scores: dict[str, float] = {}
        tools = {}
        for tool, vector in self._texts:
            tools[tool.name] = tool
            scores[tool.name] = max(scores.get(tool.name, 0.0), cosine(wanted, vector))
        return tuple(sorted(tools.values(), key=lambda tool: -scores[tool.name]))


def _texts(tool: Tool) -> Iterable[str]:
    yield f"{tool.name.replace('_', ' ')} {tool.description}"
    yield from (example.partition(" :: ")[0] for example in tool.examples)
