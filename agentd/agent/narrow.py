"""Which few tools to show for a text: those whose description, guide and examples share its words."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from agentd.agent.likeness import Likeness, cosine
from agentd.tools.tool import Tool


class Narrow:
    """Tools come and go: what was learnt about a set of them is kept while it stays the same."""

    def __init__(self) -> None:
        self._among = lru_cache(maxsize=4)(_Ranking)

    def best(self, text: str, most: int, tools: Iterable[Tool]) -> tuple[Tool, ...]:
        """At most `most` of the tools, the likeliest first."""
        return self._among(tuple(tools)).best(text[:2000])[:most]


class _Ranking:
    def __init__(self, tools: tuple[Tool, ...]) -> None:
        texts = [(tool, text) for tool in tools for text in _texts(tool)]
        self._likeness = Likeness(text for _, text in texts)
        self._texts = [(tool, self._likeness.vector(text)) for tool, text in texts]
        self.best = lru_cache(maxsize=256)(self._rank)

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
